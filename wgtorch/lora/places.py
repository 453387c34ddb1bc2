"""Which places and blocks are meant, and which layers of a block take an adapter."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from wgtorch.core.errors import StructureError
from wgtorch.core.tree import is_level, levels, walk
from wgtorch.lora.context import wearer_of
from wgtorch.lora.peft_model import layers_of

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True, slots=True)
class Place:
    """A block at a node; ``level`` is None for a block that was given alone."""

    level: Any
    node_id: str
    path: str
    block: Any


def places_of(target: Any, nodes: Iterable[str] | None = None) -> list[Place]:
    """Places of blocks, each once: at or below ``nodes``, all of the target's by default; or the block that the target is.

    Raises:
        UnknownNameError: there is no such node.
        StructureError: nodes of a block, which has none.
    """
    if not is_level(target):
        if nodes is not None:
            raise StructureError(f"{target.block_id}: is a block and has no nodes {list(nodes)}; leave nodes out")
        return [Place(None, "", target.block_id, target)]
    found: dict[tuple[int, str], Place] = {}
    for start in ("",) if nodes is None else [nodes] if isinstance(nodes, str) else nodes:
        above = start.rpartition("/")[0]
        for below, child, level in walk(target.find(start) if start else target, repeats=0):
            path = f"{start}/{below}".strip("/")
            level, node_id = level or (target.find(above) if above else target), path.rpartition("/")[2]
            if not is_level(child):
                found.setdefault((id(level), node_id), Place(level, node_id, path, child))
    return list(found.values())


def unique_blocks(places: Iterable[Place]) -> list[Place]:
    """The first place of every model; blocks that stand around one model count once."""
    return list({id(wearer_of(place.block)): place for place in reversed(list(places))}.values())[::-1]


def look_again(target: Any) -> None:
    """Has levels plan anew where blocks got their first adapter or lost their last."""
    for level in levels(target):
        level.look_again()


# --- layers -----------------------------------------------------------------------------------------------------------


def adaptable(block: Any) -> dict[str, nn.Module]:
    """Layers of a block that can take an adapter, by their path in the model."""
    model = wearer_of(block)
    adapted = dict(layers_of(model))
    closed = [f"{path}." for path in adapted]
    closed += [f"{path}." if path else "" for path, part in model.named_modules() if isinstance(part, nn.MultiheadAttention)]
    found: dict[str, nn.Module] = {}
    for path, part in model.named_modules():
        inner = adapted[path].get_base_layer() if path in adapted else part
        if path and _takes_one(inner) and not any(path.startswith(prefix) for prefix in closed):
            found[path] = inner
    return found


def chosen_layers(block: Any, target_modules: str | Sequence[str] | None) -> list[str]:
    """Paths of the layers that are meant: by default linear ones (attention's among them), without a language model's head.

    Args:
        block: the block.
        target_modules: names that a path is or ends with, or one regular expression for whole paths, as in PEFT.
    """
    layers = adaptable(block)
    if target_modules is None or target_modules == "all-linear":
        heads = {id(head) for head in _heads(wearer_of(block))}
        return [path for path, layer in layers.items() if _is_linear(layer) and id(layer) not in heads]
    return [path for path in layers if matches(path, target_modules)]


def matches(path: str, target_modules: str | Sequence[str]) -> bool:
    """True when PEFT would take a layer for meant."""
    if isinstance(target_modules, str):
        return re.fullmatch(target_modules, path) is not None
    return any(path == name or path.endswith(f".{name}") for name in target_modules)


def as_peft_says(block: Any, chosen: Sequence[str], target_modules: str | Sequence[str] | None) -> str | set[str]:
    """What names exactly these layers to PEFT: the user's own words where they do."""
    others = {path for path, _ in wearer_of(block).named_modules()} - set(chosen)
    for words in (target_modules if target_modules != "all-linear" else None, list(chosen)):
        if words and all(matches(path, words) for path in chosen) and not any(matches(path, words) for path in others):
            return words if isinstance(words, str) else set(words)
    return "|".join(re.escape(path) for path in chosen)


def _takes_one(layer: nn.Module) -> bool:
    return _is_linear(layer) or isinstance(layer, (*_CONVOLUTIONS, nn.Embedding))


def _is_linear(layer: nn.Module) -> bool:
    transformers = sys.modules.get("transformers.pytorch_utils")  # its Conv1D is a linear layer written the other way round
    return isinstance(layer, nn.Linear) or (transformers is not None and isinstance(layer, transformers.Conv1D))


def _heads(model: nn.Module) -> Iterator[nn.Module]:
    """Output layers of language models, whose weights are often those of the embedding."""
    for part in model.modules():
        ask: Any = getattr(type(part), "get_output_embeddings", None)
        try:
            head = None if ask is None else ask(part)
        except (AttributeError, NotImplementedError):
            continue
        if isinstance(head, nn.Module):
            yield head
