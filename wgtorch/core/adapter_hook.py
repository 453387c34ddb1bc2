"""What core asks of adapters: small trained changes of a block's layers, such as LoRA, that a place switches on around a call.

Core knows no implementation. :data:`hook` is asked at every border where adapters matter; without an implementation there are none.
``wgtorch.catalogue`` names that of ``wgtorch.lora``, which makes its layers with PEFT.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn

from wgtorch.core.errors import Finding, StructureError
from wgtorch.core.registry import Registry

Adapter = str | Mapping[str, float] | Sequence[str | None]
"""What a place can say: an adapter's name, several names with weights, or one name (or None) for each sample of the batch."""


class AdapterHook:
    """The implementation for blocks that have no adapters; one that knows of some overrides every method."""

    # --- places -------------------------------------------------------------------------------------------------------

    def names(self, block: nn.Module) -> Collection[str]:
        """Names of the adapters inside a block. Calls at places of a block that has some go through :meth:`context`."""
        return ()

    def resolve(self, adapter: Any, child: Any, where: str, *, check: bool = True) -> Adapter | None:
        """What a place says of its child's adapters, in the form that configs hold.

        Args:
            adapter: as the user wrote it.
            child: the block or level at the place.
            where: path of the place, for messages.
            check: False where the child gets its adapters later (it is being loaded).

        Raises:
            StructureError: it cannot be read, or the child has no such adapter.
        """
        if adapter is not None:
            raise StructureError(f"{where}: adapter is {adapter!r}, and no implementation of adapters is installed")
        return None

    def missing(self, adapter: Adapter, child: Any) -> str | None:
        """What is wrong, in words, with an adapter at a place of this child; None when the child has all that is named."""
        return None

    # --- calls --------------------------------------------------------------------------------------------------------

    def context(self, adapter: Adapter | None, child: Any, where: str, item: int | None = None) -> AbstractContextManager[None] | None:
        """What surrounds one call of a child at a place; None where no adapter matters.

        Args:
            adapter: what the place says. What a level's place says holds for all blocks below that have the adapter.
            child: the block or level that is called.
            where: path of the place, for messages.
            item: index in a mapped list; of names for each sample it takes its own.

        Raises:
            StructureError: the child does not have the adapter.
        """
        return None

    def active(self) -> Any:
        """What levels around the call that goes on, and users around the run, have selected; compared by its ``repr``."""
        return ()

    def selection(self, adapter: Adapter | None, child: Any) -> AbstractContextManager[None] | None:
        """As :meth:`context` for a child that is a level, for asking about what is below it: nothing is called and nothing checked."""
        return None

    def inactive(self, adapter: Adapter | None, block: nn.Module) -> Collection[int]:
        """``id`` of the parameters of a block's adapters that are not active at a place that says this: no gradient gets to them there."""
        return ()

    def preserve(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function as it would run here, under the adapters of this context, in whatever thread and whenever it is called."""
        return function

    # --- files --------------------------------------------------------------------------------------------------------

    def base_state(self, block: nn.Module) -> dict[str, Any]:
        """``state_dict`` under the names and with the values that it has without adapters; the tensors themselves, not copies."""
        return block.state_dict(keep_vars=True)

    def stored(self, block: nn.Module) -> Mapping[str, tuple[str, dict[str, Tensor]]]:
        """What files hold of each adapter, by name: (config as JSON text, tensors)."""
        return {}

    def attach(self, block: nn.Module, name: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> None:
        """Puts a stored adapter into a block that has its base weights; the block is as before when that fails.

        Raises:
            CheckpointError: the config is foreign, or a tensor fits nothing of the block.
        """
        raise StructureError(f"{where}: holds adapter {name!r}, and no implementation of adapters is installed")

    def misfits(self, block: nn.Module, stored: Mapping[str, Mapping[str, Tensor]], path: str) -> list[Finding]:
        """What of stored adapters, tensors by name, does not fit those that a block has.

        Raises:
            CheckpointError: an adapter is merged into the base, whose weights cannot be changed then.
        """
        return [Finding(f"{path}: adapter {name!r}", "the block has none of that name") for name in stored]

    def copy_into(self, block: nn.Module, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Copies an adapter's stored tensors, known to fit, into the block's own."""

    def differs(self, block: nn.Module, name: str, tensors: Mapping[str, Tensor]) -> bool:
        """True when a block has an adapter of that name that is not bit for bit the stored one."""
        return False


AdapterHooks: Registry[type[AdapterHook]] = Registry("implementation of adapters", group="wgtorch.adapter_hooks")
"""Implementations by name; ``default`` is the one that core asks."""

hook: AdapterHook
"""The implementation that core asks, made when it is first needed."""


def __getattr__(name: str) -> AdapterHook:
    if name != "hook":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    global hook
    hook = AdapterHooks.get("default")() if "default" in AdapterHooks else AdapterHook()
    return hook
