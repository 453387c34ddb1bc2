"""A model's thoughts, kept apart from its answer, whichever tags they come in."""

from __future__ import annotations

import re
from collections.abc import Callable

_PAIRS = (
    ("<think>", "</think>"),  # DeepSeek, Qwen, SmolLM3
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),  # Gemini and Gemma by OpenAI's protocol
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),  # Magistral
    ("<seed:think>", "</seed:think>"),
    ("◁think▷", "◁/think▷"),  # Kimi
    ("<|channel>thought", "<channel|>"),  # Gemma 4
    ("<|channel|>analysis<|message|>", "<|start|>assistant<|channel|>final<|message|>"),  # gpt-oss
)
_NAMES = "think|thinking|thought|reasoning|antthinking"
_FORM = re.compile(rf"(?<![`'\"“])<(/?)({_NAMES})(?:\s[^<>]*?)?(/?)>", re.IGNORECASE)
_UNFINISHED = re.compile(rf"</?(?:{_NAMES})\s[^<>]{{0,200}}$", re.IGNORECASE)
"""Tags as some models write them: in capitals, with attributes, or by a longer name."""
_ENDS = ("<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<end_of_turn>", "</s>")
"""Tokens that end an answer, which some servers leave in its text."""
_LEFTOVERS = ("<|channel|>final<|message|>", "<|end|>", "<|return|>")
_TAGS = tuple(tag for pair in _PAIRS for tag in pair)
_HELD_BACK = (*_TAGS, *_LEFTOVERS, *_ENDS)


def split_thoughts(text: str) -> tuple[str, str]:
    """The answer in a model's text, and the thoughts in it.

    Thoughts stand between tags, before a closing tag whose opening one the chat template wrote, or after one that was never
    closed since the answer was cut. A tag in quotes is something the answer
    speaks of.

    Example:
        >>> split_thoughts("<think>hmm</think>\\n\\nthe answer")
        ('the answer', 'hmm')
    """
    text = _without_ends(text)
    plain = _FORM.sub(_plain_tag, text)
    if (not any(tag in plain for tag in _TAGS) and "/>" not in text) or (
        plain.lstrip()[:1] in ("{", "[") and not any(plain.lstrip().startswith(opening) for opening, _ in _PAIRS)
    ):  # a tag inside of JSON is a value's
        return text, ""
    text = plain
    thoughts: list[str] = []
    for opening, closing in _PAIRS:
        while (end := _find(text, closing)) >= 0:
            begin = _find(text, opening, end)
            before, after = text[: max(begin, 0)], text[end + len(closing) :]
            thoughts.append(text[begin + len(opening) if begin >= 0 else 0 : end])
            text = before + after if before.strip() and not before[-1].isspace() else (before if before.strip() else "") + after.lstrip()
        begin = _find(text, opening)
        if begin >= 0:
            thoughts.append(text[begin + len(opening) :])
            text = text[:begin].rstrip()
    if any("<|channel|>" in entry or "<|end|>" in entry for entry in (text, *thoughts)):
        for mark in _LEFTOVERS:
            text = text.replace(mark, "")
            thoughts = [entry.replace(mark, "") for entry in thoughts]
    return text, "\n\n".join(entry.strip() for entry in thoughts if entry.strip())


def _plain_tag(found: re.Match[str]) -> str:
    name = found[2].lower()
    if found[3]:  # a tag with nothing in it
        return ""
    return f"<{found[1]}{'thinking' if name == 'antthinking' else name}>"


def _without_ends(text: str) -> str:
    end = next((end for end in _ENDS if text.rstrip().endswith(end)), None)
    return text if end is None or (end == "</s>" and "<s>" in text) else _without_ends(text.rstrip().removesuffix(end))


def _find(text: str, tag: str, end: int | None = None) -> int:
    """Where a tag stands first that is not in quotes; -1 without one."""
    found = re.search(rf"(?<![`'\"“]){re.escape(tag)}", text[:end])
    return found.start() if found else -1


class AnswerStream:
    """Tells of an answer as it comes, without the thoughts in it.

    Args:
        tell: is given pieces of the answer; None where what was told turned out to be thoughts, and the answer begins anew.
    """

    def __init__(self, tell: Callable[[str | None], None]) -> None:
        self.pieces: list[str] = []
        self._tell = tell
        self._raw = ""
        self._told = ""
        self._is_plain = True

    def __call__(self, piece: str) -> None:
        """Takes in the next piece, as the model wrote it."""
        self._raw += piece
        if self._is_plain:
            self._is_plain = not any(tag[0] in self._raw for tag in _TAGS)
        if self._is_plain:
            self._say(piece)
        else:
            answer, _ = split_thoughts(self._raw)
            self._catch_up(answer[: len(answer) - _beginning_of_tag(answer)])

    def finish(self) -> None:
        """Tells the rest, which might have become a tag."""
        if not self._is_plain:
            self._catch_up(split_thoughts(self._raw)[0])

    def restart(self) -> None:
        """What came so far is void: another try begins."""
        if self._told:
            self._tell(None)
        self.pieces.clear()
        self._raw, self._told, self._is_plain = "", "", True

    def _catch_up(self, answer: str) -> None:
        if not answer.startswith(self._told):
            if self._told.startswith(answer):  # its last spaces, which stand before a tag
                return
            self._tell(None)
            self.pieces.clear()
            self._told = ""
        self._say(answer[len(self._told) :])

    def _say(self, piece: str) -> None:
        if piece and (self._told or piece.strip()):
            self._told += piece
            self.pieces.append(piece)
            self._tell(piece)


def _beginning_of_tag(text: str) -> int:
    """Letters at the end of a text that may be the beginning of a tag."""
    if unfinished := _UNFINISHED.search(text):
        return len(unfinished[0])
    longest = max(map(len, _HELD_BACK))
    for length in range(min(longest - 1, len(text)), 0, -1):
        if any(tag.startswith(text[-length:].lower()) or tag.startswith(text[-length:]) for tag in _HELD_BACK):
            return length
    return 0
