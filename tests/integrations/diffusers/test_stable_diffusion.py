"""Stable Diffusion 1 and 2: graphs equal to the pipelines of diffusers on the same weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from tests.integrations.diffusers import tiny
from tests.integrations.diffusers.comparing import NEGATIVE, PROMPT, check_equal, half_mask, ours, picture, theirs
from wgtorch import lora
from wgtorch.blocks.diffusion.guidance import PerturbedAttention
from wgtorch.blocks.diffusion.solvers import DPMpp2M
from wgtorch.core.errors import CheckpointError, ConfigError, PortError, UnknownNameError
from wgtorch.core.pool import Pool
from wgtorch.graph import Graph
from wgtorch.integrations.diffusers import from_diffusers
from wgtorch.integrations.diffusers.blocks.tokenizers import PromptTruncatedWarning

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of their code, about numpy 2
STEPS = 6
NATIVE = ("ddim", "euler", "euler_ancestral", "heun", "dpmpp_2m", "unipc")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny.stable_diffusion(tmp_path_factory.mktemp("sd"))


@pytest.fixture(scope="module")
def folder(pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("written") / "sd"
    pipeline.save_pretrained(place)
    return place


def as_task(pipeline: Any, task: str, schedule: str = "ddim", **scheduling: Any) -> Any:
    """The pipeline of a task on the same models."""
    import diffusers

    name = {"text_to_image": "", "image_to_image": "Img2Img", "inpaint": "Inpaint"}[task]
    parts = {**pipeline.components, "scheduler": tiny.scheduler(schedule, **scheduling)}
    return getattr(diffusers, f"StableDiffusion{name}Pipeline")(**parts, requires_safety_checker=False)


@contextmanager
def watched(model: nn.Module, rows: list[int]) -> Iterator[None]:
    """Notes how many rows each call of a model has."""
    hook = model.register_forward_pre_hook(lambda model, args: rows.append(len(args[0])))
    yield
    hook.remove()


# --- equal ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [*NATIVE, "pndm"])
def test_text_to_image(pipeline: Any, schedule: str) -> None:
    same = as_task(pipeline, "text_to_image", schedule)
    graph = from_diffusers(same)
    assert graph.nodes["solver"].block_type == ("solver/diffusers" if schedule == "pndm" else f"solver/{schedule}")
    call = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "num_inference_steps": STEPS, "guidance_scale": 6.0}
    guided = check_equal(same, graph, **call)
    other = ours(graph, **{**call, "negative_prompt": "the cat"})
    assert (guided - other).abs().max() > 0.01, "the negative prompt matters"


def test_defaults_are_those_of_the_pipeline(pipeline: Any) -> None:
    check_equal(pipeline, from_diffusers(pipeline), prompt=PROMPT)


@pytest.mark.parametrize("guidance_scale", [0.5, 1.0])
def test_without_guidance_the_negative_prompt_is_not_looked_at(pipeline: Any, guidance_scale: float) -> None:
    for batched in (True, False):
        graph = from_diffusers(pipeline, batched=batched)
        check_equal(pipeline, graph, prompt=PROMPT, num_inference_steps=STEPS, guidance_scale=guidance_scale)


def test_two_calls_instead_of_one_batch(pipeline: Any) -> None:
    graph = from_diffusers(pipeline, batched=False)
    check_equal(pipeline, graph, prompt=PROMPT, negative_prompt=NEGATIVE, num_inference_steps=STEPS)
    rows: list[int] = []
    with watched(graph.nodes["backbone"].model, rows):
        ours(graph, prompt=PROMPT, negative_prompt=NEGATIVE, num_inference_steps=STEPS)
    assert rows == [1] * 2 * STEPS
    assert graph.nodes["backbone"] is graph.nodes["negative_backbone"]


def test_one_batch_is_the_default_and_conditions_are_encoded_once(pipeline: Any) -> None:
    graph = from_diffusers(pipeline)
    rows: list[int] = []
    encoded: list[int] = []
    with watched(graph.nodes["backbone"].model, rows), watched(graph.nodes["text_encoder"].model, encoded):
        graph.run({"prompt": ["a", "b", "c"], "num_inference_steps": STEPS})
    assert rows == [6] * STEPS
    assert sorted(encoded) == [1, 3]


@pytest.mark.parametrize("batched", [True, False])
def test_keys_and_values_of_the_condition_are_made_once(pipeline: Any, batched: bool) -> None:
    from diffusers.models.attention_processor import AttnProcessor

    graph = from_diffusers(pipeline, batched=batched)
    layers = [module for name, module in pipeline.unet.named_modules() if name.endswith("attn2.to_k")]
    call = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "num_inference_steps": STEPS}
    with torch.no_grad():
        rows: list[int] = []
        with watched(layers[0], rows):
            found = ours(graph, **call)
        assert rows == ([2] if batched else [1, 1])
    before = pipeline.unet.attn_processors
    pipeline.unet.set_attn_processor(AttnProcessor())  # what somebody else has set stays
    try:
        rows.clear()
        with watched(layers[0], rows):
            torch.testing.assert_close(ours(graph, **call), found)
        assert len(rows) == STEPS * (1 if batched else 2)
        assert {type(processor) for processor in pipeline.unet.attn_processors.values()} == {AttnProcessor}
    finally:
        pipeline.unet.set_attn_processor(before)


def test_several_prompts_sizes_and_pictures_for_each(pipeline: Any) -> None:
    graph = from_diffusers(pipeline)
    call = {"num_inference_steps": STEPS, "height": 32, "width": 16, "num_images_per_prompt": 2}
    found = check_equal(pipeline, graph, prompt=["the cat", "b"], negative_prompt=["x", "y"], **call)
    assert found.shape == (4, 3, 32, 16)


def test_given_latents_and_a_seed(pipeline: Any) -> None:
    graph = from_diffusers(pipeline)
    latents = torch.randn(2, 4, 6, 10, generator=torch.Generator().manual_seed(1))
    call = {"prompt": ["the cat", "b"], "num_inference_steps": STEPS}
    expected = theirs(pipeline, latents=latents, **call)
    found = graph.run({"latents": latents, **call}, seed=1)["image"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert torch.equal(graph.run(call, seed=2)["image"], graph.run(call, seed=2)["image"])


AYS = {  # Align Your Steps for Stable Diffusion 1 (Sabour et al. 2024)
    "timesteps": [999, 850, 736, 645, 545, 455, 343, 233, 124, 24],
    "sigmas": [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.0],
}


@pytest.mark.parametrize("task", ["text_to_image", "image_to_image", "inpaint"])
@pytest.mark.parametrize(
    ("schedule", "name"), [("euler", "timesteps"), ("euler", "sigmas"), ("heun", "timesteps"), ("dpmpp_2m", "timesteps")]
)
def test_timesteps_or_sigmas_of_a_runs_own(pipeline: Any, schedule: str, name: str, task: str) -> None:
    import diffusers

    if schedule == "heun" and task != "text_to_image":
        pytest.skip("their pipelines take its turns for steps then, and leave most of them out")
    same = as_task(pipeline, task, schedule)
    if schedule == "dpmpp_2m":
        same.scheduler = diffusers.DPMSolverMultistepScheduler(**tiny.BETAS)
    graph = from_diffusers(same, task=task)
    call = {"prompt": PROMPT, name: AYS[name]}
    call |= {} if task == "text_to_image" else {"image": picture(tiny.PIXELS), "strength": 0.6}
    call |= {"mask_image": half_mask(tiny.PIXELS)} if task == "inpaint" else {}
    check_equal(same, graph, **call)
    turns: list[int] = []
    with watched(graph.nodes["backbone"].model, turns):
        ours(graph, **call)
    asked = 10 if task == "text_to_image" else 6
    assert len(turns) == (2 * asked - 1 if schedule == "heun" else asked)


def test_lists_that_cannot_be_walked_are_refused(pipeline: Any) -> None:
    graph = from_diffusers(pipeline)
    with pytest.raises(PortError, match=r"timesteps: got \[1.0, 5.0\]; expected numbers that fall"):
        graph.run({"prompt": PROMPT, "timesteps": [1, 5]})
    with pytest.raises(PortError, match="sigmas: got sigmas with convention 'ddim', which takes timesteps; expected convention 'euler'"):
        graph.run({"prompt": PROMPT, "sigmas": [5.0, 1.0, 0.0]})
    with pytest.raises(PortError, match="got sigmas with timesteps beside them"):
        graph.run({"prompt": PROMPT, "sigmas": [5.0, 1.0, 0.0], "timesteps": [5, 1]})


@pytest.mark.parametrize("batched", [True, False])
def test_guidance_rescale(pipeline: Any, batched: bool) -> None:
    graph = from_diffusers(pipeline, batched=batched)
    call = {"prompt": PROMPT, "num_inference_steps": STEPS}
    plain = check_equal(pipeline, graph, **call)
    assert (check_equal(pipeline, graph, **call, guidance_rescale=0.7) - plain).abs().max() > 1e-3


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("task", ["text_to_image", "image_to_image", "inpaint"])
def test_a_distilled_unet_that_takes_the_scale_itself(tmp_path: Path, task: str, batched: bool) -> None:
    distilled = tiny.stable_diffusion(tmp_path)
    distilled.unet = tiny.unet(time_cond_proj_dim=6)
    torch.nn.init.normal_(distilled.unet.time_embedding.cond_proj.weight)
    same = as_task(distilled, task)
    if task == "text_to_image":
        import diffusers

        same.scheduler = diffusers.LCMScheduler(**{**tiny.BETAS, "steps_offset": 0})
    graph = from_diffusers(same, task=task, batched=batched)
    call = {"prompt": [PROMPT, "a"], "num_inference_steps": 4}
    call |= {} if task == "text_to_image" else {"image": picture(tiny.PIXELS, batch=2)}
    call |= {"mask_image": half_mask(tiny.PIXELS)} if task == "inpaint" else {}
    found = check_equal(same, graph, **call)
    assert (check_equal(same, graph, **call, guidance_scale=8.1) - found).abs().max() > 1e-4, "the scale matters"
    rows: list[int] = []
    with watched(graph.nodes["backbone"].model, rows):
        ours(graph, **call)
    assert set(rows) == {2}, "nothing is guided besides"


def test_an_image_encoder_is_left_out_and_an_ip_adapter_inside_the_unet_is_refused(pipeline: Any) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    seeing = CLIPVisionModelWithProjection(CLIPVisionConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2))
    same = type(pipeline)(**{**pipeline.components, "image_encoder": seeing}, requires_safety_checker=False)
    check_equal(pipeline, from_diffusers(same), prompt=PROMPT, num_inference_steps=STEPS)
    same.unet = tiny.unet()
    same.unet.register_to_config(encoder_hid_dim_type="ip_image_proj")  # as load_ip_adapter does
    with pytest.raises(ConfigError, match="UNet with an IP-Adapter in it; call unload_ip_adapter"):
        from_diffusers(same)


def test_processors_that_diffusers_makes_anew_are_numbered_again(pipeline: Any) -> None:
    graph = from_diffusers(pipeline)
    call = {"prompt": PROMPT, "num_inference_steps": STEPS}
    found = ours(graph, **call)
    anew = {name: type(processor)() for name, processor in pipeline.unet.attn_processors.items()}  # as unload_ip_adapter does
    pipeline.unet.set_attn_processor(anew)
    assert torch.equal(ours(graph, **call), found)
    assert torch.equal(ours(from_diffusers(pipeline), **call), found)


@pytest.mark.parametrize("guidance_scale", [5.0, 0.0])
def test_perturbed_attention_guidance(pipeline: Any, guidance_scale: float) -> None:
    import copy

    from diffusers import StableDiffusionPAGPipeline
    from diffusers.models.attention_processor import AttnProcessor2_0

    graph = from_diffusers(pipeline, batched=False)
    call = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "num_inference_steps": STEPS, "guidance_scale": guidance_scale}
    plain = ours(graph, **call)
    graph.replace_node("guidance", PerturbedAttention(perturbed_scale=3.0))
    graph.add_node(graph.nodes["backbone"], "perturbed", auto_connect=False, inputs={"perturbed": ["mid"]})
    for edge in graph.edges:
        if edge.target_node == "backbone":
            graph.add_edge(edge.source_node, edge.source_port, "perturbed", edge.target_port)
    graph.add_edge("perturbed.pred", "guidance.pred_perturbed")
    graph.validate()
    parts = {**pipeline.components, "unet": copy.deepcopy(pipeline.unet)}
    parts["unet"].set_attn_processor(AttnProcessor2_0())
    same = StableDiffusionPAGPipeline(**parts, pag_applied_layers=["mid"], requires_safety_checker=False)
    expected = theirs(same, pag_scale=3.0, **call)
    found = ours(graph, **call)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert (found - plain).abs().max() > 1e-3
    with pytest.raises(PortError, match="perturbed: 'middle' is in the name of no self-attention; those are down_blocks.1.attentions.0"):
        graph.configure_node("perturbed", inputs={"perturbed": ["middle"]})
        graph.run(call)
    assert torch.equal(ours(from_diffusers(pipeline, batched=False), **call), plain)


def test_embeddings_are_given_by_their_path(pipeline: Any) -> None:
    """As ``prompt_embeds`` and ``negative_prompt_embeds`` of the pipeline; the prompts are not asked for then."""
    graph = from_diffusers(pipeline)
    embeds, negative = (torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    call = {"num_inference_steps": STEPS}
    expected = theirs(pipeline, prompt_embeds=embeds, negative_prompt_embeds=negative, **call)
    found = ours(graph, **{"text_encoder.embedding": embeds, "negative_text_encoder.embedding": negative}, **call)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_clip_skip(pipeline: Any) -> None:
    """Their own way to the last norm is broken with this transformers, so the embedding is compared with what it would be."""
    graph = from_diffusers(pipeline)
    tokens = graph.nodes["tokenizer"].run({"text": PROMPT})["tokens"]
    encoder = pipeline.text_encoder
    with torch.no_grad():
        hidden = encoder(tokens, output_hidden_states=True).hidden_states
        found = graph.nodes["text_encoder"].run({"tokens": tokens, "clip_skip": 1})["embedding"]
        norm = getattr(encoder, "text_model", encoder).final_layer_norm
        torch.testing.assert_close(found, norm(hidden[-2]))
    assert (ours(graph, prompt=PROMPT, clip_skip=1) - ours(graph, prompt=PROMPT)).abs().max() > 1e-3


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_what_the_model_predicts_comes_from_the_folder(pipeline: Any, prediction: str) -> None:
    same = as_task(pipeline, "text_to_image", "ddim", prediction_type=prediction, timestep_spacing="trailing")
    check_equal(same, from_diffusers(same), prompt=PROMPT, num_inference_steps=STEPS)


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("schedule", NATIVE)
def test_image_to_image(pipeline: Any, schedule: str, strength: float) -> None:
    same = as_task(pipeline, "image_to_image", schedule)
    graph = from_diffusers(same, task="image_to_image")
    call = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "image": picture(tiny.PIXELS), "num_inference_steps": STEPS}
    check_equal(same, graph, strength=strength, **call)


@pytest.mark.parametrize("strength", [0.34, 0.5, 0.67])
def test_image_to_image_with_a_scheduler_of_more_turns_than_steps(pipeline: Any, strength: float) -> None:
    same = as_task(pipeline, "image_to_image", "pndm")
    graph = from_diffusers(same, task="image_to_image")
    check_equal(same, graph, strength=strength, prompt=PROMPT, image=picture(tiny.PIXELS), num_inference_steps=STEPS)


def test_image_to_image_has_their_defaults_and_any_size(pipeline: Any) -> None:
    same = as_task(pipeline, "image_to_image")
    graph = from_diffusers(pipeline, task="image_to_image")
    found = check_equal(same, graph, prompt=["a", "b"], image=picture(21, batch=2))
    assert found.shape[2:] == (20, 20)


@pytest.mark.parametrize("strength", [0.6, 1.0])
@pytest.mark.parametrize("schedule", ["ddim", "euler", "heun", "dpmpp_2m", "unipc", "pndm"])
def test_inpainting_with_a_model_that_knows_no_masks(pipeline: Any, schedule: str, strength: float) -> None:
    same = as_task(pipeline, "inpaint", schedule)
    graph = from_diffusers(same, task="inpaint")
    call = {"prompt": PROMPT, "image": picture(tiny.PIXELS), "mask_image": half_mask(tiny.PIXELS), "num_inference_steps": STEPS}
    check_equal(same, graph, strength=strength, **call)


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_inpainting_with_a_model_that_was_trained_to(tmp_path: Path, strength: float, batched: bool) -> None:
    same = as_task(tiny.stable_diffusion(tmp_path, in_channels=9), "inpaint", "euler")
    graph = from_diffusers(same, task="inpaint", batched=batched)
    assert "blend" not in graph.nodes
    call = {"prompt": PROMPT, "image": picture(24), "mask_image": half_mask(24), "num_inference_steps": STEPS, "height": 20, "width": 16}
    check_equal(same, graph, strength=strength, **call)


# --- parts ------------------------------------------------------------------------------------------------------------


def test_a_pipelines_modules_are_shared(pipeline: Any) -> None:
    graph = from_diffusers(pipeline, task="image_to_image")
    assert graph.nodes["backbone"].model is pipeline.unet
    assert graph.nodes["codec"] is graph.nodes["encoder"]
    assert graph.nodes["codec"].model is pipeline.vae
    assert graph.nodes["text_encoder"].model is pipeline.text_encoder
    own = sum(weight.numel() for model in (pipeline.unet, pipeline.vae, pipeline.text_encoder) for weight in model.parameters())
    assert sum(weight.numel() for weight in graph.parameters()) == own


def test_a_folder_gives_what_its_pipeline_gives(pipeline: Any, folder: Path) -> None:
    graph = Graph.from_diffusers(folder)
    check_equal(pipeline, graph, prompt=PROMPT, num_inference_steps=STEPS)


def test_config_round_trip_reads_the_folder_again(folder: Path) -> None:
    graph = Graph.from_diffusers(folder, task="image_to_image")
    again = Graph.from_config(graph.to_config())
    assert again.to_config() == graph.to_config()
    assert again.nodes["codec"] is again.nodes["encoder"]
    call = {"prompt": PROMPT, "image": picture(tiny.PIXELS), "num_inference_steps": STEPS}
    assert torch.equal(ours(again, **call), ours(graph, **call))


def test_a_changed_graph_survives_save_and_load(folder: Path, tmp_path: Path) -> None:
    graph = Graph.from_diffusers(folder)
    graph.replace_node("solver", DPMpp2M())
    nn.init.normal_(graph.nodes["backbone"].model.conv_out.bias)
    graph.save(tmp_path / "saved")
    again = Graph.load(tmp_path / "saved")
    assert again.nodes["solver"].block_type == "solver/dpmpp_2m"
    call = {"prompt": PROMPT, "num_inference_steps": STEPS}
    assert torch.equal(ours(again, **call), ours(graph, **call))
    assert (ours(again, **call) - ours(Graph.from_diffusers(folder), **call)).abs().max() > 1e-3


def test_every_part_can_be_replaced(pipeline: Any) -> None:
    """A solver that walks its scheduler's grid gives what diffusers gives with that scheduler."""
    graph = from_diffusers(as_task(pipeline, "text_to_image", "ddim"))
    other = from_diffusers(as_task(pipeline, "text_to_image", "dpmpp_2m"))
    assert graph.replace_node("solver", other.nodes["solver"]) == ["solver.eta as 'eta'"]
    assert graph.replace_node("schedule", other.nodes["schedule"]) == []
    check_equal(as_task(pipeline, "text_to_image", "dpmpp_2m"), graph, prompt=PROMPT, num_inference_steps=STEPS)


