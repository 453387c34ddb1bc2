"""Checkpoints of one file, with the names of the models' first codes: Stable Diffusion XL and 3, FLUX.1, and a part alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from tests.integrations.diffusers import tiny
from tests.integrations.diffusers.comparing import PROMPT, check_equal
from tests.integrations.diffusers.test_families import first_stage, in_first_code, in_one_file
from wgtorch.core.errors import CheckpointError
from wgtorch.graph import Graph
from wgtorch.lora.formats.foreign_layer_names import adapter_names

pytestmark = [  # of their code
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


def clip_of(encoder: Any, prefix: str) -> dict[str, Tensor]:
    """CLIP's text encoder as transformers once named it."""
    bare = {key.removeprefix("text_model."): value for key, value in encoder.state_dict().items()}
    return {f"{prefix}{key if key.startswith('text_projection') else f'text_model.{key}'}": value for key, value in bare.items()}


def open_clip_of(encoder: Any, prefix: str) -> dict[str, Tensor]:
    """CLIP's text encoder as OpenCLIP names it."""
    own = {key.removeprefix("text_model."): value for key, value in encoder.state_dict().items()}
    found = {
        "positional_embedding": own.pop("embeddings.position_embedding.weight"),
        "token_embedding.weight": own.pop("embeddings.token_embedding.weight"),
        "text_projection": own.pop("text_projection.weight").t(),
        **{f"ln_final.{kind}": own.pop(f"final_layer_norm.{kind}") for kind in ("weight", "bias")},
    }
    for number in range(encoder.config.num_hidden_layers):
        here, there = f"encoder.layers.{number}", f"transformer.resblocks.{number}"
        for kind in ("weight", "bias"):
            found[f"{there}.attn.in_proj_{kind}"] = torch.cat([own.pop(f"{here}.self_attn.{letter}_proj.{kind}") for letter in "qkv"])
            for ours, theirs in (
                ("self_attn.out_proj", "attn.out_proj"),
                ("layer_norm1", "ln_1"),
                ("layer_norm2", "ln_2"),
                ("mlp.fc1", "mlp.c_fc"),
                ("mlp.fc2", "mlp.c_proj"),
            ):
                found[f"{there}.{theirs}.{kind}"] = own.pop(f"{here}.{ours}.{kind}")
    assert not [key for key in own if "position_ids" not in key], sorted(own)
    return {f"{prefix}{key}": value for key, value in found.items()}


