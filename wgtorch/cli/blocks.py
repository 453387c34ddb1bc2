"""``wgtorch blocks``: the types of blocks that graphs may name, and all there is to know of one."""

from __future__ import annotations

import argparse


def command(args: argparse.Namespace) -> int:
    """Lists the types by role, those that begin with a name, or tells everything of one."""
    from wgtorch.cli.pages import block_page, show, summary_of, tell_faults
    from wgtorch.core.block import BlockRegistry
    from wgtorch.core.errors import UnknownNameError, suggest

    tell_faults(BlockRegistry)
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
    return 0
