"""Pictures and sound between tensors and the bytes that travel; PNG and WAV are written by :mod:`wgtorch.storage.media`."""

from __future__ import annotations

import asyncio
import base64
import io
import wave
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor

from wgtorch.core.kinds import image_to_tensor
from wgtorch.core.pictures import upright
from wgtorch.integrations.api.failures import not_an_answer
from wgtorch.storage.media import png_bytes

_LARGEST = 64 << 20  # bytes of a picture that is fetched


def data_url_of(image: Tensor) -> str:
    """A picture as a ``data:`` address."""
    return f"data:image/png;base64,{base64_of(image)}"


def base64_of(image: Tensor) -> str:
    """A picture's PNG in base64."""
    return base64.b64encode(png_bytes(image)).decode()


def mask_png_of(mask: Tensor) -> bytes:
    """PNG of a mask [1 or 3, H, W]: transparent where it is 1, which is where providers paint anew."""
    plane = mask[:1].to(torch.float32)
    return png_bytes(torch.cat([torch.zeros(3, *plane.shape[1:]), 1 - plane]))


def is_picture(content: bytes) -> bool:
    """True when the first bytes are those of a PNG, JPEG or WebP file."""
    return content.startswith((b"\x89PNG\r\n", b"\xff\xd8\xff")) or (content[:4] == b"RIFF" and content[8:12] == b"WEBP")


def image_of(content: bytes) -> Tensor:
    """A picture's file as float [3, H, W] in [0, 1].

    Raises:
        ValueError: it is none.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as opened:
            tensor: Tensor = image_to_tensor(upright(opened))
    except UnidentifiedImageError:
        raise ValueError(f"not a picture: {len(content)} bytes of no form that is known") from None
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"not a picture: {error}") from None
    return tensor


def audio_of(content: bytes) -> tuple[Tensor, int]:
    """A WAV of 16 bits as float [1, samples] in [-1, 1], channels averaged, and its sampling rate.

    Raises:
        ValueError: it is none.
    """
    try:
        with wave.open(io.BytesIO(content)) as reader:
            channels, width, rate = reader.getnchannels(), reader.getsampwidth(), reader.getframerate()
            # A provider that streams does not know the length when it writes the header, so what is there counts.
            frames = reader.readframes(reader.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"not a WAV file: {error}") from None
    if width != 2 or not frames:
        raise ValueError(f"a WAV file of {8 * width} bits and {len(frames)} bytes; expected 16 bits")
    whole = len(frames) - len(frames) % (2 * channels)
    samples = torch.frombuffer(bytearray(frames[:whole]), dtype=torch.int16).view(-1, channels).T.to(torch.float32) / 32768
    return samples.mean(0, keepdim=True), rate


async def fetched(url: str, client: Any, *, near: str) -> bytes:
    """The bytes at an address that a server gave for a picture. No key is sent there.

    Args:
        url: http, https or data.
        client: of httpx.
        near: the server's own address. An address inside a private network is followed only where that is in one too.

    Raises:
        BadAnswer: it is not followed, cannot be read, or holds more than 64 MiB.
    """
    if url.startswith("data:"):
        return base64.b64decode(url.partition(",")[2])
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or (await _is_private(url) and not await _is_private(near)):
        raise not_an_answer(f"the answer's picture is at {url:.100}, which is not followed")
    content = bytearray()
    async with client.stream("GET", url, headers={"Accept": "image/*"}, follow_redirects=False) as response:
        if response.status_code != 200:
            raise not_an_answer(f"the answer's picture at {url:.100} cannot be had: status {response.status_code}")
        async for piece in response.aiter_bytes():
            content += piece
            if len(content) > _LARGEST:
                raise not_an_answer(f"the answer's picture at {url:.100} has more than {_LARGEST >> 20} MiB")
    return bytes(content)


async def _is_private(url: str) -> bool:
    """True where an address is this machine's, or inside a private network."""
    host = urlsplit(url).hostname or ""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None)
    except OSError:
        return False
    return any(not ip_address(str(entry[4][0]).partition("%")[0]).is_global for entry in found)
