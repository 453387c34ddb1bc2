"""Letting a world live before people's eyes: a progress bar, each episode as it is told, and a folder of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wgtorch.cli.episode_text import Episode, beginning, episodes
from wgtorch.cli.storybook import Storybook
from wgtorch.core.run.events import Event
from wgtorch.report.words import rows, words
from wgtorch.world import World


def live(world: World, folder: Path, *, steps: int, actions: Sequence[Any] = (), seed: int | None = None) -> Path | None:
    """Runs a world for some passes, prints each episode, and writes pictures, story and overview to a folder.

    What was told before an error or an interrupt is written all the same.

    Args:
        world: the world; its storage is its own business.
        folder: where people find the pictures.
        steps: passes of the cycle.
        actions: one for each pass; nothing is done in those that are left.
        seed: root of all random draws.

    Returns:
        The overview picture; None when nothing has been told.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    book = Storybook(folder, _title(world))
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn())
    try:
        with Progress(*columns, console=Console(highlight=False)) as progress:
            bar = _Bar(world, progress, steps)
            for episode in episodes(world, steps, actions=actions, seed=seed, callbacks=[bar]):
                if episode.number not in book.numbers:
                    progress.console.print(_panel(episode, book.add(episode, world.life.seed)))
            bar.finish()
    finally:
        overview = book.overview(world.life.seed) if book.numbers else None
    return overview


class _Bar:
    """A callback that moves a progress bar: by stages, and within a stage by the turns of its loop."""

    def __init__(self, world: World, progress: Any, steps: int) -> None:
        self.cycle = world.cycle
        self.progress = progress
        self.steps = steps
        self.begun = 0  # passes of this run that have begun
        self.stage = 0  # the one that runs, by its place in the cycle
        self.moved = 0.0
        self.total = steps * len(world.cycle) + (beginning(world) or 0)
        self.task = progress.add_task("waking up", total=self.total)

    def __call__(self, event: Event) -> None:
        turned = 0.0
        if event.kind == "loop" and event.level == "world":
            self.begun, self.stage = self.begun + 1, 0
        elif event.kind == "loop" and event.total:
            turned = (event.step or 0) / event.total
        elif event.kind in ("start", "skip") and event.level == "stage":
            self.stage = self.cycle.index(event.path.rsplit("/", 1)[-1])
        else:
            return
        # A stage may run its loop several times; a bar that went back would only puzzle.
        self.moved = max(self.moved, (self.begun - 1) * len(self.cycle) + self.stage + turned)
        step = f"pass {min(self.begun, self.steps)} of {self.steps}"
        self.progress.update(self.task, completed=self.moved, description=f"{step}: {self.cycle[self.stage]}")

    def finish(self) -> None:
        """Fills the bar."""
        self.progress.update(self.task, completed=self.total, description="done")


def _panel(episode: Episode, pictures: Sequence[Path]) -> Any:
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in [("action", words(episode.action)), *rows(episode.state)]:
        if text:
            table.add_row(label, Text(text))
    if pictures:
        table.add_row("picture", Text(", ".join(path.name for path in pictures), style="dim"))
    return Panel(table, title=f"Episode {episode.number}", title_align="left", border_style="cyan")


def _title(world: World) -> str:
    """How the world begins, or its name."""
    content = world.content
    return words(content.get("opening") or content.get("story")) or world.world_id
