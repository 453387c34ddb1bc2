"""What adapters beside a UNet contribute to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor


class Contribution(NamedTuple):
    """What one adapter gives to a UNet; what it does not give is None.

    Args:
        down: residuals of the skip connections, one [B, C, H, W] for each (ControlNet).
        mid: residual of the middle block (ControlNet).
        inside: residuals inside the down blocks, one for each block (T2I-Adapter).
        image: keys and values of a picture for each cross-attention, [B, N, W] (IP-Adapter).
    """

    down: tuple[Tensor, ...] | None = None
    mid: Tensor | None = None
    inside: tuple[Tensor, ...] | None = None
    image: tuple[tuple[Tensor, Tensor], ...] | None = None


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


def _summed(parts: Sequence[tuple[Tensor, ...]]) -> list[Tensor] | None:
    return [sum(same[1:], start=same[0]) for same in zip(*parts, strict=True)] if parts else None
