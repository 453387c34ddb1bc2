"""Muon and AdamW as one optimizer: the same steps as PyTorch's two, and taken up again to the last bit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wgtorch.core.errors import ConfigError
from wgtorch.train.muon import MuonAdamW
from wgtorch.train.optimization import Plan


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 1), nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3))


def backward(net: nn.Module, turn: int) -> None:
    net.zero_grad()
    net(torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(turn))).square().mean().backward()


def weights(net: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in net.parameters()]


def same(mine: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def groups(net: nn.Sequential) -> list[dict[str, Any]]:
    return [{"params": list(net[:4].parameters())}, {"params": list(net[4].parameters()), "muon": False, "lr": 3e-3}]


def test_it_steps_as_pytorchs_two_do() -> None:
    mine, theirs = model(), model()
    optimizer = MuonAdamW(groups(mine), lr=1e-2, weight_decay=0.1, momentum=0.9, betas=(0.8, 0.95))
    muon = torch.optim.Muon([theirs[2].weight], lr=1e-2, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    rest = [*theirs[0].parameters(), theirs[2].bias]
    adamw = torch.optim.AdamW(
        [{"params": rest}, {"params": theirs[4].parameters(), "lr": 3e-3}], lr=1e-2, weight_decay=0.1, betas=(0.8, 0.95)
    )
    for turn in range(5):
        backward(mine, turn)
        backward(theirs, turn)
        optimizer.step()
        muon.step()
        adamw.step()
    assert same(weights(mine), weights(theirs))
    assert not same(weights(mine), weights(model()))


@pytest.mark.parametrize("way", ["state_dict", "deepcopy"])
def test_it_goes_on_where_it_stood(way: str) -> None:
    first = model()
    optimizer = MuonAdamW(groups(first), lr=1e-2)
    for turn in range(3):
        backward(first, turn)
        optimizer.step()
    if way == "deepcopy":
        second, again = copy.deepcopy((first, optimizer))
    else:
        second = copy.deepcopy(first)
        again = MuonAdamW(groups(second), lr=1.0)
        again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for net, its in ((first, optimizer), (second, again)):
        for turn in range(3, 6):
            backward(net, turn)
            its.step()
    assert same(weights(first), weights(second))


def test_a_closure_computes_the_loss() -> None:
    net = model()
    optimizer = MuonAdamW(net.parameters())

    def closure() -> Tensor:
        assert torch.is_grad_enabled()
        backward(net, 0)
        return torch.tensor(3.0)

    before = weights(net)
    assert optimizer.step(closure) == 3.0
    assert not same(before, weights(net))


def test_a_wrong_setting_is_found_when_it_is_built() -> None:
    plan = Plan("muon", {"lr": -1.0}, None, {}, False)  # as Plan.of would not make it
    with pytest.raises(ConfigError, match=r"optimizer \(muon\): .*-1.0"):
        plan.build([{"params": list(model().parameters()), "schedule": None, "name": "rest"}], 1)
