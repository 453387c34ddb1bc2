"""The storyboard: every episode, whole and escaped, from a world, a folder and a history of an older version."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import astuple
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.world_blocks import FULL, failing_once, stage_of, tiny_world
from wgtorch.core.errors import StorageError
from wgtorch.report.chapters import chapters_of
from wgtorch.report.report import report_of_folder
from wgtorch.storage import DirectoryStorage
from wgtorch.storage.base import History
from wgtorch.world import World
from wgtorch.world_runtime.changes import changes
from wgtorch.world_runtime.state import State

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>'


class Seen(HTMLParser):
    """Tags with their attributes, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def words(self) -> str:
        """All text on one line."""
        return " ".join(" ".join(self.text).split())

    def pictures(self) -> list[Image.Image]:
        """Pictures on the page, decoded."""
        sources = [str(attrs["src"]) for tag, attrs in self.tags if tag == "img"]
        assert all(source.startswith("data:image/png;base64,") for source in sources)
        return [Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) for source in sources]


def lived(folder: Path | None = None, **options: Any) -> World:
    world = tiny_world()
    if folder is not None:
        world.set_storage({"state_dir": str(folder), **options})
    world.run(num_steps=3, seed=5, action=["go", None, "stay"])
    return world


def test_every_episode_is_there_with_what_was_meant_made_seen_and_told(tmp_path: Path) -> None:
    world = lived()
    report = world.report(tmp_path / "deep" / "page.html")
    seen = Seen((tmp_path / "deep" / "page.html").read_text())
    assert [chapter.number for chapter in report.chapters] == [1, 2, 3]
    assert [(chapter.stored, chapter.action) for chapter in report.chapters] == [(1, "go"), (2, None), (None, "stay")]
    for state in [*world.history, world.state]:
        assert state is not None
        assert all(str(state[slot]) in seen.words for slot in state.filled if slot in ("intent", "description", "outcome"))
    pictures = seen.pictures()
    assert len(pictures) == 9 and {picture.size for picture in pictures} == {(4, 4)}
    levels = torch.tensor(list(pictures[0].convert("RGB").tobytes()), dtype=torch.uint8).view(4, 4, 3).permute(2, 0, 1)
    torch.testing.assert_close(levels, (world.history[0].artifacts[0] * 255).round().to(torch.uint8), rtol=0, atol=0)
    assert "3 episodes, 3 passes, seed 5" in seen.words


