"""Adapters put on blocks below a level and taken away again, and the report of which got one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from wgtorch.core.errors import StructureError, require, suggest
from wgtorch.lora import peft_model
from wgtorch.lora.context import adapters_on, gate_of, wearer_of
from wgtorch.lora.freezing import freeze, settle_mode, thaw
from wgtorch.lora.peft_model import ALLOWED, adopt_below, check_name, inject, is_adopted, layers_of, tensors_of
from wgtorch.lora.places import Place, adaptable, as_peft_says, chosen_layers, look_again, matches, places_of, unique_blocks
from wgtorch.lora.wear import without

_OPTIONS = ("rank", "alpha", "target_modules", "freeze_base", "nodes", "dropout", "wear")


@dataclass(frozen=True, slots=True)
class Adapted:
    """A block that got an adapter: the path of its first place, its type, how many layers and numbers."""

    path: str
    block_type: str
    layers: int
    parameters: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """A block that got none, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """What :func:`add` did.

    Args:
        name: the adapter's.
        adapted: blocks that got one, each once however many places it stands at.
        skipped: those that did not.
        frozen: numbers of the base that were trainable before and are not now.
    """

    name: str
    adapted: tuple[Adapted, ...]
    skipped: tuple[Skipped, ...]
    frozen: int = 0

    @property
    def parameters(self) -> int:
        """Numbers that the adapters hold."""
        return sum(block.parameters for block in self.adapted)

    @property
    def layers(self) -> int:
        """Layers that were adapted."""
        return sum(block.layers for block in self.adapted)

    def __str__(self) -> str:
        rows = [f"  {block.path}  {block.block_type}: {block.layers} layers, {block.parameters:,} parameters" for block in self.adapted]
        rows += [f"  {block.path}  skipped: {block.reason}" for block in self.skipped]
        head = f"adapter {self.name!r}: {self.parameters:,} parameters on {len(self.adapted)} blocks, {len(self.skipped)} skipped"
        return "\n".join([head + (f", {self.frozen:,} of the base frozen" if self.frozen else ""), *rows])


def add(
    target: Any,
    name: str = "style",
    *,
    rank: int = 8,
    alpha: float | None = None,
    target_modules: str | Sequence[str] | None = None,
    freeze_base: bool = False,
    nodes: str | Iterable[str] | None = None,
    dropout: float = 0.0,
    wear: bool = True,
    **options: Any,
) -> Report:
    """Puts a LoRA adapter on every block below that can take one.

    ``W x`` becomes ``W x + (alpha / rank) B A x`` with A [rank, in] and B [out, rank] (Hu et al. 2021,
    https://arxiv.org/abs/2106.09685). B begins at zero, so outputs stay as they were until it is trained.

    Args:
        target: a block or any level.
        name: the adapter's; letters, digits, ``_`` and ``-``.
        rank: of A and B.
        alpha: the adapter counts alpha / rank times; ``rank`` when left out.
        target_modules: layers, by what their paths end with, or one regular expression of whole paths, as in PEFT. All linear
            layers by default, those of attention among them.
        freeze_base: nothing below the target trains but adapters, until this one is removed.
        nodes: only blocks at or below these paths.
        dropout: probability of dropping what goes into A, in training.
        wear: the places wear it from now on; else they say so themselves (``set_adapter``).
        options: of ``peft.LoraConfig``: ``use_rslora``, ``use_dora``, ``init_lora_weights``, ``rank_pattern``, ...

    Returns:
        Which blocks got it, and which did not and why: those that wait on an API, without weights or without such layers.

    Raises:
        StructureError: a block has an adapter of that name, a name in ``target_modules`` matches no layer anywhere, or an option
            would change the base itself. Nothing was changed then.
    """
    check_name(name)
    unknown = [option for option in options if option not in ALLOWED]
    if unknown:
        raise StructureError(f"lora.add: unknown {unknown[0]!r}; {suggest(unknown[0], (*_OPTIONS, *ALLOWED))}")
    if rank < 1:
        raise StructureError(f"lora.add: rank {rank}; expected a whole number from 1")
    places = places_of(target, nodes)
    chosen: list[tuple[Place, list[str]]] = []
    skipped: list[Skipped] = []
    for place in unique_blocks(places):
        reason, layers = _eligible(place.block, target_modules)
        if reason:
            skipped.append(Skipped(place.path, reason))
        elif name in adapters_on(place.block):
            raise StructureError(f"{place.path}: has an adapter {name!r} already; remove it first, or choose another name")
        else:
            chosen.append((place, layers))
    if target_modules is not None:
        _check_all_matched(target_modules, chosen, places)
    adapted = _inject_all(chosen, name, rank, alpha, target_modules, dropout, options)
    for place, _ in chosen:
        settle_mode(place.block, target.training)
    frozen = sum(freeze(place.block, name, target.training) for place in unique_blocks(places_of(target))) if freeze_base else 0
    if wear:
        _wear(places, name)
    look_again(target)
    return Report(name, tuple(adapted), tuple(skipped), frozen)


