"""One attempt with a damaged checkpoint: what comes of it, how long it took, and whether the module was left alone."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch

from tests.checkpoints.blocks import rich_graph
from tests.checkpoints.mutations import PLAIN, SEALED, Tree, seal, write_tree, write_zip
from wgtorch.core.errors import WgtorchError
from wgtorch.graph import Graph

LONGEST = 120
"""How many loads of the undamaged checkpoint the refusal of a hostile file may cost, in this thread's work."""
TRIES = 3
"""What a busy machine makes slow is tried again; what is slow by itself stays so."""


@cache
def one_load() -> float:
    """Seconds of this thread's work that loading the undamaged checkpoint takes here."""
    with tempfile.TemporaryDirectory() as folder:
        path = rich_graph().save_checkpoint(Path(folder) / "it")
        return min(seconds_of(lambda: Graph.load_from_checkpoint(path)) for _ in range(5))


def seconds_of(work: Callable[[], object]) -> float:
    started = time.thread_time()
    work()
    return time.thread_time() - started


@dataclass
class Count:
    """What became of the attempts."""

    tried: int = 0
    refused: int = 0
    same: int = 0
    other: int = 0
    slowest: float = 0.0
    by_mutation: dict[str, int] = field(default_factory=dict)


def attempt(tree: Tree, folder: Path, name: str, seed: int, *, sealed: bool, archive: bool, count: Count) -> None:
    """Damages, loads and judges.

    Raises:
        AssertionError: something else than one of our errors came, it took too long, a module was changed by a load
            that failed, or damage that no forger sealed was not noticed.
    """
    draw = random.Random(seed)
    damaged = (SEALED if sealed else PLAIN)[name](tree, draw)
    if sealed:
        damaged = seal(damaged)
    path = write_zip(damaged, folder / "it.wgt") if archive else write_tree(damaged, folder / "it")
    judge(path, count, f"{name} seed={seed} sealed={sealed} archive={archive}", forged=sealed)
    count.by_mutation[name] = count.by_mutation.get(name, 0) + 1


def judge(path: Path, count: Count, what: str, *, forged: bool) -> None:
    """Loads what lies at ``path`` and into an existing module, and looks at what came of it."""
    original = rich_graph()
    target = rich_graph()
    with torch.no_grad():
        for tensor in target.parameters():
            tensor.mul_(0.5)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    count.tried += 1
    words = "loaded"
    started = time.thread_time()
    try:
        loaded = Graph.load_from_checkpoint(path)
    except WgtorchError as error:
        count.refused += 1
        words = str(error)
    except BaseException as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    else:
        mine, theirs = loaded.state_dict(), original.state_dict()
        if list(mine) == list(theirs) and all(torch.equal(mine[key], theirs[key]) for key in mine):
            count.same += 1
        else:
            count.other += 1
            assert forged, f"{what}: damage was not noticed"
    took = time.thread_time() - started
    assert words.strip() and len(words) < 20_000, f"{what}: no clear error"
    count.slowest = max(count.slowest, took)
    assert took < LONGEST * one_load(), f"{what}: took {took:.2f} s, as long as {took / one_load():.0f} good loads"
    try:
        target.load_weights(path)
    except WgtorchError:
        changed = [key for key, value in target.state_dict().items() if not torch.equal(value, before[key])]
        assert not changed, f"{what}: refused, and yet {changed} changed"
    except BaseException as error:
        raise AssertionError(f"{what}: load_weights: {type(error).__name__}: {error}") from error
