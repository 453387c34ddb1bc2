"""What has become of things: burnt, flooded, locked..., drawn over any shape."""

from __future__ import annotations

import numpy as np

CHARRED = {"W": "A", "w": "K", "S": "s", "B": "A", "b": "K", "L": "K", "G": "A", "g": "K", "T": "A", "O": "A", "I": "i", "Y": "y"}


_OVER_OBJECTS = {
    "unfinished": (  # in a scaffold
        "............",
        "BBBBBBBBBBBB",
        "bBb......bBb",
        "b.b......b.b",
        "b..........b",
        "b..........b",
        "b..........b",
        "BBb......bBB",
        "b..........b",
        "b..........b",
        "b..........b",
        "b..........b",
        "b..........b",
        "b..........b",
        "b..........b",
        "b..........b",
    ),
    "locked": (  # a chain, and a padlock of gold
        *["............"] * 9,
        "........III.",
        "........I.I.",
        ".......YYYYY",
        "IKIKIKIYYKYY",
        ".......YYKYY",
        ".......yyyyy",
        ".......KKKKK",
    ),
    "burning": (  # flames beside it and at its foot
        *["............"] * 4,
        "F...........",
        "F..........F",
        "Ff.........F",
        "fF........FF",
        "FfF.......fF",
        "fF........Ff",
        "FfF......FfF",
        "ffF......Fff",
        "Fff......ffF",
        "fffF.FF.Ffff",
        "fffFFffFFfff",
        "ffffffffffff",
    ),
    "ruined": (  # stones around its foot; what broke is taken away before
        *["............"] * 14,
        "s.........S.",
        "SS.s.SSs.SSs",
    ),
    "flooded": (  # in the water
        *["............"] * 13,
        "uuuUuuuuUuuu",
        "UUuUUUUuUUUU",
        "UUUUUuUUUUuU",
    ),
}
"""What is laid over an object in a state: always at the same place, whatever the object, and beside most of its paint."""
_SMOKE = (".....ss.....", "....ss......", ".....ss.....", "......s.....")


def in_state(canvas: np.ndarray, state: str) -> np.ndarray:
    """Letters [28, 24] of a whole landmark, as it is in a state."""
    return _STATES[state](canvas.copy())


def object_in_state(canvas: np.ndarray, state: str) -> np.ndarray:
    """Letters [16, 12] of a whole object, as it is in a state.

    An object is small: its states are marks at places of their own, so that its colour can still be seen.
    """
    canvas = canvas.copy()
    y, x = np.mgrid[: canvas.shape[0], : canvas.shape[1]]
    full = canvas != "."
    if state == "ruined":  # cut in two
        canvas[full & (x + y == 14)] = "K"
        canvas[(x + y == 15) | (x + y == 16)] = "."
    if state == "burnt":
        canvas = _charred(canvas)
        canvas[full & (y * 7 + x * 5) % 17 == 3] = "F"
        smoke = np.array([list(row) for row in _SMOKE])
        canvas[: len(smoke)] = np.where(full[: len(smoke)], canvas[: len(smoke)], smoke)
    over = np.array([list(row) for row in _OVER_OBJECTS.get(state, ())])
    return canvas if not over.size else np.where(over == ".", canvas, over)


def _burnt(canvas: np.ndarray) -> np.ndarray:
    """Charred all over, with holes in it."""
    height, width = canvas.shape
    full = canvas != "."
    canvas = _charred(canvas)
    y, x = np.mgrid[:height, :width]
    canvas[full & ((x * 5 + y * 3) % 13 == 0) & (y < height * 0.7)] = "."
    return _embers(canvas)


def _charred(canvas: np.ndarray) -> np.ndarray:
    """What is not painted is black; of the paint, two rows of three are left."""
    for plain, char in CHARRED.items():
        canvas[canvas == plain] = char
    y = np.arange(canvas.shape[0])[:, None]
    canvas[np.isin(canvas, list("pqP")) & (y % 3 == 2)] = "A"
    return canvas


