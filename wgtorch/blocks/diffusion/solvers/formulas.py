"""The steps of all solvers: plain functions of tensors, and the coefficients that their papers' formulas multiply by.

A formula is linear in its tensors; what it multiplies them by depends on levels of noise alone. So each solver is a pair:

    ddim_coefficients(now, to, eta)            levels of all steps of a grid -> coefficients [N], float64, once for a grid
    ddim_step(x0, eps, z, alpha, direction, s)     one step of a run: tensors [B, C, ...], and one number of each coefficient

In a run coefficients are tensors [] of the latents' precision, eager and compiled alike: code that was compiled for one step serves
all. Where a solver needs what is not there yet (the first step of a multistep solver), the coefficient is 0.

Throughout, x = alpha x0 + sigma eps at a level; ``now`` (s) is where x is, ``to`` (t) where the step leads, nearer to the data; x0, eps
and u = eps - x0 are what the model predicts at ``now``; z is new standard normal noise, None where there is none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.noise_level import NoiseLevel, variance_from

SMALLEST_VARIANCE = 1e-20  # what a variance of 0 counts as
SIGMA_DATA = 0.5  # the deviation of data that consistency models were distilled with


def linear_combination(first: Tensor | tuple[Tensor, Tensor], *others: tuple[Tensor, Tensor | None]) -> Tensor:
    """a x + b y + ..., each further term in one fused operation.

    Args:
        first: (coefficient [], tensor), or a tensor that counts once.
        others: pairs; one whose tensor is None is left out.
    """
    total = first if isinstance(first, Tensor) else first[1] * first[0]
    for coefficient, tensor in others:
        if tensor is not None:
            total = torch.addcmul(total, tensor, coefficient)
    return total


# --- DDPM and DDIM ----------------------------------------------------------------------------------------------------


def posterior_variance(now: NoiseLevel, to: NoiseLevel) -> Tensor:
    """The variance of q(x_t | x_s, x0): sigma_t^2 / sigma_s^2 of what is added from t to s."""
    return (to.sigma / now.sigma) ** 2 * variance_from(to, now)


def posterior_mean_coefficients(now: NoiseLevel, to: NoiseLevel) -> tuple[Tensor, Tensor]:
    """What the mean of q(x_t | x_s, x0) multiplies x and x0 by (Ho et al. 2020, https://arxiv.org/abs/2006.11239, eq. 7)."""
    left, fresh = (to.sigma / now.sigma) ** 2, variance_from(to, now) / now.sigma**2
    return now.alpha / to.alpha * left, to.alpha * fresh


def ddpm_step(x: Tensor, x0: Tensor, z: Tensor | None, of_x: Tensor, of_x0: Tensor, s: Tensor) -> Tensor:
    """x_t = mean of q(x_t | x_s, x0) + s z, with s^2 the variance."""
    return linear_combination((of_x, x), (of_x0, x0), (s, z))


def ddim_coefficients(now: NoiseLevel, to: NoiseLevel, eta: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """(alpha_t, sqrt(sigma_t^2 - s^2), s), with s = eta times the posterior's deviation: 0 is deterministic, 1 is DDPM.

    (Song et al. 2020, https://arxiv.org/abs/2010.02502, eq. 12 and 16.)
    """
    variance = eta**2 * posterior_variance(now, to) if eta else torch.zeros_like(to.sigma)
    return to.alpha, (to.sigma**2 - variance).clamp(min=0).sqrt(), variance.sqrt()


def ddim_step(x0: Tensor, eps: Tensor, z: Tensor | None, alpha: Tensor, direction: Tensor, s: Tensor) -> Tensor:
    """x_t = alpha_t x0 + sqrt(sigma_t^2 - s^2) eps + s z."""
    return linear_combination((alpha, x0), (direction, eps), (s, z))


# --- Euler and Heun ---------------------------------------------------------------------------------------------------


def euler_coefficients(now: NoiseLevel, to: NoiseLevel, *, of_data: bool = False, down: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A step of dx/dsigma = eps in the x / alpha = x0 + (sigma / alpha) eps of Karras et al. 2022, scaled back:
    (alpha_t / alpha_s, alpha_t (ratio_t - ratio_s)).

    (https://arxiv.org/abs/2206.00364, algorithm 1.)

    Args:
        now: s.
        to: t.
        of_data: of x and x0 instead, by eps = (x - alpha_s x0) / sigma_s: what a model of data predicts keeps its digits where
            alpha_s is next to nothing.
        down: the ratio to step to, where it is not that of ``to``.
    """
    ratio = to.ratio if down is None else down
    if of_data:
        return to.alpha / now.alpha * (ratio / now.ratio), to.alpha * (1 - ratio / now.ratio)
    return to.alpha / now.alpha, to.alpha * (ratio - now.ratio)


def euler_step(x: Tensor, known: Tensor, scale: Tensor, change: Tensor) -> Tensor:
    """x_t = scale x + change eps, or x0 in place of eps."""
    return linear_combination((scale, x), (change, known))


def euler_ancestral_coefficients(now: NoiseLevel, to: NoiseLevel, *, of_data: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Euler's step down to ratio_down, and ratio_up of noise on top, which is ratio_t together (k-diffusion)."""
    up = (to.ratio**2 * (now.ratio**2 - to.ratio**2) / now.ratio**2).sqrt()
    down = (to.ratio**2 - up**2).sqrt()
    return *euler_coefficients(now, to, of_data=of_data, down=down), to.alpha * up


def euler_ancestral_step(x: Tensor, known: Tensor, z: Tensor | None, scale: Tensor, change: Tensor, s: Tensor) -> Tensor:
    """x_t = scale x + change eps + s z, or x0 in place of eps."""
    return linear_combination((scale, x), (change, known), (s, z))


def heun_correction(x: Tensor, d: Tensor, before_d: Tensor, half: Tensor) -> Tensor:
    """From where Euler's step with ``before_d`` has led to where the mean of both slopes leads: x + half (d - before_d).

    (Karras et al. 2022, https://arxiv.org/abs/2206.00364, algorithm 1.)

    Args:
        x: after Euler's step, [B, C, ...].
        d: slope at x, like it.
        before_d: slope where the step started, like it.
        half: half of what Euler's step multiplied its slope by.
    """
    return linear_combination(x, (half, d - before_d))


def heun_coefficients(scale: Tensor, change: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scale, change and half for both stages of N steps of Euler's coefficients, [2 N - 1]: the last has one stage.

    The first stage is Euler's; the second is :func:`heun_correction`, with half of what the first multiplied its slope by.
    """
    one, none = torch.ones_like(scale), torch.zeros_like(scale)
    stages = ((scale, one), (change, none), (none, change / 2))
    first, second, third = (torch.stack(pair, dim=1).flatten()[:-1] for pair in stages)
    return first, second, third


def heun_step(x: Tensor, d: Tensor, before_d: Tensor, scale: Tensor, change: Tensor, half: Tensor) -> Tensor:
    """Either stage of a step: Euler's (half = 0), or :func:`heun_correction` (scale = 1, change = 0)."""
    return heun_correction(linear_combination((scale, x), (change, d)), d, before_d, half)


def flow_euler_step(x: Tensor, u: Tensor, change: Tensor) -> Tensor:
    """x_t = x + (sigma_t - sigma_s) u, a step of dx/dsigma = u along a straight flow x = (1 - sigma) x0 + sigma eps.

    (Liu et al. 2022, https://arxiv.org/abs/2209.03003; Lipman et al. 2023, https://arxiv.org/abs/2210.02747.)
    """
    return linear_combination(x, (change, u))


def flow_heun_step(x: Tensor, u: Tensor, before_u: Tensor, of_u: Tensor, of_before: Tensor) -> Tensor:
    """:func:`heun_step` with the velocity as the slope, of which x counts once in either stage."""
    return linear_combination(x, (of_u, u), (of_before, before_u))


# --- DPM-Solver++ -----------------------------------------------------------------------------------------------------


def dpmpp_1_coefficients(now: NoiseLevel, to: NoiseLevel) -> tuple[Tensor, Tensor]:
    """What first order multiplies x and x0 by: (sigma_t / sigma_s, -alpha_t (e^-h - 1)) with h = lambda_t - lambda_s.

    (Lu et al. 2022, https://arxiv.org/abs/2211.01095; the same as DDIM.)
    """
    h = to.log_snr - now.log_snr
    return to.sigma / now.sigma, -to.alpha * torch.expm1(-h)


def dpmpp_2m_coefficients(
    before: NoiseLevel, now: NoiseLevel, to: NoiseLevel, is_first_order: Tensor, variant: str = "midpoint"
) -> tuple[Tensor, Tensor, Tensor]:
    """What a step multiplies x, x0 and x0 - x0 before by (Lu et al. 2022, https://arxiv.org/abs/2211.01095, algorithm 2).

    Args:
        before: where the step before started.
        now: s.
        to: t.
        is_first_order: where the slope of x0 does not enter.
        variant: how it does elsewhere: ``midpoint`` as in the paper, or ``heun``.
    """
    h = to.log_snr - now.log_snr
    of_x, of_x0 = dpmpp_1_coefficients(now, to)
    weight = 0.5 * of_x0 if variant == "midpoint" else to.alpha * (torch.expm1(-h) / h + 1)
    return of_x, of_x0, torch.where(is_first_order, 0.0, weight * inverse_r(before, now, to))


def dpmpp_2m_sde_coefficients(
    before: NoiseLevel, now: NoiseLevel, to: NoiseLevel, is_first_order: Tensor, variant: str = "midpoint"
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As :func:`dpmpp_2m_coefficients` on the SDE, and what noise is multiplied by."""
    h = to.log_snr - now.log_snr
    fresh = -torch.expm1(-2 * h)  # 1 - e^-2h
    weight = 0.5 * fresh if variant == "midpoint" else fresh / (-2 * h) + 1
    of_change = torch.where(is_first_order, 0.0, to.alpha * weight * inverse_r(before, now, to))
    return to.sigma / now.sigma * torch.exp(-h), to.alpha * fresh, of_change, to.sigma * fresh.sqrt()


def dpmpp_3m_sde_coefficients(
    older: NoiseLevel, before: NoiseLevel, now: NoiseLevel, to: NoiseLevel, order: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What a step multiplies x, x0, x0 - x0 before, x0 before - x0 older and noise by, as ``sample_dpmpp_3m_sde`` of k-diffusion does
    (https://github.com/crowsonkb/k-diffusion).

    Args:
        older: where the step before the one before started.
        before: where the step before started.
        now: s.
        to: t.
        order: 1, 2 or 3, for each step.
    """
    h = to.log_snr - now.log_snr
    fresh = -torch.expm1(-2 * h)
    phi_2 = 1 - fresh / (2 * h)
    phi_3 = phi_2 / (2 * h) - 0.5
    r0, r1 = (now.log_snr - before.log_snr) / h, (before.log_snr - older.log_snr) / h
    second = phi_2 / r0
    third = (phi_2 * (1 + r0 / (r0 + r1)) - phi_3 / (r0 + r1)) / r0
    of_older = (phi_3 - phi_2 * r0) / (r0 + r1) / r1
    of_change = torch.where(order == 1, 0.0, torch.where(order == 2, second, third))
    of_older = torch.where(order == 3, of_older, 0.0)
    return to.sigma / now.sigma * torch.exp(-h), to.alpha * fresh, to.alpha * of_change, to.alpha * of_older, to.sigma * fresh.sqrt()


def dpmpp_3m_sde_step(x: Tensor, x0: Tensor, before: Sequence[Tensor], z: Tensor | None, *numbers: Tensor) -> Tensor:
    """x_t = of_x x + of_x0 x0 + of_change (x0 - before_0) + of_older (before_0 - before_1) + s z.

    Args:
        x: [B, C, ...].
        x0: data predicted there.
        before: data predicted in the step before, and in the one before that.
        z: noise.
        numbers: as :func:`dpmpp_3m_sde_coefficients` gives them.
    """
    of_x, of_x0, of_change, of_older, s = numbers
    changes = ((of_change, x0 - before[0]), (of_older, before[0] - before[1]))
    return linear_combination((of_x, x), (of_x0, x0), *changes, (s, z))


def inverse_r(before: NoiseLevel, now: NoiseLevel, to: NoiseLevel) -> Tensor:
    """1 / r_0, by which x0 - x0 before is how x0 changes over the step, in log SNR; 0 after a step from pure noise."""
    return (to.log_snr - now.log_snr) / (now.log_snr - before.log_snr)


def dpmpp_2m_step(x: Tensor, x0: Tensor, before_x0: Tensor, of_x: Tensor, of_x0: Tensor, of_change: Tensor) -> Tensor:
    """x_t = of_x x + of_x0 x0 + of_change (x0 - x0 before)."""
    return linear_combination((of_x, x), (of_x0, x0), (of_change, x0 - before_x0))


def dpmpp_2m_sde_step(
    x: Tensor, x0: Tensor, before_x0: Tensor, z: Tensor | None, of_x: Tensor, of_x0: Tensor, of_change: Tensor, s: Tensor
) -> Tensor:
    """:func:`dpmpp_2m_step`, and s z."""
    return linear_combination(dpmpp_2m_step(x, x0, before_x0, of_x, of_x0, of_change), (s, z))


# --- UniPC ------------------------------------------------------------------------------------------------------------


def unipc_predictor_coefficients(past: Sequence[NoiseLevel], to: NoiseLevel, order: Tensor, variant: str = "bh2") -> tuple[Tensor, ...]:
    """UniP, data prediction: what multiplies x, x0, and how each x0 found before differs from that (Zhao et al. 2023,
    https://arxiv.org/abs/2302.04867, alg. 2).

    Args:
        past: s, and where the steps before it started; as many as the highest order.
        to: t.
        order: of each step.
        variant: B(h) = h (``bh1``) or e^h - 1 (``bh2``).
    """
    return (*dpmpp_1_coefficients(past[0], to), *_unipc_changes(past, to, order, variant)[:-1])


def unipc_corrector_coefficients(past: Sequence[NoiseLevel], now: NoiseLevel, order: Tensor, variant: str = "bh2") -> tuple[Tensor, ...]:
    """UniC, data prediction, of the step to ``now``: what multiplies the x it started from, the x0 found there (m0), and how the x0 found
    before and the one found at ``now`` differ from that (Zhao et al. 2023, https://arxiv.org/abs/2302.04867, alg. 1)."""
    return (*dpmpp_1_coefficients(past[0], now), *_unipc_changes(past, now, order, variant, corrects=True))


def _unipc_changes(past: Sequence[NoiseLevel], to: NoiseLevel, order: Tensor, variant: str, corrects: bool = False) -> tuple[Tensor, ...]:
    """What multiplies the changes of x0: from m0 to each of ``past[1:]``, and to the one at ``to``; 0 of what an order leaves out.

    They are rho of eq. 5, sum_m rho_m r_m^(n-1) = b_n, with the data's h -> -h.
    """
    now, h = past[0], to.log_snr - past[0].log_snr
    b = _b(now, to, variant)
    r = [*[(level.log_snr - now.log_snr) / h for level in past[1:]], torch.ones_like(h)]
    found, phi = [torch.zeros_like(h)] * len(past), torch.expm1(-h) / -h - 1
    moments: list[Tensor] = []
    for n in range(1, len(past) + 1):
        moments.append(math.factorial(n) * phi / b)
        phi = phi / -h - 1 / math.factorial(n + 1)
    for size in range(1, len(past) + 1):
        is_of = order == (size if corrects else size + 1)
        which = [*range(size - 1), -1 if corrects else size - 1]
        ratios = [torch.where(is_of, r[index], -float(place)) for place, index in enumerate(which, 1)]  # elsewhere any that differ
        rho = [torch.full_like(h, 0.5)]
        if size > 1:
            powers = torch.stack([torch.stack([ratio**power for ratio in ratios], -1) for power in range(size)], -2)
            rho = list(torch.linalg.solve(powers, torch.stack(moments[:size], -1)).unbind(-1))
        for index, share, ratio in zip(which, rho, ratios, strict=True):
            found[index] = torch.where(is_of, -to.alpha * b * share / ratio, found[index])
    return tuple(found)


def unipc_predict(x: Tensor, x0: Tensor, m: Sequence[Tensor], of_x: Tensor, of_x0: Tensor, *of_changes: Tensor) -> Tensor:
    """x_t = of_x x + of_x0 x0 + of_changes (m - x0), m being x0 found before, the latest first."""
    changes = [(share, before - x0) for share, before in zip(of_changes, m, strict=True)]
    return linear_combination((of_x, x), (of_x0, x0), *changes)


def unipc_correct(x0: Tensor, last_x: Tensor, m: Sequence[Tensor], of_x: Tensor, of_m0: Tensor, *of_changes: Tensor) -> Tensor:
    """x = of_x last_x + of_m0 m_0 + of_changes (m_1 - m_0, ..., x0 - m_0).

    Args:
        x0: data predicted at x, [B, C, ...].
        last_x: where the step to x started, like it.
        m: data predicted there, and in the steps before that.
    """
    changes = [(share, other - m[0]) for share, other in zip(of_changes, (*m[1:], x0), strict=True)]
    return linear_combination((of_x, last_x), (of_m0, m[0]), *changes)


def _b(now: NoiseLevel, to: NoiseLevel, variant: str) -> Tensor:
    """B(-h)."""
    h = to.log_snr - now.log_snr
    return -h if variant == "bh1" else torch.expm1(-h)


# --- consistency models -----------------------------------------------------------------------------------------------


def consistency_coefficients(timestep: Tensor, timestep_scaling: float) -> tuple[Tensor, Tensor]:
    """(c_skip, c_out) of f(x, t) = c_skip x + c_out x0, which is x at t = 0.

    (Song et al. 2023, https://arxiv.org/abs/2303.01469, app. C.)
    """
    scaled = timestep * timestep_scaling
    return SIGMA_DATA**2 / (scaled**2 + SIGMA_DATA**2), scaled / (scaled**2 + SIGMA_DATA**2) ** 0.5


def lcm_step(x: Tensor, x0: Tensor, z: Tensor | None, of_x: Tensor, of_x0: Tensor, sigma: Tensor) -> Tensor:
    """x_t = alpha_t f(x, s) + sigma_t z: of_x = alpha_t c_skip, of_x0 = alpha_t c_out.

    (Luo et al. 2023, https://arxiv.org/abs/2310.04378.)
    """
    return linear_combination((of_x, x), (of_x0, x0), (sigma, z))
