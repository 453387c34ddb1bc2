"""Adapters of a graph that is written as a pipeline: beside its models, or in their weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wgtorch.core.errors import StructureError
from wgtorch.graph import Graph
from wgtorch.lora.formats.foreign_layer_names import AdapterNames
from wgtorch.lora.formats.read_foreign_files import DIFFUSERS_WEIGHTS
from wgtorch.lora.formats.write_foreign_files import parts_of, write_diffusers
from wgtorch.lora.injection import is_converted
from wgtorch.lora.merged_weights import check_mergeable
from wgtorch.lora.places import Place, places_of, unique_models
from wgtorch.lora.selection import PerSample, Weighted, as_active
from wgtorch.lora.unadapted_copy import unadapted_copy


@dataclass(frozen=True)
class ExportedAdapters:
    """Adapters that go into a file beside the models.

    Args:
        parts: blocks by what diffusers calls them.
        chosen: their adapters with weights.
        names: of the backbone.
    """

    parts: dict[str, Place] = field(default_factory=dict)
    chosen: dict[str, Weighted] = field(default_factory=dict)
    names: AdapterNames | None = None

    def write(self, folder: Path) -> None:
        """Writes the file where there is something for it."""
        if self.parts:
            write_diffusers(folder / DIFFUSERS_WEIGHTS, self.parts, self.chosen, self.names)


def without_adapters(graph: Graph, pipeline: Any, fuse: bool) -> tuple[Any, ExportedAdapters]:
    """A pipeline around the same models without adapters, and those that go into a file.

    Args:
        graph: that the pipeline is of.
        pipeline: around the graph's own modules.
        fuse: adapters are counted into the weights.

    Raises:
        StructureError: places of one model select unlike adapters.
    """
    adapted = [place for place in unique_models(places_of(graph)) if place.adapters]
    if not adapted:
        return pipeline, ExportedAdapters()
    if foreign := [place.path for place in adapted if not is_converted(place.block)]:
        raise StructureError(
            f"to_diffusers: {', '.join(foreign)}: has adapters that PEFT put in itself, which no place selects; call "
            "wgtorch.lora.from_peft(graph), which takes them over"
        )
    selected = {place.path: _selected(graph, place) for place in adapted}
    for place in adapted if fuse else ():
        check_mergeable(place, places_of(graph), selected[place.path])
    copies = {id(place.module): unadapted_copy(place.block, selected[place.path] if fuse else ()) for place in adapted}
    replaced = {name: copies[id(part)] for name, part in pipeline.components.items() if id(part) in copies}
    if not fuse:
        # What the pipeline was constructed with beside its parts, its config says.
        parts, names = parts_of([place for place in adapted if selected[place.path]])
        exported = ExportedAdapters(parts, {part: selected[place.path] for part, place in parts.items()}, names)
    else:
        exported = ExportedAdapters()
    pipeline.register_modules(**replaced)
    return pipeline, exported


def _selected(graph: Graph, place: Place) -> Weighted:
    """The adapters that all places of a model select."""
    own = [other for other in places_of(graph) if other.module is place.module]
    chosen = [as_active(other.selected) or () for other in own]
    if any(one != chosen[0] for one in chosen):
        raise StructureError(
            f"to_diffusers: {own[0].path} and {own[-1].path} are one model and select {own[0].selected!r} and {own[-1].selected!r}; a "
            "pipeline of diffusers has the model once. Let all places select the same"
        )
    if isinstance(chosen[0], PerSample):
        raise StructureError(f"to_diffusers: {place.path} selects an adapter for each sample, {place.selected!r}; choose one for all")
    return chosen[0]
