"""JSON from outside: limits, what is no JSON, and keys that are there twice, for each reader of files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wgtorch.cli.target import values
from wgtorch.core.checkpoint.tensors import read_header
from wgtorch.core.config.resolve import read_config
from wgtorch.core.errors import WgtorchError
from wgtorch.core.json_text import DuplicateKeyError, loads, parse_json, read_json
from wgtorch.integrations.comfy.workflow import read_workflow
from wgtorch.serving.wire import unpack_json
from wgtorch.storage.marker import parse_marker
from wgtorch.train.data.captions import _listed
from wgtorch.train.data.rows import _rows_of

TWICE = '{"a": {"name": 1, "other": 2, "name": 3}}'


def test_a_key_that_is_there_twice_is_named_wherever_it_stands() -> None:
    for text in (TWICE, TWICE.encode(), f"[1, [{TWICE}]]"):
        with pytest.raises(DuplicateKeyError, match="key 'name' is there twice"):
            loads(text)
    assert loads('[{"a": 1}, {"a": {"a": 2}}]') == [{"a": 1}, {"a": {"a": 2}}]
    with pytest.raises(ValueError, match="it: key 'name' is there twice; expected each once"):
        read_json(TWICE.encode(), "it", ValueError)


def _safetensors(path: Path) -> Any:
    raw = path.read_bytes()
    return read_header(len(raw).to_bytes(8, "little") + raw, 0, len(raw) + 8, str(path))


def _yaml(path: Path) -> Any:
    return read_config(path.rename(path.with_suffix(".yaml")))


@pytest.mark.parametrize(
    "read",
    [
        read_config,
        _yaml,
        _safetensors,
        read_workflow,
        lambda path: list(_listed(path)),
        _rows_of,
        lambda path: unpack_json(path.read_bytes(), str(path)),
        lambda path: parse_marker(path.read_bytes(), str(path)),
    ],
    ids=["config", "yaml", "safetensors", "comfy", "captions", "rows", "request", "storage"],
)
def test_no_file_has_a_key_twice(read: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(TWICE)
    with pytest.raises(WgtorchError, match=r"'name' is there twice") as caught:
        read(path)
    assert "file" in str(caught.value)


def test_a_column_of_captions_is_there_once(tmp_path: Path) -> None:
    path = tmp_path / "metadata.csv"
    path.write_text("file_name,text,text\na.png,one,two\n")
    with pytest.raises(WgtorchError, match=r"metadata.csv: column 'text' is there twice"):
        list(_listed(path))


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([("steps", "1"), ("steps", "2")], "steps is given twice"),
        ([("a", TWICE)], "key 'name' is there twice"),
    ],
)
def test_values_of_a_command_are_given_once(pairs: list[tuple[str, str]], words: str) -> None:
    with pytest.raises(WgtorchError, match=words):
        values(pairs)


@pytest.mark.parametrize("digits", ["1e999", "-1e400", "9" * 250 + "e99", "9" * 400 + ".0"])
def test_what_is_sent_has_no_infinite_numbers(digits: str) -> None:
    assert float(digits) in (float("inf"), -float("inf"))
    with pytest.raises(ValueError, match="is beyond the numbers that a float holds"):
        parse_json(f'{{"x": [{digits}]}}')
