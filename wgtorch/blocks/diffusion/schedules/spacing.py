"""Which of the training timesteps a sampler visits (Lin et al. 2023, https://arxiv.org/abs/2305.08891, table 2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SPACINGS = ("linspace", "leading", "trailing")


def spaced_timesteps(
    spacing: str, num_steps: int, num_train_timesteps: int, *, offset: int = 0, open_end: bool = False, last: int | None = None
) -> NDArray[np.float64]:
    """Timesteps from noise to data, not rounded where ``linspace`` falls between two, float64 [num_steps].

    Args:
        spacing: ``linspace`` takes both ends, ``leading`` multiples of T // num_steps, ``trailing`` those counted from T.
        num_steps: how many.
        num_train_timesteps: T.
        offset: added to ``leading`` timesteps.
        open_end: the last of ``num_steps + 1`` timesteps is left out, since the data stands in its place (DPM-Solver).
        last: counts timesteps from here down, instead of from T.
    """
    total, points = last or num_train_timesteps, num_steps + open_end
    if spacing == "linspace":
        spaced = np.linspace(0, total - 1, points)[::-1]
    elif spacing == "leading":
        spaced = (np.arange(0, points) * (total // points))[::-1].astype(np.float64)
    elif spacing == "trailing":
        # For some numbers of steps (61, 103) rounding makes one more, at -1.
        return np.arange(total, 0, -num_train_timesteps / num_steps).round()[:num_steps] - 1
    else:
        raise ValueError(f"timestep_spacing: found {spacing!r}, expected one of {', '.join(SPACINGS)}")
    spaced = spaced[:-1] if open_end else spaced
    return spaced + offset if spacing == "leading" else spaced
