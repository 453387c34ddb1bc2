"""A base that does not train while an adapter that froze it is there."""

from __future__ import annotations

from typing import Any

from wgtorch.lora.adapted_module import adapters_on, base_parameters

_RECORD = "_frozen_by"
"""Attribute of a block: for each adapter that froze its base, (names of what had trained, whether the block itself was not frozen)."""
_Record = dict[str, tuple[frozenset[str], bool]]


def freeze(block: Any, name: str, training: bool) -> int:
    """Stops gradients to a block's base on behalf of an adapter.

    Args:
        block: with the adapter or without.
        name: the adapter's.
        training: mode of what holds the block, see :func:`settle_mode`.

    Returns:
        How many numbers trained before and do not now.
    """
    record: _Record = block.__dict__.setdefault(_RECORD, {})
    trained = {key: parameter for key, parameter in base_parameters(block).items() if parameter.requires_grad}
    free = next(iter(record.values()))[1] if record else not block._frozen
    record[name] = (frozenset(trained).union(*(names for names, _ in record.values())), free)
    for parameter in trained.values():
        parameter.requires_grad_(False)
    settle_mode(block, training)
    return sum({id(parameter): parameter.numel() for parameter in trained.values()}.values())


def thaw(block: Any, name: str, training: bool) -> None:
    """Undoes :func:`freeze`, as far as no other adapter holds the base frozen."""
    record: _Record = block.__dict__.get(_RECORD, {})
    if name in record and record[name][1] and len(record) == 1:
        _set_frozen(block, False, training)
    names, _ = record.pop(name, (frozenset[str](), False))
    held = frozenset[str]().union(*(others for others, _ in record.values()))
    for key, parameter in base_parameters(block).items():
        if key in names - held:
            parameter.requires_grad_(True)
    settle_mode(block, training)
    if not record:
        block.__dict__.pop(_RECORD, None)


def settle_mode(block: Any, training: bool) -> None:
    """Keeps a block in ``eval`` whose base is frozen for adapters of others and that has none itself.

    One that has got an adapter is in the mode of what holds it (``training``), as blocks that have had one from the start.
    """
    record: _Record = block.__dict__.get(_RECORD, {})
    if record and next(iter(record.values()))[1]:
        _set_frozen(block, not adapters_on(block) and next(block.parameters(), None) is not None, training)


def _set_frozen(block: Any, frozen: bool, training: bool) -> None:
    if block._frozen != frozen:
        block._frozen = frozen
        block.train(training)
