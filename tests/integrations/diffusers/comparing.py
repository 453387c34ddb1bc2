"""The same run of a diffusers pipeline and of a graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wgtorch.graph import Graph

CLOSE = 1e-4
PROMPT, NEGATIVE = "the cat", "a dog"


def theirs(pipeline: Any, *, seed: int = 3, **call: Any) -> Tensor:
    """The pipeline's images [B, 3, H, W], or videos [B, T, 3, H, W]."""
    pipeline.set_progress_bar_config(disable=True)
    torch.manual_seed(seed)
    fresh = {name: list(value) if isinstance(value, list) else value for name, value in call.items()}  # some write into their prompts
    found = pipeline(output_type="np", **fresh)
    return torch.from_numpy(found.frames if hasattr(found, "frames") else found.images).movedim(-1, -3)


def ours(graph: Graph, *, seed: int = 3, **call: Any) -> Tensor:
    """The graph's."""
    torch.manual_seed(seed)
    (found,) = graph.run(call).values()
    return found


def check_equal(pipeline: Any, graph: Graph, *, tolerance: float = CLOSE, **call: Any) -> Tensor:
    """Both draw from PyTorch's global generator with the same seed, so their noise is the same."""
    expected, found = theirs(pipeline, **call), ours(graph, **call)
    assert expected.std() > 0.03, "a flat picture proves nothing"
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
    return found


def picture(size: int, batch: int = 1, seed: int = 5) -> Tensor:
    """A picture [B, 3, S, S] in [0, 1]."""
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def half_mask(size: int) -> Tensor:
    """A mask [1, 1, S, S] that is 1 on the right."""
    mask = torch.zeros(1, 1, size, size)
    mask[..., size // 2 :] = 1
    return mask
