"""The program ``wgtorch``. Its commands and options are in :mod:`wgtorch.cli.options`; each command's work is in the file of its name."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from wgtorch.cli.options import make_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the arguments; those of the process by default.

    Returns:
        0 when all is well, 1 when ``validate`` found something, 2 after a mistake that the message on stderr tells of,
        130 when interrupted.
    """
    parser = make_parser()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks for completions
        import argcomplete

        argcomplete.autocomplete(parser)
    args = parser.parse_args(argv)
    if args.version:
        print(versions())
        return 0
    if args.command is None:
        parser.error("a command is missing; see: wgtorch --help")
    from wgtorch.core.errors import WgtorchError, without_python_advice

    try:
        try:
            file = "import_" if args.command == "import" else args.command  # no module may be named as the keyword
            return int(import_module(f"wgtorch.cli.{file}").command(args))
        except BaseException as error:
            without_python_advice(error)
            raise
    except BrokenPipeError:  # whoever reads what is printed has seen enough, as head(1) does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (WgtorchError, OSError) as error:
        print("\n".join([f"wgtorch {args.command}: {error}", *getattr(error, "__notes__", [])]), file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print("\n".join([f"wgtorch {args.command}: interrupted", *getattr(interrupt, "__notes__", [])]), file=sys.stderr)
        return 130


def versions() -> str:
    """The versions that a report of a fault should name; nothing is imported."""
    from importlib.metadata import PackageNotFoundError, version
    from platform import python_version

    found = ["wgtorch " + import_module("wgtorch").__version__]
    try:
        found.append(f"torch {version('torch')}")
    except PackageNotFoundError:
        found.append("no torch")
    return f"{found[0]} ({found[1]}, Python {python_version()})"


if __name__ == "__main__":
    sys.exit(main())
