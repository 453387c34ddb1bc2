"""Matrices of tests: the suite tries a part of their cells, the lane ``slow`` the rest."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest


def spread(cells: Iterable[tuple[Any, ...]], *, all_of: int = 0) -> list[Any]:
    """Parameters for all cells; marked slow is each that brings no value, and no pair with the first axis, that others have not.

    Args:
        cells: one tuple of values for each test.
        all_of: how many axes, beside the first, whose every pair with the first the suite tries too.
    """
    cells = list(cells)
    order = random.Random(0).sample(range(len(cells)), len(cells))
    seen: set[Any] = set()
    kept = set()
    for index in order:
        cell = cells[index]
        values = {(axis, value) for axis, value in enumerate(cell)}
        values |= {(axis, cell[0], cell[axis]) for axis in range(1, 1 + all_of)}
        if values - seen:
            kept.add(index)
            seen |= values
    return [
        pytest.param(*cell, id="-".join(map(str, cell)).replace(" ", "_"), marks=() if index in kept else pytest.mark.slow)
        for index, cell in enumerate(cells)
    ]


def thinned(values: Iterable[Any], first: int = 0, every: int = 3) -> list[Any]:
    """Parameters for all values; marked slow are all but every third one, from ``first`` on."""
    return [pytest.param(value, marks=() if index % every == first else pytest.mark.slow) for index, value in enumerate(values)]
