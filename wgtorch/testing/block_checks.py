"""What a block of one's own is to keep to, checked: ports, determinism, gradients, dtypes, saving and loading, compiling."""

from __future__ import annotations

import asyncio
import copy
import inspect
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from wgtorch.core.block import Block, BlockRegistry
from wgtorch.core.kinds import get_kind
from wgtorch.core.run.port_checks import check_inputs, named_outputs
from wgtorch.core.run.rng import Rng

CHECKS = ("ports", "inputs_unchanged", "determinism", "modes", "registered", "gradients", "dtype", "config", "save_load", "compile")
"""What :func:`check_block` looks at, in this order."""


@dataclass(frozen=True, slots=True)
class BlockReport:
    """What :func:`check_block` found.

    Args:
        passed: names of the checks that hold.
        skipped: reason by name of a check that says nothing of this block.
        failed: what is wrong, and how to mend it, by name of the check.
    """

    passed: tuple[str, ...]
    skipped: Mapping[str, str]
    failed: Mapping[str, str]

    def __str__(self) -> str:
        rows = [f"{name}: ok" for name in self.passed]
        rows += [f"{name}: skipped, {reason}" for name, reason in self.skipped.items()]
        rows += [f"{name}: FAILED, {reason}" for name, reason in self.failed.items()]
        return "\n".join(rows)


def check_block(
    block: Block,
    inputs: Mapping[str, Any],
    *,
    skip: Sequence[str] = (),
    atol: float = 1e-5,
    dtype: torch.dtype = torch.float64,
    backend: str = "aot_eager",
) -> BlockReport:
    """Checks that a block does what levels, checkpoints, training and ``torch.compile`` rely on.

    - ``ports``: it takes these inputs, and gives the outputs that it declares, each of its kind.
    - ``inputs_unchanged``: it changes none of its inputs in place.
    - ``determinism``: two calls with the same draws give the same, bit for bit.
    - ``modes``: ``forward`` leaves ``training`` and the grad mode as they were.
    - ``registered``: tensors and modules that it holds are parameters, buffers and submodules, in lists and mappings of its own too.
    - ``gradients``: a loss over the outputs reaches every trainable parameter, with finite values.
    - ``dtype``: ``block.to(dtype)`` with inputs of that dtype gives outputs of that dtype, within ``atol`` of the first.
    - ``config``: ``type(block).from_config(block.config)`` has the same ports and the same parameters' shapes.
    - ``save_load``: what ``save`` wrote is loaded as its equal, bit for bit (registered blocks).
    - ``compile``: ``torch.compile(block)`` gives the same within ``atol``.

    Args:
        block: the block; it is left as it was.
        inputs: values by port that ``forward`` can be called with.
        skip: names of checks to leave out.
        atol: largest absolute difference where arithmetic is not the same.
        dtype: of the ``dtype`` check.
        backend: of ``torch.compile``; ``aot_eager`` traces all of it and needs no C++ compiler.

    Returns:
        What holds and what was skipped.

    Raises:
        AssertionError: something does not hold; lists all of it.
        ValueError: ``skip`` names no check.

    Example:
        >>> print(check_block(Brighten(0.1), {"image": torch.rand(1, 3, 8, 8)}))
    """
    __tracebackhide__ = True  # pytest shows the caller, and the report
    unknown = [name for name in skip if name not in CHECKS]
    if unknown:
        raise ValueError(f"check_block: unknown check {unknown[0]!r}; known: {', '.join(CHECKS)}")
    check = _Checks(block, dict(inputs), atol, dtype, backend)
    passed: list[str] = []
    skipped: dict[str, str] = dict.fromkeys(skip, "asked for")
    failed: dict[str, str] = {}
    cause: Exception | None = None
    for name in CHECKS:
        if name in skipped:
            continue
        if failed.get("ports") is not None:
            skipped[name] = "it cannot be called as it is"
            continue
        try:
            reason = getattr(check, name)()
        except AssertionError as error:
            failed[name] = str(error)
        except Exception as error:
            cause = cause or error
            failed[name] = f"{type(error).__name__}: {error}"
        else:
            if reason is None:
                passed.append(name)
            else:
                skipped[name] = reason
    report = BlockReport(tuple(passed), skipped, failed)
    if failed:
        raise AssertionError(f"{type(block).__name__} does not keep to what a block is:\n{report}") from cause
    return report


