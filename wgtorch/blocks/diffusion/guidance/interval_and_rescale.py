"""What guidance blocks share: how strong, when, and how far the result may swell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

import torch
from torch import Tensor

from wgtorch.ports import TIMESTEP
from wgtorch.roles import Guidance


def rescale_to(guided: Tensor, pred_cond: Tensor, share: float | Tensor) -> Tensor:
    """Takes back what guidance added to the deviation (Lin et al. 2023, https://arxiv.org/abs/2305.08891, sec. 3.4).

    Args:
        guided: [B, C, ...].
        pred_cond: prediction with the condition alone, like it.
        share: of the way back, in [0, 1]; 0 changes nothing.
    """
    dims = list(range(1, guided.dim()))
    ratio = pred_cond.std(dim=dims, keepdim=True) / guided.std(dim=dims, keepdim=True)
    return guided * (share * ratio + (1 - share))


def per_sample(scale: float | Tensor, like: Tensor) -> float | Tensor:
    """A strength for each sample, [B], made to multiply ``like`` [B, C, ...]; a number stays as it is."""
    if isinstance(scale, Tensor) and scale.dim() == 1 and scale.shape[0] > 1:
        return scale.to(like.dtype).view(-1, *[1] * (like.dim() - 1))
    return scale


def check_interval(interval: list[float] | None, where: str) -> None:
    """Refuses what is no [low, high].

    Raises:
        ValueError: it is none.
    """
    if interval is not None and not (len(interval) == 2 and interval[0] <= interval[1]):
        raise ValueError(f"{where}: found {interval}, expected [low, high]")


def is_outside(interval: list[float] | None, timestep: float | Tensor | None) -> bool:
    """True outside an interval of timesteps; False where that is only known when compiled code runs."""
    if interval is None or timestep is None or _is_traced(timestep):
        return False
    moment = timestep.flatten()[0] if isinstance(timestep, Tensor) else timestep
    return not interval[0] <= float(moment) <= interval[1]


def within(interval: list[float] | None, timestep: float | Tensor | None, inside: Tensor, outside: Tensor) -> Tensor:
    """``inside``; in compiled code, where :func:`is_outside` cannot tell, ``timestep`` decides there which of the two."""
    if interval is None or timestep is None or not _is_traced(timestep):
        return inside
    moment = timestep.flatten()[0]  # type: ignore[union-attr]
    return torch.where((moment >= interval[0]) & (moment <= interval[1]), inside, outside)


def _is_traced(timestep: float | Tensor) -> bool:
    return isinstance(timestep, Tensor) and torch.compiler.is_compiling()


class IntervalArguments(TypedDict, total=False):
    """When and how far :class:`IntervalGuidance` guides, which blocks of guidance pass on to it."""

    interval: list[float] | None
    rescale: float


class IntervalGuidance(Guidance):
    """Guidance within an interval of timesteps; outside it the conditional prediction passes unchanged.

    (Kynkäänniemi et al. 2024, https://arxiv.org/abs/2404.07724.)

    Args:
        scale: strength where the input ``scale`` is not fed.
        interval: [low, high] of the timesteps that are guided; all of them when left out.
        rescale: share of the added deviation that is taken back, in [0, 1]; see :func:`rescale_to`.
    """

    inputs: Mapping[str, Any] = {"timestep": TIMESTEP}
    uses_global_rng = False

    def __init__(self, *, scale: float, interval: list[float] | None = None, rescale: float = 0.0) -> None:
        super().__init__()
        where = type(self).__name__
        check_interval(interval, f"{where}.interval")
        if not 0 <= rescale <= 1:
            raise ValueError(f"{where}.rescale: found {rescale}, expected a number from 0 to 1")
        self.scale = scale
        self.interval = interval
        self.rescale = rescale

    def is_off(self, timestep: float | Tensor | None) -> bool:
        """True outside the interval; False where that is only known when compiled code runs."""
        return is_outside(self.interval, timestep)

    def strength(self, scale: float | Tensor | None, like: Tensor) -> float | Tensor:
        """The strength of this call."""
        return self.scale if scale is None else per_sample(scale, like)

    def finished(
        self, guided: Tensor, pred_cond: Tensor, timestep: float | Tensor | None = None, rescale: float | Tensor | None = None
    ) -> dict[str, Any]:
        """``pred_guided``, rescaled where that is asked for; in compiled code ``timestep`` decides there which one it is."""
        share = self.rescale if rescale is None else rescale
        if isinstance(share, Tensor) or share:
            guided = rescale_to(guided, pred_cond, share)
        return {"pred_guided": within(self.interval, timestep, guided, pred_cond)}
