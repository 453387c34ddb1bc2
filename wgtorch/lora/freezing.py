"""A base that does not train while an adapter that froze it is there."""

from __future__ import annotations

from typing import Any

from wgtorch.core.adapters.attaching import base_parameters
from wgtorch.core.wearing import adapters_on

_RECORD = "_frozen_by"
"""Attribute of a block: for each adapter that froze its base, (names of what had trained, whether the whole block was frozen)."""


def freeze(block: Any, name: str) -> int:
    """Stops gradients to a block's base on behalf of an adapter; a block that got no adapter also stays in ``eval``.

    Returns:
        How many numbers trained before and do not now.
    """
    record: dict[str, tuple[frozenset[str], bool]] = block.__dict__.setdefault(_RECORD, {})
    base = base_parameters(block)
    trained = {key: parameter for key, parameter in base.items() if parameter.requires_grad}
    whole = name not in adapters_on(block) and not block._frozen and bool(base)
    record[name] = (frozenset(trained).union(*(names for names, _ in record.values())), whole)
    for parameter in trained.values():
        parameter.requires_grad_(False)
    if whole:
        block._frozen = True
        block.eval()
    return sum({id(parameter): parameter.numel() for parameter in trained.values()}.values())


def thaw(block: Any, name: str, training: bool) -> None:
    """Undoes :func:`freeze`, as far as no other adapter holds the base frozen; ``training`` is the mode of what holds the block."""
    record: dict[str, tuple[frozenset[str], bool]] = block.__dict__.get(_RECORD, {})
    if name not in record:
        return
    names, whole = record.pop(name)
    held = frozenset[str]().union(*(others for others, _ in record.values()))
    for key, parameter in base_parameters(block).items():
        if key in names - held:
            parameter.requires_grad_(True)
    if whole and not record:
        block._frozen = False
        block.train(training)
    elif whole:
        other = next(iter(record))
        record[other] = (record[other][0], True)
    if not record:
        del block.__dict__[_RECORD]
