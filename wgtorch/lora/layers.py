"""PEFT's layers of LoRA (Hu et al. 2021, https://arxiv.org/abs/2106.09685) and others that read the adapter context.

Each is PEFT's own layer with another ``forward``; parameters, names, ``merge`` and ``state_dict`` stay PEFT's. An adapted
layer gives ``W x + sum_k w_k s_k B_k A_k x`` with the weights w_k of the call and PEFT's scalings s_k = alpha / rank.

Adapters for each sample are stacked: one product with all A at once, a mask that leaves each sample its own rows, one
product with all B. The rank of the stack is small beside the layer, so it costs hardly more than one adapter.

Those of OFT (Qiu et al. 2023, https://arxiv.org/abs/2306.07280) turn what goes into a layer, block by block of its width:
``W R_k x``. A module of ``modules_to_save`` is another one altogether where its adapter is active. Both are used whole or not at all.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from typing import Any

import torch
from peft.tuners.lora import layer as lora
from peft.tuners.oft import layer as oft
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor, nn
from torch.nn import functional as F

from wgtorch.core.errors import PortError, StructureError
from wgtorch.lora.active_adapters import current, current_graph_task
from wgtorch.lora.selection import Active, PerSample


class ContextLayer:
    """What adapted layers of all kinds share."""

    reads_context = True
    """Without adapters in the call's context it is its base."""

    def _active(self) -> Active:
        """The call's adapters."""
        if not torch.compiler.is_compiling() and current.graph_task != current_graph_task():
            raise StructureError(
                "an adapted layer is computed again in the backward pass (gradient checkpointing), and nothing says which adapter was "
                "active. Wrap what is checkpointed: checkpoint(wgtorch.lora.preserve_adapter_context(function), ...)"
            )
        return current.active

    def _used_whole(self: Any, known: Collection[str], what: str) -> list[str]:
        """The call's adapters among those that a layer has; of kinds that have no weight and no batch of several."""
        active = self._active()
        if isinstance(active, PerSample):
            if mixed := [name for name in dict.fromkeys(active.names) if name in known]:
                raise StructureError(f"adapters {mixed} are {what}; those cannot differ within a batch")
            return []
        own = [(name, weight) for name, weight in active or () if name in known and name not in self.merged_adapters]
        if wrong := [name for name, weight in own if weight != 1.0]:
            raise StructureError(f"adapter {wrong[0]!r} is {what}, so it cannot be used with weight {dict(own)[wrong[0]]}")
        return [name for name, _ in own]


