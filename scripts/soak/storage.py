#!/usr/bin/env python
"""Has worlds' storages killed, damaged, filled up and starved, and counts what was lost, unnamed or leaked.

    python -m scripts.soak.storage                       # small: some seconds; from the root of the repository
    python -m scripts.soak.storage --kills 1000 --hostile 10000 --faults 200 --threads 4 --runs 1000

``--kills``: SIGKILL at random moments and in the middle of writes, over runs, saves, forks and rewinds; after each the log is verified,
and the world lives on to the very end that a world comes to that was never killed. ``--hostile``: a random change of a file of the log,
of the marker or of a saved life; each must be read as it was written or be an error that names the file, in less than a second and
200 MB. ``--faults``: a full disk, an input/output error or a read-only file system at each write in turn. ``--tapes``: SIGKILL while a
cassette is written, and random changes of its file. ``--trainings``: SIGKILL while a training writes a checkpoint at every step.
``--threads`` and ``--runs``: worlds with storages of their own that share their modules. And twelve worlds of API models use a key each,
which nothing that they leave may hold. Ends with one line of JSON: everything but the counts of tries must be 0.
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


def tapes(count: int, room: Path, choose: random.Random) -> Counter[str]:
    """Kills recorders of a cassette in turn, which must lose no answer that was kept, and reads it with its bytes changed."""
    from wgtorch.integrations.api.answers import Answer, Question
    from wgtorch.integrations.api.cassette import Cassette
    from wgtorch.integrations.models.requests import Message, TextRequest

    def question(number: int) -> Question:
        return Question("complete", TextRequest((Message("user", f"{number} {'of a long question' * 300}"),)), "openai", "m")

    found: Counter[str] = Counter(tapes=0, damaged=0, lost=0, unnamed=0, wrong=0)
    tape = room / "tape.sqlite"
    begun = 0
    while found["tapes"] < count:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            recording = Cassette(tape, choose.choice(["record", "auto"]))
            for number in range(begun, begun + 100_000):
                recording.keep(question(number), Answer(text=f"answer {number}"))
                _write(writing, b".")
            os._exit(0)
        os.close(writing)
        time.sleep(choose.uniform(0.01, 0.1))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kept = begun
        while part := os.read(reading, 1 << 16):
            kept += len(part)
        os.close(reading)
        replaying = Cassette(tape, "replay") if tape.exists() else None
        for number in {*range(begun, kept), *choose.sample(range(kept), min(kept, 20))}:
            try:
                answer = None if replaying is None else replaying.find(question(number))
            except WgtorchError as error:
                print(f"tape, answer {number}: {error}", file=sys.stderr)
                answer = None
            found["lost"] += answer is None or answer.text != f"answer {number}"
        if replaying is not None:
            replaying.close()
        begun, found["tapes"] = kept, found["tapes"] + 1
        if begun > 2000:
            tape.unlink()
            tape.with_name(f"{tape.name}-journal").unlink(missing_ok=True)
            begun = 0
    fresh = Cassette(room / "small.sqlite", "record")
    for number in range(10):
        fresh.keep(question(number), Answer(text=f"answer {number}"))
    fresh.close()
    raw = (room / "small.sqlite").read_bytes()
    for _ in range(count * 5):
        (room / "small.sqlite").write_bytes(changed(raw, choose))
        found["damaged"] += 1
        try:
            answer = Cassette(room / "small.sqlite", "replay").find(question(3))
            found["wrong"] += answer is None
        except WgtorchError:
            pass
        except Exception:
            found["unnamed"] += 1
            traceback.print_exc()
    return found


def trainings(count: int, room: Path, choose: random.Random) -> Counter[str]:
    """Kills trainings that write a checkpoint at every step; what each leaves is read, and the next goes on from it."""
    found: Counter[str] = Counter(trainings=0, checkpoints=0, lost=0)
    if not count:
        return found
    from tests.train.toys import Linear, chain, run_settings
    from wgtorch.core.checkpoint.atomic import recovered
    from wgtorch.graph import Graph
    from wgtorch.train.fitting import fit
    from wgtorch.train.folders import CheckpointFolders
    from wgtorch.train.trainable import Trainable

    settings = run_settings(checkpoint={"every": 1}, trainer={"max_steps": 100_000})
    last: Path | None = None
    steps = 0
    while found["trainings"] < count:
        run = room / f"run{found['trainings']}"
        child = os.fork()
        if child == 0:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            fit(chain(Linear(), Linear()), settings, run, resume=last)
            os._exit(0)
        deadline = time.monotonic() + 20
        while not (run / "checkpoints" / "last").exists() and time.monotonic() < deadline and choose.random() < 0.999:
            time.sleep(0.005)
        time.sleep(choose.uniform(0, 0.3))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found["trainings"] += 1
        folder = run / "checkpoints" / "last"
        if not folder.parent.is_dir() or not any(
            "last" in entry.name and not entry.name.endswith(".new") for entry in folder.parent.iterdir()
        ):
            continue
        try:
            Graph.load(recovered(folder))
            state = CheckpointFolders(Trainable(chain(Linear(), Linear()), objective="train_toys/mse")).load_checkpoint(folder)
            found["checkpoints"] += 1
            if state["global_step"] < steps:
                raise ValueError(f"step {state['global_step']} after {steps}")
            steps, last = state["global_step"], run
        except Exception:
            found["lost"] += 1
            traceback.print_exc()
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


def secrets_in(room: Path) -> Counter[str]:
    """Lives worlds of API models with a key each, at a server in a process of its own, and searches all that they leave for the keys."""
    from tests.integrations.api.answering_world import respond, world_of
    from wgtorch.core.block import BlockRegistry
    from wgtorch.integrations.api import cassette
    from wgtorch.testing import Reply, ScriptedServer
    from wgtorch.world_runtime.trace import plain

    keys = {f"WGTORCH_SOAK_KEY_{number}": f"sk-{SECRET}-{number:02d}" for number in range(12)}
    os.environ.update(keys)
    found: Counter[str] = Counter(keys=len(keys), used=0, files=0, leaked=0)
    reading, writing = os.pipe()
    server = os.fork()
    if server == 0:

        def answer(seen: Any) -> Reply | str:
            key = seen.headers.get("authorization", "")
            _write(writing, f"key {key}\n".encode())
            if "[fail]" in seen.prompt:
                return Reply(
                    f"Incorrect API key provided: {key} at https://me:{key[7:]}@here?key={key[7:]}", status=401, code="invalid_api_key"
                )
            return respond(seen)

        with ScriptedServer(answer) as running:
            _write(writing, f"url {running.url}\n".encode())
            time.sleep(600)
        os._exit(0)
    os.close(writing)
    told = os.fdopen(reading, "rb")
    url = told.readline().decode().split()[1]
    said: list[str] = []

    def hear(event: Any) -> None:
        said.append(str(plain(dict(event.outputs or {}))) + repr(event))

    try:
        for number, variable in enumerate(keys):

            def build(block_type: str, variable: str = variable, **config: Any) -> Any:
                given = {"model_id": "tiny", "endpoint_url": url, "retries": 0, "api_key_env": variable, **config}
                return BlockRegistry.build({"block_type": block_type, "config": given})

            folder = room / f"w{number}"
            world = world_of(build)
            world.set_storage({"state_dir": folder / "s"})
            with cassette(folder / "tape.sqlite", mode="record"):
                world.run(seed=1, callbacks=[hear])
                world.save(folder / "saved")
                world.save_checkpoint(folder / "saved.wgt", format="archive")
                world.content = {"story": "It ends. [fail]"}
                try:
                    world.run()
                except WgtorchError as error:
                    said.append("".join(traceback.format_exception(error)) + repr(vars(error)))
            world.report(folder / "report.html")
            said += [repr(world), str(world.to_config()), *(str(vars(block)) for block in world.modules())]
    finally:
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
    seen = told.read().decode()
    found["used"] = sum(key in seen for key in keys.values())
    (room / "said.txt").write_text("\n".join(said))
    files = [path for path in room.rglob("*") if path.is_file()]
    found["files"] = len(files)
    for path in files:
        if SECRET.encode() in path.read_bytes():
            found["leaked"] += 1
            print(f"{path}: holds a key", file=sys.stderr)
    return found


def main() -> int:
    """Runs what is asked for; 1 when anything was lost, unnamed, wrong or leaked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    counts = {"kills": 6, "hostile": 60, "faults": 6, "tapes": 3, "trainings": 0, "threads": 2, "runs": 5, "seed": 0}
    for name, default in counts.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    torch.set_num_threads(1)
    choose = random.Random(given.seed)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        for part in ("k", "h", "f", "t", "c", "l"):
            (room / part).mkdir()
        results["kills"] = kills(given.kills, room / "k", choose)
        results["hostile"] = hostile(given.hostile, room / "h", choose)
        results["faults"] = faults(given.faults, room / "f", choose)
        results["tapes"] = tapes(given.tapes, room / "c", choose)
        results["trainings"] = trainings(given.trainings, room / "l", choose)
        results["threads"] = threads(given.threads, given.runs, room / "t")
        (room / "s").mkdir()
        results["secrets"] = secrets_in(room / "s")
    print(json.dumps(results))
    bad = sum(part[name] for part in results.values() for name in ("lost", "unnamed", "wrong", "slow", "large", "leaked"))
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
