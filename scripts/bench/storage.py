#!/usr/bin/env python
"""What a world's log costs: bytes and time of a pass, early and late, beside what is new in a pass and what the disk itself takes.

    python scripts/bench/storage.py --folder /path/on/the/disk              # 200 passes of the default world, about a minute
    python scripts/bench/storage.py --world small                           # its pictures at 64x64
    python scripts/bench/storage.py --world scenes                          # the painter of float32 pictures, 64x64
    python scripts/bench/storage.py --passes 1000 --world tiny              # nothing but the log: stages take a millisecond
    python scripts/bench/storage.py --forks 10                              # what forks of a world of 100 MB cost, alone

"new in a pass" is what the storage would hold of one pass by itself: the state's tensors (a picture of 8 bits a value as its PNG), its
texts, what was added to the content and the traces of its stages, as JSON. The time of a pass is what passes inside the storage's own
calls, by the clock and of the processor; syncs are counted and timed in it.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wgtorch import World
from wgtorch.storage import DirectoryStorage
from wgtorch.storage.encoding import images_in
from wgtorch.storage.media import png_bytes

WORLDS: dict[str, dict[str, Any]] = {
    "default": {},
    "small": {"larger": False},
    "scenes": {"painter": "scenes", "larger": False, "steps": 1},
}
"""Parameters of the default template."""
ROUNDS = 10
"""Parts of the run that figures are told of."""


def syncs_of_the_disk(folder: Path, count: int = 50) -> float:
    """Median seconds of one fsync after a write of 4 kB at the end of a file."""
    times = []
    with (folder / ".bench").open("ab", buffering=0) as handle:
        for _ in range(count):
            handle.write(bytes(4096))
            started = time.perf_counter()
            os.fsync(handle.fileno())
            times.append(time.perf_counter() - started)
    (folder / ".bench").unlink()
    return statistics.median(times)


class Timed(DirectoryStorage):
    """Adds up the time inside its own calls."""

    spent = 0.0
    computed = 0.0

    def _timed(self, call: Callable[..., Any], *args: Any) -> Any:
        started, processor = time.perf_counter(), time.process_time()
        try:
            return call(*args)
        finally:
            self.spent += time.perf_counter() - started
            self.computed += time.process_time() - processor

    def store(self, *args: Any) -> str:
        return self._timed(super().store, *args)

    def keep_life(self, *args: Any) -> None:
        self._timed(super().keep_life, *args)

    def keep_trace(self, *args: Any) -> None:
        self._timed(super().keep_trace, *args)


def size_of(value: Any) -> int:
    """Bytes of a value as JSON, tensors by their own."""
    if isinstance(value, Tensor):
        is_png = list(images_in(value, "")) and torch.equal((value * 255).round() / 255, value)
        return len(png_bytes(value)) if is_png else value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return 2 + sum(len(json.dumps(key)) + 2 + size_of(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return 2 + sum(1 + size_of(item) for item in value)
    return len(json.dumps(value, ensure_ascii=False).encode())


def new_in(world: World, index: int) -> int:
    """Bytes that are new in a pass."""
    history = world.history
    state, content = history[index], history.content(index)
    grown = size_of(content) - size_of(history.content(index - 1))
    traces = sum(size_of(entry) for entry in history.traces if entry["pass"] == history.steps[index])
    return size_of(dict(state)) + max(grown, 0) + traces


def resident() -> int:
    """Bytes of memory that the process has and shares with no file."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(fields["RssAnon"].split()[0]) << 10


