"""Arguments of pipelines' calls, one after the other: the same picture, or refused with what does the same here."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytest.importorskip("PIL.Image")

import diffusers
from PIL import Image

from tests.integrations.diffusers import tiny, tiny_prompted
from tests.integrations.diffusers.comparing import NEGATIVE, PROMPT, check_equal, half_mask, picture, theirs
from tests.matrix import thinned
from wgtorch.core.block import BlockRegistry
from wgtorch.core.errors import PortError
from wgtorch.core.plan import RNG, STREAM, Call, Loop
from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.absent_inputs import hint_at

pytestmark = [  # of their code
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Initial images are now duplicating.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*beautifulsoup4.*"),
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
]
TASKS = {"": "text_to_image", "Img2Img": "image_to_image", "Inpaint": "inpaint"}
NAMES = {
    "sd": "StableDiffusion",
    "xl": "StableDiffusionXL",
    "sd3": "StableDiffusion3",
    "flux": "Flux",
    "sd9": "StableDiffusion",
    "xl9": "StableDiffusionXL",
}


@pytest.fixture(scope="module")
def origins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("parts")
    return {
        "sd": tiny.stable_diffusion(folder / "sd"),
        "sd9": tiny.stable_diffusion(folder / "sd9", in_channels=9),
        "xl": tiny.stable_diffusion_xl(folder / "xl"),
        "xl9": tiny.stable_diffusion_xl(folder / "xl9", in_channels=9),
        "sd3": tiny.stable_diffusion_3(folder / "sd3", channels=16),
        "flux": tiny.flux(folder / "flux"),
    }


def opened(origins: dict[str, Any], family: str, ending: str, scheduler: Any = None) -> tuple[Any, Graph, dict[str, Any]]:
    """(pipeline, graph, a plain call)."""
    more = {"requires_safety_checker": False} if NAMES[family] == "StableDiffusion" else {}
    parts = dict(origins[family].components)
    pipeline = getattr(diffusers, f"{NAMES[family]}{ending}Pipeline")(
        **{**parts, **({} if scheduler is None else {"scheduler": scheduler})}, **more
    )
    pipeline.set_progress_bar_config(disable=True)
    call: dict[str, Any] = {"prompt": PROMPT, "num_inference_steps": 4}
    call |= {"max_sequence_length": 16} if family in ("sd3", "flux") else {}
    call |= {"height": tiny.PIXELS, "width": tiny.PIXELS} if family == "flux" else {}
    call |= {"image": picture(tiny.PIXELS), "strength": 0.6} if ending else {}
    call |= {"mask_image": half_mask(tiny.PIXELS)} if ending == "Inpaint" else {}
    return pipeline, Graph.from_diffusers(pipeline, task=TASKS[ending]), call


def of_pillow(tensor: Tensor, size: tuple[int, int] | None = None) -> Any:
    """A picture [C, H, W] as Pillow has it, resized to (width, height)."""
    array = (tensor.movedim(0, -1) * 255).byte().squeeze(-1).numpy()
    made = Image.fromarray(array)
    return made if size is None else made.resize(size)


# --- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["Img2Img", "Inpaint"])
@pytest.mark.parametrize("family", ["sd", "xl", "sd3", "flux"])
def test_pictures_of_pillow_of_any_size_alone_and_in_lists(origins: dict[str, Any], family: str, ending: str) -> None:
    pipeline, graph, call = opened(origins, family, ending)
    odd = of_pillow(picture(tiny.PIXELS)[0], (29, 25))
    if ending:
        call["mask_image"] = of_pillow(half_mask(tiny.PIXELS)[0], (29, 25))
    call = {key: value for key, value in call.items() if key != "mask_image" or ending == "Inpaint"}
    alone = check_equal(pipeline, graph, **{**call, "image": odd})
    check_equal(pipeline, graph, **{**call, "image": [odd, odd.rotate(180)], "prompt": [PROMPT, "a"]})
    as_tensor = check_equal(pipeline, graph, **{**call, "image": torch.nn.functional.interpolate(picture(tiny.PIXELS), size=(25, 29))})
    assert (alone - as_tensor).abs().max() > 1e-3, "Pillow's are resized by another rule"


def test_pictures_of_pillow_for_flux_2_and_kontext(origins: dict[str, Any]) -> None:
    odd = [of_pillow(picture(72)[0], (96, 72)), of_pillow(picture(64)[0])]
    call: dict[str, Any] = {"prompt": PROMPT, "num_inference_steps": 2, "height": 16, "width": 16}
    klein = tiny_prompted.flux2_klein()
    graph = Graph.from_diffusers(klein, task="image_to_image")
    for image in (odd[0], odd):
        check_equal(klein, graph, **call, image=image, max_sequence_length=64, text_encoder_out_layers=(1, 2, 3))
    kontext = diffusers.FluxKontextPipeline(**origins["flux"].components)
    graph = Graph.from_diffusers(kontext, task="image_to_image")
    check_equal(kontext, graph, **call, image=odd[0], max_sequence_length=16, max_area=256, _auto_resize=False)


def test_a_list_of_pictures_of_unlike_sizes(origins: dict[str, Any]) -> None:
    _, graph, call = opened(origins, "sd", "Img2Img")
    own = [of_pillow(picture(tiny.PIXELS)[0]), of_pillow(picture(24)[0])]
    assert graph.run({**call, "image": own, "prompt": [PROMPT, "a"]})["image"].shape == (2, 3, tiny.PIXELS, tiny.PIXELS)  # the first one's
    with pytest.raises(PortError, match=r"fit_picture.image: got shape \[1, 5, 8, 8\]; expected channels 3, or \[B, 4, h, w\] of latents"):
        graph.run({**call, "image": torch.rand(1, 5, 8, 8)})


@pytest.mark.parametrize("family", ["sd", "xl", "sd3", "flux"])
def test_latents_in_place_of_a_picture(origins: dict[str, Any], family: str) -> None:
    pipeline, graph, call = opened(origins, family, "Img2Img")
    channels = pipeline.vae.config.latent_channels
    latents = torch.randn(1, channels, tiny.SIDE, tiny.SIDE, generator=torch.Generator().manual_seed(2))
    check_equal(pipeline, graph, **{**call, "image": latents})


# --- noise ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["DDIMScheduler", "EulerDiscreteScheduler", "LMSDiscreteScheduler"])
@pytest.mark.parametrize(
    ("family", "ending"), [("sd", "Inpaint"), ("sd9", "Inpaint"), ("xl", "Inpaint"), ("xl9", "Inpaint"), ("xl", "Img2Img")]
)
def test_latents_beside_a_picture(origins: dict[str, Any], family: str, ending: str, kind: str) -> None:
    pipeline, graph, call = opened(origins, family, ending, getattr(diffusers, kind)(**tiny.BETAS))
    latents = torch.randn(1, 4, tiny.SIDE, tiny.SIDE, generator=torch.Generator().manual_seed(2))
    for strength in (0.6, 1.0):
        check_equal(pipeline, graph, **{**call, "latents": latents, "strength": strength})


@pytest.mark.parametrize(("family", "ending", "packed"), [("sd3", "Img2Img", False), ("flux", "Img2Img", True), ("flux", "Inpaint", False)])
def test_latents_of_a_flow_beside_a_picture(origins: dict[str, Any], family: str, ending: str, packed: bool) -> None:
    pipeline, graph, call = opened(origins, family, ending)
    generator = torch.Generator().manual_seed(2)
    channels = pipeline.vae.config.latent_channels
    shape = (1, 16, 16) if packed else (1, channels, tiny.SIDE, tiny.SIDE)
    check_equal(pipeline, graph, **{**call, "latents": torch.randn(shape, generator=generator)})


@pytest.mark.parametrize("ending", ["Img2Img", "Inpaint"])
@pytest.mark.parametrize("family", ["sd", "sd9", "xl", "flux"])
def test_a_generator_for_each_prompt_and_one_picture(origins: dict[str, Any], family: str, ending: str) -> None:
    if family == "sd9" and ending == "Img2Img":
        pytest.skip("a model that was trained to inpaint does nothing else")
    pipeline, graph, call = opened(origins, family, ending)
    call["prompt"] = [PROMPT, "a"]

    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in (3, 4)]

    expected = theirs(pipeline, **call, generator=generators())
    found = graph.run({**call, "generator": generators()})["image"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("ending", ["", "Img2Img", "Inpaint"])
@pytest.mark.parametrize("family", ["sd", "xl"])
def test_eta_of_ddim(origins: dict[str, Any], family: str, ending: str) -> None:
    ddim = diffusers.DDIMScheduler(**tiny.BETAS, clip_sample=False)
    pipeline, graph, call = opened(origins, family, ending, ddim)
    plain = check_equal(pipeline, graph, **call)
    assert (check_equal(pipeline, graph, **call, eta=0.7) - plain).abs().max() > 1e-2
    torch.testing.assert_close(check_equal(pipeline, graph, **call, eta=0.0), plain, rtol=0, atol=0)


# --- a part of the way ------------------------------------------------------------------------------------------------


SCHEDULERS = ("DDIM", "EulerDiscrete", "EulerAncestralDiscrete", "DPMSolverMultistep", "LMSDiscrete")


@pytest.mark.parametrize("kind", thinned((f"{name}Scheduler" for name in SCHEDULERS), 1))
def test_parts_of_the_way_of_xl_at_their_ends(origins: dict[str, Any], kind: str) -> None:
    latents = torch.randn(1, 4, tiny.SIDE, tiny.SIDE, generator=torch.Generator().manual_seed(2))
    steps: dict[str, Any] = {"num_inference_steps": 10}
    for ending, parts in (
        ("", {"denoising_end": 0.6}),
        ("Img2Img", {"denoising_end": 0.7, "strength": 0.7}),
        ("Img2Img", {"denoising_start": 0.4}),
        ("Img2Img", {"denoising_start": 0.3, "denoising_end": 0.8, "image": latents}),
        ("Inpaint", {"denoising_end": 0.7, "strength": 0.7}),
        ("Inpaint", {"denoising_start": 0.4, "image": latents}),
        ("Inpaint", {"denoising_start": 0.4}),
    ):
        pipeline, graph, call = opened(origins, "xl", ending, getattr(diffusers, kind)(**tiny.BETAS))
        check_equal(pipeline, graph, **{**call, **steps, **parts})


@pytest.mark.parametrize("kind", ["EulerDiscreteScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "UniPCMultistepScheduler"])
def test_latents_of_one_graph_are_the_picture_of_another(origins: dict[str, Any], kind: str) -> None:
    pipeline, graph, call = opened(origins, "xl", "", getattr(diffusers, kind)(**tiny.BETAS))
    call |= {"num_inference_steps": 10, "denoising_end": 0.6, "output_type": "latent"}
    torch.manual_seed(3)
    expected = pipeline(**call).images
    torch.manual_seed(3)
    left = graph.run(call)["image"]
    torch.testing.assert_close(left, expected, rtol=1e-4, atol=1e-4)
    second, going_on, call = opened(origins, "xl", "Img2Img", getattr(diffusers, kind)(**tiny.BETAS))
    if kind != "HeunDiscreteScheduler":  # which diffusers goes on with one step before
        check_equal(second, going_on, **{**call, "num_inference_steps": 10, "denoising_start": 0.6, "image": left})


# --- what comes out ---------------------------------------------------------------------------------------------------

VIDEOS: dict[str, Any] = {
    "wan": {"height": 16, "width": 16, "num_frames": 5, "max_sequence_length": 16},
    "ltx": {"height": 32, "width": 32, "num_frames": 9, "max_sequence_length": 16},
    "cogvideox": {"height": 16, "width": 16, "num_frames": 9, "max_sequence_length": 16},
    "hunyuan_video": {
        "height": 16, "width": 16, "num_frames": 5, "max_sequence_length": 16, "prompt_template": {"template": "x{}", "crop_start": 1},
    },
}  # fmt: skip


def as_numbers(found: Any) -> Tensor:
    """Tensors, arrays, pictures of Pillow, or lists of them as one tensor."""
    if isinstance(found, (list, tuple)):
        return torch.stack([as_numbers(one) for one in found])
    return torch.tensor(list(found.tobytes())) / 255 if hasattr(found, "getbands") else torch.as_tensor(found)


@pytest.mark.parametrize("output_type", ["np", "pil", "latent", "pt"])
@pytest.mark.parametrize("family", [*VIDEOS, "flux", "qwen_image"])
def test_videos_and_packed_latents_as_the_pipeline_gives_them(origins: dict[str, Any], family: str, output_type: str) -> None:
    sizes = VIDEOS.get(family, {"height": 16, "width": 16, "max_sequence_length": 16})
    pipeline = origins["flux"] if family == "flux" else tiny.wan() if family == "wan" else getattr(tiny_prompted, family)()
    pipeline.set_progress_bar_config(disable=True)
    graph = Graph.from_diffusers(pipeline, task="text_to_video" if family in VIDEOS else "text_to_image")
    call = {"prompt": PROMPT, "num_inference_steps": 2, "output_type": output_type, **sizes}
    torch.manual_seed(3)
    made = pipeline(**call)
    expected = made.frames if family in VIDEOS else made.images
    torch.manual_seed(3)
    (found,) = graph.run(call).values()
    assert type(found) is type(expected)
    torch.testing.assert_close(as_numbers(found), as_numbers(expected), rtol=1e-4, atol=1.1 / 255 if output_type == "pil" else 1e-4)


# --- what is not there ------------------------------------------------------------------------------------------------


def test_what_a_graph_has_no_input_for_is_named_with_what_does_the_same(origins: dict[str, Any]) -> None:
    _, graph, call = opened(origins, "xl", "Inpaint")
    for name, words in {
        "cross_attention_kwargs": r"lora.set_adapter\(graph, \{'style': 0.5\}\)",
        "callback_on_step_end": r"run\(\.\.\., callbacks=\[\.\.\.\]\)",
        "ip_adapter_image": r"graph.add_node\(IPAdapter.from_file",
        "padding_mask_crop": "cut picture and mask",
        "eta": "the solver of this graph takes none",
        "return_dict": "gives its outputs by name",
    }.items():
        with pytest.raises(PortError, match=rf"inpaint: unknown input '{name}'; .*{words}"):
            graph.run({**call, name: None if name == "return_dict" else {"scale": 0.5}})
    assert hint_at("no_such_argument") == ""
    with pytest.raises(PortError, match="unknown input 'promt'; did you mean 'prompt'"):
        graph.run({"promt": PROMPT})


def test_every_argument_of_the_pipelines_is_an_input_or_has_a_hint(origins: dict[str, Any]) -> None:
    import inspect

    graphs = [opened(origins, family, ending)[:2] for family in ("sd", "xl", "sd3", "flux") for ending in TASKS]
    graphs += [
        (pipeline, Graph.from_diffusers(pipeline, task=task))
        for pipeline, task in (
            (tiny.wan(), "text_to_video"),
            (tiny.wan(from_image=True), "image_to_video"),
            *((getattr(tiny_prompted, name)(), "text_to_video") for name in ("ltx", "cogvideox", "hunyuan_video")),
            *(
                (getattr(tiny_prompted, name)(), "text_to_image")
                for name in ("qwen_image", "z_image", "sana", "pixart", "flux2_klein", "chroma", "lumina2")
            ),
        )
    ]
    for pipeline, graph in graphs:
        known = {*graph.get_input_spec(), *graph.metadata.get("input_aliases", {}), "generator"}
        named = [name for name in inspect.signature(pipeline.__call__).parameters if name != "kwargs"]
        assert [name for name in named if name not in known and not hint_at(name)] == [], type(pipeline).__name__


def test_a_model_without_any_signal_at_its_start(origins: dict[str, Any]) -> None:
    """Where training ends at pure noise diffusers counts with sigmas of 4096, whose rounding is all that the two differ by."""
    betas = {**tiny.BETAS, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    euler = diffusers.EulerDiscreteScheduler(**betas, prediction_type="v_prediction")
    pipeline, graph, call = opened(origins, "sd", "", euler)
    check_equal(pipeline, graph, tolerance=1e-3, **{**call, "num_inference_steps": 1}, negative_prompt=NEGATIVE)


def test_a_ddim_step_is_called_with_its_values_and_a_source_of_draws_alone(origins: dict[str, Any]) -> None:
    """No value of its place is looked up in each step: on the smallest model that cost as much as the step."""
    ddim = diffusers.DDIMScheduler(**tiny.BETAS, clip_sample=False)
    changed = opened(origins, "sd", "", ddim)[1]
    changed.set_solver("solver/dpmpp_2m")
    changed.set_solver("solver/ddim")
    for each in (opened(origins, "sd", "", ddim)[1], changed):
        (loop,) = [step for step in each.plan().steps if isinstance(step, Loop)]
        (call,) = [step for step in loop.body if isinstance(step, Call) and step.node == "solver"]
        assert call.needs & ~STREAM == RNG


def test_eta_after_a_change_of_the_solver(origins: dict[str, Any]) -> None:
    _, graph, call = opened(origins, "xl", "")
    graph.set_solver("solver/ddim", clip_sample=False)
    ddim = diffusers.DDIMScheduler.from_config(origins["xl"].scheduler.config, clip_sample=False)
    check_equal(opened(origins, "xl", "", ddim)[0], graph, **call, eta=0.5)
    graph.replace_node("solver", BlockRegistry.build({"block_type": "solver/ddim", "config": {"eta": 0.2}}))
    with pytest.raises(PortError, match="got 0.5, but the solver was built with eta=0.2; build it with eta=None"):
        graph.run({**call, "eta": 0.5})


@pytest.mark.parametrize("name", ["euler", "pndm"], ids=["own_solver", "scheduler_of_diffusers"])
def test_steps_are_the_schedules(origins: dict[str, Any], name: str) -> None:
    """Iterations of the loop are another thing: where they are not what the schedule has, it is said, and what to write."""
    pipeline, graph, call = opened(origins, "sd", "", tiny.scheduler(name))
    check_equal(pipeline, graph, **call)
    mend = "give the input 'num_inference_steps', and leave num_loop_steps out"
    with pytest.warns(UserWarning, match=f"num_loop_steps is 2, .*half done.*{mend}"):
        graph.run(call, seed=1, num_loop_steps=2)
    with pytest.warns(UserWarning, match=f"num_loop_steps is 60, .*ended after [45], .*{mend}"):
        graph.run(call, seed=1, num_loop_steps=60)
