"""The report of a world, from the world itself or from a folder that it left."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from wgtorch.core.checkpoint.atomic import write_file
from wgtorch.core.checkpoint.io import MANIFEST
from wgtorch.core.errors import StorageError
from wgtorch.core.json_text import loads
from wgtorch.core.trust import Trust
from wgtorch.report.chapters import Chapter, chapters_of
from wgtorch.report.page import page
from wgtorch.report.words import cut, words
from wgtorch.storage.base import History, Life
from wgtorch.storage.directory import DirectoryStorage
from wgtorch.storage.marker import MARKER
from wgtorch.world import World, WorldReports

_STATES = "states"  # where a folder of ``wgtorch run`` keeps them
_TITLE = 200  # letters
_HEIGHT = 700  # pixels of a report inside a notebook


@dataclass(frozen=True)
class Report:
    """A storyboard; a notebook shows it.

    Args:
        title: stands above it.
        chapters: the episodes.
        html: the page, which needs nothing beside it.
    """

    title: str
    chapters: tuple[Chapter, ...]
    html: str

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the page, whole or not at all, and returns its path."""

        def fill(file: Path) -> None:
            file.write_text(self.html, encoding="utf-8")

        return write_file(path, fill)

    def _repr_html_(self) -> str:
        """The page in a frame of its own, so that its style stays inside."""
        return f'<iframe sandbox srcdoc="{escape(self.html)}" style="width: 100%; height: {_HEIGHT}px; border: 0"></iframe>'

    def __repr__(self) -> str:
        return f"Report of {len(self.chapters)} episodes"


def report_of(world: World) -> Report:
    """The storyboard of what a world has lived through."""
    initial: Mapping[str, Any] = world.own_config()["initial_content"]
    return _report(_title(initial, world.content) or world.world_id, world.history, world.life, initial)


def report_of_folder(path: str | os.PathLike[str], *, trust: Trust | None = None) -> Report:
    """The storyboard of what lies in a folder: one of ``wgtorch run``, a world's ``state_dir``, or one written by ``World.save``.

    Args:
        path: the folder.
        trust: what the config of a saved world may do beyond being data.

    Raises:
        StorageError: the folder holds no world's history.
        CheckpointError: a saved world cannot be read.
    """
    folder = Path(path)
    world, history = past_in(folder, trust=trust)
    if world is not None:
        return report_of(world)
    life = history.storage.read_life()
    content = life.content if life is not None else history.content(-1) if len(history) else {}
    return _report(_title_in(folder) or _title({}, content) or folder.resolve().name, history, life, None)


def past_in(folder: Path, *, trust: Trust | bool | None = None) -> tuple[World | None, History]:
    """The history that a folder holds, and the world where all of it was saved.

    Raises:
        StorageError: the folder holds no world's history.
        CheckpointError: a saved world cannot be read.
    """
    if (folder / MANIFEST).is_file():
        world = World.load(folder, trust=trust)
        return world, world.history
    states = next((place for place in (folder / _STATES, folder) if (place / MARKER).is_file()), None)
    if states is None:
        raise StorageError(
            f"{folder}: holds no world's history; expected a folder of wgtorch run, a world's state_dir, or one written by World.save"
        )
    return None, History(DirectoryStorage(states))


def _report(title: str, history: History, life: Life | None, initial: Mapping[str, Any] | None) -> Report:
    chapters = chapters_of(history, life, initial=initial)
    notes = [f"{len(chapters)} episode{'s' if len(chapters) != 1 else ''}"]
    if life is not None:
        notes += [f"{life.passes} passes", *([] if life.seed is None else [f"seed {life.seed}"])]
    notes += _spent(history.traces)
    title = cut(title, _TITLE)
    return Report(title, tuple(chapters), page(title, notes, chapters, None if life is None else life.content))


def _spent(traces: list[dict[str, Any]]) -> list[str]:
    """Time of all stages, and what their calls used."""
    if not traces:
        return []
    calls = [call for entry in traces for call in entry.get("calls") or ()]
    used = [call["usage"] for call in calls if isinstance(call.get("usage"), Mapping)]
    facts = [f"{sum(float(entry.get('seconds') or 0.0) for entry in traces):.1f} s"]
    facts += [f"{len(calls)} calls"] if calls else []
    tokens = sum(int(usage.get(name) or 0) for usage in used for name in ("prompt_tokens", "completion_tokens"))
    facts += [f"{tokens} tokens"] if tokens else []
    costs = [float(usage["cost"]) for usage in used if usage.get("cost") is not None]
    return facts + ([f"cost {sum(costs):.4f}"] if any(costs) else [])


def _title(initial: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """How the world begins."""
    return words(initial.get("opening") or initial.get("story") or content.get("opening"))


def _title_in(folder: Path) -> str:
    """The title that ``wgtorch run`` wrote beside the states."""
    try:
        return str(loads((folder / "episodes.json").read_text(encoding="utf-8"))["title"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


WorldReports.register("html", report_of)
