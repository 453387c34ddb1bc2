"""Keys and values of a prompt's beginning, kept for the next prompt that begins with the same tokens."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.errors import require
from wgtorch.integrations.transformers.weight_sums import WeightSums

CHUNK = 64
"""Tokens that are read at once. A prompt's beginning is kept in whole chunks and always read in the same ones, so an answer is the
same to the last bit whether its beginning was kept or not."""


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """The beginning of a prompt.

    Args:
        ids: its tokens, a multiple of :data:`CHUNK`.
        probe: what told the model when it was read.
        layers: keys and values [1, heads, tokens, D] of each layer.
    """

    ids: tuple[int, ...]
    probe: bytes
    layers: tuple[tuple[Tensor, Tensor], ...]


class PrefixCache:
    """What a model has read of earlier prompts; may be used from several threads.

    It is used where the model is still the same: same weights, by their sums, and same adapters in use, hooks and whatever else acts on
    them, by what the model says of the prompt's first two tokens. Both together cost about as much as writing two tokens.

    Args:
        limit: most tokens that are kept, of all prompts together; 0 keeps none. A token takes 2 x layers x key-value heads x
            head size numbers: 23 KB in SmolLM2-135M and bfloat16.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._cached: list[_Kept] = []  # the one used last at the end
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> PrefixCache:
        return PrefixCache(self.limit)

    def __reduce__(self) -> tuple[Any, ...]:
        return PrefixCache, (self.limit,)

    def read(self, model: Any, ids: Tensor, sums: WeightSums | None = None) -> tuple[dict[str, Any], int]:
        """Reads all whole chunks of a prompt but its end, those that are kept excepted.

        Args:
            model: of transformers, with keys and values of every token in every layer.
            ids: of one prompt, [1, L].
            sums: of its weights as they are now; computed where left out.

        Returns:
            The model's argument with what was read, to go on with; none where it keeps something else. And how many tokens were
            kept from before.
        """
        cache = _empty_cache(model)
        if cache is None:
            return {}, 0
        tokens, name = ids[0].tolist(), _argument(model)
        whole = (len(tokens) - 1) // CHUNK * CHUNK  # the last token is read when the answer begins
        if not self.limit or not whole:
            return {name: cache}, 0
        with torch.no_grad():
            probe = _probe(model, ids[:, :2]) + (sums or WeightSums()).digest(model)
            found, known = self._find(tokens, probe, ids.device)
            if found is not None:
                for index, (keys, values) in enumerate(found.layers):
                    cache.update(keys[:, :, :known], values[:, :, :known], index)
            for at in range(known, whole, CHUNK):
                model(input_ids=ids[:, at : at + CHUNK], use_cache=True, logits_to_keep=1, **{name: cache})
        if known < whole:
            end = min(whole, self.limit // CHUNK * CHUNK)
            layers = tuple((layer.keys[:, :, :end], layer.values[:, :, :end]) for layer in cache.layers)
            self._keep(_Kept(tuple(tokens[:end]), probe, layers), found, known)
        return {name: cache}, known

    def _find(self, tokens: Sequence[int], probe: bytes, device: torch.device) -> tuple[_Kept | None, int]:
        """What shares the longest beginning, and how many tokens of it in whole chunks."""
        with self._lock:
            best: tuple[_Kept | None, int] = (None, 0)
            for entry in self._cached:
                if entry.probe == probe and entry.layers[0][0].device == device:
                    shared = _shared(entry.ids, tokens[:-1]) // CHUNK * CHUNK
                    best = (entry, shared) if shared > best[1] else best
            if best[0] is not None:
                self._cached.remove(best[0])
                self._cached.append(best[0])
            return best

    def _keep(self, entry: _Kept, found: _Kept | None, known: int) -> None:
        with self._lock:
            if found is not None and 2 * known >= len(found.ids) and found in self._cached:
                self._cached.remove(found)  # what it has beyond the shared beginning was of an earlier prompt
            self._cached = [cached for cached in self._cached if cached.ids != entry.ids or cached.probe != entry.probe]
            self._cached.append(entry)
            while self._cached and sum(len(cached.ids) for cached in self._cached) > self.limit:
                self._cached.pop(0)


def _empty_cache(model: Any) -> Any:
    """A cache of transformers in which each layer holds every token; None for models that keep something else."""
    caches: Any = require("transformers.cache_utils", "transformers")
    if "logits_to_keep" not in inspect.signature(type(model).forward).parameters or model.config.is_encoder_decoder:
        return None
    try:
        cache = caches.DynamicCache(config=model.config)
    except (TypeError, ValueError, AttributeError):
        return None
    layers = getattr(cache, "layers", None)
    plain = getattr(caches, "DynamicLayer", None)
    return cache if layers and plain is not None and all(type(layer) is plain for layer in layers) else None


def _argument(model: Any) -> str:
    """What the model's forward calls its cache; transformers renamed it in 5."""
    return "cache" if "cache" in inspect.signature(type(model).forward).parameters else "past_key_values"


def _probe(model: Any, ids: Tensor) -> bytes:
    """What a model says after two tokens, to the last bit: the adapters in use and all its code have a part in it."""
    logits: Tensor = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits
    return logits.detach().float().cpu().contiguous().numpy().tobytes()


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    return next((at for at, (one, other) in enumerate(zip(first, second, strict=False)) if one != other), min(len(first), len(second)))
