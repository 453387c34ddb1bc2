"""Pipelines are taken by their names: what is another algorithm over the same parts is refused by its name."""

from __future__ import annotations

import inspect
import json
import re
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers

from tests.integrations.diffusers import tiny
from tests.integrations.diffusers.comparing import NEGATIVE, PROMPT, check_equal, half_mask, ours, picture, theirs
from tests.matrix import spread
from wgtorch.core.errors import CheckpointError, ConfigError, PortError
from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.families import FAMILIES
from wgtorch.integrations.diffusers.families.family import names
from wgtorch.integrations.diffusers.families.stable_diffusion import first_names

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of their code, about numpy 2
STEPS = 4


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {
        "sd": tiny.stable_diffusion(tmp_path_factory.mktemp("sd")),
        "xl": tiny.stable_diffusion_xl(tmp_path_factory.mktemp("xl")),
        "sd3": tiny.stable_diffusion_3(tmp_path_factory.mktemp("sd3"), channels=16),
        "flux": tiny.flux(tmp_path_factory.mktemp("flux")),
    }


OTHERS = {
    "StableDiffusionPAGPipeline": ("sd", "guidance/pag"),
    "StableDiffusionSAGPipeline": ("sd", "guidance/sag"),
    "StableDiffusionPanoramaPipeline": ("sd", "MultiDiffusion"),
    "StableDiffusionAttendAndExcitePipeline": ("sd", "attention maps"),
    "LatentConsistencyModelImg2ImgPipeline": ("sd", "StableDiffusionImg2ImgPipeline.from_pipe"),
    "StableDiffusionLDM3DPipeline": ("sd", "depth map"),
    "LEditsPPPipelineStableDiffusion": ("sd", "inverts a picture"),
    "StableDiffusionXLPAGPipeline": ("xl", "guidance/pag"),
    "StableDiffusionXLPAGInpaintPipeline": ("xl", "guidance/pag"),
    "StableDiffusionXLInstructPix2PixPipeline": ("xl", "two scales"),
    "StableDiffusion3PAGPipeline": ("sd3", "guidance/pag"),
    "FluxControlPipeline": ("flux", "control picture"),
}


@pytest.mark.parametrize("kind", sorted(OTHERS))
def test_another_algorithm_over_the_same_parts_is_refused_by_name(pipelines: dict[str, Any], kind: str, tmp_path: Path) -> None:
    family, words = OTHERS[kind]
    wanted = getattr(diffusers, kind)
    taken = inspect.signature(wanted.__init__).parameters
    parts = {name: part for name, part in pipelines[family].components.items() if name in taken}
    more = {"requires_safety_checker": False} if "requires_safety_checker" in taken else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that diffusers means to give up
        pipeline = wanted(**parts, **more)
    with pytest.raises(ConfigError, match=f"is a {kind} of .*{kind} is another algorithm: .*{words}"):
        Graph.from_diffusers(pipeline)
    index = {"_class_name": kind, **{name: ["diffusers", type(part).__name__] for name, part in parts.items() if part is not None}}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ConfigError, match=f"is a {kind} of .*{words}"):
        Graph.from_diffusers(tmp_path)


def test_every_class_of_diffusers_is_taken_or_refused_by_name() -> None:
    """Only the allow-list is taken; no class has two families, and each named class exists."""
    taken = [name for family in FAMILIES for name in family.pipelines]
    assert len(taken) == len(set(taken)) and all(hasattr(diffusers, name) for name in taken)
    assert "Stable Diffusion XL" in names(FAMILIES)
    for family in FAMILIES:
        assert all(tasks for tasks in family.pipelines.values()) and family.model in family.parts


def test_parts_that_are_not_the_familys_are_named(pipelines: dict[str, Any]) -> None:
    pipeline = diffusers.StableDiffusionPipeline(**pipelines["sd"].components, requires_safety_checker=False)
    pipeline.text_encoder = pipelines["xl"].text_encoder_2
    pipeline.register_modules(unet=pipelines["sd3"].transformer)
    with pytest.raises(ConfigError, match="unet is a SD3Transformer2DModel; expected UNet2DConditionModel; text_encoder is a CLIP"):
        Graph.from_diffusers(pipeline)


