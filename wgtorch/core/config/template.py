"""Templates: functions that build a level from parameters, known by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from wgtorch.core.config.schema import argument_findings, config_error
from wgtorch.core.errors import ConfigError, UnknownNameError, suggest
from wgtorch.core.kinds import describe
from wgtorch.core.registry import Registry
from wgtorch.core.tree import is_level


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


def _as_template(name: str, found: Any) -> Template:
    """What an entry point of the group leads to: a function that builds a level, or a Template."""
    if isinstance(found, Template):
        return found
    level, slash, bare = name.partition("/")
    if not slash or not callable(found):
        what = f"leads to {describe(found)}" if slash else "has no level in its name"
        raise TypeError(f"{what}; expected a function that builds a level, under a name such as 'graph/{bare or name}'")
    return Template(level, bare, found)


TemplateRegistry: Registry[Template] = Registry("template", group="wgtorch.templates", accept=_as_template)


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
    """All templates that can be loaded, or those of one level; ``TemplateRegistry.faults()`` tells of the others."""
    TemplateRegistry.faults()
    return [TemplateRegistry.get(name) for name in TemplateRegistry.names() if level in (None, name.split("/", 1)[0])]


def build_template(level: str, name: str, params: Mapping[str, Any]) -> Any:
    """Builds a level from a template.

    Raises:
        UnknownNameError: there is no such template at this level.
        ConfigError: a parameter is unknown, missing or of another type; or what is built is no such level.
        PluginError: the package that brings it cannot be loaded.
    """
    key = f"{level}/{name}"
    if key not in TemplateRegistry:
        known = [entry.split("/", 1)[1] for entry in TemplateRegistry.names() if entry.startswith(f"{level}/")]
        raise UnknownNameError(f"unknown {level} template {name!r}; {suggest(name, known)}")
    template = TemplateRegistry.get(key)
    if not isinstance(params, Mapping):
        raise ConfigError(f"template {name!r}: params are {params!r}; expected parameters by name: {sorted(template.parameters)}")
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
    findings = argument_findings(template.build, params, f"template {name!r}")
    if findings:
        raise config_error(f"template {name!r}: what it is given", findings)
    built = template.build(**params)
    if not (is_level(built) and built.level == level):
        raise ConfigError(f"template {key!r} built {describe(built)}; expected a {level}")
    return built
