"""The shapes of landmarks: letters of materials on 24 x 28 pixels, standing on the last row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

WIDTH, HEIGHT = 24, 28
_SHAPES: dict[str, Callable[[np.ndarray], None]] = {}


def landmark(kind: str) -> np.ndarray:
    """Letters [28, 24] of a whole landmark; p, q and P are its paint."""
    canvas = np.full((HEIGHT, WIDTH), ".", dtype="<U1")
    _SHAPES[kind](canvas)
    return canvas


def _shape(kind: str) -> Callable[[Callable[[np.ndarray], None]], Callable[[np.ndarray], None]]:
    def keep(draw: Callable[[np.ndarray], None]) -> Callable[[np.ndarray], None]:
        _SHAPES[kind] = draw
        return draw

    return keep


def _box(c: np.ndarray, x0: int, y0: int, x1: int, y1: int, letter: str, shade: str | None = None) -> None:
    """Fills columns x0 to x1 and rows y0 to y1, both included; its right fifth in shade."""
    c[y0 : y1 + 1, x0 : x1 + 1] = letter
    if shade:
        c[y0 : y1 + 1, x1 - max(0, (x1 - x0) // 5) : x1 + 1] = shade


def _roof(c: np.ndarray, middle: float, top: int, bottom: int, half: float, tip: float = 0.5) -> None:
    """A gable of paint: light on its left edge, in shade on the right."""
    for y in range(top, bottom + 1):
        reach = tip + (half - tip) * (y - top) / max(1, bottom - top)
        x0, x1 = round(middle - reach), round(middle + reach)
        c[y, max(0, x0) : min(WIDTH, x1 + 1)] = "p"
        c[y, max(0, round(middle + reach * 0.35)) : min(WIDTH, x1 + 1)] = "q"
        if 0 <= x0 < WIDTH:
            c[y, x0] = "P"


def _flag(c: np.ndarray, x: int, y: int) -> None:
    c[y : y + 5, x] = "b"
    c[y : y + 3, x + 1 : x + 4] = "p"
    c[y + 1, x + 4 : x + 5] = "p"


@_shape("house")
def _house(c: np.ndarray) -> None:
    _box(c, 4, 16, 19, 27, "W", "w")
    _box(c, 16, 7, 18, 12, "s")
    _roof(c, 11.5, 7, 15, 10.5)
    _box(c, 10, 20, 13, 27, "b")
    _box(c, 11, 21, 12, 27, "B")
    for x in (6, 15):
        _box(c, x, 18, x + 2, 21, "L")
        c[18:22, x + 1] = "w"


@_shape("castle")
def _castle(c: np.ndarray) -> None:
    _box(c, 6, 14, 17, 27, "S", "s")
    for x in (0, 17):
        _box(c, x, 12, x + 6, 27, "S", "s")
        _roof(c, x + 3, 4, 11, 3.5)
        _box(c, x + 2, 15, x + 3, 18, "D")
    c[13, 7:17:2] = "S"
    _flag(c, 11, 3)
    _box(c, 11, 8, 12, 13, "s")
    _box(c, 9, 19, 14, 27, "D")
    c[19, [9, 14]] = "S"
    c[21:28:2, 10:14] = "b"
    c[16, 9:15] = "L"


@_shape("windmill")
def _windmill(c: np.ndarray) -> None:
    for y in range(12, 28):
        reach = 3.0 + 2.6 * (y - 12) / 15
        x0, x1 = round(11.5 - reach), round(11.5 + reach)
        c[y, x0 : x1 + 1] = "W"
        c[y, x1 - 1 : x1 + 1] = "w"
    _box(c, 10, 8, 13, 11, "B", "b")
    _box(c, 10, 22, 12, 27, "b")
    _box(c, 11, 16, 12, 18, "L")
    for dx, dy in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        for k in range(1, 10):
            x, y = 11 + dx * k + (dx > 0), 11 + dy * k
            if 0 <= x < WIDTH and 0 <= y < HEIGHT:
                c[y, x] = "b"
                if k > 2:
                    for side, letter in ((1, "p"), (2, "q")):
                        if 0 <= x + dy * dx * side * 1 < WIDTH:
                            c[y, x + dy * dx * side] = letter
    _box(c, 11, 10, 12, 12, "K")


@_shape("tower")
def _tower(c: np.ndarray) -> None:
    _box(c, 8, 9, 15, 27, "S", "s")
    _box(c, 7, 8, 16, 10, "s")
    _roof(c, 11.5, 0, 7, 5.5)
    for y in (12, 18):
        _box(c, 11, y, 12, y + 3, "L")
    c[15, 8:14:3] = "s"
    c[22, 9:15:3] = "s"
    _box(c, 10, 23, 13, 27, "b")


@_shape("tent")
def _tent(c: np.ndarray) -> None:
    _roof(c, 11.5, 11, 27, 11.0, tip=0.5)
    c[8:12, 11:13] = "b"
    for y in range(15, 28):
        reach = (y - 15) / 12 * 4.4
        c[y, round(11 - reach) : round(12 + reach) + 1] = "D"
    for y in range(19, 28):
        c[y, round(10.5 - (y - 19) * 0.2) : round(12.5 + (y - 19) * 0.2) + 1] = "L" if y > 21 else "D"
    c[27, 8:16] = "T"


@_shape("ship")
def _ship(c: np.ndarray) -> None:
    _box(c, 11, 2, 12, 22, "b")
    for y in range(4, 19):
        reach = 1 + (y - 4) * 0.6
        c[y, max(0, round(10 - reach)) : 11] = "p"
        c[y, max(0, round(10 - reach))] = "P"
        c[y, 13 : min(WIDTH, round(13 + reach * 0.75) + 1)] = "q"
    for y in range(21, 28):
        cut = (y - 21) * 0.8
        c[y, round(1 + cut) : round(22 - cut) + 1] = "B"
        c[y, round(17 - cut) : round(22 - cut) + 1] = "b"
    c[21, 1:23] = "b"
    c[24, 6:18:4] = "L"


@_shape("bridge")
def _bridge(c: np.ndarray) -> None:
    for x in range(WIDTH):
        arch = round(17 + ((x - 11.5) / 11.5) ** 2 * 4)
        c[arch:28, x] = "S" if x < 17 else "s"
        c[arch - 3, x] = "p"
        c[arch - 2, x] = "q"
        if x % 4 == 0:
            c[arch - 4 : arch, x] = "p"
        c[arch, x] = "s"
        hollow = 49 - (x - 11.5) ** 2
        if hollow > 0:
            c[28 - round(hollow**0.5 * 1.0) : 28, x] = "U" if round(hollow**0.5) else "S"
    for x in range(6, 18):
        if c[27, x] == "U":
            c[26, x] = "u" if x % 3 == 0 else "U"
    for x in (0, 22):
        _box(c, x, 10, x + 1, 20, "s")
        _box(c, x, 8, x + 1, 9, "L")


@_shape("well")
def _well(c: np.ndarray) -> None:
    _box(c, 5, 20, 18, 27, "S", "s")
    _box(c, 5, 19, 18, 20, "s")
    _box(c, 7, 20, 16, 21, "D")
    for y in range(23, 28, 2):
        c[y, 6 + y % 4 : 18 : 5] = "s"
    for x in (6, 17):
        c[10:20, x] = "B"
    _roof(c, 11.5, 4, 10, 9.5)
    c[12, 7:17] = "b"
    c[12:17, 11] = "T"
    _box(c, 10, 16, 13, 18, "b")


@_shape("shrine")
def _shrine(c: np.ndarray) -> None:
    _box(c, 3, 25, 20, 27, "s")
    _box(c, 5, 23, 18, 24, "S")
    for x in (6, 11, 16):
        _box(c, x, 13, x + 1, 22, "O")
    _box(c, 8, 14, 10, 22, "D")
    _box(c, 13, 14, 15, 22, "D")
    _box(c, 4, 11, 19, 12, "O")
    _roof(c, 11.5, 5, 10, 9.5, tip=1.5)
    _box(c, 11, 2, 12, 4, "Y")
    c[3, 10:14] = "Y"
    _box(c, 9, 19, 9, 21, "f")
    _box(c, 14, 19, 14, 21, "f")


@_shape("cave")
def _cave(c: np.ndarray) -> None:
    for x in range(WIDTH):
        top = 8 + round(abs(x - 10.5) ** 1.6 * 0.36) + (x * 7 % 3)
        c[min(top, 27) : 28, x] = "S" if x < 13 else "s"
    for y in range(15, 28):
        reach = min(6.5, (y - 14) ** 0.55 * 1.9)
        c[y, round(11.5 - reach) : round(11.5 + reach) + 1] = "D"
    for x0, wide in ((4, 16),):  # a garland of banners hangs over the mouth
        c[12, x0 : x0 + wide] = "b"
        for x in range(x0, x0 + wide, 4):
            c[13, x : x + 3] = "p"
            c[14, x : x + 3] = "p"
            c[15, x + 1] = "q"
    for x in (3, 19):
        c[22:28, x] = "b"
        c[20:22, x] = "F"
    c[18:21, [1, 21]] = "s"


@_shape("stones")
def _stones(c: np.ndarray) -> None:
    for x0, wide, top in ((0, 5, 12), (9, 6, 7), (19, 5, 13)):
        _box(c, x0, top, x0 + wide - 1, 27, "S", "s")
        c[top, x0] = "."
        c[top, x0 + wide - 1] = "."
        c[27, x0 : x0 + wide] = "G"
        mark = x0 + wide // 2 - 1
        for y in (top + 3, top + 5, top + 6, top + 9):
            c[y, mark : mark + 2] = "p"
        c[top + 4 : top + 11, mark] = "p"
    _box(c, 3, 9, 10, 11, "s")
    c[9, 3:11] = "S"


@_shape("inn")
def _inn(c: np.ndarray) -> None:
    _box(c, 2, 10, 21, 27, "W", "w")
    _roof(c, 11.5, 3, 9, 11.5, tip=7)
    for x in (2, 8, 15, 21):
        c[10:28, x] = "b"
    c[[10, 18], 2:22] = "b"
    for x in (4, 11, 18):
        _box(c, x, 13, x + 1, 16, "L")
    _box(c, 10, 21, 13, 27, "D")
    _box(c, 4, 21, 6, 24, "L")
    _box(c, 16, 20, 20, 24, "p")  # its sign
    _box(c, 17, 21, 19, 23, "Y")
    c[19, 16:21] = "b"


@_shape("ruin")
def _ruin(c: np.ndarray) -> None:
    for x, top in ((1, 12), (7, 9), (14, 15), (20, 11)):
        _box(c, x, top, x + 2, 27, "O")
        c[top:28, x + 2] = "w"
        c[top, x + 1] = "."
    _box(c, 0, 8, 10, 10, "O")
    c[8, 3:6] = "."
    c[10, 0:11] = "w"
    _box(c, 0, 26, 23, 27, "S")
    c[27, ::3] = "G"
    for x in (2, 8, 21):  # cloth hangs from its columns
        _box(c, x - 1, 14 if x != 8 else 12, x + 1, 19, "p")
        c[19, x] = "q"
    c[24:26, 11:14] = "S"
    c[25, 16:19] = "s"
