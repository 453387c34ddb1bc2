"""First-block caching: where the first block of a transformer changes little from step to step, the others are not run.

(ParaAttention's First Block Cache, https://github.com/chengzeyi/ParaAttention, as ``diffusers.hooks.first_block_cache`` has it. There
the state is kept in the model; here it travels round the loop as a value of the run, so that threads may share the model.)
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple

from torch import Tensor, nn

from wgtorch.blocks.diffusion.guidance.gradient import built, config_with_blocks
from wgtorch.core.block import Block, register_block
from wgtorch.core.errors import ConfigError, require
from wgtorch.core.port import Port
from wgtorch.graph import Graph
from wgtorch.roles import Backbone


class StepCache(NamedTuple):
    """What a step leaves for the next.

    Args:
        residual: what the first block added when all blocks ran last.
        tail: what the others added then: to the picture's tokens, and to the text's where they have such.
        skipped: steps since then, in a row.
    """

    residual: Tensor
    tail: tuple[Tensor | None, Tensor | None]
    skipped: int = 0


class _Pass:
    """One call of a transformer."""

    def __init__(self, threshold: float, step_cache: StepCache | None) -> None:
        self.threshold, self.step_cache = threshold, step_cache
        self.runs_all = True
        self.residual: Any = None
        self.head: tuple[Any, Any] = (None, None)
        self.after: StepCache | None = None


_NOW: ContextVar[_Pass | None] = ContextVar("first_block_cache", default=None)


class _Caching:
    """Stands in a transformer block's ``forward``; without a pass it is that."""

    def __init__(self, block: nn.Module, place: str) -> None:
        helpers: Any = require("diffusers.hooks._helpers", "diffusers")
        self.original = block.forward
        self.place = place
        try:
            self.known = helpers.TransformerBlockRegistry.get(type(block))
        except ValueError:  # not diffusers' own: tokens first, and tokens out
            first = next(iter(inspect.signature(block.forward).parameters))
            self.known = helpers.TransformerBlockMetadata(hidden_states_argument_name=first, _cls=type(block))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        now = _NOW.get()
        if now is None:
            return self.original(*args, **kwargs)
        if self.place == "head":
            return self._head(now, args, kwargs)
        if not now.runs_all:
            return self._joined(self._given("hidden_states", args, kwargs), self._given("encoder_hidden_states", args, kwargs))
        output = self.original(*args, **kwargs)
        if self.place == "tail":
            here = self._parts(output)
            tail = tuple(None if one is None or first is None else one - first for one, first in zip(here, now.head, strict=True))
            now.after = StepCache(now.residual, tail)  # type: ignore[arg-type]
        return output

    def _head(self, now: _Pass, args: Any, kwargs: Any) -> Any:
        output = self.original(*args, **kwargs)
        hidden, text = self._parts(output)
        residual = hidden - self._given("hidden_states", args, kwargs)
        step_cache = now.step_cache
        if step_cache is not None and step_cache.residual.shape == residual.shape:
            change = (residual - step_cache.residual).abs().mean() / step_cache.residual.abs().mean()
            if float(change) <= now.threshold:
                now.runs_all, now.after = False, step_cache._replace(skipped=step_cache.skipped + 1)
                text = text if text is None or step_cache.tail[1] is None else text + step_cache.tail[1]
                return self._joined(hidden + step_cache.tail[0], text)
        now.residual, now.head = residual, (hidden, text)
        return output

    def _parts(self, output: Any) -> tuple[Any, Any]:
        """The picture's tokens and the text's of what a block gives."""
        if not isinstance(output, tuple):
            return output, None
        text = self.known.return_encoder_hidden_states_index
        return output[self.known.return_hidden_states_index], None if text is None else output[text]

    def _joined(self, hidden: Any, text: Any) -> Any:
        """What a block gives."""
        if self.known.return_encoder_hidden_states_index is None:
            return hidden
        found: list[Any] = [None, None]
        found[self.known.return_hidden_states_index], found[self.known.return_encoder_hidden_states_index] = hidden, text
        return tuple(found)

    def _given(self, name: str, args: Any, kwargs: Any) -> Any:
        if name == "encoder_hidden_states" and self.known.return_encoder_hidden_states_index is None:
            return None
        called = self.known.hidden_states_argument_name if name == "hidden_states" else name
        return self.known._get_parameter_from_args_kwargs(called, args, kwargs)