def remove(target: Any, name: str) -> None:
    """Takes an adapter out of all blocks below; places stop wearing it.

    A base that it had frozen trains again, and a block without adapters is, module for module, what it was.

    Raises:
        StructureError: no block below has it, or it is merged; nothing was changed then.
    """
    places = places_of(target)
    holders = [place for place in unique_blocks(places) if name in adapters_on(place.block)]
    if not holders:
        known = {other for place in places for other in adapters_on(place.block)}
        raise StructureError(f"{target.block_id}: no block below has an adapter {name!r}; {suggest(name, sorted(known))}")
    for place in holders:
        if any(name in layer.merged_adapters for _, layer in layers_of(wearer_of(place.block))):
            raise StructureError(f"{place.path}: adapter {name!r} is merged into the base; unmerge it first")
    without(target, name)
    for place in holders:
        with gate_of(wearer_of(place.block)).change():
            peft_model.detach(place.block, name)
    for place in unique_blocks(places):
        thaw(place.block, name, target.training)
    look_again(target)


def detach(target: Any, name: str) -> None:
    """The same as :func:`remove`."""
    remove(target, name)


def adopt(target: Any) -> list[str]:
    """Takes over adapters that PEFT (or diffusers, or transformers) put in: from now on places say where they are worn.

    Places below wear what was active in the model, so outputs of levels stay as they are.

    Returns:
        Paths of the places.
    """
    taken: list[tuple[Place, Any]] = []
    for place in places_of(target):
        if not adapters_on(place.block) or is_adopted(place.block):
            continue
        layer = next(iter(layers_of(wearer_of(place.block))))[1]
        active = [] if layer.disable_adapters else [entry for entry in layer.active_adapters if entry in adapters_on(place.block)]
        taken.append((place, active[0] if len(active) == 1 else dict.fromkeys(active, 1.0)))
    adopt_below(target)
    for place, active in taken:
        if place.level is not None and active:
            place.level.set_adapter(place.node_id, active)
    look_again(target)
    return [place.path for place, _ in taken]


# --- private steps ----------------------------------------------------------------------------------------------------


def _eligible(block: Any, target_modules: str | Sequence[str] | None) -> tuple[str, list[str]]:
    """(why a block gets no adapter, empty when it does; the layers that are meant)."""
    if block.is_async:
        return "it waits on an API or another process, so its weights are not here", []
    if next(block.parameters(), None) is None:
        return "it has no weights", []
    if adapters_on(block) and not is_adopted(block):
        return "it has adapters that PEFT put in; wgtorch.lora.adopt takes them over", []
    layers = chosen_layers(block, target_modules)
    if layers:
        return "", layers
    return "it has no linear layers" if target_modules is None else f"none of its layers matches {target_modules!r}", []


def _check_all_matched(target_modules: str | Sequence[str], chosen: Sequence[tuple[Place, list[str]]], places: Sequence[Place]) -> None:
    """Every name that the user wrote must be some layer's."""
    if target_modules == "all-linear":
        return
    paths = [path for _, layers in chosen for path in layers]
    words = [target_modules] if isinstance(target_modules, str) else list(target_modules)
    for word in words:
        meant = word if isinstance(target_modules, str) else [word]
        if not any(matches(path, meant) for path in paths):
            known = {path.rsplit(".", 1)[-1] for place in places if not place.block.is_async for path in adaptable(place.block)}
            raise StructureError(f"lora.add: target_modules {word!r} matches no layer of any block; {suggest(word, sorted(known))}")


def _inject_all(
    chosen: Sequence[tuple[Place, list[str]]],
    name: str,
    rank: int,
    alpha: float | None,
    target_modules: str | Sequence[str] | None,
    dropout: float,
    options: dict[str, Any],
) -> list[Adapted]:
    """All blocks get the adapter, or none."""
    done: list[Place] = []
    adapted = []
    peft: Any = require("peft", "train") if chosen else None
    try:
        for place, layers in chosen:
            config = peft.LoraConfig(
                r=rank,
                lora_alpha=rank if alpha is None else alpha,
                target_modules=as_peft_says(place.block, layers, target_modules),
                lora_dropout=dropout,
                **options,
            )
            inject(place.block, name, config)
            done.append(place)
            size = sum(parameter.numel() for parameter in tensors_of(place.block, name).values())
            kind = getattr(place.block, "block_type", "") or type(place.block).__name__
            adapted.append(Adapted(place.path, kind, len(layers), size))
    except Exception:
        for place in done:
            peft_model.detach(place.block, name)
        raise
    return adapted


def _wear(places: Sequence[Place], name: str) -> None:
    for place in places:
        if place.level is not None and name in adapters_on(place.block):
            place.level.set_adapter(place.node_id, name)
