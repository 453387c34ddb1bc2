"""Adapters of blocks, apart from their base: files in PEFT's own layout, so that PEFT reads them and one base serves many.

PEFT puts its layers inside a module: ``linear.weight`` becomes ``linear.base_layer.weight`` beside ``linear.lora_A.<name>``.
A checkpoint holds the base under the names it has without them, and each adapter as PEFT itself would save it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from wgtorch.core.errors import CheckpointError, require


def adapters_of(block: nn.Module) -> dict[str, tuple[str, dict[str, Tensor]]]:
    """For each adapter inside a block by name: its config as JSON, and its tensors under PEFT's names."""
    configs: Mapping[str, Any] = getattr(block, "peft_config", None) or {}
    if not configs:
        return {}
    peft: Any = require("peft", "train")
    found = {}
    for name, config in configs.items():
        state = peft.get_peft_model_state_dict(block, adapter_name=name)
        tensors = {f"base_model.model.{key}": value.detach() for key, value in state.items()}
        plain = {key: _plain(value) for key, value in config.to_dict().items()}
        found[name] = (json.dumps(plain, indent=2, sort_keys=True) + "\n", tensors)
    return found


def base_tensors(block: nn.Module) -> dict[str, Any]:
    """``state_dict`` as it is without adapters."""
    state: dict[str, Any] = block.state_dict(keep_vars=True)
    if not getattr(block, "peft_config", None):
        return state
    wrapped = [name for name, part in block.named_modules() if hasattr(part, "base_layer")]
    base = {}
    for name, value in state.items():
        inside = next((owner for owner in wrapped if name.startswith(f"{owner}.")), None)
        if inside is None:
            base[name] = value
        elif name.startswith(f"{inside}.base_layer."):
            base[f"{inside}.{name.removeprefix(f'{inside}.base_layer.')}"] = value
    return base


def attach(block: nn.Module, name: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> None:
    """Puts a stored adapter into a block that has its base weights.

    Raises:
        CheckpointError: the config is foreign, or a tensor matched nothing of the block.
    """
    peft: Any = require("peft", "train")
    try:
        made = peft.PeftConfig.from_peft_type(**config)
        peft.inject_adapter_in_model(made, block, adapter_name=name)
    except (TypeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{where}: adapter {name!r} cannot be attached: {error}") from error
    if not hasattr(block, "peft_config"):
        block.peft_config = {}  # type: ignore[assignment]
    block.peft_config[name] = made  # type: ignore[operator, index]
    state = {key.removeprefix("base_model.model."): value for key, value in tensors.items()}
    expected = {key: value.shape for key, value in peft.get_peft_model_state_dict(block, adapter_name=name).items()}
    wrong = [f"{key} matched nothing" for key in state if key not in expected] + [
        f"{key} is missing" for key in expected if key not in state
    ]
    wrong += [
        f"{key} has shape {list(state[key].shape)}, expected {list(shape)}"
        for key, shape in expected.items()
        if key in state and state[key].shape != shape
    ]
    if wrong:
        raise CheckpointError(f"{where}: adapter {name!r} does not fit {type(block).__name__}: {'; '.join(wrong[:20])}")
    peft.set_peft_model_state_dict(block, state, adapter_name=name)


def _plain(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.value if hasattr(value, "value") else value
