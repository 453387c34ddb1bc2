"""Answers to what core asks of adapters; ``wgtorch.catalogue`` installs them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn

from wgtorch.core.adapter_hook import AdapterHook, AdapterHooks
from wgtorch.core.errors import Finding, StructureError
from wgtorch.lora import active_adapters, adapted_module, peft_format
from wgtorch.lora.injection import convert_layers
from wgtorch.lora.selection import Canonical, canonical


class LoraHook(AdapterHook):
    """Adapters that PEFT put into blocks, active where a place says so."""

    def names(self, block: nn.Module) -> Collection[str]:
        return adapted_module.adapters_on(block).keys()

    def resolve(self, adapter: Any, child: Any, where: str, *, check: bool = True) -> Canonical:
        chosen = canonical(adapter, where)
        if check and (wrong := active_adapters.missing(child, chosen)) is not None:
            raise StructureError(f"{where}: {wrong}")
        if chosen is not None:
            convert_layers(child)
        return chosen

    def missing(self, adapter: Any, child: Any) -> str | None:
        return active_adapters.missing(child, adapter)

    def context(self, adapter: Any, child: Any, where: str, item: int | None = None) -> AbstractContextManager[None] | None:
        return active_adapters.context_at(adapter, child, where, item)

    def active(self) -> Any:
        return active_adapters.current.active, active_adapters.current.outer

    def selection(self, adapter: Any, child: Any) -> AbstractContextManager[None] | None:
        return active_adapters.selection_at(adapter)

    def inactive(self, adapter: Any, block: nn.Module) -> Collection[int]:
        active = active_adapters.active_names(adapter, block)
        idle = [name for name in adapted_module.adapters_on(block) if name not in active]
        return {id(parameter) for name in idle for parameter in adapted_module.tensors_of(block, name).values()}

    def preserve(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return active_adapters.preserve_adapter_context(function)

    def base_state(self, block: nn.Module) -> dict[str, Any]:
        return adapted_module.base_state(block)

    def stored(self, block: nn.Module) -> Mapping[str, tuple[str, dict[str, Tensor]]]:
        return peft_format.stored_adapters_of(block)

    def attach(self, block: nn.Module, name: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> None:
        peft_format.attach(block, name, config, tensors, where)

    def misfits(self, block: nn.Module, stored: Mapping[str, Mapping[str, Tensor]], path: str) -> list[Finding]:
        return peft_format.findings(block, stored, path)

    def copy_into(self, block: nn.Module, name: str, tensors: Mapping[str, Tensor]) -> None:
        adapted_module.set_tensors(block, name, peft_format.own_names(tensors))

    def differs(self, block: nn.Module, name: str, tensors: Mapping[str, Tensor]) -> bool:
        return peft_format.differs(block, name, tensors)


AdapterHooks.register("default", LoraHook)
