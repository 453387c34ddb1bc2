"""Choosing what of a world's content goes into a prompt of a given length. Pure, so the same content gives the same prompt."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from wgtorch.blocks.memory.counting import Count
from wgtorch.blocks.memory.notes import EPISODES, SUMMARY, Note, log_of, notes_of, notes_of_log, rendered, shortened
from wgtorch.blocks.memory.policies import Retrieve, Summarise

_RECALLED = "recalled"
"""The section of older notes that a query asks for; it stands last, as it is another one in every prompt."""
_RECALL_SHARE, _LIST_SHARE = 0.15, 0.6
"""Of a budget that holds not everything: for what is recalled, and of the rest at most for lists."""
_BLOCK = 4
"""Notes of a list that leave a prompt together, so that it keeps its beginning until the next do."""


@dataclass(frozen=True, slots=True)
class Recalled:
    """What was chosen.

    Args:
        text: the prompt's part, sections between tags.
        tokens: of the text.
        kept: notes in it.
        left_out: notes that are not, in the order of the content.
        cut: pinned sections that are there only in part.
    """

    text: str
    tokens: int
    included: tuple[Note, ...] = ()
    left_out: tuple[Note, ...] = ()
    cut: tuple[str, ...] = ()


@dataclass(slots=True)
class _Draft:
    """A prompt's part that grows while it fits."""

    order: Sequence[str]
    budget: int
    count: Count
    notes: list[Note] = field(default_factory=list)
    summaries: dict[str, str] = field(default_factory=dict)

    def text(self, *more: Note, **summaries: str) -> str:
        said = {**self.summaries, **summaries}
        notes = sorted([*self.notes, *more], key=lambda note: self.order.index(note.section))
        sections = [section for section in self.order if section in said or any(note.section == section for note in notes)]
        return "\n".join(
            rendered([note for note in notes if note.section == section], {section: said[section]} if section in said else None)
            for section in sections
        )

    def fits(self, *more: Note, **summaries: str) -> bool:
        return self.count(self.text(*more, **summaries)) <= self.budget

    def room(self, section: str) -> int:
        """Tokens that a text in a section may have; counting is not quite additive, so the caller looks again."""
        return self.budget - self.count(self.text(Note(section, 0, "")))


