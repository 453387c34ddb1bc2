"""Values as files that other programs open: PNG, MP4, GIF, WebP, WAV, safetensors, JSON, text; and as bytes of them."""

from __future__ import annotations

import io
import json
import re
import wave
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.encoding import encode
from wgtorch.core.errors import PortTypeError
from wgtorch.core.kinds import describe, get_kind
from wgtorch.core.pictures import unit_range, unit_sound
from wgtorch.storage.encoding import images_in, write_png

FRAMES_PER_SECOND = 8.0
"""Of a video whose rate nobody says."""
SAMPLING_RATE = 16_000
"""Of a sound whose rate nobody says."""
SMALLEST = 512
"""Pixels that small pictures are enlarged to, by whole pixels, where they are written for people."""


def png_bytes(image: Tensor) -> bytes:
    """A picture [3, H, W], or several [B, 3, H, W] side by side, in [0, 1] as a PNG."""
    held = io.BytesIO()
    write_png(torch.cat(list(image), dim=-1) if image.dim() == 4 else image, held)
    return held.getvalue()


def wav_bytes(audio: Tensor, rate: int = SAMPLING_RATE) -> bytes:
    """Sound [C, samples] in [-1, 1] as a WAV of 16 bits."""
    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(audio.shape[0])
        file.setsampwidth(2)
        file.setframerate(rate)
        samples = (unit_sound(audio.detach()).float().clamp(-1, 1) * 32767).round().to(torch.int16).T.contiguous().cpu()
        file.writeframes(samples.numpy().astype("<i2").tobytes())
    return held.getvalue()


def sounds_in(value: Any) -> Iterator[tuple[Tensor, int]]:
    """Sounds [C, samples] in [-1, 1] inside a value, each with its samples a second: mappings with ``audio`` and ``rate``."""
    if isinstance(value, Mapping):
        audio, rate = value.get("audio"), value.get("rate")
        if isinstance(audio, Tensor) and isinstance(rate, int) and audio.dim() in (2, 3):
            yield from ((one, rate) for one in (audio if audio.dim() == 3 else audio.unsqueeze(0)))
    entries = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    for entry in entries:
        yield from sounds_in(entry)


