"""Drawn scenes as datasets, and the pictures that are made of them."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from wgtorch.blocks.scenes.scene import ATTRIBUTES, parse
from wgtorch.train.data.base import Data
from wgtorch.train.data.made import StoredItems
from wgtorch.train.registries import DataRegistry, build
from wgtorch.train.scenes.data import DrawnScenes, gather, scene_of, store
from wgtorch.train.scenes.disturbing import disturb


def test_a_sample_is_the_same_each_time_and_in_another_process() -> None:
    scenes = DrawnScenes(4, seed=3)
    again = pickle.loads(pickle.dumps(scenes))
    for index in (0, 3, 12345):
        torch.testing.assert_close(scenes[index], again[index], rtol=0, atol=0)
    assert scenes[0]["image"].shape == (3, 64, 64) and scenes[0]["image"].dtype == torch.uint8
    assert len(scenes) == 4


def test_seeds_and_indices_give_other_pictures_and_other_scenes() -> None:
    first, second = DrawnScenes(40, seed=0), DrawnScenes(40, seed="held out")
    pictures = [tuple(scenes[k]["image"].flatten().tolist()) for scenes in (first, second) for k in range(40)]
    assert len(set(pictures)) == 80
    assert any(not torch.equal(first[k]["labels"], second[k]["labels"]) for k in range(5))


def test_labels_are_those_of_the_picture() -> None:
    labels = torch.stack([DrawnScenes(1)[k]["labels"] for k in range(300)])
    sizes = [len(values) for values in ATTRIBUTES.values()]
    for column, size in zip(labels.T, sizes, strict=True):
        assert set(column.tolist()) - {-1} == set(range(size))
    color, place, landmark = (list(ATTRIBUTES).index(name) for name in ("color", "place", "landmark"))
    assert torch.equal(labels[:, color] == -1, labels[:, landmark] == 0)
    assert torch.equal(labels[:, place] == -1, labels[:, landmark] == 0)
    assert (labels[:, [0, 1, 2, 3, 6]] >= 0).all()
    for row in labels[:20].tolist():
        assert scene_of(row).attributes() == {n: v[k] for k, (n, v) in zip(row, ATTRIBUTES.items(), strict=True) if k >= 0}


def test_stored_drawings_are_the_drawn_ones(tmp_path: Path) -> None:
    drawn = DrawnScenes(7, seed="kept", size=16)
    stored = store(drawn, tmp_path)
    for k in range(7):
        torch.testing.assert_close(stored[k], drawn[k], rtol=0, atol=0)
    (folder,) = tmp_path.iterdir()
    before = (folder / "image.npy").stat().st_mtime_ns
    assert len(store(drawn, tmp_path)) == 7
    assert (folder / "image.npy").stat().st_mtime_ns == before, "drawn again"
    assert len(store(DrawnScenes(3, seed="kept", size=16), tmp_path)) == 3
    assert isinstance(stored, StoredItems)


def test_half_a_store_is_not_taken_for_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = DrawnScenes(5, seed="broken", size=16)
    whole = DrawnScenes.__getitem__

    def breaks(self: DrawnScenes, index: int) -> dict[str, torch.Tensor]:
        if index == 3:
            raise KeyboardInterrupt
        return whole(self, index)

    monkeypatch.setattr(DrawnScenes, "__getitem__", breaks)
    with pytest.raises(KeyboardInterrupt):
        store(drawn, tmp_path)
    monkeypatch.undo()
    torch.testing.assert_close(store(drawn, tmp_path)[4], drawn[4], rtol=0, atol=0)


def test_a_count_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="found count 0 and size 64"):
        DrawnScenes(0)


def test_gathered_pictures_are_from_zero_to_one() -> None:
    batch = gather([DrawnScenes(8)[k] for k in range(8)])
    assert batch["image"].shape == (8, 3, 64, 64) and batch["labels"].shape == (8, 7)
    assert 0.8 < batch["image"].max() <= 1 and 0 <= batch["image"].min() < 0.2


# --- disturbing -------------------------------------------------------------------------------------------------------


def test_disturbing_changes_most_pictures_a_little() -> None:
    image = gather([DrawnScenes(64)[k] for k in range(64)])["image"]
    before = image.clone()
    found = disturb(image, torch.Generator().manual_seed(1))
    torch.testing.assert_close(image, before, rtol=0, atol=0)
    assert found.shape == image.shape and found.min() >= 0 and found.max() <= 1
    change = (found - image).square().mean(dim=(1, 2, 3)).sqrt()
    assert change.max() < 0.2 and change.median() > 0.01
    torch.testing.assert_close(found, disturb(image, torch.Generator().manual_seed(1)), rtol=0, atol=0)


def test_some_pictures_get_noise_and_some_get_soft() -> None:
    flat = torch.full((200, 3, 16, 16), 0.5)
    noise = (disturb(flat, torch.Generator().manual_seed(0))[..., 1:] - disturb(flat, torch.Generator().manual_seed(0))[..., :-1]).abs()
    spread = noise.mean(dim=(1, 2, 3))
    assert (spread < 0.01).float().mean() > 0.2 and (spread > 0.05).float().mean() > 0.2
    stripes = (torch.arange(16) % 2).float().expand(200, 3, 16, 16)
    left = disturb(stripes, torch.Generator().manual_seed(0)).std(dim=-1).mean(dim=(1, 2))
    assert (left < 0.2).any() and (left > 0.4).any()


# --- registered data --------------------------------------------------------------------------------------------------


def build_data(**config: object) -> Data:
    return build(DataRegistry, config, "data")


def test_scenes_come_as_batches_of_pictures_labels_and_their_captions() -> None:
    data = build_data(type="scenes", count=16, validation=6, batch_size=4)
    train, held_out = data.loaders(seed=0)
    assert held_out is not None
    first = next(iter(train))
    assert first["image"].shape == (4, 3, 64, 64) and first["image"].is_floating_point()
    for prompt, labels in zip(first["prompt"], first["labels"].tolist(), strict=True):
        assert parse(prompt).items() <= scene_of(labels).attributes().items()
    assert [len(batch["labels"]) for batch in held_out] == [4, 2]
    assert not torch.equal(next(iter(held_out))["image"], first["image"])


def test_fresh_scenes_never_come_again_and_kept_ones_do(tmp_path: Path) -> None:
    def epochs(**config: object) -> list[list[bytes]]:
        train, _ = build_data(type="scenes", count=8, validation=4, batch_size=4, **config).loaders(seed=0)
        return [sorted(image.numpy().tobytes() for batch in train for image in batch["image"]) for _ in range(2)]

    first, second = epochs()
    assert not set(first) & set(second)
    kept, again = epochs(keep=str(tmp_path))
    assert kept == again == first


def test_captions_are_labelled_by_what_they_name() -> None:
    train, held_out = build_data(type="scene_captions", count=300, validation=20, batch_size=100).loaders(seed=0)
    texts = [(text, row) for batch in train for text, row in zip(batch["text"], batch["labels"].tolist(), strict=True)]
    assert len({text for text, _ in texts}) > 280
    for text, row in texts:
        assert parse(text) == {name: values[k] for k, (name, values) in zip(row, ATTRIBUTES.items(), strict=True) if k >= 0}
    assert held_out is not None and len(held_out) == 1
