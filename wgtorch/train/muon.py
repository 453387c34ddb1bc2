"""Muon for the matrices of hidden layers and AdamW for everything else, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.optimizer import ParamsT


class MuonAdamW(torch.optim.Optimizer):
    """``torch.optim.Muon`` for matrices and ``torch.optim.AdamW`` for all other parameters.

    Muon moves a matrix by its momentum with all singular values made alike (Jordan et al. 2024,
    https://kellerjordan.github.io/posts/muon/). Its steps are scaled to the size of AdamW's, so that one learning rate serves
    both (Liu et al. 2025, https://arxiv.org/abs/2502.16982). It is meant for hidden layers: embeddings, heads and what makes
    modulations are matrices too, and belong into a group with ``muon: false``. Its iterations are in bfloat16, which is slow on
    processors that have none.

    Example:
        >>> MuonAdamW([{"params": model.blocks.parameters()}, {"params": model.head.parameters(), "muon": False}], lr=2e-3)

    Args:
        params: parameters, or groups of them.
        lr: learning rate of both.
        weight_decay: decoupled, of both.
        momentum: of Muon, with Nesterov's look ahead.
        betas: of AdamW.
        eps: of AdamW.
        muon: whether the matrices of a group are Muon's.
    """

    def __init__(
        self,
        params: ParamsT,
        *,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        muon: bool = True,
    ) -> None:
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "betas": tuple(betas), "eps": eps, "muon": muon}
        super().__init__(params, defaults)
        for group in self.param_groups:  # a wrong setting is found here, and not in the first step
            self._parts(group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step of both; `closure` computes the loss again."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for part in self._parts(group):
                part.state = self.state
                part.step()
        return loss

    @staticmethod
    def _parts(group: dict[str, Any]) -> list[torch.optim.Optimizer]:
        """PyTorch's optimizers of a group. They hold nothing themselves: what they remember is in the state of the whole."""
        matrices = [parameter for parameter in group["params"] if group["muon"] and parameter.ndim == 2]
        others = [parameter for parameter in group["params"] if not group["muon"] or parameter.ndim != 2]
        shared = {"lr": group["lr"], "weight_decay": group["weight_decay"]}
        parts: list[torch.optim.Optimizer] = []
        if matrices:
            parts.append(torch.optim.Muon(matrices, momentum=group["momentum"], adjust_lr_fn="match_rms_adamw", **shared))
        if others:
            parts.append(torch.optim.AdamW(others, betas=group["betas"], eps=group["eps"], **shared))
        return parts
