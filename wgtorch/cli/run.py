"""``wgtorch run``: lets a world live, or runs a graph or a pipeline once."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from wgtorch.cli.storybook import new_folder
from wgtorch.cli.target import CommandError, name_of, open_level, template_key, trust_in, values
from wgtorch.cli.world_session import live
from wgtorch.core.composite import Composite
from wgtorch.core.errors import PortError, suggest
from wgtorch.core.level import Level
from wgtorch.stage import Stage
from wgtorch.storage.encoding import images_in
from wgtorch.storage.media import SAMPLING_RATE, write_value
from wgtorch.world import World
from wgtorch.world_runtime.stopped import reads_action
from wgtorch.world_runtime.storage_place import where_stored
from wgtorch.world_runtime.trace import plain

_STEPS = 3
_STATES = "states"  # folder, inside that of the run, where a world without a storage of its own keeps its states
_RATES = ("sampling_rate", "sample_rate", "rate")  # outputs that say how many samples of a sound are a second


def command(args: argparse.Namespace) -> int:
    """Runs what ``args.target`` names, and says where everything is."""
    level = open_level(args.target, values(args.set), trust=trust_in(args.trust))
    if isinstance(level, World):
        _refuse(level, "--action, --steps and --seed", input=args.input)
        _run_world(level, args)
    elif isinstance(level, Composite) and not isinstance(level, Stage):
        _refuse(level, "--input", steps=args.steps, action=args.action, resume=args.resume)
        _run_once(level, args)
    else:
        raise CommandError(f"{args.target}: is a stage, which runs inside a world; run the world")
    return 0


def run_folder(target: str, level: Level, out: str | None) -> Path:
    """Where a run writes: ``out``, or a new folder by the name of what runs: a template's id, or as the file or folder is called."""
    return Path(out) if out else new_folder(level.block_id if template_key(target) is not None else name_of(target))


def holds_life(world: World, folder: Path) -> bool:
    """True where there is a life to take up: in the world's own storage, or in a run's folder."""
    if world.own_config()["storage"] is None:
        return (folder / _STATES).exists()
    return where_stored(world.history.storage) is not None


def place_states(world: World, folder: Path, *, resume: bool = False) -> None:
    """Has a world without a storage of its own keep its states inside a run's folder.

    Args:
        world: the world.
        folder: the run's.
        resume: take up the life that is kept there.

    Raises:
        StorageError: there is no life to take up.
        CommandError: there is one, and nobody asked to go on with it.
    """
    own = world.own_config()["storage"]
    if not resume and holds_life(world, folder):
        where, other = (folder, "another --out") if own is None else (world.history.storage, "another storage in its config")
        raise CommandError(f"{where}: holds the states of an earlier run; add --resume to go on with it, or choose {other}")
    if own is None:
        world.set_storage({"state_dir": str(folder / _STATES)})
    if resume:
        world.resume()


def _run_world(world: World, args: argparse.Namespace) -> None:
    steps = _STEPS if args.steps is None else args.steps
    actions = actions_of(args.action[0] if len(args.action) == 1 else args.action, steps)
    if args.resume and args.out is None and world.own_config()["storage"] is None:
        raise CommandError("--resume: goes on with an earlier run; say which with --out")
    is_new = not args.out or not Path(args.out).exists()
    folder = run_folder(args.target, world, args.out)
    to_go_on = f"To go on, add to the same command: --out {folder} --resume"
    to_play = f"wgtorch play {shlex.join([args.target, *(part for pair in args.set for part in ('--set', '='.join(pair)))])} --out {folder}"
    try:
        place_states(world, folder, resume=args.resume)
        overview = live(world, folder, steps=steps, actions=actions, seed=args.seed)
    except BaseException as error:
        if not (is_new and _took_away(world, folder)):
            others = ["--action TEXT for another action in this pass"] if any(map(reads_action, world.nodes.values())) else []
            error.add_note(f"{to_go_on}; {', '.join([*others, '--seed N for other draws'])}. To change it on a page: {to_play}")
        raise
    if is_new and _took_away(world, folder):
        print("Nothing has happened yet, so nothing is kept.")
        return
    say_where(folder, overview, world.life.seed)
    print(to_go_on)
    if (folder / _STATES).exists():
        print(f"Now play it: {to_play}")


def _took_away(world: World, folder: Path) -> bool:
    """Takes away a new run's folder where nothing has come to be that could be looked at or gone on with."""
    state = world.state
    if world.life.passes or (state is not None and state.filled):
        return False
    shutil.rmtree(folder, ignore_errors=True)
    for parent in folder.parents[:2]:  # outputs/<name> and outputs, where this run was the first
        with suppress(OSError):
            parent.rmdir()
    return True


def actions_of(action: Any, steps: int) -> list[Any]:
    """What the user does in each pass: one thing in all of them, or what a list holds for the first ones.

    Raises:
        CommandError: fewer than no passes, or more actions than passes.
    """
    if steps < 0:
        raise CommandError(f"steps {steps}: expected 0 or more")
    if not isinstance(action, (list, tuple)):
        return [action] * steps
    if len(action) > steps:
        raise CommandError(f"{len(action)} actions for {steps} passes; give one for all of them, or at most one for each")
    return list(action)


def say_where(folder: Path, overview: Path | None, seed: int | None) -> None:
    """Says where a run has left what it made, and how to have it again."""
    if overview is not None:
        print(f"Overview: {overview}")
    print(f"Pictures, story.md, episodes.json: {folder}")
    print(f"Seed: {seed}")


def _run_once(level: Composite, args: argparse.Namespace) -> None:
    spec = level.get_input_spec()
    for name, _ in args.input:
        if name not in spec:
            raise PortError(f"{level.block_id}: unknown input {name!r}; {suggest(name, spec)}")
    inputs = values(args.input, texts={name for name, port in spec.items() if port.dtype == "text"})
    ports = level.get_output_spec()
    found = level.run(inputs, seed=args.seed)
    folder = Path(args.out) if args.out else None
    rate = next((int(found[name]) for name in _RATES if isinstance(found.get(name), (int, float))), SAMPLING_RATE)
    for name, value in found.items():
        if not isinstance(value, Tensor) and not any(images_in(value, name)):
            print(f"{name}: {value if isinstance(value, str) else json.dumps(plain(value, longest=None), ensure_ascii=False)}")
            if args.out is None:  # words and numbers have been told; files of them are for those who ask for a folder
                continue
        folder = folder or run_folder(args.target, level, None)
        for path in write_value(value, ports[name].dtype if name in ports else "any", folder, name, rate=rate):
            print(f"{name}: {path}")


def _refuse(level: Level, takes: str, **options: Any) -> None:
    for name, value in options.items():
        if value not in (None, [], False):
            raise CommandError(f"{level.block_id}: is a {level.level}, and --{name} is not for it; it takes {takes}")
