"""Captions of pictures in a folder: beside each picture, or listed for many."""

from __future__ import annotations

import csv
import logging
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from wgtorch.core.errors import ConfigError, suggest
from wgtorch.core.json_text import loads
from wgtorch.core.kinds import describe

_log = logging.getLogger(__name__)
ENDINGS = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif", ".jxl")
"""Of files that are taken for pictures; those that Pillow cannot read are told by name."""
LISTS = ("metadata.jsonl", "metadata.csv", "captions.jsonl", "captions.csv")
"""Files that hold the captions of the pictures in their folder and below."""
_SHOWN = 4
_BESIDE = (".txt", ".caption")
_UNREAD = re.compile(r"(metadata|captions|meta_cap|meta_lat)\.(json|tsv|txt|arrow)|.*\.parquet", re.IGNORECASE)
"""Files that other programs keep captions in."""
_FILES, _TEXTS = ("file_name", "file", "image"), ("text", "caption", "prompt")


def pictures_in(folder: Path, setting: str = "data.folder") -> list[Path]:
    """Pictures in a folder and below, in the order of names, but for hidden ones, which systems and notebooks leave.

    Links are followed, to folders too.

    Raises:
        ConfigError: there is no such folder, or it holds none.
    """
    if not folder.is_dir():
        raise ConfigError(f"{setting}: {folder} is no folder; expected one with pictures ({', '.join(ENDINGS)})")
    found = sorted(path for path in _files(folder) if path.suffix.lower() in ENDINGS)
    if not found:
        raise ConfigError(f"{setting}: {folder} holds no pictures ({', '.join(ENDINGS)})")
    return found


def captions_of(folder: Path, pictures: list[Path], fallback: str | None) -> list[str]:
    """The caption of each picture: its line in a list, else a text file of its name beside it, else the fallback.

    A list is JSONL or CSV with a file's name, relative to the list's folder, under ``file_name`` and its caption under ``text`` (or
    ``caption``, ``prompt``), as other training programs read it.

    Raises:
        ConfigError: pictures without a caption, a line that cannot be read, one that names a file which is not there, or captions in a
            file of a kind that is not read.
    """
    inside = sorted(_files(folder))
    listed: dict[Path, str] = {}
    for path in (path for path in inside if path.name in LISTS):
        for picture, text in _listed(path):
            if listed.setdefault(picture, text) != text:
                raise ConfigError(f"{path}: a second caption of {picture.name}, {text[:80]!r}; keep one line for each picture")
    there = pictures_in(folder)  # those that cannot be read among them
    for path in sorted(listed.keys() - set(there)):
        near = suggest(path.name, [each.name for each in there])
        raise ConfigError(f"data.folder: a list of captions names {path}, which is not there; {near}")
    named = {path.with_suffix("") for path in pictures}
    texts = {
        _same(path): path
        for path in inside
        if path.suffix.lower() in _BESIDE and (path.suffix not in _BESIDE or path.with_suffix("") not in named)  # that is not another's
    }
    beside = {path: _beside(path, texts) for path in pictures}
    told = [(listed.get(path), beside[path], fallback) for path in pictures]
    if any(each[:2] == (None, None) for each in told) and (unread := [path for path in inside if _is_unread(path, named)]):
        raise ConfigError(
            f"{unread[0]}: captions are not read from such a file, and pictures have no others; write them into metadata.jsonl, as "
            '{"file_name": "a.png", "text": "..."}, or take it out of the folder'
        )
    found = [next((text for text in each if text is not None), None) for each in told]  # an empty caption is one
    without = [path.name for path, caption in zip(pictures, found, strict=True) if caption is None]
    if without:
        raise ConfigError(
            f"{folder}: {len(without)} pictures have no caption, as {without[0]}; write {Path(without[0]).stem}.txt beside it, a line in "
            "metadata.jsonl, or give data.prompt for all"
        )
    both = [path for path in pictures if path in listed and beside[path] not in (None, listed[path])]
    _warn(both, "have a caption in a list and another in a text file beside them; the list's is taken")
    _warn(
        [path for path in pictures if beside[path] == "" and path not in listed],
        "have an empty text file, which is taken for their caption",
    )
    stems = Counter(path.with_suffix("") for path in pictures)
    shared = [path for path in pictures if beside[path] and path not in listed and stems[path.with_suffix("")] > 1]
    _warn(shared, "share a text file with another picture of the same name; rename one of them")
    return [str(caption) for caption in found]


def _warn(pictures: list[Path], what: str) -> None:
    if pictures:
        _log.warning("%d pictures %s: %s", len(pictures), what, ", ".join(str(path) for path in pictures[:_SHOWN]))


def _files(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Files in a folder and below, with links followed and hidden ones left out; a link to nothing is a file that cannot be read."""
    here = folder.resolve()
    if here in above:  # a link back
        return
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _files(entry, (*above, here))
        elif entry.is_file() or (entry.is_symlink() and not entry.exists()):
            yield entry


def _is_unread(path: Path, pictures: Collection[Path]) -> bool:
    return _UNREAD.fullmatch(path.name) is not None or (path.suffix in (".json", ".tags") and path.with_suffix("") in pictures)


def _same(path: Path) -> str:
    """Equal for names that people read as one: systems write accents in two ways, and endings in capitals."""
    return unicodedata.normalize("NFC", str(path)).casefold()


def _beside(picture: Path, texts: Mapping[str, Path]) -> str | None:
    for ending in _BESIDE:
        named = picture.with_suffix(ending)
        path = named if named.is_file() else texts.get(_same(named))
        if path is not None and path.is_file():
            return _text(path).strip()
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is no UTF-8 ({error}); save it as UTF-8") from error


def _listed(path: Path) -> Iterator[tuple[Path, str]]:
    for number, row in enumerate(_rows(path), 1):
        file = next((row[name] for name in _FILES if row.get(name)), None)
        text = next((row[name] for name in _TEXTS if row.get(name) is not None), None)
        if file is None or text is None:
            raise ConfigError(f"{path}: entry {number} has {sorted(row)}; expected 'file_name' and 'text'")
        if not isinstance(file, str) or not isinstance(text, str):
            found = f"file_name {describe(file)} and text {describe(text)}"
            raise ConfigError(f"{path}: entry {number} has {found}; expected texts, in quotes")
        yield Path(os.path.normpath(path.parent / file)), text


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    if path.suffix == ".csv":
        table = csv.DictReader(StringIO(_text(path), newline=""))
        names = table.fieldnames or ()
        if twice := [name for name in names if names.count(name) > 1]:
            raise ConfigError(f"{path}: column {twice[0]!r} is there twice; expected each once")
        if len(names) == 1 and (other := next((each for each in ";\t|" if each in names[0]), None)):
            raise ConfigError(f"{path}: its fields are separated by {other!r}; expected commas, as in file_name,text")
        for number, row in enumerate(table, 1):
            if None in row:
                raise ConfigError(f"{path}: entry {number} has more fields than the first line; write a caption with commas in quotes")
            yield row
        return
    yield from json_rows(path, '{"file_name": ..., "text": ...}')


def json_rows(path: Path, expected: str) -> Iterator[dict[str, Any]]:
    """The objects in a file of JSONL; ``expected`` shows one in errors."""
    for number, line in enumerate(_text(path).split("\n"), 1):  # splitlines parts texts at U+2028 too
        if line.strip():
            try:
                row = loads(line)
            except ValueError as error:
                raise ConfigError(f"{path}, line {number}: is no JSON: {error}") from error
            if not isinstance(row, dict):
                raise ConfigError(f"{path}, line {number}: found {line[:40]!r}; expected {expected}")
            yield row