@pytest.mark.parametrize("schedule", ["unipc", "pndm"])
def test_runs_in_several_threads_do_not_touch_each_other(pipeline: Any, schedule: str) -> None:
    graph = from_diffusers(as_task(pipeline, "text_to_image", schedule))
    calls = [{"prompt": prompt, "num_inference_steps": steps} for prompt in ("a", "the cat") for steps in (2, 5)]
    expected = [graph.run(call, seed=1)["image"] for call in calls]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda call: graph.run(call, seed=1)["image"], calls * 3))
    for index, image in enumerate(found):
        torch.testing.assert_close(image, expected[index % len(calls)], rtol=0, atol=1e-6)


def test_a_tokenizer_from_no_folder_cannot_be_named_in_a_config(pipeline: Any) -> None:
    with pytest.raises(ConfigError, match=r"text_to_image/tokenizer: .*from no local folder.*to_diffusers\(folder\)"):
        from_diffusers(pipeline).to_config()


@pytest.mark.slow
def test_a_compiled_graph_compiles_one_turn_for_all_runs(pipeline: Any) -> None:
    from torch._dynamo.testing import CompileCounter

    graph = from_diffusers(pipeline)
    calls = [{"prompt": PROMPT, "num_inference_steps": 3}, {"prompt": "a", "num_inference_steps": 5, "guidance_scale": 4.0}]
    expected = [ours(graph, **call) for call in calls]
    counter = CompileCounter()
    graph.compile(backend=counter, fullgraph=True)
    for call, image in zip(calls, expected, strict=True):
        torch.testing.assert_close(ours(graph, **call), image, rtol=0, atol=1e-5)
    assert counter.frame_count == 1


