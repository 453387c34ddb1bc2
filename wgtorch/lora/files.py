"""Adapters to and from files: PEFT's layout, diffusers' files, and checkpoints that hold adapters."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wgtorch.core.checkpoint.atomic import write_file, write_folder
from wgtorch.core.checkpoint.io import MANIFEST
from wgtorch.core.checkpoint.load import HAS_NO_MEMORY, stored_adapters
from wgtorch.core.checkpoint.manifest import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from wgtorch.core.checkpoint.tensors import write_tensors
from wgtorch.core.errors import CheckpointError, StructureError, suggest
from wgtorch.core.system_files import is_of_system
from wgtorch.core.tree import is_level
from wgtorch.lora.active_adapters import changing
from wgtorch.lora.adapted_module import misfits, set_tensors
from wgtorch.lora.formats.foreign_layer_names import adapter_names
from wgtorch.lora.formats.read_foreign_files import Foreign, Stored, checked_numbers, read_adapters
from wgtorch.lora.formats.write_foreign_files import FORMATS, WRITERS, parts_of
from wgtorch.lora.injection import OFT_OPTIONS, check_name, eject
from wgtorch.lora.peft_format import attach, config_from, own_names, stored_adapter
from wgtorch.lora.places import Place, holders_of, places_of, refresh_plans, unique_models
from wgtorch.lora.report import Adapted, Report
from wgtorch.lora.selection import names_of
from wgtorch.lora.target_modules import adaptable, as_peft_says

_BESIDE = ("README.md", "samples.png")
"""A card and its picture, which stay where an adapter is saved again."""


def save(target: Any, folder: str | os.PathLike[str], name: str = "style", *, format: str = "peft") -> Path:
    """Writes an adapter, whole or not at all.

    ================  ==================================================================================================
    ``format``        what is written
    ================  ==================================================================================================
    ``peft``          of a block ``adapter_config.json`` and ``adapter_model.safetensors`` in the folder; of a level such a folder for
                      each block, named by its path (``creator.paint.t2i.backbone``)
    ``diffusers``     ``pytorch_lora_weights.safetensors`` in the folder, for ``pipeline.load_lora_weights(folder)``
    ``kohya``         ``<name>.safetensors`` in the folder, with the names of kohya's scripts for the family of the graph
    ================  ==================================================================================================

    Example:
        >>> lora.save(graph, "out", name="winter", format="diffusers")
        >>> pipeline.load_lora_weights("out")

    Args:
        target: a block or level.
        folder: new, empty, or one that holds saved adapters, with a card (``README.md``, ``samples.png``) that stays. Of
            ``diffusers`` and ``kohya`` also the name of the file, which ends in ``.safetensors``.
        name: the adapter's.
        format: see above.

    Returns:
        The folder, or the file.

    Raises:
        StructureError: no block below has it, or the format has no place for a block that has it, or for places that do not select it.
        CheckpointError: the folder holds something else, or a number of the adapter is NaN or infinite.
    """
    if format not in FORMATS:
        raise StructureError(f"lora.save: unknown format {format!r}; {suggest(format, FORMATS)}")
    holders = holders_of(target, name)
    for place in holders:
        checked_numbers(stored_adapter(place.block, name)[1], f"lora.save: {place.path}")  # what load() would refuse
    folder = Path(folder)
    if format != "peft":
        _check_selected(target, name)
        return _save_file(holders, folder, name, format)
    check_folder(folder, format)

    def fill(fresh: Path) -> None:
        _keep_card(folder, fresh)
        for place in holders:
            into = fresh / place.path.replace("/", ".") if is_level(target) else fresh
            into.mkdir(exist_ok=True)
            config, tensors = stored_adapter(place.block, name)
            (into / ADAPTER_CONFIG).write_text(config, encoding="utf-8")
            write_tensors(into / ADAPTER_WEIGHTS, tensors, {"format": "pt"})

    return write_folder(folder, fill)


def load(
    target: Any,
    path: str | os.PathLike[str],
    name: str | None = None,
    *,
    nodes: str | Mapping[str, str] | None = None,
    wear: bool = True,
    replace: bool = False,
) -> Report:
    """Puts saved adapters on the blocks below that they fit.

    Read are: what :func:`save` wrote, folders of PEFT, files of diffusers (``pytorch_lora_weights.safetensors``; older ones and
    kohya's with diffusers installed), and checkpoints that hold adapters. Which block an adapter is for is found by its path where
    the files name one, else by its layers and their shapes.

    Args:
        target: a block or level.
        path: the file or folder.
        name: the adapter's name here; ``style`` when left out, or those that a checkpoint has for its adapters.
        nodes: path of the block; or paths by what the files call their models (``{"unet": "backbone"}``).
        wear: the places select it from now on.
        replace: an adapter of that name may be there and gets the new weights, between two calls of its block.

    Raises:
        CheckpointError: there is no adapter, it fits no block or several, the base itself would be changed, or a number of it is
            NaN or infinite. Nothing was changed then.
        StructureError: a block has an adapter of that name, and ``replace`` was not said.
    """
    if name is not None:
        check_name(name)
    path = Path(path)
    if (path / MANIFEST).is_file() or (path.is_file() and path.suffix.lower() != ".safetensors"):
        found: list[tuple[str, Stored | Foreign]] = [(own if name is None else name, stored) for own, stored in _from_checkpoint(path)]
        twice = len({(key, stored.model) for key, stored in found}) != len(found)
        if not found or twice:
            raise CheckpointError(f"{path}: holds {'several adapters for one block; leave name out' if twice else 'no adapters'}")
    else:
        found = [("style" if name is None else name, stored) for stored in read_adapters(path, _loaders(target))]
    plan = [(place, adapter, stored) for adapter, entry in found for place, stored in (_place_for(target, entry, nodes),)]
    taken: dict[tuple[int, str], Stored] = {}
    for place, adapter, stored in plan:
        if (other := taken.setdefault((id(place.module), adapter), stored)) is not stored:
            raise CheckpointError(
                f"{path}: holds two adapters for {place.path}, on {sorted(other.layers())[:3]}... and {sorted(stored.layers())[:3]}...; "
                "load one after the other under two names"
            )
        if any(value.is_meta for value in place.module.parameters()):
            raise CheckpointError(f"{place.path}: {HAS_NO_MEMORY}; load its own first")
        if adapter in place.adapters and not replace:
            raise StructureError(f"{place.path}: has an adapter {adapter!r} already; pass replace=True, or another name")
    _put_all(plan)
    for place in places_of(target) if wear else ():
        for loaded, adapter, _ in plan:
            if place.module is loaded.module:
                place.select(adapter)
    refresh_plans(target)
    adapted = [
        Adapted(place.path, place.block.block_type, len(stored.layers()), sum(value.numel() for value in stored.tensors.values()))
        for place, _, stored in plan
    ]
    return Report(", ".join(dict.fromkeys(adapter for _, adapter, _ in plan)), tuple(adapted), ())


# --- private steps ----------------------------------------------------------------------------------------------------


def _check_selected(target: Any, name: str) -> None:
    """Refuses an adapter that some places select and others of its blocks do not, which a file of other programs cannot say."""
    places = [place for place in places_of(target) if place.level is not None and name in place.adapters]
    without = [place.path for place in places if name not in names_of(place.selected)]
    if without and len(without) < len(places):
        raise StructureError(
            f"{target.block_id}: {', '.join(without)} do not select {name!r}, which other programs apply wherever a model is used; let all "
            f"places select it (lora.set_adapter(target, {name!r})), remove it where it is not wanted, or save with format='peft'"
        )


def _save_file(holders: list[Place], path: Path, name: str, format: str) -> Path:
    """Writes an adapter as one file."""
    write, called = WRITERS[format]
    parts, names = parts_of(holders)
    chosen = dict.fromkeys(parts, ((name, 1.0),))
    if path.suffix == ".safetensors":
        return write_file(path, lambda fresh: write(fresh, parts, chosen, names))
    file = called or f"{name}.safetensors"
    check_folder(path, format)

    def fill(fresh: Path) -> None:
        _keep_card(path, fresh)
        write(fresh / file, parts, chosen, names)

    return write_folder(path, fill)


def check_folder(folder: Path, format: str) -> None:
    """Says whether :func:`save` may write a folder.

    Raises:
        CheckpointError: it holds something else than adapters.
    """
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        of_peft = entry.name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS) or (entry / ADAPTER_CONFIG).is_file()
        is_ours = of_peft if format == "peft" else entry.suffix == ".safetensors"
        if not is_ours and entry.name not in _BESIDE and not is_of_system(entry.name):
            raise CheckpointError(
                f"{folder}: holds {entry.name!r}, which is no adapter and which saving would remove; choose another folder"
            )


def _keep_card(folder: Path, fresh: Path) -> None:
    for name in _BESIDE:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, fresh / name)


def _from_checkpoint(path: Path) -> list[tuple[str, Stored]]:
    return [
        (name, Stored(str(path), block, config, checked_numbers(own_names(tensors), f"{path}: adapter {name!r} of {block}")))
        for block, name, config, tensors in stored_adapters(path)
    ]


def _loaders(target: Any) -> list[str]:
    """Diffusers' readers of the families whose backbones stand below."""
    names = [adapter_names(place.module) for place in unique_models(places_of(target))]
    return list(dict.fromkeys(found.loader for found in names if found is not None and found.loader))


def _place_for(target: Any, entry: Stored | Foreign, nodes: str | Mapping[str, str] | None) -> tuple[Place, Stored]:
    """The block that an adapter is for, and the adapter under its names."""
    wanted = nodes.get(entry.model) if isinstance(nodes, Mapping) else nodes
    candidates = unique_models(places_of(target, None if wanted is None else [wanted]))
    if (wanted is None and "." in entry.model) or entry.model in {place.path for place in candidates}:
        candidates = [place for place in candidates if place.path == entry.model.replace(".", "/")] or candidates
    missing = {place.path: entry.missing(place.module, adaptable(place.block)) for place in candidates}
    fitting = [place for place in candidates if not missing[place.path]]
    if len(fitting) > 1:
        fitting = [place for place in fitting if entry.fits(place.module, adaptable(place.block))] or fitting
    if len(fitting) > 1 and entry.model:
        fitting = [place for place in fitting if entry.model in place.path.split("/")] or fitting
    if len(fitting) > 1 and isinstance(entry, Foreign) and entry.is_backbone:
        fitting = [place for place in fitting if adapter_names(place.module) is not None] or fitting
    if len(fitting) == 1:
        return fitting[0], entry.stored(fitting[0].module)
    what = f"{entry.source}: the adapter{f' of {entry.model!r}' if entry.model else ''} on {sorted(entry.layers())[:3]}..."
    if fitting:
        raise CheckpointError(f"{what} fits several blocks: {[place.path for place in fitting]}; say which with nodes=")
    nearest = min(missing, key=lambda path: len(missing[path]), default="")
    raise CheckpointError(
        f"{what} fits no block of {[place.path for place in candidates][:8]}"
        + (f"; the nearest, {nearest}, has no place for {len(missing[nearest])}: {missing[nearest][:20]}" if nearest in missing else "")
    )


def _put_all(plan: list[tuple[Place, str, Stored]]) -> None:
    """All blocks get their adapter, or none."""
    done: list[tuple[Place, str]] = []
    try:
        for place, adapter, stored in plan:
            if adapter not in place.adapters:
                config = dict(stored.config)
                if not config.get("target_modules"):
                    words = as_peft_says(place.block, sorted(stored.layers()), None)
                    config["target_modules"] = words if isinstance(words, str) else sorted(words)
                attach(place.block, adapter, config, stored.tensors, stored.source)
                done.append((place, adapter))
        for place, adapter, stored in plan:
            if (place, adapter) not in done:
                _replace(place, adapter, stored)
    except Exception:
        for place, adapter in done:
            eject(place.block, adapter)
        raise


def _replace(place: Place, name: str, stored: Stored) -> None:
    """Gives an adapter that is there other weights, when no call of its block runs."""
    old, new = place.adapters[name], config_from(stored.config, f"{stored.source}: adapter {name!r}")
    fields = ("peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", *OFT_OPTIONS)
    differing = [field for field in fields if getattr(old, field, None) != getattr(new, field, None)]
    wrong = misfits(place.block, name, stored.tensors)
    if differing or wrong:
        raise CheckpointError(
            f"{stored.source}: cannot take the place of adapter {name!r} on {place.path}: {'; '.join(differing + wrong)[:500]}. "
            "Load it under another name, let places select that, and remove the old one"
        )
    with changing(place.block):
        set_tensors(place.block, name, stored.tensors)