def layers_of(transformer: Any, own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a transformer's linear layers, taken out of ``own``, as its first code names and joins them."""
    found = {}
    names = adapter_names(transformer)
    assert names is not None
    for name, spelling in names.spellings(transformer).items():
        for kind in ("weight", "bias"):
            value = torch.cat([own.pop(f"{path}.{kind}") for path in spelling.layers])
            found[f"{name}.{kind}"] = torch.cat(list(reversed(value.chunk(2)))) if spelling.swapped else value
    return found


def joint_of(transformer: Any, prefix: str) -> dict[str, Tensor]:
    """The transformer of Stable Diffusion 3 as its first code names it."""
    own = dict(transformer.state_dict())
    found = layers_of(transformer, own)
    found |= {"pos_embed": own.pop("pos_embed.pos_embed")}
    found |= {key: own.pop(key) for key in ("context_embedder.weight", "context_embedder.bias")}
    assert not own, sorted(own)
    return {f"{prefix}{key}": value for key, value in found.items()}


def flux_of(transformer: Any, prefix: str) -> dict[str, Tensor]:
    """The transformer of FLUX.1 as its first code names it."""
    own = dict(transformer.state_dict())
    found = layers_of(transformer, own)
    norms = {"norm_q": "img_attn.norm.query", "norm_k": "img_attn.norm.key"}
    norms |= {"norm_added_q": "txt_attn.norm.query", "norm_added_k": "txt_attn.norm.key"}
    for key in list(own):
        block, number, _, norm, _ = key.split(".")
        single = block.startswith("single")
        there = norms[norm].replace("img_attn.", "" if single else "img_attn.")
        found[f"{'single' if single else 'double'}_blocks.{number}.{there}_norm.scale"] = own.pop(key)
    return {f"{prefix}{key}": value for key, value in found.items()}


def wide_flux(folder: Path, device: str = "cpu") -> Any:
    """A tiny pipeline of FLUX.1 with a transformer of the width that diffusers' converter is written for, and one block of each kind."""
    from diffusers import FluxTransformer2DModel

    pipeline = tiny.flux(folder)
    settings = {**pipeline.transformer.config, "num_attention_heads": 24, "attention_head_dim": 128, "axes_dims_rope": (16, 56, 56)}
    with torch.device(device):
        pipeline.register_modules(transformer=FluxTransformer2DModel.from_config(settings).eval())
    return pipeline


def folder_without_transformer(pipeline: Any, folder: Path) -> Path:
    """A pipeline's folder with the transformer's config alone."""
    transformer = pipeline.transformer
    pipeline.transformer = tiny.flux(folder / "more").transformer
    pipeline.save_pretrained(folder / "flux")
    pipeline.transformer = transformer
    for file in (folder / "flux" / "transformer").iterdir():
        file.unlink()
    transformer.save_config(folder / "flux" / "transformer")
    return folder / "flux"


def read(pipeline: Any, tensors: dict[str, Tensor], folder: Path) -> Graph:
    pipeline.save_pretrained(folder / "config")
    for file in (folder / "config").rglob("*.safetensors"):
        file.unlink()
    save_file({key: value.contiguous().clone() for key, value in tensors.items()}, folder / "model.safetensors")
    return Graph.from_diffusers(folder / "model.safetensors", config=folder / "config")


def xl_tensors(pipeline: Any) -> dict[str, Tensor]:
    tensors = {**in_first_code(pipeline.unet), **first_stage(pipeline.vae)}
    tensors |= clip_of(pipeline.text_encoder, "conditioner.embedders.0.transformer.")
    return tensors | open_clip_of(pipeline.text_encoder_2, "conditioner.embedders.1.model.")


def test_stable_diffusion_xl(tmp_path: Path) -> None:
    pipeline = tiny.stable_diffusion_xl(tmp_path / "words")
    check_equal(pipeline, read(pipeline, xl_tensors(pipeline), tmp_path), prompt=PROMPT, num_inference_steps=3)


HARMLESS = [
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "betas",
    "conditioner.embedders.0.transformer.text_model.embeddings.position_ids",
    "conditioner.embedders.1.model.logit_scale",
    "denoiser.sigmas",
    "first_stage_model.loss.discriminator.main.0.weight",
    "log_one_minus_alphas_cumprod",
    "logvar",
    "lvlb_weights",
    "model_ema.decay",
    "model_ema.diffusion_modelinput_blocks00weight",
    "posterior_mean_coef1",
    "sqrt_one_minus_alphas_cumprod",
]


@pytest.mark.parametrize("family", ["sd", "xl"])
def test_what_a_file_holds_for_training_is_passed_over_and_all_else_without_a_place_is_refused(family: str, tmp_path: Path) -> None:
    if family == "xl":
        pipeline = tiny.stable_diffusion_xl(tmp_path / "words")
        tensors, encoder = xl_tensors(pipeline), "conditioner.embedders.0.transformer."
    else:
        pipeline = tiny.stable_diffusion(tmp_path / "words")
        tensors, encoder = in_one_file(pipeline), "cond_stage_model.transformer."
    graph = read(pipeline, {**tensors, **dict.fromkeys(HARMLESS, torch.ones(2))}, tmp_path)
    check_equal(pipeline, graph, prompt=PROMPT, num_inference_steps=3)
    unknown = [
        "model.diffusion_model.input_blocks.0.0.scale_weight",
        "model.diffusion_model.input_blocks.1.2.weight",
        "model.diffusion_model.something_new.weight",
        "first_stage_model.decoder.up.0.extra.weight",
        "first_stage_model.something_new.weight",
        f"{encoder}text_model.encoder.layers.7.mlp.fc1.weight",
        f"{encoder}text_model.something_new.weight",
        "control_model.input_blocks.0.0.weight",
        "lora_unet_mid_block.alpha",
        "scaled_fp8",
    ]
    if family == "xl":
        unknown += [
            "conditioner.embedders.1.model.transformer.resblocks.9.ln_1.weight",
            "conditioner.embedders.1.model.something_new",
            "conditioner.embedders.2.weight",
        ]
    for name in unknown:
        with pytest.raises(CheckpointError, match=f"(?s)diffusers cannot read.*{name.removeprefix('first_stage_model.')}"):
            read(pipeline, {**tensors, name: torch.ones(2)}, tmp_path)


def test_a_file_that_says_what_its_model_predicts_needs_a_scheduler_that_knows(tmp_path: Path) -> None:
    pipeline = tiny.stable_diffusion(tmp_path / "words")
    tensors = {**in_one_file(pipeline), "v_pred": torch.ones(0), "ztsnr": torch.ones(0)}
    with pytest.raises(CheckpointError, match="'v_pred', so its scheduler needs prediction_type='v_prediction', and has 'epsilon'"):
        read(pipeline, tensors, tmp_path)
    pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, prediction_type="v_prediction")
    with pytest.raises(CheckpointError, match="'ztsnr', so its scheduler needs rescale_betas_zero_snr=True"):
        read(pipeline, tensors, tmp_path)
    pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, rescale_betas_zero_snr=True)
    check_equal(pipeline, read(pipeline, tensors, tmp_path), prompt=PROMPT, num_inference_steps=3)