def test_a_page_needs_nothing_else_and_runs_nothing() -> None:
    seen = Seen(lived().report().html)
    assert {tag for tag, _ in seen.tags}.isdisjoint({"script", "link", "iframe", "object", "form"})
    assert {attrs["href"] for tag, attrs in seen.tags if tag == "a"} == {"#episode-1", "#episode-2", "#episode-3"}
    policy = next(attrs["content"] for tag, attrs in seen.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in str(policy)


def test_whatever_a_world_holds_is_text_on_the_page() -> None:
    world = tiny_world(name="x")
    world.set_initial_content({"story": HOSTILE, HOSTILE: HOSTILE, "episodes": 0})
    state = State(**{**FULL, "intent": HOSTILE, "recipe": {"count": 1, "level": 0.1, HOSTILE: [HOSTILE]}, "outcome": HOSTILE})
    with failing_once(type(world.find("architect/work/work/work")), RuntimeError(HOSTILE)):
        with pytest.raises(RuntimeError):
            world.run(state, seed=1, action=HOSTILE)
        report = world.report()
    seen, usual = Seen(report.html), {tag for tag, _ in Seen(lived().report().html).tags}
    assert {tag for tag, _ in seen.tags} <= usual
    assert not [name for _, attrs in seen.tags for name in attrs if name.startswith("on")]
    assert seen.words.count(HOSTILE) >= 6
    assert f"failed: RuntimeError: {HOSTILE}" in seen.words


def test_the_stages_of_an_episode_say_whether_they_ran_and_why_not() -> None:
    first, second, last = lived().report().chapters
    ran = [(entry["pass"], entry["stage"], entry["skipped"]) for entry in first.traces]
    assert ran == [(0, "environment", None), (0, "architect", None), (0, "creator", None),
                   (1, "philosopher", None), (1, "author", None), (1, "environment", None)]  # fmt: skip
    assert first.traces[0]["not_run"] == {"world_update": "'complete' does not hold"}
    assert first.traces[-1]["stored"] == "1" and first.traces[-1]["updated"]
    assert second.traces[0] == first.traces[-1], "it ends one episode and begins the next"
    assert [entry["stage"] for entry in last.traces] == ["environment", "architect", "creator"]
    assert first.seconds == sum(entry["seconds"] for entry in first.traces) > 0
    world = tiny_world()
    world.run(seed=1)
    words = Seen(world.report().html).words
    assert "environment ran; world_update skipped: 'complete' does not hold" in words
    (chapter,) = world.report().chapters
    assert chapter.number == 1 and "philosopher" not in [entry["stage"] for entry in chapter.traces]


def test_traces_tell_what_a_stage_read_and_wrote_with_tensors_by_their_shape() -> None:
    world = lived()
    traces = {(entry["pass"], entry["stage"]): entry for entry in world.history.traces}
    assert len(traces) == 15
    assert traces[0, "philosopher"]["skipped"] == "intent, recipe, artifacts are empty"
    author = traces[1, "author"]
    first = world.history[0]
    assert author["reads"] == {"intent": first.intent, "description": first.description,
                               "content": "dict with keys ['episodes', 'story']"}  # fmt: skip
    assert author["writes"] == {"outcome": first.outcome}
    assert traces[1, "philosopher"]["reads"] == {"artifacts": [{"tensor": "Tensor[3, 4, 4] float32"}] * 2}
    assert traces[2, "environment"]["action"] == "stay"
    assert json.dumps(world.history.traces, allow_nan=False)


def test_changes_of_the_content_are_those_of_each_update() -> None:
    world = lived()
    first, second, last = world.report().chapters
    assert first.changes is not None and second.changes is not None
    assert astuple(first.changes[0]) == ("episodes", "changed", "0", "1")
    assert [(change.path, change.kind) for change in second.changes] == [("episodes", "changed"), ("log", "grew"), ("last", "changed")]
    assert second.changes[1].after == world.history[1].outcome
    assert last.changes == ()


def test_a_folder_gives_the_page_of_its_world(tmp_path: Path) -> None:
    world = lived(tmp_path / "states")
    expected = world.report()
    for folder in (tmp_path, tmp_path / "states"):
        found = report_of_folder(folder)
        assert [chapter.traces for chapter in found.chapters] == [chapter.traces for chapter in expected.chapters]
        assert [chapter.changes for chapter in found.chapters] == [chapter.changes for chapter in expected.chapters]
        assert found.html.split("</h1>")[1] == expected.html.split("</h1>")[1]
    world.save(tmp_path / "saved")
    assert report_of_folder(tmp_path / "saved").html == expected.html
    with pytest.raises(StorageError, match="holds no world's history; expected a folder of wgtorch run"):
        report_of_folder(tmp_path / "nothing")


def test_a_history_without_traces_is_shown_without_them(tmp_path: Path) -> None:
    states, old = lived(tmp_path / "states").history.storage, DirectoryStorage(tmp_path / "old")
    for step in states.steps():
        old.store(step, *states.read(step))
    found = report_of_folder(tmp_path / "old")
    assert [chapter.changes is None for chapter in found.chapters] == [True, *(False for _ in found.chapters[1:])]
    assert len(found.chapters) == len(states.steps())
    assert History(DirectoryStorage(tmp_path / "old"))[0].outcome in Seen(found.html).words
    assert found.chapters[0].traces == ()


def test_what_was_dropped_is_not_shown_and_its_traces_are_gone(tmp_path: Path) -> None:
    world = tiny_world()
    world.set_storage({"state_dir": str(tmp_path), "max_snapshots": 2})
    world.run(num_steps=6, seed=5)
    assert sorted({entry["pass"] for entry in world.history.traces}) == [3, 4, 5]
    found = world.report()
    assert [chapter.stored for chapter in found.chapters] == [4, 5, None]
    assert found.chapters[0].changes and astuple(found.chapters[0].changes[0]) == ("episodes", "changed", "3", "4")
    assert len(found.chapters[0].traces) == 6


def test_the_last_trace_of_a_stage_counts(tmp_path: Path) -> None:
    world = lived(tmp_path)
    expected = world.history.traces
    world.history.storage.keep_trace({"pass": 2, "place": 4, "again": True})
    assert world.history.traces[:-1] == expected[:-1]
    assert world.history.traces[-1] == {"pass": 2, "place": 4, "again": True}


def test_a_failure_leaves_its_trace_and_the_try_after_it_takes_its_place() -> None:
    world = tiny_world()
    with failing_once(type(world.find("creator/work/work/work")), RuntimeError("the brush broke")):
        with pytest.raises(RuntimeError):
            world.run(seed=1)
        assert world.history.traces[-1]["error"] == {
            "type": "RuntimeError",
            "message": "the brush broke",
            "node": "creator/work/work/work",
        }
        world.run(seed=1)
    assert [entry.get("error") for entry in world.history.traces] == [None] * 5


def test_a_world_in_which_a_pass_is_an_episode() -> None:
    world = World("plain")
    world.add_stage(stage_of("look", "world_test/look", ["artifacts"], ["description"]))
    world.set_cycle(["look"])
    world.set_state_schema(["artifacts", "description"])
    for _ in range(2):
        world.run(State(schema=("artifacts", "description"), artifacts=[torch.zeros(3, 4, 4)]))
    chapters = world.report().chapters
    assert [(chapter.number, chapter.stored, len(chapter.traces)) for chapter in chapters] == [(1, 0, 1), (2, 1, 1)]


def test_a_new_world_says_that_nothing_has_happened() -> None:
    assert "Nothing has happened yet." in tiny_world().report().html


def test_a_notebook_shows_the_page_in_a_frame_of_its_own() -> None:
    report = lived().report()
    ((tag, attrs),) = Seen(report._repr_html_()).tags
    assert tag == "iframe" and "sandbox" in attrs and attrs["srcdoc"] == report.html


def test_half_a_letter_and_odd_numbers_are_no_obstacle(tmp_path: Path) -> None:
    world = tiny_world()
    world.set_storage({"state_dir": str(tmp_path)})
    world.run(State(**{**FULL, "intent": "cut \ud83d", "recipe": {"count": 1, "level": 0.1, "odd": float("nan")}}), seed=1)
    world.report(tmp_path / "page.html")
    assert "NaN" in (tmp_path / "page.html").read_text() or "nan" in (tmp_path / "page.html").read_text()


def test_large_pictures_are_made_smaller() -> None:
    from wgtorch.report.page import picture_tag

    (picture,) = Seen(picture_tag(torch.rand(3, 2048, 512), "x")).pictures()
    assert picture.size == (256, 1024)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": {"b": 1}}, {"a": {"b": 2}, "c": "x"}, [("a.b", "changed", "1", "2"), ("c", "added", "", "x")]),
        ({"a": 1, "b": 2}, {"b": 2}, [("a", "removed", "1", "")]),
        ({"s": "It began."}, {"s": "It began. It went on."}, [("s", "grew", "", "It went on.")]),
        ({"l": [1, 2]}, {"l": [1, 2, 3]}, [("l", "grew", "", "3")]),
        ({"l": [1, 2]}, {"l": [2]}, [("l", "changed", "1\n2", "2")]),
        ({"t": torch.ones(1)}, {"t": torch.ones(1)}, []),
        ({"t": torch.ones(1)}, {"t": torch.zeros(1)}, [("t", "changed", "Tensor[1] float32", "Tensor[1] float32")]),
        ({"n": True}, {"n": 1}, [("n", "changed", "True", "1")]),
    ],
)
def test_changes(before: dict, after: dict, expected: list) -> None:
    assert [(change.path, change.kind, change.before, change.after) for change in changes(before, after)] == expected


