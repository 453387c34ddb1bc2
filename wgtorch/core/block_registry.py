"""The registry of blocks: what makes a block from its type and config, and knows it under its type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Any, TypeVar

from torch import nn

from wgtorch.core.checkpoint.assign import build_empty, is_empty
from wgtorch.core.checkpoint.refs import check_own_reading, load_checkpoint, ref_of
from wgtorch.core.config.resolve import resolve_environment
from wgtorch.core.config.schema import check_block_config
from wgtorch.core.errors import ConfigError, WgtorchError
from wgtorch.core.kinds import describe
from wgtorch.core.pool import Pool, identity, names_a_model, now_building
from wgtorch.core.registry import Registry
from wgtorch.core.signature import ensure_plain, takes_argument

B = TypeVar("B", bound="nn.Module")


class _BlockRegistry(Registry[type[Any]]):
    """Registered block classes by ``block_type``."""

    def build(self, entry: Mapping[str, Any], *, pool: Pool | None = None) -> Any:
        """Builds a block from ``{"block_type": ..., "config": {...}}``.

        Args:
            entry: may hold ``"reuse": False`` to keep it out of any pool.
            pool: where a block that names its model (``checkpoint_ref``) is looked for first; that of what is being
                built by default.

        Raises:
            UnknownNameError: no such type; the nearest names are in the message.
            ConfigError: the config does not fit the constructor.
            CheckpointError: the weights that ``checkpoint_ref`` names cannot be read or do not fit.
        """
        block_class = self.get(entry["block_type"])
        written = ensure_plain(entry.get("config") or {}, entry["block_type"])
        resolved = resolve_environment(written, entry["block_type"])
        check_block_config(block_class, resolved, f"{entry['block_type']}.config")
        now = now_building()
        build = partial(build_block, block_class, resolved, written, empty=now.empty)
        pool = pool or now.pool
        if pool is None or now.empty or not entry.get("reuse", True) or not names_a_model(resolved):
            return build()
        ref = str(resolved.get("checkpoint_ref") or resolved.get("model_id"))
        return pool.get(identity(entry["block_type"], block_class, resolved), build, ref=ref)

    def converting(self, source: str, target: str) -> list[str]:
        """Types of registered blocks with an input of kind ``source`` and an output of kind ``target``."""
        return sorted(name for name, block_class in self._entries.items() if block_class.converts(source, target))


def build_block(block_class: type[Any], config: Mapping[str, Any], written: Mapping[str, Any], *, empty: bool) -> Any:
    """Builds a block, and gives it the weights its config refers to unless the caller will (``empty``)."""
    by_itself = takes_argument(block_class, "checkpoint_ref")  # its constructor reads the ref
    ref = None if by_itself else config.get("checkpoint_ref")
    plain = config if by_itself else {name: value for name, value in config.items() if name != "checkpoint_ref"}
    try:
        block: Any = build_empty(lambda: block_class.from_config(plain)) if empty or ref is not None else block_class.from_config(plain)
    except WgtorchError:
        raise
    except ValueError as error:  # what a constructor says of a value it cannot take
        raise ConfigError(f"{block_class.block_type}: {error}") from error
    if ref is not None and not empty:
        load_checkpoint(block, ref)
    if written != plain:
        block._has_interpolations = written != config
        block._config.update(written)  # as it was written: what came from the environment stays there
    return block


def with_its_weights(init: Callable[..., None]) -> Callable[..., None]:
    """A constructor that takes ``checkpoint_ref``, after which the block holds what that names, whether it read it or not."""

    @wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        is_whole = type(self).__init__ is checked  # of a class that goes further, the last constructor looks
        if is_whole and not is_empty.get() and "_ref_dtypes" not in self.__dict__ and (ref := ref_of(self)) is not None:
            check_own_reading(self, ref)

    return checked


def _as_block_class(name: str, found: Any) -> type[Any]:
    """What an entry point of the group leads to: a class derived from Block, which is then known by the entry point's name."""
    if not (isinstance(found, type) and issubclass(found, nn.Module) and hasattr(found, "block_type")):
        raise TypeError(f"leads to {describe(found)}; expected a class derived from wgtorch.Block")
    if found.block_type not in ("", name):
        raise ValueError(f"the class is registered as {found.block_type!r}; give the entry point that name")
    found.block_type = name
    return found


BlockRegistry = _BlockRegistry(
    "block type",
    group="wgtorch.blocks",
    accept=_as_block_class,
    extras={"diffusers/": "diffusers", "llm/": "api", "vlm/": "api"},
)


def register_block(block_type: str) -> Callable[[type[B]], type[B]]:
    """Class decorator: makes a block class known to configs under ``block_type``.

    Example:
        >>> @register_block("demo/scale")
        ... class Scale(Block): ...
    """

    def decorate(block_class: type[B]) -> type[B]:
        block_class.block_type = block_type  # type: ignore[attr-defined]
        BlockRegistry.register(block_type, block_class)
        return block_class

    return decorate
