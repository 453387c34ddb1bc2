"""What core asks of LoRA adapters, answered; installed by ``wgtorch.catalogue``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import Tensor, nn

from wgtorch.core.adapter_hook import Adapter, AdapterHook
from wgtorch.core.errors import Finding, StructureError
from wgtorch.lora import peft_files, peft_model
from wgtorch.lora.context import adapters_on, canonical, keeping, missing_here, worn_as, worn_at


class LoraHook(AdapterHook):
    """Adapters that PEFT put into blocks, switched by place."""

    def names(self, block: nn.Module) -> Collection[str]:
        return adapters_on(block).keys()

    def resolve(self, adapter: Any, child: Any, where: str, *, check: bool = True) -> Adapter | None:
        if (plain := canonical(adapter, where)) is None:
            return None
        if check and (wrong := missing_here(child, plain)) is not None:
            raise StructureError(f"{where}: {wrong}")
        peft_model.adopt_below(child)
        return plain

    def missing(self, adapter: Adapter, child: Any) -> str | None:
        return missing_here(child, adapter)

    def context(self, adapter: Adapter | None, child: Any, where: str, item: int | None = None) -> worn_as | None:
        return worn_at(adapter, child, where, item)

    def preserve(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return keeping(function)

    def base_state(self, block: nn.Module) -> dict[str, Any]:
        return peft_model.base_state(block)

    def stored(self, block: nn.Module) -> Mapping[str, tuple[str, dict[str, Tensor]]]:
        return peft_files.adapters_of(block)

    def attach(self, block: nn.Module, name: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> None:
        peft_files.attach(block, name, config, tensors, where)

    def misfits(self, block: nn.Module, stored: Mapping[str, Mapping[str, Tensor]], path: str) -> list[Finding]:
        return peft_files.adapter_findings(block, stored, path)

    def copy_into(self, block: nn.Module, name: str, tensors: Mapping[str, Tensor]) -> None:
        peft_files.give(block, name, tensors)

    def differs(self, block: nn.Module, name: str, tensors: Mapping[str, Tensor]) -> bool:
        return name in adapters_on(block) and peft_files.differs(block, name, tensors)
