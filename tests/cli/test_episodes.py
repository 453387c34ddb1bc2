"""A world's life as episodes: each told once and whole, wherever a run begins or ends."""

from __future__ import annotations

import torch

from tests.cli.toy import toy_world
from wgtorch.cli.episode_text import Episode, episodes
from wgtorch.core.run.events import Event
from wgtorch.report.words import words


def told(found: list[Episode]) -> list[tuple[int, str, str]]:
    return [(episode.number, episode.state.intent, episode.state.outcome) for episode in found]


def test_every_episode_is_told_whole_the_last_one_too() -> None:
    world = toy_world()
    found = list(episodes(world, 3, seed=1))
    assert told(found) == [(1, "after 0: rest", "grey 0.3"), (2, "after 1: rest", "grey 0.3"), (3, "after 2: rest", "grey 0.3")]
    assert all(episode.state.complete for episode in found)
    assert (world.life.passes, world.cycle[world.life.stage]) == (3, "scribe"), "stopped just before the next episode begins"


def test_going_on_tells_the_same_as_never_having_stopped() -> None:
    whole = toy_world()
    expected = told(list(episodes(whole, 5, seed=1)))
    parts = toy_world()
    found = told(list(episodes(parts, 2, seed=1)))
    again = told(list(episodes(parts, 3)))
    assert again[0] == found[-1], "the episode in flight is told again, for whoever did not hear it"
    assert [*found, *again[1:]] == expected
    assert parts.content == whole.content
    assert parts.life.passes == whole.life.passes == 5


def test_an_episode_left_in_the_middle_is_told_by_the_run_that_goes_on() -> None:
    world = toy_world()
    for step in world.stream(num_steps=2, seed=1):
        if step.index == 1 and step.stage == "scribe":
            break
    assert told(list(episodes(world, 2))) == [(2, "after 1: rest", "grey 0.3"), (3, "after 2: rest", "grey 0.3")]


def test_each_episode_knows_the_action_of_its_own_pass() -> None:
    found = list(episodes(toy_world(), 3, actions=["dig", None]))
    assert [(episode.action, episode.state.intent) for episode in found] == [
        ("dig", "after 0: dig"),
        (None, "after 1: rest"),
        (None, "after 2: rest"),
    ]


def test_a_world_whose_cycle_begins_with_the_new_state_needs_no_extra_stage() -> None:
    world = toy_world(remembers=False)
    started: list[str] = []

    def note(event: Event) -> None:
        if event.kind == "start" and event.level == "stage":
            started.append(event.path)

    found = list(episodes(world, 2, callbacks=[note]))
    assert [episode.number for episode in found] == [1, 2]
    assert all(episode.state.complete for episode in found)
    assert started == ["scribe", "painter", "looker"] * 2


def test_without_a_stage_that_starts_a_state_each_pass_is_an_episode() -> None:
    found = list(episodes(toy_world(remembers=False, begins=False), 2, actions=["dig", "rest"]))
    assert [(episode.number, episode.action, episode.state.intent) for episode in found] == [
        (1, "dig", "after 0: dig"),
        (2, "rest", "after 0: rest"),
    ]


def test_no_passes_tell_nothing() -> None:
    world = toy_world()
    assert list(episodes(world, 0)) == []
    assert world.life.is_new


def test_the_storage_is_free_when_the_listener_leaves(tmp_path) -> None:
    world = toy_world()
    world.set_storage({"state_dir": tmp_path / "states"})
    for _ in episodes(world, 3, seed=1):
        break
    other = toy_world()
    other.set_storage({"state_dir": tmp_path / "states"})
    assert other.resume().run(num_steps=1).filled


def test_words_for_people() -> None:
    assert words(None) == ""
    assert words("a storm") == "a storm"
    assert words(["a", "b", "a"]) == "a\nb"
    assert words({"prompts": ["a hill", "a hill"], "scene": {"time": "day"}}) == "a hill"
    assert words({"size": 64, "tint": "blue"}) == "size: 64; tint: blue"
    assert words(torch.zeros(1, 3, 4, 4)) == "Tensor[1, 3, 4, 4] float32"
