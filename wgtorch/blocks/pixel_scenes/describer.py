"""Picture to facts: a small network that sees what stands in each slot of a pixel scene."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wgtorch.blocks.pixel_scenes.conditioner import FIELDS, FRONT_KINDS, decode_rows
from wgtorch.blocks.pixel_scenes.layout import BACK_ROWS, BACK_WIDTH, COLUMNS, FRONT_ROWS, FRONT_WIDTH, SIZE
from wgtorch.blocks.pixel_scenes.words import sentence
from wgtorch.blocks.scenes.layers import Residual
from wgtorch.blocks.simulation.scene_plan import (
    BACK,
    BEASTS,
    BUILDS,
    COLOURS,
    FRONT,
    HAIRS,
    HATS,
    LANDMARKS,
    SLOTS,
    STATES,
    TERRAINS,
    TIMES,
    WEATHERS,
)
from wgtorch.core.block import register_block
from wgtorch.core.errors import PortError
from wgtorch.core.port import Port
from wgtorch.roles import VisionLanguageModel

SETTING_SIZES = {"time": len(TIMES), "weather": len(WEATHERS), "terrain": len(TERRAINS)}
BACK_SIZES = {"kind": 1 + len(LANDMARKS), "colour": 1 + len(COLOURS), "state": 1 + len(STATES)}
FRONT_SIZES = {
    "kind": 1 + len(FRONT_KINDS),
    "colour": 1 + len(COLOURS),
    "state": 1 + len(STATES),
    "hat": 1 + len(HATS),
    "hair": 1 + len(HAIRS),
    "build": 1 + len(BUILDS),
}
_WITH_LOOK = torch.tensor([0, *(kind == "person" for kind in FRONT_KINDS)], dtype=torch.bool)
_ALIVE = torch.tensor([0, *(kind == "person" or kind in BEASTS for kind in FRONT_KINDS)], dtype=torch.bool)


@register_block("vlm/pixel_scene")
class PixelSceneDescriber(VisionLanguageModel):
    """Says what is in a pixel scene: time, weather and terrain, and for each slot what stands there, in which colour, state and look.

    A residual CNN at 16x16 cells; a head for the whole and one for each row of slots, applied at every slot. It learned from
    drawings by other hands than the one the painter learned from. Of anything but pixel scenes it knows nothing; it sees the picture
    alone and does not read the `prompt`.

    Args:
        width: channels at 32x32; 3 times as many at 16x16.
        embedding_width: numbers of a slot's embedding.
    """

    inputs = {"prompt": Port(dtype="text", description="not read: this describer answers no questions")}
    outputs = {
        "attributes": Port(dtype="dict", description="what stands where, in the keys of a ScenePlan's data; a list for several pictures"),
        "confidence": Port(dtype="number", description="mean probability of what was chosen, in [0, 1]; a list for several pictures"),
    }
    uses_global_rng = False

    def __init__(self, *, width: int = 24, embedding_width: int = 96) -> None:
        super().__init__()
        if width < 8 or width % 8:
            raise ValueError(f"PixelSceneDescriber.width: found {width}, expected a multiple of 8")
        wide = 3 * width
        self.enter = nn.Conv2d(3, width, 4, stride=2, padding=1)
        self.fine = nn.ModuleList([Residual(width, width)])
        self.down = nn.Conv2d(width, wide, 3, stride=2, padding=1)
        self.cells = nn.ModuleList(Residual(wide, wide) for _ in range(2))
        self.far = nn.Conv2d(wide, wide, 3, stride=2, padding=1)
        self.whole = nn.ModuleList([Residual(wide, wide)])
        self.norm, self.norm_far = nn.GroupNorm(8, wide), nn.GroupNorm(8, wide)
        self.squeeze_far, self.squeeze_back = nn.Conv2d(wide, 16, 1), nn.Conv2d(wide, 40, 1)
        back_cells, front_cells = (BACK_ROWS[1] - BACK_ROWS[0]) * BACK_WIDTH, (FRONT_ROWS[1] - FRONT_ROWS[0]) * FRONT_WIDTH
        self.setting = _Heads(16 * 64, embedding_width, SETTING_SIZES)
        self.back = _Heads(40 * back_cells, embedding_width, BACK_SIZES)
        self.front = _Heads(wide * front_cells, embedding_width, FRONT_SIZES)

    def features(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings of pictures [B, 3, H, W] in [0, 1]: of the whole [B, E], of the slots behind [B, 3, E], of those in front [B, 5, E].

        Raises:
            PortError: it is no batch of pictures with three channels.
        """
        h = self.enter(2 * self.fitted(image) - 1)
        for block in self.fine:
            h = block(h)
        h = self.down(h)
        for block in self.cells:
            h = block(h)
        far = self.far(F.silu(h))
        for block in self.whole:
            far = block(far)
        h = F.silu(self.norm(h))
        setting = self.setting.embed(self.squeeze_far(F.silu(self.norm_far(far))).flatten(1))
        squeezed = self.squeeze_back(h)
        back = self.back.embed(torch.stack([_at(squeezed, slot, BACK_ROWS, BACK_WIDTH) for slot in BACK], dim=1))
        front = self.front.embed(torch.stack([_at(h, slot, FRONT_ROWS, FRONT_WIDTH) for slot in FRONT], dim=1))
        return setting, back, front

    def fitted(self, image: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in the size that the network reads, [B, 3, 64, 64].

        Raises:
            PortError: it is no batch of pictures with three channels.
        """
        if image.dim() != 4 or image.shape[1] != 3:
            raise PortError(f"{self.block_id}.image: got shape {list(image.shape)}; expected [B, 3, H, W]")
        return image if image.shape[-2:] == (SIZE, SIZE) else F.interpolate(image, (SIZE, SIZE), mode="area")

    def logits(self, image: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Logits by attribute of pictures [B, 3, H, W]: of the whole [B, n], of the slots behind [B, 3, n], of those in front [B, 5, n].

        Value 0 of a slot's attributes is "none", as in the rows of :class:`~wgtorch.blocks.pixel_scenes.conditioner.ScenePlanEncoder`.
        """
        setting, back, front = self.features(image)
        return self.setting(setting), self.back(back), self.front(front)

    def read(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Rows [B, 9, 6] as a plan's encoder writes them, and the mean probability [B] of what was chosen."""
        setting, back, front = self.logits(image)
        rows = torch.zeros(len(image), 1 + len(SLOTS), len(FIELDS), dtype=torch.long, device=image.device)
        certain, asked = [], []
        for k, values in enumerate(setting.values()):
            best = values.softmax(-1).max(-1)
            rows[:, 0, k] = best.indices
            certain.append(best.values[:, None])
            asked.append(torch.ones_like(best.values[:, None]))
        for start, group in ((1, back), (1 + len(BACK), front)):
            kind = group["kind"].argmax(-1)  # [B, slots]
            there = kind > 0
            alive = _ALIVE.to(kind.device)[kind] & (start > 1)
            person = _WITH_LOOK.to(kind.device)[kind] & (start > 1)
            rows[:, start : start + kind.shape[1], 0] = kind
            certain.append(group["kind"].softmax(-1).amax(-1))
            asked.append(torch.ones_like(certain[-1]))
            for k, name in enumerate(FIELDS[1:], start=1):
                if name not in group:
                    continue
                counts = there if name in ("colour", "state") else person
                scores = group[name].clone()
                scores[..., 0] = -torch.inf  # whatever is there has a colour: that of an unpainted apple is red
                best = scores.softmax(-1).max(-1)
                chosen = torch.where(alive, 1, best.indices) if name == "state" else best.indices
                rows[:, start : start + kind.shape[1], k] = chosen * counts
                certain.append(best.values)
                asked.append(counts.to(best.values))
        weight = torch.cat(asked, dim=1)
        return rows, (torch.cat(certain, dim=1) * weight).sum(1) / weight.sum(1)

    def forward(self, image: Tensor, prompt: str | None = None) -> dict[str, Any]:
        """Describes pictures [B, 3, H, W] (or one, [3, H, W]) in [0, 1].

        Returns:
            `text`: sentences; `attributes`: the facts, in the keys of a plan's data (`time`, `weather`, `terrain`, `things`);
            `confidence`: mean probability of what was chosen, in [0, 1]. For B > 1 each of them is a list of B.
        """
        rows, confidence = self.read(image.detach() if image.ndim == 4 else image.detach().unsqueeze(0))
        facts: list[Mapping[str, Any]] = [decode_rows(row) for row in rows.tolist()]
        texts, certain = [sentence(fact) for fact in facts], confidence.tolist()
        if len(facts) == 1:
            return {"text": texts[0], "attributes": facts[0], "confidence": certain[0]}
        return {"text": texts, "attributes": facts, "confidence": certain}


def _at(cells: Tensor, slot: str, rows: tuple[int, int], columns: int) -> Tensor:
    left = COLUMNS[slot]
    return cells[:, :, rows[0] : rows[1], left : left + columns].flatten(1)


class _Heads(nn.Module):
    def __init__(self, width: int, embedding_width: int, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, embedding_width)
        self.heads = nn.ModuleDict({name: nn.Linear(embedding_width, size) for name, size in sizes.items()})

    def embed(self, flat: Tensor) -> Tensor:
        """[..., width] to [..., E]."""
        return F.silu(self.hidden(flat))

    def forward(self, embedding: Tensor) -> dict[str, Tensor]:
        return {name: head(embedding) for name, head in self.heads.items()}
