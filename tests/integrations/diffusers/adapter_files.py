"""Adapter files of every format with random numbers, for tiny models, and what they change in weights, counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

RANK = 2


class Maker:
    """Writes tensors of one file, and keeps what they add to each weight.

    Args:
        seed: of the numbers.
    """

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.tensors: dict[str, Tensor] = {}
        self.weights: dict[tuple[str, str], Tensor] = {}

    def numbers(self, *shape: int, scale: float = 0.3) -> Tensor:
        """Random ones."""
        return torch.randn(*shape, generator=self.generator) * scale

    def layer(self, kind: str, key: str, part: str, layers: list[str], modules: dict[str, nn.Module], *, swapped: bool = False) -> None:
        """Tensors for a name in the file that stands for layers of a part, one after the other in its rows.

        Args:
            kind: of ``KINDS``.
            key: name in the file.
            part: of the pipeline.
            layers: paths.
            modules: of the part.
            swapped: halves of rows the other way round.
        """
        weights = [modules[path].weight.detach() for path in layers]
        base = weights[0] if len(weights) == 1 else torch.cat(weights)
        there = torch.cat(list(reversed(base.chunk(2)))) if swapped else base
        delta = KINDS[kind](self, key, there) - there
        if swapped:
            delta = torch.cat(list(reversed(delta.chunk(2))))
        for path, piece, weight in zip(layers, delta.split([weight.shape[0] for weight in weights]), weights, strict=True):
            self.weights[part, path] = weight + piece


def _lora(maker: Maker, key: str, base: Tensor, names: tuple[str, str], alpha: float | None = 3.0) -> Tensor:
    kernel = base.shape[2:]
    down = maker.numbers(RANK, *base.shape[1:])
    up = maker.numbers(base.shape[0], RANK, *[1] * len(kernel))
    maker.tensors[f"{key}.{names[0]}.weight"], maker.tensors[f"{key}.{names[1]}.weight"] = down, up
    if alpha is not None:
        maker.tensors[f"{key}.alpha"] = torch.tensor(alpha)
    scale = 1.0 if alpha is None else alpha / RANK
    return base + scale * (up.flatten(1) @ down.flatten(1)).view(base.shape)


def kohya(maker: Maker, key: str, base: Tensor) -> Tensor:
    """LoRA, LoCon on convolutions, with alpha."""
    return _lora(maker, key, base, ("lora_down", "lora_up"))


def peft(maker: Maker, key: str, base: Tensor) -> Tensor:
    """LoRA under PEFT's names, alpha is the rank."""
    return _lora(maker, key, base, ("lora_A", "lora_B"), None)


def peft_alpha(maker: Maker, key: str, base: Tensor) -> Tensor:
    """The same with alpha, as ai-toolkit has it for some models."""
    return _lora(maker, key, base, ("lora_A", "lora_B"))


def _lengths(weight: Tensor) -> Tensor:
    return weight.flatten(1).norm(dim=1)


def dora(maker: Maker, key: str, base: Tensor) -> Tensor:
    """DoRA as kohya's scripts and LyCORIS write it, lengths of rows."""
    merged = kohya(maker, key, base)
    sides = [-1, *[1] * (base.dim() - 1)]
    lengths = (_lengths(base) * (1 + maker.numbers(base.shape[0], scale=0.2).abs())).view(sides)
    maker.tensors[f"{key}.dora_scale"] = lengths
    return merged * lengths / _lengths(merged).view(sides)


def dora_columns(maker: Maker, key: str, base: Tensor) -> Tensor:
    """DoRA with lengths of columns."""
    merged = kohya(maker, key, base)
    sides = [1, -1, *[1] * (base.dim() - 2)]
    norms = merged.transpose(0, 1).flatten(1).norm(dim=1)
    lengths = (norms * (1 + maker.numbers(base.shape[1], scale=0.2).abs())).view(sides)
    maker.tensors[f"{key}.dora_scale"] = lengths
    return merged * lengths / norms.view(sides)


