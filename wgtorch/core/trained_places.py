"""Which parameters train: what holds for one place of a child and not for another."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import nullcontext
from typing import Any

from torch import nn

from wgtorch.core import adapter_hook
from wgtorch.core.tree import is_level, paths_below


class TrainedPlaces:
    """The methods of levels by which places are chosen to train."""

    def set_trainable(self: Any, node_id: str, trainable: bool = True) -> None:
        """Says whether a child trains through this place. A use that does not still passes gradients to what came before."""
        self.configure_node(node_id, trainable=bool(trainable))

    def trainable_parameters(self: Any, through: Collection[str] | None = None) -> Iterator[nn.Parameter]:
        """Parameters that a gradient can reach: they require one, and stand at a place that trains, each once however often it is used.

        An adapter's count where a place that trains selects it. What a subclass holds beside its nodes counts as well.

        Args:
            through: paths of the only places that count, each with all that is below it; every place where left out.
        """
        asked: set[tuple[Any, ...]] = set()
        found: dict[int, nn.Parameter] = {}
        if through is None:
            parts = [part for name, part in self._modules.items() if name != "nodes" and part is not None]
            own = [*self._parameters.values(), *(parameter for part in parts for parameter in part.parameters())]
            found.update((id(parameter), parameter) for parameter in own if parameter is not None and parameter.requires_grad)
        for node_id, child in self.nodes.items():
            place = self._node_specs[node_id]
            below = None if through is None or node_id in through else paths_below(through, node_id)
            known = (id(child), repr(place.adapter), below)
            if not place.trainable or below == () or known in asked:
                continue
            asked.add(known)
            if is_level(child):
                with adapter_hook.hook.selection(place.adapter, child) or nullcontext():
                    found.update((id(parameter), parameter) for parameter in child.trainable_parameters(below))
            else:
                idle = adapter_hook.hook.inactive(place.adapter, child)
                found.update((id(parameter), parameter) for parameter in child.trainable_parameters() if id(parameter) not in idle)
        return iter(found.values())

    @property
    def _ddp_params_and_buffers_to_ignore(self: Any) -> list[str]:
        """Names that DistributedDataParallel is not to wait for: of parameters that no gradient reaches."""
        trained = {id(parameter) for parameter in self.trainable_parameters()}
        untrained = [name for name, parameter in self.named_parameters(remove_duplicate=False) if id(parameter) not in trained]
        return [*untrained, *self.__dict__.get("_ignored_by_ddp", ())]

    @_ddp_params_and_buffers_to_ignore.setter
    def _ddp_params_and_buffers_to_ignore(self: Any, names: Iterable[str]) -> None:
        self.__dict__["_ignored_by_ddp"] = tuple(names)

    def train(self: Any, mode: bool = True) -> Any:
        """As ``nn.Module.train``; children that train at none of their places stay in ``eval``."""
        super().train(mode)  # type: ignore[misc]
        if mode:
            trained = {id(child) for child in self._trained_children()}
            for child in self.nodes.values():
                if id(child) not in trained:
                    child.eval()
        return self

    def _trained_children(self: Any) -> list[Any]:
        return list({id(child): child for node_id, child in self.nodes.items() if self._node_specs[node_id].trainable}.values())
