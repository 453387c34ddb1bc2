"""Changes of a layer's weight in the one form that adapted layers here have: B A with a scale, and DoRA's magnitude.

LoHa and LoKr (Yeh et al. 2023, https://arxiv.org/abs/2309.14859) are of low rank too, and are written as that without loss:

* (a1 b1) * (a2 b2), elementwise, is the product of all columns of a1 with all of a2, and of all rows of b1 with all of b2;
* kron(a1 b1, a2 b2) is kron(a1, a2) kron(b1, b2).

What is of full rank anyway keeps the identity as one of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.errors import CheckpointError


@dataclass(frozen=True)
class LowRank:
    """What an adapter adds to a layer: alpha / rank * up @ down, and what it does to the result.

    Args:
        up: [out, rank].
        down: [rank, in], of a convolution [rank, in * kernel].
        alpha: of LoRA.
        magnitude: DoRA's, the length of each row of the new weight, [out] (Liu et al. 2024, https://arxiv.org/abs/2402.09353).
        bias: added to the output, before the scale, [out].
    """

    up: Tensor
    down: Tensor
    alpha: float
    magnitude: Tensor | None = None
    bias: Tensor | None = None

    @property
    def rank(self) -> int:
        """Rows of ``down``."""
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        """What the product counts."""
        return self.alpha / self.rank

    def delta(self) -> Tensor:
        """What is added to the weight, [out, in]."""
        return self.scale * (self.up.float() @ self.down.float())

    def rows(self, start: int, stop: int) -> LowRank:
        """The same for some rows of the layer, which are a layer of their own elsewhere."""
        parts: dict[str, Any] = {
            name: value[start:stop] for name in ("up", "magnitude", "bias") if (value := getattr(self, name)) is not None
        }
        return replace(self, **parts)

    def swapped(self) -> LowRank:
        """The same with the halves of the rows exchanged."""
        names = [name for name in ("up", "magnitude", "bias") if getattr(self, name) is not None]
        parts: dict[str, Any] = {name: torch.cat(list(reversed(getattr(self, name).chunk(2)))) for name in names}
        return replace(self, **parts)


def low_rank(
    kinds: Mapping[str, Tensor], base: Callable[[], Tensor], alpha: float | None, where: str, *, rank: float | None = None
) -> LowRank:
    """A layer's tensors, by kind as of :class:`~wgtorch.lora.formats.layer_tensors.LayerTensors`, in this form.

    Args:
        kinds: of one layer.
        base: the weight that they are for, asked for where the change depends on it.
        alpha: of LoRA where the file has it.
        where: file and layer, for messages.
        rank: that alpha is divided by, where the file says it; else that of the tensors.

    Raises:
        CheckpointError: they are not complete, of unlike sizes, or of a kind that is not known.
    """
    rest = {kind: value.detach() for kind, value in kinds.items() if kind not in _BESIDE}
    try:
        if "lora_A.weight" in rest:
            up, down, alpha = _lora(rest, alpha)
        elif "hada_w1_a" in rest:
            up, down, alpha = _hadamard(rest, alpha, rank)
        elif "lokr_w1" in rest or "lokr_w1_a" in rest:
            up, down, alpha = _kronecker(rest, alpha, rank)
        elif "diff" in rest:
            up, down, alpha = _full(rest.pop("diff"))
        elif not rest and "diff_b" in kinds:
            width = kinds["diff_b"].numel()
            up, down, alpha = kinds["diff_b"].new_zeros(width, 1), kinds["diff_b"].new_zeros(1, base()[0].numel()), 1.0
        else:
            raise CheckpointError(f"{where}: has {sorted(kinds)}, which is no whole adapter; expected lora_A and lora_B, or the like")
    except (RuntimeError, KeyError, IndexError) as error:
        raise CheckpointError(f"{where}: {sorted(kinds)} do not fit together: {error}") from error
    if rest:
        raise CheckpointError(f"{where}: nothing is known to be done with {sorted(rest)}; expected LoRA, DoRA, LoHa, LoKr or diff")
    if up.shape[1] != down.shape[0]:
        raise CheckpointError(f"{where}: {sorted(kinds)} are of ranks {down.shape[0]} and {up.shape[1]}; expected one rank")
    made = LowRank(up.contiguous(), down.contiguous(), float(alpha))
    if "diff_b" in kinds:
        made = replace(made, bias=kinds["diff_b"].flatten() / made.scale)
    if "lora_B.bias" in kinds:
        made = replace(made, bias=kinds["lora_B.bias"].flatten())
    if "magnitude" in kinds:
        return replace(made, magnitude=kinds["magnitude"].flatten())
    return made if "dora_scale" not in kinds else _decomposed(made, kinds["dora_scale"], base, where)


_BESIDE = ("alpha", "magnitude", "dora_scale", "diff_b", "lora_B.bias")


def _lora(rest: dict[str, Tensor], alpha: float | None) -> tuple[Tensor, Tensor, float]:
    down, up = rest.pop("lora_A.weight"), rest.pop("lora_B.weight")
    rank = down.shape[0]
    if "mid" in rest:  # LoCon's three convolutions: up, a kernel between the ranks, down
        down = torch.einsum("n m ..., m i -> n i ...", rest.pop("mid"), down.flatten(1))
    return up.flatten(1), down.flatten(1), rank if alpha is None else alpha


def _hadamard(rest: dict[str, Tensor], alpha: float | None, rank: float | None) -> tuple[Tensor, Tensor, float]:
    rank = rest["hada_w1_b"].shape[0] if rank is None else rank
    halves = [_tucker(*(rest.pop(name, None) for name in (f"hada_t{n}", f"hada_w{n}_a", f"hada_w{n}_b"))) for n in (1, 2)]
    (up, down), (up_2, down_2) = halves
    scale = 1.0 if alpha is None else alpha / rank
    wide = torch.einsum("o r, o s -> o r s", up, up_2).flatten(1)
    deep = torch.einsum("r i, s i -> r s i", down, down_2).flatten(0, 1)
    return *_smallest(wide, deep), scale * min(wide.shape[1], *_sides(wide, deep))


def _tucker(core: Tensor | None, a: Tensor | None, b: Tensor | None) -> tuple[Tensor, Tensor]:
    """(up [out, r], down [r, in * kernel]) of a factor, with its core [r, r, kernel] where it has one."""
    assert a is not None and b is not None
    if core is None:
        return a, b.flatten(1)
    return a.t().contiguous(), torch.einsum("i j ..., j r -> i r ...", core, b).flatten(1)


def _kronecker(rest: dict[str, Tensor], alpha: float | None, rank: float | None) -> tuple[Tensor, Tensor, float]:
    factored = [float(rest[name].shape[0]) for name in ("lokr_w1_b", "lokr_w2_b") if name in rest]
    # Two whole factors have no rank, and LyCORIS writes an alpha that is not counted then; PEFT counts its own.
    divided = rank if rank is not None else factored[0] if factored else None
    scale = alpha / divided if divided is not None and alpha is not None else 1.0
    first = _factor(rest, 1)
    second, kernel = _second_factor(rest)
    up = torch.kron(first[0], second[0])
    inner, deep = second[1].shape[0], second[1].reshape(second[1].shape[0], -1, kernel)
    # Columns go by the first factor's, then the second's, and the kernel last, as a convolution's weight has them.
    down = torch.einsum("r i, s j k -> r s i j k", first[1], deep).reshape(first[1].shape[0] * inner, -1)
    return *_smallest(up, down), scale * min(up.shape[1], *_sides(up, down))


def _factor(rest: dict[str, Tensor], n: int) -> tuple[Tensor, Tensor]:
    if f"lokr_w{n}" in rest:
        up, down, _ = _full(rest.pop(f"lokr_w{n}"))
        return up, down
    return rest.pop(f"lokr_w{n}_a"), rest.pop(f"lokr_w{n}_b").flatten(1)


def _second_factor(rest: dict[str, Tensor]) -> tuple[tuple[Tensor, Tensor], int]:
    """The factor that has the kernel of a convolution, with the size of that."""
    core = rest.pop("lokr_t2", None)
    if core is not None:
        return _tucker(core, rest.pop("lokr_w2_a"), rest.pop("lokr_w2_b")), core[0, 0].numel()
    whole = rest.get("lokr_w2", rest.get("lokr_w2_b"))
    assert whole is not None
    return _factor(rest, 2), whole[0, 0].numel() if whole.dim() > 2 else 1


def _full(delta: Tensor) -> tuple[Tensor, Tensor, float]:
    """A change of any rank, with the identity on its smaller side."""
    flat = delta.flatten(1)
    out, inwards = flat.shape
    if out <= inwards:
        return torch.eye(out, dtype=flat.dtype), flat, float(out)
    return flat, torch.eye(inwards, dtype=flat.dtype), float(inwards)


def _sides(up: Tensor, down: Tensor) -> tuple[int, int]:
    return up.shape[0], down.shape[1]


def _smallest(up: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """The same product with no more columns than a side has."""
    if up.shape[1] <= min(_sides(up, down)):
        return up, down
    up, down, _ = _full(up.float() @ down.float())
    return up, down


def _decomposed(made: LowRank, lengths: Tensor, base: Callable[[], Tensor], where: str) -> LowRank:
    """With DoRA's magnitude as LyCORIS writes it; lengths of columns cannot stay apart from the weight they were made for."""
    out, weight = made.up.shape[0], base().detach().float()
    if tuple(lengths.shape[:1]) == (out,) and lengths.numel() == out:
        return replace(made, magnitude=lengths.flatten())
    if lengths.numel() != weight.shape[1] or weight.shape[0] != out:
        raise CheckpointError(f"{where}: dora_scale of shape {list(lengths.shape)}; expected [{out}, 1] or [1, {weight.shape[1]}]")
    merged = weight + made.delta().view(weight.shape)
    factors = lengths.flatten().float() / merged.transpose(0, 1).flatten(1).norm(dim=1)
    up, down, alpha = _full(merged * factors.view(1, -1, *[1] * (weight.dim() - 2)) - weight)
    return replace(made, up=up, down=down, alpha=alpha)
