"""The folder that a run leaves: pictures, texts, and what an earlier run wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from wgtorch.cli.episode_text import Episode
from wgtorch.cli.storybook import AT_A_GLANCE, Storybook, new_folder
from wgtorch.core.errors import StorageError
from wgtorch.report.words import rows
from wgtorch.storage.media import write_pictures
from wgtorch.world_runtime.state import State


def episode(number: int, pictures: int = 1, **slots: object) -> Episode:
    images = [torch.full((1, 3, 8, 8), number / 10) for _ in range(pictures)]
    return Episode(number, State(intent=f"intent {number}", recipe={"prompts": ["a hill"]}, artifacts=images, **slots), action="dig")


def test_pictures_are_enlarged_by_whole_pixels_and_hold_the_same_levels(tmp_path: Path) -> None:
    image = torch.rand(3, 8, 8)
    (path,) = write_pictures([image], tmp_path, "one")
    with Image.open(path) as opened:
        assert opened.size == (512, 512)
        levels = torch.tensor(list(opened.tobytes()), dtype=torch.uint8).view(512, 512, 3).permute(2, 0, 1)
    torch.testing.assert_close(levels[:, ::64, ::64], (image * 255).round().to(torch.uint8), rtol=0, atol=0)
    torch.testing.assert_close(levels, levels[:, ::64, ::64].repeat_interleave(64, 1).repeat_interleave(64, 2), rtol=0, atol=0)


def test_an_episode_leaves_its_pictures_and_its_words(tmp_path: Path) -> None:
    book = Storybook(tmp_path / "new" / "folder", "Once")
    assert [path.name for path in book.add(episode(1, pictures=2), 7)] == ["episode_001.png", "episode_001_2.png"]
    content = json.loads((book.folder / "episodes.json").read_text())
    assert (content["title"], content["seed"]) == ("Once", 7)
    (entry,) = content["episodes"]
    assert entry["action"] == "dig"
    assert entry["slots"]["intent"] == "intent 1"
    assert entry["slots"]["recipe"] == {"prompts": ["a hill"]}
    assert entry["slots"]["artifacts"] == [{"tensor": "Tensor[1, 3, 8, 8] float32"}] * 2
    assert entry["slots"]["outcome"] is None
    assert entry["pictures"] == ["episode_001.png", "episode_001_2.png"]
    story = (book.folder / "story.md").read_text()
    assert story.startswith("# Once\n\n## Episode 1\n\n![Episode 1](episode_001.png)\n\n![Episode 1](episode_001_2.png)\n\n")
    assert story.endswith("- **action**: dig\n- **intent**: intent 1\n- **prompt**: a hill\n")


def test_a_book_goes_on_where_an_earlier_one_ended_and_an_episode_told_again_replaces_itself(tmp_path: Path) -> None:
    first = Storybook(tmp_path, "Once")
    first.add(episode(1, outcome="won"), 7)
    first.add(episode(2), 7)
    second = Storybook(tmp_path, "Once")
    assert second.numbers == [1, 2]
    second.add(episode(2, outcome="lost"), 7)
    entries = json.loads((tmp_path / "episodes.json").read_text())["episodes"]
    assert [(entry["number"], entry["slots"]["outcome"]) for entry in entries] == [(1, "won"), (2, "lost")]


@pytest.mark.parametrize("text", ["{", "[]", '{"episodes": [{}]}', '{"episodes": 3}'])
def test_a_folder_with_something_else_in_it_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "episodes.json").write_text(text)
    with pytest.raises(StorageError, match=r"episodes.json: cannot be read as episodes of a world"):
        Storybook(tmp_path, "Once")


def test_the_overview_shows_the_newest_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    monkeypatch.setattr("wgtorch.cli.storybook.draw_overview", lambda cards, path, title, note: seen.update(cards=cards, note=note) or path)
    book = Storybook(tmp_path, "Once")
    for number in range(1, AT_A_GLANCE + 3):
        book.add(episode(number), 7)
    book.overview(7)
    assert [card.number for card in seen["cards"]] == [str(number) for number in range(3, AT_A_GLANCE + 3)]
    assert seen["note"] == f"the last {AT_A_GLANCE} of {AT_A_GLANCE + 2} episodes, seed 7"
    assert seen["cards"][0].words == (("intent", "intent 3"), ("outcome", "not told yet"))


def test_rows_say_what_the_slots_say_and_leave_pictures_out() -> None:
    state = State(intent="go", recipe={"prompts": ["a", "b"]}, artifacts=[torch.zeros(3, 4, 4)], description=["x", "x"])
    assert rows(state) == [("intent", "go"), ("prompt", "a\nb"), ("description", "x")]
    assert rows({"plan": {"size": 3}, "sound": "hum"}) == [("plan", "size: 3"), ("sound", "hum")]


def test_new_folders_are_numbered_on(tmp_path: Path) -> None:
    assert new_folder("speckle", tmp_path) == tmp_path / "speckle" / "001"
    (tmp_path / "speckle" / "009").mkdir()
    (tmp_path / "speckle" / "notes").mkdir()
    assert new_folder("speckle", tmp_path) == tmp_path / "speckle" / "010"
