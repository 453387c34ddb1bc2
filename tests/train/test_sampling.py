"""What a person sees of a training: pictures and texts in the folder and in TensorBoard, numbers in metrics.csv, a bar."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("lightning")

from tests.train.toys import Distance, Linear, Numbers, chain, losses, run_settings
from wgtorch import Block
from wgtorch.core.errors import ConfigError, UnknownNameError
from wgtorch.train import register_data, register_objective
from wgtorch.train.data.pictures import grid
from wgtorch.train.fitting import fit

SEEN: list[tuple[bool, bool, torch.Tensor]] = []


@register_objective("train_toys/shown")
class Shown(Distance):
    """Shows a red picture for each row, and says which row it is; draws from the global generator while at it."""

    def samples(self, target: Block, batch: Mapping[str, Any], step: Any) -> Mapping[str, Any]:
        SEEN.append((target.training, torch.is_grad_enabled(), target.nodes["a"].layer.weight.clone()))
        torch.rand(100)
        red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(len(batch["x"]), 3, 8, 8)
        return {"red": red, "rows": [f"row {index}" for index in range(len(batch["x"]))]}


def settings(**more: Any) -> dict[str, Any]:
    return run_settings(
        objective="train_toys/shown",
        samples={"every": 4, "count": 3},
        logger={"type": "tensorboard"},
        trainer={"max_steps": 6, **more.pop("trainer", {})},
        **more,
    )


def test_pictures_and_texts_are_in_the_folder_and_in_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit(chain(Linear()), settings(), tmp_path)
    names = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert names == [f"{step:06d}_{name}" for step in (0, 4, 6) for name in ("red.png", "rows.txt")], "before, every 4 steps, at the end"
    assert (tmp_path / "samples/000004_rows.txt").read_text() == "row 0\nrow 1\nrow 2\n"
    picture = np.asarray(Image.open(tmp_path / "samples/000004_red.png"))
    assert tuple(picture[0, 0]) == (255, 0, 0)

    board = EventAccumulator(str(tmp_path), size_guidance={"images": 0, "scalars": 0}).Reload()
    assert board.Tags()["images"] == ["samples/red"]
    assert [event.step for event in board.Images("samples/red")] == [0, 4, 6]
    assert any("samples/rows" in tag for tag in board.Tags()["tensors"])
    assert [event.step for event in board.Scalars("train/loss")] == list(range(6))
    assert list(losses(tmp_path)) == list(range(6)), "numbers are in metrics.csv whatever else there is"


def test_samples_see_the_averages_and_leave_the_training_as_it_was(tmp_path: Path) -> None:
    SEEN.clear()
    target = chain(Linear(dropout=0.5))
    kept = {name: value.clone() for name, value in target.state_dict().items()}
    trainable = fit(target, settings(), tmp_path / "shown")
    assert [(training, grad) for training, grad, _ in SEEN] == [(False, False)] * 3
    assert trainable.averaging is not None
    with trainable.averaging.applied():
        assert torch.equal(SEEN[-1][2], target.nodes["a"].layer.weight)
    assert not torch.equal(SEEN[-1][2], target.nodes["a"].layer.weight)

    again = chain(Linear(dropout=0.5))
    again.load_state_dict(kept)
    fit(again, settings() | {"samples": None}, tmp_path / "plain")
    assert losses(tmp_path / "shown") == losses(tmp_path / "plain"), "neither draws nor modes were changed"
    assert not (tmp_path / "plain/samples").exists()


def test_a_bar_is_there_unless_it_is_not_wanted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fit(chain(Linear()), settings(trainer={"enable_progress_bar": True}), tmp_path / "bar")
    shown = capfd.readouterr().out
    assert "up to step 6" in shown
    assert "train/loss" in shown
    fit(chain(Linear()), settings(), tmp_path / "none")
    assert capfd.readouterr().out == ""


def test_pictures_stand_in_rows_with_a_gap() -> None:
    sheet = grid(torch.arange(5.0).view(5, 1, 1, 1).expand(5, 3, 4, 6) / 4)
    assert sheet.shape == (3, 2 * 4 + 2, 3 * 6 + 2 * 2)
    assert float(sheet[0, 0, 8]) == 0.25
    assert float(sheet[0, 6, 8]) == 1.0
    assert float(sheet[0, 4, 0]) == 1.0, "the gap is white"


def test_wrong_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="samples: found every 0 and count 3; expected at least 1 each"):
        fit(chain(Linear()), settings() | {"samples": {"every": 0, "count": 3}}, tmp_path)
    with pytest.raises((ConfigError, UnknownNameError), match="logger: unknown 'tensorbord'; did you mean 'tensorboard'"):
        fit(chain(Linear()), settings() | {"logger": {"type": "tensorbord"}}, tmp_path)


def test_without_validation_the_first_batch_is_shown(tmp_path: Path) -> None:
    given = settings()
    fit(chain(Linear()), given | {"data": {"type": "train_toys/unheld"}}, tmp_path)
    assert (tmp_path / "samples/000004_rows.txt").read_text().startswith("row 0\n")


@register_data("train_toys/unheld")
class Unheld(Numbers):
    """Nothing is held out."""

    def validation(self) -> None:
        return None
