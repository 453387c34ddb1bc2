"""Adapter files read for the models at hand."""

from __future__ import annotations

import importlib
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wgtorch.core.checkpoint.manifest import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from wgtorch.core.checkpoint.refs import PICKLES, read_file
from wgtorch.core.config.resolve import read_config
from wgtorch.core.errors import CheckpointError
from wgtorch.core.json_text import read_json
from wgtorch.core.system_files import is_of_system
from wgtorch.lora.adapted_module import base_state
from wgtorch.lora.formats.foreign_layer_names import Spelling, adapter_names, is_backbone, layers_by_name, part_of, split_prefix
from wgtorch.lora.formats.layer_tensors import layer_tensors
from wgtorch.lora.formats.low_rank import LowRank, low_rank
from wgtorch.lora.peft_format import check_sizes, config_from, own_names
from wgtorch.lora.target_modules import sizes

DIFFUSERS_WEIGHTS = "pytorch_lora_weights.safetensors"
METADATA = "lora_adapter_metadata"
_LAYER = re.compile(r"\.(lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector|oft_R|oft_embedding_R)(\.|$)")
_FACTORED = ("LOHA", "LOKR")
_EMBEDDING = "lora_embedding_A"
_WIDE = ("lora_A.weight", _EMBEDDING, "hada_w1_a", "lokr_w1", "lokr_w1_a", "diff", "diff_b")


@dataclass(frozen=True, slots=True)
class Stored:
    """An adapter of one model under the names that the model has.

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
        return {key[: found.start()] for key in self.tensors if (found := _LAYER.search(key))}

    def copied(self) -> dict[str, Tensor]:
        """Tensors of modules of which it has whole copies, as the model names its own."""
        return {key: value for key, value in self.tensors.items() if not _LAYER.search(key)}

    def missing(self, model: nn.Module, adaptable: Mapping[str, nn.Module]) -> list[str]:
        """Layers, and tensors of copied modules, that a model does not have."""
        copied = self.copied()
        return sorted((self.layers() - adaptable.keys()) | (copied.keys() - base_state(model).keys() if copied else set()))

    def fits(self, model: nn.Module, adaptable: Mapping[str, nn.Module]) -> bool:
        """The layers of a model that has them all are as wide as these."""
        copied = self.copied()
        base = base_state(model) if copied else {}
        if any(base[key].shape != value.shape for key, value in copied.items()):
            return False
        for key, value in self.tensors.items():
            if key in copied or ".oft_" in key:
                continue
            path, _, kind = key.partition(".lora_")
            inwards, outwards = sizes(adaptable[path])
            if kind.startswith(("A", "embedding_A")) and value.shape[1] != inwards:
                return False
            if kind.startswith(("B", "embedding_B")) and value.shape[0] != outwards:
                return False
        return True

    def stored(self, model: nn.Module) -> Stored:
        """Itself: its names are the model's."""
        return self


