"""Data: order, shares of processes, and where a loader stands."""

from __future__ import annotations

import functools
import json
import operator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from wgtorch.core.errors import ConfigError, UnknownNameError
from wgtorch.train import Data
from wgtorch.train.registries import DataRegistry, build


class Count(Data):
    """Its items are their own indices."""

    def __init__(self, *, count: int = 10, batch_size: int = 3, fresh: bool = False) -> None:
        super().__init__(batch_size=batch_size)
        self.count, self.fresh = count, fresh

    def train(self) -> Any:
        return _Endless(self.count) if self.fresh else [{"n": index} for index in range(self.count)]

    def validation(self) -> Any:
        return [{"n": index} for index in range(5)]


class _Endless:
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, int]:
        return {"n": index}


def numbers(batches: Any) -> list[list[int]]:
    return [batch["n"].tolist() for batch in batches]


def test_an_epoch_has_every_item_once_in_an_order_of_its_own() -> None:
    train, held_out = Count(batch_size=5).loaders(seed=1)
    first, second = numbers(train), numbers(train)
    assert sorted(functools.reduce(operator.iadd, first, [])) == list(range(10))
    assert sorted(functools.reduce(operator.iadd, second, [])) == list(range(10))
    assert first != second
    assert first == numbers(Count(batch_size=5).loaders(seed=1)[0])
    assert first != numbers(Count(batch_size=5).loaders(seed=2)[0])
    assert held_out is not None
    assert numbers(held_out) == [[0, 1, 2, 3, 4]]


def test_the_order_does_not_touch_the_global_generator() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    numbers(Count().loaders(seed=1)[0])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("stop", [0, 1, 2, 3, 4, 7])
def test_a_loader_goes_on_where_another_stood(stop: int) -> None:
    def stream(loader: Any, count: int) -> list[list[int]]:
        found: list[list[int]] = []
        while len(found) < count:
            for batch in loader:
                found.append(batch["n"].tolist())
                if len(found) == count:
                    break
        return found

    whole = stream(Count().loaders(seed=1)[0], 9)
    first = Count().loaders(seed=1)[0]
    stream(first, stop) if stop else None
    second = Count().loaders(seed=1)[0]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert stream(second, 9 - stop) == whole[stop:]


def test_fresh_items_never_come_again() -> None:
    train, _ = Count(count=6, fresh=True).loaders(seed=1)
    assert numbers(train) == [[0, 1, 2], [3, 4, 5]]
    assert numbers(train) == [[6, 7, 8], [9, 10, 11]]


def test_processes_share_the_items() -> None:
    shares = [Count(count=12).loaders(seed=1, rank=rank, world_size=2) for rank in (0, 1)]
    seen = [functools.reduce(operator.iadd, numbers(train), []) for train, _ in shares]
    assert sorted(seen[0] + seen[1]) == list(range(12))
    assert [numbers(held_out) for _, held_out in shares] == [[[0, 2]], [[1, 3]]]


def test_data_too_few_for_a_batch() -> None:
    with pytest.raises(ConfigError, match="10 items make no batch of 6 in each of 2 processes; lower data.batch_size"):
        Count(batch_size=6).loaders(seed=0, world_size=2)
    with pytest.raises(ConfigError, match="expected at least 1 and at least 0"):
        Count(batch_size=0)


def test_made_up_values() -> None:
    values = {
        "latent": {"kind": "normal", "shape": [4, 8, 8], "std": 0.5},
        "image": {"kind": "gradient", "shape": [3, 8, 8]},
        "label": {"kind": "integers", "shape": [], "high": 3},
        "prompt": {"kind": "choice", "values": ["a", "b"]},
    }
    data = build(DataRegistry, {"type": "synthetic", "values": values, "count": 8, "batch_size": 4}, "data")
    batch = next(iter(data.loaders(seed=0)[0]))
    assert batch["latent"].shape == (4, 4, 8, 8)
    assert batch["image"].min() >= 0 and batch["image"].max() <= 1
    assert set(batch["label"].tolist()) <= {0, 1, 2}
    assert set(batch["prompt"]) <= {"a", "b"}
    assert torch.equal(data.train()[3]["latent"], data.train()[3]["latent"])
    assert not torch.equal(data.train()[3]["latent"], data.validation()[3]["latent"])
    with pytest.raises(ConfigError, match=r"data.values.x: found kind 'normla'; did you mean 'normal'"):
        build(DataRegistry, {"type": "synthetic", "values": {"x": {"kind": "normla"}}}, "data")
    with pytest.raises(UnknownNameError, match="unknown data 'syntetic'; did you mean 'synthetic'"):
        build(DataRegistry, "syntetic", "data")
    with pytest.raises(ConfigError, match="batchsize"):
        build(DataRegistry, {"type": "synthetic", "values": {}, "batchsize": 3}, "data")


