"""What pictures are drawn of: letters for materials, their colours, and the hand that draws."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wgtorch.blocks.simulation.scene_plan import COLOURS

Rgb = tuple[int, int, int]

PAINT: Mapping[str, Rgb] = {
    "red": (214, 44, 44),
    "blue": (44, 92, 232),
    "yellow": (252, 212, 40),
    "white": (250, 250, 246),
    "green": (46, 168, 62),
    "black": (34, 30, 40),
    "grey": (138, 142, 152),
    "brown": (128, 76, 38),
    "orange": (250, 132, 24),
    "purple": (152, 56, 200),
}
HAIR: Mapping[str, Rgb] = {
    "black": (30, 26, 32),
    "brown": (110, 62, 30),
    "yellow": (248, 216, 84),
    "white": (240, 240, 240),
    "red": (206, 76, 28),
}
MATERIALS: Mapping[str, Rgb] = {
    "W": (216, 196, 164), "w": (172, 148, 118),  # plaster, in light and in shade
    "S": (150, 152, 164), "s": (104, 106, 122),  # stone
    "B": (136, 92, 52), "b": (88, 56, 32),  # wood
    "D": (44, 28, 24),  # what lies in the dark: doors, mouths of caves
    "L": (255, 224, 104),  # lamps and windows
    "F": (255, 150, 32), "f": (255, 232, 120),  # fire
    "G": (62, 132, 58), "g": (38, 92, 46),  # leaves
    "K": (24, 20, 28),  # outlines
    "N": (236, 188, 148),  # skin
    "l": (64, 50, 58),  # legs
    "Y": (248, 200, 56), "y": (190, 140, 36),  # gold
    "I": (208, 214, 226), "i": (140, 148, 168),  # iron and silver
    "U": (84, 152, 214), "u": (132, 196, 236),  # water
    "A": (52, 44, 44),  # char
    "R": (206, 60, 52),  # red things: apples, wax
    "T": (224, 186, 104),  # straw
    "C": (64, 186, 190),  # scarves
    "E": (48, 110, 84),  # caps
    "O": (246, 236, 206),  # paper, bone
}  # fmt: skip
GLOWING = "LFf"


@dataclass(frozen=True)
class Hand:
    """How a drawer draws: one hand draws what the painter learns, others what the describer that ships and the judge are trained on.

    Args:
        mirror: shapes are turned left to right where they are alike both ways.
        shift: pixels that each thing may stand beside its place.
        tint: largest share by which a picture's red, green and blue are brighter or darker.
        wobble: largest share by which a material of a thing is brighter or darker.
        grain: share of pixels of the land that have a tuft, a stone, a wave.
        seams: share of a thing's pixels that are a shade off, as strokes of a brush are.
        line: how light outlines are, from 0 (nearly black) to 1.
        hue: largest share by which the red, green and blue of a paint, each for itself, are stronger or weaker.
    """

    mirror: bool = False
    shift: int = 0
    tint: float = 0.0
    wobble: float = 0.0
    grain: float = 1.0
    seams: float = 0.0
    line: float = 0.0
    hue: float = 0.0

    @classmethod
    def other(cls, rng: random.Random) -> Hand:
        """A hand unlike the painter's, another one for each picture."""
        return cls(
            mirror=rng.random() < 0.5,
            shift=rng.choice((0, 0, 1, 2)),
            tint=rng.uniform(0, 0.07),
            wobble=rng.uniform(0, 0.12),
            grain=rng.uniform(0.3, 2.0),
            seams=rng.choice((0.0, rng.uniform(0, 0.15))),
        )

    @classmethod
    def judge(cls, rng: random.Random) -> Hand:
        """A hand unlike the painter's and unlike :meth:`other`: pale lines and paints of its own mixing, another one for each picture."""
        return cls(
            shift=rng.choice((0, 1)),
            tint=rng.uniform(0, 0.04),
            wobble=rng.uniform(0, 0.06),
            grain=rng.uniform(0.6, 1.4),
            line=rng.uniform(0, 0.5),
            hue=rng.uniform(0, 0.12),
        )


FIRST = Hand()
"""The hand that draws what the painter learns."""


def letters(rows: Sequence[str], width: int, height: int) -> np.ndarray:
    """Rows of letters, [height, width], standing on the bottom and in the middle; "." and " " are nothing."""
    canvas = np.full((height, width), ".", dtype="<U1")
    widest = max(len(row) for row in rows)
    left = (width - widest) // 2
    for k, row in enumerate(reversed(rows)):
        for x, letter in enumerate(row):
            if letter != " ":
                canvas[height - 1 - k, left + x] = letter
    return canvas


def outlined(canvas: np.ndarray) -> np.ndarray:
    """A shape with a dark line around it, inside of its canvas."""
    full = canvas != "."
    around = np.zeros_like(full)
    around[1:] |= full[:-1]
    around[:-1] |= full[1:]
    around[:, 1:] |= full[:, :-1]
    around[:, :-1] |= full[:, 1:]
    return np.where(around & ~full, "K", canvas)


def colored(canvas: np.ndarray, paints: Mapping[str, Rgb], rng: random.Random, hand: Hand) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colours [h, w, 3], where there is something [h, w], and where it glows [h, w], of letters [h, w]."""
    table = {**MATERIALS, **paints}
    dark, pale = np.array(table["K"]), 180
    rgb = np.zeros((*canvas.shape, 3))
    mixed = [1 + rng.uniform(-hand.hue, hand.hue) for _ in range(3)] if hand.hue else [1.0] * 3
    for letter in np.unique(canvas):
        if letter != ".":
            share = 1 + rng.uniform(-hand.wobble, hand.wobble)
            color = dark + hand.line * (pale - dark) if letter == "K" else np.array(table[str(letter)])
            rgb[canvas == letter] = color * share * (mixed if letter in paints else 1.0)
    if hand.seams:
        noise = np.random.default_rng(rng.randrange(2**31)).random(canvas.shape)
        rgb[noise < hand.seams] *= 0.88
    return rgb, canvas != ".", np.isin(canvas, list(GLOWING))


def paints_of(colour: str | None, default: Rgb) -> dict[str, Rgb]:
    """The letters p (a thing's paint), q (in shade) and P (in light)."""
    base = PAINT[colour] if colour is not None else default
    return {"p": base, "q": shaded(base), "P": lifted(base)}


def shaded(color: Rgb) -> Rgb:
    """A colour in shade."""
    return (int(color[0] * 0.68), int(color[1] * 0.66), int(color[2] * 0.74))


def lifted(color: Rgb) -> Rgb:
    """A colour in light."""
    return (min(255, color[0] + 28), min(255, color[1] + 28), min(255, color[2] + 24))


assert tuple(PAINT) == COLOURS
