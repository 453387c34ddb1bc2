"""Kills processes that run a world with a storage, and looks at what they leave; run by ``test_kill.py``.

One process imports everything once and forks: each child lives on from what the storage holds, and is killed with
SIGKILL, at a random moment or right before one of its operations on files. After each kill the history must be
readable and every step in it whole; the last child is left alone and must come to the same end as a world that was
never killed.

    python -m tests.storage.killing FOLDER '{"how": "operations", "trials": 3, "kills": 2}'
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tests.world_blocks import assert_same, record_of, tiny_world
from wgtorch.core.errors import StorageError
from wgtorch.storage import DirectoryStorage
from wgtorch.world import World

PASSES = 4
SEED = 7
ACTIONS = ["go", None, "stay", "look"]
OPERATIONS = frozenset({"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.chmod", "ctypes.dlsym"})
"""Audit events; the last one is right before two folders change places. Writes to a file of the log are counted as well, twice each."""


@dataclass
class Options:
    """How to kill.

    Args:
        how: ``moments``, or ``operations``.
        trials: worlds that are killed; None tries every operation once.
        kills: of one world, one after another.
        max_snapshots: of the storage.
        seed: of the choices.
    """

    how: str = "operations"
    trials: int | None = 1
    kills: int = 1
    max_snapshots: int | None = None
    seed: int = 0


def live_on(folder: Path, options: Options) -> World:
    """Takes up the life that the folder holds, or a new one, and lives to the last pass."""
    world = tiny_world()
    world.set_storage({"state_dir": str(folder), "max_snapshots": options.max_snapshots})
    if DirectoryStorage(folder).read_life() is not None:
        world.resume()
    done = world.life.passes
    world.run(num_steps=PASSES - done, seed=SEED, action=ACTIONS[done:])
    return world


def in_child(work: Callable[[], Any]) -> int:
    """Does some work in a forked process; returns the process's number."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def operations(act: Callable[[int], None]) -> None:
    """Calls ``act`` with its number before each operation on files from here on."""
    count = [0]

    def next_one() -> None:
        count[0] += 1
        act(count[0])

    def hook(event: str, _: tuple) -> None:
        if event in OPERATIONS:
            next_one()

    sys.addaudithook(hook)
    write = os.write

    def in_two(handle: int, data: Any) -> int:
        next_one()
        if len(data) < 100:  # a pipe of the tests
            return write(handle, data)
        written = write(handle, data[: len(data) // 2])
        next_one()
        return written

    os.write = in_two


def count_operations(folder: Path, options: Options) -> int:
    """How many operations a whole life takes."""
    reader, writer = os.pipe()

    def work() -> None:
        seen = [0]
        operations(lambda number: seen.__setitem__(0, number))
        live_on(folder, options)
        os.write(writer, str(seen[0]).encode())

    os.waitpid(in_child(work), 0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        return int(pipe.read())


def killed_before(number: int, folder: Path, options: Options) -> bool:
    """Kills a child before one of its operations; False when it got through first."""

    def work() -> None:
        operations(lambda current: os.kill(os.getpid(), signal.SIGKILL) if current == number else None)
        live_on(folder, options)

    return was_killed(in_child(work))


def killed_after(seconds: float, folder: Path, options: Options) -> bool:
    """Kills a child after some time; False when it got through first."""
    child = in_child(lambda: live_on(folder, options))
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return was_killed(child)


def was_killed(child: int) -> bool:
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the world failed"
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def check_history(folder: Path, options: Options, whole: dict[str, Any], newest: int) -> int:
    """Every stored step is whole and as it should be, and none that was there is gone; returns the newest."""
    storage = DirectoryStorage(folder, max_snapshots=options.max_snapshots)
    steps = storage.steps()
    last = steps[-1] if steps else 0
    first = 1 if options.max_snapshots is None else max(1, last - options.max_snapshots + 1)
    assert steps[-(last - first + 1) :] == list(range(first, last + 1)) if steps else newest == 0, f"steps {steps}"
    assert last >= newest, f"step {newest} was there and is gone: {steps}"
    storage.verify()
    for step in steps:
        state, content = storage.read(step)
        assert_same((dict(state), content), whole["stored"][step])
        for index in range(len(state.artifacts)):
            with Image.open(folder / f"{step:05d}" / f"artifacts_{index}.png") as image:
                image.load()
    try:
        life = storage.read_life()
    except StorageError as error:
        raise AssertionError(f"the life cannot be read: {error}") from error
    assert life is None or 0 <= life.passes <= PASSES
    return last


def check_end(folder: Path, options: Options, whole: dict[str, Any]) -> None:
    """The same end as without a kill, and nothing else left in the folder."""
    check_history(folder, options, whole, PASSES - 1)
    life = DirectoryStorage(folder).read_life()
    assert life is not None
    assert_same(
        {"content": life.content, "state": life.state, "passes": life.passes},
        {name: whole[name] for name in ("content", "state", "passes")},
    )
    left = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.name.endswith(".new")]
    assert not left, f"left over: {left}"


def trial(folder: Path, options: Options, whole: dict[str, Any], kill: Iterable[Callable[[], bool]]) -> int:
    """Kills one world again and again, then lets it live; returns how often it was killed."""
    kills = newest = 0
    for strike in kill:
        kills += strike()
        newest = check_history(folder, options, whole, newest)
    assert not was_killed(in_child(lambda: live_on(folder, options)))
    check_end(folder, options, whole)
    return kills


def main(folder: Path, options: Options) -> dict[str, int]:
    """All trials; returns how many there were and how many kills struck."""
    torch.set_num_threads(1)
    os.fsync = lambda handle: None  # a killed process loses nothing that it wrote, and disks are slow
    never_killed = tiny_world()
    never_killed.run(num_steps=PASSES, seed=SEED, action=ACTIONS)
    whole = record_of(never_killed)
    warm = folder / "warm"  # imports everything that a life needs before the first operation is counted
    live_on(warm, options)
    check_end(warm, options, whole)
    choose = random.Random(options.seed)
    started = time.monotonic()
    total = count_operations(folder / "counted", options)
    duration = time.monotonic() - started
    assert total > 50, f"only {total} operations were seen"

    kills = trials = 0
    for number in range(options.trials or total):
        place = Path(tempfile.mkdtemp(prefix=f"world-{number}-", dir=folder)) / "states"
        strikes: list[Callable[[], bool]] = []
        for turn in range(options.kills):
            if options.how == "moments":
                strikes.append(partial(killed_after, choose.uniform(0, duration), place, options))
            else:
                at = number + 1 if options.trials is None and turn == 0 else choose.randint(1, total // (turn + 1))
                strikes.append(partial(killed_before, at, place, options))
        kills += trial(place, options, whole, strikes)
        trials += 1
    return {"trials": trials, "kills": kills, "operations": total}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Options(**json.loads(sys.argv[2])))))
