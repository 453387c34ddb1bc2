"""Adapters of blocks as PEFT's files hold them, apart from their base, so that PEFT reads them and one base serves many.

Each adapter is a config (``adapter_config.json``) and tensors under the names that PEFT itself would save. Where a block stands
for a model of another library (``ref_module``), names are the model's, so that PEFT finds them there.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from wgtorch.core.errors import CheckpointError, Finding, StructureError, require
from wgtorch.lora.adapted_module import adapters_on, merged_into, misfits, set_tensors, tensors_of
from wgtorch.lora.injection import check_config, eject, inject, is_converted

PREFIX = "base_model.model."
"""What PEFT puts before every name in its files."""
_SET_LISTS = ("target_modules", "exclude_modules")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return type(value) is int


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _each(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: fits(value) or (isinstance(value, list) and all(map(fits, value)))


def _is_expression(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(re.compile(value))
    except (re.error, RecursionError, OverflowError):
        return False


def _are_words(value: Any) -> bool:
    return _is_expression(value) or (isinstance(value, list) and all(map(_is_text, value)))


def _by_layer(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, Mapping) and all(map(_is_expression, value)) and all(map(fits, value.values()))


_TEXT, _FLAG, _WORDS = (
    ("text", _is_text),
    ("true or false", lambda value: type(value) is bool),
    ("words, or an expression", _are_words),
)
_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "r": ("a whole number from 1", lambda value: _is_whole(value) and value > 0),
    "lora_alpha": ("a number", _is_number),
    "lora_dropout": ("a number", _is_number),
    "rank_pattern": ("whole numbers by layer", _by_layer(_is_whole)),
    "alpha_pattern": ("numbers by layer", _by_layer(_is_number)),
    "layers_to_transform": ("whole numbers", _each(_is_whole)),
    "init_lora_weights": ("true, false or a word", lambda value: isinstance(value, (bool, str))),
    "layers_pattern": ("expressions", _each(_is_expression)),
    **dict.fromkeys(("target_modules", "exclude_modules"), _WORDS),
    **dict.fromkeys(("fan_in_fan_out", "use_rslora", "use_dora", "lora_bias"), _FLAG),
    **dict.fromkeys(("bias", "task_type", "base_model_name_or_path", "revision"), _TEXT),
    "modules_to_save": ("words", lambda value: isinstance(value, list) and all(map(_is_text, value))),
}
"""Fields of ``adapter_config.json`` that are read, with what they may hold, in words and as a test."""
_OF_BOTH = (
    "layers_to_transform", "layers_pattern", "target_modules", "exclude_modules", "fan_in_fan_out", "bias", "task_type",
    "base_model_name_or_path", "revision", "modules_to_save",
)  # fmt: skip
_OFT_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **{name: _FIELDS[name] for name in _OF_BOTH},
    **dict.fromkeys(
        ("r", "oft_block_size", "num_cayley_neumann_terms"), ("a whole number from 0", lambda value: _is_whole(value) and value >= 0)
    ),
    **dict.fromkeys(("eps", "module_dropout"), ("a number", _is_number)),
    **dict.fromkeys(("coft", "block_share", "use_cayley_neumann", "init_weights"), _FLAG),
}
_METHODS = {"LORA": ("LoraConfig", _FIELDS), "OFT": ("OFTConfig", _OFT_FIELDS)}
_UNUSED = frozenset(("peft_type", "peft_version", "auto_mapping", "inference_mode", "megatron_core", "qalora_group_size", "runtime_config"))
"""Fields that PEFT writes into every file, or that say nothing of the adapter itself. Nothing is done with them."""
_NEEDED = ("r", "lora_alpha")
"""Fields that are numbers wherever they are written; left out of a file, they are PEFT's own."""
_EMPTY: tuple[Any, ...] = (None, False, [], {}, "")


def stored_adapters_of(block: nn.Module) -> dict[str, tuple[str, dict[str, Tensor]]]:
    """For each adapter inside a block by name: its config as JSON, and its tensors under PEFT's names.

    Raises:
        CheckpointError: PEFT put one in and nothing says where it is active, which loading could not bring back.
    """
    configs = adapters_on(block)
    if configs and not is_converted(block):
        raise CheckpointError(
            f"{block.block_id}: has adapters {list(configs)} that PEFT put in itself, active at every "
            "place; call wgtorch.lora.from_peft(target), then places say which they use, and save that"
        )
    return {name: stored_adapter(block, name) for name in configs}


def stored_adapter(block: nn.Module, name: str) -> tuple[str, dict[str, Tensor]]:
    """One adapter as its two files hold it: the config's text, and tensors under PEFT's names."""
    config = {key: _plain(value) for key, value in adapters_on(block)[name].to_dict().items()}
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    return text, {f"{PREFIX}{key}": value.detach() for key, value in tensors_of(block, name).items()}


