"""LoRA files of other libraries, read into one form: for each model in a file, a config and tensors under PEFT's names."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from wgtorch.core.checkpoint.manifest import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from wgtorch.core.checkpoint.refs import read_file
from wgtorch.core.config.resolve import read_config
from wgtorch.core.errors import CheckpointError, require
from wgtorch.lora.peft_format import PREFIX, own_names

DIFFUSERS_WEIGHTS = "pytorch_lora_weights.safetensors"
_METADATA = "lora_adapter_metadata"
_MODELS = re.compile(r"(unet|transformer|transformer_2|text_encoder|text_encoder_2|text_encoder_3|vae|controlnet)\.")
_LAYER = re.compile(r"\.(lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)(\.|$)")


@dataclass(frozen=True, slots=True)
class Stored:
    """An adapter of one model as a file holds it.

    Args:
        source: the file or folder, for messages.
        model: what the file calls the model, or the path of its block; empty when it names none.
        config: of ``peft.LoraConfig``, as plain data.
        tensors: by the model's own layer names (``down_blocks.0.to_q.lora_A.weight``).
    """

    source: str
    model: str
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def layers(self) -> set[str]:
        """Paths of the layers that it adapts."""
        return {_LAYER.split(key, maxsplit=1)[0] for key in self.tensors}


def read_adapters(path: Path) -> list[Stored]:
    """What a folder of PEFT, a folder of such folders, or a file or folder of diffusers holds.

    Raises:
        CheckpointError: it is none of them, or damaged.
    """
    if (path / ADAPTER_CONFIG).is_file():
        return [_from_peft(path, "")]
    below = sorted(entry.parent for entry in path.glob(f"*/{ADAPTER_CONFIG}")) if path.is_dir() else []
    if below:
        return [_from_peft(folder, folder.name) for folder in below]
    file = path
    if path.is_dir():
        found = sorted(path.glob("*.safetensors"))
        file = path / DIFFUSERS_WEIGHTS if path / DIFFUSERS_WEIGHTS in found else found[0] if len(found) == 1 else path
    if not file.is_file() or file.suffix != ".safetensors":
        raise CheckpointError(
            f"{path}: no adapter; expected a folder with {ADAPTER_CONFIG} (PEFT), with {DIFFUSERS_WEIGHTS} (diffusers), of such folders, "
            "a .safetensors file, or a checkpoint"
            + ("; pickles are never read, convert it" if file.suffix in (".bin", ".pt", ".pth") else "")
        )
    return list(_from_diffusers(file))


def _from_peft(folder: Path, model: str) -> Stored:
    config = read_config(folder / ADAPTER_CONFIG)
    _, tensors = read_file(folder / ADAPTER_WEIGHTS)
    return Stored(str(folder), model, config, own_names(tensors))


def _from_diffusers(file: Path) -> Iterator[Stored]:
    header, tensors = read_file(file)
    tensors, alphas = _translated(file, tensors)
    metadata = _metadata(header.metadata.get(_METADATA), file)
    models: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        named = _MODELS.match(key)
        model = named.group(1) if named else ""
        models.setdefault(model, {})[key[named.end() :] if named else key.removeprefix(PREFIX)] = value
    for model, state in models.items():
        prefix = f"{model}." if model else ""
        own = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
        own_alphas = {key.removeprefix(prefix): float(value) for key, value in alphas.items() if key.startswith(prefix)}
        yield Stored(str(file), model, own if "r" in own else _config_of(state, own_alphas), state)


def _metadata(text: str | None, file: Path) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: its {_METADATA} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{file}: its {_METADATA} is a {type(found).__name__}; expected a mapping")
    return found


def _config_of(state: Mapping[str, Tensor], alphas: Mapping[str, float]) -> dict[str, Any]:
    """What the shapes tell: the rank of each layer; alpha is the rank where nothing says otherwise.

    Which words name these layers and no others, a block knows: ``target_modules`` is left to it.
    """
    ranks, alpha_of = {}, {}
    for key, value in state.items():
        if key.endswith((".lora_A.weight", ".lora_embedding_A")):
            layer = _LAYER.split(key, maxsplit=1)[0]
            ranks[layer] = value.shape[0]
            alpha_of[layer] = next((alphas[name] for name in alphas if name.removesuffix(".alpha") == layer), float(value.shape[0]))
    if not ranks:
        raise CheckpointError(f"no LoRA tensors among {sorted(state)[:5]}; expected names such as 'to_q.lora_A.weight'")
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alpha_of))
    return {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {f"^{re.escape(layer)}": value for layer, value in ranks.items() if value != rank},
        "alpha_pattern": {f"^{re.escape(layer)}": value for layer, value in alpha_of.items() if value != alpha},
    }


def _translated(file: Path, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Tensors under PEFT's names, and alpha by layer where the file has it; kohya's names as diffusers itself translates them."""
    alphas: Mapping[str, Any] | None = None
    state = {_renamed(key): value for key, value in tensors.items()}
    if not any(_LAYER.search(key) for key in state):
        loaders: Any = require("diffusers.loaders", "diffusers")
        try:
            state, alphas = loaders.StableDiffusionLoraLoaderMixin.lora_state_dict(dict(tensors))
        except (ValueError, KeyError) as error:
            raise CheckpointError(f"{file}: names such as {sorted(tensors)[:3]} are no LoRA that is known here: {error}") from error
        state = {_renamed(key): value for key, value in state.items()}
    own = {key: value for key, value in state.items() if key.endswith(".alpha")}
    named = {_alpha_of(key): value for key, value in (own if alphas is None else alphas).items()}
    return {key: value for key, value in state.items() if key not in own}, named


def _alpha_of(key: str) -> str:
    """``to_q.alpha`` for a layer's alpha, which diffusers calls ``to_q_lora.down.weight.alpha`` where it took it over from kohya."""
    return f"{_LAYER.split(_renamed(key.removesuffix('.alpha')), maxsplit=1)[0]}.alpha"


def _renamed(key: str) -> str:
    """``to_q.lora.down.weight``, ``to_q.lora_linear_layer.down.weight``, ``processor.to_q_lora.down.weight`` and, of text encoders,
    ``self_attn.to_q_lora.down.weight`` as PEFT writes them."""
    key = re.sub(r"\.self_attn\.to_(q|k|v|out)_lora\.", r".self_attn.\1_proj.lora.", key)
    key = re.sub(r"\.processor\.(to_[qkv]|to_out)_lora\.", lambda found: f".{found[1]}{'.0' if found[1] == 'to_out' else ''}.lora.", key)
    return re.sub(r"\.lora(_linear_layer)?\.(down|up)\.", lambda found: f".lora_{'A' if found[2] == 'down' else 'B'}.", key)
