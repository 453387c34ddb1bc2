"""One picture of all episodes: each on a card, with its words below."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PICTURE, _MARGIN, _GAP, _INSET, _RADIUS = 512, 48, 32, 26, 18  # pixels
_TITLE, _NUMBER, _TEXT, _LABEL = 38, 40, 23, 17  # sizes of letters
_PAPER, _CARD, _EDGE, _INK, _SOFT, _ACCENT = "#f3eee3", "#fffdf8", "#ddd3bf", "#2c2a33", "#8b8373", "#b5532a"
_WIDE_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial.ttf", "arial.ttf", "Arial Unicode.ttf")


@dataclass(frozen=True, slots=True)
class Card:
    """One episode of the overview.

    Args:
        number: what stands at the head.
        action: what the user did; stands beside the number.
        words: (label, text) of each paragraph below.
        pictures: files.
    """

    number: str
    action: str
    words: tuple[tuple[str, str], ...]
    pictures: tuple[Path, ...]


def draw_overview(cards: Sequence[Card], path: Path, title: str, note: str) -> Path:
    """Draws the cards in rows, writes the picture as PNG and returns its path.

    Args:
        cards: the episodes.
        path: the file.
        title: stands above.
        note: stands below the title, small.
    """
    from PIL import Image, ImageDraw

    said = [text for card in cards for text in (card.action, *(text for _, text in card.words))]
    pen = _Pen("".join([title, note, *said]))
    columns = {1: 1, 2: 2, 4: 2}.get(len(cards), 3 if len(cards) in (3, 5, 6, 9) else 4)  # as many as fill the rows well
    width = 2 * _MARGIN + columns * _PICTURE + (columns - 1) * _GAP
    heading = pen.wrap(title, _TITLE, width - 2 * _MARGIN)
    top = _MARGIN + pen.height(_TITLE) * len(heading) + pen.height(_LABEL) + _GAP
    lines = [list(cards[start : start + columns]) for start in range(0, len(cards), columns)]
    heights = [_PICTURE + max(pen.caption(card) for card in line) for line in lines]

    sheet = Image.new("RGB", (width, top + sum(heights) + _GAP * max(len(lines) - 1, 0) + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    y = _MARGIN
    for row in heading:
        y = pen.write(draw, (_MARGIN, y), row, _TITLE, _INK)
    pen.write(draw, (_MARGIN, y + 4), note, _LABEL, _SOFT)
    for line, height in zip(lines, heights, strict=True):
        left = (width - len(line) * (_PICTURE + _GAP) + _GAP) // 2
        for index, card in enumerate(line):
            pen.card(sheet, draw, card, left + index * (_PICTURE + _GAP), top, height)
        top += height + _GAP
    sheet.save(path, format="PNG", optimize=True)
    return path


class _Pen:
    """Writes with Pillow's own font, or with a wider one of the system where the text has letters that it lacks."""

    def __init__(self, text: str) -> None:
        self._fonts: dict[int, Any] = {}
        self._file: str | None = None
        if any(ord(letter) > 0x7E and letter not in "·“”‘’" for letter in text):
            self._file = next((name for name in _WIDE_FONTS if _is_there(name)), None)

    def font(self, size: int) -> Any:
        from PIL import ImageFont

        if size not in self._fonts:
            file = self._file
            self._fonts[size] = ImageFont.load_default(size) if file is None else ImageFont.truetype(file, round(size * 0.92))
        return self._fonts[size]

    def height(self, size: int) -> int:
        return round(size * 1.36)

    def wrap(self, text: str, size: int, width: float) -> list[str]:
        """The text in rows no wider than ``width``; what has no spaces is broken where it must be."""
        found: list[str] = []
        for paragraph in text.split("\n"):
            row = ""
            for word in paragraph.split():
                longer = f"{row} {word}" if row else word
                if row and self.font(size).getlength(longer) > width:
                    found.append(row)
                    longer = word
                *full, row = self._pieces(longer, size, width)
                found += full
            found.append(row)
        return found

    def write(self, draw: Any, spot: tuple[float, float], text: str, size: int, color: str) -> int:
        """Writes one row and returns where the next one starts."""
        draw.text(spot, text, font=self.font(size), fill=color)
        return math.ceil(spot[1] + self.height(size))

    def _pieces(self, word: str, size: int, width: float) -> list[str]:
        pieces = [""]
        for letter in word if self.font(size).getlength(word) > width else [word]:
            if pieces[-1] and self.font(size).getlength(pieces[-1] + letter) > width:
                pieces.append("")
            pieces[-1] += letter
        return pieces

    def caption(self, card: Card) -> int:
        """Height of what stands below a card's picture."""
        inner = _PICTURE - 2 * _INSET
        rows = sum(self.height(_LABEL) + self.height(_TEXT) * len(self.wrap(text, _TEXT, inner)) + 12 for _, text in card.words)
        return _INSET + max(self.height(_NUMBER), self.height(_TEXT) * len(self._action(card))) + 8 + rows + _INSET - 12

    def card(self, sheet: Any, draw: Any, card: Card, x: int, y: int, height: int) -> None:
        """Draws one card with its upper left corner at (x, y)."""
        from PIL import Image, ImageDraw

        draw.rounded_rectangle((x + 3, y + 6, x + _PICTURE + 3, y + height + 6), _RADIUS, fill=_EDGE)
        draw.rounded_rectangle((x, y, x + _PICTURE, y + height), _RADIUS, fill=_CARD, outline=_EDGE)
        picture = Image.new("RGB", (_PICTURE, _PICTURE), _EDGE)
        for file, (left, upper, side) in zip(card.pictures, _cells(len(card.pictures)), strict=True):
            with Image.open(file) as opened:
                small = _fitted(opened.convert("RGB"), side)
            picture.paste(small, (left + (side - small.width) // 2, upper + (side - small.height) // 2))
        corners = Image.new("L", (_PICTURE, _PICTURE), 0)
        ImageDraw.Draw(corners).rounded_rectangle((0, 0, _PICTURE, _PICTURE + _RADIUS), _RADIUS, fill=255)
        sheet.paste(picture, (x, y), corners)

        top = y + _PICTURE + _INSET - 8
        self.write(draw, (x + _INSET, top), card.number, _NUMBER, _ACCENT)
        below = top + 10
        for row in self._action(card):
            below = self.write(draw, (x + _INSET + self._indent(card), below), row, _TEXT, _ACCENT)
        top = max(top + self.height(_NUMBER), below) + 8
        for label, text in card.words:
            top = self.write(draw, (x + _INSET, top), label.upper(), _LABEL, _SOFT)
            for row in self.wrap(text, _TEXT, _PICTURE - 2 * _INSET):
                top = self.write(draw, (x + _INSET, top), row, _TEXT, _INK)
            top += 12

    def _indent(self, card: Card) -> float:
        return self.font(_NUMBER).getlength(card.number) + 18

    def _action(self, card: Card) -> list[str]:
        return self.wrap(f"“{card.action}”", _TEXT, _PICTURE - 2 * _INSET - self._indent(card)) if card.action else []


def _cells(count: int) -> list[tuple[int, int, int]]:
    """(left, upper, side) of each of ``count`` squares that share the place of one picture, in centred rows."""
    columns = math.ceil(math.sqrt(count))
    side = _PICTURE // max(columns, 1)
    cells = []
    for index in range(count):
        row, column = divmod(index, columns)
        alone = min(columns, count - row * columns)
        cells.append(
            ((_PICTURE - alone * side) // 2 + column * side, (_PICTURE - math.ceil(count / columns) * side) // 2 + row * side, side)
        )
    return cells


def _fitted(picture: Any, side: int) -> Any:
    """The picture as large as a square of ``side`` pixels allows; enlarged by whole pixels only."""
    from PIL import Image

    longest = max(picture.size)
    if longest <= side:
        times = side // longest
        return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    return picture.resize((max(1, picture.width * side // longest), max(1, picture.height * side // longest)), Image.Resampling.BOX)


def _is_there(name: str) -> bool:
    from PIL import ImageFont

    try:
        ImageFont.truetype(name, 12)
    except OSError:
        return False
    return True