def test_a_controlnet_pipeline_says_which_node_to_add(pipelines: dict[str, Any]) -> None:
    pipeline = pipelines["sd"]
    net = diffusers.ControlNetModel.from_unet(pipeline.unet)
    both = diffusers.StableDiffusionControlNetPipeline(**pipeline.components, controlnet=net, requires_safety_checker=False)
    with pytest.raises(
        ConfigError, match=r"diffusers.StableDiffusionPipeline.from_pipe\(pipeline\), and add the ControlNet.*adapter/controlnet"
    ):
        Graph.from_diffusers(both)


def test_lcm_keeps_its_class_and_defaults(tmp_path: Path) -> None:
    parts = tiny.stable_diffusion(tmp_path).components
    torch.manual_seed(0)
    parts["unet"] = tiny.unet(time_cond_proj_dim=6)
    torch.nn.init.normal_(parts["unet"].time_embedding.cond_proj.weight)
    parts["scheduler"] = diffusers.LCMScheduler(**{**tiny.BETAS, "steps_offset": 0})
    pipeline = diffusers.LatentConsistencyModelPipeline(**parts, requires_safety_checker=False)
    graph = Graph.from_diffusers(pipeline)
    check_equal(pipeline, graph, prompt=PROMPT)
    again = diffusers.DiffusionPipeline.from_pretrained(str(graph.to_diffusers(tmp_path / "out")), local_files_only=True)
    assert type(again).__name__ == "LatentConsistencyModelPipeline"
    check_equal(again, graph, prompt=PROMPT)


@pytest.mark.parametrize(("family", "task"), spread(product(["sd", "xl", "sd3", "flux"], ["text_to_image", "image_to_image", "inpaint"])))
def test_a_small_autoencoder_in_place_of_the_first(pipelines: dict[str, Any], family: str, task: str, tmp_path: Path) -> None:
    torch.manual_seed(2)
    channels = 16 if family == "sd3" else 4
    sides = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8), "num_encoder_blocks": (1, 1)}
    small = diffusers.AutoencoderTiny(latent_channels=channels, num_decoder_blocks=(1, 1), **sides).eval()
    origin = pipelines[family]
    kind = next(
        name
        for entry in FAMILIES
        for name, tasks in entry.pipelines.items()
        if type(origin).__name__ in entry.pipelines and tasks[0] == task
    )
    wanted = getattr(diffusers, kind)
    taken = inspect.signature(wanted.__init__).parameters
    more = {"requires_safety_checker": False} if "requires_safety_checker" in taken else {}
    parts = {name: part for name, part in origin.components.items() if name in taken}
    pipeline = wanted(**{**parts, "vae": small}, **more)
    call: dict[str, Any] = {"prompt": PROMPT, "num_inference_steps": STEPS}
    call |= {} if task == "text_to_image" else {"image": picture(tiny.PIXELS), "strength": 0.8}
    call |= {"mask_image": half_mask(tiny.PIXELS)} if task == "inpaint" else {}
    call |= {"height": 16, "width": 16} if family == "flux" else {}
    call |= {"max_sequence_length": 16} if family in ("sd3", "flux") else {}
    graph = Graph.from_diffusers(pipeline, task=task)
    expected, found = theirs(pipeline, **call), ours(graph, **call)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    graph.to_diffusers(tmp_path / "out")
    torch.testing.assert_close(ours(Graph.from_diffusers(tmp_path / "out", task=task), **call), expected, rtol=0, atol=1e-4)


