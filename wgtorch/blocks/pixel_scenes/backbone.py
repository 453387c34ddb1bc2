"""The painter of pixel scenes: a small flow model that is told, cell by cell, what stands where."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wgtorch.blocks.pixel_scenes.conditioner import FRONT_KINDS
from wgtorch.blocks.pixel_scenes.layout import BACK_ROWS, BACK_WIDTH, COLUMNS, FRONT_ROWS, FRONT_WIDTH, GRID
from wgtorch.blocks.scenes.hybrid import HybridBackbone
from wgtorch.blocks.simulation.scene_plan import BACK, BUILDS, COLOURS, FRONT, HAIRS, HATS, LANDMARKS, STATES, TERRAINS, TIMES, WEATHERS
from wgtorch.core.block import register_block
from wgtorch.core.port import Port


@register_block("backbone/pixel_scene")
class PixelSceneBackbone(HybridBackbone):
    """Predicts the clean picture x0 of 64 x 64 pixels from a noisy one, given the rows of a plan.

    A :class:`~wgtorch.blocks.scenes.hybrid.HybridBackbone` with a map of cells on its fine map, before the transformer and after it.
    Things stand on a grid of cells of 4 x 4 pixels. Every cell of a thing has a code of its own - which thing, which of its cells, its
    colour, state and look - that lies where the thing stands (as layouts and segmentation maps condition SPADE, Park et al. 2019,
    https://arxiv.org/abs/1903.07291); hour, weather and land modulate every block.

    Args:
        width, depth, heads, conv_width, condition_width, sigma_data: as in :class:`~wgtorch.blocks.scenes.hybrid.HybridBackbone`.
        code_width: channels of a cell's code.
    """

    inputs = {"condition": Port(dtype="embedding", description="rows of plans [B, 9, 6], or [1, 9, 6] for all")}

    def __init__(
        self,
        *,
        width: int = 160,
        depth: int = 3,
        heads: int = 5,
        conv_width: int = 112,
        code_width: int = 96,
        condition_width: int = 64,
        sigma_data: float = 0.5,
    ):
        super().__init__(
            GRID // 2,
            width=width,
            depth=depth,
            heads=heads,
            conv_width=conv_width,
            condition_width=condition_width,
            sigma_data=sigma_data,
            fine_blocks=3,
        )
        self.setting = _Setting(condition_width)
        self.cells = _Cells(code_width)
        self.told = nn.Conv2d(self.cells.channels, conv_width, 3, padding=1)
        self.told_again = nn.Conv2d(self.cells.channels, conv_width, 1)

    def forward(self, latent: Tensor, timestep: Tensor, condition: Tensor) -> dict[str, Tensor]:
        """The picture x0 behind a noisy one."""
        rows = condition.round().long().expand(len(latent), -1, -1)
        cells = self.cells(rows)  # [B, C, 16, 16]
        everywhere = self.setting(rows[:, 0])
        return {"pred": self.denoised(latent, timestep, everywhere, entering=self.told(cells), leaving=self.told_again(cells))}


class _Setting(nn.Module):
    """Time, weather and terrain [B, 6] to the vector [B, C] that modulates; pairs of them have vectors of their own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hours, weathers, lands = len(TIMES), len(WEATHERS), len(TERRAINS)
        self.pairs = nn.ModuleList(nn.Embedding(count, width) for count in (hours * weathers, hours * lands, weathers * lands))
        self.mix = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))

    def forward(self, row: Tensor) -> Tensor:
        time, weather, land = row[:, 0], row[:, 1], row[:, 2]
        numbers = (time * len(WEATHERS) + weather, time * len(TERRAINS) + land, weather * len(TERRAINS) + land)
        h = sum(table(number) for table, number in zip(self.pairs, numbers, strict=True))
        return h + self.mix(h)


class _Cells(nn.Module):
    """Rows of plans [B, 9, 6] to a map [B, C, 16, 16]: the codes of the back row, those of the front row, and the land's."""

    def __init__(self, width: int, land: int = 32) -> None:
        super().__init__()
        self.channels = 2 * width + land
        self.back = _Codes(len(LANDMARKS), BACK_ROWS, BACK_WIDTH, width, look=False)
        self.front = _Codes(len(FRONT_KINDS), FRONT_ROWS, FRONT_WIDTH, width, look=True)
        self.land = nn.Parameter(0.3 * torch.randn(len(TERRAINS), land, GRID, GRID))

    def forward(self, rows: Tensor) -> Tensor:
        back = self.back(rows[:, 1 : 1 + len(BACK)], BACK)
        front = self.front(rows[:, 1 + len(BACK) :], FRONT)
        return torch.cat([back, front, self.land[rows[:, 0, 2]].to(back.dtype)], dim=1)


class _Codes(nn.Module):
    """Codes of the cells of what stands in a row of slots."""

    def __init__(self, kinds: int, rows: tuple[int, int], columns: int, width: int, *, look: bool) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns
        cells = (rows[1] - rows[0]) * columns
        sizes = [len(COLOURS), len(STATES), len(HATS), len(HAIRS), len(BUILDS)][: 5 if look else 2]
        self.kind = nn.Parameter(torch.randn(kinds, cells, 64))
        self.fields = nn.ModuleList(nn.Embedding(size + 1, 16) for size in sizes)
        self.mix = nn.Sequential(nn.Linear(64 + 16 * len(sizes), 160), nn.SiLU(), nn.Linear(160, width))

    def forward(self, rows: Tensor, slots: tuple[str, ...]) -> Tensor:
        """Map [B, width, 16, 16] of rows [B, slots, 6]."""
        kind = self.kind[(rows[..., 0] - 1).clamp(min=0)]  # [B, slots, cells, 64]; an empty slot's is taken away below
        fields = torch.cat([table(rows[..., 1 + k]) for k, table in enumerate(self.fields)], dim=-1)
        codes = self.mix(torch.cat([kind, fields.unsqueeze(2).expand(-1, -1, kind.shape[2], -1)], dim=-1))
        codes = codes * (rows[..., :1, None] > 0)  # [B, slots, cells, width]
        top, bottom = self.rows
        shaped = codes.unflatten(2, (bottom - top, self.columns)).permute(0, 1, 4, 2, 3)  # [B, slots, width, h, w]
        canvas = shaped.new_zeros(len(rows), shaped.shape[2], GRID, GRID)
        for k, slot in enumerate(slots):
            left = COLUMNS[slot]
            canvas[:, :, top:bottom, left : left + self.columns] += shaped[:, k]
        return canvas
