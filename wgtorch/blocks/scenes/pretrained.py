"""The weights that ship with the package."""

from __future__ import annotations

import json

import torch

from wgtorch.blocks.scenes.backbone import SceneBackbone
from wgtorch.blocks.scenes.describer import SceneDescriber
from wgtorch.blocks.scenes.text import SceneTextEncoder
from wgtorch.core.block import Block
from wgtorch.core.checkpoint.refs import PACKAGED, read_file, read_ref

WEIGHTS = PACKAGED
_MODELS: dict[str, type[Block]] = {"text": SceneTextEncoder, "describer": SceneDescriber, "painter": SceneBackbone}


def load_pretrained(name: str) -> Block:
    """The default model `name` (text, describer or painter) with its weights, in float32 and in evaluation mode.

    Raises:
        KeyError: there is no such model.
        FileNotFoundError: its weights are not in the package; scripts/train.py and scripts/ship_default.py make them.
    """
    if name not in _MODELS:
        raise KeyError(f"load_pretrained: no default model {name!r}; there are {', '.join(_MODELS)}")
    path = WEIGHTS / f"scene_{name}.safetensors"
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing; make it with: python scripts/train.py experiment=default_{name}, then scripts/ship_default.py"
        )
    model = _MODELS[name].from_config(json.loads(read_file(path)[0].metadata["config"]))
    tensors, _ = read_ref(f"wgtorch:{path.stem}")
    model.load_state_dict({key: tensor.to(torch.float32) for key, tensor in tensors.items()})
    return model.eval()