class _Checks:
    """The checks; each returns None where it holds, or why it says nothing, and raises where it does not hold."""

    def __init__(self, block: Block, inputs: dict[str, Any], atol: float, dtype: torch.dtype, backend: str) -> None:
        self.block = block
        self.inputs = inputs
        self.atol = atol
        self.other_dtype = dtype
        self.backend = backend
        self.training = {module: module.training for module in block.modules()}

    def ports(self) -> None:
        self.block.check_ports()
        check_inputs(self.inputs, self.block.get_input_spec(), self.block.block_id)
        outputs = self._call(self.block, self.inputs)
        for name, port in self.block.get_output_spec().items():
            assert name in outputs or port.optional, f"output {name!r} is declared and was not given"
            if name in outputs and outputs[name] is not None:
                kind = get_kind(port.dtype)
                assert kind.accepts(outputs[name]), f"output {name!r} is {type(outputs[name]).__name__}; expected {kind.expects}"

    def inputs_unchanged(self) -> None:
        given = self._copy(self.inputs)
        before = self._copy(given)
        self._call(self.block, given)
        changed = [name for name in given if not _same(given[name], before[name], atol=0.0)]
        assert not changed, f"forward changes its input {changed[0]!r} in place; write x = x + 1 instead of x += 1"

    def determinism(self) -> None:
        first, second = self._call(self.block, self.inputs), self._call(self.block, self.inputs)
        differing = [name for name in first if not _same(first[name], second[name], atol=0.0)]
        assert not differing, (
            f"output {differing[0] if differing else ''!r} differs between two calls with the same draws; "
            "take random numbers from a parameter `rng` of forward, and keep nothing between calls"
        )

    def modes(self) -> None:
        grad = torch.is_grad_enabled()
        self._call(self.block, self.inputs)
        switched = [module for module, mode in self.training.items() if module.training is not mode]
        for module in switched:
            module.training = self.training[module]
        assert not switched, "forward switches between train() and eval()"
        assert torch.is_grad_enabled() is grad, "forward leaves the grad mode changed; use `with torch.no_grad():`"

    def registered(self) -> None:
        known = {id(part) for part in (*self.block.modules(), *self.block.parameters(), *self.block.buffers())}
        tensors: list[str] = []
        modules: list[str] = []
        for name, module in self.block.named_modules():
            for attribute, value in vars(module).items():
                if attribute in _OF_MODULES:
                    continue
                for place, held in _held(value, f"{name}.{attribute}" if name else attribute):
                    if id(held) not in known:
                        (modules if isinstance(held, nn.Module) else tensors).append(place)
        assert not tensors, (
            f"{tensors} is a plain tensor: .to() does not move it, and no checkpoint has it. Make it an nn.Parameter, or a buffer by "
            "register_buffer(name, tensor), with persistent=False where the config says it; what forward computes belongs in its outputs"
        )
        assert not modules, (
            f"{modules} is a module that PyTorch does not see: .to() does not move it, no optimizer and no checkpoint has it. "
            "Put modules into nn.ModuleList or nn.ModuleDict"
        )

    def gradients(self) -> str | None:
        block = copy.deepcopy(self.block)
        named = {name: parameter for name, parameter in block.named_parameters() if parameter.requires_grad}
        if not named:
            return "it has no trainable parameters"
        with torch.enable_grad():
            leaves = _floats(self._call(block, self.inputs))
            if not leaves:
                return "none of its outputs is a floating-point tensor"
            loss = sum((leaf.float() ** 2).sum() for leaf in leaves if leaf.requires_grad)
            assert isinstance(loss, Tensor), "no output has a gradient; is there a torch.no_grad() or detach() in forward?"
            loss.backward()
        without = [name for name, parameter in named.items() if parameter.grad is None]
        assert not without, f"no gradient reaches {without}; freeze what is not used, or join it to an output"
        wrong = [name for name, parameter in named.items() if not bool(parameter.grad.isfinite().all())]  # type: ignore[union-attr]
        assert not wrong, f"the gradient of {wrong} is not finite"
        return None

    def dtype(self) -> str | None:
        first = self._call(self.block, self.inputs)
        if not _floats(first) or not (_floats(self.inputs) or list(self.block.parameters())):
            return "it has no floating-point tensors"
        moved = copy.deepcopy(self.block).to(self.other_dtype)
        cast = tree_map(lambda value: value.to(self.other_dtype) if _is_float(value) else value, self.inputs)
        second = self._call(moved, cast)
        wrong = [name for name in first if _is_float(first[name]) and second[name].dtype is not self.other_dtype]
        assert not wrong, f"output {wrong[0] if wrong else ''!r} is not {self.other_dtype} after .to({self.other_dtype})"
        differing = [
            name for name in first if _is_float(first[name]) and not _same(second[name].to(first[name].dtype), first[name], self.atol)
        ]
        assert not differing or self.block.wants_rng, f"{differing} differ by more than {self.atol} in {self.other_dtype}"
        return None

    def config(self) -> str | None:
        if not type(self.block)._takes_config:
            return "it is not built from a config"
        again = type(self.block).from_config({k: v for k, v in self.block.config.items() if k != "checkpoint_ref"})
        assert again.get_input_spec() == self.block.get_input_spec(), "built from its config it has other inputs"
        assert again.get_output_spec() == self.block.get_output_spec(), "built from its config it has other outputs"
        shapes = {name: tuple(value.shape) for name, value in self.block.state_dict().items()}
        assert {name: tuple(value.shape) for name, value in again.state_dict().items()} == shapes, (
            "built from its config it has other weights"
        )
        return None

    def save_load(self) -> str | None:
        if not self.block.block_type or self.block.block_type not in BlockRegistry:
            return "it is not registered; put @register_block('role/name') on the class"
        with tempfile.TemporaryDirectory() as folder:
            loaded = type(self.block).load(self.block.save(Path(folder) / "block"), map=False)
        loaded.train(self.block.training)
        first, second = self._call(self.block, self.inputs), self._call(loaded, self.inputs)
        differing = [name for name in first if not _same(first[name], second[name], atol=0.0)]
        assert not differing, f"output {differing} differs after save and load; what is computed must come from config and state_dict"
        return None

    def compile(self) -> str | None:
        if self.block.is_async or not self.block.compiles:
            return "it is not to be compiled"
        if self.block.wants_rng:
            return "it draws; compiled loops draw outside of the traced body"
        if not _floats(self._call(self.block, self.inputs)):
            return "it gives no floating-point tensor"
        torch._dynamo.reset()
        compiled: Callable[..., Any] = torch.compile(copy.deepcopy(self.block), backend=self.backend)
        first = self._call(self.block, self.inputs)
        second = self._named(compiled(**self._copy(self.inputs)))
        differing = [name for name in first if not _same(first[name], second[name], self.atol)]
        assert not differing, f"output {differing} differs when it is compiled"
        return None

    def _call(self, block: Block, inputs: Mapping[str, Any]) -> dict[str, Any]:
        extra = {"rng": Rng.of(7)} if block.wants_rng else {}
        return self._named(block(**(inputs if inputs is not self.inputs else self._copy(inputs)), **extra))

    def _named(self, result: Any) -> dict[str, Any]:
        result = asyncio.run(result) if inspect.iscoroutine(result) else result
        return named_outputs(result, tuple(self.block.get_output_spec().values()), self.block.block_id)

    @staticmethod
    def _copy(inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else copy.deepcopy(leaf), value)
            for name, value in inputs.items()
        }


