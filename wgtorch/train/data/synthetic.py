"""Made-up data: random numbers in the right shapes, to try a training out before there is data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.data import Dataset

from wgtorch.core.errors import ConfigError, suggest
from wgtorch.core.run.rng import key_to_seed
from wgtorch.train.data.base import AtLeastOne, Data, NoneOrMore
from wgtorch.train.registries import register_data

_KINDS: dict[str, tuple[str, ...]] = {
    "normal": ("shape", "std"), "uniform": ("shape",), "integers": ("shape", "high"), "choice": ("values",), "gradient": ("shape",),
}  # fmt: skip


@register_data("synthetic")
class Synthetic(Data):
    """Random values without any meaning: a model can learn their distribution and nothing else.

    It shows that a training runs, how fast, and in how much memory; it says nothing about quality.

    Example:
        >>> Synthetic(values={"image": {"kind": "gradient", "shape": [3, 16, 16]}, "prompt": {"kind": "choice", "values": ["a", "b"]}})

    Args:
        values: by key, a kind with its arguments: ``normal`` {shape, std}, ``uniform`` {shape} in [0, 1), ``integers`` {shape, high}
            in [0, high), ``choice`` {values}: one of them, or ``gradient`` {shape}: a picture [C, H, W] in [0, 1] that goes from
            one random colour to another.
        count: items of training.
        held_out: items of validation.
        seed: of the items; the same numbers in every run.
        batch_size: of each process.
        workers: processes that make items.
    """

    def __init__(
        self,
        *,
        values: dict[str, Any],
        count: AtLeastOne = 256,
        held_out: NoneOrMore = 16,
        seed: int = 0,
        batch_size: int = 8,
        workers: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, workers=workers)
        for key, entry in values.items():
            kind = entry.get("kind") if isinstance(entry, Mapping) else None
            if kind not in _KINDS:
                raise ConfigError(f"data.values.{key}: found kind {kind!r}; {suggest(kind, _KINDS)}")
            unknown = [name for name in entry if name not in ("kind", *_KINDS[kind])]
            if unknown or _KINDS[kind][0] not in entry:
                raise ConfigError(f"data.values.{key}: {kind} takes {list(_KINDS[kind])}; found {sorted(set(entry) - {'kind'})}")
        self.values, self.count, self.held_out, self.seed = dict(values), count, held_out, seed

    def train(self) -> Dataset[Any]:
        return _Random(self.values, self.count, key_to_seed(self.seed, "train"))

    def validation(self) -> Dataset[Any] | None:
        return _Random(self.values, self.held_out, key_to_seed(self.seed, "held out")) if self.held_out else None


class _Random(Dataset[Any]):
    def __init__(self, values: Mapping[str, Any], count: int, seed: int) -> None:
        self.values, self.count, self.seed = values, count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index >= self.count:
            raise IndexError(index)
        generator = torch.Generator().manual_seed(key_to_seed(self.seed, index))
        return {key: _drawn(entry, generator) for key, entry in self.values.items()}


def _drawn(entry: Mapping[str, Any], generator: torch.Generator) -> Any:
    kind = entry["kind"]
    if kind == "normal":
        return entry.get("std", 1.0) * torch.randn(tuple(entry["shape"]), generator=generator)
    if kind == "uniform":
        return torch.rand(tuple(entry["shape"]), generator=generator)
    if kind == "integers":
        return torch.randint(int(entry.get("high", 2)), tuple(entry["shape"]), generator=generator)
    if kind == "choice":
        return entry["values"][int(torch.randint(len(entry["values"]), (), generator=generator))]
    channels, height, width = entry["shape"]
    start, end = torch.rand(2, channels, 1, 1, generator=generator)
    return torch.lerp(start, end, torch.linspace(0, 1, width).expand(channels, height, width))
