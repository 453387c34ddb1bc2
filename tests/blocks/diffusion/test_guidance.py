"""Guidance blocks, against their papers' formulae and diffusers' functions."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor

from wgtorch.blocks.diffusion.guidance import perp_neg, perpendicular, rescale_to
from wgtorch.core.block import BlockRegistry
from wgtorch.graph import Graph
from wgtorch.roles import Backbone

SHAPE = (2, 3, 4, 4)
COND, UNCOND, OTHER = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64).unbind()


def build(name: str, **config: Any) -> Any:
    return BlockRegistry.build({"block_type": f"guidance/{name}", "config": config})


def guided(name: str, config: dict[str, Any] | None = None, **inputs: Any) -> Tensor:
    given = {"pred_cond": COND, "pred_uncond": UNCOND, **inputs}
    return build(name, **(config or {}))(**{key: value for key, value in given.items() if value is not None})["pred_guided"]


OTHERS = {"cfg": {}, "perp_neg": {"pred_negative": OTHER}, "pag": {"pred_perturbed": OTHER}, "sag": {"pred_degraded": OTHER}}


# --- rescaling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_rescaled_guidance_is_diffusers(share: float) -> None:
    pytest.importorskip("diffusers")
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    plain = guided("cfg", {"scale": 7.5})
    expected = rescale_noise_cfg(plain, COND, guidance_rescale=share) if share else plain
    torch.testing.assert_close(guided("cfg", {"scale": 7.5, "rescale": share}), expected)


def test_how_much_is_rescaled_may_be_an_input() -> None:
    expected = guided("cfg", {"scale": 7.5, "rescale": 0.4})
    torch.testing.assert_close(guided("cfg", {"scale": 7.5, "rescale": 0.9}, rescale=0.4), expected)
    torch.testing.assert_close(guided("cfg", {"scale": 7.5}, rescale=torch.tensor(0.4, dtype=torch.float64)), expected)
    assert torch.equal(guided("cfg", {"scale": 7.5, "rescale": 0.9}, rescale=0.0), guided("cfg", {"scale": 7.5}))


def test_rescaled_wholly_has_the_deviation_of_the_condition() -> None:
    found = rescale_to(3 * COND + UNCOND, COND, 1.0)
    torch.testing.assert_close(found.flatten(1).std(dim=1), COND.flatten(1).std(dim=1))


@pytest.mark.parametrize("name", list(OTHERS))
def test_every_guidance_can_be_rescaled(name: str) -> None:
    plain, rescaled = (guided(name, {"rescale": share}, **OTHERS[name]) for share in (0.0, 0.5))
    torch.testing.assert_close(rescaled, rescale_to(plain, COND, 0.5))
    assert not torch.allclose(plain, rescaled)


# --- the guiders of diffusers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rescale", [0.0, 0.6])
@pytest.mark.parametrize("scale", [1.5, 7.5])
def test_cfg_is_diffusers(scale: float, rescale: float) -> None:
    guiders = pytest.importorskip("diffusers.guiders")
    logging.disable(logging.WARNING)
    guider = guiders.ClassifierFreeGuidance(guidance_scale=scale, guidance_rescale=rescale)
    logging.disable(logging.NOTSET)
    expected = guider.forward(COND, UNCOND).pred
    torch.testing.assert_close(guided("cfg", {"scale": scale, "rescale": rescale}), expected)


@pytest.mark.parametrize("with_cfg", [True, False])
def test_pag_is_diffusers(with_cfg: bool) -> None:
    pytest.importorskip("diffusers")
    from diffusers.pipelines.pag.pag_utils import PAGMixin

    mixin = PAGMixin()
    mixin._pag_scale, mixin._pag_adaptive_scale = 3.0, 0.0
    given = torch.cat([UNCOND, COND, OTHER] if with_cfg else [COND, OTHER])
    expected = mixin._apply_perturbed_attention_guidance(given, with_cfg, 5.0, 500)
    found = guided("pag", {"scale": 5.0, "perturbed_scale": 3.0}, pred_perturbed=OTHER, pred_uncond=UNCOND if with_cfg else None)
    torch.testing.assert_close(found, expected)


# --- formulae ---------------------------------------------------------------------------------------------------------


def test_sag_pushes_the_unconditional_prediction_from_the_degraded_one() -> None:
    expected = UNCOND + 7.5 * (COND - UNCOND) + 0.75 * (UNCOND - OTHER)
    torch.testing.assert_close(guided("sag", {"scale": 7.5, "degraded_scale": 0.75}, pred_degraded=OTHER), expected)
    alone = guided("sag", {"degraded_scale": 0.75}, pred_degraded=OTHER, pred_uncond=None)
    torch.testing.assert_close(alone, COND + 0.75 * (COND - OTHER))


def test_perpendicular_negatives_are_the_papers_formula() -> None:
    expected = torch.empty_like(COND)
    for k in range(len(COND)):
        d, negative = (COND - UNCOND)[k].flatten(), (OTHER - UNCOND)[k].flatten()
        across = negative - torch.dot(negative, d) / torch.dot(d, d) * d
        expected[k] = (UNCOND[k].flatten() + 7.0 * (d - 0.8 * across)).view(SHAPE[1:])
    torch.testing.assert_close(guided("perp_neg", {"scale": 7.0, "negative_scale": 0.8}, pred_negative=OTHER), expected)


def test_what_is_perpendicular() -> None:
    across = perpendicular(OTHER, COND)
    torch.testing.assert_close((across * COND).flatten(1).sum(1), torch.zeros(2, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(perpendicular(across, COND), across)
    torch.testing.assert_close(perpendicular(3 * COND, COND), torch.zeros_like(COND), atol=1e-12, rtol=0)


def test_a_negative_along_the_prompt_cannot_undo_it() -> None:
    plain = UNCOND + 5 * (COND - UNCOND)
    torch.testing.assert_close(perp_neg(COND, UNCOND, UNCOND + 2 * (COND - UNCOND), 5.0, 1.0), plain)


# --- what all share ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(OTHERS))
def test_guidance_may_be_kept_to_an_interval(name: str) -> None:
    config = {"interval": [100, 700]}
    always = guided(name, **OTHERS[name])
    for timestep, guides in ((99, False), (100, True), (699.5, True), (701, False)):
        for given in (timestep, torch.tensor(timestep), torch.tensor([timestep, timestep])):
            assert torch.equal(guided(name, config, timestep=given, **OTHERS[name]), always if guides else COND)
    assert torch.equal(guided(name, config, **OTHERS[name]), always)


@pytest.mark.parametrize("name", list(OTHERS))
def test_a_strength_for_each_sample(name: str) -> None:
    both = guided(name, scale=torch.tensor([2.0, 9.0]), **OTHERS[name])
    assert both.dtype == torch.float64
    for k, scale in enumerate((2.0, 9.0)):
        torch.testing.assert_close(both[k], guided(name, {"scale": scale}, **OTHERS[name])[k])
        torch.testing.assert_close(both[k], guided(name, scale=torch.tensor(scale), **OTHERS[name])[k])


@pytest.mark.parametrize("name", ["perp_neg", "pag", "sag"])
def test_the_other_strength_is_an_input_too(name: str) -> None:
    port = {"perp_neg": "negative_scale", "pag": "perturbed_scale", "sag": "degraded_scale"}[name]
    fed = guided(name, **OTHERS[name], **{port: torch.tensor([0.5, 4.0])})
    for k, scale in enumerate((0.5, 4.0)):
        torch.testing.assert_close(fed[k], guided(name, {port: scale}, **OTHERS[name])[k])


@pytest.mark.parametrize("name", list(OTHERS))
@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"interval": [0.7, 0.1]}, r"interval: found \[0.7, 0.1\], expected \[low, high\]"),
        ({"rescale": 1.2}, "rescale: found 1.2, expected a number from 0 to 1"),
    ],
)
def test_settings_that_make_no_sense(name: str, config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build(name, **config)


def test_guidance_stands_between_backbone_and_solver_and_hears_the_time() -> None:
    """By role: pred to pred_cond, pred_guided to the solver, and every turn's timestep."""

    class Field(Backbone):
        def forward(self, latent: Tensor, timestep: float, condition: Tensor | None = None) -> dict[str, Any]:
            return {"pred": torch.tanh(latent)}

    graph = Graph("sampler")
    graph.add_node("noise/gaussian", "noise", config={"shape": [1, 2, 2], "schedule": {"kind": "diffusion", "num_steps": 4}})
    graph.add_node(Field(), "backbone")
    graph.add_node("guidance/cfg", "guidance", config={"scale": 3.0, "interval": [400, 800]})
    graph.add_node("solver/ddim", "solver")
    graph.add_node(Field(), "negative", auto_connect=False)
    for edge in ("noise.latent", "solver.next_latent"):
        graph.add_edge(edge, "negative.latent")
    for edge in ("noise.timestep", "solver.next_timestep"):
        graph.add_edge(edge, "negative.timestep")
    graph.add_edge("negative.pred", "guidance.pred_uncond")
    graph.expose_input("noise", "condition")
    graph.expose_output("solver", "next_latent")
    assert graph.validate().is_valid
    times: list[float] = []

    def watch(event: Any) -> None:
        if event.kind == "start" and event.path == "guidance":
            times.append(event.inputs["timestep"])

    graph.run({"condition": torch.zeros(1, 1)}, seed=0, callbacks=[watch])
    assert times == [999, 749, 499, 249]
