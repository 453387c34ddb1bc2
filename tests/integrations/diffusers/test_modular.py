"""Modular pipelines of diffusers as graphs of their blocks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers
from diffusers.modular_pipelines.modular_pipeline_utils import InputParam, OutputParam
from torch import Tensor

from tests.integrations.diffusers import tiny, tiny_prompted
from wgtorch.core.errors import ConfigError, StructureError
from wgtorch.graph import Graph

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of their code, about numpy 2
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
CALL = {"prompt": "the cat", "num_inference_steps": 3, "output_type": "pt", "height": 16, "width": 16}


def modular(blocks: Any, components: dict[str, Any]) -> Any:
    pipeline = blocks.init_pipeline()
    wanted = pipeline._component_specs
    pipeline.update_components(**{name: part for name, part in components.items() if name in wanted})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return modular(diffusers.StableDiffusionXLAutoBlocks(), tiny.stable_diffusion_xl(tmp_path_factory.mktemp("xl")).components)


def theirs(pipeline: Any, **call: Any) -> Tensor:
    torch.manual_seed(3)
    return pipeline(**call, output="images")


def ours(graph: Graph, **call: Any) -> Tensor:
    torch.manual_seed(3)
    return graph.run(call)["images"]


def test_stable_diffusion_xl(xl: Any) -> None:
    graph = Graph.from_modular(xl, example=CALL)
    assert {"text_encoder", "vae_encoder", "decode"} <= set(graph.nodes) and len(graph.nodes) > 4
    assert graph.nodes["decode"].get_output_spec()["images"].description
    torch.testing.assert_close(ours(graph, **CALL), theirs(xl, **CALL), rtol=0, atol=1e-4)
    other = {**CALL, "prompt": "a dog", "negative_prompt": "the cat", "num_inference_steps": 5}
    torch.testing.assert_close(ours(graph, **other), theirs(xl, **other), rtol=0, atol=1e-4)
    picture = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(5))  # the blocks choose another way
    changed = {**CALL, "image": picture, "strength": 0.6}
    torch.testing.assert_close(ours(graph, **changed), theirs(xl, **changed), rtol=0, atol=1e-4)


def test_models_are_shared_and_schedulers_are_a_runs_own(xl: Any) -> None:
    graph = Graph.from_modular(xl, example=CALL)
    assert any(parameter is next(xl.unet.parameters()) for parameter in graph.parameters())
    before = dict(vars(xl.scheduler))
    calls = [{**CALL, "num_inference_steps": count} for count in (2, 4)]
    alone = [graph.run(call, seed=1)["images"] for call in calls]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda call: graph.run(call, seed=1)["images"], calls))
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))
    assert vars(xl.scheduler).keys() == before.keys() and xl.scheduler.num_inference_steps == before["num_inference_steps"]
    with pytest.raises(StructureError, match="save_pretrained"):
        graph.to_config()


def test_z_image() -> None:
    pipeline = modular(diffusers.ZImageAutoBlocks(), tiny_prompted.z_image().components)
    call = {**CALL, "max_sequence_length": 16}
    graph = Graph.from_modular(pipeline, example=call)
    torch.testing.assert_close(ours(graph, **call), theirs(pipeline, **call), rtol=0, atol=1e-4)


class Secretive(diffusers.ModularPipelineBlocks):
    """Remembers how often it was called, which no graph can know."""

    calls = 0

    @property
    def inputs(self) -> list[Any]:
        return [InputParam("start", default=1.0)]

    @property
    def intermediate_outputs(self) -> list[Any]:
        return [OutputParam("found")]

    def __call__(self, components: Any, state: Any) -> Any:
        block_state = self.get_block_state(state)
        type(self).calls += 1
        block_state.found = torch.tensor([block_state.start + self.calls])
        self.set_block_state(state, block_state)
        return components, state


def test_what_is_not_equal_is_refused_by_name(xl: Any, tmp_path: Path) -> None:
    pipeline = Secretive().init_pipeline()
    with pytest.raises(ConfigError, match=r"pipeline_block \(Secretive\) gives another 'found' than in the pipeline itself"):
        Graph.from_modular(pipeline, example={"start": 2.0})
    with pytest.raises(ConfigError, match="expected a ModularPipeline of diffusers"):
        Graph.from_modular(tiny.stable_diffusion(tmp_path), example={})
    with pytest.raises(ConfigError, match="example: .*did you mean 'prompt'"):
        Graph.from_modular(xl, example={"promt": "a"})
