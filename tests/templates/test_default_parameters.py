"""The default world is built with what people write, and says which parameter does not fit."""

from __future__ import annotations

import pytest

from wgtorch.core.errors import ConfigError
from wgtorch.world import World


def test_the_smallest_default_world_paints_small_pictures() -> None:
    world = World.from_template("default", larger=False, steps=1)
    state = world.run(num_steps=1, seed=5)
    assert max(state.artifacts[0].shape[-2:]) == 64


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("larger", "maybe"),
        ("traveller", 5),
        ("places", "many"),
        ("steps", "ten"),
        ("story", ["once"]),
        ("characters", 2.5),
        ("reader", None),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(parameter: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        World.from_template("default", **{parameter: value})
    assert parameter in str(caught.value)
