"""Checkpoints of one file, with the names of the models' first codes: Stable Diffusion XL and 3, and a part alone."""

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
from tests.integrations.diffusers.test_families import first_stage, in_first_code
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


def joint_of(transformer: Any, prefix: str) -> dict[str, Tensor]:
    """The transformer of Stable Diffusion 3 as its first code names it."""
    own, found = dict(transformer.state_dict()), {}
    names = adapter_names(transformer)
    assert names is not None
    for name, spelling in names.spellings(transformer).items():
        for kind in ("weight", "bias"):
            value = torch.cat([own.pop(f"{path}.{kind}") for path in spelling.layers])
            found[f"{name}.{kind}"] = torch.cat(list(reversed(value.chunk(2)))) if spelling.swapped else value
    found |= {"pos_embed": own.pop("pos_embed.pos_embed")}
    found |= {key: own.pop(key) for key in ("context_embedder.weight", "context_embedder.bias")}
    assert not own, sorted(own)
    return {f"{prefix}{key}": value for key, value in found.items()}


def read(pipeline: Any, tensors: dict[str, Tensor], folder: Path) -> Graph:
    pipeline.save_pretrained(folder / "config")
    for file in (folder / "config").rglob("*.safetensors"):
        file.unlink()
    save_file({key: value.contiguous().clone() for key, value in tensors.items()}, folder / "model.safetensors")
    return Graph.from_diffusers(folder / "model.safetensors", config=folder / "config")


def test_stable_diffusion_xl(tmp_path: Path) -> None:
    pipeline = tiny.stable_diffusion_xl(tmp_path / "words")
    tensors = {**in_first_code(pipeline.unet), **first_stage(pipeline.vae)}
    tensors |= clip_of(pipeline.text_encoder, "conditioner.embedders.0.transformer.")
    tensors |= open_clip_of(pipeline.text_encoder_2, "conditioner.embedders.1.model.")
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
    check_equal(pipeline, read(pipeline, tensors, tmp_path), prompt=PROMPT, num_inference_steps=3, max_sequence_length=16)


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
