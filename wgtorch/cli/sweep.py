"""Sweeps of trainings: jobs that fail do not end the others, and a sweep that is started again does what is unfinished."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wgtorch.core.errors import ConfigError, WgtorchError

RESULT = "result.json"
"""In the folder of a job that ended well: its overrides, and the value of ``optimized_metric``."""
_STARTED = "job.json"


@dataclass(slots=True)
class Sweep:
    """What became of the jobs of one sweep.

    Args:
        failed: the folder and the message of each that failed.
        done: how many ended well, now or when the sweep was first run.
        folder: of the sweep, once a job has run.
    """

    failed: list[tuple[Path, str]] = field(default_factory=list)
    done: int = 0
    folder: Path | None = None

    def job(self, folder: Path, overrides: Sequence[str], run: Callable[[Path | None], float | None]) -> float | None:
        """Runs a job, unless its folder says that it is done.

        Args:
            folder: of the job.
            overrides: what makes the job what it is.
            run: called with a checkpoint to go on from, or None.

        Returns:
            The value to optimize; NaN, which sweepers take for a failure, where the job failed.
        """
        own = sorted(overrides)
        found = _read(folder / RESULT)
        if found is not None and found.get("overrides") == own:
            self.done += 1
            return found.get("value")
        try:
            begun = _read(folder / _STARTED)
            if begun is not None and begun.get("overrides") != own:
                raise ConfigError(
                    f"{folder}: holds a job of other overrides ({', '.join(begun.get('overrides', []))}); take another hydra.sweep.dir"
                )
            folder.mkdir(parents=True, exist_ok=True)
            (folder / _STARTED).write_text(json.dumps({"overrides": own}), encoding="utf-8")
            last = folder / "checkpoints" / "last"
            value = run(last if last.is_dir() else None)
        except Exception as error:
            told = "\n".join([str(error), *getattr(error, "__notes__", [])])
            (folder / "failed.txt").write_text(told if isinstance(error, WgtorchError) else traceback.format_exc(), encoding="utf-8")
            self.failed.append((folder, told.splitlines()[0] if told else type(error).__name__))
            return float("nan")
        (folder / "failed.txt").unlink(missing_ok=True)
        (folder / RESULT).write_text(json.dumps({"overrides": own, "value": value}), encoding="utf-8")
        self.done += 1
        return value

    def report(self) -> str:
        """Which jobs failed, and why."""
        lines = [f"train: {len(self.failed)} of {len(self.failed) + self.done} jobs failed:"]
        return "\n".join([*lines, *(f"  {folder}: {told}" for folder, told in self.failed)])


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
