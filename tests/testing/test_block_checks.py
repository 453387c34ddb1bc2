"""check_block: each check finds the fault that it is for, and finds none in a block that is right."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.blocks_for_tests import Affine
from wgtorch.core.block import Block
from wgtorch.core.run.rng import Rng
from wgtorch.testing import check_block
from wgtorch.testing.block_checks import CHECKS

X = {"x": torch.linspace(-1, 1, 8).view(2, 4)}
pytest_plugins = ["wgtorch.testing.fixtures"]


class Good(Block):
    """A layer."""

    outputs = {"y": "tensor"}

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"y": self.linear(x)}


class WrongKind(Good):
    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"y": "a text"}


class InPlace(Good):
    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"y": self.linear(x.mul_(2))}


class Draws(Good):
    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"y": self.linear(x) + torch.randn(())}


class Remembers(Good):
    def forward(self, x: Tensor) -> dict[str, Any]:
        self.calls = getattr(self, "calls", 0) + 1
        return {"y": self.linear(x) * self.calls}


class Switches(Good):
    def forward(self, x: Tensor) -> dict[str, Any]:
        self.linear.eval()
        return {"y": self.linear(x)}


class Detached(Good):
    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"y": self.linear(x).detach()}


class Unused(Good):
    def __init__(self, width: int = 4) -> None:
        super().__init__(width)
        self.spare = nn.Linear(2, 2)


class Single(Good):
    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"y": self.linear(x).float()}


class OtherConfig(Good):
    def __init__(self, width: int = 4) -> None:
        super().__init__(width)
        self.more = nn.Linear(width, 1 + len(self.__dict__.get("_parameters", {})) + OtherConfig.made)
        OtherConfig.made += 1

    made = 0

    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"y": self.linear(x), "z": self.more(x)}

    outputs = {"y": "tensor", "z": "tensor"}


class PlainTensor(Good):
    def __init__(self, width: int = 4) -> None:
        super().__init__(width)
        self.shift = torch.zeros(width)

    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"y": self.linear(x) + self.shift}


class PlainInAList(Good):
    def __init__(self, width: int = 4) -> None:
        super().__init__(width)
        self.linear.shifts = [{"all": (torch.zeros(width),)}]  # type: ignore[assignment]


class Cached(Good):
    def forward(self, x: Tensor) -> dict[str, Any]:
        self.grid = torch.arange(4)
        return {"y": self.linear(x)}


class HiddenModule(Good):
    def __init__(self, width: int = 4) -> None:
        super().__init__(width)
        self.layers = [self.linear, nn.Linear(width, width)]


class Registered(Good):
    """Buffers that are not saved, the block's own parameters in a list, and a module twice."""

    def __init__(self, width: int = 4) -> None:
        super().__init__(width)
        self.register_buffer("grid", torch.zeros(width), persistent=False)
        self.trained = [self.linear.weight, self.linear]
        self.trained.append(self.trained)


class Noisy(Good):
    def forward(self, x: Tensor, rng: Rng) -> dict[str, Any]:
        return {"y": self.linear(x) + rng.normal(x.shape)}


@pytest.mark.parametrize(
    ("block_class", "check", "words"),
    [
        (WrongKind, "ports", "output 'y' is str; expected a torch.Tensor"),
        (InPlace, "inputs_unchanged", "forward changes its input 'x' in place"),
        (Draws, "determinism", "output 'y' differs between two calls"),
        (Remembers, "determinism", "keep nothing between calls"),
        (Switches, "modes", "forward switches between train"),
        (PlainTensor, "registered", r"\['shift'\] is a plain tensor: .to\(\) does not move it"),
        (PlainInAList, "registered", r"linear.shifts\[0\]\['all'\]\[0\]"),
        (Cached, "registered", r"\['grid'\] is a plain tensor"),
        (HiddenModule, "registered", r"\['layers\[1\]'\] is a module that PyTorch does not see"),
        (Detached, "gradients", "no output has a gradient"),
        (Unused, "gradients", r"no gradient reaches \['spare.weight', 'spare.bias'\]"),
        (Single, "dtype", "output 'y' is not torch.float64"),
        (OtherConfig, "config", "built from its config it has other weights"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value).split(" ")[0],
)
def test_a_fault_is_found_and_named(block_class: type[Block], check: str, words: str) -> None:
    with pytest.raises(AssertionError, match=words) as caught:
        check_block(block_class(), X, skip=["compile"])
    assert f"{check}: FAILED" in str(caught.value)
    assert f"{block_class.__name__} does not keep to what a block is" in str(caught.value)


def test_a_block_that_is_right_passes_all_and_is_left_as_it_was() -> None:
    block = Affine(4, seed=1).train()
    before = {name: value.clone() for name, value in block.state_dict().items()}
    report = check_block(block, X)
    assert report.passed == CHECKS and not report.failed and not report.skipped
    assert block.training and all(parameter.grad is None for parameter in block.parameters())
    assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items())


def test_what_is_registered_may_be_held_twice() -> None:
    assert "registered" in check_block(Registered(), X, skip=["compile"]).passed


def test_what_says_nothing_is_skipped_with_its_reason() -> None:
    report = check_block(Good(), X, skip=["compile"])
    assert report.skipped["save_load"].startswith("it is not registered")
    assert report.skipped["compile"] == "asked for"
    with pytest.raises(ValueError, match="unknown check 'speed'"):
        check_block(Good(), X, skip=["speed"])


def test_a_block_that_draws_is_given_its_generator() -> None:
    assert "determinism" in check_block(Noisy(), X).passed


def test_the_fixtures_are_what_they_say(check_block: Any, provider: Any, seeded: None, world: Any, restored_registries: None) -> None:
    assert "ports" in check_block(Good(), X, skip=["compile"]).passed
    assert provider.url.startswith("http://127.0.0.1:")
    assert world.level == "world"


def test_what_forward_raised_is_the_cause() -> None:
    class Raises(Good):
        def forward(self, x: Tensor, rng: Rng) -> dict[str, Any]:
            return {"y": rng.random(x.shape)}  # type: ignore[attr-defined]

    with pytest.raises(AssertionError, match="'Rng' object has no attribute 'random'") as caught:
        check_block(Raises(), X)
    assert isinstance(caught.value.__cause__, AttributeError)