@pytest.mark.slow
def test_loras_are_swapped_in_a_compiled_loop_that_is_not_compiled_again(tmp_path: Path) -> None:
    from torch._dynamo.testing import CompileCounter

    graph = from_diffusers(tiny.stable_diffusion(tmp_path / "sd"))
    call = {"prompt": PROMPT, "num_inference_steps": 2}
    expected = {}
    for seed in (1, 2):
        lora.add(graph, "mine", rank=2, nodes="backbone")
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in graph.named_parameters():
                if ".lora_" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
        expected[seed] = ours(graph, **call)
        lora.save(graph, tmp_path / str(seed), "mine", format="diffusers")
        lora.remove(graph, "mine")
    assert (expected[1] - expected[2]).abs().max() > 1e-2
    lora.load(graph, tmp_path / "1", "style")
    counter = CompileCounter()
    graph.compile(backend=counter, fullgraph=True)
    for seed in (1, 2, 1):
        lora.load(graph, tmp_path / str(seed), "style", replace=True)
        torch.testing.assert_close(ours(graph, **call), expected[seed], rtol=0, atol=1e-4)
    assert counter.frame_count == 1


def test_gradients_reach_prompt_and_backbone(pipeline: Any) -> None:
    graph = from_diffusers(pipeline)
    image = graph(prompt=PROMPT, num_inference_steps=2)["image"]
    weights = [graph.nodes["backbone"].model.conv_in.weight, graph.nodes["text_encoder"].model.get_input_embeddings().weight]
    for gradient in torch.autograd.grad(image.sum(), weights):
        assert gradient.abs().max() > 0


