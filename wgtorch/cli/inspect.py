"""``wgtorch inspect``: what a checkpoint holds, who shares what, and whether every byte is what was saved."""

from __future__ import annotations

import argparse


def command(args: argparse.Namespace) -> int:
    """Prints a checkpoint's tree, sizes, sharing, adapters and versions, and checks all hashes; 1 when one differs."""
    from wgtorch.core.checkpoint.verify import inspect_checkpoint

    found = inspect_checkpoint(args.path)
    print(found)
    return 1 if found.damage else 0
