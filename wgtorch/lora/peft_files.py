"""Adapters of blocks, apart from their base: files in PEFT's own layout, so that PEFT reads them and one base serves many.

PEFT puts its layers inside a module: ``linear.weight`` becomes ``linear.base_layer.weight`` beside ``linear.lora_A.<name>``.
A checkpoint holds the base under the names it has without them, and each adapter as PEFT itself would save it. Where a
block stands for a model of another library (``ref_module``), names are the model's, so that PEFT finds them there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from wgtorch.core.errors import CheckpointError, Finding, StructureError, require
from wgtorch.lora.context import adapters_on, is_merged
from wgtorch.lora.peft_model import base_state, check_config, detach, inject, is_adopted, misfits, set_tensors, tensors_of

PREFIX = "base_model.model."
"""What PEFT puts before every name in its files."""
_SET_LISTS = ("target_modules", "exclude_modules")


def adapters_of(block: nn.Module) -> dict[str, tuple[str, dict[str, Tensor]]]:
    """For each adapter inside a block by name: its config as JSON, and its tensors under PEFT's names.

    Raises:
        CheckpointError: PEFT put one in and nothing says where it is worn, which loading could not bring back.
    """
    configs = adapters_on(block)
    if configs and not is_adopted(block):
        raise CheckpointError(
            f"{getattr(block, 'block_id', type(block).__name__)}: has adapters {list(configs)} that PEFT put in itself, worn at every "
            "place; call wgtorch.lora.adopt(target), then places say what they wear, and save that"
        )
    return {name: (config_text(config), stored_tensors(block, name)) for name, config in configs.items()}


def config_text(config: Any) -> str:
    """A config of PEFT as the text of its ``adapter_config.json``."""
    plain = {key: _plain(value) for key, value in config.to_dict().items()}
    return json.dumps(plain, indent=2, sort_keys=True) + "\n"


def stored_tensors(block: nn.Module, name: str) -> dict[str, Tensor]:
    """An adapter's tensors under the names they have in PEFT's files."""
    return {f"{PREFIX}{key}": value.detach() for key, value in tensors_of(block, name).items()}


def base_tensors(block: nn.Module) -> dict[str, Any]:
    """``state_dict`` as it is without adapters."""
    return base_state(block)


def attach(block: nn.Module, name: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> None:
    """Puts a stored adapter into a block that has its base weights; the block is as before when that fails.

    Raises:
        CheckpointError: the config is foreign, or a tensor matched nothing of the block.
    """
    made = config_from(config, f"{where}: adapter {name!r}")
    state = {key.removeprefix(PREFIX): value for key, value in tensors.items()}
    try:
        inject(block, name, made)
    except StructureError as error:
        raise CheckpointError(f"{where}: adapter {name!r} cannot be attached: {error}") from error
    if wrong := misfits(block, name, state):
        detach(block, name)
        raise CheckpointError(f"{where}: adapter {name!r} does not fit {type(block).__name__}: {'; '.join(wrong[:20])}")
    set_tensors(block, name, state)


def config_from(config: Mapping[str, Any], where: str) -> Any:
    """PEFT's config from what ``adapter_config.json`` holds; fields that this version of PEFT does not know must be empty.

    Raises:
        CheckpointError: it is none, or its adapter would change the base.
    """
    peft: Any = require("peft", "train")
    known = {name: value for name, value in config.items() if name in peft.LoraConfig.__dataclass_fields__}
    unknown = {name: value for name, value in config.items() if name not in known and value not in (None, False, [], {}, "")}
    try:
        if str(config.get("peft_type", "LORA")).removeprefix("PeftType.") != "LORA":
            raise ValueError(f"peft_type is {config['peft_type']!r}; expected 'LORA'")
        if unknown:
            raise ValueError(f"unknown {sorted(unknown)}; expected fields of peft.LoraConfig")
        lists = {name: set(value) for name, value in known.items() if name in _SET_LISTS and isinstance(value, list)}
        runtime = {} if known.get("runtime_config") is None else {"runtime_config": None}
        made = peft.LoraConfig(**{**known, **lists, **runtime, "inference_mode": False})
        check_config(made, where)
    except (TypeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{where}: its config cannot be used: {error}") from error
    return made


def adapter_findings(block: nn.Module, stored: Mapping[str, Mapping[str, Tensor]], path: str) -> list[Finding]:
    """What of stored adapters, tensors by name, does not fit those that a block has."""
    if is_merged(block):
        raise CheckpointError(f"{path}: an adapter is merged into it; unmerge it first (wgtorch.lora.unmerge)")
    has = adapters_on(block)
    found = [Finding(f"{path}: adapter {name!r}", "missing from the checkpoint") for name in has if name not in stored]
    for name, tensors in stored.items():
        where = f"{path}: adapter {name!r}"
        if name not in has:
            found.append(Finding(where, "the block has none of that name", mend="Attach it with wgtorch.lora.load."))
        elif wrong := misfits(block, name, {key.removeprefix(PREFIX): value for key, value in tensors.items()}):
            found.append(Finding(where, "; ".join(wrong[:20])))
    return found


def give(block: nn.Module, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Copies an adapter's stored tensors, known to fit, into the block's own."""
    set_tensors(block, name, {key.removeprefix(PREFIX): value for key, value in tensors.items()})


def differs(block: nn.Module, name: str, tensors: Mapping[str, Tensor]) -> bool:
    """True when a block's adapter of that name is not bit for bit the stored one."""
    state = {key.removeprefix(PREFIX): value for key, value in tensors.items()}
    own = tensors_of(block, name)
    return own.keys() != state.keys() or any(
        value.shape != state[key].shape or not bool((value.detach() == state[key].to(value.device)).all()) for key, value in own.items()
    )


def _plain(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.value if hasattr(value, "value") else value
