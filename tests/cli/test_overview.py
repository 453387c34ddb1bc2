"""The overview picture: every episode is in it, its words fit, and any letters can be read."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from wgtorch.cli import overview
from wgtorch.cli.overview import Card, draw_overview

COLORS = [(200, 30, 30), (30, 160, 30), (30, 30, 200), (200, 160, 30), (160, 30, 160), (30, 160, 160), (90, 90, 90)]
WORDS = (
    ("intent", "By day, under clouds, the traveller comes to the sea."),
    ("outcome", "The traveller came to the sea and found a red tower."),
)


def pictures(folder: Path, count: int, size: tuple[int, int] = (512, 512)) -> tuple[Path, ...]:
    paths = [folder / f"{index}.png" for index in range(count)]
    for index, path in enumerate(paths):
        Image.new("RGB", size, COLORS[index]).save(path)
    return tuple(paths)


def counted(path: Path) -> dict[tuple[int, int, int], int]:
    with Image.open(path) as opened:
        return {color: count for count, color in opened.convert("RGB").getcolors(2**24)}


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (3, 3), (4, 2), (5, 3), (6, 3), (7, 4)])
def test_every_picture_is_in_it_at_full_size(tmp_path: Path, count: int, columns: int) -> None:
    cards = [Card(str(index + 1), "", WORDS, (path,)) for index, path in enumerate(pictures(tmp_path, count))]
    found = counted(draw_overview(cards, tmp_path / "overview.png", "A world", f"{count} episodes"))
    for color in COLORS[:count]:
        assert 0.999 < found[color] / 512**2 <= 1.0, "all but the rounded corners"
    with Image.open(tmp_path / "overview.png") as opened:
        assert opened.width == 2 * 48 + columns * 512 + (columns - 1) * 32


def test_several_pictures_of_an_episode_share_its_card(tmp_path: Path) -> None:
    found = counted(draw_overview([Card("1", "", WORDS, pictures(tmp_path, 3))], tmp_path / "overview.png", "A world", ""))
    for color in COLORS[:3]:
        assert 0.998 < found[color] / 256**2 <= 1.0


@pytest.mark.parametrize(
    ("size", "shown"), [((8, 4), (512, 256)), ((300, 200), (300, 200)), ((2048, 1024), (512, 256)), ((1, 600), (1, 512))]
)
def test_pictures_of_any_size_keep_their_shape(tmp_path: Path, size: tuple[int, int], shown: tuple[int, int]) -> None:
    found = counted(draw_overview([Card("1", "", WORDS, pictures(tmp_path, 1, size))], tmp_path / "overview.png", "A world", ""))
    assert 0.99 < found[COLORS[0]] / (shown[0] * shown[1]) <= 1.0


def test_long_words_make_the_card_longer_and_never_wider(tmp_path: Path) -> None:
    short = draw_overview([Card("1", "dig", WORDS, ())], tmp_path / "short.png", "A world", "note")
    long = draw_overview([Card("1", "dig " * 30, (("intent", "and so they went on " * 30),), ())], tmp_path / "long.png", "A world", "note")
    with Image.open(short) as first, Image.open(long) as second:
        assert first.width == second.width
        assert second.height > first.height + 200
        right_border = second.crop((second.width - 40, 0, second.width, second.height))
        assert right_border.getcolors() == [(40 * second.height, (0xF3, 0xEE, 0xE3))], "nothing is written beside the cards"


def test_wrapped_rows_are_no_wider_than_asked_and_lose_no_word() -> None:
    pen = overview._Pen("")
    text = "By day, under clouds, the traveller comes to the sea and knows a red tower there from before.\nSecond paragraph."
    found = pen.wrap(text, 23, 300)
    assert " ".join(found).split() == text.split()
    assert all(pen.font(23).getlength(row) <= 300 for row in found)
    assert "Second paragraph." in found
    pieces = pen.wrap("see incomprehensibilities of", 23, 100)
    assert pieces[0] == "see"
    assert "".join(pieces) == "seeincomprehensibilities of"
    assert all(pen.font(23).getlength(row) <= 100 for row in pieces)


def test_letters_that_pillows_font_lacks_are_written_with_a_wider_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert overview._Pen("plain words, “quoted” · done")._file is None
    monkeypatch.setattr(overview, "_is_there", lambda name: name == "Arial.ttf")
    assert overview._Pen("Анна")._file == "Arial.ttf"
    monkeypatch.setattr(overview, "_is_there", lambda name: False)
    assert overview._Pen("Анна").font(20).getlength("Анна") > 0, "without one, boxes; never an error"


def test_no_cards_give_a_title_alone(tmp_path: Path) -> None:
    with Image.open(draw_overview([], tmp_path / "overview.png", "A world", "nothing yet")) as opened:
        assert opened.width > 512