def tell_of_forks(count: int, state_dirs: Path | None) -> None:
    """Forks a world of 105 MB, in memory or into folders, and prints what that takes."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.world_blocks import tiny_world

    def room() -> int:
        return 0 if state_dirs is None else used_on(state_dirs)

    def forked(name: str) -> World:
        return world.fork(step=1, state_dir=None if state_dirs is None else state_dirs / name)

    world = tiny_world()
    world.content = {**world.content, "large": [torch.rand(1 << 20) for _ in range(25)]}
    world.set_storage(None if state_dirs is None else {"state_dir": state_dirs / "world"})
    world.run(num_steps=3, seed=3)
    first = forked("first")
    first.run(action="elsewhere")
    gc.collect()
    memory, disk, started = resident(), room(), time.perf_counter()
    forks = [forked(f"fork{index}") for index in range(count)]
    took = (time.perf_counter() - started) / count
    for fork in forks:
        fork.run(action="elsewhere")
    gc.collect()
    more, used = (resident() - memory) / 105e6, (room() - disk) / 105e6
    print(
        f"{count} forks of a world of 105 MB in {'memory' if state_dirs is None else 'folders'}, each lived on for a pass: "
        f"{more:.2%} more memory, {used:.2%} more disk; {took * 1e3:.1f} ms a fork"
    )


def used_on(folder: Path) -> int:
    """Bytes of all files, each counted once however many names it has."""
    return sum({found.st_ino: found.st_blocks * 512 for path in folder.rglob("*") for found in [path.lstat()]}.values())


def main() -> int:
    """Runs, and prints a line for each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=200)
    parser.add_argument("--world", choices=[*WORLDS, "tiny"], default="default")
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to be measured")
    parser.add_argument("--max-snapshots", type=int, default=None)
    parser.add_argument("--forks", type=int, default=0, help="measure these and nothing else")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.forks:
        tell_of_forks(given.forks, None)
        with tempfile.TemporaryDirectory(dir=given.folder) as name:
            tell_of_forks(given.forks, Path(name))
        return 0
    if given.world == "tiny":
        sys.path.insert(0, str(Path(__file__).parents[2]))
        from tests.world_blocks import tiny_world

        world = tiny_world()
    else:
        world = World.from_template("default", **WORLDS[given.world])
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        disk = syncs_of_the_disk(folder)
        print(f"the disk: one fsync takes {disk * 1e3:.2f} ms")
        storage = Timed(folder / "states", max_snapshots=given.max_snapshots)
        world.set_storage(storage)
        count, waited, fsync = 0, 0.0, os.fsync

        def counted(handle: int) -> None:
            nonlocal count, waited
            started = time.perf_counter()
            fsync(handle)
            count, waited = count + 1, waited + time.perf_counter() - started

        os.fsync = counted
        part = max(given.passes // ROUNDS, 1)
        figures = []
        for begun in range(0, given.passes, part):
            before, passes = used_on(folder / "states"), []
            last = (count, waited, storage.spent, storage.computed)
            for step in world.stream(num_steps=part, seed=3 if begun == 0 else None):
                if step.kind == "pass":
                    now = (count, waited, storage.spent, storage.computed)
                    passes.append([end - start for start, end in zip(last, now, strict=True)])
                    last = now
            syncs, slept, took, own = (statistics.median(column) for column in zip(*passes, strict=True))
            room = (used_on(folder / "states") - before) / part
            figures.append((room, own, syncs))
            print(
                f"passes {begun + 1:5d} to {begun + part:5d}: {room / 1e3:7.1f} kB a pass; median {took * 1e3:6.2f} ms in the storage, of "
                f"which {slept * 1e3:6.2f} ms are {syncs:.1f} syncs; {own * 1e3:5.2f} ms of the processor, at most "
                f"{max(entry[3] for entry in passes) * 1e3:.2f}"
            )
        os.fsync = fsync
        new = statistics.median(new_in(world, index) for index in range(1, min(len(world.history), 12)))
        total, log = used_on(folder / "states"), storage.size()
        print(
            f"all: {total / 1e6:.1f} MB for {given.passes} passes, {log / 1e6:.1f} MB of it the log; {new / 1e3:.1f} kB new in one pass: "
            f"{total / given.passes / new:.2f} times, the log alone {log / given.passes / new:.2f} times"
        )
        early, late = figures[1 if len(figures) > 2 else 0], figures[-1]
        print(f"late beside early: {late[0] / early[0]:.2f} times the bytes, {late[1] / early[1]:.2f} times the processor's time")
        ours, per_pass = (statistics.median(figure[index] for figure in figures) for index in (1, 2))
        print(f"a pass on a disk whose fsync takes 3 ms: {ours * 1e3 + per_pass * 3:.1f} ms")
        started = time.perf_counter()
        again = DirectoryStorage(folder / "states", max_snapshots=given.max_snapshots)
        again.read_life()
        print(f"opened anew in {time.perf_counter() - started:.2f} s; {again.verify() / 1e6:.1f} MB are what was written")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