def video_bytes(video: Tensor, form: str, *, fps: float = FRAMES_PER_SECOND) -> bytes:
    """Frames [T, 3, H, W] in [0, 1] as an MP4 (H.264), or as a GIF or WebP that goes round for ever.

    Frames of up to 256 colours keep them exactly in a GIF; a WebP is lossless.

    Args:
        video: the frames.
        form: ``mp4``, ``gif`` or ``webp``.
        fps: frames per second.

    Raises:
        MissingExtraError: ``mp4`` needs ``wgtorch[media]``.
    """
    array = (unit_range(video.detach()).float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()
    return _mp4(array, fps) if form == "mp4" else _animation(array, form, fps)


def writes_mp4() -> bool:
    """True where the encoder of ``wgtorch[media]`` is installed."""
    from importlib.util import find_spec

    return find_spec("av") is not None


def write_value(value: Any, kind: str, folder: Path, name: str, *, fps: float = FRAMES_PER_SECOND, rate: int = SAMPLING_RATE) -> list[Path]:
    """Writes a value that came out of a port, in the form that people and programs open.

    | kind | files |
    | --- | --- |
    | image | ``name.png``, one for each of a batch, small ones enlarged by whole pixels |
    | video | ``name.mp4``, or ``name.gif`` where ``wgtorch[media]`` is not installed |
    | audio | ``name.wav`` |
    | text | ``name.txt`` |
    | other tensors | ``name.safetensors`` |
    | numbers, mappings, lists | ``name.json``, tensors in it beside it in ``name.safetensors``, pictures in it as PNG too |

    Args:
        value: what the port gave.
        kind: of the port.
        folder: where to; it is made with the first file.
        name: the files' name, without an ending.
        fps: of a video.
        rate: of a sound, in samples per second.

    Returns:
        The files; none for a value that is not there.

    Raises:
        PortTypeError: no file can hold the value.
    """
    if value is None:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    if get_kind(kind).name == "image" or (kind == "any" and isinstance(value, Tensor) and list(images_in(value, name))):
        return write_pictures([image for _, image in images_in(value, name)], folder, name)
    if kind in ("video", "audio") and isinstance(value, Tensor):
        form = ("mp4" if writes_mp4() else "gif") if kind == "video" else "wav"
        rows = value if value.dim() == {"video": 5, "audio": 3}[kind] else value.unsqueeze(0)
        return [
            _put(path, video_bytes(row, form, fps=fps) if kind == "video" else wav_bytes(row, rate))
            for row, path in zip(rows, _numbered(folder, name, form, len(rows)), strict=True)
        ]
    if isinstance(value, str):
        return [_put(folder / f"{name}.txt", value.encode())]
    return _write_data(value, folder, name)


def write_pictures(images: list[Tensor], folder: Path, name: str) -> list[Path]:
    """Writes pictures [3, H, W] or [1, H, W] in [0, 1] as PNG, small ones enlarged by whole pixels, and returns the files."""
    paths = _numbered(folder, name, "png", len(images))
    for image, path in zip(images, paths, strict=True):
        write_png(image, path, scale=max(1, SMALLEST // max(image.shape[-2:])))
    return paths


def _write_data(value: Any, folder: Path, name: str) -> list[Path]:
    """JSON with the tensors apart; a tensor alone has no JSON."""
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    try:
        content = encode(value, name, tensors)
    except Exception as error:
        raise PortTypeError(f"{name}: {describe(value)} cannot be written to a file: {error}") from error
    paths = [] if isinstance(value, Tensor) else [_put(folder / f"{name}.json", json.dumps(content, indent=1, ensure_ascii=False).encode())]
    if tensors:
        held = {re.sub(r"[^A-Za-z0-9_.-]", "_", key): tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
        paths.append(_put(folder / f"{name}.safetensors", save(held)))
    if isinstance(value, (Mapping, list, tuple)):
        paths += write_pictures([image for _, image in images_in(value, name)], folder, name)
    return paths


def _numbered(folder: Path, name: str, ending: str, count: int) -> list[Path]:
    return [folder / (f"{name}.{ending}" if not index else f"{name}_{index + 1}.{ending}") for index in range(count)]


def _put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _mp4(array: Tensor, fps: float) -> bytes:
    """Frames [T, H, W, 3] of uint8 as H.264 in 4:2:0, which every browser plays; odd sizes are padded by a pixel."""
    from fractions import Fraction

    from wgtorch.core.errors import require

    av: Any = require("av", "media")
    height, width = array.shape[1:3]
    padded = torch.nn.functional.pad(array.permute(0, 3, 1, 2).float(), (0, width % 2, 0, height % 2), mode="replicate").to(torch.uint8)
    held = io.BytesIO()
    with av.open(held, "w", format="mp4") as file:
        stream = file.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        stream.options = {"crf": "16"}
        for frame in padded.permute(0, 2, 3, 1).contiguous().numpy():
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    return held.getvalue()


def _animation(array: Tensor, form: str, fps: float) -> bytes:
    from PIL import Image

    colors, indices = torch.unique(_packed(array), return_inverse=True)
    held = io.BytesIO()
    options: dict[str, Any] = {"save_all": True, "duration": round(1000 / fps), "loop": 0}
    if form == "gif" and len(colors) <= 256:
        palette = torch.stack([colors >> 16, colors >> 8 & 255, colors & 255], dim=-1).flatten().tolist()
        frames = [Image.fromarray(frame) for frame in indices.to(torch.uint8).numpy()]
        for frame in frames:
            frame.putpalette(palette)
    else:
        frames = [Image.fromarray(frame) for frame in array.numpy()]
    quality = {"lossless": True, "quality": 0, "method": 0} if form == "webp" else {"optimize": False}
    frames[0].save(held, form.upper(), append_images=frames[1:], **options, **quality)
    return held.getvalue()


def _packed(array: Tensor) -> Tensor:
    """Colours [..., 3] as one number each."""
    wide = array.int()
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
