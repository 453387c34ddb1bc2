"""Templates: functions that build a level from parameters, known by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from wgtorch.core.errors import ConfigError, UnknownNameError, suggest
from wgtorch.core.registry import Registry


@dataclass(frozen=True, slots=True)
class Template:
    """A named recipe for a level.

    Args:
        level: ``graph``, ``pipeline``, ``stage`` or ``world``.
        name: what users type.
        build: makes the level; its keyword parameters are the template's.
    """

    level: str
    name: str
    build: Callable[..., Any]

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return (inspect.getdoc(self.build) or "").split("\n", 1)[0]

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """Parameters by name."""
        return dict(inspect.signature(self.build).parameters)


TemplateRegistry: Registry[Template] = Registry("template", group="wgtorch.templates")


def register_template(name: str, *, level: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: makes a function that builds a level known as a template.

    Example:
        >>> @register_template("text_to_image", level="graph")
        ... def text_to_image(*, steps: int = 20) -> Graph: ...
    """

    def decorate(build: Callable[..., Any]) -> Callable[..., Any]:
        TemplateRegistry.register(f"{level}/{name}", Template(level, name, build))
        return build

    return decorate


def templates(level: str | None = None) -> list[Template]:
    """All templates, or those of one level."""
    return [TemplateRegistry.get(name) for name in TemplateRegistry.names() if level in (None, name.split("/", 1)[0])]


def build_template(level: str, name: str, params: Mapping[str, Any]) -> Any:
    """Builds a level from a template.

    Raises:
        UnknownNameError: there is no such template at this level.
        ConfigError: a parameter is unknown or missing.
    """
    key = f"{level}/{name}"
    if key not in TemplateRegistry:
        known = [entry.split("/", 1)[1] for entry in TemplateRegistry.names() if entry.startswith(f"{level}/")]
        raise UnknownNameError(f"unknown {level} template {name!r}; {suggest(name, known)}")
    template = TemplateRegistry.get(key)
    takes_any = any(entry.kind is entry.VAR_KEYWORD for entry in template.parameters.values())
    for param in params:
        if param not in template.parameters and not takes_any:
            near = suggest(param, template.parameters)
            rest = f" Known: {sorted(template.parameters)}" if near.startswith("did you mean") else ""
            raise ConfigError(f"template {name!r}: unknown parameter {param!r}; {near}{rest}")
    missing = [
        entry.name
        for entry in template.parameters.values()
        if entry.default is entry.empty and entry.name not in params and entry.kind is not entry.VAR_KEYWORD
    ]
    if missing:
        raise ConfigError(f"template {name!r}: parameter {missing[0]!r} is needed; signature: {name}{inspect.signature(template.build)}")
    return template.build(**params)