def dora_peft(maker: Maker, key: str, base: Tensor) -> Tensor:
    """DoRA as PEFT names it."""
    merged = peft(maker, key, base)
    sides = [-1, *[1] * (base.dim() - 1)]
    lengths = _lengths(base) * (1 + maker.numbers(base.shape[0], scale=0.2).abs())
    maker.tensors[f"{key}.lora_magnitude_vector"] = lengths if base.dim() == 2 else lengths.view(1, -1, 1, 1)
    return merged * lengths.view(sides) / _lengths(merged).view(sides)


def loha(maker: Maker, key: str, base: Tensor) -> Tensor:
    """LoHa."""
    flat = base.flatten(1)
    a1, a2 = maker.numbers(flat.shape[0], RANK), maker.numbers(flat.shape[0], RANK)
    b1, b2 = maker.numbers(RANK, flat.shape[1]), maker.numbers(RANK, flat.shape[1])
    for name, value in (("w1_a", a1), ("w1_b", b1), ("w2_a", a2), ("w2_b", b2)):
        maker.tensors[f"{key}.hada_{name}"] = value
    maker.tensors[f"{key}.alpha"] = torch.tensor(1.0)
    return base + 0.5 * ((a1 @ b1) * (a2 @ b2)).view(base.shape)


def _factor(size: int) -> int:
    return next(number for number in (2, 3, 1) if size % number == 0)


def lokr(maker: Maker, key: str, base: Tensor) -> Tensor:
    """LoKr with a second factor of low rank; of a convolution with a core (Tucker), as LyCORIS writes it."""
    out, inwards = base.shape[:2]
    first = (_factor(out), _factor(inwards))
    w1 = maker.numbers(*first, scale=0.5)
    a2, b2 = maker.numbers(out // first[0], RANK), maker.numbers(RANK, inwards // first[1])
    maker.tensors |= {f"{key}.lokr_w1": w1, f"{key}.lokr_w2_a": a2, f"{key}.lokr_w2_b": b2, f"{key}.alpha": torch.tensor(1.0)}
    second = a2 @ b2
    if base.dim() > 2:
        core = maker.numbers(RANK, RANK, *base.shape[2:], scale=1.0)
        maker.tensors |= {f"{key}.lokr_t2": core, f"{key}.lokr_w2_a": a2.t().contiguous()}
        second = torch.einsum("i j ..., p i, j r -> p r ...", core, a2, b2).contiguous()
    kron = torch.kron(w1.view(*first, *[1] * (base.dim() - 2)), second)
    return base + 0.5 * kron.view(base.shape)


def lokr_whole(maker: Maker, key: str, base: Tensor) -> Tensor:
    """LoKr with two whole factors, whose alpha does not count."""
    out, inwards = base.shape[:2]
    first = (_factor(out), _factor(inwards))
    w1, w2 = maker.numbers(*first), maker.numbers(out // first[0], inwards // first[1], *base.shape[2:])
    maker.tensors |= {f"{key}.lokr_w1": w1, f"{key}.lokr_w2": w2, f"{key}.alpha": torch.tensor(7.0)}
    return base + torch.kron(w1.view(*first, *[1] * (base.dim() - 2)), w2).view(base.shape)


def full(maker: Maker, key: str, base: Tensor) -> Tensor:
    """The whole change."""
    maker.tensors[f"{key}.diff"] = maker.numbers(*base.shape, scale=0.1)
    return base + maker.tensors[f"{key}.diff"]


KINDS: dict[str, Callable[[Maker, str, Tensor], Tensor]] = {
    "kohya": kohya,
    "peft": peft,
    "peft_alpha": peft_alpha,
    "dora": dora,
    "dora_columns": dora_columns,
    "dora_peft": dora_peft,
    "loha": loha,
    "lokr": lokr,
    "lokr_whole": lokr_whole,
    "diff": full,
}


def changed(pipeline: Any, weights: dict[tuple[str, str], Tensor]) -> Any:
    """The pipeline with weights replaced; the caller owns it."""
    for (part, path), value in weights.items():
        module = dict(getattr(pipeline, part).named_modules())[path]
        module.weight.data = value.clone()
    return pipeline
