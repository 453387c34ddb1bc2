"""Roles: abstract blocks that fix a task's ports, and the rules by which roles join.

A concrete block subclasses a role and registers under ``role/name``; its ports may go beyond the role's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wgtorch.core.autoconnect import RoleRule, SideBranchRule
from wgtorch.core.block import Block
from wgtorch.core.port import Port
from wgtorch.ports import CONDITION, LATENT, PICTURES, PRED, TEXT, TIMESTEP, TOKENS


class Backbone(Block):
    """One model prediction - noise, x0, velocity or flow - without a step in time."""

    role = "backbone"
    inputs: Mapping[str, Any] = {
        "latent": LATENT,
        "timestep": TIMESTEP,
        "condition": CONDITION,
    }
    outputs: Mapping[str, Any] = {"pred": PRED}


class Solver(Block):
    """One step of a discretisation of the reverse process.

    A solver that knows how many steps it takes says so in ``num_loop_steps``.
    """

    role = "solver"
    inputs: Mapping[str, Any] = {
        "latent": Port(dtype="latent", description="the latents before the step [B, C, ...]"),
        "timestep": Port(dtype="number", description="what the backbone was called with"),
        "pred": Port(dtype="latent", description="what the backbone predicted"),
    }
    outputs: Mapping[str, Any] = {
        "next_latent": Port(dtype="latent", description="the latents after the step"),
        "next_timestep": Port(dtype="number", description="what the backbone is to be called with next"),
    }


class Encoder(Block):
    """The half of a codec that makes latents of images."""

    role = "encoder"
    inputs: Mapping[str, Any] = {"image": PICTURES}
    outputs: Mapping[str, Any] = {"latent": Port(dtype="latent", description="[B, C, H / f, W / f], scaled as the backbone takes them")}


class Codec(Block):
    """The half of a codec that makes images of latents."""

    role = "codec"
    inputs: Mapping[str, Any] = {"latent": Port(dtype="latent", description="[B, C, h, w], as the loop leaves them")}
    outputs: Mapping[str, Any] = {"image": Port(dtype="image", description="[B, 3, H, W] in [0, 1]")}


class Tokenizer(Block):
    """Text to ids."""

    role = "tokenizer"
    inputs: Mapping[str, Any] = {"text": TEXT}
    outputs: Mapping[str, Any] = {"tokens": TOKENS}


class Conditioner(Block):
    """Encodes a condition. What it encodes - tokens, text, an image - is its own choice."""

    role = "conditioner"
    outputs: Mapping[str, Any] = {"embedding": Port(dtype="embedding", description="the encoded condition [B, T, D]")}


class Adapter(Block):
    """A contribution to the backbone from beside it: ControlNet, IP-Adapter, T2I-Adapter.

    It sees what the backbone sees: its inputs ``latent``, ``timestep``, ``condition`` are fed as the backbone's are. What it
    gives, ``adapted``, goes to the backbone, which takes several. ``exposes`` names the inputs that only a user can feed,
    and what the graph is to call them.
    """

    role = "adapter"
    outputs: Mapping[str, Any] = {
        "adapted": Port(description="what this adds to the backbone: residuals of its layers, or keys and values of its attentions")
    }
    exposes: Mapping[str, str] = {}


class Guidance(Block):
    """Combines predictions with and without the condition (classifier-free guidance and its relatives)."""

    role = "guidance"
    inputs: Mapping[str, Any] = {
        "pred_cond": Port(dtype="latent", description="the prediction with the condition"),
        "pred_uncond": Port(dtype="latent", description="the prediction without it, or with the negative one"),
        "scale": Port(dtype="number", optional=True, description="how far to go beyond the conditional prediction; 1 is that prediction"),
    }
    outputs: Mapping[str, Any] = {"pred_guided": Port(dtype="latent", description="what the solver takes for the prediction")}


class Schedule(Block):
    """A noise schedule: ``sigma`` and ``alpha`` at a timestep."""

    role = "schedule"
    inputs: Mapping[str, Any] = {"timestep": Port(dtype="number", description="where in the schedule to look, a number or [B]")}


class Noise(Block):
    """The latent a loop starts from, and the timestep it starts at."""

    role = "noise"
    outputs: Mapping[str, Any] = {"latent": Port(dtype="latent", description="where the loop starts [B, C, ...]")}


class LanguageModel(Block):
    """One completion."""

    role = "llm"
    inputs: Mapping[str, Any] = {"prompt": Port(dtype="text", description="what to answer; a list is answered item by item")}
    outputs: Mapping[str, Any] = {"text": Port(dtype="text", description="the completion, or a list of them")}


class VisionLanguageModel(Block):
    """Looking at a picture."""

    role = "vlm"
    inputs: Mapping[str, Any] = {"image": Port(dtype="image", description="the picture to look at, in [0, 1]")}
    outputs: Mapping[str, Any] = {"text": Port(dtype="text", description="words about it")}


class Embedder(Block):
    """A vector for a text or an image."""

    role = "embedder"
    outputs: Mapping[str, Any] = {"embedding": Port(dtype="embedding", description="[B, D]")}


ROLE_RULES: tuple[RoleRule, ...] = (
    RoleRule("tokenizer", "tokens", "conditioner", "tokens"),
    RoleRule("tokenizer", "attention_mask", "conditioner", "attention_mask"),
    RoleRule("conditioner", "embedding", "backbone", "condition"),
    RoleRule("conditioner", "embedding", "noise", "condition"),
    RoleRule("adapter", "adapted", "backbone", "adapted"),
    RoleRule("backbone", "pred", "guidance", "pred_cond"),
    RoleRule("guidance", "pred_guided", "solver", "pred"),
    RoleRule("backbone", "pred", "solver", "pred", unless="guidance"),
    RoleRule("noise", "latent", "backbone", "latent"),
    RoleRule("noise", "latent", "solver", "latent"),
    RoleRule("schedule", "progress", "noise", "progress"),
    RoleRule("schedule", "progress", "solver", "progress"),
    RoleRule("schedule", "timestep", "backbone", "timestep"),
    RoleRule("schedule", "timestep", "solver", "timestep"),
    RoleRule("schedule", "timestep", "guidance", "timestep"),
    RoleRule("noise", "progress", "solver", "progress", unless="schedule"),
    RoleRule("noise", "timestep", "backbone", "timestep", unless="schedule"),
    RoleRule("noise", "timestep", "solver", "timestep", unless="schedule"),
    RoleRule("noise", "timestep", "guidance", "timestep", unless="schedule"),
    RoleRule("encoder", "latent", "noise", "image_latent"),
    RoleRule("encoder", "latent", "backbone", "latent", unless="noise"),
    RoleRule("encoder", "latent", "solver", "latent", unless="noise"),
    RoleRule("solver", "next_latent", "backbone", "latent", loops=True),
    RoleRule("solver", "next_latent", "solver", "latent", loops=True),
    RoleRule("solver", "next_timestep", "backbone", "timestep", loops=True),
    RoleRule("solver", "next_timestep", "solver", "timestep", loops=True),
    RoleRule("solver", "next_timestep", "guidance", "timestep", loops=True),
    RoleRule("solver", "progress", "solver", "progress", loops=True),
    RoleRule("solver", "next_latent", "codec", "latent"),
)
"""Which port feeds which. ``loops`` rules stand beside a start: noise, an encoded image, or an exposed input."""

BESIDE_RULES: tuple[SideBranchRule, ...] = (
    SideBranchRule("adapter", "backbone", frozenset(("latent", "timestep", "condition", "text_embeds", "time_ids")), gives=True),
    SideBranchRule("adapter", "solver", frozenset(("progress",))),
    SideBranchRule("adapter", "repeat", frozenset(("parts",))),
)
"""Who stands beside whom: an adapter sees what the backbone sees, how far the solver is, and how a guided batch is divided."""
