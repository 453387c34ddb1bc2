"""data=image_folder: pictures as people have them."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from wgtorch.core.errors import ConfigError
from wgtorch.train.data.buckets import bucket_sizes, nearest
from wgtorch.train.data.image_folder import ImageFolder

SMALL: dict[str, Any] = {"size": 32, "step": 8}


def draw(folder: Path, name: str, width: int = 40, height: int = 40, caption: str | None = "a", colour: Any = (200, 10, 10)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    Image.new("RGB", (width, height), colour).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def noise(folder: Path, name: str, width: int, height: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(name)).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / name)
    (folder / name).with_suffix(".txt").write_text(name, encoding="utf-8")
    return folder / name


def epoch(data: ImageFolder, count: int = 1, seed: int = 0, rank: int = 0, world_size: int = 1) -> list[dict[str, Any]]:
    batches = data.loaders(seed=seed, rank=rank, world_size=world_size)[0]
    return [batch for _ in range(count) for batch in batches]


@pytest.mark.parametrize("way", ["txt", "jsonl", "csv", "csv below"])
def test_captions_beside_or_listed(way: str, tmp_path: Path) -> None:
    for name in ("one.png", "below/two.jpg"):
        draw(tmp_path / Path(name).parent, Path(name).name, caption=f"of {Path(name).stem}" if way == "txt" else None)
    if way == "jsonl":
        rows = [{"file_name": "one.png", "text": "of one"}, {"file_name": "below/two.jpg", "text": "of two"}]
        (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    if way == "csv":
        (tmp_path / "metadata.csv").write_text('file_name,text\none.png,of one\nbelow/two.jpg,"of two"\n', encoding="utf-8")
    if way == "csv below":
        (tmp_path / "metadata.csv").write_text("file_name,caption\none.png,of one\n", encoding="utf-8")
        (tmp_path / "below/metadata.csv").write_text("file_name,caption\ntwo.jpg,of two\n", encoding="utf-8")
    data = ImageFolder(folder=str(tmp_path), **SMALL)
    assert dict(zip([path.name for path in data.pictures], data.captions, strict=True)) == {"one.png": "of one", "two.jpg": "of two"}


def test_lists_that_do_not_fit_are_named(tmp_path: Path) -> None:
    draw(tmp_path, "one.png", caption=None)
    with pytest.raises(ConfigError, match="1 pictures have no caption, as one.png"):
        ImageFolder(folder=str(tmp_path), **SMALL)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "won.png", "text": "x"}', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"names .*won.png, which is not there; did you mean 'one.png'"):
        ImageFolder(folder=str(tmp_path), **SMALL)
    (tmp_path / "metadata.jsonl").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"metadata.jsonl, line 1: is no JSON"):
        ImageFolder(folder=str(tmp_path), **SMALL)
    with pytest.raises(ConfigError, match="holds no pictures"):
        ImageFolder(folder=str(tmp_path.joinpath("empty").mkdir() or tmp_path / "empty"), **SMALL)


@pytest.mark.parametrize("name", ["metadata.parquet", "train-00000-of-00001.parquet", "meta_cap.json", "captions.tsv", "one.json"])
def test_captions_in_files_that_are_not_read_are_not_passed_over(name: str, tmp_path: Path) -> None:
    draw(tmp_path, "one.png", caption=None)
    (tmp_path / name).write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match=rf"{name}: captions are not read from such a file.*metadata.jsonl"):
        ImageFolder(folder=str(tmp_path), prompt="a dog", **SMALL)
    (tmp_path / "one.txt").write_text("a")
    assert ImageFolder(folder=str(tmp_path), prompt="a dog", **SMALL).captions == ["a"], "as img2dataset leaves one beside captions"


def test_captions_are_read_whole_or_not_at_all(tmp_path: Path) -> None:
    draw(tmp_path, "one.png", caption=None)
    table = tmp_path / "metadata.csv"
    table.write_text("file_name,text\none.png,a dog, sitting\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="metadata.csv: entry 1 has more fields than the first line; write a caption with commas in quo"):
        ImageFolder(folder=str(tmp_path), **SMALL)
    table.write_bytes("file_name,text\none.png,café\n".encode("cp1252"))
    with pytest.raises(ConfigError, match="metadata.csv: is no UTF-8"):
        ImageFolder(folder=str(tmp_path), **SMALL)
    table.unlink()
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "one.png", "text": "one\u2028two"}', encoding="utf-8")
    assert ImageFolder(folder=str(tmp_path), **SMALL).captions == ["one\u2028two"]
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "one.png", "text": ""}', encoding="utf-8")
    assert ImageFolder(folder=str(tmp_path), prompt="a dog", **SMALL).captions == [""], "nothing is said on purpose"


def test_hidden_files_are_no_pictures(tmp_path: Path) -> None:
    draw(tmp_path, "one.png")
    draw(tmp_path / ".ipynb_checkpoints", "one-checkpoint.png")
    (tmp_path / "._one.png").write_bytes(b"what macOS writes beside files on a stick")
    assert [path.name for path in ImageFolder(folder=str(tmp_path), **SMALL).pictures] == ["one.png"]


def test_transparent_turned_grey_deep_and_other_files(tmp_path: Path) -> None:
    layer = np.zeros((32, 32, 4), np.uint8)
    layer[..., 0], layer[:, 16:, 3] = 255, 255
    Image.fromarray(layer).save(tmp_path / "clear.png")
    turned = Image.new("RGB", (32, 16), (0, 0, 255))
    turned.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    Image.fromarray((np.full((32, 32), 257 * 128)).astype(np.uint16)).save(tmp_path / "deep.png")
    Image.new("CMYK", (32, 32), (0, 255, 255, 0)).save(tmp_path / "print.jpg")
    data = ImageFolder(folder=str(tmp_path), prompt="a", **SMALL, background=[0, 255, 0])
    shown = {path.stem: data.train()[(index, 0, *data.sizes[index])]["image"] for index, path in enumerate(data.pictures)}
    torch.testing.assert_close(shown["clear"][:, 0, 0], torch.tensor([0.0, 1.0, 0.0]), msg="the background shows, not the hidden colour")
    torch.testing.assert_close(shown["clear"][:, 0, 31], torch.tensor([1.0, 0.0, 0.0]))
    assert shown["turned"].shape[1] > shown["turned"].shape[2], "EXIF says that it stands upright"
    torch.testing.assert_close(shown["deep"], torch.full((3, 32, 32), 128 / 255))
    assert shown["print"][0].mean() > 0.9 > 0.1 > shown["print"][2].mean()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"background": [1, 2]}, r"data.background: found \[1, 2\]; expected red, green and blue"),
        ({"background": [0, 0, 256]}, r"data.background: found \[0, 0, 256\]"),
        ({"background": [0.5, 0.5, 0.5]}, r"data.background: found \[0.5, 0.5, 0.5\]"),
        ({"held_out": float("nan")}, "held_out nan"),
        ({"longest": float("inf")}, "longest inf"),
        ({"folder": "~/nowhere"}, r"data.folder: /.*/nowhere is no folder"),
        ({"masks": "nowhere"}, r"data.masks: nowhere is no folder"),
        ({"controls": "nowhere"}, r"data.controls: nowhere is no folder"),
        ({"prior": {"folder": "nowhere", "prompt": "a"}}, r"data.prior.folder: nowhere is no folder"),
    ],
)
def test_what_is_wrong_is_told_by_its_setting(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    draw(tmp_path, "good.png")
    with pytest.raises(ConfigError, match=words):
        ImageFolder(**{"folder": str(tmp_path), "prompt": "a", **settings, **SMALL})


def test_a_list_may_name_broken_files_that_are_skipped(tmp_path: Path) -> None:
    draw(tmp_path, "good.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    lines = [json.dumps({"file_name": f"{name}.png", "text": f"a {name} one"}) for name in ("good", "bad")]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    assert ImageFolder(folder=str(tmp_path), broken="skip", **SMALL).captions == ["a good one"]


def test_broken_files_are_named_and_refused_or_skipped(tmp_path: Path) -> None:
    draw(tmp_path, "good.png")
    whole = noise(tmp_path, "cut.png", 60, 60).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("this is no picture")
    Image.new("F", (32, 32), 0.5).save(tmp_path / "range.tiff")
    with pytest.raises(ConfigError, match=r"3 files cannot be read: .*cut.png.*range.tiff: .*floating-point.*text.jpg"):
        ImageFolder(folder=str(tmp_path), prompt="a", **SMALL)
    assert [path.name for path in ImageFolder(folder=str(tmp_path), prompt="a", broken="skip", **SMALL).pictures] == ["good.png"]


def test_buckets_have_about_as_many_pixels_and_keep_shapes(tmp_path: Path) -> None:
    sizes = bucket_sizes(64, 8)
    assert (64, 64) in sizes
    assert all(0.8 * 64 * 64 <= height * width <= 64 * 64 and height % 8 == width % 8 == 0 for height, width in sizes)
    assert all(max(height / width, width / height) <= 2 for height, width in sizes)
    assert nearest(100, 200, sizes)[0] < nearest(100, 100, sizes)[0] == 64 < nearest(200, 100, sizes)[0]
    for index, (width, height) in enumerate([(80, 40), (80, 41), (40, 80), (50, 50), (51, 50)]):
        noise(tmp_path, f"{index}.png", width, height)
    data = ImageFolder(folder=str(tmp_path), batch_size=2, **SMALL)
    batches = epoch(data)
    assert sorted(name for batch in batches for name in batch["prompt"]) == [f"{index}.png" for index in range(5)]
    assert all(len({tuple(image.shape) for image in batch["image"]}) == 1 for batch in batches)
    with pytest.raises(ConfigError, match=r"data.size: found 30; expected a multiple of data.step \(8\)"):
        ImageFolder(folder=str(tmp_path), size=30, step=8)


@pytest.mark.parametrize(
    ("settings", "level", "words"),
    [
        (
            {"size": 128},
            "WARNING",
            r"3 of 128x128; at most 50% of one is cut off \(wide.png\); data.step below 64, or more",
        ),
        ({"size": 128, "step": 16}, "INFO", r"1 of 160x96, 1 of 144x112, 1 of 128x128; at most 17% of one is cut off \(wide.png\)$"),
        ({"size": 128, "buckets": False}, "INFO", r"3 of 128x128; at most 50% of one is cut off \(wide.png\)$"),
    ],
    ids=["squares_by_step", "shapes", "squares_as_asked"],
)
def test_what_is_cut_off_is_said(settings: Any, level: str, words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, (width, height) in {"wide": (160, 80), "broad": (160, 120), "even": (90, 90)}.items():
        noise(tmp_path, f"{name}.png", width, height)
    with caplog.at_level("INFO"):
        ImageFolder(folder=str(tmp_path), **settings)
    (record,) = caplog.records
    assert record.levelname == level and re.search(words, record.getMessage()), record.getMessage()


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_have_as_many_batches_of_the_same_sizes(world_size: int, tmp_path: Path) -> None:
    for index, (width, height) in enumerate([(80, 40)] * 3 + [(40, 80)] + [(50, 50)] * 4):
        noise(tmp_path, f"{index}.png", width, height)
    data = ImageFolder(folder=str(tmp_path), batch_size=2, **SMALL)
    shares = [epoch(data, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert {name for share in shares for batch in share for name in batch["prompt"]} == {f"{index}.png" for index in range(8)}
    for together in zip(*shares, strict=True):
        assert len({batch["image"].shape for batch in together}) == 1


def test_crops_and_mirrorings_are_new_in_each_epoch_and_the_same_by_seed(tmp_path: Path) -> None:
    noise(tmp_path, "wide.png", 90, 40)
    settings: dict[str, Any] = {"folder": str(tmp_path), "crop": "random", "mirror": 0.5, "buckets": False, **SMALL}
    first, again, other = (epoch(ImageFolder(seed=seed, **settings), 6) for seed in (0, 0, 1))
    corners = [tuple(batch["crops_coords_top_left"][0].tolist()) for batch in first]
    assert len(set(corners)) > 2
    for one, two in zip(first, again, strict=True):
        assert torch.equal(one["image"], two["image"])
    assert any(not torch.equal(one["image"], two["image"]) for one, two in zip(first, other, strict=True))
    assert ImageFolder(**settings).is_endless
    few = ImageFolder(variants=2, **settings)
    assert not few.is_endless
    shown = epoch(few, 4)
    assert torch.equal(shown[0]["image"], shown[2]["image"])
    assert not torch.equal(shown[0]["image"], shown[1]["image"])
    more = ImageFolder(repeats=3, **settings)
    assert len({tuple(batch["crops_coords_top_left"][0].tolist()) for batch in epoch(more)}) > 1, "each time of an epoch has its own crop"


def test_what_xl_is_told_is_of_the_crop_that_is_shown(tmp_path: Path) -> None:
    path = noise(tmp_path, "wide.png", 96, 32)
    data = ImageFolder(folder=str(tmp_path), crop="random", buckets=False, **SMALL)
    pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1).float() / 255
    for batch in epoch(data, 3):
        top, left = batch["crops_coords_top_left"][0].tolist()
        assert batch["original_size"][0].tolist() == [32, 96]
        assert batch["target_size"][0].tolist() == [32, 32]
        torch.testing.assert_close(batch["image"][0], pixels[:, top : top + 32, left : left + 32])


def test_repeats_prior_and_masks(tmp_path: Path) -> None:
    own, kind = tmp_path / "own", tmp_path / "kind"
    draw(own / "often", "one.png", caption="one")
    draw(own, "two.png", width=80, caption="two")
    for index in range(3):
        draw(kind, f"{index}.png", caption=None, colour=(0, index, 0))
    data = ImageFolder(folder=str(own), repeats={"often": 3}, prior={"folder": str(kind), "prompt": "a dog"}, batch_size=2, **SMALL)
    batches = epoch(data)
    assert sorted(name for batch in batches for name in batch["prompt"] if name != "a dog") == ["one", "one", "one", "two"]
    for batch in batches:
        assert int(batch["prior"].sum()) * 2 == len(batch["prior"])
        assert [caption == "a dog" for caption in batch["prompt"]] == batch["prior"].tolist()
    with pytest.raises(ConfigError, match="data.repeats: found oft: 3.*did you mean 'often'"):
        ImageFolder(folder=str(own), repeats={"oft": 3}, **SMALL)
    with pytest.raises(ConfigError, match=r"data.prior: unknown 'weight'.*objective.prior_weight"):
        ImageFolder(folder=str(own), prior={"folder": str(kind), "prompt": "a", "weight": 1}, **SMALL)

    masks = tmp_path / "masks"
    draw(masks / "often", "one.png", caption=None, colour=(255, 255, 255))
    with pytest.raises(ConfigError, match="holds no picture for two.png"):
        ImageFolder(folder=str(own), masks=str(masks), **SMALL)
    draw(masks, "two.png", width=80, caption=None, colour=(0, 0, 0))
    masked = {batch["prompt"][0]: batch["mask"] for batch in epoch(ImageFolder(folder=str(own), masks=str(masks), **SMALL))}
    assert float(masked["one"].min()) == 1.0
    assert float(masked["two"].max()) == 0.0


def test_held_out_pictures_are_never_trained_on(tmp_path: Path) -> None:
    for index in range(6):
        noise(tmp_path, f"{index}.png", 40 + 8 * index, 40)
    data = ImageFolder(folder=str(tmp_path), held_out=2, batch_size=2, **SMALL)
    held: Any = data.loaders(seed=0)[1]
    seen = {name for batch in held for name in batch["prompt"]}
    assert len(seen) == 2
    assert not seen & {name for batch in epoch(data) for name in batch["prompt"]}
    assert isinstance(next(iter(held))["image"], Tensor)


def test_a_picture_that_is_liked_less_is_brought_to_the_same_shape(tmp_path: Path) -> None:
    for name, colour, size in (("liked", "red", (40, 20)), ("others", "blue", (60, 60))):
        (tmp_path / name).mkdir()
        for index in range(2):
            Image.new("RGB", size, colour).save(tmp_path / name / f"{index}.png")
    settings = {"folder": str(tmp_path / "liked"), "prompt": "a", "size": 16, "step": 8}
    item = ImageFolder(**settings, rejected=str(tmp_path / "others")).train()[0]
    assert item["rejected_image"].shape == item["image"].shape
    assert item["image"][0].mean() == 1
    assert item["rejected_image"][2].mean() == 1
    assert "control_image" not in item
    (tmp_path / "others/1.png").unlink()
    with pytest.raises(ConfigError, match=r"data.rejected: .* holds no picture for 1.png"):
        ImageFolder(**settings, rejected=str(tmp_path / "others"))
    with pytest.raises(ConfigError, match="rejected and prior are both given"):
        ImageFolder(**settings, rejected=str(tmp_path / "liked"), prior={"folder": str(tmp_path / "liked"), "prompt": "b"})


def test_a_caption_of_another_picture_is_nobody_elses(tmp_path: Path) -> None:
    for name in ("A.png", "a.png"):
        Image.new("RGB", (64, 64)).save(tmp_path / name)
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("names that differ in case are one here")
    (tmp_path / "a.txt").write_text("of a", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"A\.png"):
        ImageFolder(folder=str(tmp_path), size=64)


def test_a_caption_is_found_whatever_system_wrote_its_name(tmp_path: Path) -> None:
    for name, text in ((unicodedata.normalize("NFD", "señor.png"), unicodedata.normalize("NFC", "señor.txt")), ("B.PNG", "B.TXT")):
        Image.new("RGB", (64, 64)).save(tmp_path / name)
        (tmp_path / text).write_text(f"of {Path(text).stem}")
    assert ImageFolder(folder=str(tmp_path), size=64, prompt="none").captions == ["of B", f"of {unicodedata.normalize('NFC', 'señor')}"]


def test_the_innermost_folder_says_how_often_a_picture_comes(tmp_path: Path) -> None:
    for name in ("a/b/1.png", "a/2.png", "3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64)).save(tmp_path / name)
    for repeats in ({"a": 2, "a/b": 5}, {"a/b": 5, "a": 2}):
        data = ImageFolder(folder=str(tmp_path), size=64, prompt="none", repeats=repeats)
        assert dict(zip((path.name for path in data.pictures), data.repeats, strict=True)) == {"1.png": 5, "2.png": 2, "3.png": 1}


def test_two_masks_of_one_picture_are_refused(tmp_path: Path) -> None:
    for name in ("own/a.png", "masks/a.png", "masks/a.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64)).save(tmp_path / name)
    with pytest.raises(ConfigError, match=r"data.masks: a.jpg and a.png in .*masks are both for one picture"):
        ImageFolder(folder=str(tmp_path / "own"), size=64, prompt="none", masks=str(tmp_path / "masks"))


def test_links_are_followed_and_those_to_nothing_are_named(tmp_path: Path) -> None:
    draw(tmp_path / "set", "own.png")
    draw(tmp_path / "elsewhere", "linked.png", caption="of the linked")
    (tmp_path / "set/cats").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "set")  # a circle
    data = ImageFolder(folder=str(tmp_path / "set"), **SMALL)
    told = dict(zip([path.relative_to(tmp_path / "set").as_posix() for path in data.pictures], data.captions, strict=True))
    assert told == {"own.png": "a", "cats/linked.png": "of the linked"}
    (tmp_path / "set/gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(ConfigError, match=r"1 files cannot be read: .*gone.png"):
        ImageFolder(folder=str(tmp_path / "set"), prompt="a", **SMALL)


def test_pictures_of_other_endings_are_read_or_named(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "a.jfif", format="JPEG")
    assert [path.name for path in ImageFolder(folder=str(tmp_path), prompt="a", **SMALL).pictures] == ["a.jfif"]
    (tmp_path / "b.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(ConfigError, match=r"1 files cannot be read: .*b.HEIC"):
        ImageFolder(folder=str(tmp_path), prompt="a", **SMALL)


def test_two_captions_of_one_picture_are_refused(tmp_path: Path) -> None:
    draw(tmp_path, "one.png", caption=None)
    draw(tmp_path / "below", "two.png", caption=None)
    lines = [{"file_name": "one.png", "text": "first"}, {"file_name": "./below/../below/two.png", "text": "of two"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    (tmp_path / "below/metadata.csv").write_text("file_name,text\n../one.png,first\n", encoding="utf-8")
    assert sorted(ImageFolder(folder=str(tmp_path), **SMALL).captions) == ["first", "of two"]
    (tmp_path / "below/metadata.csv").write_text("file_name,text\n../one.png,second\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"a second caption of one.png, '(first|second)'; keep one line for each picture"):
        ImageFolder(folder=str(tmp_path), **SMALL)


def test_what_is_taken_for_a_caption_though_it_is_hardly_meant_so_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    draw(tmp_path, "good.png")
    ImageFolder(folder=str(tmp_path), **SMALL)
    assert not [entry for entry in caplog.records if entry.levelname == "WARNING"]
    draw(tmp_path, "empty.png", caption="")
    draw(tmp_path, "good.jpg", caption=None)
    draw(tmp_path, "listed.png", caption="beside")
    draw(tmp_path, "agreed.png", caption="told")
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "moving.txt").write_text("a")
    draw(tmp_path / "10_sks mug", "below.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "listed.png", "text": "told"}\n{"file_name": "agreed.png", "text": "told"}')
    data = ImageFolder(folder=str(tmp_path), **SMALL)
    told = [entry.getMessage() for entry in caplog.records if entry.levelname == "WARNING"]
    for words in (
        r"1 pictures have an empty text file.*: .*/empty.png$",
        r"1 pictures have a caption in a list and another in a text file.*; the list's is taken: .*/listed.png$",
        r"2 pictures share a text file with another picture of the same name.*good.jpg, .*good.png$",
        r"1 files hold several pictures, of which the first is taken: .*moving.gif$",
        r"not as kohya's repeats; give data.repeats='\{10_sks mug: 10\}' if they are meant$",
    ):
        assert sum(bool(re.search(words, each)) for each in told) == 1, (words, told)
    assert len(told) == 5 and len(data.pictures) == 7
    caplog.clear()
    ImageFolder(folder=str(tmp_path), repeats={"10_sks mug": 10}, **SMALL)
    assert "kohya" not in caplog.text


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("metadata.jsonl", '{"file_name": "one.png", "text": 7}', "entry 1 has file_name str 'one.png' and text int 7; expected texts"),
        ("metadata.jsonl", '{"file_name": "one.png"}', r"entry 1 has \['file_name'\]; expected 'file_name' and 'text'"),
        ("metadata.csv", "file_name;text\none.png;a dog\n", "its fields are separated by ';'; expected commas"),
        ("metadata.csv", "file_name\ttext\none.png\ta, b\n", r"its fields are separated by '\\t'; expected commas"),
    ],
)
def test_what_is_wrong_in_a_list_is_named(name: str, text: str, words: str, tmp_path: Path) -> None:
    draw(tmp_path, "one.png", caption=None)
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=words):
        ImageFolder(folder=str(tmp_path), **SMALL)
