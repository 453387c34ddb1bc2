"""Backbones of diffusers as blocks: what they give is what the bare model gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("diffusers")

from wgtorch.core.block import BlockRegistry
from wgtorch.core.errors import PortError

WIDTH, LENGTH = 12, 5


def tensor(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@dataclass
class Case:
    """A model, what the block is fed beside latent and timestep, and how the bare model is called."""

    kind: str
    config: dict[str, Any]
    latent: tuple[int, ...]
    bare: Callable[[Any, Tensor, Tensor, dict[str, Any]], Tensor]
    inputs: dict[str, Any] = field(default_factory=dict)
    refused: str = ""


CONDITION = {"condition": tensor(2, LENGTH, WIDTH, seed=1)}
VIDEO_UNET = {
    "sample_size": 8, "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4, "cross_attention_dim": WIDTH,
}  # fmt: skip
SANA = {
    "in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 4, "num_layers": 1,
    "num_cross_attention_heads": 2, "cross_attention_head_dim": 4, "cross_attention_dim": 8, "caption_channels": WIDTH, "sample_size": 8,
}  # fmt: skip
PIXART = {
    "num_attention_heads": 2, "attention_head_dim": 4, "in_channels": 4, "num_layers": 1, "cross_attention_dim": 8,
    "caption_channels": WIDTH, "sample_size": 8,
}  # fmt: skip
COG = {
    "num_attention_heads": 2, "attention_head_dim": 16, "time_embed_dim": 8, "text_embed_dim": WIDTH, "num_layers": 1, "sample_width": 8,
    "sample_height": 8, "sample_frames": 9, "max_text_seq_length": LENGTH,
}  # fmt: skip
MASK = {"attention_mask": torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])}
SIZES = {"resolution": torch.full((2, 2), 16.0), "aspect_ratio": torch.ones(2, 1)}
VIDEO = (2, 4, 3, 8, 8)


def cog(model: Any, latent: Tensor, t: Tensor, given: dict[str, Any], **more: Any) -> Tensor:
    return model(latent.transpose(1, 2), given["condition"], t, **more).sample.transpose(1, 2)


def rotary(model: Any, sides: tuple[int, int], frames: int) -> Any:
    """What their pipeline makes of the size in pixels."""
    from types import SimpleNamespace

    from diffusers import CogVideoXPipeline

    held = SimpleNamespace(transformer=model, vae_scale_factor_spatial=8)
    made = CogVideoXPipeline._prepare_rotary_positional_embeddings
    return made(held, sides[0] * 8, sides[1] * 8, frames, torch.device("cpu"))


CASES = {
    "unet_2d": Case(
        "backbone/unet_2d",
        {
            "sample_size": 8, "in_channels": 3, "out_channels": 3, "block_out_channels": (8, 16), "layers_per_block": 1,
            "norm_num_groups": 4, "attention_head_dim": 4, "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "num_class_embeds": 3,
        },
        (2, 3, 8, 8),
        lambda model, latent, t, given: model(latent, t, **given).sample,
        {"class_labels": torch.tensor([0, 2])},
        r"got shape \[2, 4, 8, 8\]; expected \[B, 3, H, W\]$",
    ),
    "unet_3d_condition": Case(
        "backbone/unet_3d_condition",
        {
            **VIDEO_UNET, "attention_head_dim": 4, "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
            "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
        },
        VIDEO,
        lambda model, latent, t, given: model(latent, t, given["condition"]).sample,
        CONDITION,
        r"expected \[B, 4, T, H, W\]$",
    ),
    "unet_motion": Case(
        "backbone/unet_motion",
        {
            **VIDEO_UNET, "num_attention_heads": 2, "motion_num_attention_heads": 2, "motion_max_seq_length": 8,
            "down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion"),
            "up_block_types": ("UpBlockMotion", "CrossAttnUpBlockMotion"),
        },
        VIDEO,
        lambda model, latent, t, given: model(latent, t, given["condition"].repeat_interleave(3, dim=0)).sample,
        CONDITION,
        r"expected \[B, 4, T, H, W\]$",
    ),
    "pixart": Case(
        "backbone/pixart_transformer",
        {**PIXART, "out_channels": 8, "use_additional_conditions": False},
        (2, 4, 8, 8),
        lambda model, latent, t, given: model(
            latent,
            encoder_hidden_states=given["condition"],
            timestep=t,
            encoder_attention_mask=given["attention_mask"],
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        ).sample.chunk(2, dim=1)[0],
        {**CONDITION, **MASK},
        r"expected \[B, 4, H, W\] with sides that are multiples of 2",
    ),
    "pixart_told_sizes": Case(
        "backbone/pixart_transformer",
        {**PIXART, "attention_head_dim": 12, "cross_attention_dim": 24, "out_channels": 4, "use_additional_conditions": True},
        (2, 4, 8, 8),
        lambda model, latent, t, given: model(
            latent, encoder_hidden_states=given["condition"], timestep=t, added_cond_kwargs=SIZES
        ).sample,
        {**CONDITION, **SIZES},
    ),
    "sana": Case(
        "backbone/sana_transformer",
        {**SANA, "timestep_scale": 2.0},
        (2, 4, 8, 8),
        lambda model, latent, t, given: model(latent, given["condition"], t * 2, encoder_attention_mask=given["attention_mask"]).sample,
        {**CONDITION, **MASK},
        r"expected \[B, 4, H, W\]",
    ),
    "sana_sprint": Case(
        "backbone/sana_transformer",
        {**SANA, "guidance_embeds": True},
        (2, 4, 8, 8),
        lambda model, latent, t, given: model(latent, given["condition"], t, guidance=torch.full((2,), 4.5)).sample,
        {**CONDITION, "guidance": 4.5},
    ),
    "cogvideox": Case(
        "backbone/cogvideox_transformer",
        {**COG, "in_channels": 4, "out_channels": 4},
        VIDEO,
        cog,
        CONDITION,
        r"expected \[B, 4, T, H, W\] with sides that are multiples of \(1, 2, 2\)",
    ),
    "cogvideox_from_an_image": Case(
        "backbone/cogvideox_transformer",
        {**COG, "in_channels": 8, "out_channels": 4, "use_rotary_positional_embeddings": True, "use_learned_positional_embeddings": True},
        VIDEO,
        lambda model, latent, t, given: cog(
            model,
            torch.cat([latent, given["image_condition"].expand(2, -1, -1, -1, -1)], 1),
            t,
            given,
            image_rotary_emb=rotary(model, (8, 8), 3),
        ),
        {**CONDITION, "image_condition": tensor(1, 4, 3, 8, 8, seed=2)},
    ),
    "cogvideox_wide": Case(
        "backbone/cogvideox_transformer",
        {**COG, "in_channels": 4, "out_channels": 4, "use_rotary_positional_embeddings": True},
        (2, 4, 3, 6, 12),
        lambda model, latent, t, given: cog(model, latent, t, given, image_rotary_emb=rotary(model, (6, 12), 3)),
        CONDITION,
    ),
    "cogvideox_1_5": Case(
        "backbone/cogvideox_transformer",
        {
            **COG, "in_channels": 4, "out_channels": 4, "patch_size_t": 2, "use_rotary_positional_embeddings": True, "ofs_embed_dim": 8,
            "patch_bias": False,
        },
        (2, 4, 4, 8, 8),
        lambda model, latent, t, given: cog(
            model, latent, t, given, ofs=torch.tensor([2.0]), image_rotary_emb=rotary(model, (8, 8), 4)
        ),
        CONDITION,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(CASES))
def test_what_the_block_gives_is_what_the_model_gives(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    block: Any = BlockRegistry.build({"block_type": case.kind, "config": {"model": case.config}})
    for weight in block.model.parameters():
        torch.nn.init.normal_(weight, std=0.2)  # some are zero at first
    latent, call = tensor(*case.latent), {"timestep": 7, **case.inputs}
    with torch.no_grad():
        expected = case.bare(block.model, latent, torch.tensor([7, 7]), case.inputs)
        found = block.run({"latent": latent, **call})["pred"]
        assert found.shape == latent.shape and found.std() > 1e-3
        assert torch.equal(found, expected)
        block.model.save_pretrained(tmp_path)
        again = BlockRegistry.build({"block_type": case.kind, "config": {"checkpoint_ref": str(tmp_path)}})
        assert torch.equal(again.run({"latent": latent, **call})["pred"], expected)
        for key, value in case.inputs.items():
            if isinstance(value, Tensor) and key not in ("class_labels", "resolution", "aspect_ratio"):
                other = {**call, key: 1 - value if key == "attention_mask" else value.flip(-1)}
                assert not torch.equal(block.run({"latent": latent, **other})["pred"], found), f"{key} matters"
    if case.refused:
        with pytest.raises(PortError, match=case.refused):
            block.run({"latent": tensor(latent.shape[0], latent.shape[1] + 1, *latent.shape[2:]), **call})
    if "condition" in case.inputs:
        with pytest.raises(PortError, match="got 1 rows for 2 latents; expected as many"):
            block.run({"latent": latent, **call, "condition": case.inputs["condition"][:1]})


def test_a_timestep_for_each_row() -> None:
    case = CASES["unet_2d"]
    torch.manual_seed(0)
    block: Any = BlockRegistry.build({"block_type": case.kind, "config": {"model": case.config}})
    latent = tensor(4, 3, 8, 8)
    both = {"latent": latent, "timestep": torch.tensor([1, 900]), "class_labels": torch.zeros(4, dtype=torch.long)}
    with torch.no_grad():
        found = block.run(both)["pred"]
        for row, timestep in enumerate((1, 900, 1, 900)):
            one = {"latent": latent[row : row + 1], "timestep": timestep, "class_labels": torch.zeros(1, dtype=torch.long)}
            torch.testing.assert_close(block.run(one)["pred"][0], found[row])