def test_stable_diffusion_3(tmp_path: Path) -> None:
    pipeline = tiny.stable_diffusion_3(tmp_path / "words", channels=16)
    with torch.no_grad():  # the file has no projection of the first CLIP, which in the published model is none
        pipeline.text_encoder.text_projection = torch.nn.Linear(16, 16, bias=False)
        pipeline.text_encoder.text_projection.weight.copy_(torch.eye(16))
    pipeline.text_encoder.config.projection_dim = 16
    pipeline.transformer.time_text_embed.text_embedder.linear_1 = torch.nn.Linear(16 + 12, pipeline.transformer.inner_dim)
    pipeline.transformer.register_to_config(pooled_projection_dim=16 + 12)
    tensors = {**joint_of(pipeline.transformer, "model.diffusion_model."), **first_stage(pipeline.vae)}
    tensors |= {k: v for k, v in clip_of(pipeline.text_encoder, "text_encoders.clip_l.transformer.").items() if "text_projection" not in k}
    tensors |= clip_of(pipeline.text_encoder_2, "text_encoders.clip_g.transformer.")
    tensors |= {f"text_encoders.t5xxl.transformer.{key}": value for key, value in pipeline.text_encoder_3.state_dict().items()}
    once = {key: value for key, value in tensors.items() if not key.endswith("encoder.embed_tokens.weight")}
    assert len(once) == len(tensors) - 1
    for place, given in (("twice", tensors), ("once", once)):  # T5's embeddings
        graph = read(pipeline, given, tmp_path / place)
        check_equal(pipeline, graph, prompt=PROMPT, num_inference_steps=3, max_sequence_length=16)
    for key, words in {
        "first_stage_model.decoder.conv_in.bias": "decoder.conv_in.bias",
        "model.diffusion_model.joint_blocks.0.x_block.mlp.fc1.bias": "joint_blocks.0.x_block.mlp.fc1.bias",
        "text_encoders.clip_l.transformer.text_model.final_layer_norm.bias": "final_layer_norm.bias",
        "text_encoders.t5xxl.transformer.encoder.final_layer_norm.weight": "encoder.final_layer_norm.weight",
    }.items():
        fewer = {name: value.contiguous().clone() for name, value in tensors.items() if name != key}
        assert len(fewer) == len(tensors) - 1
        save_file(fewer, tmp_path / "fewer.safetensors")
        with pytest.raises(CheckpointError, match=f"(?s)diffusers cannot read.*{words}"):
            Graph.from_diffusers(tmp_path / "fewer.safetensors", config=tmp_path / "twice" / "config")


FLUX_CALL: dict[str, Any] = {"prompt": PROMPT, "num_inference_steps": 2, "height": 16, "width": 16, "max_sequence_length": 16}


@pytest.mark.slow
@pytest.mark.parametrize("of_all_models", [False, True])
def test_flux(of_all_models: bool, tmp_path: Path) -> None:
    pipeline = wide_flux(tmp_path / "words")
    folder = folder_without_transformer(pipeline, tmp_path)
    with torch.no_grad():  # scales of norms that are not all one, so that none may stand for another
        for name, value in pipeline.transformer.named_parameters():
            value.copy_((value + 0.1 * torch.rand_like(value) if "norm_" in name and "linear" not in name else value).bfloat16())
    tensors = flux_of(pipeline.transformer, "model.diffusion_model." if of_all_models else "")
    if of_all_models:
        tensors |= {**first_stage(pipeline.vae), **clip_of(pipeline.text_encoder, "text_encoders.clip_l.transformer.")}
        tensors |= {f"text_encoders.t5xxl.transformer.{key}": value.clone() for key, value in pipeline.text_encoder_2.state_dict().items()}
    file = tmp_path / "flux.safetensors"
    wide = {key for key in tensors if "blocks." in key and "text" not in key}
    save_file({key: (value.bfloat16() if key in wide else value).contiguous() for key, value in tensors.items()}, file)
    del tensors
    kind, written, pipeline.transformer = type(pipeline.transformer), pipeline.transformer.state_dict(), None
    graph = Graph.from_diffusers(folder, components={"transformer": file}, dtype=torch.float32)
    read = graph.nodes["backbone"].model.state_dict()
    assert read.keys() == written.keys()
    assert all(value.dtype == torch.float32 and torch.equal(value, written[key]) for key, value in read.items())
    del written, read
    pipeline.transformer = kind.from_single_file(
        str(file), config=str(folder / "transformer"), local_files_only=True, torch_dtype=torch.float32
    )
    check_equal(pipeline, graph, **FLUX_CALL)
    del graph
    if of_all_models:
        for weights in (path for path in folder.rglob("*.safetensors")):
            weights.unlink()
        check_equal(pipeline, Graph.from_diffusers(file, config=folder, dtype=torch.float32), **FLUX_CALL)


