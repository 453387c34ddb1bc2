"""A picture that the describer cannot read back is painted once more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from wgtorch.blocks.simulation import repainting
from wgtorch.core.errors import ConfigError
from wgtorch.templates.world import creator
from wgtorch.world import World


def painted(monkeypatch: pytest.MonkeyPatch, faults: Iterator[int] | None) -> Tensor:
    """The picture of a world, where descriptions are found to miss so many things, one answer after the other."""
    if faults is not None:
        monkeypatch.setattr(repainting, "wrong", lambda scene, attributes: next(faults))
    world = World.from_template("default", larger=False, steps=1, repaint=faults is not None)
    artifacts: Any = world.run(num_steps=1, seed=5).artifacts
    return artifacts[0]


def test_a_misread_picture_is_painted_once_more_and_the_better_one_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = painted(monkeypatch, None)
    fine = painted(monkeypatch, iter([0]))
    assert torch.equal(plain, fine)
    kept = painted(monkeypatch, iter([2, 1, 2]))  # misread; the second try misses one thing, the first two
    assert kept.shape == plain.shape and not torch.equal(kept, plain)
    first = painted(monkeypatch, iter([2, 2, 2]))  # no better: the first stays
    assert torch.equal(first, plain)


def test_the_models_stand_there_once_and_other_painters_do_not_repaint() -> None:
    once, twice = creator(steps=1, larger=False), creator(steps=1, larger=False, repaint=True)
    painter = [name for name, _ in once.named_parameters()]
    assert len([name for name, _ in twice.named_parameters() if "backbone" in name]) == len(
        [name for name in painter if "backbone" in name]
    )
    with pytest.raises(ConfigError, match="repaint is an option of painter='pixels'"):
        creator(painter="scenes", repaint=True)
