#!/usr/bin/env python
"""Puts the weights of a training into the package, in half precision.

    python scripts/ship_default.py outputs/default_describer/<time>
    python scripts/ship_default.py outputs/default_painter/<time> --checkpoint best --out /tmp/weights

scripts/evaluate_default.py --painter or --describer measures a file before it takes the place of another.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from wgtorch.core.checkpoint.refs import PACKAGED
from wgtorch.core.errors import WgtorchError
from wgtorch.train.scenes.shipping import ship


def arguments() -> argparse.ArgumentParser:
    """The program's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--checkpoint", default="last", choices=("last", "best"))
    parser.add_argument("--out", type=Path, default=PACKAGED, help="folder for the file")
    return parser


def main() -> None:
    args = arguments().parse_args()
    try:
        path = ship(args.run, args.out, checkpoint=args.checkpoint)
    except WgtorchError as error:
        sys.exit(f"ship_default: {error}")
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
