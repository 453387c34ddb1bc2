"""The same picture for the same call: draws in the pipeline's order, and all that a pipeline hands to its parts."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers

from tests.integrations.diffusers import tiny
from tests.integrations.diffusers.comparing import PROMPT, check_equal, half_mask, picture
from tests.matrix import spread
from wgtorch import NodeCache
from wgtorch.core.errors import ConfigError, PortError
from wgtorch.graph import Graph

pytestmark = [  # of their code
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]
STOCHASTIC = ("DDPMScheduler", "EulerAncestralDiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "LCMScheduler", "TCDScheduler")


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {
        "sd": tiny.stable_diffusion(tmp_path_factory.mktemp("sd")),
        "sd9": tiny.stable_diffusion(tmp_path_factory.mktemp("sd9"), in_channels=9),
        "xl": tiny.stable_diffusion_xl(tmp_path_factory.mktemp("xl")),
        "xl9": tiny.stable_diffusion_xl(tmp_path_factory.mktemp("xl9"), in_channels=9),
    }


def as_class(origin: Any, kind: str, **parts: Any) -> Any:
    wanted = getattr(diffusers, kind)
    more = {"requires_safety_checker": False} if "XL" not in kind else {}
    return wanted(**{**origin.components, **parts}, **more)


def scheduler(kind: str, **settings: Any) -> Any:
    more = {"clip_sample": False} if kind == "DDIMScheduler" else {}
    return getattr(diffusers, kind)(**{**tiny.BETAS, **more, **settings})


@pytest.mark.parametrize(("family", "strength", "kind"), spread(product(["sd", "sd9", "xl", "xl9"], [1.0, 0.6], STOCHASTIC)))
def test_inpainting_with_schedulers_that_draw(pipelines: dict[str, Any], family: str, strength: float, kind: str) -> None:
    name = "StableDiffusionXLInpaintPipeline" if family.startswith("xl") else "StableDiffusionInpaintPipeline"
    pipeline = as_class(pipelines[family], name, scheduler=scheduler(kind))
    graph = Graph.from_diffusers(pipeline, task="inpaint")
    check_equal(
        pipeline,
        graph,
        prompt=PROMPT,
        image=picture(tiny.PIXELS),
        mask_image=half_mask(tiny.PIXELS),
        num_inference_steps=5,
        strength=strength,
    )


def test_the_nine_channel_model_at_its_default_strength(pipelines: dict[str, Any]) -> None:
    pipeline = as_class(pipelines["sd9"], "StableDiffusionInpaintPipeline")
    graph = Graph.from_diffusers(pipeline, task="inpaint")
    check_equal(pipeline, graph, prompt=PROMPT, image=picture(tiny.PIXELS), mask_image=half_mask(tiny.PIXELS), num_inference_steps=4)


@pytest.mark.parametrize("family", ["sd", "xl"])
def test_eta_is_zero_unless_told(pipelines: dict[str, Any], family: str) -> None:
    pipeline = as_class(pipelines[family], type(pipelines[family]).__name__, scheduler=scheduler("TCDScheduler"))
    graph = Graph.from_diffusers(pipeline)
    plain = check_equal(pipeline, graph, prompt=PROMPT, num_inference_steps=4)
    assert (check_equal(pipeline, graph, prompt=PROMPT, num_inference_steps=4, eta=0.3) - plain).abs().max() > 1e-2


def test_a_word_of_several_vectors(tmp_path: Path) -> None:
    pipeline = tiny.stable_diffusion(tmp_path)
    torch.manual_seed(3)
    width = pipeline.text_encoder.config.hidden_size
    pipeline.load_textual_inversion(torch.randn(3, width), token="<cat>")
    pipeline.load_textual_inversion(torch.randn(1, width), token="<dog>")
    graph = Graph.from_diffusers(pipeline)
    for prompt in ("the <cat> a", ["<dog>", "a <cat> <cat>"], "the"):
        check_equal(pipeline, graph, prompt=prompt, num_inference_steps=2)
    pipeline.save_pretrained(tmp_path / "out")
    check_equal(pipeline, Graph.from_diffusers(tmp_path / "out"), prompt="the <cat> a", num_inference_steps=2)


SOLVERS = {
    "solver/dpmpp_2m": "DPMSolverMultistepScheduler",
    "solver/euler": "EulerDiscreteScheduler",
    "solver/unipc": "UniPCMultistepScheduler",
    "DEISMultistepScheduler": "DEISMultistepScheduler",
}


@pytest.mark.parametrize("first", ["ddim", "euler", "pndm"])
@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_another_solver_keeps_what_the_model_was_trained_for(pipelines: dict[str, Any], solver: str, first: str) -> None:
    origin = tiny.scheduler(first, prediction_type="v_prediction")
    pipeline = as_class(pipelines["sd"], "StableDiffusionPipeline", scheduler=origin)
    graph = Graph.from_diffusers(pipeline)
    before = check_equal(pipeline, graph, prompt=PROMPT, num_inference_steps=5)
    graph.set_solver(solver)
    other = as_class(pipelines["sd"], "StableDiffusionPipeline", scheduler=getattr(diffusers, SOLVERS[solver]).from_config(origin.config))
    found = check_equal(other, graph, prompt=PROMPT, num_inference_steps=5)
    assert first == "euler" == solver.removeprefix("solver/") or (found - before).abs().max() > 1e-4


def test_another_solver_with_settings_and_of_a_flow(pipelines: dict[str, Any], tmp_path: Path) -> None:
    graph = Graph.from_diffusers(pipelines["xl"])
    graph.set_solver("solver/dpmpp_2m", use_karras_sigmas=True)
    wanted = diffusers.DPMSolverMultistepScheduler.from_config(pipelines["xl"].scheduler.config, use_karras_sigmas=True)
    check_equal(as_class(pipelines["xl"], "StableDiffusionXLPipeline", scheduler=wanted), graph, prompt=PROMPT, num_inference_steps=4)
    with pytest.raises(ConfigError, match="'solver/dpmpp_3m' walks no diffusion; did you mean 'solver/dpmpp_2m'"):
        graph.set_solver("solver/dpmpp_3m")
    flowing = tiny.stable_diffusion_3(tmp_path)
    graph = Graph.from_diffusers(flowing)
    graph.set_solver("FlowMatchHeunDiscreteScheduler")
    flowing.scheduler = diffusers.FlowMatchHeunDiscreteScheduler.from_config(flowing.scheduler.config)
    check_equal(flowing, graph, prompt=PROMPT, num_inference_steps=4, max_sequence_length=16)
    with pytest.raises(ConfigError, match="'solver/ddim' walks no flow"):
        graph.set_solver("solver/ddim")


@pytest.mark.parametrize("kind", ["DDIMScheduler", "EulerAncestralDiscreteScheduler", "KDPM2AncestralDiscreteScheduler"])
@pytest.mark.parametrize("task", ["text_to_image", "image_to_image", "inpaint"])
@pytest.mark.parametrize("several", [False, True])
def test_a_generator_of_the_callers_own(pipelines: dict[str, Any], task: str, kind: str, several: bool) -> None:
    ending = {"text_to_image": "", "image_to_image": "Img2Img", "inpaint": "Inpaint"}[task]
    pipeline = as_class(pipelines["sd"], f"StableDiffusion{ending}Pipeline", scheduler=scheduler(kind))
    pipeline.set_progress_bar_config(disable=True)
    graph = Graph.from_diffusers(pipeline, task=task)
    call: dict[str, Any] = {"prompt": ["the cat", "a dog"], "num_inference_steps": 4}
    call |= {} if task == "text_to_image" else {"image": picture(tiny.PIXELS, batch=2), "strength": 0.8}
    call |= {"mask_image": half_mask(tiny.PIXELS)} if task == "inpaint" else {}

    def generators() -> Any:
        made = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
        return made if several else made[0]

    before = torch.get_rng_state()
    expected = torch.from_numpy(pipeline(output_type="np", generator=generators(), **call).images).movedim(-1, -3)
    own = generators()
    found = graph.run({**call, "generator": own})["image"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert torch.equal(torch.get_rng_state(), before), "the global generator is nobody's business"
    again = graph.run({**call, "generator": own})["image"]
    assert (again - found).abs().max() > 1e-3, "it has moved on"
    with pytest.raises(PortError, match="got a seed and a generator"):
        graph.run({**call, "generator": own}, seed=1)
    with pytest.raises(PortError, match="got a cache, which keeps draws by their seed, and a generator"):
        graph.run({**call, "generator": own}, cache=NodeCache())
    with pytest.raises(PortError, match="generator is .*; expected a torch.Generator"):
        graph.run({**call, "generator": 7})


@pytest.mark.parametrize("output_type", ["pt", "np", "pil", "latent"])
def test_the_type_of_what_comes_out(pipelines: dict[str, Any], output_type: str) -> None:
    pipeline = as_class(pipelines["sd"], "StableDiffusionPipeline")
    pipeline.set_progress_bar_config(disable=True)
    call = {"prompt": ["the cat", "a dog"], "num_inference_steps": 2, "output_type": output_type}
    torch.manual_seed(3)
    expected = pipeline(**call).images
    torch.manual_seed(3)
    found = Graph.from_diffusers(pipeline).run(call)["image"]
    assert type(found) is type(expected)
    if output_type == "pil":
        assert [one.size for one in found] == [one.size for one in expected]
        found, expected = ([torch.tensor(list(one.tobytes())) / 255 for one in pictures] for pictures in (found, expected))
        torch.testing.assert_close(torch.stack(found), torch.stack(expected), rtol=0, atol=1.1 / 255)
    else:
        torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected), rtol=0, atol=1e-4)


def test_an_unknown_type_of_what_comes_out(pipelines: dict[str, Any]) -> None:
    with pytest.raises(PortError, match="output_type: got 'pill'; did you mean 'pil'"):
        Graph.from_diffusers(pipelines["sd"]).run({"prompt": PROMPT, "num_inference_steps": 1, "output_type": "pill"})


def test_no_prompt_at_all_is_refused(pipelines: dict[str, Any]) -> None:
    with pytest.raises(PortError, match="tokenizer/clip.text: got an empty list; expected a prompt, or several"):
        Graph.from_diffusers(pipelines["sd"]).run({"prompt": []})


@pytest.mark.parametrize("steps", [1, 2, 999, 1000])
@pytest.mark.parametrize("kind", ["DDIMScheduler", "DDPMScheduler"])
def test_the_last_step_of_the_longest_way(pipelines: dict[str, Any], kind: str, steps: int) -> None:
    pipeline = as_class(pipelines["sd"], "StableDiffusionImg2ImgPipeline", scheduler=scheduler(kind, clip_sample=False))
    graph = Graph.from_diffusers(pipeline, task="image_to_image")
    strength = 1.0 if steps == 1 else 0.5 if steps == 2 else 0.01
    check_equal(pipeline, graph, prompt=PROMPT, image=picture(tiny.PIXELS), num_inference_steps=steps, strength=strength)


def test_a_unet_of_another_dtype_than_its_neighbours(tmp_path: Path) -> None:
    pipeline = tiny.stable_diffusion(tmp_path)
    expected = Graph.from_diffusers(pipeline).run({"prompt": PROMPT, "num_inference_steps": 3}, seed=1)["image"]
    pipeline.unet.to(torch.bfloat16)
    for batched in (True, False):
        found = Graph.from_diffusers(pipeline, batched=batched).run({"prompt": PROMPT, "num_inference_steps": 3}, seed=1)["image"]
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0, atol=0.1)


@pytest.mark.parametrize("kind", ["Heun", "DPMSolverMultistep", "DPMSolverSinglestep", "KDPM2", "SASolver"])
def test_the_ends_of_sigmas_that_another_scheduler_left_in_the_config(pipelines: dict[str, Any], kind: str, tmp_path: Path) -> None:
    kind = {"Heun": "HeunDiscrete", "KDPM2": "KDPM2Discrete"}.get(kind, kind)
    euler = diffusers.EulerDiscreteScheduler(**tiny.BETAS, use_karras_sigmas=True, sigma_min=0.1, sigma_max=8.0)
    own = getattr(diffusers, f"{kind}Scheduler").from_config(euler.config)
    call = {"prompt": PROMPT, "num_inference_steps": 4}
    pipeline = as_class(pipelines["sd"], "StableDiffusionPipeline", scheduler=own)
    graph = Graph.from_diffusers(pipeline)
    check_equal(pipeline, graph, **call)
    check_equal(pipeline, Graph.from_diffusers(graph.to_diffusers(tmp_path / "out")), **call)
    graph.set_solver("solver/heun")
    heun = diffusers.HeunDiscreteScheduler.from_config(own.config)
    check_equal(as_class(pipelines["sd"], "StableDiffusionPipeline", scheduler=heun), graph, **call)


def test_a_schedule_that_diffusers_does_not_have_keeps_its_solver() -> None:
    graph = Graph("sampler")
    graph.add_node("schedule/diffusion", "schedule", config={"num_steps": 8, "convention": "ddpm"})
    graph.add_node("solver/ddim", "solver")
    with pytest.raises(
        ConfigError, match=r"^set_solver: DDIMScheduler has no place for schedule/diffusion.convention = 'ddpm'; change that$"
    ):
        graph.set_solver("solver/heun")
    assert graph.nodes["solver"].block_type == "solver/ddim"


def test_a_shift_that_is_not_in_the_config_is_refused(tmp_path: Path) -> None:
    pipeline = tiny.stable_diffusion_3(tmp_path)
    pipeline.scheduler.set_shift(7.0)  # of sigmas whose ends are those of the old shift
    with pytest.raises(ConfigError, match=r"told a shift of 7.0 by set_shift, .*from_config\(pipeline.scheduler.config, shift=7.0\)"):
        Graph.from_diffusers(pipeline)
