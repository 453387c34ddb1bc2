"""Rows of texts and numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wgtorch.core.errors import ConfigError
from wgtorch.train.data.rows import Rows

ROWS = [{"prompt": f"row {index}", "label": index % 2} for index in range(6)]


def test_rows_of_a_config_and_of_a_file_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("\n".join(f'{{"prompt": "row {index}", "label": {index % 2}}}' for index in range(6)) + "\n\n")
    given, read = Rows(rows=ROWS, held_out=2, batch_size=2), Rows(file=str(tmp_path / "rows.jsonl"), held_out=2, batch_size=2)
    assert list(given.train()) == list(read.train()) == ROWS[:4]
    assert list(given.validation() or ()) == ROWS[4:]
    train, held = given.loaders(seed=0)
    assert sorted(text for batch in train for text in batch["prompt"]) == [f"row {index}" for index in range(4)]
    assert held is not None
    assert next(iter(held))["label"].tolist() == [0, 1]
    assert Rows(rows=ROWS).validation() is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "either rows or the file"),
        ({"rows": ROWS, "file": "a"}, "either rows or the file"),
        ({"rows": [*ROWS, {"prompt": "a"}]}, r"row 7 is .*expected a text or a number under each of \['label', 'prompt'\]"),
        ({"rows": ROWS, "held_out": 6}, "held_out: found 6 of 6 rows"),
        ({"file": "nowhere.jsonl"}, "there is no file nowhere.jsonl"),
    ],
)
def test_rows_that_do_not_fit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Rows(**settings)


def test_a_line_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n{"a"\n')
    with pytest.raises(ConfigError, match=r"rows.jsonl, line 2: is no JSON"):
        Rows(file=str(tmp_path / "rows.jsonl"))
    (tmp_path / "rows.jsonl").write_text("[1]\n")
    with pytest.raises(ConfigError, match=r"rows.jsonl, line 1: found '\[1\]'; expected \{\"prompt\""):
        Rows(file=str(tmp_path / "rows.jsonl"))


def test_a_text_may_hold_any_character_and_a_file_begin_with_a_mark(tmp_path: Path) -> None:
    texts = ["two\u2028lines", "a next\x85line", "plain"]
    lines = "\r\n".join(f'{{"prompt": "{text}", "label": 1}}' for text in texts)
    (tmp_path / "rows.jsonl").write_bytes(lines.encode("utf-8-sig"))
    assert [row["prompt"] for row in Rows(file=str(tmp_path / "rows.jsonl")).train()] == texts  # type: ignore[attr-defined]
