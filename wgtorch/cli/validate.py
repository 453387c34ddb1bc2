"""``wgtorch validate``: everything that would stop a run, and what looks odd."""

from __future__ import annotations

import argparse


def command(args: argparse.Namespace) -> int:
    """Prints the findings; 1 when there are errors among them."""
    from wgtorch.cli.target import open_level, ports_of, trust_in, values

    level = open_level(args.target, values(args.set), trust=trust_in(args.trust))
    result = level.validate(strict=False, deep=True)
    print(f"{level.level} {level.block_id}: {'valid' if result.is_valid else 'not valid'}")
    for name, findings in (("error", result.errors), ("warning", result.warnings)):
        for found in findings:
            print(f"  {name}: {found}")
    if level.level != "world":
        print(ports_of(level))
    return 0 if result.is_valid else 1