_OF_MODULES = frozenset(vars(nn.Module())) | {"_config"}  # _parameters, _buffers, _modules, hooks; and what it was built from
_HOLDERS = (Mapping, list, tuple, set, frozenset, deque)


def _held(value: Any, place: str) -> Iterator[tuple[str, Tensor | nn.Module]]:
    """Tensors and modules in an attribute, with where they are; lists, mappings and dataclasses are looked into."""
    stack, seen = [(place, value)], set()
    while stack:
        where, held = stack.pop()
        if isinstance(held, (Tensor, nn.Module)):
            yield where, held
        elif id(held) in seen:
            continue
        elif isinstance(held, _HOLDERS):
            items = held.items() if isinstance(held, Mapping) else enumerate(held)
            stack += reversed([(f"{where}[{key!r}]", item) for key, item in items])
        elif is_dataclass(held) and not isinstance(held, type):
            stack += reversed([(f"{where}.{entry.name}", getattr(held, entry.name, None)) for entry in fields(held)])
        seen.add(id(held))


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _floats(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(tree)[0] if _is_float(leaf)]


def _same(first: Any, second: Any, atol: float) -> bool:
    """True when two trees of values agree, tensors within ``atol``, NaN where the other has NaN."""
    leaves, shape = tree_flatten(first)
    others, other_shape = tree_flatten(second)
    if shape != other_shape:
        return False
    for one, other in zip(leaves, others, strict=True):
        if isinstance(one, Tensor) and isinstance(other, Tensor):
            if one.shape != other.shape or not torch.allclose(one.double(), other.double(), rtol=atol, atol=atol, equal_nan=True):
                return False
        elif one is not other and one != other:
            return False
    return True