def own_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file's tensors under the names that the model has, without PEFT's prefix."""
    return {key.removeprefix(PREFIX): value for key, value in tensors.items()}


def attach(block: nn.Module, name: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> None:
    """Puts a stored adapter into a block that has its base weights; the block is as before when that fails.

    Raises:
        CheckpointError: the config is foreign, or a tensor matched nothing of the block.
    """
    made = config_from(config, f"{where}: adapter {name!r}")
    rank = max([made.r, *made.rank_pattern.values()]) if hasattr(made, "rank_pattern") else 0
    widest = max((max(value.shape, default=0) for value in tensors.values()), default=0)
    if rank > widest:  # before memory is taken for it
        raise CheckpointError(f"{where}: adapter {name!r} has rank {rank}, and none of its tensors is so wide (the widest has {widest})")
    try:
        inject(block, name, made)
    except StructureError as error:
        raise CheckpointError(f"{where}: adapter {name!r} cannot be attached: {error}") from error
    state = own_names(tensors)
    if wrong := misfits(block, name, state):
        eject(block, name)
        raise CheckpointError(f"{where}: adapter {name!r} does not fit {type(block).__name__}: {'; '.join(wrong[:20])}")
    set_tensors(block, name, state)


def config_from(config: Mapping[str, Any], where: str) -> Any:
    """PEFT's config from what ``adapter_config.json`` holds. Only fields that are known here are handed on to PEFT.

    Raises:
        CheckpointError: it is none, a field has a value of another type, or one that is not known here is not empty.
    """
    peft: Any = require("peft", "train")
    kind = str(config.get("peft_type") or "LORA").removeprefix("PeftType.")
    if kind not in _METHODS:
        raise CheckpointError(
            f"{where}: peft_type is {kind[:80]!r}; expected 'LORA', 'OFT', 'LOHA' or 'LOKR'. Merge it into its base with PEFT "
            "(merge_and_unload), and load that"
        )
    called, fields = _METHODS[kind]
    wrong = []
    for name, value in config.items():
        if name in fields:
            words, fits = fields[name]
            is_open = value is None and name not in _NEEDED
            wrong += [] if is_open or fits(value) else [f"{name} is {str(value)[:80]!r}; expected {words}"]
        elif name not in _UNUSED and value not in _EMPTY:
            wrong.append(f"unknown {name[:80]!r}: {str(value)[:80]}; expected fields of peft.{called} that leave the base as it is")
    if wrong:
        raise CheckpointError(f"{where}: its config cannot be used: {'; '.join(wrong[:20])}")
    known = {name: value for name, value in config.items() if name in fields and value is not None}
    try:
        made = getattr(peft, called)(
            **{name: set(value) if name in _SET_LISTS and isinstance(value, list) else value for name, value in known.items()}
        )
        check_config(made, where)
    except (TypeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{where}: its config cannot be used: {error}") from error
    return made


def check_sizes(config: Mapping[str, Any], where: str) -> None:
    """Refuses ranks and alphas of a file's metadata that are none.

    Raises:
        CheckpointError: names each.
    """
    checked = {
        "r": "r",
        "lora_alpha": "lora_alpha",
        "alpha": "lora_alpha",
        "rank_pattern": "rank_pattern",
        "alpha_pattern": "alpha_pattern",
    }
    wrong = [
        f"{name} is {str(config[name])[:80]!r}; expected {_FIELDS[field][0]}"
        for name, field in checked.items()
        if name in config and not (config[name] is None and field not in _NEEDED) and not _FIELDS[field][1](config[name])
    ]
    if wrong:
        raise CheckpointError(f"{where}: {'; '.join(wrong)}")


def findings(block: nn.Module, stored: Mapping[str, Mapping[str, Tensor]], path: str) -> list[Finding]:
    """What of stored adapters, tensors by name, does not fit those that a block has.

    Raises:
        CheckpointError: an adapter is merged into the base, whose weights cannot be changed then.
    """
    if merged_into(block) is not None:
        raise CheckpointError(f"{path}: an adapter is merged into it; unmerge it first (wgtorch.lora.unmerge)")
    has = adapters_on(block)
    found = [Finding(f"{path}: adapter {name!r}", "missing from the checkpoint") for name in has if name not in stored]
    for name, tensors in stored.items():
        where = f"{path}: adapter {name!r}"
        if name not in has:
            found.append(Finding(where, "the block has none of that name", mend="Attach it with wgtorch.lora.load."))
        elif wrong := misfits(block, name, own_names(tensors)):
            found.append(Finding(where, "; ".join(wrong[:20])))
    return found


def differs(block: nn.Module, name: str, tensors: Mapping[str, Tensor]) -> bool:
    """True when a block has an adapter of that name that is not bit for bit the stored one."""
    if name not in adapters_on(block):
        return False
    own, stored = tensors_of(block, name), own_names(tensors)
    return own.keys() != stored.keys() or any(
        value.shape != stored[key].shape or not bool((value.detach() == stored[key].to(value.device)).all()) for key, value in own.items()
    )


def _plain(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.value if hasattr(value, "value") else value