def test_chapters_of_an_old_stored_world_need_no_life(tmp_path: Path) -> None:
    world = lived(tmp_path)
    assert [chapter.number for chapter in chapters_of(world.history, None)] == [1, 2]
    assert re.search(r"Episode 1\b", world.report().html)


def test_states_and_histories_show_themselves_in_a_notebook() -> None:
    world = tiny_world()
    world.run(num_steps=3, seed=5)
    shown = world.state._repr_html_()
    assert shown.count("<tr>") == 5 and "data:image/png;base64," in shown
    assert "&lt;b&gt;" in State(intent="<b>")._repr_html_() and "<b>" not in State(intent="<b>")._repr_html_()
    history = world.history._repr_html_()
    assert history.count("<tr>") == len(world.history) and "data:image/png" in history


def test_pixel_art_is_embedded_as_small_as_it_was_painted_and_other_pictures_as_they_are() -> None:
    import base64

    from wgtorch.report.page import picture_tag

    def opened(image: torch.Tensor) -> Image.Image:
        return Image.open(io.BytesIO(base64.b64decode(picture_tag(image, "").split("base64,")[1].split('"')[0])))

    small = torch.randint(0, 2, (3, 6, 6), generator=torch.Generator().manual_seed(0)).float()
    for image in (small, small.repeat_interleave(8, -1).repeat_interleave(8, -2)):
        found = opened(image)
        assert (found.size, found.mode) == ((6, 6), "P")
        got = torch.tensor(list(found.convert("RGB").tobytes())).view(6, 6, 3).permute(2, 0, 1) / 255
        assert torch.equal(got, small)
    assert opened(torch.rand(3, 64, 64)).size == (64, 64)


def test_a_long_life_is_a_small_page() -> None:
    world = tiny_world()
    world.run(num_steps=30, seed=1)
    page = world.report().html
    assert page.count("<article") == 30
    assert page.count("<th>read</th>") == 12, "older episodes without what their stages read and wrote"
