"""A world's content as notes, each of which goes into a prompt whole or not at all. All functions are pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wgtorch.blocks.prompt.sections import section as between_tags
from wgtorch.world_runtime.state import holds_something

GLOSSARY, SUMMARY, EPISODES = "glossary", "summary", "chronicle"
LOG = "records"
"""The field in which ``memory/keep`` holds what prompts were told of names and summary, and when; no section of a prompt."""


@dataclass(frozen=True, slots=True)
class Log:
    """Glossary and summary as prompts know them: as they were once, and what was noted since.

    Args:
        glossary, summary: as they were when episodes were last forgotten.
        noted: for each episode of the chronicle, the names that were written then.
    """

    glossary: Mapping[str, str]
    summary: str
    noted: tuple[Mapping[str, str], ...]


@dataclass(frozen=True, slots=True)
class Note:
    """One thing that the content says.

    Args:
        section: the field of the content it stands in.
        index: its place there.
        text: in words, on one line or several.
        age: how many notes of its section are newer; 0 where order means nothing.
    """

    section: str
    index: int
    text: str
    age: int = 0


def notes_of(content: Mapping[str, Any], hidden: Collection[str] = ()) -> list[Note]:
    """The notes of a content, in its order: one for each item of a list, each entry of a mapping, and each other value.

    Args:
        content: what the world is.
        hidden: fields that are not for a prompt.
    """
    notes: list[Note] = []
    for section, value in content.items():
        if section in hidden or section == LOG or not holds_something(value):
            continue
        if isinstance(value, Mapping):
            notes += [Note(section, index, f"{name}: {said(entry)}") for index, (name, entry) in enumerate(value.items())]
        elif isinstance(value, (list, tuple)):
            notes += [Note(section, index, said(entry), len(value) - 1 - index) for index, entry in enumerate(value)]
        else:
            notes.append(Note(section, 0, said(value)))
    return notes


def notes_of_log(content: Mapping[str, Any], hidden: Collection[str], log: Log) -> list[Note]:
    """The notes of a content as its log has them: what is noted of names since stands below the episode that brought it."""
    chronicle = [
        "\n".join([said(episode), *(f"  ({name}: {words})" for name, words in noted.items() if GLOSSARY not in hidden)])
        for episode, noted in zip(content.get(EPISODES) or (), log.noted, strict=True)
    ]
    return notes_of({**content, GLOSSARY: log.glossary, SUMMARY: log.summary, EPISODES: chronicle}, hidden)


def log_of(content: Mapping[str, Any]) -> Log | None:
    """The log of a content; None where there is none, or where it is not what the content says, as after an edit."""
    stored, glossary = content.get(LOG), content.get(GLOSSARY) or {}
    try:
        log = Log(dict(stored["glossary"]), str(stored["summary"]), tuple(map(dict, stored["noted"])))  # type: ignore[index]
        written = stored["written"]  # type: ignore[index]
    except (TypeError, ValueError, KeyError):
        return None
    known = dict(log.glossary)
    for noted in log.noted:
        known |= noted
    same = known == glossary and written == (content.get(SUMMARY) or "")
    return log if same and len(log.noted) == len(content.get(EPISODES) or ()) else None


def said(value: Any) -> str:
    """A value of the content in words."""
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {said(entry)}" for name, entry in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(said(entry) for entry in value)
    return str(value).strip()


def rendered(notes: Iterable[Note], summaries: Mapping[str, str] | None = None) -> str:
    """Notes as text, each section between tags of its name; a summary of a section stands before its notes.

    No note can close its section or open another: tags in it are written in typographic brackets.
    """
    summaries = summaries or {}
    sections: dict[str, list[Note]] = {section: [] for section in summaries}
    for note in notes:
        sections.setdefault(note.section, []).append(note)
    blocks = []
    for section, inside in sections.items():
        lines = [summaries[section]] if section in summaries else []
        ordered = sorted(inside, key=lambda note: note.index)
        lines += [f"- {note.text}" if len(ordered) > 1 or note.index or note.age else note.text for note in ordered]
        blocks.append(between_tags(section, lines))
    return "\n".join(blocks)


def sentences(text: str) -> list[str]:
    """The sentences of a text, in any language that ends them with a mark."""
    parts = re.findall(r".+?(?:[.!?…]+[\"'»”’)\]]*(?=\s|$)|[。！？]+[」』”]?|$)", text.replace("\n", " "))
    return [part.strip() for part in parts if part.strip()]


def stems(text: str) -> list[str]:
    """The words of a text in small letters, cut to what inflection leaves alone in most: their first five letters.

    Where words are not set apart (Chinese, Japanese, Thai) pairs of neighbouring characters stand for them.
    """
    found: list[str] = []
    for word in re.findall(r"\w+", text.lower()):
        if any("\u0e00" <= letter <= "\u0e7f" or "\u3040" <= letter <= "\u9fff" for letter in word):
            found += [word[at : at + 2] for at in range(max(1, len(word) - 1))]
        elif len(word) > 2:
            found.append(word[:5])
    return found


def shortened(text: str, limit: int, count: Any) -> str:
    """The beginning of a text that has at most ``limit`` tokens: whole sentences if one fits, else whole words, with an ellipsis."""
    if count(text) <= limit:
        return text
    for parts, joint in ((sentences(text), " "), (text.split(" "), " "), (list(text), "")):
        fitting = _longest(parts, joint, limit, count)
        if fitting:
            return fitting
    return ""


def _longest(parts: Sequence[str], joint: str, limit: int, count: Any) -> str:
    low, high = 0, len(parts)
    while low < high:  # tokens of a beginning grow with it
        middle = (low + high + 1) // 2
        low, high = (middle, high) if count(joint.join(parts[:middle]) + " …") <= limit else (low, middle - 1)
    return joint.join(parts[:low]) + " …" if low else ""
