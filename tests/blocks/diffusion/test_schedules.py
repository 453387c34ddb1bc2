"""Schedules: betas, spacings, sequences of sigmas, shifts, grids, and the blocks that give them."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wgtorch.blocks.diffusion.noise_level import DATA, NoiseLevel, flow_level
from wgtorch.blocks.diffusion.schedules import DiffusionSchedule, FlowSchedule, SamplerState, TimeGrid, build_schedule, shifted_sigmas
from wgtorch.blocks.diffusion.schedules.betas import alpha_bars_of, make_betas, rescale_to_zero_snr
from wgtorch.blocks.diffusion.schedules.shift import dynamic_mu, shift_sigma, shift_sigma_by_mu, stretch_to_terminal
from wgtorch.blocks.diffusion.schedules.sigmas import (
    beta_quantile,
    beta_sigmas,
    exponential_sigmas,
    karras_sigmas,
    sigma_to_timestep,
)
from wgtorch.blocks.diffusion.schedules.spacing import spaced_timesteps
from wgtorch.core.errors import ConfigError, PortError

# --- betas ------------------------------------------------------------------------------------------------------------


def test_betas_are_those_of_the_papers() -> None:
    linear = make_betas("linear", 1000, 1e-4, 0.02)
    assert linear[0] == pytest.approx(1e-4) and linear[-1] == pytest.approx(0.02)
    torch.testing.assert_close(linear.diff(), linear.diff().mean().expand(999), rtol=1e-2, atol=1e-8)
    scaled = make_betas("scaled_linear", 1000, 8.5e-4, 0.012)
    torch.testing.assert_close(scaled.sqrt().diff(), scaled.sqrt().diff().mean().expand(999), rtol=1e-2, atol=1e-8)
    cosine = alpha_bars_of(make_betas("squaredcos_cap_v2", 1000, 0, 0)).double()
    t = (torch.arange(1, 1001, dtype=torch.float64) / 1000 + 0.008) / 1.008 * math.pi / 2
    expected = (t.cos() / math.cos(0.008 / 1.008 * math.pi / 2)) ** 2
    torch.testing.assert_close(cosine[:990], expected[:990], rtol=1e-3, atol=1e-5)
    with pytest.raises(ValueError, match="beta_schedule: found 'cosine', expected one of linear, scaled_linear, squaredcos_cap_v2"):
        make_betas("cosine", 10, 0.1, 0.2)


def test_zero_terminal_snr_ends_in_noise_and_starts_as_before() -> None:
    before = alpha_bars_of(make_betas("scaled_linear", 1000, 8.5e-4, 0.012))
    after = alpha_bars_of(rescale_to_zero_snr(make_betas("scaled_linear", 1000, 8.5e-4, 0.012)))
    assert float(after[-1]) == 0.0 and float(before[-1]) > 0.001
    torch.testing.assert_close(after[0], before[0])
    assert bool((after.diff() < 0).all())


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("zero", [False, True])
def test_tables_are_diffusers_bit_for_bit(schedule: str, zero: bool) -> None:
    diffusers = pytest.importorskip("diffusers")
    for steps in (1000, 50):
        theirs = diffusers.DDIMScheduler(num_train_timesteps=steps, beta_schedule=schedule, rescale_betas_zero_snr=zero)
        betas = make_betas(schedule, steps, 0.0001, 0.02)
        ours = alpha_bars_of(rescale_to_zero_snr(betas) if zero else betas)
        assert torch.equal(ours, theirs.alphas_cumprod)


# --- timesteps and sigmas ---------------------------------------------------------------------------------------------


@given(st.sampled_from(["linspace", "leading", "trailing"]), st.integers(1, 200), st.booleans())
def test_spaced_timesteps_fall_and_stay_within_training(spacing: str, steps: int, open_end: bool) -> None:
    found = spaced_timesteps(spacing, steps, 1000, open_end=open_end)
    assert len(found) == steps
    assert all(a > b for a, b in itertools.pairwise(found)) and found[0] <= 999 and found[-1] >= 0


def test_spacings_are_those_of_table_2() -> None:
    assert spaced_timesteps("linspace", 10, 1000).round().tolist() == [999, 888, 777, 666, 555, 444, 333, 222, 111, 0]
    assert spaced_timesteps("leading", 10, 1000, offset=1).tolist() == [901, 801, 701, 601, 501, 401, 301, 201, 101, 1]
    assert spaced_timesteps("trailing", 10, 1000).tolist() == [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]
    assert spaced_timesteps("trailing", 61, 1000)[-1] == 15  # numpy's range has one more, at -1
    with pytest.raises(ValueError, match="timestep_spacing: found 'even', expected one of linspace, leading, trailing"):
        spaced_timesteps("even", 10, 1000)


@pytest.mark.parametrize("make", [karras_sigmas, exponential_sigmas, beta_sigmas])
def test_sequences_fall_from_the_largest_to_the_smallest(make) -> None:
    found = make(0.03, 14.6, 12)
    assert found[0] == pytest.approx(14.6) and found[-1] == pytest.approx(0.03)
    assert all(a > b for a, b in itertools.pairwise(found))
    assert make(0.03, 14.6, 1)[0] == pytest.approx(14.6)


def test_sequences_are_those_of_the_papers() -> None:
    rooted = karras_sigmas(0.03, 14.6, 5) ** (1 / 7)
    assert (rooted[0] - rooted[1]) == pytest.approx(rooted[3] - rooted[4])
    ratios = exponential_sigmas(0.03, 14.6, 5)
    assert ratios[0] / ratios[1] == pytest.approx(ratios[3] / ratios[4])


def test_beta_quantiles_are_scipys() -> None:
    scipy = pytest.importorskip("scipy.stats")
    shares = [*torch.linspace(0, 1, 41, dtype=torch.float64).tolist(), 1e-9, 1e-5, 1 - 1e-9]
    for alpha, beta in ((0.6, 0.6), (2.0, 5.0), (0.9, 0.3)):
        assert [beta_quantile(share, alpha, beta) for share in shares] == pytest.approx(scipy.beta.ppf(shares, alpha, beta), rel=1e-11)


def test_the_timestep_of_a_sigma_undoes_training() -> None:
    bars = alpha_bars_of(make_betas("linear", 1000, 1e-4, 0.02))
    ratios = ((1 - bars) / bars).sqrt().numpy()
    log_sigmas = ((1 - bars) / bars).sqrt().log().numpy()
    for timestep in (0, 1, 500, 998, 999):
        assert sigma_to_timestep(float(ratios[timestep]), log_sigmas) == pytest.approx(timestep, abs=1e-3)
    assert sigma_to_timestep(1e9, log_sigmas) == 999 and sigma_to_timestep(0.0, log_sigmas) == 0
    between = math.sqrt(float(ratios[500]) * float(ratios[501]))
    assert sigma_to_timestep(between, log_sigmas) == pytest.approx(500.5, abs=1e-2)


# --- shifts -----------------------------------------------------------------------------------------------------------


def test_shifts_keep_the_ends() -> None:
    for shift in (0.5, 1.0, 3.0):
        assert shift_sigma(1.0, shift) == 1.0 and shift_sigma(0.0, shift) == 0.0
        assert shift_sigma(0.5, shift) == pytest.approx(shift / (1 + shift))
        assert shift_sigma_by_mu(0.3, math.log(shift)) == pytest.approx(shift_sigma(0.3, shift))
    stretched = stretch_to_terminal(torch.tensor([1.0, 0.6, 0.3]), 0.1)
    torch.testing.assert_close(stretched[[0, 2]], torch.tensor([1.0, 0.1]))


def test_dynamic_shift_is_that_of_flux() -> None:
    pytest.importorskip("diffusers")
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    assert dynamic_mu(256) == pytest.approx(0.5) and dynamic_mu(4096) == pytest.approx(1.15)
    for tokens in (100, 1024, 9000):
        assert dynamic_mu(tokens) == pytest.approx(calculate_shift(tokens))
        settings = {"base_tokens": 100, "max_tokens": 2000, "base_shift": 0.2, "max_shift": 2.0}
        assert dynamic_mu(tokens, **settings) == pytest.approx(calculate_shift(tokens, 100, 2000, 0.2, 2.0))


# --- grids ------------------------------------------------------------------------------------------------------------


def small_grid() -> TimeGrid:
    return TimeGrid((3.0, 2.0, 1.0), (NoiseLevel(0.1, 0.9), NoiseLevel(0.5, 0.5), NoiseLevel(0.8, 0.2), DATA))


def test_the_rest_of_a_grid() -> None:
    grid = small_grid()
    assert grid.slice(0) is grid and grid.slice(1) is grid.slice(1)
    rest = grid.slice(1)
    assert (rest.timesteps, rest.levels, rest.targets) == ((2.0, 1.0), grid.levels[1:], grid.levels[2:])
    assert (len(rest), rest.total, grid.total) == (2, 3, 3)
    assert grid.slice_for(1.0) is grid and len(grid.slice_for(0.99)) == 2 and len(grid.slice_for(0.34)) == 1
    for strength in (0.2, 0.0, 1.1, -1.0):
        with pytest.raises(ValueError, match=rf"strength: found {strength} with 3 steps, expected a number from 0.333 to 1"):
            grid.slice_for(strength)


def test_a_grid_from_a_timestep() -> None:
    grid = small_grid()
    assert grid.slice_from(2.0, "here") is grid.slice(1)
    with pytest.raises(
        PortError, match=r"here\.timestep: found 2.5, expected one of this solver's own 3 timesteps 3, 2, 1, .*Start the loop at 3"
    ):
        grid.slice_from(2.5, "here")


def test_a_grid_needs_a_level_more_than_timesteps() -> None:
    with pytest.raises(ValueError, match="TimeGrid: 1 timesteps and 1 levels; expected N >= 1 and N \\+ 1"):
        TimeGrid((1.0,), (DATA,))


def test_a_start_is_noise_or_an_image_noised() -> None:
    noise, image = torch.randn(2, 1, 3)
    grid = TimeGrid((1.0,), (NoiseLevel(0.6, 0.8), DATA), start_scale=0.5)
    assert torch.equal(SamplerState(small_grid()).start(noise), noise)
    assert torch.equal(SamplerState(grid).start(noise), noise * 0.5)
    torch.testing.assert_close(SamplerState(grid).start(noise, image), 0.6 * image + 0.8 * noise)


@pytest.mark.parametrize("convention", ["ddpm", "ddim", "lcm", "euler", "dpm_solver", "unipc"])
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
def test_grids_go_from_noise_to_data(convention: str, spacing: str) -> None:
    grid = DiffusionSchedule(num_steps=9, convention=convention, timestep_spacing=spacing).grid()
    assert len(grid) == 9 and grid.levels[-1] == DATA
    assert all(a > b for a, b in zip(grid.timesteps, grid.timesteps[1:], strict=False))
    ratios = [level.ratio for level in grid.levels]
    assert all(a > b for a, b in itertools.pairwise(ratios))
    assert all(level.alpha**2 + level.sigma**2 == pytest.approx(1) for level in grid.levels)
    kinds = {type(timestep) for timestep in grid.timesteps}
    assert kinds == ({float} if convention == "euler" else {int}) and type(grid.end) in kinds and grid.end == 0


def test_a_ddim_step_leads_where_training_timesteps_say() -> None:
    grid = DiffusionSchedule(num_steps=6, convention="ddim", timestep_spacing="linspace").grid()
    schedule = DiffusionSchedule()
    assert list(grid.targets) == [schedule.layout.level(t - 166) for t in grid.timesteps]
    assert grid.targets[0] != grid.levels[1] and grid.targets[-1] == DATA


@pytest.mark.parametrize("convention", ["even", "trained", "dpm_solver", "unipc"])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_grids_go_from_noise_to_data(convention: str, shift: float) -> None:
    grid = FlowSchedule(num_steps=7, convention=convention, shift=shift).grid()
    sigmas = [level.sigma for level in grid.levels]
    assert len(grid) == 7 and sigmas[0] == pytest.approx(1, abs=1e-3) and grid.levels[-1] == DATA
    assert all(a > b for a, b in itertools.pairwise(sigmas))
    assert all(level.alpha + level.sigma == pytest.approx(1) for level in grid.levels)
    assert [t / 1000 for t in grid.timesteps] == pytest.approx(sigmas[:-1], abs=1e-3)


def test_even_sigmas_are_exact() -> None:
    grid = FlowSchedule(num_steps=12, num_train_timesteps=1).grid()
    assert grid.timesteps == tuple(1 - step / 12 for step in range(12)) == shifted_sigmas(12)[:-1]
    assert grid.levels == tuple(flow_level(sigma) for sigma in shifted_sigmas(12))


# --- blocks -----------------------------------------------------------------------------------------------------------


def test_a_schedule_says_where_a_loop_starts() -> None:
    schedule = DiffusionSchedule(num_steps=4)
    found = schedule()
    assert found["timestep"] == 999 == found["progress"].timestep and found["progress"].grid is schedule.grid()
    assert (found["alpha"], found["sigma"]) == schedule.grid().levels[0]
    assert schedule(num_steps=8)["progress"].grid is schedule.grid(8) and len(schedule.grid(8)) == 8
    later = schedule(strength=0.5)
    assert later["timestep"] == 499 and len(later["progress"].grid) == 2 and (later["alpha"], later["sigma"]) == schedule.grid().levels[2]


def test_a_schedule_knows_the_levels_of_training() -> None:
    schedule = DiffusionSchedule()
    alpha, sigma = (schedule(timestep=torch.tensor([0, 500, 999]))[name] for name in ("alpha", "sigma"))
    bars = alpha_bars_of(make_betas("scaled_linear", 1000, 8.5e-4, 0.012))[[0, 500, 999]]
    torch.testing.assert_close(alpha, bars.sqrt())
    torch.testing.assert_close(sigma, (1 - bars).sqrt())
    one = schedule(timestep=500)
    assert (one["alpha"], one["sigma"]) == pytest.approx((float(alpha[1]), float(sigma[1])))
    flow = FlowSchedule()(timestep=torch.tensor([250, 1000]))
    torch.testing.assert_close(flow["sigma"], torch.tensor([0.25, 1.0]))
    torch.testing.assert_close(flow["alpha"], torch.tensor([0.75, 0.0]))


def test_a_dynamic_shift_needs_to_know_the_picture() -> None:
    schedule = FlowSchedule(num_steps=4, dynamic_shift=True)
    small, large = (schedule(tokens=tokens)["progress"].grid.levels[2].sigma for tokens in (256, 4096))
    assert small < large
    assert schedule(mu=dynamic_mu(256))["progress"].grid.levels[2].sigma == small
    with pytest.raises(ValueError, match="the shift is dynamic; feed the input mu, or tokens"):
        schedule()


def test_grids_are_kept_but_not_without_end() -> None:
    schedule = FlowSchedule(num_steps=4, dynamic_shift=True)
    first = schedule(mu=0.5)["progress"].grid
    assert schedule(mu=0.5)["progress"].grid is first
    for index in range(200):
        schedule(mu=1 + index / 100)
    assert len(schedule._grids) <= 64


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"num_steps": 0}, "DiffusionSchedule.num_steps: found 0, expected a whole number of at least 1"),
        ({"num_steps": 1001}, "num_steps: found 1001, expected at most the 1000 timesteps of training"),
        ({"convention": "dpm"}, "convention: found 'dpm', expected one of ddpm, ddim, lcm, euler, dpm_solver, unipc"),
        ({"timestep_spacing": "even"}, "timestep_spacing: found 'even', expected one of linspace, leading, trailing"),
        ({"final_sigmas_type": "one"}, "final_sigmas_type: found 'one', expected one of zero, sigma_min"),
        ({"sigmas": "karas", "convention": "euler"}, "sigmas: found 'karas', expected one of trained, karras, exponential, beta"),
        ({"sigmas": "karras"}, "sigmas: found 'karras' with convention 'ddpm', which keeps to timesteps of training"),
        ({"sigmas": [3.0, 0.0]}, "a list of sigmas needs convention 'euler'"),
        ({"sigmas": [1.0, 3.0, 0.0], "convention": "euler"}, r"sigmas: found \[1.0, 3.0, 0.0\], expected numbers that fall"),
        ({"timesteps": [10, 20]}, r"timesteps: found \[10, 20\], expected numbers that fall"),
        ({"convention": "lcm", "num_steps": 60}, "num_steps: found 60, expected at most original_steps, 50"),
        ({"timestep_type": "edm"}, "timestep_type: found 'edm', expected one of discrete, continuous"),
    ],
)
def test_diffusion_settings_that_make_no_sense(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DiffusionSchedule(**config)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"shift": 0.0}, "FlowSchedule.shift: found 0.0, expected a number above 0"),
        ({"convention": "odd"}, "convention: found 'odd', expected one of even, trained, dpm_solver, unipc"),
        ({"sequence": "linear"}, "sequence: found 'linear', expected one of karras, exponential, beta"),
        ({"sigmas": [0.5, 0.8]}, r"sigmas: found \[0.5, 0.8\], expected numbers that fall, from at most 1 to above 0"),
        ({"sigmas": [1.2, 0.8]}, "from at most 1 to above 0"),
        ({"sigmas": [1.0, 0.0]}, "from at most 1 to above 0"),
        ({"final_sigmas_type": "one"}, "final_sigmas_type: found 'one', expected one of zero, sigma_min"),
    ],
)
def test_flow_settings_that_make_no_sense(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FlowSchedule(**config)


def test_a_schedule_of_given_steps_has_those_only() -> None:
    for schedule, name in ((DiffusionSchedule(timesteps=[900, 500, 100]), "timesteps"), (FlowSchedule(sigmas=[1.0, 0.5, 0.1]), "sigmas")):
        assert len(schedule.grid()) == len(schedule.grid(3)) == 3
        with pytest.raises(ValueError, match=rf"num_steps: found 5, but .* {name}.*leave num_steps out"):
            schedule(num_steps=5)


@pytest.mark.parametrize("name", ["timesteps", "sigmas"])
def test_a_run_may_bring_its_own_steps(name: str) -> None:
    own = {"timesteps": [900, 500, 20], "sigmas": [9.0, 2.0, 0.1, 0.0]}[name]
    block = DiffusionSchedule(convention="euler", num_steps=7)
    found = block.run({name: own})["progress"].grid
    expected = DiffusionSchedule(convention="euler", **{name: own}).grid()  # type: ignore[arg-type]
    assert (found.timesteps, found.levels, found.start_scale) == (expected.timesteps, expected.levels, expected.start_scale)
    assert block.run({name: own})["progress"].grid is found, "made once"
    assert len(block.run({name: own, "strength": 0.67})["progress"].grid) == 2
    assert len(block.run({})["progress"].grid) == 7
    other = DiffusionSchedule(convention="euler", timesteps=[800, 30])
    assert other.run({name: own})["progress"].grid.timesteps == expected.timesteps, "instead of the constructor's"


def test_a_run_of_a_flow_may_bring_its_own_sigmas() -> None:
    own = [1.0, 0.7, 0.2]
    for more, inputs in (({"shift": 2.0}, {}), ({"dynamic_shift": True}, {"mu": 0.9}), ({"convention": "trained"}, {})):
        block = FlowSchedule(num_steps=9, **more)  # type: ignore[arg-type]
        found = block.run({"sigmas": own, **inputs})["progress"].grid
        expected = FlowSchedule(sigmas=own, **more).run(dict(inputs))["progress"].grid  # type: ignore[arg-type]
        assert (found.timesteps, found.levels) == (expected.timesteps, expected.levels)
        assert len(block.run(dict(inputs))["progress"].grid) == 9


def test_steps_of_a_run_that_make_no_sense() -> None:
    with pytest.raises(PortError, match=r"sigmas: got \[2.0, 1.0\]; expected numbers that fall, from at most 1 to above 0"):
        FlowSchedule().run({"sigmas": [2.0, 1.0]})
    with pytest.raises(PortError, match=r"sigmas: got \[0.5, 0.7, 0.2\]; expected numbers that fall"):
        FlowSchedule().run({"sigmas": [0.5, 0.7, 0.2]})
    with pytest.raises(PortError, match=r"timesteps: got \[\]; expected numbers that fall"):
        DiffusionSchedule().run({"timesteps": []})
    with pytest.raises(PortError, match="got sigmas with convention 'ddpm', which takes timesteps"):
        DiffusionSchedule().run({"sigmas": [2.0, 0.0]})


def test_schedules_from_plain_settings() -> None:
    built = build_schedule({"kind": "flow", "num_steps": 3, "shift": 2.0})
    assert isinstance(built, FlowSchedule) and built.config["shift"] == 2.0 and len(built.grid()) == 3
    with pytest.raises(ConfigError, match=r"schedule.kind: found 'flaw', expected one of .*flow; did you mean 'flow'\?"):
        build_schedule({"kind": "flaw"})
    with pytest.raises(ConfigError, match="shifft"):
        build_schedule({"kind": "flow", "shifft": 2.0})
