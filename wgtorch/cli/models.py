"""``wgtorch models``: which models some levels use, built together in one pool."""

from __future__ import annotations

import argparse


def command(args: argparse.Namespace) -> int:
    """Builds everything named and prints the pool's report: each model once, its memory, and where it is used."""
    from wgtorch.cli.target import open_level, trust_in
    from wgtorch.core.pool import Pool

    pool = Pool()
    with pool:
        levels = [open_level(target, trust=trust_in(args.trust)) for target in args.targets]
    print(pool.report())
    return 0 if levels else 2
