"""The folder a world's run leaves for people: pictures, an overview, the story.

folder/
  episode_001.png    the pictures of an episode, enlarged (episode_001_2.png, ... when there are several)
  episodes.json      everything that was said, and the seed
  story.md           the same to read, with the pictures
  overview.png       the newest episodes at a glance
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wgtorch.blocks.simulation.telling.chapters import story_chapters
from wgtorch.cli.episode_text import Episode
from wgtorch.cli.overview import Card, draw_overview
from wgtorch.core.checkpoint.io import MANIFEST
from wgtorch.core.errors import StorageError
from wgtorch.core.json_text import loads
from wgtorch.report.words import rows, words
from wgtorch.storage.encoding import images_in
from wgtorch.storage.media import write_pictures
from wgtorch.world_runtime.trace import plain

AT_A_GLANCE = 24  # episodes in the overview


class Storybook:
    """Writes episodes as they are told; what an earlier run wrote to the folder is kept.

    Args:
        folder: where; made when it is not there.
        title: stands above the story.

    Raises:
        StorageError: the folder holds an ``episodes.json`` that is not ours.
    """

    def __init__(self, folder: str | os.PathLike[str], title: str) -> None:
        self.folder = Path(folder)
        self.title = title
        self._entries = self._read()

    @property
    def numbers(self) -> list[int]:
        """Numbers of the episodes in it."""
        return sorted(self._entries)

    def add(self, episode: Episode, seed: int | None) -> list[Path]:
        """Writes an episode of the life that grew from ``seed``, and returns its pictures."""
        self.folder.mkdir(parents=True, exist_ok=True)
        images = [image for slot in episode.state.schema for _, image in images_in(episode.state[slot], slot)]
        pictures = write_pictures(images, self.folder, f"episode_{episode.number:03d}")
        self._entries[episode.number] = {
            "number": episode.number,
            "action": plain(episode.action, longest=None),
            "slots": {slot: plain(episode.state[slot], longest=None) for slot in episode.state.schema},
            "pictures": [path.name for path in pictures],
            "seconds": round(episode.seconds, 3),
        }
        entries = [self._entries[number] for number in self.numbers]
        content = {"title": self.title, "seed": seed, "episodes": entries}
        (self.folder / "episodes.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (self.folder / "story.md").write_text(_markdown(self.title, entries), encoding="utf-8")
        return pictures

    def overview(self, seed: int | None) -> Path:
        """Draws the newest episodes into ``overview.png``, and returns it."""
        entries = [self._entries[number] for number in self.numbers][-AT_A_GLANCE:]
        cards = [
            Card(
                number=str(entry["number"]),
                action=words(entry["action"]),
                words=_caption(entry["slots"]),
                pictures=tuple(self.folder / name for name in entry["pictures"]),
            )
            for entry in entries
        ]
        count = f"{len(self._entries)} episode{'s' if len(self._entries) != 1 else ''}"
        shown = count if len(cards) == len(self._entries) else f"the last {len(cards)} of {count}"
        return draw_overview(cards, self.folder / "overview.png", self.title, shown if seed is None else f"{shown}, seed {seed}")

    def _read(self) -> dict[int, dict[str, Any]]:
        path = self.folder / "episodes.json"
        if not path.is_file():
            return {}
        try:
            return {entry["number"]: entry for entry in loads(path.read_text(encoding="utf-8"))["episodes"]}
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{path}: cannot be read as episodes of a world: {error!r}") from error


def new_folder(name: str, parent: str | os.PathLike[str] = "outputs") -> Path:
    """Makes ``outputs/<name>/001``, or the next number that is free; in ``outputs/<name>_runs`` where the other is a checkpoint."""
    home = Path(parent) / name
    if (home / MANIFEST).exists():  # a save there replaces all that is in it
        home = Path(parent) / f"{name}_runs"
    home.mkdir(parents=True, exist_ok=True)
    number = max((int(entry.name) for entry in home.iterdir() if entry.name.isdecimal()), default=0)
    while True:
        number += 1
        folder = home / f"{number:03d}"
        try:
            folder.mkdir()
        except FileExistsError:  # another run was faster
            continue
        return folder


def _caption(slots: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """What stands under a picture: what was meant and what happened, or else the first and the last that was said."""
    said = dict(rows(slots))
    chosen = [name for name in ("intent", "outcome") if name in slots] or [*dict.fromkeys([*list(said)[:1], *list(said)[-1:]])]
    return tuple((name, said.get(name, "not told yet")) for name in chosen)


def _markdown(title: str, entries: list[dict[str, Any]]) -> str:
    parts = [f"# {title}"]
    titles = _chapters(entries)
    for entry in entries:
        parts += [f"# {chapter}" for chapter in titles.get(entry["number"], ())]
        parts.append(f"## Episode {entry['number']}")
        parts += [f"![Episode {entry['number']}]({name})" for name in entry["pictures"]]
        said = [("action", words(entry["action"])), *rows(entry["slots"])]
        parts.append("\n".join(f"- **{label}**: {text}".replace("\n", " ") for label, text in said if text))
    return "\n\n".join(parts) + "\n"


def _chapters(entries: list[dict[str, Any]]) -> dict[int, list[str]]:
    """Titles of chapters by the episode they begin with, in a world whose scenes have a hero who wants something."""
    recipes = [entry["slots"].get("recipe") for entry in entries]
    scenes = [recipe.get("scene") for recipe in recipes if isinstance(recipe, Mapping)]
    things = [thing for scene in scenes if isinstance(scene, Mapping) for thing in scene.get("things") or ()]
    hero = next((thing.get("name") for thing in things if isinstance(thing, Mapping) and thing.get("role") == "hero"), None)
    if hero is None:
        return {}
    found: dict[int, list[str]] = {}
    for number, chapter in enumerate(story_chapters([(entry["number"], entry["slots"].get("intent")) for entry in entries], hero), start=1):
        found.setdefault(chapter.first, []).append(f"{number}. {chapter.title}")
    return found