def test_tensors_from_a_folder(tmp_path: Path) -> None:
    rows = torch.arange(12.0).view(6, 2)
    texts = [f"row {index}" for index in range(6)]
    for part in (slice(0, 4), slice(4, 6)):
        save_file({"x": rows[part]}, tmp_path / f"{part.start}.safetensors", metadata={"text:prompt": json.dumps(texts[part])})
    data = build(DataRegistry, {"type": "tensors", "folder": str(tmp_path), "held_out": 2, "batch_size": 4}, "data")
    assert [data.train()[index]["prompt"] for index in range(4)] == texts[:4]
    assert torch.equal(data.validation()[1]["x"], rows[5])
    (batch,) = data.loaders(seed=0)[0]
    assert torch.equal(batch["x"][:, 0].sort().values, rows[:4, 0])
    save_file({"y": rows}, tmp_path / "z.safetensors")
    with pytest.raises(ConfigError, match=r"z.safetensors: keys \['y'\] .*expected the keys \['prompt', 'x'\]"):
        build(DataRegistry, {"type": "tensors", "folder": str(tmp_path)}, "data")
    with pytest.raises(ConfigError, match=r"holds no .safetensors file"):
        build(DataRegistry, {"type": "tensors", "folder": str(tmp_path / "none")}, "data")


def test_pictures_with_captions(tmp_path: Path) -> None:
    from PIL import Image

    for index, (width, height) in enumerate([(20, 10), (10, 20), (8, 8)]):
        picture = Image.new("RGB", (width, height), (255 * (index == 0), 0, 255))
        picture.save(tmp_path / f"{index}.png")
    (tmp_path / "0.txt").write_text("wide\n")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "1.png", "text": "high"}\n')
    with pytest.raises(ConfigError, match=r"1 pictures have no caption, as 2.png; write 2.txt beside it"):
        build(DataRegistry, {"type": "image_folder", "buckets": False, "folder": str(tmp_path)}, "data")
    settings = {"folder": str(tmp_path), "buckets": False, "size": 8, "prompt": "small", "held_out": 1}
    data = build(DataRegistry, {"type": "image_folder", **settings}, "data")
    assert [data.validation()[0]["prompt"], *(data.train()[index]["prompt"] for index in range(2))] == ["wide", "high", "small"]
    image = data.validation()[0]["image"]
    assert image.shape == (3, 8, 8)
    torch.testing.assert_close(image[:, 4, 4], torch.tensor([1.0, 0.0, 1.0]))


class Draws(Data):
    """Items that draw for themselves, which they should not."""

    def train(self) -> Any:
        return DrawnItems()


class DrawnItems(torch.utils.data.Dataset[Any]):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x": torch.rand(())}


def test_what_items_draw_in_workers_is_of_the_seed_and_the_place() -> None:
    def drawn(seed: int, place: tuple[int, int]) -> list[float]:
        loader = Draws(batch_size=2, workers=1).loaders(seed=seed)[0]
        loader.load_state_dict({"epoch": place[0], "position": place[1]})
        return [value for batch in loader for value in batch["x"].tolist()]

    first = drawn(0, (0, 0))
    assert first == drawn(0, (0, 0))
    others = [drawn(1, (0, 0)), drawn(0, (1, 0)), drawn(0, (0, 1))]
    assert all(set(first).isdisjoint(other) for other in others)