class ContextLoraLayer(ContextLayer):
    """What layers of LoRA share."""

    def forward(self: Any, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The base layer's output with what the call's adapters add; the argument has the name that PyTorch's layers have for it."""
        x, active = input, self._active()
        result: Tensor = self.base_layer(x, *args, **kwargs)
        if not active:
            return result
        dtype = result.dtype
        if type(active) is tuple:
            for name, weight in active:
                if name in self.scaling and name not in self.merged_adapters:
                    result = self._added(x, result, name, weight)
            return result.to(dtype)
        return self._added_per_sample(x, result, active).to(dtype)

    def _added(self: Any, x: Tensor, result: Tensor, name: str, weight: float) -> Tensor:
        if name in self.lora_variant:
            if weight != 1.0:
                raise StructureError(
                    f"adapter {name!r} is no plain LoRA (DoRA or another variant), so it cannot be used with weight {weight}"
                )
            return self.lora_variant[name].forward(self, active_adapter=name, x=x, result=result)
        delta, factor = self._delta(x, name), self.scaling[name] * weight
        return result + (delta if factor == 1 else delta * factor)  # alpha is the rank more often than not: two passes over it less

    def _added_per_sample(self: Any, x: Tensor, result: Tensor, active: PerSample) -> Tensor:
        names = active.names
        own = tuple(dict.fromkeys(name for name in names if name in self.scaling and name not in self.merged_adapters))
        if x.shape[0] != len(names):
            raise PortError(
                f"adapters for {len(names)} samples, and a layer is given {x.shape[0]} rows (shape {list(x.shape)}); give one name, or "
                "None, for each sample of the batch as the model sees it (guidance in one batch doubles it)"
            )
        if not own:
            return result
        if any(name in self.lora_variant for name in own):
            raise StructureError(
                f"adapters {list(own)} are not all plain LoRA (DoRA or another variant); those cannot differ within a batch"
            )
        scalings = tuple(self.scaling[name] for name in own)
        if self._stacks(own):
            ranks = tuple(self.r[name] for name in own)
            return result + self._stacked(x, own, _mask(names, own, ranks, scalings, result.dtype, result.device))
        for name, scaling in zip(own, scalings, strict=True):
            rows = _mask(names, (name,), (1,), (scaling,), result.dtype, result.device)
            result = result + self._delta(x, name) * rows.view(-1, *[1] * (result.dim() - 1))
        return result

    def _stacks(self: Any, names: Sequence[str]) -> bool:
        """True when the adapters differ in nothing but their A and B."""
        return not any(self.lora_bias[name] or (self.training and not isinstance(self.lora_dropout[name], nn.Identity)) for name in names)

    def _delta(self: Any, x: Tensor, name: str) -> Tensor:
        down = self.lora_A[name]
        return self.lora_B[name](down(self.lora_dropout[name](self._cast_input_dtype(x, down.weight.dtype))))

    def _stacked(self, x: Tensor, names: Sequence[str], mask: Tensor) -> Tensor:
        raise NotImplementedError


class ContextLoraLinear(ContextLoraLayer, lora.Linear):  # type: ignore[misc]
    """``nn.Linear`` with adapters: x [B, ..., in] to [B, ..., out]."""

    def _stacked(self: Any, x: Tensor, names: Sequence[str], mask: Tensor) -> Tensor:
        down = torch.cat([self.lora_A[name].weight for name in names])  # [R, in]
        up = torch.cat([self.lora_B[name].weight for name in names], dim=1)  # [out, R]
        inner = F.linear(self._cast_input_dtype(x, down.dtype), down)
        mask = mask.view(mask.shape[0], *[1] * (x.dim() - 2), -1) if x.dim() > 1 else mask
        return F.linear(inner * mask, up)


class _ContextLoraConv(ContextLoraLayer):
    """A convolution with adapters: x [B, in, ...] to [B, out, ...]."""

    def get_delta_weight(self: Any, adapter: str) -> Tensor:
        """What the adapter adds to the weight, in its shape: B has kernels of size 1, so it is one product of matrices.

        (PEFT takes a three-dimensional kernel of size 1 for a two-dimensional one.)
        """
        base, down, up = self.get_base_layer(), self.lora_A[adapter].weight, self.lora_B[adapter].weight
        return (up.flatten(1) @ down.flatten(1)).view(base.weight.shape) * self.scaling[adapter]

    def _stacks(self: Any, names: Sequence[str]) -> bool:
        return self.get_base_layer().groups == 1 and ContextLoraLayer._stacks(self, names)

    def _stacked(self: Any, x: Tensor, names: Sequence[str], mask: Tensor) -> Tensor:
        down = torch.cat([self.lora_A[name].weight for name in names])  # [R, in, ...]
        up = torch.cat([self.lora_B[name].weight for name in names], dim=1)  # [out, R, 1, ...]
        inner = self.lora_A[names[0]]._conv_forward(self._cast_input_dtype(x, down.dtype), down, None)
        return self.lora_B[names[0]]._conv_forward(inner * mask.view(*mask.shape, *[1] * (x.dim() - 2)), up, None)


class ContextLoraConv1d(_ContextLoraConv, lora.Conv1d):  # type: ignore[misc]
    """``nn.Conv1d`` with adapters."""


class ContextLoraConv2d(_ContextLoraConv, lora.Conv2d):  # type: ignore[misc]
    """``nn.Conv2d`` with adapters."""


class ContextLoraConv3d(_ContextLoraConv, lora.Conv3d):  # type: ignore[misc]
    """``nn.Conv3d`` with adapters."""


class ContextLoraEmbedding(ContextLoraLayer, lora.Embedding):  # type: ignore[misc]
    """``nn.Embedding`` with adapters: ids [B, ...] to [B, ..., width]."""

    def _delta(self: Any, x: Tensor, name: str) -> Tensor:
        return self._scaled(self._embed(x, self.lora_embedding_A[name].T) @ self.lora_embedding_B[name].T)

    def _stacked(self: Any, x: Tensor, names: Sequence[str], mask: Tensor) -> Tensor:
        down = torch.cat([self.lora_embedding_A[name] for name in names])  # [R, ids]
        up = torch.cat([self.lora_embedding_B[name] for name in names], dim=1)  # [width, R]
        inner = self._embed(x, down.T) * mask.view(mask.shape[0], *[1] * (x.dim() - 1), -1)
        return self._scaled(inner @ up.T)

    def _scaled(self: Any, added: Tensor) -> Tensor:
        """Some models scale their embeddings inside the layer."""
        scale = self._get_embed_scale()
        return added if scale is None else added * scale.to(added.dtype)


class _ContextOft(ContextLayer):
    """A layer whose input adapters turn."""

    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        dtype = x.dtype
        for name in self._used_whole(self.oft_R.keys(), "OFT"):
            x = self.oft_R[name](self._cast_input_dtype(x, self.oft_R[name].weight.dtype))
        return self.base_layer(x.to(dtype), *args, **kwargs)


class ContextOftLinear(_ContextOft, oft.Linear):
    """``nn.Linear`` with adapters of OFT: x [B, ..., in] to [B, ..., out]."""


class ContextOftConv2d(_ContextOft, oft.Conv2d):
    """``nn.Conv2d`` with adapters of OFT."""


class ContextOftEmbedding(ContextLayer, oft.Embedding):
    """``nn.Embedding`` with adapters of OFT, which turn what comes out: ids [B, ...] to [B, ..., width]."""

    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        result = self.base_layer(x, *args, **kwargs)
        dtype = result.dtype
        for name in self._used_whole(self.oft_embedding_R.keys(), "OFT"):
            result = self.oft_embedding_R[name](self._cast_input_dtype(result, self.oft_embedding_R[name].weight.dtype))
        return result.to(dtype)


class ContextCopy(ContextLayer, ModulesToSaveWrapper):
    """A module of which adapters have copies of their own (``modules_to_save``)."""

    def _chosen(self: Any) -> nn.Module:
        names = self._used_whole(self.modules_to_save.keys(), "a copy of a module")
        if len(names) > 1:
            raise StructureError(f"adapters {names} have each a copy of one module, which cannot be added; select one of them")
        return self.modules_to_save[names[0]] if names else self.original_module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._chosen()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return nn.Module.__getattr__(self, name)
        except AttributeError:
            if "_modules" not in self.__dict__ or name.startswith("_"):
                raise
            return getattr(self._chosen(), name)


CONTEXT_LAYERS: dict[type, type] = {
    ModulesToSaveWrapper: ContextCopy,
    oft.Linear: ContextOftLinear,
    oft.Conv2d: ContextOftConv2d,
    oft.Embedding: ContextOftEmbedding,
    lora.Linear: ContextLoraLinear,
    lora.Conv1d: ContextLoraConv1d,
    lora.Conv2d: ContextLoraConv2d,
    lora.Conv3d: ContextLoraConv3d,
    lora.Embedding: ContextLoraEmbedding,
}
"""For each of PEFT's layers the one that reads the context."""


def _mask_of(
    names: tuple[str | None, ...],
    own: tuple[str, ...],
    ranks: tuple[int, ...],
    scalings: tuple[float, ...],
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """[B, sum of ranks]: the scaling of a sample's own adapter at its rows, 0 at those of the others."""
    rows = [
        [scaling if name == other else 0.0 for other, rank, scaling in zip(own, ranks, scalings, strict=True) for _ in range(rank)]
        for name in names
    ]
    with torch.inference_mode(False):  # it may be read by a backward pass later
        return torch.tensor(rows, dtype=dtype, device=device)


_remembered = functools.lru_cache(maxsize=256)(_mask_of)


def _mask(*key: Any) -> Tensor:
    if torch.compiler.is_compiling():
        return _mask_of(*key)
    mask = _remembered(*key)
    if type(mask) is not Tensor:  # made in a run with fake tensors
        _remembered.cache_clear()
    return mask
