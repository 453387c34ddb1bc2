"""Rows of texts and numbers: prompts with what is wanted of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wgtorch.core.errors import ConfigError
from wgtorch.train.data.base import Data
from wgtorch.train.data.captions import json_rows
from wgtorch.train.registries import register_data


@register_data("rows")
class Rows(Data):
    """Rows that all have the same keys, each with a text or a number: ``{"prompt": "a good film", "label": 1}``.

    Args:
        rows: of training; or
        file: JSONL, one row a line.
        held_out: rows at the end that are for validation.
        batch_size: of each process.
        workers: processes that read items.

    Raises:
        ConfigError: none or both of rows and file are given, a line is no JSON object, or rows have different keys.
    """

    def __init__(
        self,
        *,
        rows: list[dict[str, Any]] | None = None,
        file: str | None = None,
        held_out: int = 0,
        batch_size: int = 8,
        workers: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, workers=workers)
        if (rows is None) == (file is None):
            raise ConfigError("data: expected either rows or the file that they are in")
        found = list(rows) if rows is not None else _rows_of(Path(str(file)))
        keys = set(found[0]) if found else set()
        for number, row in enumerate(found, 1):
            if set(row) != keys or not all(isinstance(value, (str, int, float)) for value in row.values()):
                raise ConfigError(f"data: row {number} is {row}; expected a text or a number under each of {sorted(keys)}")
        if not 0 <= held_out < len(found):
            raise ConfigError(f"data.held_out: found {held_out} of {len(found)} rows; expected fewer than all of them")
        self.rows, self.held = found[: len(found) - held_out], found[len(found) - held_out :]

    def train(self) -> Sequence[Mapping[str, Any]]:
        return self.rows

    def validation(self) -> Sequence[Mapping[str, Any]] | None:
        return self.held or None


def _rows_of(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise ConfigError(f"data.file: there is no file {path}; expected JSONL, one row a line")
    return list(json_rows(path, '{"prompt": "a good film", "label": 1}'))
