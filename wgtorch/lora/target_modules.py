"""Which layers of a block take an adapter, and which of them ``target_modules`` names."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, cast

from torch import nn

from wgtorch.lora.adapted_module import adapted_module, base_of, has_copies, layers_of

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def adaptable(block: Any) -> dict[str, nn.Module]:
    """Layers of a block that can take an adapter, by their path in the model."""
    model = adapted_module(block)
    adapted = dict(layers_of(model))
    closed = [f"{path}." for path in adapted]
    closed += [f"{path}." if path else "" for path, part in model.named_modules() if isinstance(part, nn.MultiheadAttention)]
    found: dict[str, nn.Module] = {}
    for path, part in model.named_modules():
        inner = part
        if path in adapted:
            if has_copies(adapted[path]):
                continue
            inner = base_of(adapted[path])
        if path and _takes_one(inner) and not any(path.startswith(prefix) for prefix in closed):
            found[path] = inner
    return found


def chosen_layers(block: Any, target_modules: str | Sequence[str] | None, copied: Sequence[str] = ()) -> list[str]:
    """Paths of the layers that are meant: by default linear ones (attention's among them), without a language model's head.

    Args:
        block: the block.
        target_modules: names that a path is or ends with, or one regular expression for whole paths, as in PEFT.
        copied: what the paths of modules end with that are copied whole; by default nothing in them is meant.
    """
    layers = adaptable(block)
    if target_modules is None or target_modules == "all-linear":
        heads = {id(head) for head in _heads(adapted_module(block))}
        whole = [path for path, _ in adapted_module(block).named_modules() if path.endswith(tuple(copied))]
        inside = tuple(f"{path}." for path in whole)
        return [
            path for path, layer in layers.items() if _is_linear(layer) and id(layer) not in heads and not f"{path}.".startswith(inside)
        ]
    return [path for path in layers if matches(path, target_modules)]


def matches(path: str, target_modules: str | Sequence[str]) -> bool:
    """True when PEFT would take a layer for meant."""
    if isinstance(target_modules, str):
        return re.fullmatch(target_modules, path) is not None
    return any(path == name or path.endswith(f".{name}") for name in target_modules)


def as_peft_says(block: Any, chosen: Sequence[str], target_modules: str | Sequence[str] | None) -> str | set[str]:
    """What names exactly these layers to PEFT: the user's own words where they do."""
    others = {path for path, _ in adapted_module(block).named_modules()} - set(chosen)
    for words in (target_modules if target_modules != "all-linear" else None, list(chosen)):
        if words and all(matches(path, words) for path in chosen) and not any(matches(path, words) for path in others):
            return words if isinstance(words, str) else set(words)
    return "|".join(re.escape(path) for path in chosen)


def sizes(layer: nn.Module) -> tuple[int, int]:
    """(width of what goes into a layer that takes an adapter, width of what comes out)."""
    first, second = cast(Any, layer).weight.shape[:2]
    return (second, first) if isinstance(layer, (nn.Linear, *_CONVOLUTIONS)) else (first, second)  # embeddings, transformers' Conv1D


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
