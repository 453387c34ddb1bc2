"""Prompts: words with places for values, as a block whose ports are those places."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from wgtorch.blocks.prompt.sections import has_tags, without_tags, without_turns
from wgtorch.core.block import Block, register_block
from wgtorch.core.errors import ConfigError
from wgtorch.core.port import Port


@register_block("prompt")
class Prompt(Block):
    """Fills values into a prompt, and into what the model is told before it.

    Both are templates of Jinja (https://jinja.palletsprojects.com) in its sandbox; each name in them is an input. The filter
    ``listed`` puts a list of texts on lines with numbers before them, and leaves a single text as it is.

    Where the prompt has sections between tags - in the templates, or in an input that ``sections`` names - no other value can
    close or open one: tags in it are written in typographic brackets. So is what begins and ends turns (``<|im_end|>``), in any prompt.

    Example:
        >>> ask = Prompt(prompt="{{ intent }}{% if action %} The user wants: {{ action }}{% endif %}", optional=["action"])
        >>> ask(intent="A storm comes.")["prompt"]
        'A storm comes.'

    Args:
        prompt: the template of the prompt.
        system: of what the model is told first.
        optional: inputs that need not be fed; in the templates they are then ``none``.
        sections: inputs that bring sections of their own, as the ``context`` of a memory does.
    """

    outputs: Mapping[str, Any] = {
        "prompt": Port(dtype="text", description="the prompt with its values filled in"),
        "system": Port(dtype="text", optional=True, description="the system prompt with its values filled in; only where there is one"),
    }
    uses_global_rng = False

    def __init__(
        self, *, prompt: str, system: str | None = None, optional: Sequence[str] = (), sections: Sequence[str] = ("context",)
    ) -> None:
        super().__init__()
        from jinja2 import StrictUndefined, TemplateSyntaxError, meta
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        words = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, autoescape=False)
        words.filters["listed"] = listed
        self._templates = {}
        names: list[str] = []
        for part, text in (("system", system), ("prompt", prompt)):
            if text is None:
                continue
            try:
                names += sorted(meta.find_undeclared_variables(words.parse(text)))
                self._templates[part] = words.from_string(text)
            except TemplateSyntaxError as error:
                raise ConfigError(f"prompt.{part}, line {error.lineno}: {error.message}; expected a template of Jinja") from error
        if unused := [name for name in optional if name not in names]:
            raise ConfigError(f"prompt.optional: {unused[0]!r} is not in the templates; they name {sorted(set(names))}")
        self.optional = tuple(optional)
        self.sections = frozenset(sections)
        self._tagged = has_tags(prompt) or has_tags(system or "")
        self.inputs = {name: Port(optional=name in optional, description=f"put in place of {{{{ {name} }}}}") for name in names}

    def forward(self, **values: Any) -> dict[str, Any]:
        """``prompt``, and ``system`` where there is one, with the values filled in; blank lines in a row become one.

        Raises:
            ConfigError: the template asks something of a value that it has not.
        """
        from jinja2 import TemplateError

        tagged = self._tagged or any(has_tags(str(values.get(name) or "")) for name in self.sections)
        whole = self.sections if tagged else values  # which may have tags
        plain = {name: _each_text(without_turns if name in whole else without_tags, value) for name, value in values.items()}
        known = {**dict.fromkeys(self.optional), **plain}
        try:
            return {part: re.sub(r"\n{3,}", "\n\n", template.render(known)).strip() for part, template in self._templates.items()}
        except TemplateError as error:
            raise ConfigError(f"{self.block_id}: {error}; the template was given {sorted(known)}") from error

    def __deepcopy__(self, memo: dict[int, Any]) -> Prompt:
        return type(self)(**self.config)  # compiled templates cannot be copied

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), **self.config), ()


def listed(value: Any) -> str:
    """Texts on lines with numbers before them; a single text as it is."""
    if not isinstance(value, (list, tuple)):
        return str(value)
    if len(value) == 1:
        return str(value[0])
    return "\n".join(f"{number}. {text}" for number, text in enumerate(value, start=1))


def _each_text(change: Callable[[str], str], value: Any) -> Any:
    """A value each of whose texts is changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {_each_text(change, name): _each_text(change, entry) for name, entry in value.items()}
    return [_each_text(change, entry) for entry in value] if isinstance(value, (list, tuple)) else value
