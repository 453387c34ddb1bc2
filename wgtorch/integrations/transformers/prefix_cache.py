"""Keys and values of a prompt's beginning, kept for the next prompt that begins with the same tokens."""

from __future__ import annotations

import inspect
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.errors import require
from wgtorch.core.run.content_digest import digest_of
from wgtorch.integrations.transformers.weight_sums import WeightSums

CHUNK = 64
"""Tokens that are read at once. A prompt's beginning is kept in whole chunks and always read in the same ones, so an answer is the
same to the last bit whether its beginning was kept or not."""
Layers = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values [1, heads, CHUNK, D] of a chunk in each layer."""


@dataclass(slots=True)
class PrefixStats:
    """What a cache of prefixes has done so far.

    Args:
        known: tokens of prompts that were not read again.
        read: tokens of prompts that were.
        evictions: chunks that had to go for others.
        chunks, bytes: that are kept now.
    """

    known: int = 0
    read: int = 0
    evictions: int = 0
    chunks: int = 0
    bytes: int = 0


class PrefixCache:
    """What a model has read of earlier prompts; may be used from several threads.

    Prompts are kept in chunks, each under all that stands before it, so what several prompts begin with is kept once, and the roles of a
    world that ask one model do not push each other out. The chunk used longest ago goes first, the end of a prompt before its beginning.

    It is used where the model is still the same: same weights and same adapters in use, by their sums, and same hooks and whatever else
    acts on them, by what the model says of the prompt's first two tokens. Both together cost about as much as writing two tokens.

    Args:
        max_bytes: of keys and values that are kept, of all prompts together; 0 keeps none. A token takes 2 x layers x key-value heads x
            head size numbers: 23 KB in SmolLM2-135M and bfloat16.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._chunks: OrderedDict[bytes, Layers] = OrderedDict()  # the one used last at the end
        self._stats = PrefixStats()
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> PrefixCache:
        return PrefixCache(self.max_bytes)

    def __reduce__(self) -> tuple[Any, ...]:
        return PrefixCache, (self.max_bytes,)

    @property
    def stats(self) -> PrefixStats:
        """What it has done so far, as it is now."""
        with self._lock:
            return replace(self._stats, chunks=len(self._chunks))

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
        count = (len(tokens) - 1) // CHUNK  # the last token is read when the answer begins
        if not self.max_bytes or not count:
            return {name: cache}, 0
        with torch.no_grad():
            probe = _probe(model, ids[:, :2]) + (sums or WeightSums()).digest(model)
            keys = _keys(f"{ids.device} {next(model.parameters()).dtype}".encode() + probe, tokens, count)
            found = self._find(keys)
            if found:
                for index, parts in enumerate(zip(*found, strict=True)):
                    cache.update(*(torch.cat(part, dim=2) for part in zip(*parts, strict=True)), index)
            for at in range(CHUNK * len(found), CHUNK * count, CHUNK):
                model(input_ids=ids[:, at : at + CHUNK], use_cache=True, logits_to_keep=1, **{name: cache})
        self._keep(keys, len(found), cache, len(tokens))
        return {name: cache}, CHUNK * len(found)

    def _find(self, keys: Sequence[bytes]) -> list[Layers]:
        """The chunks at the beginning of a prompt that are kept."""
        with self._lock:
            return list(takewhile(lambda chunk: chunk is not None, map(self._chunks.get, keys)))  # type: ignore[arg-type]

    def _keep(self, keys: Sequence[bytes], known: int, cache: Any, length: int) -> None:
        """Takes the chunks of a prompt that were read, and notes that all of it was used."""
        fresh = {
            keys[number]: tuple((_piece(layer.keys, number), _piece(layer.values, number)) for layer in cache.layers)
            for number in range(known, len(keys))
        }
        with self._lock:
            self._stats.known += known * CHUNK
            self._stats.read += length - known * CHUNK
            for key in reversed(keys):  # the beginning last, as it is of more use
                if key not in self._chunks and key in fresh:
                    self._chunks[key] = fresh[key]
                    self._stats.bytes += _bytes(fresh[key])
                if key in self._chunks:
                    self._chunks.move_to_end(key)
            while self._stats.bytes > self.max_bytes:
                self._stats.bytes -= _bytes(self._chunks.popitem(last=False)[1])
                self._stats.evictions += 1


def room_for(weights: int) -> int:
    """Bytes to keep of a model whose weights take so many: half of them, half a gigabyte at least, which is some 20,000 tokens."""
    return max(2**29, weights // 2)


def _keys(begin: bytes, tokens: Sequence[int], count: int) -> list[bytes]:
    """Names of a prompt's first chunks, each by its tokens and all before them."""
    keys: list[bytes] = []
    for number in range(count):
        chunk = repr(tokens[number * CHUNK : (number + 1) * CHUNK]).encode()
        keys.append(digest_of(keys[-1] if keys else begin, chunk))
    return keys


def _piece(tensor: Tensor, number: int) -> Tensor:
    """The part of a chunk in what a layer holds, with a memory of its own."""
    return tensor[:, :, number * CHUNK : (number + 1) * CHUNK].clone()


def _bytes(layers: Layers) -> int:
    return sum(keys.nbytes + values.nbytes for keys, values in layers)


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