def _burning(canvas: np.ndarray) -> np.ndarray:
    """Flames from the lower half and on the top."""
    height = canvas.shape[0]
    full = canvas != "."
    columns = np.flatnonzero(full.any(axis=0))
    for x in columns:
        ys = np.flatnonzero(full[:, x])
        tall = (3, 5, 2, 4)[x % 4] * max(1, height // 16)
        top = max(ys[0] - (x % 3), 0)
        if x % 4 < 2:
            canvas[top : ys[0] + 1 + height // 16, x] = "F"
        canvas[max(ys[-1] - tall, 0) : ys[-1] + 1, x] = "F"
        canvas[max(ys[-1] - tall // 2, 0) : ys[-1] + 1, x] = "f"
    return canvas


def _unfinished(canvas: np.ndarray) -> np.ndarray:
    """The upper part is there in every second pixel, between poles."""
    height, width = canvas.shape
    full = np.argwhere(canvas != ".")
    (top, left), (bottom, right) = full.min(axis=0), full.max(axis=0)
    y, x = np.mgrid[:height, :width]
    middle = top + (bottom - top) * 0.5
    canvas[(y < middle) & ((x + y) % 2 == 0) & (canvas != ".")] = "."
    for column in (left, right):
        canvas[top : bottom + 1, column] = "B"
    for row in (top, int(middle)):
        canvas[row, left : right + 1] = "B"
    return canvas


def _locked(canvas: np.ndarray) -> np.ndarray:
    """Two chains across, and a padlock of gold."""
    width = canvas.shape[1]
    full = np.argwhere(canvas != ".")
    (top, left), (bottom, right) = full.min(axis=0), full.max(axis=0)
    reach = min(right - left, bottom - top, 14)
    x0, y0 = (left + right - reach + 1) // 2, bottom - reach
    for k in range(reach + 1):
        for x in (x0 + k, x0 + reach - k):
            if 0 <= x < width:
                canvas[y0 + k, x] = "I" if k % 2 else "K"
    cx, cy, r = (left + right + 1) // 2, bottom - reach // 2, max(1, reach // 7)
    canvas[cy - r : cy + r + 1, cx - r : cx + r + 1] = "Y"
    canvas[cy, cx] = "K"
    canvas[cy - r - 1, cx - r : cx + r + 1] = "I"
    return canvas


def _ruined(canvas: np.ndarray) -> np.ndarray:
    """Broken: the upper right is gone, a crack goes down, rubble at the foot."""
    height = canvas.shape[0]
    full = np.argwhere(canvas != ".")
    (top, left), (bottom, right) = full.min(axis=0), full.max(axis=0)
    tall, wide = bottom - top + 1, right - left + 1
    for x in range(left, right + 1):
        share = (x - left) / wide
        lost = 0.0 if share < 0.45 else 0.2 + 0.6 * share
        keep = top + int(tall * lost) + (x % 3) * (height // 16) * (lost > 0)
        canvas[top:keep, x] = "."
    for k, y in enumerate(range(top, bottom + 1)):
        x = left + wide // 3 + (0, 1, 1, 0)[k % 4]
        if canvas[y, x] != ".":
            canvas[y, x] = "K"
    for x in range(left, right + 1):
        if x % 3 != 1:
            canvas[bottom, x] = "S"
        if x % 5 == 0:
            canvas[bottom - 1, x] = "s"
    return canvas


def _flooded(canvas: np.ndarray) -> np.ndarray:
    """Under water to a third of its height."""
    height, width = canvas.shape
    full = np.argwhere(canvas != ".")
    top, bottom = full.min(axis=0)[0], height - 1
    level = bottom - max(3, (bottom - top) // 3)
    y, x = np.mgrid[:height, :width]
    water = y > level
    canvas[water] = "U"
    canvas[water & ((x + 2 * y) % 7 < 2)] = "u"
    canvas[level + 1] = "u"
    return canvas


def _embers(canvas: np.ndarray) -> np.ndarray:
    """A few embers in the char."""
    height, width = canvas.shape
    y, x = np.mgrid[:height, :width]
    canvas[(canvas != ".") & ((x * 7 + y * 11) % 29 == 0)] = "F"
    return canvas


_STATES = {
    "whole": lambda canvas: canvas,
    "unfinished": _unfinished,
    "locked": _locked,
    "burning": _burning,
    "burnt": _burnt,
    "ruined": _ruined,
    "flooded": _flooded,
}
