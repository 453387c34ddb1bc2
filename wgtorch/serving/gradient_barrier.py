"""Where gradients end: what comes from an endpoint is joined to no graph, and a backward pass that needs it to be says so."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from wgtorch.core.errors import EndpointError


def end_gradients(given: Any, answer: Any, where: str) -> Any:
    """The answer, with tensors that raise when a gradient is asked to pass through them to what was given.

    Args:
        given: what the endpoint was called with.
        answer: what it gave.
        where: node and URL, for the message.
    """
    if not torch.is_grad_enabled():
        return answer
    needing = [value for value in tree_flatten(given)[0] if isinstance(value, Tensor) and value.requires_grad]
    if not needing:
        return answer
    leaves, shape = tree_flatten(answer)
    places = [index for index, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())]
    for place in places:
        leaves[place] = _Border.apply(needing[0], leaves[place], where)
    return tree_unflatten(leaves, shape)


class _Border(torch.autograd.Function):
    """Passes a value on; its backward pass is an error."""

    @staticmethod
    def forward(ctx: Any, needing: Tensor, value: Tensor, where: str) -> Tensor:
        ctx.where = where
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise EndpointError(
            f"{ctx.where}: a gradient would have to cross an endpoint, and none can. Detach what goes in, freeze what comes before "
            "this node, or put a local model in its place."
        )
