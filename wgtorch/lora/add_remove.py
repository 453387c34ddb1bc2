"""Adapters put on blocks below a level and taken away again."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from wgtorch.core.errors import StructureError, require, suggest
from wgtorch.lora.active_adapters import changing
from wgtorch.lora.adapted_module import adapted_module, adapters_on, layers_of, merged_into, names_in, tensors_of
from wgtorch.lora.freezing import freeze, settle_mode, thaw
from wgtorch.lora.injection import OFT_OPTIONS, OPTIONS, check_name, convert_layers, eject, inject, is_converted
from wgtorch.lora.places import Place, holders_of, places_of, refresh_plans, unique_models
from wgtorch.lora.report import Adapted, Report, Skipped
from wgtorch.lora.switching import deselect
from wgtorch.lora.target_modules import adaptable, as_peft_says, chosen_layers, matches

_ARGUMENTS = ("rank", "alpha", "target_modules", "freeze_base", "nodes", "dropout", "wear", "method")
_METHODS = {"lora": OPTIONS, "oft": OFT_OPTIONS}


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
    method: str = "lora",
    **options: Any,
) -> Report:
    """Puts an adapter on every block below that can take one: LoRA, or OFT.

    ``W x`` becomes ``W x + (alpha / rank) B A x`` with A [rank, in] and B [out, rank] (Hu et al. 2021,
    https://arxiv.org/abs/2106.09685). B begins at zero, so outputs stay as they were until it is trained. OFT (Qiu et al. 2023,
    https://arxiv.org/abs/2306.07280) turns what goes into a layer instead, ``W R x``, and begins with no turn.

    Args:
        target: a block or any level.
        name: the adapter's; letters, digits, ``_`` and ``-``.
        rank: of A and B; of OFT the number of blocks that R is made of, where ``oft_block_size`` does not say their width.
        alpha: the adapter counts alpha / rank times; ``rank`` when left out.
        target_modules: layers, by what their paths end with, or one regular expression of whole paths, as in PEFT. All linear
            layers by default, those of attention among them.
        freeze_base: nothing below the target trains but adapters, until this one is removed.
        nodes: only blocks at or below these paths.
        dropout: probability of dropping what goes into A, in training.
        wear: the places select it from now on; else they say so themselves (``set_adapter``).
        method: ``lora`` or ``oft``.
        options: of ``peft.LoraConfig``: ``use_rslora``, ``use_dora``, ``init_lora_weights``, ``rank_pattern``, ...; or of
            ``peft.OFTConfig``: ``oft_block_size``, ``coft``, ``block_share``, ... ``modules_to_save`` of both: modules, by what their
            paths end with, of which the adapter has whole copies that train.

    Returns:
        Which blocks got it, and which did not and why: those that wait on an API, without weights or without such layers.

    Raises:
        StructureError: a block has an adapter of that name, a name in ``target_modules`` matches no layer anywhere, or an option
            would change the base itself. Nothing was changed then.
    """
    check_name(name)
    if method not in _METHODS:
        raise StructureError(f"lora.add: method {method!r}; {suggest(str(method), _METHODS)}")
    unknown = [option for option in options if option not in _METHODS[method]]
    if unknown:
        raise StructureError(f"lora.add: unknown {unknown[0]!r}; {suggest(unknown[0], (*_ARGUMENTS, *_METHODS[method]))}")
    _check_arguments(rank, alpha, dropout, freeze_base=freeze_base, wear=wear)
    if method == "oft" and (alpha is not None or dropout):
        raise StructureError("lora.add: OFT has neither alpha nor dropout; leave them out")
    copied = options.get("modules_to_save") or ()
    copied = [copied] if isinstance(copied, str) else copied
    if not isinstance(copied, Sequence) or not all(isinstance(each, str) for each in copied):
        raise StructureError(f"lora.add: modules_to_save {copied!r}; expected names of modules, as ['conv_out']")
    if target_modules is not None:
        _check_words(target_modules, copied)
    places = places_of(target, nodes)
    chosen: list[tuple[Place, list[str]]] = []
    skipped: list[Skipped] = []
    for place in unique_models(places):
        reason, layers = _eligible(place.block, target_modules, copied)
        if reason:
            skipped.append(Skipped(place.path, reason))
        elif name in place.adapters:
            raise StructureError(f"{place.path}: has an adapter {name!r} already; remove it first, or choose another name")
        else:
            chosen.append((place, layers))
    if target_modules is not None:
        _check_all_matched(target_modules, chosen, places)
    _check_all_copied(copied, chosen)
    if method == "oft":
        options = {"oft_block_size": 0, "r": 0 if options.get("oft_block_size") else rank, **options}
    else:
        options = {"r": rank, "lora_alpha": rank if alpha is None else alpha, "lora_dropout": dropout, **options}
    if copied:
        options["modules_to_save"] = list(copied)
    adapted = _inject_all(chosen, name, target_modules, method, options)
    for place, _ in chosen:
        settle_mode(place.block, target.training)
    frozen = sum(freeze(place.block, name, target.training) for place in unique_models(places_of(target))) if freeze_base else 0
    for place in places if wear else ():
        if name in place.adapters:
            place.select(name)
    refresh_plans(target)
    return Report(name, tuple(adapted), tuple(skipped), frozen)


def _check_arguments(rank: Any, alpha: Any, dropout: Any, **flags: Any) -> None:
    """Refuses what a config or a person may have written in place of a number or a yes and no."""
    numbers = {"alpha": rank if alpha is None else alpha, "dropout": dropout}
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise StructureError(f"lora.add: rank {rank!r}; expected a whole number from 1")
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise StructureError(f"lora.add: {name} {value!r}; expected a number, at least 0")
    if not 0 <= dropout < 1:
        raise StructureError(f"lora.add: dropout {dropout!r}; expected a probability, at least 0 and less than 1")
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise StructureError(f"lora.add: {name} {value!r}; expected True or False")


def remove(target: Any, name: str) -> None:
    """Takes an adapter out of all blocks below; places stop selecting it.

    A base that it had frozen trains again, and a block without adapters is, module for module, what it was.

    Raises:
        StructureError: no block below has it, or it is merged; nothing was changed then.
    """
    holders = holders_of(target, name)
    for place in holders:
        if name in dict(merged_into(place.block) or ()):
            raise StructureError(
                f"{place.path}: adapter {name!r} is merged into the base; take it out of the weights first with wgtorch.lora.unmerge, or "
                "leave it in them for good with wgtorch.lora.fuse"
            )
    deselect(target, name)
    for place in holders:
        with changing(place.block):
            eject(place.block, name)
    for place in unique_models(places_of(target)):
        thaw(place.block, name, target.training)
    refresh_plans(target)


def from_peft(target: Any) -> list[str]:
    """Takes over adapters that PEFT (or diffusers, or transformers) put in: from now on places say where they are active.

    Places below select what was active in the model, with the weight that it had (``pipeline.set_adapters`` of diffusers), so outputs of
    levels stay as they are.

    Returns:
        Paths of the places.

    Raises:
        StructureError: layers of a model weigh an adapter unlike, as weights by block leave them; nothing was changed then.
    """
    taken: list[tuple[Place, Any]] = []
    for place in places_of(target):
        if place.adapters and not is_converted(place.block):
            layer = next(layer for _, layer in layers_of(place.module))
            active = [] if layer.disable_adapters else [name for name in layer.active_adapters if name in place.adapters]
            weights = {name: _weight_of(place, name) for name in active}
            taken.append((place, active[0] if list(weights.values()) == [1.0] else weights))
    for place, _ in taken:
        for _, layer in layers_of(place.module):
            for name in getattr(layer, "scaling", {}):
                layer.scaling[name] = _scaling_of(layer, name)
    convert_layers(target)
    for place, active in taken:
        if active:
            place.select(active)
    refresh_plans(target)
    return [place.path for place, _ in taken]


# --- private steps ----------------------------------------------------------------------------------------------------


def _scaling_of(layer: Any, name: str) -> float:
    """What an adapter of weight 1 counts in a layer of PEFT's."""
    rank = layer.r[name]
    return float(layer.lora_alpha[name] / (math.sqrt(rank) if getattr(layer, "use_rslora", {}).get(name) else rank))


def _weight_of(place: Place, name: str) -> float:
    """How an adapter that PEFT put in is weighted in a model."""
    layers = [layer for _, layer in layers_of(place.module) if name in getattr(layer, "scaling", {})]
    weights = {round(layer.scaling[name] / _scaling_of(layer, name), 6) for layer in layers}
    if len(weights) > 1:
        raise StructureError(
            f"{place.path}: adapter {name!r} is weighted by {sorted(weights)} in different layers; a place has one weight for all of them. "
            f"Give it one: pipeline.set_adapters({name!r}, 1.0)"
        )
    return weights.pop() if weights else 1.0


def _eligible(block: Any, target_modules: str | Sequence[str] | None, copied: Sequence[str]) -> tuple[str, list[str]]:
    """(why a block gets no adapter, empty when it does; the layers that are meant)."""
    if block.is_async:
        return "it waits on an API or another process, so its weights are not here", []
    if next(block.parameters(), None) is None:
        return "it has no weights", []
    if adapters_on(block) and not is_converted(block):
        return "it has adapters that PEFT put in; wgtorch.lora.from_peft takes them over", []
    layers = chosen_layers(block, target_modules, copied)
    if layers:
        return "", layers
    return "it has no linear layers" if target_modules is None else f"none of its layers matches {target_modules!r}", []


def _check_words(target_modules: str | Sequence[str], copied: Sequence[str]) -> None:
    """Refuses names of layers that are none at all, and an expression that cannot be read."""
    if not target_modules and not copied:
        raise StructureError(f"lora.add: target_modules {target_modules!r} names no layer; leave it out for all linear ones")
    if isinstance(target_modules, str):
        try:
            re.compile(target_modules)
        except re.error as error:
            raise StructureError(f"lora.add: target_modules {target_modules!r} is no regular expression: {error}") from None


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


def _check_all_copied(copied: Sequence[str], chosen: Sequence[tuple[Place, list[str]]]) -> None:
    paths = [path for place, _ in chosen for path, _ in adapted_module(place.block).named_modules()]
    for word in copied:
        if not word or not any(path.endswith(word) for path in paths):
            known = sorted({path.rsplit(".", 1)[-1] for path in paths if path})
            raise StructureError(f"lora.add: modules_to_save {word!r} matches no module of any block; {suggest(str(word), known)}")


def _inject_all(
    chosen: Sequence[tuple[Place, list[str]]], name: str, target_modules: Any, method: str, arguments: dict[str, Any]
) -> list[Adapted]:
    """All blocks get the adapter, or none."""
    done: list[Place] = []
    adapted = []
    peft: Any = require("peft", "train") if chosen else None
    try:
        for place, layers in chosen:
            words = as_peft_says(place.block, layers, target_modules)
            config = {"lora": peft.LoraConfig, "oft": peft.OFTConfig}[method](target_modules=words, **arguments)
            inject(place.block, name, config)
            done.append(place)
            size = sum(parameter.numel() for parameter in tensors_of(place.block, name).values())
            kind = getattr(place.block, "block_type", "") or type(place.block).__name__
            adapted.append(Adapted(place.path, kind, sum(name in names_in(layer) for _, layer in layers_of(place.module)), size))
    except Exception:
        for place in done:
            eject(place.block, name)
        raise
    return adapted