EMBEDDED = {
    "sd": ("prompt_embeds", "negative_prompt_embeds"),
    "xl": ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds"),
    "sd3": ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds"),
    "flux": ("prompt_embeds", "pooled_prompt_embeds"),
}


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("family", sorted(EMBEDDED))
def test_embeddings_under_the_names_of_diffusers(pipelines: dict[str, Any], family: str, told: bool) -> None:
    """With or without text encoders; what is given as negative counts in XL too."""
    origin = pipelines[family]
    lengths = {"max_sequence_length": 16} if family in ("sd3", "flux") else {}
    if family == "sd":
        found = origin.encode_prompt(PROMPT, "cpu", 1, True, NEGATIVE)
    elif family == "xl":
        found = origin.encode_prompt(PROMPT, device="cpu", negative_prompt=NEGATIVE)
    elif family == "sd3":
        found = origin.encode_prompt(PROMPT, None, None, device="cpu", negative_prompt=NEGATIVE, **lengths)
    else:
        found = origin.encode_prompt(PROMPT, None, device="cpu", **lengths)[:2]
    call = dict(zip(EMBEDDED[family], found, strict=True)) | {"num_inference_steps": STEPS}
    call |= {"height": 16, "width": 16} if family == "flux" else {}
    pipeline = origin
    if not told:
        parts = {name: None if name.startswith(("text_encoder", "tokenizer")) else part for name, part in origin.components.items()}
        pipeline = type(origin)(**parts, **({"requires_safety_checker": False} if family == "sd" else {}))
    graph = Graph.from_diffusers(pipeline)
    assert ("text_encoder" in graph.nodes) is told
    check_equal(origin if family == "sd3" else pipeline, graph, **call)
    if not told and family in ("sd", "sd3"):
        call.pop("negative_prompt_embeds")
        with pytest.raises(PortError, match="guidance needs negative_prompt_embeds beside prompt_embeds"):
            ours(graph, **call)


def test_embeddings_of_some_encoders_only(pipelines: dict[str, Any], tmp_path: Path) -> None:
    """XL without its first text encoder is no refiner: its UNet is as wide as both."""
    origin = pipelines["xl"]
    pipeline = type(origin)(**{**origin.components, "text_encoder": None, "tokenizer": None}, add_watermarker=False)
    found = origin.encode_prompt(PROMPT, device="cpu", negative_prompt=NEGATIVE)
    call = dict(zip(EMBEDDED["xl"], found, strict=True)) | {"num_inference_steps": STEPS}
    check_equal(pipeline, Graph.from_diffusers(pipeline), **call)


def in_one_file(pipeline: Any) -> dict[str, torch.Tensor]:
    """Weights of Stable Diffusion under the names of its first code."""
    found = {**in_first_code(pipeline.unet), **first_stage(pipeline.vae)}
    for key, value in pipeline.text_encoder.state_dict().items():
        found[f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}"] = value
    return {key: value.contiguous() for key, value in found.items()}


def in_first_code(unet: Any) -> dict[str, torch.Tensor]:
    names = {paths[0]: name for name, paths in first_names(unet).items()}
    found = {}
    for key, value in unet.state_dict().items():
        path, _, kind = key.rpartition(".")
        found[f"model.diffusion_model.{names[path]}.{kind}"] = value
    return found


def first_stage(vae: Any) -> dict[str, torch.Tensor]:
    found, count = {}, len(vae.encoder.down_blocks)
    rules: tuple[tuple[str, Any], ...] = (
        (r"encoder\.down_blocks\.(\d+)\.resnets\.(\d+)", r"encoder.down.\1.block.\2"),
        (r"encoder\.down_blocks\.(\d+)\.downsamplers\.0", r"encoder.down.\1.downsample"),
        (r"decoder\.up_blocks\.(\d+)\.resnets\.(\d+)", lambda found: f"decoder.up.{count - 1 - int(found[1])}.block.{found[2]}"),
        (r"decoder\.up_blocks\.(\d+)\.upsamplers\.0", lambda found: f"decoder.up.{count - 1 - int(found[1])}.upsample"),
        (r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}"),
        (r"mid_block\.attentions\.0", "mid.attn_1"),
        ("conv_shortcut", "nin_shortcut"),
        ("conv_norm_out", "norm_out"),
        (r"attn_1\.group_norm", "attn_1.norm"),
        (r"attn_1\.to_([qkv])", r"attn_1.\1"),
        (r"attn_1\.to_out\.0", "attn_1.proj_out"),
    )
    for key, value in vae.state_dict().items():
        for pattern, words in rules:
            key = re.sub(pattern, words, key)
        is_kernel = "attn_1" in key and key.endswith("weight") and "norm" not in key
        found[f"first_stage_model.{key}"] = value[:, :, None, None] if is_kernel else value
    return found