def _install(model: nn.Module, where: str) -> None:
    """Makes a model's transformer blocks look whether they are in a pass.

    Raises:
        ConfigError: it has no two transformer blocks in a row.
    """
    common: Any = require("diffusers.hooks._common", "diffusers")
    lists = [child for name, child in model.named_children() if name in common._ALL_TRANSFORMER_BLOCK_IDENTIFIERS]
    blocks = [block for each in lists if isinstance(each, nn.ModuleList) for block in each]
    if len(blocks) < 2:
        raise ConfigError(f"{where}: {type(model).__name__} has {len(blocks)} transformer blocks in a row; first-block caching wants two")
    if isinstance(blocks[0].forward, _Caching):
        return
    for k, block in enumerate(blocks):
        block.forward = _Caching(block, "head" if k == 0 else "tail" if k + 1 == len(blocks) else "middle")  # type: ignore[method-assign]


@register_block("cache/first_block")
class FirstBlockCache(Backbone):
    """A backbone that runs its first block alone where that has changed little since all blocks ran last.

    :func:`cache_first_block` puts it in a graph. What a step leaves goes round the loop, from ``step_cache`` to ``step_cache``.

    Args:
        backbone: config of the block it is around, with a transformer: of diffusers, or with a list ``blocks`` of modules that make
            tokens of tokens.
        threshold: mean change of the first block's residual, as a share of it, up to which the others are not run.
    """

    uses_global_rng = False
    compiles = False  # what is run depends on values
    inputs: Mapping[str, Any] = {"step_cache": Port(description="what the step before left")}
    outputs: Mapping[str, Any] = {"step_cache": Port(optional=True, description="what the next step takes")}

    def __init__(self, *, backbone: Mapping[str, Any] | Block, threshold: float = 0.05) -> None:
        super().__init__()
        self.backbone = built(backbone)
        self.threshold = threshold
        self.inputs = {**self.backbone.get_input_spec(), **type(self).inputs}  # type: ignore[misc]
        _install(getattr(self.backbone, "model", self.backbone), "FirstBlockCache")

    def to_config(self) -> dict[str, Any]:
        return config_with_blocks(self)

    def forward(self, latent: Tensor, timestep: Any, step_cache: StepCache | None = None, **inputs: Any) -> dict[str, Any]:
        """``pred`` as of the backbone, and ``step_cache`` for the next step.

        Args:
            inputs: the backbone's others.
        """
        now = _Pass(self.threshold, step_cache)
        token = _NOW.set(now)
        try:
            found = self.backbone(latent=latent, timestep=timestep, **inputs)
        finally:
            _NOW.reset(token)
        return {**found, "step_cache": now.after}


def cache_first_block(graph: Graph, threshold: float = 0.05) -> list[str]:
    """Lets a graph's transformers skip all but their first block where that changes little, with one call; returns their nodes.

    It is an approximation; ``scripts/bench/first_block_cache.py`` shows what it saves and costs. With guidance in one batch both sides
    decide together; pipelines of diffusers with ``enable_cache`` decide for each, as ``from_diffusers(batched=False)`` does.

    Example:
        >>> graph = Graph.from_diffusers("models/flux", batched=False)
        >>> cache_first_block(graph, threshold=0.1)

    Args:
        graph: of a pipeline with a transformer.
        threshold: mean change of the first block's residual, as a share of it.

    Raises:
        ConfigError: it has no backbone that can.
    """
    nodes = [
        name for name, block in graph.nodes.items() if getattr(block, "role", "") == "backbone" and not isinstance(block, FirstBlockCache)
    ]
    if not nodes:
        raise ConfigError(f"cache_first_block: {graph.block_id} has no backbone without such a cache; it has {', '.join(graph.nodes)}")
    for name in nodes:
        graph.replace_node(name, FirstBlockCache(backbone=graph.nodes[name], threshold=threshold))
        graph.add_edge(f"{name}.step_cache", f"{name}.step_cache")
    return nodes
