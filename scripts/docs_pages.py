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
from typing import Any

import mkdocs_gen_files
import torch

from wgtorch.cli.options import LEVELS, make_parser
from wgtorch.cli.pages import block_page, summary_of, template_page
from wgtorch.cli.schema import schema_of
from wgtorch.core.block import BlockRegistry
from wgtorch.core.config.template import templates
from wgtorch.core.registry import Registry
from wgtorch.graph import Graph
from wgtorch.storage.media import png_bytes

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
PROMPT = "a red castle by the sea at night"
PAINTED = {"graph/text_to_image", "graph/image_to_image", "graph/inpaint", "graph/upscale", "pipeline/text_to_image_refine"}


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
    """Every template, with a picture of what it paints where the models that ship with the package do."""
    scene = Graph.from_template("text_to_image").run({"prompt": PROMPT}, seed=1)["image"]
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 32:] = 1.0
    given = {"prompt": PROMPT, "image": scene, "mask_image": mask}
    for template in templates():
        page = template_page(template)
        if f"{template.level}/{template.name}" in PAINTED:
            level: Any = template.build()
            inputs = {name: value for name, value in given.items() if name in level.get_input_spec()}
            inputs |= {"prompt": PROMPT.replace("night", "dawn in the snow")} if "image" in inputs and "prompt" in inputs else {}
            picture = f"{template.level}_{template.name}.png"
            write(f"catalogue/{picture}", png_bytes(level.run(inputs, seed=1)["image"][0]))
            shown = f"`{inputs['prompt']}`" if "prompt" in inputs else "the picture of `graph/text_to_image`, larger"
            page += f"\n\n![{template.name}]({picture}){{ width=256 }}\n\n{shown}"
        yield page


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
