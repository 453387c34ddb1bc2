"""What all blocks of models share: where the model runs is a line in the config, the ports stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from wgtorch.core.block import Block
from wgtorch.core.errors import PortError
from wgtorch.core.run.rng import Rng
from wgtorch.integrations.models.backends import build_backend


class ModelBlock(Block):
    """A block around a model that is here or behind an API.

    The model itself, where it is here, is the submodule ``model``; what is asked of it goes through ``backend``.

    Args:
        backend: ``api`` or ``local``.
        provider: of an API: ``openai``, or another registered one.
        model_id: the model's name there.
        endpoint_url: where the API is, if not at the provider's own address.
        checkpoint_ref: folder of a local model.
        source: what else the backend takes.
    """

    kind: ClassVar[str] = ""
    default_backend: ClassVar[str] = "api"
    default_provider: ClassVar[str | None] = None
    ref_module = "model"
    uses_global_rng = False
    model: Any

    def _take(self, backend: str | None, provider: str | None, **source: Any) -> None:
        """Builds the backend and takes over what it says of itself."""
        self.backend = build_backend(self.kind, backend or self.default_backend, {"provider": provider or self.default_provider, **source})
        self.model = self.backend.model
        self.is_async = self.backend.is_async


def rows_of(value: Any) -> tuple[list[Any], bool]:
    """The items of a list, or the one value, and whether it was a list."""
    return (list(value), True) if isinstance(value, (list, tuple)) else ([value], False)


def per_row(value: Any, count: int, where: str) -> list[Any]:
    """One value for each of ``count`` rows: those of a list, or the same for all.

    Raises:
        PortError: a list of another length.
    """
    if not isinstance(value, (list, tuple)):
        return [value] * count
    if len(value) != count:
        raise PortError(f"{where}: found {len(value)} values, expected {count}, one for each row, or a single one")
    return list(value)


def unlisted(values: Sequence[Any], listed: bool) -> Any:
    """A list of rows as it is given back: a list where one came in, else the single row."""
    return list(values) if listed else values[0]


def seed_of(rng: Rng | None, index: int) -> int | None:
    """The seed of a row in a run that has one, else None."""
    return rng.seed(index) if rng is not None and rng.keyed else None
