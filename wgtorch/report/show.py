"""``wgtorch.show``: a value before one's eyes, inline in a notebook, else as a file."""

from __future__ import annotations

import base64
import sys
import tempfile
from html import escape
from pathlib import Path
from typing import Any

from torch import Tensor

from wgtorch.core.errors import PortTypeError
from wgtorch.core.kinds import describe, get_kind
from wgtorch.storage.encoding import images_in
from wgtorch.storage.media import FRAMES_PER_SECOND, SAMPLING_RATE, write_value

_TAGS = {
    ".png": '<img src="data:image/png;base64,{}">',
    ".gif": '<img src="data:image/gif;base64,{}">',
    ".mp4": '<video controls loop src="data:video/mp4;base64,{}"></video>',
    ".wav": '<audio controls src="data:audio/wav;base64,{}"></audio>',
}

_HEAD = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
    "<style>:root{color-scheme:light dark}body{font:15px/1.45 ui-sans-serif,system-ui,sans-serif;margin:1rem}"
    "th,td{padding:.3rem .6rem .3rem 0;vertical-align:top}</style>"
)


def show(
    value: Any, *, folder: str | Path | None = None, name: str = "shown", fps: float = FRAMES_PER_SECOND, rate: int = SAMPLING_RATE
) -> Path | None:
    """Shows a picture, a video, a sound or a list of them.

    Args:
        value: pictures [3, H, W] or [B, 3, H, W], videos [B, T, 3, H, W], sounds [C, samples] or [B, C, samples], lists and
            mappings of pictures, PIL images; also what shows itself in a notebook (a Graph, a World, a State, a History).
        folder: where files are written outside of a notebook; a new temporary one by default.
        name: of the files.
        fps: frames per second of a video.
        rate: samples per second of a sound.

    Returns:
        In a notebook None, and the value stands below the cell; else the path of the (first) file.

    Raises:
        PortTypeError: it is nothing that can be looked at or listened to.

    Example:
        >>> image = Graph.from_template("text_to_image").run({"prompt": "a red castle"}, seed=1)["image"]
        >>> wgtorch.show(image)
        PosixPath('/tmp/wgtorch_8w3k/shown.png')
    """
    in_notebook = _in_notebook()
    page = None if isinstance(value, Tensor) else getattr(value, "_repr_html_", None)
    if page is not None:
        return _html(page(), folder, name, in_notebook)
    target = Path(folder) if folder is not None else Path(tempfile.mkdtemp(prefix="wgtorch_"))
    kind = _kind_of(value)
    files = write_value(get_kind(kind).normalise(value), kind, target, name, fps=fps, rate=rate)
    shown = [path for path in files if path.suffix in _TAGS]
    if not shown:
        raise PortTypeError(f"show: {describe(value)}; expected pictures, a video, a sound, or a list of pictures")
    if not in_notebook:
        return shown[0]
    return _html("".join(_TAGS[path.suffix].format(base64.b64encode(path.read_bytes()).decode()) for path in shown), None, name, True)


def _kind_of(value: Any) -> str:
    """The kind that a value is looked at as."""
    if isinstance(value, Tensor):
        if value.dim() == 5:
            return "video"
        if list(images_in(value, "value")):
            return "image"
        if value.is_floating_point() and value.dim() in (2, 3) and value.shape[-2] <= 2:
            return "audio"
        raise PortTypeError(f"show: {describe(value)}; expected pictures [B, 3, H, W], a video [B, T, 3, H, W] or a sound [C, samples]")
    if type(value).__module__.startswith("PIL."):
        return "image"
    return "any"


def _html(html: str, folder: str | Path | None, name: str, in_notebook: bool) -> Path | None:
    if in_notebook:
        from IPython.display import HTML, display

        display(HTML(html))
        return None
    target = Path(folder) if folder is not None else Path(tempfile.mkdtemp(prefix="wgtorch_"))
    target.mkdir(parents=True, exist_ok=True)
    path = target / f"{name}.html"
    path.write_text(f"{_HEAD}<title>{escape(name)}</title>{html}\n", encoding="utf-8")
    return path


def _in_notebook() -> bool:
    """True in a kernel that shows HTML; IPython is not imported to find out."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell is not None and hasattr(shell, "kernel")
