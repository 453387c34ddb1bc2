"""First-block caching: what diffusers' own hooks give, with the state of each run to itself."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from tests.integrations.diffusers import tiny
from tests.integrations.diffusers.comparing import NEGATIVE, PROMPT, ours, theirs
from wgtorch.core.errors import ConfigError
from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.first_block_cache import cache_first_block

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of their code, about numpy 2
WAN: dict[str, Any] = {
    "prompt": PROMPT, "negative_prompt": NEGATIVE, "num_inference_steps": 8, "max_sequence_length": 16, "num_frames": 5, "height": 16,
    "width": 16,
}  # fmt: skip
FLUX: dict[str, Any] = {"prompt": PROMPT, "num_inference_steps": 8, "max_sequence_length": 16, "height": 16, "width": 16}


def skipped(graph: Graph, call: dict[str, Any]) -> int:
    """Steps at ``backbone`` that ran its first block alone."""
    seen: list[Any] = []

    def watch(event: Any) -> None:
        if event.kind == "end" and event.path == "backbone":
            seen.append(event.outputs["step_cache"].skipped)

    torch.manual_seed(3)
    graph.run(call, callbacks=[watch])
    return sum(count > 0 for count in seen)


@pytest.mark.parametrize("family", ["wan", "flux"])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 1e6])
def test_as_the_hooks_of_diffusers(family: str, threshold: float, tmp_path: Path) -> None:
    from diffusers.hooks import FirstBlockCacheConfig

    pipeline = tiny.wan() if family == "wan" else tiny.flux(tmp_path)
    call, task = (WAN, "text_to_video") if family == "wan" else (FLUX, "text_to_image")
    graph = Graph.from_diffusers(pipeline, task=task, batched=False)
    plain = ours(graph, **call)
    nodes = cache_first_block(graph, threshold)
    assert nodes == (["backbone", "negative_backbone"])
    found = ours(graph, **call)
    count = skipped(graph, call)
    assert count == {0.0: 0, 1e6: 7}.get(threshold, count)
    assert torch.equal(found, plain) == (count == 0)
    torch.testing.assert_close(ours(graph, **call), found, rtol=0, atol=0)  # nothing of a run is left in the model
    uncached = Graph.from_diffusers(pipeline, task=task, batched=False)
    assert torch.equal(ours(uncached, **call), plain), "without the node the model does what it did"
    their = tiny.wan() if family == "wan" else tiny.flux(tmp_path / "again")
    their.transformer.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    torch.testing.assert_close(found, theirs(their, **call), rtol=0, atol=1e-4)


def test_runs_in_threads_keep_apart_and_a_copy_is_its_own() -> None:
    graph = Graph.from_diffusers(tiny.wan(), task="text_to_video")
    cache_first_block(graph, 0.3)
    expected = [graph.run(WAN, seed=seed)["video"] for seed in range(3)]
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda seed: graph.run(WAN, seed=seed)["video"], range(3)))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    clone = graph.clone_node("backbone")
    assert clone.backbone.model.blocks[0].forward.original.__self__ is clone.backbone.model.blocks[0]


def test_what_has_no_transformer_is_refused(tmp_path: Path) -> None:
    graph = Graph.from_diffusers(tiny.stable_diffusion(tmp_path))
    with pytest.raises(ConfigError, match="UNet2DConditionModel has 0 transformer blocks in a row"):
        cache_first_block(graph)
    with pytest.raises(ConfigError, match="has no backbone without such a cache"):
        cache_first_block(Graph("empty"))
