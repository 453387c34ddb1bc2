"""The shapes of people and beasts, on 12 x 16 pixels, standing on the last row."""

from __future__ import annotations

import numpy as np

from wgtorch.blocks.pixel_scenes.drawing.materials import letters, outlined

WIDTH, HEIGHT = 12, 16

# h hair, N skin, K eyes, p q coat, l legs, b boots; the head begins at the first row
_BUILD = {
    "small": (
        "..hhhh..",
        ".hhhhhh.",
        ".hNNNNh.",
        ".hKNNKh.",
        "..NNNN..",
        "..pppp..",
        ".Npppqp.",
        "..pppq..",
        "..l..l..",
        "..b..b..",
    ),
    "middle": (
        "..hhhh..",
        ".hhhhhh.",
        ".hNNNNh.",
        ".hKNNKh.",
        "..NNNN..",
        ".pppppp.",
        ".pppppq.",
        ".ppppqq.",
        ".NpppqN.",
        "..pppq..",
        "..l..l..",
        "..l..l..",
        "..b..b..",
    ),
    "large": (
        "...hhhh...",
        "..hhhhhh..",
        "..hNNNNh..",
        "..hKNNKh..",
        "...NNNN...",
        "pppppppppp",
        "ppppppppqq",
        "pppppppqqq",
        "pppppppqqp",
        "N.pppppq.N",
        "..pppppq..",
        "..ll..ll..",
        "..ll..ll..",
        "..bb..bb..",
    ),
}

# c is the coat of a beast, k its shade
_BEASTS = {
    "wolf": (
        "........c..c",
        "........cccc",
        "........cKcc",
        ".k.....ccccI",
        "kkcccccccII.",
        "kkccccccccI.",
        ".ccccccccc..",
        ".kc.k..kc.k.",
        ".k..k..k..k.",
    ),
    "horse": (
        "........k.c.",
        ".......kccc.",
        "......kccKcc",
        "......kcccco",
        "......kcc...",
        "k.ccccccc...",
        "kcccccccc...",
        "kcccccccc...",
        "k.cc...cc...",
        "..c.k..c.k..",
        "..c.k..c.k..",
        "..b.b..b.b..",
    ),
    "dog": (
        "c...........",
        ".c.....kcck.",
        ".c.....kKcKk",
        ".cccccckccck",
        "..ccccccOKO.",
        "..cccccccR..",
        "..c.k..c.k..",
        "..c.k..c.k..",
    ),
    "bear": (
        ".....c...c..",
        "..cccccccc..",
        ".ccccccKcKc.",
        "cccccccccOO.",
        "cccccccccOK.",
        "cccccccccc..",
        "cccccccccc..",
        "kcck..kcck..",
        "kck...kck...",
        "KKK...KKK...",
    ),
    "goat": (
        ".......O.O..",
        ".......O..O.",
        "........ccc.",
        ".c......cKcc",
        ".cccccccccc.",
        ".ccccccccO..",
        ".ccccccc.O..",
        "..c.k.c.k...",
        "..c.k.c.k...",
        "..K.K.K.K...",
    ),
    "raven": (
        ".....ccc....",
        "....cccKc...",
        "....cccccYY.",
        "...cccccc...",
        "..ccccccc...",
        ".cckkccc....",
        "cckkkcc.....",
        "kk..cc......",
        "....Y.Y.....",
    ),
}


def person(hat: str, build: str) -> np.ndarray:
    """Letters [16, 12] of a person: h hair, p and q the coat."""
    canvas = letters(_BUILD[build], WIDTH, HEIGHT)
    head = HEIGHT - len(_BUILD[build])  # the first row of the hair
    left = 3  # the head's first column, of six
    _HATS[hat](canvas, head, left)
    return outlined(canvas)


def beast(kind: str) -> np.ndarray:
    """Letters [16, 12] of a beast: p its coat, q its shade."""
    canvas = letters(_BEASTS[kind], WIDTH, HEIGHT)
    canvas[canvas == "c"] = "p"
    canvas[canvas == "k"] = "q"
    canvas[canvas == "o"] = "q"
    return outlined(canvas)


def _hood(c: np.ndarray, y: int, x: int) -> None:
    c[y - 1, x + 2 : x + 4] = "q"
    c[y, x + 1 : x + 5] = "q"
    c[y + 1, x : x + 6] = "qhhhhq"[0], "h", "h", "h", "h", "q"
    c[y + 2, [x + 1, x + 4]] = "h"
    for row in (2, 3, 4):
        c[y + row, x] = c[y + row, x + 5] = "q"


def _cap(c: np.ndarray, y: int, x: int) -> None:
    c[y - 1, x + 1 : x + 5] = "E"
    c[y, x : x + 6] = "E"
    c[y, x + 6 : x + 8] = "E"


def _wide(c: np.ndarray, y: int, x: int) -> None:
    c[y - 2, x + 1 : x + 5] = "T"
    c[y - 1, x + 1 : x + 5] = "R"
    c[y, x - 2 : x + 8] = "T"


def _crown(c: np.ndarray, y: int, x: int) -> None:
    c[y, x + 1 : x + 5] = "Y"
    c[y - 1, x + 1 : x + 5] = "Y"
    c[y - 2 if y > 1 else 0, [x + 1, x + 4]] = "Y"
    c[y, x + 2] = "R"


def _scarf(c: np.ndarray, y: int, x: int) -> None:
    c[y + 4, x : x + 6] = "C"
    c[y + 5, x + 1 : x + 6] = "C"
    c[y + 6, x + 4 : x + 6] = "C"
    c[y + 7, x + 5] = "C"


_HATS = {"none": lambda c, y, x: None, "hood": _hood, "cap": _cap, "wide": _wide, "crown": _crown, "scarf": _scarf}