def test_from_parts_by_role_in_ten_lines_and_from_an_image_in_five_more(pipeline: Any, folder: Path) -> None:
    grid = {**tiny.BETAS, "convention": "ddim", "timestep_spacing": "leading", "final_sigmas_type": "sigma_min", "num_steps": STEPS}
    with Pool():
        graph = Graph("by_hand")
        graph.add_node("tokenizer/clip", "tokenizer", config={"folder": str(folder / "tokenizer")})
        graph.add_node("conditioner/clip_text", "text_encoder", config={"checkpoint_ref": str(folder / "text_encoder")})
        graph.add_node("schedule/diffusion", "schedule", config=grid)
        graph.add_node("noise/latents", "noise", config={"channels": 4, "factor": 2, "height": 16, "width": 16})
        graph.add_node("backbone/unet_2d_condition", "backbone", config={"checkpoint_ref": str(folder / "unet")})
        graph.add_node("solver/ddim", "solver")
        graph.add_node("codec/autoencoder_kl", "codec", config={"checkpoint_ref": str(folder / "vae")})
        graph.expose_input("tokenizer", "text", "prompt")
        graph.expose_output("codec", "image")
    call = {"prompt": PROMPT, "num_inference_steps": STEPS, "guidance_scale": 1.0}
    torch.testing.assert_close(ours(graph, prompt=PROMPT), theirs(pipeline, **call), rtol=0, atol=1e-4)

    graph.add_node(graph.nodes["codec"], "encoder", auto_connect=False)
    graph.add_edge("encoder.latent", "noise.image_latent")
    graph.expose_input("encoder", "image")
    graph.expose_input("schedule", "strength")
    same, image = as_task(pipeline, "image_to_image"), picture(tiny.PIXELS)
    expected = theirs(same, image=image, strength=0.5, **call)
    torch.testing.assert_close(ours(graph, prompt=PROMPT, image=image, strength=0.5), expected, rtol=0, atol=1e-4)


