"""Pages of the site that the package itself knows: the catalogue of blocks, templates and registered names, the schemas, the command line.

Run by mkdocs (``gen-files``); nothing is written to the tree.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import mkdocs_gen_files

from wgtorch.cli.options import LEVELS, make_parser
from wgtorch.cli.pages import block_page, summary_of, template_page
from wgtorch.cli.schema import schema_of
from wgtorch.core.block import BlockRegistry
from wgtorch.core.config.template import templates
from wgtorch.core.registry import Registry

ROOT = Path(__file__).resolve().parents[1]
REGISTRIES = {
    "Objectives of training": ("wgtorch.train.registries", "ObjectiveRegistry"),
    "Data": ("wgtorch.train.registries", "DataRegistry"),
    "Evaluators": ("wgtorch.evaluation", "EvaluatorRegistry"),
    "Providers of models": ("wgtorch.integrations.api.providers", "Providers"),
    "Storages of worlds": ("wgtorch.storage.base", "StorageRegistry"),
    "Conditions": ("wgtorch.world_runtime.conditions", "ConditionRegistry"),
    "Rules of merging": ("wgtorch.world_runtime.contract", "MergeRegistry"),
}


def main() -> None:
    """Writes all pages."""
    write("catalogue/blocks.md", catalogue("Blocks", "`wgtorch blocks NAME` prints any of these.", block_pages()))
    write("catalogue/templates.md", catalogue("Templates", "`wgtorch templates NAME` prints any of these.", template_pages()))
    write("catalogue/names.md", "\n".join(names()))
    for level in LEVELS:
        write(f"schemas/{level}.schema.json", json.dumps(schema_of(level)))
    write("reference/command-line.md", "\n".join(command_line()))
    write("index.md", from_root((ROOT / "README.md").read_text(encoding="utf-8")))
    write("contributing.md", from_root((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
    for picture in ("demo.png", "play.gif"):
        write(picture, (ROOT / "notebooks" / picture).read_bytes())


def write(name: str, content: str | bytes) -> None:
    """One page."""
    with mkdocs_gen_files.open(name, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)


def block_pages() -> Iterator[str]:
    """Every type of block."""
    for name in BlockRegistry.names():
        yield block_page(name)


def template_pages() -> Iterator[str]:
    """Every template."""
    for template in templates():
        yield template_page(template)


def catalogue(title: str, about: str, pages: Iterator[str]) -> str:
    """Pages one after the other, their headings a level lower."""
    lowered = [re.sub(r"^(#+) ", r"#\1 ", page, flags=re.MULTILINE) for page in pages]
    return "\n\n".join([f"# {title}", about, *lowered])


def names() -> Iterator[str]:
    """What is registered beside blocks and templates."""
    yield "# Registered names"
    for title, (module, attribute) in REGISTRIES.items():
        registry: Registry = getattr(import_module(module), attribute)
        yield f"\n## {title}\n\nOthers come from packages' entry points of the group `{registry.group}`.\n"
        for name in registry.names():
            entry = registry.get(name)
            yield f"- `{name}`: {summary_of(entry) if callable(entry) else ''}"


def command_line() -> Iterator[str]:
    """Every command with its help."""
    parser = make_parser()
    yield f"# Command line\n\n```text\n{parser.format_help()}```"
    commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for name, command in commands.choices.items():
        yield f"\n## wgtorch {name}\n\n```text\n{command.format_help()}```"


def from_root(text: str) -> str:
    """A page of the repository's root: its links to files of the tree lead nowhere on the site, so they are names."""
    text = text.replace("notebooks/demo.png", "demo.png").replace("notebooks/play.gif", "play.gif")
    return re.sub(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)(?:docs/)?([\w/.-]+)\)", _link, text)


def _link(match: re.Match[str]) -> str:
    return match.group(0) if (ROOT / "docs" / match.group(2)).is_file() else f"`{match.group(1)}`"


main()
