"""``wgtorch draw``: a level's structure as Mermaid, DOT or SVG."""

from __future__ import annotations

import argparse
from pathlib import Path

_BY_ENDING = {".svg": "svg", ".dot": "dot", ".gv": "dot"}


def command(args: argparse.Namespace) -> int:
    """Prints the drawing, or writes it to ``--out``."""
    from wgtorch.cli.target import open_level, trust_in, values

    level = open_level(args.target, values(args.set), trust=trust_in(args.trust))
    if args.out is None:
        print(level.draw(args.format or "mermaid"))
        return 0
    path = Path(args.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(level.draw(args.format or _BY_ENDING.get(path.suffix.lower(), "mermaid")) + "\n", encoding="utf-8")
    print(path)
    return 0
