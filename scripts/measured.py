#!/usr/bin/env python
"""Writes docs/measured.md from docs/measured.yaml: what was measured, with goals, dates, what was missed and why.

python scripts/measured.py            # writes the page
python scripts/measured.py --check    # ends with 1 where the page is not what the data give
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
DATA, PAGE = ROOT / "docs" / "measured.yaml", ROOT / "docs" / "measured.md"


def is_reached(row: Mapping[str, Any]) -> bool:
    """Whether what was found is as good as the goal."""
    return row["found"] <= row["at_most"] if "at_most" in row else row["found"] >= row["at_least"]


def page(data: Mapping[str, Any]) -> str:
    """The page in Markdown."""
    rows = data["rows"]
    missed = [row for row in rows if not is_reached(row)]
    lines = [
        "# What was measured",
        "",
        f"On {data['machine']}. Ratios are to the same work in another way, in the same run;",
        "each script's head says which. `shared`: other work ran on the two cores, so times are high and ratios rough. The scripts",
        "print these figures anew; they go into `docs/measured.yaml`, and `python scripts/measured.py` makes this page of it.",
        "",
        f"{len(rows) - len(missed)} of {len(rows)} goals are reached.",
    ]
    for area in dict.fromkeys(row["area"] for row in rows):
        lines += ["", f"## {area}", "", "| what | found | goal | | measured by | on |", "| --- | --- | --- | --- | --- | --- |"]
        lines += [line(row) for row in rows if row["area"] == area]
    lines += ["", "## What was missed, and why", "", *(f"- {row['what']}: {row['why']}." for row in missed)]
    return "\n".join(lines) + "\n"


def line(row: Mapping[str, Any]) -> str:
    """A row of a table."""
    goal = f"at most {row['at_most']}" if "at_most" in row else f"at least {row['at_least']}"
    reached = "reached" if is_reached(row) else "**missed**"
    return f"| {row['what']} | {row['found']} {row['unit']} | {goal} | {reached} | `{row['script']}` | {row['date']}, {row['state']} |"


def faults(data: Mapping[str, Any], root: Path = ROOT) -> Iterator[str]:
    """What is wrong with the data."""
    known = {"area", "script", "what", "found", "at_most", "at_least", "unit", "date", "state", "why"}
    for row in data["rows"]:
        where = f"{row.get('what')}: "
        if strange := sorted(set(row) - known):
            yield f"{where}unknown {strange}; known: {sorted(known)}"
        if ("at_most" in row) == ("at_least" in row):
            yield f"{where}expected at_most or at_least"
        elif is_reached(row) == ("why" in row):
            yield f"{where}{'is reached, so nothing is to be explained by why' if is_reached(row) else 'is missed; why?'}"
        if not (root / row["script"]).is_file():
            yield f"{where}there is no {row['script']}"
        if row["state"] not in ("calm", "shared"):
            yield f"{where}state {row['state']!r}; expected calm or shared"


def main() -> int:
    """Writes, or checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args()
    data = yaml.safe_load(DATA.read_text(encoding="utf-8"))
    wrong = list(faults(data))
    text = page(data) if not wrong else ""
    if not wrong and args.check and PAGE.read_text(encoding="utf-8") != text:
        wrong = ["docs/measured.md is not what docs/measured.yaml gives; run python scripts/measured.py"]
    print("\n".join(wrong), file=sys.stderr, end="\n" if wrong else "")
    if not wrong and not args.check:
        PAGE.write_text(text, encoding="utf-8")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
