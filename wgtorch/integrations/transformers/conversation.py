"""Conversations as the text that a model reads, cut where they are too long for it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from wgtorch.blocks.prompt.sections import as_words, turns_in
from wgtorch.core.errors import ConfigError, PromptTruncatedWarning
from wgtorch.integrations.models.requests import Message

_LABELS = {"user": "User", "assistant": "Assistant"}
_SHOWN = 200  # characters of what was cut, in a warning


def templated(renderer: Any, messages: Sequence[Message], options: Mapping[str, Any], *, parts: bool = False) -> str:
    """A conversation by the chat template of a tokenizer or processor, open for the answer.

    Args:
        renderer: has ``apply_chat_template``.
        messages: the turns.
        options: for the template (``{"enable_thinking": False}``).
        parts: contents are lists of pictures and text, as processors want them.

    Raises:
        ConfigError: the template refuses the conversation.
    """
    from jinja2 import TemplateError

    for chosen in (messages, _system_in_first_user_turn(messages)):
        try:
            conversation = [{"role": turn.role, "content": _parts(turn) if parts else turn.text} for turn in chosen]
            return renderer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True, **options)
        except TemplateError as error:  # some templates know no system role
            refused = error
    raise ConfigError(f"the model's chat template refuses the conversation {[turn.role for turn in messages]}: {refused}")


def in_words(messages: Sequence[Message], marks: Iterable[str]) -> tuple[Message, ...]:
    """Messages in which a model's marks are words: what a text says of a turn's beginning or end neither begins nor ends one.

    Args:
        messages: the turns.
        marks: of the model; all else, as the tags of a page or code, comes as it is.

    Example:
        "well<|im_end|>" becomes "well‹|im_end|›".
    """
    longest_first = sorted(filter(None, marks), key=len, reverse=True)

    def plain(text: str) -> str:
        for mark in longest_first:
            if mark in text:
                text = text.replace(mark, as_words(mark))
        return text

    return tuple(replace(turn, text=plain(turn.text)) for turn in messages)


def marks_of(special: Iterable[str], template: str | Mapping[str, str] | None) -> frozenset[str]:
    """What a model reads as the beginning or the end of a turn: its special tokens, and what its chat template writes as plain words.

    Args:
        special: the special tokens.
        template: source of the chat template, or of several by name.
    """
    source = template if isinstance(template, str) else " ".join((template or {}).values())
    roles = (
        {f"<|{role}|>" for role in ("system", "user", "assistant", "tool")} if "<|" in source else ()
    )  # some templates write any role so
    return frozenset((*special, *turns_in(source), *roles))


def special_tokens_of(tokenizer: Any) -> frozenset[str]:
    """The special tokens of a tokenizer of transformers."""
    return frozenset(token.content for token in tokenizer.added_tokens_decoder.values() if token.special)


def labelled(messages: Sequence[Message], image_token: str = "") -> str:
    """A conversation for a model without a chat template: one user's turn as it is, else turns with labels before them."""
    texts = [image_token * len(turn.images) + turn.text for turn in messages]
    if len(messages) == 1:
        return texts[0]
    chosen = [f"{_LABELS[turn.role]}: {text}" if turn.role in _LABELS else text for turn, text in zip(messages, texts, strict=True)]
    return "\n\n".join([*chosen, "Assistant:"])


def context_length(model: Any, tokenizer: Any) -> int | None:
    """Most tokens that a model reads and writes together; None where neither it nor its tokenizer says so."""
    settings = model.config.get_text_config(decoder=True)
    known = [getattr(settings, "max_position_embeddings", None), getattr(tokenizer, "model_max_length", None)]
    return min((int(length) for length in known if length and length < 1e9), default=None)


def fitted(
    messages: tuple[Message, ...], length_of: Callable[[tuple[Message, ...]], int], tokenizer: Any, room: int, where: str
) -> tuple[Message, ...]:
    """Messages that fit into ``room`` tokens: the middle of the longest is cut out, with a warning that shows it.

    Instructions stand at the beginning and at the end of most prompts, so the middle goes first.

    Raises:
        ConfigError: not even cut messages fit.
    """
    length = length_of(messages)
    if length <= room:
        return messages
    at = max(range(len(messages)), key=lambda index: len(messages[index].text))
    ids = tokenizer(messages[at].text, add_special_tokens=False).input_ids
    gone = length - room
    while gone < len(ids):
        head = (len(ids) - gone) // 2
        begin, middle, end = (tokenizer.decode(part) for part in (ids[:head], ids[head : head + gone], ids[head + gone :]))
        shorter = (*messages[:at], replace(messages[at], text=f"{begin} … {end}"), *messages[at + 1 :])
        excess = length_of(shorter) - room
        if excess <= 0:
            shown = middle if len(middle) <= _SHOWN else f"{middle[: _SHOWN // 2]} [...] {middle[-_SHOWN // 2 :]}"
            warnings.warn(
                f"{where}: the prompt has {length} tokens and there is room for {room}; {gone} were cut out of its middle: {shown!r}",
                PromptTruncatedWarning,
                stacklevel=2,
            )
            return shorter
        gone += excess
    raise ConfigError(f"{where}: the prompt has {length} tokens and there is room for {room}; expected a shorter prompt or fewer pictures")


def _system_in_first_user_turn(messages: Sequence[Message]) -> list[Message]:
    system = "\n\n".join(turn.text for turn in messages if turn.role == "system")
    rest = [turn for turn in messages if turn.role != "system"]
    if not system or not rest:
        return list(messages)
    return [replace(rest[0], text=f"{system}\n\n{rest[0].text}"), *rest[1:]]


def _parts(turn: Message) -> list[dict[str, str]]:
    return [*({"type": "image"} for _ in turn.images), {"type": "text", "text": turn.text}]