def test_a_single_file_and_a_dtype(pipelines: dict[str, Any], tmp_path: Path) -> None:
    pipeline = pipelines["sd"]
    pipeline.save_pretrained(tmp_path / "config")
    save_file(in_one_file(pipeline), tmp_path / "model.safetensors")
    graph = Graph.from_diffusers(tmp_path / "model.safetensors", config=tmp_path / "config")
    check_equal(pipeline, graph, prompt=PROMPT, num_inference_steps=STEPS)
    half = Graph.from_diffusers(tmp_path / "config", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(
        ours(half, prompt=PROMPT, num_inference_steps=STEPS).float(),
        theirs(pipeline, prompt=PROMPT, num_inference_steps=STEPS),
        rtol=0,
        atol=0.2,
    )
    with pytest.raises(ConfigError, match="dtype=torch.int64; expected a floating dtype"):
        Graph.from_diffusers(tmp_path / "config", dtype=torch.int64)
    with pytest.raises(ConfigError, match=r"a pipeline's modules are shared, so change them there: pipeline.to\(torch.bfloat16\)"):
        Graph.from_diffusers(pipeline, dtype=torch.bfloat16)
    with pytest.raises(CheckpointError, match="is no file"):
        Graph.from_diffusers(tmp_path / "none.safetensors")
    with pytest.raises(ConfigError, match="config is for a single .safetensors file"):
        Graph.from_diffusers(tmp_path / "config", config=tmp_path / "config")


def test_a_graph_of_a_single_file_is_saved_with_its_tokenizer(pipelines: dict[str, Any], tmp_path: Path) -> None:
    pipelines["sd"].save_pretrained(tmp_path / "config")
    save_file(in_one_file(pipelines["sd"]), tmp_path / "model.safetensors")
    graph = Graph.from_diffusers(tmp_path / "model.safetensors", config=tmp_path / "config")
    again = Graph.load(graph.save(tmp_path / "saved"))
    check_equal(pipelines["sd"], again, prompt=PROMPT, num_inference_steps=STEPS)


def test_a_pipeline_of_the_hubs_cache(pipelines: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    kept = tmp_path / "models--tiny--sd"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("0" * 40)
    pipelines["sd"].save_pretrained(kept / "snapshots" / ("0" * 40))
    check_equal(pipelines["sd"], Graph.from_diffusers("hf://tiny/sd"), prompt=PROMPT, num_inference_steps=STEPS)
    check_equal(pipelines["sd"], Graph.from_diffusers(f"hf://tiny/sd@{'0' * 40}"), prompt=PROMPT, num_inference_steps=STEPS)
    with pytest.raises(CheckpointError, match="'hf://tiny/none' is not in the cache"):
        Graph.from_diffusers("hf://tiny/none")
    with pytest.raises(CheckpointError, match="expected hf://owner/name"):
        Graph.from_diffusers("hf://tiny")


def test_shards_and_a_variant_alone(pipelines: dict[str, Any], tmp_path: Path) -> None:
    pipelines["sd"].save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    assert (tmp_path / "shards" / "unet" / "diffusion_pytorch_model.safetensors.index.json").is_file()
    pipelines["sd"].save_pretrained(tmp_path / "variant", variant="fp16")
    pipelines["sd"].save_pretrained(tmp_path / "both", variant="fp16", max_shard_size="40KB")
    for folder in ("shards", "variant", "both"):
        check_equal(pipelines["sd"], Graph.from_diffusers(tmp_path / folder), prompt=PROMPT, num_inference_steps=STEPS)


def test_a_component_in_place_of_the_folders(pipelines: dict[str, Any], tmp_path: Path) -> None:
    pipelines["sd"].save_pretrained(tmp_path)
    other = tiny.unet()
    graph = Graph.from_diffusers(tmp_path, components={"unet": other})
    assert graph.nodes["backbone"].model is other
    their = type(pipelines["sd"])(**{**pipelines["sd"].components, "unet": other}, requires_safety_checker=False)
    check_equal(their, graph, prompt=PROMPT, num_inference_steps=STEPS)
    with pytest.raises(ConfigError, match="components: did you mean 'unet'"):
        Graph.from_diffusers(tmp_path, components={"unett": other})
    with pytest.raises(ConfigError, match="components are for folders"):
        Graph.from_diffusers(pipelines["sd"], components={"unet": other})


def test_a_transformer_of_a_gguf_file_stays_quantised(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    import diffusers

    pipeline = tiny.flux(tmp_path)
    torch.manual_seed(0)
    settings = {**pipeline.transformer.config, "attention_head_dim": 16, "axes_dims_rope": (4, 4, 8), "joint_attention_dim": 24}
    pipeline.transformer = diffusers.FluxTransformer2DModel.from_config(settings).eval()
    pipeline.save_pretrained(tmp_path / "flux")
    writer = gguf.GGUFWriter(tmp_path / "flux.gguf", "flux")
    for name, value in pipeline.transformer.state_dict().items():
        data = value.numpy()
        fits = data.ndim == 2 and data.shape[1] % 32 == 0
        kind = gguf.GGMLQuantizationType.Q8_0 if fits else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quantize(data, kind) if fits else data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    graph = Graph.from_diffusers(tmp_path / "flux", components={"transformer": tmp_path / "flux.gguf"})
    assert {parameter.dtype for parameter in graph.nodes["backbone"].parameters()} >= {torch.uint8}
    their = diffusers.FluxPipeline(**{**pipeline.components, "transformer": graph.nodes["backbone"].model})
    call = {"prompt": PROMPT, "num_inference_steps": 3, "height": 16, "width": 16, "max_sequence_length": 16}
    found = check_equal(their, graph, **call)
    assert 0 < (found - theirs(pipeline, **call)).abs().max() < 0.2
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(CheckpointError, match="diffusers cannot read"):
        Graph.from_diffusers(tmp_path / "flux", components={"transformer": tmp_path / "broken.gguf"})


@pytest.mark.parametrize("schedule", ["ddim", "euler_ancestral", "pndm"])
def test_a_picture_is_changed_as_it_is_told(pipelines: dict[str, Any], schedule: str, tmp_path: Path) -> None:
    kind = diffusers.StableDiffusionInstructPix2PixPipeline
    torch.manual_seed(2)
    parts = {**pipelines["sd"].components, "unet": tiny.unet(in_channels=8), "scheduler": tiny.scheduler(schedule)}
    pipeline = kind(**parts, requires_safety_checker=False)
    graph = Graph.from_diffusers(pipeline, task="image_to_image")
    call = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "image": picture(18), "num_inference_steps": 4}
    plain = check_equal(pipeline, graph, **call)
    assert plain.shape == (1, 3, 18, 18)
    assert (check_equal(pipeline, graph, **call, image_guidance_scale=2.5) - plain).abs().max() > 1e-3
    assert (check_equal(pipeline, graph, **call, guidance_scale=3.0) - plain).abs().max() > 1e-3
    check_equal(pipeline, graph, **call, guidance_scale=1.0)
    check_equal(pipeline, graph, **{**call, "prompt": ["a", "the cat"], "negative_prompt": ["x", "y"], "image": picture(18, batch=2)})
    graph.to_diffusers(tmp_path / "out")
    again = diffusers.DiffusionPipeline.from_pretrained(str(tmp_path / "out"), local_files_only=True)
    assert type(again) is kind
    check_equal(again, Graph.from_diffusers(tmp_path / "out", task="image_to_image"), **call)
