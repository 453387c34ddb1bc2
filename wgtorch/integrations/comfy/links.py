"""What links between nodes of ComfyUI carry, while their graph is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wgtorch.integrations.diffusers.source import Source


@dataclass(frozen=True)
class Checkpoint:
    """What a loader reads: the parts of one model, each block made once."""

    source: Source
    backbone: Any
    vae: Any
    words: tuple[tuple[Any, Any], ...]


@dataclass(frozen=True)
class Worn:
    """MODEL or CLIP: of which checkpoint, with which LoRAs (file and strength) and layers left out."""

    checkpoint: Checkpoint
    adapters: tuple[tuple[str, float], ...] = ()
    skip: int = 0


@dataclass(frozen=True)
class Conditioning:
    """CONDITIONING: where it comes from, the ControlNets on it (block, picture, strength), and what XL is told of sizes."""

    embedding: str
    pooled: str
    controls: tuple[tuple[str, str, float], ...] = ()
    sizes: tuple[int, ...] = ()
    """Height, width, top and left of the crop, wanted height and width; empty for the latent's."""


@dataclass(frozen=True)
class Latent:
    """LATENT: where it comes from, and the mask on it."""

    port: str
    mask: str = ""