@dataclass(frozen=True)
class Foreign:
    """What a file holds for one model, under the names of the file.

    Args:
        source: the file, for messages.
        prefix: with which all its names began.
        tensors: by kind, by the rest of the layer's name.
        config: of ``peft.LoraConfig`` or another of PEFT, where the file has it.
    """

    source: str
    prefix: str
    tensors: Mapping[str, Mapping[str, Tensor]]
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """The part of a pipeline that it is for; empty where the file leaves that open."""
        return part_of(self.prefix) or ("" if not self.prefix else self.prefix.rstrip("._"))

    @property
    def is_backbone(self) -> bool:
        """It is for the model that denoises."""
        return is_backbone(self.prefix)

    def layers(self) -> set[str]:
        """Names of the layers, as the file has them."""
        return {f"{self.prefix}{name}" for name in self.tensors}

    def places(self, model: nn.Module, adaptable: Mapping[str, nn.Module] | None = None) -> dict[str, Spelling]:
        """Which layers of a model each name means, where it has them."""
        known = layers_by_name(model, adapter_names(model))
        found: dict[str, Spelling] = {}
        for name in self.tensors:
            meant = known.get(name) or known.get(f"{self.prefix}{name}")
            if meant is not None and (adaptable is None or all(path in adaptable for path in meant.layers)):
                found[name] = meant
        return found

    def missing(self, model: nn.Module, adaptable: Mapping[str, nn.Module]) -> list[str]:
        """Names that a model has nothing for."""
        found = self.places(model, adaptable)
        return sorted(f"{self.prefix}{name}" for name in self.tensors if name not in found)

    def fits(self, model: nn.Module, adaptable: Mapping[str, nn.Module]) -> bool:
        """The layers of a model that has them all are as wide as these."""
        try:
            self.stored(model)
        except CheckpointError:
            return False
        return True

    def stored(self, model: nn.Module) -> Stored:
        """The adapter for a model that has all its layers.

        Raises:
            CheckpointError: tensors of a layer are incomplete or of another size than the layer; or two names mean one layer.
        """
        meant = self.places(model)
        if not any(kind in kinds for kinds in self.tensors.values() for kind in _WIDE):
            named = sorted(f"{name}.{kind}" for name, kinds in self.tensors.items() for kind in kinds)[:5]
            raise CheckpointError(f"{self.source}: no LoRA tensors among {named}; expected names such as 'to_q.lora_A.weight'")
        modules = dict(model.named_modules())
        changes: dict[str, LowRank] = {}
        tensors: dict[str, Tensor] = {}
        for name, kinds in self.tensors.items():
            if _EMBEDDING in kinds:
                tensors |= {f"{meant[name].layers[0]}.{kind}": value for kind, value in kinds.items() if kind != "alpha"}
                continue
            for path, change in self._cut(name, kinds, meant[name], modules):
                if path in changes:
                    raise CheckpointError(f"{self.source}: two names mean the layer {path}, {name!r} among them; take one out")
                changes[path] = change
        changes = _alike(changes, modules)
        for path, change in changes.items():
            tensors |= tensors_for(path, change, modules[path])
        return Stored(self.source, self.model, self._config(changes, tensors), tensors)

    def _cut(self, name: str, kinds: Mapping[str, Tensor], meant: Spelling, modules: Mapping[str, nn.Module]) -> list[tuple[str, LowRank]]:
        """What a name's tensors are for each layer that it means."""
        where = f"{self.source}: {self.prefix}{name}"
        for kind, value in kinds.items():
            if not (value.numel() == 1 if kind == "alpha" else value.is_floating_point() and value.numel()):
                told = f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
                raise CheckpointError(f"{where}.{kind}: found {told}; expected {'one number' if kind == 'alpha' else 'floats'}")
        weights = [weight_of(modules[path]) for path in meant.layers]
        alpha, rank = self._alpha(name, meant.layers[0], kinds)

        def base() -> Tensor:
            whole = torch.cat([weight.flatten(1) for weight in weights]) if len(weights) > 1 else weights[0]
            return torch.cat(list(reversed(whole.chunk(2)))) if meant.swapped else whole

        change = low_rank(kinds, base, alpha, where, rank=rank)
        if meant.swapped:
            change = change.swapped()
        rows = [_sides(modules[path], weight)[0] for path, weight in zip(meant.layers, weights, strict=True)]
        inwards = {_sides(modules[path], weight)[1] for path, weight in zip(meant.layers, weights, strict=True)}
        if change.up.shape[0] != sum(rows) or {change.down.shape[1]} != inwards:
            raise CheckpointError(
                f"{where}: changes a weight of shape [{change.up.shape[0]}, {change.down.shape[1]}]; the layer has [{sum(rows)}, "
                f"{min(inwards)}]. It was made for another model"
            )
        found, start = [], 0
        for path, count in zip(meant.layers, rows, strict=True):
            found.append((path, change if len(rows) == 1 else change.rows(start, start + count)))
            start += count
        return found

    def _alpha(self, name: str, path: str, kinds: Mapping[str, Tensor]) -> tuple[float | None, float | None]:
        """(alpha of a layer, the rank that it is divided by where that is said)."""
        if "alpha" in kinds:
            return float(kinds["alpha"]), None
        if "r" not in self.config:
            return None, None
        rank = _by_pattern(self.config.get("rank_pattern"), (name, path), self.config["r"])
        default = self.config.get("lora_alpha", self.config.get("alpha", rank))
        alpha = float(_by_pattern(self.config.get("alpha_pattern"), (name, path), default))
        return (alpha * math.sqrt(rank) if self.config.get("use_rslora") else alpha), float(rank)

    def _config(self, changes: Mapping[str, LowRank], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """What the shapes tell. Which words name these layers and no others, a block knows: ``target_modules`` is left to it."""
        embeddings = {}
        for key, value in tensors.items():
            if key.endswith(f".{_EMBEDDING}"):
                path = key.removesuffix(f".{_EMBEDDING}")
                alpha = self._alpha(path, path, {})[0]
                embeddings[path] = (value.shape[0], float(value.shape[0]) if alpha is None else alpha)
        return {**config_of(changes, embeddings), "lora_dropout": self.config.get("lora_dropout") or 0.0}


def config_of(changes: Mapping[str, LowRank], embeddings: Mapping[str, tuple[int, float]] | None = None) -> dict[str, Any]:
    """Fields of ``peft.LoraConfig`` for changes by layer.

    Args:
        changes: of linear layers and convolutions.
        embeddings: rank and alpha of embeddings.
    """
    sizes_of = {**{path: (change.rank, change.alpha) for path, change in changes.items()}, **(embeddings or {})}
    rank, alpha = (Counter(pair[at] for pair in sizes_of.values()).most_common(1)[0][0] for at in (0, 1))
    return {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {f"^{re.escape(path)}": pair[0] for path, pair in sizes_of.items() if pair[0] != rank},
        "alpha_pattern": {f"^{re.escape(path)}": pair[1] for path, pair in sizes_of.items() if pair[1] != alpha},
        "use_dora": any(change.magnitude is not None for change in changes.values()),
        "lora_bias": any(change.bias is not None for change in changes.values()),
    }


def read_adapters(path: Path, loaders: Sequence[str] = ()) -> list[Stored | Foreign]:
    """What a folder of PEFT, a folder of such folders, or a file or folder of another program holds.

    Args:
        path: the file or folder.
        loaders: diffusers' readers that are asked for names that are not known here.

    Raises:
        CheckpointError: it is none of them, damaged, or not all of its numbers are finite.
    """
    if (path / ADAPTER_CONFIG).is_file():
        return [_from_peft(path, "")]
    below = sorted(entry.parent for entry in path.glob(f"*/{ADAPTER_CONFIG}")) if path.is_dir() else []
    if below:
        return [_from_peft(folder, folder.name) for folder in below]
    file = path
    if path.is_dir():
        found = sorted(entry for entry in path.glob("*.safetensors") if not is_of_system(entry.name))
        file = path / DIFFUSERS_WEIGHTS if path / DIFFUSERS_WEIGHTS in found else found[0] if len(found) == 1 else path
    if not file.is_file() or file.suffix.lower() != ".safetensors":
        raise CheckpointError(
            f"{path}: no adapter; expected a folder with {ADAPTER_CONFIG} (PEFT), with {DIFFUSERS_WEIGHTS} (diffusers), of such folders, "
            "a .safetensors file, or a checkpoint" + ("; pickles are never read, convert it" if file.suffix in PICKLES else "")
        )
    header, tensors = _read(file)
    if layer_tensors(own_names(tensors)).unknown and (renamed := _by_diffusers(tensors, loaders)) is not None:
        tensors = renamed
    return list(by_model(str(file), tensors, _metadata(header.metadata.get(METADATA), file)))


def by_model(source: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> list[Foreign]:
    """What tensors of a file are for each of its models.

    Raises:
        CheckpointError: some of them are no adapter's.
    """
    found = layer_tensors(own_names(tensors))
    if found.unknown:
        raise CheckpointError(
            f"{source}: {len(found.unknown)} of {len(tensors)} names are no adapter's that is known here: {found.unknown[:8]}; expected "
            "LoRA, LoCon, DoRA, LoHa, LoKr or diff as diffusers, PEFT, kohya's scripts, ai-toolkit or LyCORIS name them"
        )
    if not tensors:
        raise CheckpointError(f"{source}: holds no tensors, so no adapter")
    models: dict[str, dict[str, Mapping[str, Tensor]]] = {}
    for name, kinds in found.layers.items():
        prefix, rest = split_prefix(name)
        models.setdefault(prefix, {})[rest] = kinds
    return [Foreign(source, prefix, layers, _config_for(prefix, metadata, source)) for prefix, layers in models.items()]


def _by_diffusers(tensors: Mapping[str, Tensor], loaders: Sequence[str]) -> dict[str, Tensor] | None:
    """The tensors as diffusers' own reader of a family renames them; None where none of the readers knows the names."""
    for loader in loaders:
        try:
            reader = getattr(importlib.import_module("diffusers.loaders.lora_pipeline"), loader)
            found = reader.lora_state_dict(dict(tensors), return_alphas=True)
        except Exception:  # converters fail in many ways on what is not theirs
            continue
        state, alphas = found if isinstance(found, tuple) else (found, {})  # not every reader tells of alphas
        alphas = {f"{key.removesuffix('.alpha')}.alpha": torch.as_tensor(value) for key, value in (alphas or {}).items()}
        return {**state, **alphas}
    return None


def _read(file: Path) -> tuple[Any, dict[str, Tensor]]:
    """A file's header and tensors; floats of 8 bits, with which nothing can be computed, as float32."""
    header, tensors = read_file(file)
    wide = {name: value.float() if value.dtype.itemsize == 1 and value.is_floating_point() else value for name, value in tensors.items()}
    return header, checked_numbers(wide, str(file))


def checked_numbers(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The tensors of an adapter, each of whose numbers is one.

    Raises:
        CheckpointError: some are NaN or infinite, which every picture made with the adapter would be.
    """
    for name, value in tensors.items():
        if value.is_floating_point() and not bool((finite := value.isfinite()).all()):
            raise CheckpointError(
                f"{source}: {name}: {int((~finite).sum())} of {value.numel()} numbers are NaN or infinite; the training that wrote it "
                "went wrong: take an earlier file of it"
            )
    return dict(tensors)


def _from_peft(folder: Path, model: str) -> Stored | Foreign:
    config = read_config(folder / ADAPTER_CONFIG)
    if not (folder / ADAPTER_WEIGHTS).is_file():
        held = sorted(entry.name for entry in folder.iterdir())
        raise CheckpointError(f"{folder}: no {ADAPTER_WEIGHTS} among {held}; a pickle (.bin) is never read, let PEFT write it anew")
    _, tensors = _read(folder / ADAPTER_WEIGHTS)
    kind = str(config.get("peft_type") or "").removeprefix("PeftType.")
    if kind not in _FACTORED:
        config_from(config, str(folder))  # a kind that is not read is told by its name, not by its tensors
        return Stored(str(folder), model, config, own_names(tensors))
    (found,) = by_model(str(folder), tensors, {"r": config.get("r"), **config})
    return replace(found, prefix="")


def _config_for(prefix: str, metadata: Mapping[str, Any], source: str) -> dict[str, Any]:
    own = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
    check_sizes(own, f"{source}: what it says of {prefix.rstrip('._') or 'its adapter'}")
    return own if "r" in own else {}


def _metadata(text: str | None, file: Path) -> dict[str, Any]:
    if text is None:
        return {}
    found = read_json(text.encode(), f"{file}: its {METADATA}", CheckpointError)
    if not isinstance(found, dict):
        raise CheckpointError(f"{file}: its {METADATA} is a {type(found).__name__}; expected a mapping")
    return found


def _by_pattern(patterns: Any, names: tuple[str, ...], default: Any) -> Any:
    """The value for a layer, whose name a pattern is, ends with, or matches, as PEFT reads them."""
    for pattern, value in (patterns or {}).items():
        if any(re.match(rf"(.*\.)?({pattern})$", name) for name in names):
            return value
    return default


def weight_of(layer: Any) -> Tensor:
    """The weight of a layer, without adapters around it."""
    inner = layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer
    if not isinstance(getattr(inner, "weight", None), Tensor):
        raise CheckpointError(f"a {type(inner).__name__} has no weight that could be adapted")
    return inner.weight


def _sides(layer: Any, weight: Tensor) -> tuple[int, int]:
    """(rows, columns) of a layer's weight, its kernel among the columns."""
    inner = layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer
    if type(inner).__name__ == "Conv1D":  # of transformers: a linear layer written the other way round
        return weight.shape[1], weight.shape[0]
    return weight.shape[0], weight[0].numel()


def _alike(changes: dict[str, LowRank], modules: Mapping[str, nn.Module]) -> dict[str, LowRank]:
    """With a magnitude and a bias on all layers where some have one, since a config says it of all; they change nothing."""
    is_dora, is_biased = (any(getattr(change, name) is not None for change in changes.values()) for name in ("magnitude", "bias"))
    found = {}
    for path, change in changes.items():
        if is_dora and change.magnitude is None:
            weight = weight_of(modules[path]).detach().float()
            change = replace(change, magnitude=(weight.flatten(1) + change.delta()).norm(dim=1))
        if is_biased and change.bias is None:
            change = replace(change, bias=change.up.new_zeros(change.up.shape[0]))
        found[path] = change
    return found


def tensors_for(path: str, change: LowRank, layer: Any) -> dict[str, Tensor]:
    """A change under PEFT's names, in the shapes that it gives the layers beside this one."""
    kernel = weight_of(layer).shape[2:]
    inwards = change.down.shape[1] // math.prod(kernel)
    found = {
        f"{path}.lora_A.weight": change.down.reshape(change.rank, inwards, *kernel),
        f"{path}.lora_B.weight": change.up.reshape(-1, change.rank, *[1] * len(kernel)),
    }
    if change.magnitude is not None:
        lengths = change.magnitude
        found[f"{path}.lora_magnitude_vector"] = lengths.reshape(1, -1, *[1] * len(kernel)) if kernel else lengths
    if change.bias is not None:
        found[f"{path}.lora_B.bias"] = change.bias
    return found
