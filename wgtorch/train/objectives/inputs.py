"""What a target is given of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wgtorch.core.block import Block
from wgtorch.core.errors import ConfigError, suggest
from wgtorch.train.objective import Batch


def inputs_of(target: Block, batch: Batch, renamed: Mapping[str, str], what: str) -> dict[str, Any]:
    """The target's inputs: from the batch by name, or by the key that ``renamed`` gives for an input (or port by path).

    Raises:
        ConfigError: the batch has nothing for an input that is needed.
    """
    values = {}
    for name, key in renamed.items():
        if key not in batch:
            raise ConfigError(f"{what}.inputs: {name} <- {key!r}, but the data gives {sorted(batch)}; {suggest(key, batch)}")
        values[name] = batch[key]
    for name, port in target.get_input_spec().items():
        if name in batch:
            values.setdefault(name, batch[name])
        elif not port.optional and name not in values and not any("." in key for key in renamed):
            raise ConfigError(
                f"{what}: {target.block_id} needs {name!r}; the data gives {sorted(batch)}; {suggest(name, batch)}. "
                f"Name its key under objective.inputs, as {{{name}: key}}"
            )
    return values
