"""What adapters beside a backbone contribute to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor


class Contribution(NamedTuple):
    """What one adapter gives to a UNet or a transformer; what it does not give is None.

    Args:
        down: residuals of the skip connections, one [B, C, H, W] for each (ControlNet); of a transformer's blocks, [B, N, W].
        mid: residual of the middle block (ControlNet).
        inside: residuals inside the down blocks, one for each block (T2I-Adapter).
        image: keys and values of a picture for each cross-attention, [B, N, W] (IP-Adapter).
        single: residuals of a transformer's single blocks, [B, N, W] (FLUX.1).
        repeats: fewer residuals than blocks are taken in turns, instead of each for several blocks in a row.
    """

    down: tuple[Tensor, ...] | None = None
    mid: Tensor | None = None
    inside: tuple[Tensor, ...] | None = None
    image: tuple[tuple[Tensor, Tensor], ...] | None = None
    single: tuple[Tensor, ...] | None = None
    repeats: bool = False


def residuals(contributions: Sequence[Contribution]) -> dict[str, Any]:
    """Arguments of ``UNet2DConditionModel.forward`` for several adapters at once; contributions of one sort are added up."""
    down = _summed([each.down for each in contributions if each.down is not None])
    inside = _summed([each.inside for each in contributions if each.inside is not None])
    mid = [each.mid for each in contributions if each.mid is not None]
    found: dict[str, Any] = {}
    if down is not None:
        found["down_block_additional_residuals"] = down
    if mid:
        found["mid_block_additional_residual"] = sum(mid[1:], start=mid[0])
    if inside is not None:
        found["down_intrablock_additional_residuals"] = inside  # a fresh list: the UNet takes them out of it one by one
    return found


def block_residuals(contributions: Sequence[Contribution], rows: int) -> dict[str, Any]:
    """Arguments of ``FluxTransformer2DModel.forward``, likewise, for a batch of so many rows."""
    found: dict[str, Any] = {"controlnet_blocks_repeat": any(each.repeats for each in contributions)}
    for name, parts in (("block", [each.down for each in contributions]), ("single_block", [each.single for each in contributions])):
        summed = _summed([part for part in parts if part])
        if summed is not None:
            found[f"controlnet_{name}_samples"] = [one.repeat(rows // one.shape[0], 1, 1) for one in summed]
    return found


def _summed(parts: Sequence[tuple[Tensor, ...]]) -> list[Tensor] | None:
    return [sum(same[1:], start=same[0]) for same in zip(*parts, strict=True)] if parts else None
