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

from torch import Tensor

from wgtorch.report.chapters import Chapter
from wgtorch.report.words import rows, words
from wgtorch.storage.encoding import images_in, write_png
from wgtorch.world_runtime.trace import plain

_LARGEST = 1024  # pixels; larger pictures are made smaller
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { --paper: #f3eee3; --card: #fffdf8; --edge: #ddd3bf; --ink: #2c2a33; --soft: #8b8373; --accent: #b5532a; }
body { margin: 0; padding: 2rem; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 72rem; margin: auto; }
h1 { font-size: 1.7rem; white-space: pre-line; } h2 { margin: 0; color: var(--accent); font-size: 1.25rem; }
.soft { color: var(--soft); font-size: .85rem; }
article { background: var(--card); border: 1px solid var(--edge); border-radius: 12px; padding: 1.4rem; margin: 1.4rem 0; }
.board { display: flex; flex-wrap: wrap; gap: 1.4rem; margin-top: 1rem; }
.pictures { display: flex; flex-wrap: wrap; gap: .6rem; flex: 0 1 22rem; align-content: flex-start; }
.pictures img { width: 22rem; max-width: 100%; border-radius: 8px; }
.pictures img.small { image-rendering: pixelated; }
.told { flex: 1 1 24rem; min-width: 0; }
dt { color: var(--soft); font-size: .8rem; } dd { margin: 0 0 .7rem; white-space: pre-line; overflow-wrap: anywhere; }
details { margin-top: .8rem; } summary { cursor: pointer; color: var(--soft); }
table { border-collapse: collapse; width: 100%; font-size: .85rem; } td, th { text-align: left; vertical-align: top; padding: .3rem .6rem;
 border-top: 1px solid var(--edge); overflow-wrap: anywhere; } th { color: var(--soft); font-weight: normal; }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .8rem; }
.bad { color: #a01c1c; } .was { color: var(--soft); text-decoration: line-through; }
"""


def page(title: str, notes: Sequence[str], chapters: Sequence[Chapter]) -> str:
    """The whole page.

    Args:
        title: stands above.
        notes: small facts below the title.
        chapters: the episodes.
    """
    body = [f"<h1>{escape(title)}</h1>", f'<p class="soft">{escape(", ".join(notes))}</p>']
    body += [_article(chapter) for chapter in chapters] or ["<p>Nothing has happened yet.</p>"]
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width"><title>{escape(title[:80])}</title><style>{_STYLE}</style>'
    )
    text = f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body><main>\n' + "\n".join(body) + "\n</main></body></html>\n"
    return text.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair cannot be written


def _article(chapter: Chapter) -> str:
    slots = {slot: chapter.state[slot] for slot in chapter.state.schema}
    said = [("action", words(chapter.action)), *rows(slots)]
    told = "".join(f"<dt>{escape(label)}</dt><dd>{escape(text)}</dd>" for label, text in said if text)
    images = [image for slot, value in slots.items() for _, image in images_in(value, slot)]
    pictures = "".join(picture_tag(image, f"Episode {chapter.number}") for image in images)
    where = "in flight" if chapter.stored is None else f"stored as step {chapter.stored}"
    facts = [where, *([f"{chapter.seconds:.2f} s"] if chapter.traces else [])]
    parts = [
        f'<h2>Episode {chapter.number} <span class="soft">{escape(", ".join(facts))}</span></h2>',
        f'<div class="board"><div class="pictures">{pictures}</div><dl class="told">{told}</dl></div>',
        _changes(chapter),
        _recipe(slots.get("recipe")),
        _traces(chapter.traces),
    ]
    return f'<article id="episode-{chapter.number}">{"".join(parts)}</article>'


def picture_tag(image: Tensor, words_for_it: str, *, height: int | None = None) -> str:
    """A picture inside the page. Large ones are made smaller; ``height`` in pixels, as it is shown."""
    from torch.nn.functional import interpolate

    largest = max(image.shape[-2:])
    if largest > _LARGEST:
        size = [max(1, side * _LARGEST // largest) for side in image.shape[-2:]]
        image = interpolate(image[None].float(), size=size, mode="area")[0]
    held = io.BytesIO()
    write_png(image, held)
    data = base64.b64encode(held.getvalue()).decode()
    small = ' class="small"' if largest < _LARGEST // 4 else ""
    shown = f' style="height:{height}px;image-rendering:pixelated"' if height else ""
    return f'<img{small}{shown} alt="{escape(words_for_it)}" src="data:image/png;base64,{data}">'


def _recipe(recipe: Any) -> str:
    """The whole recipe; its prompt stands among the slots already."""
    return _folded("recipe", f"<pre>{_data(plain(recipe))}</pre>") if isinstance(recipe, Mapping) and recipe else ""


def _changes(chapter: Chapter) -> str:
    if not chapter.changes:
        return ""
    lines = [
        f"<tr><th>{escape(change.path)}</th><td>{escape(change.kind)}</td>"
        f'<td><span class="was">{escape(change.before)}</span> {escape(change.after)}</td></tr>'
        for change in chapter.changes
    ]
    return _folded(f"changes of content ({len(lines)})", f"<table>{''.join(lines)}</table>", is_open=True)


def _traces(traces: Iterable[Mapping[str, Any]]) -> str:
    lines = [_trace(entry) for entry in traces]
    if not lines:
        return ""
    head = "<tr><th>pass</th><th>stage</th><th></th><th>seconds</th><th>read</th><th>wrote</th></tr>"
    return _folded(f"stages ({len(lines)})", f"<table>{head}{''.join(lines)}</table>")


def _trace(entry: Mapping[str, Any]) -> str:
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
        _named(entry.get("reads")),
        _named(entry.get("writes")),
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
    return escape(json.dumps(value, indent=1, ensure_ascii=False))


def _folded(summary: str, inside: str, *, is_open: bool = False) -> str:
    return f"<details{' open' if is_open else ''}><summary>{escape(summary)}</summary>{inside}</details>"
