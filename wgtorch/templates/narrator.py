"""The language model of a default world: one in memory, in two roles, with an adapter of its own in each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wgtorch.core.block import Block, BlockRegistry
from wgtorch.core.checkpoint.refs import PACKAGED
from wgtorch.core.errors import ConfigError, suggest
from wgtorch.graph import Graph

NARRATOR, READER = "narrator", "action_reader"
"""The roles, and the names of their adapters."""
NARRATORS = {"smollm2": {NARRATOR: "narrator_smollm2", READER: "action_reader_smollm2"}}
"""Models by name, with the folders of their adapters in the package, by role."""


def narrator_model(narrator: str | Mapping[str, Any]) -> Block:
    """The language model of a world, with the adapters that the package has for it.

    Args:
        narrator: a name of :data:`NARRATORS`; or the config of any language model, as ``{"provider": "openai", "model_id": ...}`` or
            ``{"backend": "local", "checkpoint_ref": ...}``, with ``adapters`` for folders of one's own:
            ``{"narrator": path, "action_reader": path}``.

    Raises:
        ConfigError: an unknown name, or no config of a model.
        CheckpointError: the model is not installed, or an adapter does not fit it.
    """
    if isinstance(narrator, str):
        if narrator not in NARRATORS:
            raise ConfigError(f"narrator: found {narrator!r}; {suggest(narrator, NARRATORS)}, or expected the config of a language model")
        given: dict[str, Any] = {"backend": "local", "checkpoint_ref": narrator, "dtype": _dtype(), "pack": True}
        folders: Mapping[str, Any] = {role: PACKAGED / name for role, name in NARRATORS[narrator].items()}
    elif isinstance(narrator, Mapping):
        given = dict(narrator)
        folders = given.pop("adapters", {})
    else:
        raise ConfigError(f"narrator: found {narrator!r}; expected a name of {sorted(NARRATORS)}, or the config of a language model")
    if not isinstance(folders, Mapping) or set(folders) - {NARRATOR, READER}:
        raise ConfigError(f"narrator.adapters: found {folders!r}; expected folders by the names {NARRATOR!r} and {READER!r}")
    model = BlockRegistry.build(given if "block_type" in given else {"block_type": "llm", "config": given})
    if folders:
        from wgtorch.lora import adapters, load

        for name, folder in folders.items():
            load(model, folder, name, wear=False, replace=name in adapters(model))
    return model


def takes(model: Block, role: str) -> bool:
    """True for a model with an adapter of the role, and for one that has none for any."""
    if model.is_async:
        return True
    from wgtorch.lora import adapters

    return role in (known := adapters(model)) or not known


def add_model(graph: Graph, model: Block, role: str, node_id: str, **inputs: Any) -> None:
    """Puts the model into a graph, with the adapter of a role where it has one, and what its config leaves open."""
    own = {name: value for name, value in inputs.items() if name in model.get_input_spec() and model.config.get(name) is None}
    graph.add_node(model, node_id, auto_connect=False, inputs=own)
    if not model.is_async:
        from wgtorch.lora import adapters

        if role in adapters(model):
            graph.set_adapter(node_id, role)


def _dtype() -> str:
    """bfloat16 where the processor multiplies it, else float32."""
    import torch

    return "bfloat16" if torch.cuda.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"
