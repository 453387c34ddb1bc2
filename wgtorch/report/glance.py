"""A State, or a history, at a glance: what a notebook shows of it."""

from __future__ import annotations

from html import escape
from typing import Any

from wgtorch.report.page import picture_tag
from wgtorch.report.words import cut, words
from wgtorch.storage.base import History
from wgtorch.storage.encoding import images_in
from wgtorch.world_runtime.state import State, Views

_EPISODES = 12
_LETTERS = 400


def state_html(state: State) -> str:
    """A table of the slots, pictures among them."""
    rows = "".join(f"<tr><th>{escape(slot)}</th><td>{_cell(state[slot], slot)}</td></tr>" for slot in state.schema)
    return f'<table style="text-align:left">{rows}</table>'


def history_html(history: History) -> str:
    """The last episodes, a row each: the step, its pictures and what happened."""
    steps = history.steps
    rows = []
    for step, state in zip(steps[-_EPISODES:], history[-_EPISODES:], strict=True):
        pictures = "".join(
            picture_tag(image, f"Episode {step}", height=96) for slot in state.schema for _, image in images_in(state[slot], slot)
        )
        told = next((text for slot in reversed(state.schema) if (text := words(state[slot]))), "")
        rows.append(f"<tr><th>{step}</th><td>{pictures}</td><td>{escape(cut(told, _LETTERS))}</td></tr>")
    more = f"{len(steps) - _EPISODES} earlier, " if len(steps) > _EPISODES else ""
    return f'<table style="text-align:left"><caption>{more}{len(rows)} episodes</caption>{"".join(rows)}</table>'


def _cell(value: Any, slot: str) -> str:
    images = [picture_tag(image, slot, height=192) for _, image in images_in(value, slot)]
    return "".join(images) if images else f'<div style="white-space:pre-line">{escape(cut(words(value), _LETTERS))}</div>'


Views.register("state", state_html)
Views.register("history", history_html)
