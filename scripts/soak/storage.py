#!/usr/bin/env python
"""Has worlds' storages killed, damaged, filled up and starved, and counts what was lost, unnamed or leaked.

    python -m scripts.soak.storage                       # small: some seconds; from the root of the repository
    python -m scripts.soak.storage --kills 1000 --hostile 10000 --faults 200 --threads 4 --runs 1000

``--kills``: SIGKILL at random moments and in the middle of writes, over runs, saves, forks and rewinds; after each the log is verified,
and the world lives on to the very end that a world comes to that was never killed. ``--hostile``: a random change of a file of the log,
of the marker or of a saved life; each must be read as it was written or be an error that names the file, in less than a second and
200 MB. ``--faults``: a full disk, an input/output error or a read-only file system at each write in turn. ``--threads`` and ``--runs``:
worlds with storages of their own that share their modules. Ends with one line of JSON: everything but the counts of tries must be 0.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from tests.world_blocks import difference, record_of, tiny_world
from wgtorch import World
from wgtorch.core.errors import WgtorchError
from wgtorch.storage import DirectoryStorage

PASSES = 5
SEED = 7
SECRET = "wgtorch-soak-secret-4b1d"
_write = os.write


def live(folder: Path) -> World:
    """Takes the world up where it is, or begins it, and lives on with saves, forks and a rewind on the way."""
    world = tiny_world()
    world.set_storage({"state_dir": str(folder / "s")})
    if DirectoryStorage(folder / "s").read_life() is not None:
        world.resume()
    while world.life.passes < PASSES:
        passes = world.life.passes
        world.run(seed=SEED)
        if passes == 2 and not (folder / "fork").exists():
            fork = world.fork(step=1, state_dir=folder / "fork")
            fork.run(action="elsewhere")
        if passes == 3 and not (folder / "rewound").exists():
            (folder / "rewound").touch()
            world.rewind(2)
        world.save(folder / "saved")
    return world


def lost_in(folder: Path, whole: dict[str, Any]) -> str | None:
    """What is not as it should be in a folder whose writer was killed."""
    storage = DirectoryStorage(folder / "s")
    storage.verify()
    for step in storage.steps():
        state, content = storage.read(step)
        if (found := difference((dict(state), content), whole["stored"][step])) is not None:
            return f"step {step}: {found}"
    if (folder / "fork").exists():
        fork = DirectoryStorage(folder / "fork")
        fork.verify()
        if fork.head() is None or fork.steps()[:1] != [1]:
            return "the fork is not whole"
    if (folder / "saved").exists() and World.load(folder / "saved").life.passes == 0:
        return "the save is empty"
    return None


def kills(count: int, room: Path, choose: random.Random) -> Counter[str]:
    """Kills worlds again and again."""
    never = tiny_world()
    never.run(num_steps=PASSES, seed=SEED)
    whole = record_of(never)
    found: Counter[str] = Counter(kills=0, lost=0, unnamed=0)
    fsync, os.fsync = os.fsync, lambda handle: None  # a killed process loses nothing that it wrote
    started = time.monotonic()
    live(room / "warm")
    duration = time.monotonic() - started
    while found["kills"] < count:
        folder = Path(tempfile.mkdtemp(dir=room))
        for _ in range(choose.randint(1, 6)):
            at = choose.randint(1, 60) if choose.random() < 0.5 else None
            child = os.fork()
            if child == 0:
                try:
                    left = [at or -1]

                    def in_two(handle: int, data: Any, left: list[int] = left) -> int:
                        left[0] -= 1
                        if left[0] == 0:
                            _write(handle, data[: len(data) // 2])
                            os.kill(os.getpid(), signal.SIGKILL)
                        return _write(handle, data)

                    os.write = in_two
                    live(folder)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            if at is None:
                time.sleep(choose.uniform(0, duration))
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            found["kills"] += os.WIFSIGNALED(status)
            found["unnamed"] += not os.WIFSIGNALED(status) and os.WEXITSTATUS(status) != 0
            if (lost := lost_in(folder, whole)) is not None:
                found["lost"] += 1
                print(f"{folder}: {lost}", file=sys.stderr)
        world = live(folder)
        if (lost := difference(record_of(world), whole)) is not None:
            found["lost"] += 1
            print(f"{folder}: {lost}", file=sys.stderr)
        shutil.rmtree(folder)
    os.fsync = fsync
    return found


def hostile(count: int, room: Path, choose: random.Random) -> Counter[str]:
    """Changes files at random and reads them."""
    world = tiny_world()
    world.set_storage({"state_dir": str(room / "s")})
    world.run(num_steps=3, seed=SEED)
    world.save(room / "saved")
    expected = record_of(world)
    files = [*(room / "s" / "log").iterdir(), room / "s" / "wgtorch-storage.json", *(room / "saved" / "life").iterdir()]
    found: Counter[str] = Counter(hostile=0, unnamed=0, wrong=0, slow=0, large=0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(count):
        path = choose.choice(files)
        raw = path.read_bytes()
        path.write_bytes(changed(raw, choose))
        started = time.monotonic()
        try:
            storage = DirectoryStorage(room / "s")
            storage.verify()
            stored = {step: (dict(state), content) for step in storage.steps() for state, content in [storage.read(step)]}
            storage.read_life()
            storage.traces()
            if path.parent.name == "life":
                World.load(room / "saved")
            elif any(difference(entry, expected["stored"].get(step)) for step, entry in stored.items()):
                found["wrong"] += 1
        except WgtorchError:
            pass
        except Exception:
            found["unnamed"] += 1
            traceback.print_exc()
        found["slow"] += time.monotonic() - started > 1
        path.write_bytes(raw)
        found["hostile"] += 1
    found["large"] = int((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) > 200 * 1024)
    return found


def changed(raw: bytes, choose: random.Random) -> bytes:
    """Bytes with something done to them."""
    data = bytearray(raw)
    at = choose.randrange(len(data)) if data else 0
    way = choose.randrange(7)
    if way == 0:
        data[at] ^= 1 << choose.randrange(8)
    elif way == 1:
        del data[at:]
    elif way == 2:
        data[at : at + choose.randrange(64)] = choose.randbytes(choose.randrange(64))
    elif way == 3:
        data += choose.randbytes(choose.randrange(1, 200))
    elif way == 4:
        data[at:at] = data[: choose.randrange(1, 500)]
    elif way == 5:
        data = bytearray(b"[" * choose.choice([10, 5_000, 100_000]))
    else:
        data[at : at + 8] = (2 ** choose.randrange(1, 64) - 1).to_bytes(8, "little")
    return bytes(data)


def faults(count: int, room: Path, choose: random.Random) -> Counter[str]:
    """Has the system refuse one write after the other."""
    found: Counter[str] = Counter(faults=0, unnamed=0, lost=0)
    never = tiny_world()
    never.run(num_steps=2, seed=SEED)
    whole = record_of(never)
    for number in range(1, count + 1):
        folder = room / f"w{number}"
        code = choose.choice([errno.ENOSPC, errno.EIO, errno.EROFS])
        left = [number % 15 + 1]
        fsync = os.fsync

        def refuse(left: list[int] = left, code: int = code) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise OSError(code, os.strerror(code))

        def write(handle: int, data: Any, left: list[int] = left, refuse: Any = refuse) -> int:
            if left[0] == 1:
                _write(handle, data[: len(data) // 2])
            refuse()
            return _write(handle, data)

        world = tiny_world()
        world.set_storage({"state_dir": str(folder)})
        os.write, os.fsync = write, lambda handle, refuse=refuse: refuse()
        try:
            world.run(num_steps=2, seed=SEED)
        except WgtorchError:
            found["faults"] += 1
        except Exception:
            found["unnamed"] += 1
            traceback.print_exc()
        finally:
            os.write, os.fsync = _write, fsync
        world.run(num_steps=2 - world.life.passes, seed=SEED)
        again = tiny_world()
        again.set_storage({"state_dir": str(folder)})
        found["lost"] += difference(record_of(again.resume()), whole) is not None
        shutil.rmtree(folder)
    return found


def threads(count: int, runs: int, room: Path) -> Counter[str]:
    """Lives worlds that share their modules, each in a thread with a storage of its own."""
    found: Counter[str] = Counter(threads=count, runs=0, unnamed=0, lost=0)
    parent = tiny_world()
    worlds = [parent.fork(state_dir=None) for _ in range(count)]

    def work(index: int) -> None:
        try:
            worlds[index].set_storage({"state_dir": str(room / f"t{index}")})
            for _ in range(runs):
                worlds[index].run(seed=index)
        except BaseException:
            found["unnamed"] += 1
            traceback.print_exc()

    running = [threading.Thread(target=work, args=(index,)) for index in range(count)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    for index, world in enumerate(worlds):
        alone = tiny_world()
        alone.run(num_steps=runs, seed=index)
        found["runs"] += world.life.passes
        found["lost"] += difference(record_of(world), record_of(alone)) is not None
    return found


def leaked(room: Path) -> int:
    """Files below a folder that hold the planted secret."""
    return sum(SECRET.encode() in path.read_bytes() for path in room.rglob("*") if path.is_file())


def main() -> int:
    """Runs what is asked for; 1 when anything was lost, unnamed, wrong or leaked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("kills", 6), ("hostile", 60), ("faults", 6), ("threads", 2), ("runs", 5), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "WGTORCH_SECRET"):
        os.environ[name] = SECRET
    choose = random.Random(given.seed)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        for part in ("k", "h", "f", "t"):
            (room / part).mkdir()
        results["kills"] = kills(given.kills, room / "k", choose)
        results["hostile"] = hostile(given.hostile, room / "h", choose)
        results["faults"] = faults(given.faults, room / "f", choose)
        results["threads"] = threads(given.threads, given.runs, room / "t")
        results["leaked"] = Counter(leaked=leaked(room))
    print(json.dumps(results))
    bad = sum(part[name] for part in results.values() for name in ("lost", "unnamed", "wrong", "slow", "large", "leaked"))
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
