"""Chapters: who wanted what, and what came of it."""

from __future__ import annotations

from wgtorch.blocks.simulation.lives import live
from wgtorch.blocks.simulation.telling.chapters import story_chapters


def test_chapters_follow_what_the_traveller_wants() -> None:
    episodes = [(number, {"resolution": {"events": passage.events}}) for number, passage in enumerate(live(3, 40, told=False), start=1)]
    chapters = story_chapters(episodes, "the traveller")
    assert len(chapters) >= 3
    assert [chapter.first for chapter in chapters] == sorted(chapter.first for chapter in chapters)
    assert {chapter.came_of_it for chapter in chapters[:-1]} <= {"done", "given up"}
    assert chapters[0].title.startswith("How the traveller wanted to ")


def test_plain_words_open_no_chapter() -> None:
    assert [chapter.title for chapter in story_chapters([(1, "a storm comes"), (2, None)], "Anna")] == ["How it began"]