# --- bad input --------------------------------------------------------------------------------------------------------


def test_a_long_prompt_says_what_is_cut_off(pipeline: Any) -> None:
    graph = from_diffusers(pipeline)
    with pytest.warns(PromptTruncatedWarning, match="the prompt has 22 tokens and the text encoder reads 16; cut off: .*s t"):
        graph.run({"prompt": "a b c d e f g h i j k l m n o p q r s t", "num_inference_steps": 1})


def test_latents_of_another_shape(pipeline: Any) -> None:
    graph = from_diffusers(pipeline)
    with pytest.raises(PortError, match=r"noise/latents.latents: got shape \[1, 3, 8, 8\]; expected \[1, 4, 8, 8\] for 1 prompts"):
        graph.run({"prompt": PROMPT, "latents": torch.randn(1, 3, 8, 8)})
    with pytest.raises(PortError, match=r"expected \[2, 4, 8, 8\] for 2 prompts"):
        graph.run({"prompt": ["a", "b"], "latents": torch.randn(1, 4, 8, 8)})
    with pytest.raises(PortError, match="height: got 15 pixels; expected a multiple of 2"):
        graph.run({"prompt": PROMPT, "height": 15})
    with pytest.raises(PortError, match="got 3 rows for 2 prompts; expected one, or one for each"):
        graph.run({"prompt": ["a", "b"], "negative_prompt": ["a", "b", "c"]})


