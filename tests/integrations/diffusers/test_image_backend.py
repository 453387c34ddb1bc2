"""An image generator whose weights are here has the ports of one behind an API."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.integrations.diffusers import tiny
from wgtorch import BlockRegistry, Graph
from wgtorch.core.errors import PortError

pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sd")
    tiny.stable_diffusion(place).save_pretrained(place / "saved")
    return place / "saved"


def test_it_paints_what_the_graph_of_the_folder_paints_and_repeats_with_the_seed(folder: Path) -> None:
    options = {"num_inference_steps": 2, "guidance_scale": 1.0}
    config = {"checkpoint_ref": str(folder), "width": 16, "height": 16, "options": options}
    block = BlockRegistry.build({"block_type": "image_generator/local", "config": config})
    graph = Graph("g")
    graph.add_node(block, "paint")
    graph.expose_input("paint", "prompt")
    graph.expose_output("paint", "image")
    first, second = (graph.run({"prompt": ["a cat", "a dog"]}, seed=3)["image"] for _ in range(2))
    assert first.shape == (2, 3, 16, 16) and torch.equal(first, second) and not torch.equal(first[0], first[1])
    assert float(first.min()) >= 0 and float(first.max()) <= 1 and not block.is_async
    assert any(name.startswith("model.") for name in block.state_dict())
    direct = Graph.from_diffusers(str(folder)).run({"prompt": "a cat", "width": 16, "height": 16, **options}, seed=block_seed(3))
    torch.testing.assert_close(direct["image"], first[:1])
    with pytest.raises(PortError, match="expected a prompt alone for task 'text_to_image'"):
        block(prompt="x", image=torch.rand(3, 16, 16))


def block_seed(seed: int) -> int:
    from wgtorch.core.run.context import RunContext, RunOptions
    from wgtorch.core.run.rng import check_seed

    return RunContext(RunOptions("g"), key=check_seed(seed, "g")).rng("paint").seed()