def test_a_flux_file_of_a_wrong_set_of_weights_is_refused_by_name(tmp_path: Path) -> None:
    pipeline = wide_flux(tmp_path / "words", device="meta")
    folder = folder_without_transformer(pipeline, tmp_path)
    shapes = {key: value.shape for key, value in flux_of(pipeline.transformer, "model.diffusion_model.").items()}
    thin = {key: torch.zeros(shape[:1], dtype=torch.bfloat16) for key, shape in shapes.items()}

    def refused(tensors: dict[str, Tensor], words: str) -> None:
        save_file(tensors, tmp_path / "flux.safetensors")
        with pytest.raises(CheckpointError, match=f"(?s)diffusers cannot read '.*flux.safetensors' as a FluxTransformer2DModel.*{words}"):
            Graph.from_diffusers(folder, components={"transformer": tmp_path / "flux.safetensors"})

    start = "model.diffusion_model."
    refused({key: value for key, value in thin.items() if key != f"{start}img_in.bias"}, "lacks 'img_in.bias'")
    refused({key: value for key, value in thin.items() if "guidance_in" not in key}, "guidance_embedder.linear_1.weight.*missing")
    refused({**thin, f"{start}double_blocks.0.img_mlp.0.scale_weight": torch.ones(1)}, "img_mlp.0.scale_weight: .*unexpected")
    second = {key.replace("single_blocks.0.", "single_blocks.1."): value.clone() for key, value in thin.items() if "single_blocks" in key}
    refused({**thin, **second}, r"single_transformer_blocks.1.norm.linear.weight: .*unexpected")
    with pytest.raises(CheckpointError, match="file of one model alone, give the pipeline's folder and components="):
        Graph.from_diffusers(tmp_path / "flux.safetensors", config=folder)


@pytest.mark.parametrize("family", ["flux", "sd3", "sd", "wan"])
def test_one_part_of_a_folder_from_a_file(family: str, tmp_path: Path) -> None:
    makers: dict[str, Any] = {"flux": tiny.flux, "sd3": tiny.stable_diffusion_3, "sd": tiny.stable_diffusion}
    pipeline = tiny.wan() if family == "wan" else makers[family](tmp_path / "words")
    pipeline.save_pretrained(tmp_path / "folder")
    part = "unet" if family == "sd" else "transformer"
    with torch.no_grad():
        for parameter in getattr(pipeline, part).parameters():
            parameter.mul_(1.1)
    save_file({key: value.clone() for key, value in getattr(pipeline, part).state_dict().items()}, tmp_path / "other.safetensors")
    task = "text_to_video" if family == "wan" else "text_to_image"
    graph = Graph.from_diffusers(tmp_path / "folder", task=task, components={part: tmp_path / "other.safetensors"})
    sizes = {"wan": {"num_frames": 5, "height": 16, "width": 16}, "flux": {"height": 16, "width": 16}}.get(family, {})
    more = {} if family == "sd" else {"max_sequence_length": 16}
    check_equal(pipeline, graph, prompt=PROMPT, num_inference_steps=2, **sizes, **more)
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="diffusers cannot read '.*broken.safetensors'"):
        Graph.from_diffusers(tmp_path / "folder", task=task, components={part: tmp_path / "broken.safetensors"})


def test_a_local_file_asks_no_network_for_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment says of the hub: what is not in its cache is said, and how to bring it there."""
    import huggingface_hub

    def never(*given: Any, **options: Any) -> Any:
        raise AssertionError("asked the network")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("socket.socket.connect", never)
    save_file({"model.diffusion_model.x": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=r"x.safetensors.* as a StableDiffusionPipeline: .*graph.config=FOLDER where it is trained"):
        Graph.from_diffusers(tmp_path / "x.safetensors")
