"""The painter of pixel scenes: a small flow model that is told, cell by cell, what stands where."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wgtorch.blocks.pixel_scenes.conditioner import FRONT_KINDS
from wgtorch.blocks.pixel_scenes.layout import BACK_ROWS, BACK_WIDTH, CELL, COLUMNS, FRONT_ROWS, FRONT_WIDTH, GRID
from wgtorch.blocks.scenes.layers import ConvBlock, Fourier, TransformerBlock
from wgtorch.blocks.simulation.scene_plan import BACK, BUILDS, COLOURS, FRONT, HAIRS, HATS, LANDMARKS, STATES, TERRAINS, TIMES, WEATHERS
from wgtorch.core.block import register_block
from wgtorch.roles import Backbone


@register_block("backbone/pixel_scene")
class PixelSceneBackbone(Backbone):
    """Predicts the clean picture x0 of 64 x 64 pixels from a noisy one, given the rows of a plan.

    ::

        plan --> map of cells 16x16 ----------+---------------------------------------------+
                                              v                                             v
        latent --unshuffle 4--> 16x16 --------+--conv--unshuffle 2--> 8x8 transformer --shuffle 2--conv--> shuffle 4 --> pred
                                                  +------------------ skip -----------------+

    The path of the noise is the straight one (rectified flow, Liu et al. 2022, https://arxiv.org/abs/2209.03003):
    ``x_t = (1 - t) x0 + t noise``, t in [0, 1]; `pred` is an x0-prediction, preconditioned as by Karras et al. 2022
    (https://arxiv.org/abs/2206.00364, section 5). Things stand on a grid of cells of 4 x 4 pixels. Every cell of a thing has a code
    of its own - which thing, which of its cells, its colour, state and look - that lies where the thing stands (as layouts and
    segmentation maps condition SPADE, Park et al. 2019, https://arxiv.org/abs/1903.07291); hour, weather and land modulate every block
    (adaLN-zero, Peebles & Xie 2022, https://arxiv.org/abs/2212.09748).

    Args:
        width: channels of the transformer.
        depth: its blocks.
        heads: its attention heads.
        conv_width: channels at 16x16.
        code_width: channels of a cell's code.
        condition_width: channels of the vector that modulates the blocks.
        sigma_data: standard deviation of the pictures, which are in [-1, 1].
    """

    inputs = {"latent": "latent", "condition": "embedding"}
    outputs = {"pred": "tensor"}
    uses_global_rng = False

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
        super().__init__()
        if width % heads:
            raise ValueError(f"PixelSceneBackbone.heads: width {width} is not divisible by {heads}")
        if conv_width % 8:
            raise ValueError(f"PixelSceneBackbone.conv_width: found {conv_width}, expected a multiple of 8")
        self.sigma_data = sigma_data
        self.side = GRID // 2
        self.setting = _Setting(condition_width)
        self.cells = _Cells(code_width)
        self.timestep = nn.Sequential(Fourier(64), nn.Linear(64, condition_width), nn.SiLU(), nn.Linear(condition_width, condition_width))
        self.enter = nn.Conv2d(3 * CELL**2, conv_width, 3, padding=1)
        self.told = nn.Conv2d(self.cells.channels, conv_width, 3, padding=1)
        self.fine_in = ConvBlock(conv_width, condition_width)
        self.to_tokens = nn.Linear(4 * conv_width, width)
        self.position = nn.Parameter(0.02 * torch.randn(self.side**2, width))
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, condition_width) for _ in range(depth))
        self.from_tokens = nn.Linear(width, 4 * conv_width)
        self.merge = nn.Conv2d(2 * conv_width, conv_width, 1)
        self.told_again = nn.Conv2d(self.cells.channels, conv_width, 1)
        self.fine_out = nn.ModuleList(ConvBlock(conv_width, condition_width) for _ in range(3))
        self.norm = nn.GroupNorm(8, conv_width)
        self.leave = nn.Conv2d(conv_width, 3 * CELL**2, 3, padding=1)
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)

    def forward(self, latent: Tensor, timestep: Tensor, condition: Tensor) -> dict[str, Tensor]:
        """The picture x0 behind a noisy one.

        Args:
            latent: x_t [B, 3, 64, 64].
            timestep: t in [0, 1], [B] or a scalar.
            condition: rows [B, 9, 6] of :class:`~wgtorch.blocks.pixel_scenes.conditioner.ScenePlanEncoder` (or [1, 9, 6] for all).

        Returns:
            `pred`: x0, [B, 3, 64, 64], in [-1, 1] where the model is right; it is not clamped.
        """
        batch = latent.shape[0]
        t = torch.as_tensor(timestep, dtype=latent.dtype, device=latent.device).expand(batch)
        skip, scale_in, scale_out = self._scales(t.view(batch, 1, 1, 1))
        rows = condition.round().long().expand(batch, -1, -1)
        told = self.cells(rows)  # [B, C, 16, 16]
        modulation = F.silu(self.setting(rows[:, 0]) + self.timestep(t))  # [B, condition_width]

        fine = self.fine_in(self.enter(F.pixel_unshuffle(scale_in * latent, CELL)) + self.told(told), modulation)
        tokens = self.to_tokens(F.pixel_unshuffle(fine, 2).flatten(2).mT) + self.position  # [B, 64, width]
        for block in self.blocks:
            tokens = block(tokens, modulation)
        coarse = F.pixel_shuffle(self.from_tokens(tokens).mT.unflatten(2, (self.side, self.side)), 2)
        fine = self.merge(torch.cat([fine, coarse], dim=1)) + self.told_again(told)
        for conv in self.fine_out:
            fine = conv(fine, modulation)
        network = F.pixel_shuffle(self.leave(F.silu(self.norm(fine))), CELL)
        return {"pred": skip * latent + scale_out * network}

    def _scales(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """c_skip, c_in, c_out: var(x_t) is (1 - t)^2 s^2 + t^2, and c_skip x_t the linear estimate of x0 of least error."""
        s = self.sigma_data
        variance = ((1 - t) * s) ** 2 + t**2
        return (1 - t) * s**2 / variance, variance.rsqrt(), s * t * variance.rsqrt()


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
