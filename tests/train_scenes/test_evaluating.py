"""The judge and the measures: what they count, and that they tell right from wrong."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from scripts.scene_measures import (
    FREE_PROMPTS,
    SceneJudge,
    free_prompts,
    held_out_drawings,
    held_out_prompts,
    kept_judge,
    labels_for,
    pictures_from,
    right,
    save_sheet,
    shares,
    table,
)
from wgtorch.blocks.scenes.describer import SceneDescriber
from wgtorch.blocks.scenes.scene import ATTRIBUTES, labels_of, parse
from wgtorch.core.config.template import build_template
from wgtorch.graph import Graph
from wgtorch.train.scenes.data import DrawnScenes, gather

SIZES = {name: len(values) for name, values in ATTRIBUTES.items()}


def sure(labels: Tensor) -> dict[str, Tensor]:
    """Logits that say the labels."""
    return {
        name: torch.nn.functional.one_hot(column.clamp(min=0), size).float()
        for (name, size), column in zip(SIZES.items(), labels.T, strict=True)
    }


def test_right_counts_what_was_asked_for_and_nothing_else() -> None:
    said = torch.tensor([[0, 1, 2, 3, 0, 1, 0], [1, 1, 2, 0, 2, 2, 1], [2, 5, 0, 1, 3, 0, 1]])
    asked = said.clone()
    asked[0, 0] = 3  # one time of day is another
    asked[1, 4:6] = -1  # a colour and a place were not asked for
    asked[:, 6] = -1
    queue = list(sure(said).items())
    found = right(
        lambda part: {name: logits[part[:, 0, 0, 0].long()] for name, logits in queue}, torch.arange(3.0).view(3, 1, 1, 1), asked, batch=2
    )
    assert found["time"].tolist() == [False, True, True]
    assert found["color"].tolist() == found["place"].tolist() == [True, True]
    assert found["traveller"].tolist() == []
    values = shares(found)
    assert values["time"] == pytest.approx(2 / 3) and values["weather"] == 1 and math.isnan(values["traveller"])
    lines = table({"one": values, "another": values}).splitlines()
    assert (
        lines[0].split() == ["one", "another"]
        and lines[1].split() == ["time", "66.7%", "66.7%"]
        and lines[-1].split() == ["traveller", "-", "-"]
    )


def test_held_out_prompts_are_the_same_each_time_and_ask_for_something() -> None:
    prompts = held_out_prompts(50)
    assert prompts == held_out_prompts(60)[:50]
    assert all(prompt.text and prompt.asked and parse(prompt.text) == prompt.asked for prompt in prompts)
    labels = labels_for(prompts)
    assert labels.shape == (50, 7)
    assert ((labels >= 0).float().mean(dim=0) > 0.5).all()


def test_free_prompts_ask_for_values_that_there_are() -> None:
    prompts = free_prompts()
    assert len({prompt.text for prompt in prompts}) == len(FREE_PROMPTS) == 12
    for prompt in prompts:
        assert len(prompt.asked) >= 2 and all(value in ATTRIBUTES[name] for name, value in prompt.asked.items()), prompt
    assert prompts[1].asked == {"weather": "snow", "landmark": "house", "terrain": "forest"}


def test_held_out_drawings_are_not_those_of_training_or_of_the_judge(tmp_path: Path) -> None:
    held_out = held_out_drawings(20, tmp_path)["image"]
    for seed in (0, "judge", "validation"):
        other = gather([DrawnScenes(20, seed=seed)[k] for k in range(20)])["image"]
        assert (held_out[:, None] - other[None]).abs().amax(dim=(2, 3, 4)).min() > 0.1


def test_the_judge_is_trained_once_and_again_when_asked_otherwise(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    judge = kept_judge(tmp_path, pictures=8, batch=4)
    assert torch.equal(torch.get_rng_state(), state), "training the judge draws from the global generator"
    assert not judge.training
    path = tmp_path / "judge.safetensors"
    before = path.stat().st_mtime_ns
    again = kept_judge(tmp_path, pictures=8, batch=4)
    assert path.stat().st_mtime_ns == before
    for name, tensor in judge.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=0, atol=0)
    kept_judge(tmp_path, pictures=12, batch=4)
    assert path.stat().st_mtime_ns != before


def test_the_judge_learns_to_tell_day_from_night(tmp_path: Path) -> None:
    judge = kept_judge(tmp_path, pictures=320, epochs=3, batch=16, rate=8e-3, width=8)
    drawings = held_out_drawings(60, tmp_path)
    found = shares(right(judge, drawings["image"], drawings["labels"]))
    assert found["time"] > 0.75, found
    wrong = shares(right(judge, drawings["image"], drawings["labels"].roll(1, 0)))
    assert wrong["time"] < 0.5, wrong


def test_the_judge_gives_logits_of_every_attribute() -> None:
    found = SceneJudge(width=8)(torch.rand(2, 3, 64, 64))
    assert {name: logits.shape for name, logits in found.items()} == {name: (2, size) for name, size in SIZES.items()}


def test_painting_prompts_and_reading_them_finds_what_they_asked_for() -> None:
    """With the describer as the reader: prompts that were swapped are noticed."""
    graph = build_template("graph", "text_to_image", {"steps": 6})
    assert isinstance(graph, Graph)
    prompts = ["A red castle on the left of a meadow, by day, clear sky", "The sea at night in a storm"] * 3
    asked = torch.tensor([labels_of(parse(text)) for text in prompts])
    pictures = pictures_from(graph, "prompt", prompts, seed=3, batch=4)
    assert pictures.shape == (6, 3, 64, 64) and pictures.min() >= 0 and pictures.max() <= 1
    assert not torch.equal(pictures[0], pictures[2]), "the same noise for every picture"
    reader = SceneDescriber.from_config({"checkpoint_ref": "wgtorch:scene_describer"}).eval().logits
    assert min(v for v in shares(right(reader, pictures, asked)).values() if not math.isnan(v)) > 0.8
    assert shares(right(reader, pictures, asked.roll(1, 0)))["time"] < 0.2


def test_a_sheet_holds_the_pictures_row_by_row(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    pictures = torch.arange(5).view(5, 1, 1, 1).expand(5, 3, 2, 2) * 51 / 255
    with Image.open(save_sheet(pictures, tmp_path / "new" / "one.png", columns=3)) as opened:
        sheet = np.asarray(opened)
    assert sheet.shape == (10, 16, 3)
    assert (sheet[:4, 6:10] == 51).all() and (sheet[6:, 6:10] == 204).all()
    assert (sheet[6:, 12:] == 255).all() and (sheet[4:6] == 255).all()
