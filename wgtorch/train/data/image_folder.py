"""A person's own pictures: a folder of any sizes and formats, with captions."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from wgtorch.core.errors import ConfigError, suggest
from wgtorch.core.run.rng import key_to_seed
from wgtorch.train.data.base import Data, Order
from wgtorch.train.data.buckets import MUCH, BucketOrder, Draw, Size, bucket_report, bucket_sizes, cut_off, nearest
from wgtorch.train.data.captions import captions_of, pictures_in
from wgtorch.train.data.pictures import BrokenPicture, as_tensor, has_frames, open_picture, picture_size, scaled_size
from wgtorch.train.registries import register_data

_log = logging.getLogger(__name__)
_SHOWN = 4
_MAY_MOVE = (".gif", ".webp", ".png", ".avif", ".tif", ".tiff")  # photos of phones hold small copies of themselves beside
_PRIOR = ("folder", "prompt")
_LAYERS = {"controls": "control_image", "rejected": "rejected_image"}


@register_data("image_folder")
class ImageFolder(Data):
    """Pictures of any sizes and formats in a folder, with captions beside them or in a list.

    Each picture is scaled to cover the bucket whose shape is nearest to its own and cropped to it; a batch is of one bucket. Crops
    and mirrorings are drawn anew in each epoch, from the seed, the picture and the epoch: another run with that seed has the same.
    Files are read when their turn comes, so the folder may be larger than memory.

    Items are ``image`` [3, H, W] in [0, 1], ``prompt``, and what Stable Diffusion XL is told of each picture, in pixels:
    ``original_size`` (height, width) before scaling, ``crops_coords_top_left`` and ``target_size``; with masks ``mask`` [1, H, W], with
    control pictures ``control_image`` [3, H, W], with rejected ones ``rejected_image`` [3, H, W], with pictures of the class ``prior``.

    Example:
        >>> ImageFolder(folder="my_pictures", size=1024, crop="random", mirror=0.5, variants=4)

    Captions: ``a.txt`` (or ``a.caption``) beside ``a.png``; or ``metadata.jsonl`` or ``metadata.csv`` with ``file_name`` and ``text``.
    Pictures are turned as EXIF says; what is transparent shows the background.

    Args:
        folder: with the pictures; those in folders below it are taken too.
        size: pixels of a square bucket's side; the others have about as many pixels.
        buckets: False makes every picture square.
        step: sides are multiples of it: at least what the model's latents need. The smaller, the more shapes there are, and the less of a
            picture is cut off: an eighth of ``size`` gives five shapes, half of it squares alone.
        longest: the longest shape of a bucket, as 2.0 for 2 to 1.
        crop: ``center`` or ``random``.
        mirror: chance that a picture is shown mirrored.
        variants: how many crops and mirrorings of each picture there are; one is shown in each epoch, in turn, so that latents can be
            kept. None draws a new one every time; where crops are random latents are then computed in every step.
        prompt: of pictures without a caption; without it they are an error.
        repeats: how often each picture comes in an epoch; or by folder below ``folder``, as ``{"portraits": 4}``.
        prior: ``{"folder": ..., "prompt": ...}``: pictures of the class, as many in each batch as there are of one's own, which keep
            the class as it was (Ruiz et al. 2023, https://arxiv.org/abs/2208.12242); the objective's ``prior_weight`` says how much.
        masks: a folder with a mask of each picture (white learns) under the picture's name; ``"alpha"`` takes the opacity.
        controls: a folder with what a ControlNet is shown of each picture (edges, depth), under the picture's name; scaled, mirrored
            and cropped with it.
        rejected: a folder with a picture for the same prompt that is liked less, under each picture's name; brought to the same shape.
        broken: ``refuse`` ends with the names of files that cannot be read; ``skip`` leaves them out.
        background: what shows through transparent places, (red, green, blue) in 0 to 255.
        held_out: pictures that are for validation, every n-th, square; a share of all where it is below 1.
        seed: of crops and mirrorings.
        batch_size: of each process.
        workers: processes that read pictures.

    Raises:
        ConfigError: the folder, a caption, a picture or a setting is wrong; says which.
    """

    def __init__(
        self,
        *,
        folder: str,
        size: int = 512,
        buckets: bool = True,
        step: int = 64,
        longest: float = 2.0,
        crop: str = "center",
        mirror: float = 0.0,
        variants: int | None = None,
        prompt: str | None = None,
        repeats: int | dict[str, Any] = 1,
        prior: dict[str, Any] | None = None,
        masks: str | None = None,
        controls: str | None = None,
        rejected: str | None = None,
        broken: str = "refuse",
        background: list[int] | None = None,
        held_out: float = 0.0,
        seed: int = 0,
        batch_size: int = 1,
        workers: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, workers=workers)
        if crop not in ("center", "random") or broken not in ("refuse", "skip"):
            raise ConfigError(f"data: found crop {crop!r} and broken {broken!r}; expected center or random, and refuse or skip")
        if (
            not 0 <= mirror <= 1
            or not 0 <= held_out < math.inf
            or not 1 <= longest < math.inf
            or step < 1
            or (variants is not None and variants < 1)
        ):
            raise ConfigError(
                f"data: found mirror {mirror}, held_out {held_out}, longest {longest}, step {step}, variants {variants}; expected a chance "
                "in [0, 1], and positive numbers"
            )
        if background is not None and not (len(background) == 3 and all(value in range(256) for value in background)):
            raise ConfigError(f"data.background: found {background}; expected red, green and blue from 0 to 255, as [255, 255, 255]")
        self.root, self.size, self.seed = Path(folder).expanduser(), size, seed
        self.crop, self.mirror, self.variants = crop, mirror, variants
        self.background = tuple(background or (255, 255, 255))
        pictures = pictures_in(self.root)
        shapes = _readable(pictures, broken)
        pictures = list(shapes)
        captions = captions_of(self.root, pictures, prompt)
        held_back = int(held_out) if held_out >= 1 else int(held_out * len(pictures))
        if held_back >= len(pictures):
            raise ConfigError(f"data.held_out: found {held_out} of {len(pictures)} pictures; expected fewer than all of them")
        held = set(range(0, len(pictures), len(pictures) // held_back)[:held_back]) if held_back else set()
        own = [index for index in range(len(pictures)) if index not in held]
        self.pictures, self.captions = [pictures[index] for index in own], [captions[index] for index in own]
        self.held = [(pictures[index], captions[index]) for index in sorted(held)]
        sizes = bucket_sizes(size, step, longest) if buckets else [(size, size)]
        self.sizes = [nearest(*shapes[path], sizes) for path in self.pictures]
        self.repeats = _repeats(repeats, self.root, self.pictures)
        if isinstance(repeats, int) and repeats == 1:
            _say_repeats_of_kohya(self.root, self.pictures)
        every = [*self.pictures, *(path for path, _ in self.held)]
        self.masks = None if masks is None else dict.fromkeys(every) if masks == "alpha" else _beside(masks, self.root, every, "masks")
        beside = {"controls": controls, "rejected": rejected}
        self.beside = {key: _beside(given, self.root, every, key) for key, given in beside.items() if given is not None}
        if self.beside and prior is not None:
            raise ConfigError(f"data: {next(iter(self.beside))} and prior are both given; pictures of the class have none")
        self.prior: list[tuple[Path, str]] = _prior(prior, broken) if prior is not None else []
        cut, widest = max((cut_off(*shapes[path], size), path.name) for path, size in zip(self.pictures, self.sizes, strict=True))
        more = (
            f"; data.step below {step}, or more of data.longest, makes more shapes, where the model takes them"
            if buckets and cut > MUCH
            else ""
        )
        _log.log(
            logging.WARNING if more else logging.INFO,
            "%s: %d pictures: %s; at most %.0f%% of one is cut off (%s)%s",
            *(folder, len(self.pictures), bucket_report(self.sizes), 100 * cut, widest, more),
        )

    @property
    def is_endless(self) -> bool:
        return self.crop == "random" and self.variants is None

    def order(self, seed: int) -> Order:
        beside = range(len(self.pictures), len(self.pictures) + len(self.prior))
        return BucketOrder(seed, self.sizes, self.repeats, beside)

    def train(self) -> Dataset[Any]:
        return _Pictures(self, [*zip(self.pictures, self.captions, strict=True), *self.prior], is_varied=True)

    def texts(self) -> Sequence[str]:
        return self.captions

    def validation(self) -> Dataset[Any] | None:
        return _Pictures(self, self.held, is_varied=False) if self.held else None


class _Pictures(Dataset[Any]):
    """Pictures by (number, variant, height, width); by number alone square, as they are."""

    def __init__(self, data: ImageFolder, pairs: Sequence[tuple[Path, str]], *, is_varied: bool) -> None:
        self.data, self.pairs, self.is_varied = data, list(pairs), is_varied

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, draw: Draw | int) -> dict[str, Any]:
        data = self.data
        index, number, *bucket = draw if isinstance(draw, tuple) else (draw, 0, data.size, data.size)
        path, caption = self.pairs[index]
        picture, opacity = open_picture(path, data.background)
        mask = (
            None
            if data.masks is None or (index >= len(data.pictures) and self.is_varied)
            else _mask_of(data.masks, path, opacity, picture.size)
        )
        original = (picture.height, picture.width)
        height, width = scaled_size(*original, (bucket[0], bucket[1]))
        top, left, mirrored = self._draw(index, number, height - bucket[0], width - bucket[1])
        layers = {"image": picture, "mask": mask}
        layers |= {_LAYERS[key]: open_picture(files[path], data.background)[0] for key, files in data.beside.items()}
        shown = {
            name: _brought(layer, (height, width), (top, left), (bucket[0], bucket[1]), mirrored)
            for name, layer in layers.items()
            if layer is not None
        }
        item: dict[str, Any] = {
            **shown,
            "prompt": caption,
            "original_size": torch.tensor(original),
            "crops_coords_top_left": torch.tensor([top, left]),
            "target_size": torch.tensor(bucket),
        }
        if data.masks is not None:
            item.setdefault("mask", torch.ones(1, *bucket))
        if data.prior and self.is_varied:
            item["prior"] = torch.tensor(index >= len(data.pictures))
        return item

    def _draw(self, index: int, number: int, high: int, wide: int) -> tuple[int, int, bool]:
        """Top and left of the crop, and whether the picture is mirrored."""
        data = self.data
        if not self.is_varied:
            return high // 2, wide // 2, False
        variant = number if data.variants is None else number % data.variants
        generator = torch.Generator().manual_seed(key_to_seed(data.seed, "picture", index, variant))
        down, across, side = torch.rand(3, generator=generator).tolist()
        top, left = (int(down * (high + 1)), int(across * (wide + 1))) if data.crop == "random" else (high // 2, wide // 2)
        return top, left, side < data.mirror


def _brought(layer: Any, size: Size, corner: tuple[int, int], bucket: Size, mirrored: bool) -> Any:
    """A layer scaled, mirrored and then cropped, as a tensor."""
    from PIL import Image, ImageOps

    scaled = layer if layer.size == size[::-1] else layer.resize(size[::-1], Image.Resampling.LANCZOS)
    scaled = ImageOps.mirror(scaled) if mirrored else scaled
    return as_tensor(scaled.crop((corner[1], corner[0], corner[1] + bucket[1], corner[0] + bucket[0])))


def _readable(pictures: Sequence[Path], broken: str) -> dict[Path, Size]:
    """The sizes of the pictures that can be read; every file is read once."""

    def look(path: Path) -> Size | BrokenPicture:
        try:
            return picture_size(path, decode=True)
        except BrokenPicture as error:
            return error

    with ThreadPoolExecutor() as threads:
        found = dict(zip(pictures, threads.map(look, pictures), strict=True))
    wrong = [str(error) for error in found.values() if isinstance(error, BrokenPicture)]
    if wrong:
        told = "; ".join(wrong[:_SHOWN]) + (f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else "")
        if broken == "refuse":
            raise ConfigError(f"data: {len(wrong)} files cannot be read: {told}. Mend or remove them, or set data.broken=skip")
        _log.warning("%d files cannot be read and are left out: %s", len(wrong), told)
    several = [str(path) for path in pictures if path.suffix.lower() in _MAY_MOVE and has_frames(path)]
    if several:
        _log.warning("%d files hold several pictures, of which the first is taken: %s", len(several), ", ".join(several[:_SHOWN]))
    good = {path: size for path, size in found.items() if not isinstance(size, BrokenPicture)}
    if not good:
        raise ConfigError(f"data: none of {len(pictures)} pictures can be read")
    return good


def _repeats(given: int | Mapping[str, Any], root: Path, pictures: Sequence[Path]) -> list[int]:
    if isinstance(given, int):
        if given < 1:
            raise ConfigError(f"data.repeats: found {given}; expected at least 1")
        return [given] * len(pictures)
    folders = {parent.as_posix() for path in pictures for parent in path.relative_to(root).parents} - {"."}
    for name, count in given.items():
        if name not in folders or not isinstance(count, int) or count < 1:
            raise ConfigError(
                f"data.repeats: found {name}: {count!r}; expected a folder below {root} with a whole number; {suggest(name, folders)}"
            )
    above = [[parent.as_posix() for parent in path.relative_to(root).parents] for path in pictures]  # the innermost first
    return [next((int(given[name]) for name in parents if name in given), 1) for parents in above]


def _say_repeats_of_kohya(root: Path, pictures: Sequence[Path]) -> None:
    """Folders as ``10_sks mug``, whose pictures kohya's scripts repeat ten times, with that caption where they have none."""
    parents = {parent.as_posix() for path in pictures for parent in path.relative_to(root).parents}
    if found := {name: int(kohya[1]) for name in sorted(parents) if (kohya := re.match(r"(\d+)_", name.rpartition("/")[2]))}:
        given = ", ".join(f"{name}: {count}" for name, count in found.items())
        _log.warning("numbers of folders are read as names, not as kohya's repeats; give data.repeats='{%s}' if they are meant", given)


def _beside(given: str, root: Path, pictures: Sequence[Path], setting: str) -> dict[Path, Path]:
    """The file of each picture's name in another folder."""
    there: dict[str, Path] = {}
    folder = Path(given).expanduser()
    for path in pictures_in(folder, f"data.{setting}"):
        if (other := there.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)) is not path:
            raise ConfigError(f"data.{setting}: {other.name} and {path.name} in {path.parent} are both for one picture; keep one of them")
    found: dict[Path, Path] = {}
    for path in pictures:
        name = path.relative_to(root).with_suffix("").as_posix()
        if name not in there:
            raise ConfigError(f"data.{setting}: {given} holds no picture for {path.name}; {suggest(name, there)}")
        found[path] = there[name]
    return found


def _mask_of(masks: Mapping[Path, Any], path: Path, opacity: Any, size: tuple[int, int]) -> Any:
    from PIL import Image

    file = masks[path]
    if file is None:
        return opacity if opacity is not None else Image.new("L", size, 255)
    mask = open_picture(file)[0].convert("L")
    return mask if mask.size == size else mask.resize(size)


def _prior(given: Mapping[str, Any], broken: str) -> list[tuple[Path, str]]:
    for key in given:
        if key not in _PRIOR:
            raise ConfigError(f"data.prior: unknown {key!r}; {suggest(key, _PRIOR)}; how much it counts is objective.prior_weight")
    if not isinstance(given.get("folder", ""), str) or not isinstance(given.get("prompt"), str | None):
        raise ConfigError(f"data.prior: found {dict(given)!r}; expected texts, as {{'folder': 'my_class', 'prompt': 'a photo of a dog'}}")
    if "folder" not in given:
        raise ConfigError("data.prior: no folder; expected {'folder': ..., 'prompt': 'a photo of a dog'}")
    root = Path(given["folder"]).expanduser()
    pictures = list(_readable(pictures_in(root, "data.prior.folder"), broken))
    return list(zip(pictures, captions_of(root, pictures, given.get("prompt")), strict=True))
