"""What there is to know of a block type or a template, as Markdown: what ``wgtorch blocks NAME`` prints, and the site shows."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable
from typing import Any

import yaml

from wgtorch.core.block import BlockRegistry
from wgtorch.core.config.schema import block_schema
from wgtorch.core.config.template import Template
from wgtorch.core.port import MISSING, Port
from wgtorch.core.registry import Registry

_SHOWN = 60  # letters of a default value


def summary_of(entry: Any) -> str:
    """The first line of a docstring."""
    return (inspect.getdoc(entry) or "").split("\n", 1)[0]


def block_page(name: str) -> str:
    """A block type: what it does, its ports, its config with types and defaults, and how a graph names it.

    Raises:
        UnknownNameError: there is no such type.
        PluginError: the package that brings it cannot be loaded.
    """
    block_class = BlockRegistry.get(name)
    written = (inspect.getdoc(block_class) or "").partition("\nPorts:\n")[0].rstrip()
    inputs, outputs = block_class.class_ports()
    parts = [f"# {name}", _fenced_examples(written)]
    parts += [_ports("Inputs", inputs.values()), _ports("Outputs", outputs.values()), _config(block_class)]
    needed = _needed(block_class)
    entry = {"node_id": name.rsplit("/", 1)[-1], "block_type": name, **({"config": needed} if needed else {})}
    parts += ["## In a config", f"```yaml\n{yaml.safe_dump(entry, sort_keys=False).rstrip()}\n```"]
    parts.append(f"Class `{block_class.__module__}.{block_class.__qualname__}`, from `{BlockRegistry.origin(name)}`.")
    return "\n\n".join(part for part in parts if part)


def template_page(template: Template) -> str:
    """A template: what it builds, its parameters with types and defaults, the ports of what it builds, and how to run it."""
    key = f"{template.level}/{template.name}"
    parts = [f"# {key}", _fenced_examples(inspect.getdoc(template.build) or "")]
    rows = [
        (f"`{name}`", _type_of(parameter), "needed" if parameter.default is parameter.empty else f"`{parameter.default!r}`")
        for name, parameter in template.parameters.items()
    ]
    parts += ["## Parameters", _table(("name", "type", "default"), rows) if rows else "None."]
    try:
        level = template.build()
    except Exception as error:  # it needs parameters, a package or a key; what the page says of it holds all the same
        return "\n\n".join([*parts, f"Its ports show once it is built; with no parameters that ends in: {summary_line(error)}"])
    if template.level == "world":
        parts += [
            "## Stages",
            ", ".join(f"`{stage}`" for stage in level.cycle) + "; slots " + ", ".join(f"`{s}`" for s in level.state_schema),
        ]
        parts += ["## Run it", f"```bash\nwgtorch run {key} --steps 3 --seed 1\n```"]
    else:
        inputs, outputs = level.get_input_spec(), level.get_output_spec()
        parts += [_ports("Inputs", inputs.values()), _ports("Outputs", outputs.values())]
        if template.level != "stage":
            given = "".join(f" --input {port.name}=..." for port in inputs.values() if not port.optional)
            parts += ["## Run it", f"```bash\nwgtorch run {key}{given} --seed 1\n```"]
    return "\n\n".join(parts)


def summary_line(error: BaseException) -> str:
    """An error in a line."""
    text = str(error).strip().split("\n", 1)[0]
    return f"{type(error).__name__}: {text}"


def tell_faults(registry: Registry[Any]) -> None:
    """Says on stderr which names other packages announce in a registry and fail to bring, whatever was asked for."""
    for fault in registry.faults():
        print(f"not loaded: {fault}", file=sys.stderr)


def show(markdown: str) -> None:
    """Prints Markdown: laid out where a person looks at it, as it is where a program reads it."""
    if not sys.stdout.isatty():
        print(markdown)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(markdown))


def _ports(title: str, ports: Iterable[Port]) -> str:
    rows = [(f"`{port.name}`", port.dtype, port.shape_text(), _must(port), port.description) for port in ports]
    return f"## {title}\n\n{_table(('name', 'kind', 'shape', '', 'what it is'), rows)}" if rows else ""


def _must(port: Port) -> str:
    several = "" if port.aggregation == "single" else f", {port.aggregation} of several"
    if port.direction == "out":
        return "may be left out" if port.optional else ""
    if port.default not in (MISSING, None):
        return f"default `{repr(port.default)[:_SHOWN]}`{several}"
    return ("optional" if port.optional else "needed") + several


def _config(block_class: type) -> str:
    schema = block_schema(block_class)
    parameters = inspect.signature(block_class).parameters
    rows = []
    for name, entry in schema["properties"].items():
        default = parameters[name].default if name in parameters else None
        needed = name in schema["required"]
        shown = "needed" if needed else f"`{repr(default)[:_SHOWN]}`"
        rows.append((f"`{name}`", _words(entry), shown))
    return f"## Config\n\n{_table(('name', 'type', 'default'), rows)}"


def _words(entry: Any) -> str:
    """A type in a schema, in words."""
    if not isinstance(entry, dict) or not entry:
        return "any"
    if "enum" in entry:
        return " or ".join(f"`{value}`" for value in entry["enum"])
    if "const" in entry:
        return f"`{entry['const']}`"
    if "anyOf" in entry:
        options = dict.fromkeys(word for option in entry["anyOf"] for word in _words(option).split(" or "))
        return " or ".join(sorted(options, key=lambda word: word == "null"))
    if entry.get("type") == "array":
        return f"list of {_words(entry.get('items'))}"
    found = entry.get("type", "any")
    return " or ".join(found) if isinstance(found, list) else str(found)


def _needed(block_class: type) -> dict[str, Any]:
    """Config values that have no default, as an example holds them."""
    schema = block_schema(block_class)
    samples = {"integer": 1, "number": 1.0, "string": "...", "boolean": False, "array": [], "object": {}}
    return {name: samples.get(str(schema["properties"][name].get("type")), "...") for name in schema["required"]}


def _type_of(parameter: inspect.Parameter) -> str:
    annotation = parameter.annotation
    if annotation is parameter.empty:
        return "any"
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return f"`{text}`".replace("|", r"\|")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("\n", " ") for cell in line) + " |" for line in lines)


def _fenced_examples(docstring: str) -> str:
    """A docstring whose sections are headings, and whose example is code; references are names in code."""
    lines: list[str] = []
    section = ""
    docstring = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", docstring)
    docstring = re.sub(r"``([^`]+)``", r"`\1`", docstring)
    for line in docstring.splitlines():
        if line and not line.startswith(" ") and line.endswith(":") and line[:-1] in ("Args", "Example", "Raises", "Returns"):
            lines += _closed(section)
            section = line[:-1]
            lines += [f"**{'Arguments' if section == 'Args' else section}**", "", *(["```pycon"] if section == "Example" else [])]
        elif section in ("Args", "Raises") and line.strip():
            is_entry = line.startswith("    ") and not line.startswith("     ")
            lines.append(f"- {line.strip()}" if is_entry else f"  {line.strip()}")
        else:
            if section and line and not line.startswith(" "):
                lines += _closed(section)
                section = ""
            lines.append(line.removeprefix("    ") if section else line)
    return "\n".join([*lines, *_closed(section)]).rstrip()


def _closed(section: str) -> list[str]:
    return ["```", ""] if section == "Example" else []
