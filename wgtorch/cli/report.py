"""``wgtorch report``: what a world has lived through, as one HTML page."""

from __future__ import annotations

import argparse
from pathlib import Path

from wgtorch.core.checkpoint.io import MANIFEST


def command(args: argparse.Namespace) -> int:
    """Writes the page, and says where."""
    from wgtorch.cli.target import trust_in
    from wgtorch.report.report import report_of_folder

    report = report_of_folder(args.path, trust=trust_in(args.trust))
    path = report.save(args.out or beside(Path(args.path)))
    print(f"{report}: {path}")
    return 0


def beside(folder: Path) -> Path:
    """Where the page goes when nobody says: into the folder, but beside one that a checkpoint fills."""
    return folder.with_name(f"{folder.name}.html") if (folder / MANIFEST).is_file() else folder / "report.html"
