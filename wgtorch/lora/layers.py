"""PEFT's LoRA layers (Hu et al. 2021, https://arxiv.org/abs/2106.09685) that read the adapter context.

Each is PEFT's own layer with another ``forward``; parameters, names, ``merge`` and ``state_dict`` stay PEFT's. An adapted
layer gives ``W x + sum_k w_k s_k B_k A_k x`` with the weights w_k of the call and PEFT's scalings s_k = alpha / rank.

Adapters for each sample are stacked: one product with all A at once, a mask that leaves each sample its own rows, one
product with all B. The rank of the stack is small beside the layer, so it costs hardly more than one adapter.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from peft.tuners.lora import layer as lora
from torch import Tensor, nn
from torch.nn import functional as F

from wgtorch.core.errors import PortError, StructureError
from wgtorch.lora.context import current, current_graph_task
from wgtorch.lora.selection import PerSample


class ContextLoraLayer:
    """What adapted layers of all kinds share."""

    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The base layer's output with what the call's adapters add."""
        active = current.active
        if not torch.compiler.is_compiling() and current.graph_task != current_graph_task():
            raise StructureError(
                "an adapted layer is computed again in the backward pass (gradient checkpointing), and nothing says which adapter was "
                "active. Wrap what is checkpointed: checkpoint(wgtorch.lora.preserve_adapter_context(function), ...)"
            )
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
        return result + self._delta(x, name) * (self.scaling[name] * weight)

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


class ContextLoraLinear(ContextLoraLayer, lora.Linear):
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


class ContextLoraConv1d(_ContextLoraConv, lora.Conv1d):
    """``nn.Conv1d`` with adapters."""


class ContextLoraConv2d(_ContextLoraConv, lora.Conv2d):
    """``nn.Conv2d`` with adapters."""


class ContextLoraConv3d(_ContextLoraConv, lora.Conv3d):
    """``nn.Conv3d`` with adapters."""


class ContextLoraEmbedding(ContextLoraLayer, lora.Embedding):
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


CONTEXT_LAYERS: dict[type, type] = {
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
