"""``wgtorch completion``: what makes a shell complete commands, options, templates and types of blocks."""

from __future__ import annotations

import argparse


def command(args: argparse.Namespace) -> int:
    """Prints the shell's code."""
    import argcomplete

    print(argcomplete.shellcode(["wgtorch"], shell=args.shell))
    return 0
