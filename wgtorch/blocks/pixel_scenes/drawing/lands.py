"""The land of a picture, from the ridge on the horizon to the front: [64, 64, 3] colours in daylight, and how far each pixel is away."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

SIZE = 64
HORIZON = 36
FEET = 48  # where landmarks stand
FRONT = 60  # where people stand

_Land = Callable[["Land"], None]
_LANDS: dict[str, _Land] = {}


class Land:
    """A land that is being drawn.

    Args:
        rng: where its ridges, tufts and waves come from.
        grain: share of tufts, stones and waves.
        snowy: covered with snow.
    """

    def __init__(self, rng: np.random.Generator, *, grain: float = 1.0, snowy: bool = False) -> None:
        self.rng, self.grain, self.snowy = rng, grain, snowy
        self.rgb = np.zeros((SIZE, SIZE, 3))
        self.full = np.zeros((SIZE, SIZE), dtype=bool)
        self.far = np.zeros((SIZE, SIZE))  # 1 at the horizon, 0 in front
        self.glow = np.zeros((SIZE, SIZE), dtype=bool)

    def fill(self, tops: np.ndarray, color: tuple[int, int, int], far: float, *, snow: float = 0.75, until: int = SIZE) -> np.ndarray:
        """Colours every column from its top on; gives the mask."""
        y = np.arange(SIZE)[:, None]
        mask = (y >= np.round(tops)[None]) & (y < until)
        self.paint(mask, color, far, snow=snow)
        return mask

    def paint(self, mask: np.ndarray, color: tuple[int, int, int], far: float | None = None, *, snow: float = 0.0) -> None:
        base = np.array(color, dtype=float)
        if self.snowy and snow:
            base = base + snow * (np.array([238, 242, 250]) - base)
        self.rgb[mask] = base
        self.full |= mask
        if far is not None:
            self.far[mask] = far

    def ridge(self, height: float, swing: float, length: float) -> np.ndarray:
        """Tops of 64 columns: two sines."""
        a, b = self.rng.uniform(0, 2 * math.pi, 2)
        x = np.arange(SIZE)
        wave = 0.7 * np.sin(2 * math.pi * x / length + a) + 0.3 * np.sin(4.6 * math.pi * x / length + b)
        return np.asarray(height + swing * wave)

    def bands(self, colors: list[tuple[int, int, int]], top: int, *, snow: float = 0.75) -> None:
        """The ground from a row on, in bands that come nearer, with a broken edge between them."""
        height = (SIZE - top) / len(colors)
        for k, color in enumerate(colors):
            start = top + k * height
            edge = np.full(SIZE, start) - (np.arange(SIZE) % 4 < 2) * (k > 0)
            self.fill(edge, color, 0.35 * (1 - k / len(colors)), snow=snow)

    def scatter(self, count: float, top: int, stamp: list[tuple[int, int, tuple[int, int, int]]], bottom: int = 63) -> None:
        """Small things (dx, dy, colour) here and there between two rows."""
        for _ in range(round(count * self.grain)):
            x, y = int(self.rng.integers(0, SIZE)), int(self.rng.integers(top, bottom))
            for dx, dy, color in stamp:
                if 0 <= y + dy < SIZE and 0 <= x + dx < SIZE:
                    self.rgb[y + dy, x + dx] = np.array(color) if not self.snowy else np.array(color) * 0.6 + 95


def land(terrain: str, rng: np.random.Generator, *, grain: float, snowy: bool) -> Land:
    """The land of a terrain."""
    drawn = Land(rng, grain=grain, snowy=snowy)
    _LANDS[terrain](drawn)
    return drawn


def _terrain(name: str) -> Callable[[_Land], _Land]:
    def keep(draw: _Land) -> _Land:
        _LANDS[name] = draw
        return draw

    return keep


def _tree(a: Land, x: int, base: int, height: int, color: tuple[int, int, int], dark: tuple[int, int, int], far: float) -> None:
    """A fir: layered triangle with a shaded right side."""
    for k in range(height):
        y = base - 1 - k
        if not 0 <= y < SIZE:
            continue
        reach = max(0, round((height - k) * 0.36 - (k % 3) * 0.5))
        for dx in range(-reach, reach + 1):
            if 0 <= x + dx < SIZE and k > 1:
                snow = a.snowy and (k % 3 == 0 or dx < 0)
                a.rgb[y, x + dx] = (232, 238, 248) if snow else dark if dx > 0 else color
                a.full[y, x + dx] = True
                a.far[y, x + dx] = far
        if k <= 1 and 0 <= x < SIZE:
            a.rgb[y, x] = (84, 56, 36)
            a.full[y, x] = True
            a.far[y, x] = far


@_terrain("meadow")
def _meadow(a: Land) -> None:
    a.fill(a.ridge(33, 1.6, 40), (104, 164, 92), 0.7)
    a.bands([(124, 194, 78), (108, 182, 68), (94, 168, 60), (82, 152, 54)], HORIZON)
    a.scatter(26, 38, [(0, 0, (66, 130, 44)), (0, -1, (140, 206, 90)), (1, 0, (66, 130, 44))])
    a.scatter(7, 40, [(0, 0, (240, 96, 120)), (0, 1, (60, 120, 44))])
    a.scatter(7, 40, [(0, 0, (250, 226, 96)), (0, 1, (60, 120, 44))])


@_terrain("hills")
def _hills(a: Land) -> None:
    for height, swing, length, color, far in (
        (27, 4.0, 44, (120, 172, 132), 0.8),
        (32, 3.4, 34, (98, 164, 98), 0.5),
        (39, 2.6, 50, (84, 156, 72), 0.3),
        (50, 2.2, 60, (72, 140, 60), 0.0),
    ):
        top = a.ridge(height, swing, length)
        a.fill(top, color, far)
        lit = tuple(min(255, c + 28) for c in color)
        y = np.arange(SIZE)[:, None]
        edge = (y >= np.round(top)[None]) & (y < np.round(top)[None] + 2)
        a.paint(edge, lit, far, snow=0.9)  # type: ignore[arg-type]
    a.scatter(9, 42, [(0, 0, (44, 104, 48)), (1, 0, (36, 88, 44)), (0, -1, (70, 140, 64)), (1, -1, (44, 104, 48))])


@_terrain("mountains")
def _mountains(a: Land) -> None:
    for low, count, color, dark, far in ((0, 3, (136, 140, 168), (106, 110, 142), 0.8), (8, 4, (116, 112, 128), (84, 82, 102), 0.5)):
        for k in range(count):
            x = (k + 0.5) * SIZE / count + a.rng.uniform(-5, 5)
            peak = 11 + low + a.rng.uniform(-3, 3)
            for y in range(round(peak), 42):
                reach = (y - peak) * 0.72
                x0, x1 = max(0, round(x - reach)), min(SIZE, round(x + reach) + 1)
                middle = round(x + ((y * 5) % 3 - 1))
                if x1 > x0:
                    snow = y - peak < (14 if a.snowy else 6) + (y % 2) * 2
                    a.rgb[y, x0:x1] = (240, 244, 252) if snow else color
                    a.rgb[y, max(x0, min(middle, x1)) : x1] = (196, 206, 228) if snow else dark
                    a.full[y, x0:x1] = True
                    a.far[y, x0:x1] = far
    a.bands([(122, 146, 100), (110, 134, 90), (98, 122, 80)], 41)
    a.scatter(12, 43, [(0, 0, (128, 126, 136)), (1, 0, (92, 90, 104)), (0, -1, (160, 158, 168))])


@_terrain("desert")
def _desert(a: Land) -> None:
    for height, swing, length, color, far in (
        (31, 2.4, 52, (226, 168, 112), 0.7),
        (36, 2.6, 42, (240, 196, 120), 0.4),
        (44, 2.0, 56, (232, 180, 100), 0.2),
        (53, 1.6, 70, (220, 164, 84), 0.0),
    ):
        top = a.ridge(height, swing, length)
        a.fill(top, color, far)
        depth = np.arange(SIZE)[:, None] - np.round(top)[None]
        ripples = (depth >= 0) & (depth < 7) & ((np.arange(SIZE)[None] + depth * 2) % 9 < 3)
        a.paint(ripples, (int(color[0] * 0.9), int(color[1] * 0.9), int(color[2] * 0.9)), far, snow=0.7)
    for _ in range(3):
        x, y, tall = int(a.rng.integers(2, 61)), int(a.rng.integers(40, 47)), int(a.rng.integers(6, 9))
        for k in range(tall):
            a.rgb[y - k, x] = (50, 128, 70)
            a.rgb[y - k, x + 1] = (36, 98, 58)
        a.rgb[y - tall // 2, x - 2 : x + 4] = (50, 128, 70)
        a.rgb[y - tall // 2 - 2 : y - tall // 2, x - 2] = (50, 128, 70)
        a.rgb[y - tall // 2 - 2 : y - tall // 2, min(63, x + 3)] = (36, 98, 58)


@_terrain("forest")
def _forest(a: Land) -> None:
    a.fill(a.ridge(29, 1.2, 30), (58, 106, 82), 0.8, snow=0.35)
    a.fill(np.full(SIZE, 37.0), (66, 118, 62), 0.3)
    x = -1
    while x < SIZE + 2:
        _tree(a, x, 38, int(a.rng.integers(11, 18)), (64, 124, 86), (44, 94, 70), 0.6)
        x += int(a.rng.integers(4, 7))
    x = int(a.rng.integers(-2, 3))
    while x < SIZE + 2:
        _tree(a, x, 43, int(a.rng.integers(13, 21)), (46, 112, 58), (28, 78, 46), 0.3)
        x += int(a.rng.integers(7, 12))
    a.bands([(70, 124, 56), (62, 112, 50), (54, 100, 46)], 43)
    a.scatter(18, 45, [(0, 0, (44, 84, 38)), (1, 0, (92, 144, 66))])
    a.scatter(4, 46, [(0, 0, (206, 70, 54)), (1, 0, (206, 70, 54)), (0, 1, (236, 226, 206))])


def _water(a: Land, mask: np.ndarray, far: float, waves: int) -> None:
    a.paint(mask, (62, 132, 200), far)
    y = np.arange(SIZE)[:, None]
    a.paint(mask & (y % 6 < 3), (54, 118, 188), far)
    ys, xs = np.nonzero(mask)
    for _ in range(round(waves * a.grain)):
        k = int(a.rng.integers(0, len(ys)))
        y0, x0 = ys[k], xs[k]
        x1 = min(SIZE, x0 + int(a.rng.integers(2, 6)))
        row = mask[y0, x0:x1]
        a.rgb[y0, x0:x1][row] = (138, 196, 236)


@_terrain("sea")
def _sea(a: Land) -> None:
    y = np.arange(SIZE)[:, None]
    shore = a.ridge(54, 0.9, 40)
    _water(a, (y >= HORIZON - 1) & (y < np.round(shore)[None]), 0.3, 30)
    a.fill(shore, (238, 240, 236), 0.0, snow=0.2)
    a.fill(shore + 1, (232, 206, 146), 0.0)
    a.fill(shore + 5, (220, 190, 128), 0.0)
    a.scatter(8, 58, [(0, 0, (196, 164, 108)), (1, 0, (248, 232, 196))])


@_terrain("river")
def _river(a: Land) -> None:
    a.fill(a.ridge(31, 2.2, 36), (112, 170, 118), 0.7)
    a.bands([(128, 188, 96), (112, 176, 82), (100, 164, 72), (88, 150, 62)], HORIZON)
    y, x = np.mgrid[:SIZE, :SIZE]
    bend = 32 + 20 * np.sin((y - 36) / 9.0 + (0 if a.rng.random() < 0.5 else math.pi))
    wide = 1.5 + (y - HORIZON) * 0.34
    inside = (np.abs(x - bend) < wide) & (y >= HORIZON)
    a.paint((np.abs(x - bend) < wide + 1.4) & (y >= HORIZON) & ~inside, (190, 168, 116), 0.1, snow=0.7)
    _water(a, inside, 0.1, 22)
    a.scatter(14, 40, [(0, 0, (74, 138, 52)), (0, -1, (140, 200, 96))])


@_terrain("marsh")
def _marsh(a: Land) -> None:
    a.fill(a.ridge(33, 1.0, 26), (98, 116, 92), 0.7)
    a.bands([(112, 122, 78), (100, 112, 70), (88, 100, 62), (78, 88, 56)], HORIZON)
    y, x = np.mgrid[:SIZE, :SIZE]
    for k in range(7):
        cx, cy = a.rng.uniform(0, SIZE), 40 + k * 3.4 + a.rng.uniform(-1, 1)
        rx = a.rng.uniform(7, 13)
        pool = ((x - cx) / rx) ** 2 + ((y - cy) / 1.9) ** 2 < 1
        a.paint(pool, (74, 110, 118), 0.15)
        a.paint(pool & (((x - cx) / rx) ** 2 + ((y - cy + 0.8) / 1.6) ** 2 < 0.6), (98, 140, 144), 0.15)
    for _ in range(4):  # bare trees
        tx, ty, tall = int(a.rng.integers(2, 61)), int(a.rng.integers(38, 43)), int(a.rng.integers(10, 16))
        for k in range(tall):
            a.rgb[ty - k, tx] = (70, 58, 56)
            a.full[ty - k, tx], a.far[ty - k, tx] = True, 0.3
        for k, side in ((tall // 2, 1), (tall // 2 + 3, -1), (tall - 2, 1)):
            for step in (1, 2, 3):
                px, py = tx + side * step, ty - k - step + 1
                if 0 <= px < SIZE:
                    a.rgb[py, px] = (70, 58, 56)
                    a.full[py, px], a.far[py, px] = True, 0.3
    a.scatter(22, 41, [(0, 0, (120, 140, 70)), (0, -1, (140, 156, 84)), (0, -2, (110, 72, 44))])
