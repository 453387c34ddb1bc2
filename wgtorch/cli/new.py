"""``wgtorch new``: the beginning of a block, a graph, a world or a plug-in package, each with what checks it."""

from __future__ import annotations

import argparse
import importlib.util
import json
import keyword
import re
from collections.abc import Mapping
from pathlib import Path

from wgtorch.cli.target import CommandError

_SCAFFOLD = Path(__file__).parent / "scaffold"
# What is written for each kind: file (with {names} filled in) and the template that it is made from.
_FILES: dict[str, dict[str, str]] = {
    "block": {"{name}.py": "block.py.j2", "test_{name}.py": "test_block.py.j2"},
    "graph": {"{name}.yaml": "graph.yaml.j2"},
    "world": {"{name}.yaml": "world.yaml.j2"},
    "plugin": {
        "{distribution}/pyproject.toml": "plugin/pyproject.toml.j2",
        "{distribution}/README.md": "plugin/README.md.j2",
        "{distribution}/src/{package}/blocks.py": "block.py.j2",
        "{distribution}/src/{package}/templates.py": "plugin/templates.py.j2",
        "{distribution}/src/{package}/evaluators.py": "plugin/evaluators.py.j2",
        "{distribution}/tests/test_blocks.py": "test_block.py.j2",
        "{distribution}/tests/test_plugin.py": "plugin/test_plugin.py.j2",
    },
}
_NEXT = {
    "block": "Check it: python -m pytest {folder}/test_{name}.py",
    "graph": "Check it: wgtorch validate {folder}/{name}.yaml",
    "world": "Let it live: wgtorch run {folder}/{name}.yaml --steps 3 --seed 1",
    "plugin": "Install it: pip install -e '{folder}/{distribution}[test]'",
}


def command(args: argparse.Namespace) -> int:
    """Writes the files, and says which and what to do next."""
    folder = Path(args.out)
    for path in write(args.kind, args.name, folder):
        print(path)
    print(_NEXT[args.kind].format(folder=folder, **_names(args.kind, args.name)))
    return 0


def write(kind: str, name: str, folder: Path) -> list[Path]:
    """Writes the beginning of something, all files or none.

    Args:
        kind: ``block``, ``graph``, ``world`` or ``plugin``.
        name: letters, digits and ``_``.
        folder: where to.

    Returns:
        The files.

    Raises:
        CommandError: the name is none that Python takes, or a file is there already.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    names = _names(kind, name)
    environment = Environment(loader=FileSystemLoader(_SCAFFOLD), undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    files = {folder / path.format(**names): environment.get_template(source).render(names) for path, source in _FILES[kind].items()}
    if kind == "plugin":
        files[folder / names["distribution"] / "src" / names["package"] / "__init__.py"] = f'"""{names["title"]}."""\n'
    if kind == "graph" and not (folder / "graph.schema.json").exists():
        from wgtorch.cli.schema import schema_of

        files[folder / "graph.schema.json"] = json.dumps(schema_of("graph")) + "\n"
    there = [path for path in files if path.exists()]
    if there:
        raise CommandError(f"{there[0]}: is there already; choose another name, or another folder with --out")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(files)


def _names(kind: str, name: str) -> Mapping[str, str]:
    """What the scaffolds are filled in with."""
    plain = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", plain) or keyword.iskeyword(plain):
        raise CommandError(f"{name!r}: expected small letters, digits and _, beginning with a letter, such as {_better(kind, name)}")
    there = importlib.util.find_spec(plain) if kind in ("block", "plugin") else None
    if there is not None and there.origin is not None:  # a folder without a module in it hides nothing
        raise CommandError(f"{name!r}: there is a package or module of that name already; take another one, such as {_better(kind, name)}")
    is_plugin = kind == "plugin"
    block = "layer" if is_plugin else plain
    return {
        "name": block,
        "package": plain if is_plugin else "my",
        "module": f"{plain}.blocks" if is_plugin else plain,
        "distribution": plain.replace("_", "-"),
        "title": plain.replace("_", " ").capitalize(),
        "class_name": "".join(part.capitalize() for part in block.split("_")),
    }


def _better(kind: str, name: str) -> str:
    """A name near one that is not taken."""
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return f"my_{plain or kind}" if not plain[:1].isalpha() or keyword.iskeyword(plain) or plain == name.replace("-", "_") else plain
