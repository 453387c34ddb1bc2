"""What belongs to one use of a shared block and must not be felt by another.

A frozen use must let gradients pass through the block's computation and add none to its weights, while another use of the
same block in the same backward pass trains it. ``requires_grad`` cannot say that: it belongs to the weight, not to the use.
``torch.func.functional_call`` swaps weights inside the module while the call lasts: another thread that trains through the
module meanwhile would lose its gradients, and what is computed again during backward (gradient checkpointing) would meet
the true weights. So a frozen use calls a *twin*: the same tree of modules with the same buffers and attributes, whose
parameters are detached views of the same memory.
"""

from __future__ import annotations

import functools
import threading
import types
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from wgtorch.core.checkpoint.shared_tensors import place_in_memory
from wgtorch.core.model_memory import GUARD, in_use

_twins: weakref.WeakKeyDictionary[nn.Module, DetachedTwin] = weakref.WeakKeyDictionary()
_guard = threading.Lock()
_TREE = ("_parameters", "_modules")
_ATOMS = (str, int, float, bool, type(None), torch.Tensor, types.FunctionType, type, torch.dtype, torch.device)
_DEEP = 4


def call_detached(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Calls a module so that gradients pass through its computation and none reach its weights.

    ``requires_grad`` is not touched, and nothing inside the module is: other uses, in this thread or another, train.
    """
    if torch.compiler.is_compiling():  # swapping is symbolic there: nobody else sees it
        detached = _detached(module)
        return functional_call(module, detached, args, dict(kwargs), tie_weights=False) if detached else module(*args, **kwargs)
    if not any(weight.requires_grad for weight in module.parameters()):
        return module(*args, **kwargs)
    if GUARD in module.__dict__:
        with in_use((module,)) as results:  # the twin's weights are views of the module's, where those are now
            results.append(result := _call_twin(module, args, kwargs))
            return result
    return _call_twin(module, args, kwargs)


def _call_twin(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    with _guard:
        twin = _twins.get(module)
        if twin is None or not twin.is_of(module):
            twin = _twins[module] = DetachedTwin(module)
        twin.follow()
    try:
        return twin.root(*args, **kwargs)
    finally:
        twin.give_back()


def _detached(module: nn.Module) -> dict[str, torch.Tensor]:
    """Detached parameters by name, one name for each module that holds one: a block that stands at two places is
    one module, and swapping its weight twice would leave the first swap's in it."""
    found: dict[str, torch.Tensor] = {}
    views: dict[int, torch.Tensor] = {}
    for path, part in module.named_modules():
        for name, weight in part._parameters.items():
            if weight is not None and weight.requires_grad:
                if id(weight) not in views:
                    views[id(weight)] = weight.detach()
                found[f"{path}.{name}" if path else name] = views[id(weight)]
    return found


class DetachedTwin:
    """A module's tree again, with detached parameters. It holds no module of the original tree alive."""

    def __init__(self, module: nn.Module) -> None:
        originals = list(module.modules())
        self.twins: dict[int, nn.Module] = {id(part): part.__class__.__new__(part.__class__) for part in originals}
        self.pairs = [(weakref.ref(part), self.twins[id(part)]) for part in originals]
        self.given: list[dict[str, Any]] = [{} for _ in originals]
        self.views: dict[int, nn.Parameter] = {}
        self.shape = _shape(module)
        self.root = self.twins[id(module)]

    def is_of(self, module: nn.Module) -> bool:
        """False once a module of the tree was put in, taken out or replaced."""
        return self.shape == _shape(module)

    def follow(self) -> None:
        """Takes over what the original's modules are now."""
        parts: list[Any] = [reference() for reference, _ in self.pairs]
        weights = [weight for part in parts for weight in part._parameters.values() if weight is not None]
        self.views = {id(weight): self._view(weight) for weight in weights}
        for part, (_, twin), given in zip(parts, self.pairs, self.given, strict=True):
            own = twin.__dict__
            for name, value in part.__dict__.items():
                if name == "_parameters":
                    own[name] = {key: None if weight is None else self.views[id(weight)] for key, weight in value.items()}
                elif name == "_modules":
                    own[name] = {key: None if child is None else self.twins[id(child)] for key, child in value.items()}
                else:
                    given[name] = own[name] = value if isinstance(value, _ATOMS) else self._rewired(value, _DEEP)
            for name in [name for name in own if name not in part.__dict__]:
                del own[name]
                given.pop(name, None)

    def give_back(self) -> None:
        """Keeps plain attributes that the call has set on the original, as a call of it would have."""
        for (reference, twin), given in zip(self.pairs, self.given, strict=True):
            part = reference()
            for name, value in list(twin.__dict__.items()):
                if part is not None and name not in _TREE and given.get(name, _TREE) is not value and not isinstance(value, nn.Module):
                    given[name] = value
                    part.__dict__[name] = value

    def _view(self, weight: nn.Parameter) -> nn.Parameter:
        # A view keeps the memory from being used anew; a weak reference to the weight is what torch.utils.swap_tensors would refuse.
        view = self.views.get(id(weight))
        if view is not None and place_in_memory(view) == place_in_memory(weight):
            return view
        return nn.Parameter(weight.detach(), requires_grad=False)

    def _rewired(self, value: Any, depth: int) -> Any:
        """The value, with modules and methods of the original tree replaced by their twins; itself where it has none."""
        if isinstance(value, nn.Parameter):
            known = self.views.get(id(value))
            return known if known is not None and place_in_memory(known) == place_in_memory(value) else value
        if isinstance(value, nn.Module):
            return self.twins.get(id(value), value)
        if isinstance(value, types.MethodType):
            owner = self.twins.get(id(value.__self__))
            return value if owner is None else types.MethodType(value.__func__, owner)
        if isinstance(value, weakref.ReferenceType) or depth == 0:
            return value
        if isinstance(value, functools.partial):
            parts = [self._rewired(part, depth - 1) for part in (value.func, value.args, value.keywords)]
            changed = any(new is not old for new, old in zip(parts, (value.func, value.args, value.keywords), strict=True))
            return functools.partial(parts[0], *parts[1], **parts[2]) if changed else value
        if type(value) in (list, tuple):
            items = [self._rewired(item, depth - 1) for item in value]
            return type(value)(items) if any(new is not old for new, old in zip(items, value, strict=True)) else value
        if type(value) is dict:
            entries = {key: self._rewired(item, depth - 1) for key, item in value.items()}
            return entries if any(entries[key] is not item for key, item in value.items()) else value
        return value


def _shape(module: nn.Module) -> tuple[int, ...]:
    return tuple(id(part) for part in module.modules())
