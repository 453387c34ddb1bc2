"""Block: one model or one operation, with named ports."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Self

from torch import nn

from wgtorch.core.errors import MissingInputError, PortError, StructureError, suggest
from wgtorch.core.kinds import describe
from wgtorch.core.port import Port, Spec, make_spec
from wgtorch.core.registry import Registry
from wgtorch.core.resolve import resolve_environment
from wgtorch.core.schema import check_block_config
from wgtorch.core.signature import config_of_call, copy_plain, ensure_plain, input_spec_of, output_spec_of, parameters_of, takes_argument
from wgtorch.core.weights import load_checkpoint


class Block(nn.Module):
    """An ``nn.Module`` with named, typed ports.

    Constructor arguments are the block's config. Input ports come from the signature of ``forward`` (a parameter with a
    default is optional) and may be refined in ``inputs``; output ports are declared in ``outputs``, or there is one,
    ``output``, when ``forward`` is annotated to return a single value.

    ``forward`` is called with values by port name and returns a mapping by output name, or the bare value when there is
    one output. It must not change its inputs. A parameter named ``rng`` is no port: the engine passes an
    :class:`~wgtorch.core.rng.Rng` there. A block whose ``forward`` is ``async``, or that sets ``waits = True``, waits on
    a network: the engine lets other nodes run meanwhile.

    Example:
        >>> class Scale(Block):
        ...     outputs = {"y": "tensor"}
        ...     def __init__(self, factor: float = 2.0):
        ...         super().__init__()
        ...         self.factor = factor
        ...     def forward(self, x: Tensor):
        ...         return x * self.factor
        >>> Scale(3.0).run({"x": torch.ones(1)})
        {'y': tensor([3.])}
    """

    inputs: Mapping[str, str | Port] = {}
    outputs: Mapping[str, str | Port] = {}
    block_type: ClassVar[str] = ""
    level: ClassVar[str] = "block"
    role: str = ""
    waits: bool = False
    """True when ``forward`` spends its time waiting, as a call over a network does."""
    batched: bool = False
    """True when a mapped port may be given the whole list in one call; outputs are then lists of the same length."""
    draws: bool = True
    """False promises that ``forward`` never touches PyTorch's global random generator."""

    wants_rng: bool = False
    """True when ``forward`` has a parameter ``rng``; derived."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        object.__setattr__(self, "_given", (args, kwargs))
        return self

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.wants_rng = takes_argument(cls.forward, "rng")
        if inspect.iscoroutinefunction(cls.forward):
            cls.waits = True

    def __init__(self) -> None:
        super().__init__()
        args, kwargs = self.__dict__.pop("_given", ((), {}))
        if type(self)._takes_config:
            self._config = config_of_call(type(self).__init__, type(self), args, kwargs)
        self._frozen = False
        self._block_id: str | None = None

    _takes_config: ClassVar[bool] = True

    # --- identity -----------------------------------------------------------------------------------------------------

    @property
    def block_id(self) -> str:
        """The block's own name: what it was given, else its type."""
        return self._block_id or self.block_type or type(self).__name__

    @block_id.setter
    def block_id(self, value: str) -> None:
        self._block_id = value

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data; ``type(block).from_config(block.config)`` builds its equal."""
        return copy_plain(self._config)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Builds a block from its config."""
        return cls(**config)

    def to_config(self) -> dict[str, Any]:
        """``{"block_type": ..., "config": {...}}``, plain data.

        Raises:
            StructureError: the class is not registered, so no config can name it.
            ConfigError: an argument is not plain data.
        """
        if not self.block_type:
            raise StructureError(
                f"{type(self).__name__} has no block_type, so a config cannot name it; put @register_block('...') on the class"
            )
        return {"block_type": self.block_type, "config": ensure_plain(self._config, self.block_type)}

    # --- ports --------------------------------------------------------------------------------------------------------

    def get_input_spec(self) -> Spec:
        """Input ports by name, in order."""
        declared = make_spec(self._declared("inputs"), "in")
        return input_spec_of(self.forward, declared)

    def get_output_spec(self) -> Spec:
        """Output ports by name, in order.

        Raises:
            StructureError: the block declares no outputs and ``forward`` does not say what it returns.
        """
        declared = self._declared("outputs")
        spec = make_spec(declared, "out") if declared else output_spec_of(self.forward)
        if not spec:
            raise StructureError(
                f"{type(self).__name__} declares no outputs; write outputs = {{'name': 'kind'}} on the class, "
                "or annotate what forward returns when it is one value"
            )
        return spec

    def _declared(self, which: str) -> dict[str, str | Port]:
        """The instance's own declaration where it has one, else the class's."""
        return self.__dict__[which] if which in self.__dict__ else self._class_declared(which)

    @classmethod
    def _class_declared(cls, which: str) -> dict[str, str | Port]:
        """Declarations of all base classes, the most special last."""
        merged: dict[str, str | Port] = {}
        for base in reversed(cls.__mro__):
            merged.update(base.__dict__.get(which, {}))
        return merged

    @classmethod
    def turns(cls, source: str, target: str) -> bool:
        """True when the class declares an input of kind ``source``, needs no other, and has an output of kind ``target``."""
        try:
            inputs = input_spec_of(cls.forward, make_spec(cls._class_declared("inputs"), "in")).values()
            outputs = make_spec(cls._class_declared("outputs"), "out").values()
        except (StructureError, AttributeError, TypeError):
            return False
        needed = [port.dtype for port in inputs if not port.optional and port.name != "self"]
        return needed == [source] and target in [port.dtype for port in outputs]

    # --- running ------------------------------------------------------------------------------------------------------

    def run(self, inputs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Calls the block with checking: unknown, missing and wrongly-typed inputs are errors.

        Args:
            inputs: values by port name.

        Returns:
            Values by output name.

        Raises:
            PortError: an input is unknown, missing or of the wrong kind, or ``forward`` returned something else than
                it declares.
        """
        where = self.block_id
        checked = check_inputs(inputs or {}, self.get_input_spec(), where)
        return named_outputs(self(**checked), tuple(self.get_output_spec().values()), where)

    # --- training -----------------------------------------------------------------------------------------------------

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters that require gradients, each once."""
        return (parameter for parameter in self.parameters() if parameter.requires_grad)

    def freeze(self) -> Self:
        """Stops gradients to the parameters and keeps the block in ``eval``, also when what holds it is set to train."""
        self.requires_grad_(False)
        self.eval()
        self._frozen = True
        return self

    def unfreeze(self) -> Self:
        """Undoes :meth:`freeze`."""
        self._frozen = False
        self.requires_grad_(True)
        return self.train()

    def train(self, mode: bool = True) -> Self:
        """As ``nn.Module.train``; a frozen block stays in ``eval``."""
        return super().train(mode and not self._frozen)

    @staticmethod
    def wrap(
        target: nn.Module | Callable[..., Any],
        *,
        inputs: Mapping[str, str | Port] | None = None,
        outputs: Mapping[str, str | Port] | None = None,
        waits: bool = False,
    ) -> Block:
        """Makes a block of any module or function.

        Args:
            target: an ``nn.Module`` or a function.
            inputs: ports for what the signature does not tell; ``{"x": "tensor"}`` names the first argument ``x``.
            outputs: ports of what it returns; needed unless the return annotation is a single value.
            waits: the call spends its time waiting on a network.

        Example:
            >>> Block.wrap(torch.nn.Linear(4, 4), inputs={"x": "tensor"}, outputs={"y": "tensor"})
        """
        return WrappedBlock(target, inputs=inputs, outputs=outputs, waits=waits)


class WrappedBlock(Block):
    """A block around a module or function that is none; made by :meth:`Block.wrap`."""

    _takes_config = False

    def __init__(
        self,
        target: nn.Module | Callable[..., Any],
        *,
        inputs: Mapping[str, str | Port] | None = None,
        outputs: Mapping[str, str | Port] | None = None,
        waits: bool = False,
    ) -> None:
        super().__init__()
        if not callable(target):
            raise TypeError(f"Block.wrap: got {describe(target)}; expected an nn.Module or a function")
        function = target.forward if isinstance(target, nn.Module) else target
        self.target = target
        self.waits = waits or inspect.iscoroutinefunction(function)
        self.wants_rng = takes_argument(function, "rng")
        own = [parameter.name for parameter in parameters_of(function) if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
        given = dict(inputs or {})
        # Names that are not the function's own rename its first arguments: {"x": ...} for Linear.forward(input).
        renamed = bool(given) and not set(given) <= set(own)
        self._order = tuple(given) if renamed else ()
        if renamed:
            self.inputs = given
        else:
            self.inputs = input_spec_of(function, make_spec(given, "in"))
        self.outputs = dict(outputs) if outputs else output_spec_of(function)

    @property
    def block_id(self) -> str:
        return self._block_id or str(getattr(self.target, "__name__", type(self.target).__name__))

    @block_id.setter
    def block_id(self, value: str) -> None:
        self._block_id = value

    def forward(self, **inputs: Any) -> Any:
        """Calls what was wrapped."""
        if self._order:
            positional = [inputs[name] for name in self._order if name in inputs]
            return self.target(*positional)
        return self.target(**inputs)

    def to_config(self) -> dict[str, Any]:
        raise StructureError(
            f"the wrapped {self.block_id} cannot be written to a config; register a block class around it with @register_block"
        )


# --- checking ---------------------------------------------------------------------------------------------------------


def check_inputs(inputs: Mapping[str, Any], spec: Mapping[str, Port], where: str) -> dict[str, Any]:
    """Checks names and kinds of inputs and normalises the values.

    Raises:
        PortError: lists everything that is unknown, missing or of the wrong kind.
    """
    if not isinstance(inputs, Mapping):
        raise PortError(f"{where}: inputs are {describe(inputs)}; expected a mapping by port name, {suggest('', spec)}")
    for name in inputs:
        if name not in spec:
            raise PortError(f"{where}: unknown input {name!r}; {suggest(name, spec)}")
    missing = [name for name, port in spec.items() if not port.optional and name not in inputs]
    if missing:
        kinds = ", ".join(f"{name!r} ({spec[name].dtype})" for name in missing)
        raise MissingInputError(f"{where}: missing input {kinds}; given: {sorted(inputs) or 'nothing'}")
    return {name: spec[name].check(value, f"{where}.{name}") for name, value in inputs.items()}


def named_outputs(result: Any, ports: tuple[Port, ...], where: str) -> dict[str, Any]:
    """What ``forward`` returned as a mapping by output name.

    Raises:
        PortError: a bare value where there are several outputs, an output missing or undeclared.
    """
    if isinstance(result, Mapping) and not (len(ports) == 1 and ports[0].dtype == "dict" and ports[0].name not in result):
        unknown = [name for name in result if name not in {port.name for port in ports}]
        missing = [port.name for port in ports if port.name not in result and not port.optional]
        if unknown or missing:
            raise PortError(
                f"{where}: forward returned {sorted(map(str, result))}; expected {[port.name for port in ports]}, as declared in outputs"
            )
        return dict(result)
    if len(ports) != 1:
        raise PortError(f"{where}: forward returned {describe(result)}; expected a mapping with {[port.name for port in ports]}")
    return {ports[0].name: result}


# --- the registry of blocks -------------------------------------------------------------------------------------------


class _BlockRegistry(Registry[type[Block]]):
    """Registered block classes by ``block_type``."""

    def build(self, entry: Mapping[str, Any]) -> Block:
        """Builds a block from ``{"block_type": ..., "config": {...}}``.

        Raises:
            UnknownNameError: no such type; the nearest names are in the message.
            ConfigError: the config does not fit the constructor.
        """
        block_class = self.get(entry["block_type"])
        written = ensure_plain(entry.get("config") or {}, entry["block_type"])
        resolved = resolve_environment(written, entry["block_type"])
        check_block_config(block_class, resolved, f"{entry['block_type']}.config")
        ref = None if takes_argument(block_class, "checkpoint_ref") else resolved.pop("checkpoint_ref", None)
        block = block_class.from_config(resolved)
        if ref is not None:
            load_checkpoint(block, ref)
        if resolved != written:
            block._config.update(written)  # as it was written: what came from the environment stays there
        return block

    def converting(self, source: str, target: str) -> list[str]:
        """Types of registered blocks with an input of kind ``source`` and an output of kind ``target``."""
        return sorted(name for name, block_class in self._entries.items() if block_class.turns(source, target))


BlockRegistry = _BlockRegistry(
    "block type",
    group="wgtorch.blocks",
    extras={"diffusers/": "diffusers", "llm/": "api", "vlm/": "api"},
)


def register_block(block_type: str) -> Callable[[type[Any]], type[Any]]:
    """Class decorator: makes a block class known to configs under ``block_type``.

    Example:
        >>> @register_block("demo/scale")
        ... class Scale(Block): ...
    """

    def decorate(block_class: type[Any]) -> type[Any]:
        block_class.block_type = block_type
        BlockRegistry.register(block_type, block_class)
        return block_class

    return decorate