def recall(
    content: Mapping[str, Any],
    query: str,
    *,
    budget: int,
    count: Count,
    pinned: Sequence[str],
    hidden: Collection[str],
    recent: int,
    retrieve: Retrieve,
    summarise: Summarise,
    summary_share: float,
    stable_first: bool = False,
) -> Recalled:
    """Content as a prompt's part of at most ``budget`` tokens.

    First the pinned fields, each whole or, where even that is too long, its beginning; then the newest notes of each list;
    then what the retrieve policy wants most, as long as it fits. Of lists that are not there in full, what is left out is
    summarised in a share of the budget that is kept free for it.

    With ``stable_first`` what stays stands first, for models that keep what they read of a prompt's beginning: pinned fields, other
    values, glossary and summary as they were when episodes were last forgotten, then the chronicle, which grows at its end, each
    episode with what was noted of names in it. Where not everything fits, notes leave in blocks of four, whatever the query, and those
    of them that it asks for stand last.

    Args:
        content: what the world is.
        query: what the prompt is about.
        budget: most tokens.
        count: tokens of a text.
        pinned: fields that are always there, the most important first.
        hidden: fields that never are.
        recent: notes of each list that are taken before anything is searched for.
        retrieve, summarise: policies.
        summary_share: of the budget, for summaries, in [0, 1).
        stable_first: what stays stands first; else sections stand in the content's order.
    """
    log = log_of(content) if stable_first else None
    notes = notes_of(content, hidden) if log is None else notes_of_log(content, hidden, log)
    notes = [note for note in notes if note.section != SUMMARY or log is not None or not _tells_all(content, notes)]
    draft = _Draft(_order(notes, pinned, stable_first), budget, count)
    cut = [section for section in pinned if not _pin(draft, [note for note in notes if note.section == section])]
    lists = {note.section for note in notes if note.age and note.section not in pinned}
    free = [note for note in notes if note.section not in pinned]
    reserve = int(budget * summary_share) if lists else 0
    if stable_first:
        recalled = _in_blocks(draft, free, lists, query, recent, retrieve, summarise, reserve)
        text, shown = draft.text(), {*draft.notes, *recalled}
        return Recalled(text, count(text), tuple(draft.notes), tuple(note for note in notes if note not in shown), tuple(cut))
    newest = sorted((note for note in free if note.section in lists and note.age < recent), key=lambda note: note.age)
    draft.budget = budget - reserve
    for note in [*newest, *retrieve([note for note in free if note not in newest], query)]:
        if draft.fits(note):
            draft.notes.append(note)
    draft.budget = budget
    for section in (section for section in draft.order if section in lists):
        _summarise(draft, [note for note in free if note.section == section and note not in draft.notes], summarise, reserve // len(lists))
    included = {(note.section, note.index) for note in draft.notes}
    left_out = tuple(note for note in notes if (note.section, note.index) not in included)
    text = draft.text()
    return Recalled(text, count(text), tuple(draft.notes), left_out, tuple(cut))


def _order(notes: Sequence[Note], pinned: Sequence[str], stable_first: bool) -> list[str]:
    """The sections in the order that they stand in."""
    lists = {note.section for note in notes if note.age}

    def rank(name: str) -> int:
        return 3 if name == EPISODES else 0 if name in pinned else 2 if name in lists else 1

    order = list(dict.fromkeys(note.section for note in notes))
    return [*sorted(order, key=rank), _RECALLED] if stable_first else order


def _in_blocks(
    draft: _Draft,
    free: Sequence[Note],
    lists: Collection[str],
    query: str,
    recent: int,
    retrieve: Retrieve,
    summarise: Summarise,
    reserve: int,
) -> list[Note]:
    """Takes what fits, the same from prompt to prompt; gives the older notes that the query brought back."""
    if draft.fits(*free):
        draft.notes += free
        return []
    whole, taken = draft.budget, draft.count(draft.text())
    room = max(0, int(whole * (1 - _RECALL_SHARE)) - reserve - taken)
    for share, sections in ((_LIST_SHARE, sorted(lists)), (1.0, [name for name in draft.order if name not in lists])):
        draft.budget = taken + int(share * room)
        for section in sections:
            own = [note for note in free if note.section == section]
            fitting = 0
            while fitting < len(own) and draft.fits(*own[len(own) - fitting - 1 :]):
                fitting += 1
            at = len(own) - fitting
            if section in lists:
                at = max(at, min(-(-at // _BLOCK) * _BLOCK, len(own) - recent))
            draft.notes += own[at:]
    draft.budget = whole - int(whole * _RECALL_SHARE)
    left_out = [note for note in free if note not in draft.notes]
    for section in sorted(lists):
        _summarise(draft, [note for note in left_out if note.section == section], summarise, reserve // len(lists))
    draft.budget, recalled = whole, list[Note]()
    for note in retrieve(left_out, query):
        if draft.fits(again := Note(_RECALLED, len(recalled), note.text, age=1)):
            draft.notes.append(again)
            recalled.append(note)
    return recalled


def _tells_all(content: Mapping[str, Any], notes: Sequence[Note]) -> bool:
    """True while several episodes are there, every one in full, so that a summary of them only repeats them."""
    told = sum(note.section == EPISODES for note in notes)
    return told > 1 and content.get("episodes") == told


def _pin(draft: _Draft, notes: Sequence[Note]) -> bool:
    """Takes notes that must be there; false when some of their text had to go."""
    for note in notes:
        if draft.fits(note):
            draft.notes.append(note)
            continue
        room = draft.room(note.section)
        while room > 0:
            part = replace(note, text=shortened(note.text, room, draft.count))
            if not part.text:
                break
            if draft.fits(part):
                draft.notes.append(part)
                break
            room -= 1
        return False
    return True


def _summarise(draft: _Draft, left_out: Sequence[Note], summarise: Summarise, share: int) -> None:
    """Adds words for the notes of one list that are left out, where there is room for any."""
    room = min(share, draft.room(left_out[0].section)) if left_out else 0
    while room > 0:
        words = summarise([note.text for note in left_out], room, draft.count)
        if not words:
            return
        if draft.fits(**{left_out[0].section: words}):
            draft.summaries[left_out[0].section] = words
            return
        room -= 1