def test_what_cannot_be_read(pipeline: Any, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no model_index.json; expected a pipeline's local folder"):
        Graph.from_diffusers(tmp_path)
    with pytest.raises(CheckpointError, match="no such folder"):
        Graph.from_diffusers("some/model")
    with pytest.raises(ConfigError, match="unknown task 'text_to_imag'; did you mean 'text_to_image'"):
        Graph.from_diffusers(folder, task="text_to_imag")
    with pytest.raises(ConfigError, match="got a Linear; expected the path of a local folder, or a pipeline"):
        Graph.from_diffusers(nn.Linear(1, 1))
    (tmp_path / "model_index.json").write_text('{"_class_name": "KandinskyPipeline", "unet": ["diffusers", "UNet2DModel"]}')
    with pytest.raises(ConfigError, match=r"KandinskyPipeline of unet \(UNet2DModel\); supported: AnimateDiff, Chroma, "):
        Graph.from_diffusers(tmp_path)


def test_a_scheduler_that_does_not_fit(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "sd")
    index, config = tmp_path / "sd" / "model_index.json", tmp_path / "sd" / "scheduler" / "scheduler_config.json"
    written = json.loads(index.read_text())
    for name, settings, message in (
        ("FlowMatchEulerDiscreteScheduler", {}, "FlowMatchEulerDiscreteScheduler walks a flow and does not fit a model of diffusion"),
        ("DDIMScheduler", {"prediction_type": "epsilo"}, "prediction_type: found 'epsilo', expected one of .*did you mean 'epsilon'"),
        ("DDIMSchedule", {}, "diffusers has no scheduler 'DDIMSchedule'; did you mean 'DDIMScheduler'"),
    ):
        index.write_text(json.dumps({**written, "scheduler": ["diffusers", name]}))
        config.write_text(json.dumps(settings))
        with pytest.raises((ConfigError, UnknownNameError), match=message):
            Graph.from_diffusers(tmp_path / "sd")


def test_a_model_that_is_not_for_the_task(tmp_path: Path) -> None:
    same = tiny.stable_diffusion(tmp_path, in_channels=9)
    with pytest.raises(ConfigError, match="UNet of 9 input channels over latents of 4; text_to_image expects 4; .*task='inpaint'"):
        from_diffusers(same)


@pytest.mark.parametrize("part", ["scheduler", "text_encoder", "tokenizer", "unet", "vae"])
def test_a_folder_that_lacks_a_part_is_said_by_the_parts_name(part: str, tmp_path: Path) -> None:
    tiny.stable_diffusion(tmp_path / "words").save_pretrained(tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / part)
    with pytest.raises(CheckpointError, match=f"model' has no folder '{part}'|model/{part}' is no folder"):
        Graph.from_diffusers(tmp_path / "model")


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
@pytest.mark.parametrize("kept", [0, 4, 2000, -1])
def test_a_truncated_file_is_said_by_its_name(part: str, kept: int, tmp_path: Path) -> None:
    tiny.stable_diffusion(tmp_path / "words").save_pretrained(tmp_path / "model")
    (file,) = (tmp_path / "model" / part).glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=rf"{file.name}: .*truncated.*copy or fetch it again"):
        Graph.from_diffusers(tmp_path / "model")
