"""``wgtorch blocks``: the types of blocks that graphs may name, and all there is to know of one."""

from __future__ import annotations

import argparse
import sys


def command(args: argparse.Namespace) -> int:
    """Lists the types by role, those that begin with a name, or tells everything of one."""
    from wgtorch.cli.pages import block_page, show, summary_of
    from wgtorch.core.block import BlockRegistry
    from wgtorch.core.errors import UnknownNameError, suggest

    faults = BlockRegistry.faults()
    names = BlockRegistry.names()
    wanted = args.name or ""
    if wanted in BlockRegistry:
        show(block_page(wanted))
        return 0
    found = [name for name in names if name.startswith(wanted)]
    if not found:
        raise UnknownNameError(f"there is no block type {wanted!r}; {suggest(wanted, names)} All of them: wgtorch blocks")
    for name in found:
        print(f"{name}: {summary_of(BlockRegistry.get(name))}")
    for fault in faults:
        print(f"not loaded: {fault}", file=sys.stderr)
    return 0
