"""Tensors of an adapter file, sorted by layer and by what they are there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

_KINDS = (
    (r"\.lora_(?P<half>[AB])(\.default(_\d+)?)?\.(?P<of>weight|bias)", "lora_{half}.{of}"),
    (r"\.lora_embedding_(?P<half>[AB])(\.default(_\d+)?)?", "lora_embedding_{half}"),
    (r"\.lora_magnitude_vector(\.default(_\d+)?)?(\.weight)?", "magnitude"),
    (r"\.dora_scale", "dora_scale"),
    (r"\.alpha", "alpha"),
    (r"\.lora_mid\.weight", "mid"),
    (r"\.(?P<kind>(hada|lokr)_[a-z0-9_]+)", "{kind}"),
    (r"\.(?P<kind>diff(_b)?)", "{kind}"),
    (r"(?P<tail>\.|_)lora(_linear_layer)?[._](?P<half>up|down)(\.(?P<of>weight|bias))?", "lora_{half}.{of}"),
)  # fmt: skip
_PATTERNS = tuple((re.compile(f"(?P<layer>.+?){pattern}"), kind) for pattern, kind in _KINDS)
_HALVES = {"down": "A", "up": "B"}


@dataclass
class LayerTensors:
    """What a file has for its layers.

    Attributes:
        layers: for each layer, as the file spells it, tensors by kind: ``lora_A.weight``, ``lora_B.weight``, ``mid``, ``alpha``,
            ``magnitude`` and ``dora_scale`` (of DoRA), ``hada_w1_a``, ``lokr_w1``, ``diff``, ``diff_b``, ...
        unknown: names of tensors that are nothing of this.
    """

    layers: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


def layer_tensors(tensors: Mapping[str, Tensor]) -> LayerTensors:
    """Sorts the tensors of a file; nothing is left out."""
    found = LayerTensors()
    for name, value in tensors.items():
        for pattern, kind in _PATTERNS:
            matched = pattern.fullmatch(_settled(name))
            if matched is not None:
                words = {key: _HALVES.get(word, word) for key, word in matched.groupdict(default="weight").items()}
                found.layers.setdefault(matched["layer"], {})[kind.format(**words)] = value
                break
        else:
            found.unknown.append(name)
    return found


def _settled(name: str) -> str:
    """Spellings of diffusers' first attention processors, as the layers are called today."""
    name = re.sub(r"\.self_attn\.to_(q|k|v|out)_lora\.", r".self_attn.\1_proj.lora.", name)
    name = re.sub(r"\.processor\.(to_[qkv])_lora\.", r".\1.lora.", name)
    return re.sub(r"\.processor\.to_out_lora\.", ".to_out.0.lora.", name)
