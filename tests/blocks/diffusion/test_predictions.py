"""What models predict: every prediction says the same about x as every other."""

from __future__ import annotations

import pytest
import torch

from wgtorch.blocks.diffusion.noise_level import DATA, NoiseLevel, flow_level, variance_from, vp_level
from wgtorch.blocks.diffusion.predictions import PREDICTIONS, epsilon_of, from_x0, prediction_name, to_epsilon, to_x0

X0, EPS = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).unbind()
LEVELS = [vp_level(0.1), vp_level(14.6), flow_level(0.3), flow_level(0.99)]


def said(prediction: str, level: NoiseLevel) -> torch.Tensor:
    """What a perfect model predicts, by the definition in its paper."""
    return {"epsilon": EPS, "sample": X0, "v_prediction": level.alpha * EPS - level.sigma * X0, "flow": EPS - X0}[prediction]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_predictions_say_the_same(prediction: str, level: NoiseLevel) -> None:
    x = level.alpha * X0 + level.sigma * EPS
    pred = said(prediction, level)
    torch.testing.assert_close(to_x0(prediction, x, pred, level), X0)
    torch.testing.assert_close(to_epsilon(prediction, x, pred, level), EPS)
    torch.testing.assert_close(from_x0(prediction, x, X0, level), pred)
    torch.testing.assert_close(epsilon_of(x, X0, level), EPS)


@pytest.mark.parametrize("prediction", ["sample", "v_prediction", "flow"])
def test_pure_noise_is_no_trouble_for_those_that_speak_of_data(prediction: str) -> None:
    noise = NoiseLevel(0.0, 1.0)
    torch.testing.assert_close(to_x0(prediction, EPS, said(prediction, noise), noise), X0)


def test_pure_noise_and_a_model_of_noise() -> None:
    with pytest.raises(ValueError, match=r"prediction 'epsilon' at alpha = 0: .* has no value there; use a v_prediction model"):
        to_x0("epsilon", EPS, EPS, NoiseLevel(0.0, 1.0))


def test_data_and_a_model_of_data() -> None:
    with pytest.raises(ValueError, match=r"prediction 'sample' at sigma = 0: eps = .* has no value there"):
        to_epsilon("sample", X0, X0, DATA)


def test_names() -> None:
    assert [prediction_name(name, "x") for name in PREDICTIONS] == list(PREDICTIONS)
    assert (prediction_name("x0", "x"), prediction_name("flow_prediction", "x")) == ("sample", "flow")
    with pytest.raises(ValueError, match=r"DDIM.prediction: found 'epsilom', expected one of epsilon, .*did you mean 'epsilon'\?"):
        prediction_name("epsilom", "DDIM.prediction")


@pytest.mark.parametrize("level", LEVELS)
def test_levels(level: NoiseLevel) -> None:
    assert level.ratio == pytest.approx(level.sigma / level.alpha)
    assert level.log_snr == pytest.approx(-torch.tensor(level.ratio, dtype=torch.float64).log().item())
    assert NoiseLevel(0.0, 1.0).log_snr == -float("inf") and DATA.log_snr == float("inf") and NoiseLevel(0.0, 1.0).ratio == float("inf")


@pytest.mark.parametrize("make", [vp_level, lambda ratio: flow_level(ratio / (1 + ratio))])
def test_variance_adds_up(make) -> None:
    """Noising from s to t, and from t to u, is noising from s to u."""
    s, t, u = make(0.2), make(1.5), make(4.0)
    share = u.alpha / t.alpha
    assert variance_from(s, u) == pytest.approx(share**2 * variance_from(s, t) + variance_from(t, u))
    assert variance_from(DATA, u) == pytest.approx(u.sigma**2)
