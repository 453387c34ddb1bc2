"""Keeping episodes: chronicle, glossary, summary, and what is forgotten."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from wgtorch.blocks.memory import Keep, register_forget
from wgtorch.core.errors import ConfigError, PortError, UnknownNameError


def lived(keep: Keep, outcomes: list[str], content: dict[str, Any] | None = None) -> dict[str, Any]:
    content = content or {"style": "ink"}
    for outcome in outcomes:
        content = keep(outcome=outcome, content=content)["content"]
    return content


DAYS = [f"Day {number} came. The rest of it is long." for number in range(1, 7)]


def test_an_episode_is_added_and_the_content_before_stays_as_it_was() -> None:
    before = {"style": "ink", "chronicle": ["a"], "glossary": {"Mara": "old"}, "mine": [1]}
    copied = copy.deepcopy(before)
    after = Keep()(outcome="b", content=before)["content"]
    assert before == copied
    assert after == {**before, "chronicle": ["a", "b"], "episodes": 2}


def test_what_is_forgotten_goes_into_the_summary() -> None:
    content = lived(Keep(episodes=2), DAYS)
    assert content["chronicle"] == DAYS[-2:] and content["episodes"] == 6
    assert content["summary"].startswith("Day 1 came.") and "long" not in content["summary"]
    assert "summary" not in lived(Keep(episodes=2, summarise="nothing"), DAYS)


def test_a_models_records_win_over_the_policy() -> None:
    records = {"summary": "All of it.", "glossary": [{"name": "Tom", "description": "a boy"}, {"name": "Mara", "description": "older now"}]}
    before = {"glossary": {"Mara": "old", "Wren": "a boat"}, "chronicle": DAYS[:2], "summary": "Before."}
    content = Keep(episodes=2, names=2)(outcome="c", content=before, records=records)["content"]
    assert content["summary"] == "All of it."
    assert content["glossary"] == {"Tom": "a boy", "Mara": "older now"}, "what was written longest ago goes first"


def test_names_that_are_spoken_of_keep_an_episode() -> None:
    told = ["Mara lost the key.", "It rained.", "Nothing happened.", "The wind blew.", "Night fell."]
    content = lived(Keep(episodes=4, forget="idle"), told, {"glossary": {"Mara": "old"}})
    assert content["chronicle"] == ["Mara lost the key.", *told[2:]]
    assert lived(Keep(episodes=2, forget="never"), told)["chronicle"] == told


def test_policies_are_open_to_more() -> None:
    @register_forget("test/all")
    def everything(episodes, keep, glossary):
        return range(len(episodes))

    assert lived(Keep(forget="test/all"), DAYS)["chronicle"] == []


def test_mistakes() -> None:
    with pytest.raises(ConfigError, match="episodes: found 0"):
        Keep(episodes=0)
    with pytest.raises(UnknownNameError, match="unknown forget policy 'oldst'; did you mean 'oldest'"):
        Keep(forget="oldst")
    with pytest.raises(PortError, match=r"records: found 'sumary'; expected 'glossary' and 'summary'"):
        Keep()(outcome="a", records={"sumary": "x"})
    with pytest.raises(PortError, match="glossary: found"):
        Keep()(outcome="a", records={"glossary": ["Mara"]})


def test_episodes_may_be_forgotten_together() -> None:
    keep, content = Keep(episodes=4, at_once=3), {}
    lengths = []
    for number in range(9):
        content = keep(content=content, outcome=f"Episode {number}.")["content"]
        lengths.append(len(content["chronicle"]))
    assert lengths == [1, 2, 3, 4, 2, 3, 4, 2, 3] and content["episodes"] == 9
    with pytest.raises(ConfigError, match="at_once: found 5, expected 1 to 4"):
        Keep(episodes=4, at_once=5)
