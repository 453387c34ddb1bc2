"""A storyboard as one HTML page that needs nothing else: no script, no file, no address.

Everything that is not ours is escaped, and the page's own policy forbids what an escape that was forgotten could do.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import torch
from torch import Tensor

from wgtorch.report.chapters import Chapter
from wgtorch.report.facts import map_svg
from wgtorch.report.style import STYLE
from wgtorch.report.words import cut, rows, words
from wgtorch.storage.encoding import images_in, write_png
from wgtorch.storage.media import sounds_in, wav_bytes
from wgtorch.world_runtime.trace import plain

_LARGEST = 1024  # pixels; larger pictures are made smaller
_THUMBNAIL = 44  # pixels
_IN_FULL = 12  # the newest episodes, whose stages are shown with all that they read and wrote
_POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
_CHANGES, _CHANGES_OF_OLD = (24, 600), (8, 240)  # lines of one episode, and letters of what each was and is
_SCALES = (16, 8, 4, 2)


def page(title: str, notes: Sequence[str], chapters: Sequence[Chapter], content: Mapping[str, Any] | None = None) -> str:
    """The whole page.

    Args:
        title: stands above.
        notes: small facts below the title.
        chapters: the episodes.
        content: what the world is now, for its map.
    """
    body = [f"<h1>{escape(title)}</h1>", f'<p class="soft">{escape(", ".join(notes))}</p>']
    drawn = map_svg(content or {})
    body += [f'<figure class="map">{drawn}</figure>'] if drawn else []
    images = [[_shrunk(image) for slot, value in chapter.state.items() for _, image in images_in(value, slot)] for chapter in chapters]
    body += [_timeline(chapters, images)] if len(chapters) > 1 else []
    newest = len(chapters) - _IN_FULL
    articles = [_article(chapter, shown, in_full=k >= newest) for k, (chapter, shown) in enumerate(zip(chapters, images, strict=True))]
    body += articles or ["<p>Nothing has happened yet.</p>"]
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title[:80])}</title><style>{STYLE}</style>"
    )
    text = f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body><main>\n' + "\n".join(body) + "\n</main></body></html>\n"
    return text.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair cannot be written


def _timeline(chapters: Sequence[Chapter], images: Sequence[Sequence[Tensor]]) -> str:
    """A thumbnail for each episode, which leads to it."""
    links = []
    for chapter, pictures in zip(chapters, images, strict=True):
        shown = picture_tag(_thumbnail(pictures[0]), "") if pictures else "<div></div>"
        links.append(f'<a href="#episode-{chapter.number}">{shown}{chapter.number}</a>')
    return f'<nav aria-label="Episodes">{"".join(links)}</nav>'


def _thumbnail(image: Tensor) -> Tensor:
    from torch.nn.functional import interpolate

    if max(image.shape[-2:]) <= _THUMBNAIL:
        return image
    return interpolate(image[None].float(), size=(_THUMBNAIL // 2, _THUMBNAIL // 2), mode="area")[0]


def _article(chapter: Chapter, images: Sequence[Tensor], *, in_full: bool) -> str:
    slots = {slot: chapter.state[slot] for slot in chapter.state.schema}
    said = [("action", words(chapter.action)), *rows(slots)]
    told = "".join(f'<dt>{escape(label)}</dt><dd class="{_CLASSES.get(label, "")}">{escape(text)}</dd>' for label, text in said if text)
    pictures = "".join(picture_tag(image, f"Episode {chapter.number}") for image in images)
    pictures += "".join(_sound(audio, rate) for audio, rate in sounds_in(slots))
    where = "in flight" if chapter.stored is None else f"stored as step {chapter.stored}"
    facts = [where, *([f"{chapter.seconds:.2f} s"] if chapter.traces else [])]
    parts = [
        f'<h2>Episode {chapter.number} <span class="soft">{escape(", ".join(facts))}</span></h2>',
        f'<div class="board"><div class="pictures">{pictures}</div><dl class="told">{told}</dl></div>',
        _changes(chapter, *(_CHANGES if in_full else _CHANGES_OF_OLD)),
        _recipe(slots.get("recipe")),
        _traces(chapter.traces, in_full=in_full),
    ]
    return f'<article id="episode-{chapter.number}">{"".join(parts)}</article>'


_CLASSES = {"action": "action", "outcome": "outcome", "description": "seen", "prompt": "seen"}


def _sound(audio: Tensor, rate: int) -> str:
    data = base64.b64encode(wav_bytes(audio, rate)).decode()
    return f'<audio controls loop preload="none" src="data:audio/wav;base64,{data}"></audio>'


def picture_tag(image: Tensor, words_for_it: str, *, height: int | None = None) -> str:
    """A picture inside the page. Large ones are made smaller; pixel art, exactly; ``height`` in pixels, as it is shown."""
    from torch.nn.functional import interpolate

    image = _shrunk(image)
    largest = max(image.shape[-2:])
    if largest > _LARGEST:
        size = [max(1, side * _LARGEST // largest) for side in image.shape[-2:]]
        image = interpolate(image[None].float(), size=size, mode="area")[0]
    data = base64.b64encode(_png(image)).decode()
    small = ' class="small"' if largest < _LARGEST // 4 else ""
    shown = f' style="height:{height}px;image-rendering:pixelated"' if height else ""
    return f'<img{small}{shown} alt="{escape(words_for_it)}" src="data:image/png;base64,{data}">'


def _shrunk(image: Tensor) -> Tensor:
    """A picture [C, H, W] without enlargement by whole pixels, where it was enlarged so."""
    for scale in _SCALES:
        if image.shape[-1] % scale or image.shape[-2] % scale or min(image.shape[-2:]) <= scale:
            continue
        small = image[..., ::scale, ::scale]
        if bool((small.repeat_interleave(scale, -1).repeat_interleave(scale, -2) == image).all()):
            return small
    return image


def _png(image: Tensor) -> bytes:
    """PNG of a picture [C, H, W] in [0, 1]; with a palette where 256 colours are enough."""
    from PIL import Image

    levels = (image.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.int64).expand(3, -1, -1)
    colors, indices = torch.unique(levels[0] << 16 | levels[1] << 8 | levels[2], return_inverse=True)
    held = io.BytesIO()
    if len(colors) > 256:
        write_png(image, held)
        return held.getvalue()
    picture = Image.fromarray(indices.to(torch.uint8).numpy())
    picture.putpalette(torch.stack([colors >> 16, colors >> 8 & 255, colors & 255], dim=-1).flatten().tolist())
    picture.save(held, "PNG", optimize=True)
    return held.getvalue()


def _recipe(recipe: Any) -> str:
    """The whole recipe; its prompt stands among the slots already."""
    return _folded("recipe", f"<pre>{_data(plain(recipe))}</pre>") if isinstance(recipe, Mapping) and recipe else ""


def _changes(chapter: Chapter, most: int, letters: int) -> str:
    if not chapter.changes:
        return ""
    lines = [
        f"<tr><th>{escape(change.path)}</th><td>{escape(change.kind)}</td>"
        f'<td><span class="was">{escape(cut(change.before, letters))}</span> {escape(cut(change.after, letters))}</td></tr>'
        for change in chapter.changes[:most]
    ]
    left = len(chapter.changes) - len(lines)
    lines += [f'<tr><td colspan="3" class="soft">and {left} more</td></tr>'] if left else []
    return _folded(f"changes of content ({len(chapter.changes)})", f"<table>{''.join(lines)}</table>")


def _traces(traces: Iterable[Mapping[str, Any]], *, in_full: bool) -> str:
    """What every stage did; of older episodes without what it read and wrote, which stands in their slots."""
    lines = [_trace(entry, in_full=in_full) for entry in traces]
    if not lines:
        return ""
    values = "<th>read</th><th>wrote</th>" if in_full else ""
    head = f"<tr><th>pass</th><th>stage</th><th></th><th>seconds</th>{values}</tr>"
    return _folded(f"stages ({len(lines)})", f"<table>{head}{''.join(lines)}</table>")


def _trace(entry: Mapping[str, Any], *, in_full: bool) -> str:
    error = entry.get("error") or {}
    if entry.get("skipped"):
        what = f"skipped: {entry['skipped']}"
    elif error:
        what = f"failed: {error.get('type')}: {error.get('message')}"
    else:
        what = "ran" + "".join(f"; {node} skipped: {reason}" for node, reason in (entry.get("not_run") or {}).items())
    stored = f"; stored as {entry['stored']}" if entry.get("stored") else ""
    seconds = float(entry.get("seconds") or 0.0)
    cells = [
        escape(str(int(entry.get("pass", 0)) + 1)),
        escape(str(entry.get("stage"))),
        f'<span class="bad">{escape(what)}</span>' if error else escape(what + stored),
        f"{seconds:.3f}",
        *([_named(entry.get("reads")), _named(entry.get("writes"))] if in_full else []),
    ]
    calls = "".join(map(_call, entry.get("calls") or ()))
    row = "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    return f'{row}<tr><td></td><td colspan="5">{calls}</td></tr>' if calls else row


def _call(call: Mapping[str, Any]) -> str:
    """One call of a model: its prompt, its answer, what it used."""
    usage = call.get("usage")
    used = usage if isinstance(usage, Mapping) else {}
    facts = [f"{float(call.get('seconds') or 0.0):.3f} s"]
    facts += [f"{used[name]} {label}" for name, label in (("prompt_tokens", "tokens in"), ("completion_tokens", "out")) if name in used]
    facts += [f"cost {used['cost']}"] if used.get("cost") is not None else []
    facts += [f"failed: {call['error']}"] if call.get("error") else []
    rows_of = "".join(f"<tr><th>{name}</th><td>{_named(call.get(name))}</td></tr>" for name in ("given", "gave"))
    return _folded(f"{call.get('path')}: {', '.join(facts)}", f"<table>{rows_of}</table>")


def _named(values: Any) -> str:
    if not isinstance(values, Mapping):
        return ""
    return "".join(f'<div><span class="soft">{escape(str(name))}</span> {escape(_short(value))}</div>' for name, value in values.items())


def _short(value: Any) -> str:
    return words(value["tensor"] if isinstance(value, Mapping) and set(value) == {"tensor"} else value)


def _data(value: Any) -> str:
    return escape(json.dumps(value, ensure_ascii=False))


def _folded(summary: str, inside: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{inside}</details>"
