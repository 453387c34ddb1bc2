"""A life as chapters: who wanted what, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class StoryChapter:
    """Some episodes in which somebody pursues one thing.

    Args:
        first: number of the first episode, from 1.
        who: whose chapter it is; empty where nobody wants anything.
        wanted: the wish as an infinitive.
        came_of_it: ``done``, ``given up``, or ``open``.
    """

    first: int
    who: str = ""
    wanted: str = ""
    came_of_it: str = "open"

    @property
    def title(self) -> str:
        """The chapter's title: ``How Anna wanted to see Karsk, and did``."""
        if not self.wanted:
            return "How it began"
        end = {"done": "and it came to pass", "given up": "and gave it up", "open": "and it is not over yet"}[self.came_of_it]
        return f"How {self.who} wanted to {self.wanted}, {end}"


def story_chapters(episodes: Sequence[tuple[int, Any]], who: str) -> list[StoryChapter]:
    """The chapters of a life, by what one of its characters wanted.

    Args:
        episodes: number and intent of each episode, in order; an intent of plain words opens no chapter.
        who: whose wishes make the chapters.
    """
    found: list[StoryChapter] = []
    for number, intent in episodes:
        resolution = intent.get("resolution") if isinstance(intent, Mapping) else None
        events = resolution.get("events", ()) if isinstance(resolution, Mapping) else ()
        for event in events:
            if event.get("actor") != who:
                continue
            if event["verb"] == "want":
                found.append(StoryChapter(number, who, str(event["details"]["wish"])))
            elif event["verb"] in ("finish", "give_up") and found:
                found[-1].came_of_it = "done" if event["verb"] == "finish" else "given up"
        if not found:
            found.append(StoryChapter(number))
    return found
