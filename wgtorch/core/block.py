"""Block: one model or one operation, with named ports."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Self

from torch import nn

from wgtorch.core.block_registry import BlockRegistry as BlockRegistry
from wgtorch.core.block_registry import build_block, with_its_weights
from wgtorch.core.block_registry import register_block as register_block
from wgtorch.core.block_traits import BlockTraits
from wgtorch.core.checkpoint.saved import Saved
from wgtorch.core.config.resolve import escaped, resolve_environment
from wgtorch.core.config.schema import SCHEMA_VERSION
from wgtorch.core.errors import ConfigError, StructureError, StructureTypeError, suggest
from wgtorch.core.kinds import describe
from wgtorch.core.pool import building
from wgtorch.core.port import Port, Spec, check_declared, make_spec
from wgtorch.core.port_docs import DocWithPorts
from wgtorch.core.run.port_checks import check_inputs, named_outputs
from wgtorch.core.signature import (
    arguments_with_defaults,
    check_numbers,
    check_passed_on,
    config_of_call,
    copy_plain,
    ensure_plain,
    input_spec_of,
    output_spec_of,
    parameters_of,
    spell_out_inherited,
    takes_argument,
)


class Block(BlockTraits, Saved, nn.Module):
    """An ``nn.Module`` with named, typed ports.

    Constructor arguments are the block's config. Input ports come from the signature of ``forward`` (a parameter with a
    default is optional) and may be refined in ``inputs``; output ports are declared in ``outputs``, or there is one,
    ``output``, when ``forward`` is annotated to return a single value.

    ``forward`` is called with values by port name and returns a mapping by output name, or the bare value when there is
    one output. It must not change its inputs. A parameter named ``rng`` is no port: the engine passes an
    :class:`~wgtorch.core.run.rng.Rng` there; nor is ``stream``, a function that tells callbacks of parts of an output before all of
    it is there (``stream(text="Once")``), None where nobody listens. A block whose ``forward`` is ``async``, or
    that sets ``is_async = True``, waits on a network: the engine lets other nodes run meanwhile.

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

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        check_passed_on(cls, kwargs)
        self = super().__new__(cls)
        object.__setattr__(self, "_given", (args, kwargs))
        return self

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for which in ("inputs", "outputs"):
            if isinstance(declared := cls.__dict__.get(which, {}), property):
                continue
            check_declared(declared, f"{cls.__name__}.{which}")
        cls.__doc__ = DocWithPorts(cls.__dict__.get("__doc__"))  # type: ignore[assignment]
        cls._optional_inputs = arguments_with_defaults(cls.__dict__["forward"]) if "forward" in cls.__dict__ else frozenset()
        cls.wants_rng = takes_argument(cls.forward, "rng")
        cls.wants_stream = takes_argument(cls.forward, "stream")
        if inspect.iscoroutinefunction(cls.forward):
            cls.is_async = True
        spell_out_inherited(cls)
        if (init := cls.__dict__.get("__init__")) is not None and takes_argument(init, "checkpoint_ref"):
            cls.__init__ = with_its_weights(init)  # type: ignore[method-assign]

    def __init__(self) -> None:
        super().__init__()
        args, kwargs = self.__dict__.pop("_given", ((), {}))
        if type(self)._takes_config:
            init = type(self).__init__
            self._config = config_of_call(init, type(self), args, kwargs)
            if (init.__module__ or "").startswith("wgtorch."):  # what blocks of others take is theirs to say
                check_numbers(init, self._config, type(self).__name__)
        self._frozen = False
        self._block_id: str | None = None

    _takes_config: ClassVar[bool] = True
    _has_interpolations = False
    """True where the config was given with ``${oc.env:NAME}`` or escaped texts in it; what a constructor is given is taken as it stands."""
    _optional_inputs: ClassVar[frozenset[str]] = frozenset()
    """What the class's own ``forward`` can do without; a subclass whose ``forward(self, **inputs)`` passes them on can as well."""

    def __dir__(self) -> list[str]:
        """What completion offers: no private names, PyTorch's included."""
        return [name for name in super().__dir__() if not name.startswith("_") or name.startswith("__")]

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
        """Builds a block from its config, with the weights that a ``checkpoint_ref`` in it names."""
        if config.get("checkpoint_ref") is None or takes_argument(cls, "checkpoint_ref"):
            own = takes_argument(cls, "checkpoint_ref")
            return cls(**{name: value for name, value in config.items() if own or name != "checkpoint_ref"})
        return build_block(cls, resolve_environment(dict(config), cls.__name__), config, empty=False)  # type: ignore[return-value]

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
        config = ensure_plain(self._config, self.block_type)
        return {"block_type": self.block_type, "config": config if self._has_interpolations else escaped(config)}

    def saved_config(self) -> dict[str, Any]:
        """The config that checkpoints hold."""
        return {"schema_version": SCHEMA_VERSION, "kind": "block", **self.to_config()}

    @classmethod
    def from_saved_config(cls, config: Mapping[str, Any], *, base: str | os.PathLike[str] | None = None, empty: bool = False) -> Self:
        """Builds from what :meth:`saved_config` gave; ``empty`` leaves weights without memory, for the caller to give."""
        kind = config.get("kind")
        if kind != "block" or not isinstance(config.get("block_type"), str):
            raise ConfigError(
                f"{cls.__name__}: the config is of kind {kind!r}, not 'block'; load it with {str(kind).capitalize()}, or name a part"
            )
        with building(empty=empty):
            block = BlockRegistry.build({"block_type": config["block_type"], "config": config.get("config") or {}})
        if not isinstance(block, cls):
            raise ConfigError(f"{config['block_type']!r} is a {type(block).__name__}; {cls.__name__} cannot load it")
        return block

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
        for name in self.routes:
            if name not in spec:
                raise StructureError(f"{type(self).__name__}.routes: {name!r} is no output; {suggest(str(name), spec)}")
            spec[name] = replace(spec[name], optional=True)
        if not spec:
            raise StructureError(
                f"{type(self).__name__} declares no outputs; write outputs = {{'name': 'kind'}} on the class, "
                "or annotate what forward returns when it is one value"
            )
        return spec

    def check_ports(self) -> None:
        """Refuses a block that was never set up, or that declares its own ports wrongly.

        Raises:
            StructureError: ``__init__`` does not call ``super().__init__()``.
            PortError: a port is declared as something else than a kind.
        """
        if "_frozen" not in self.__dict__:
            name = type(self).__name__
            raise StructureError(f"{name}.__init__ does not call super().__init__(); write that call as its first line")
        if "outputs" in self.__dict__ or "inputs" in self.__dict__:
            for which in ("inputs", "outputs"):
                check_declared(self._declared(which), f"{type(self).__name__}.{which}")

    def _declared(self, which: str) -> dict[str, str | Port]:
        """The instance's own declaration where it has one, else the class's."""
        return self.__dict__[which] if which in self.__dict__ else self._class_declared(which)

    @classmethod
    def _class_declared(cls, which: str) -> dict[str, str | Port]:
        """Declarations of all base classes, the most special last; what a base says a port is holds until another says it anew."""
        merged: dict[str, str | Port] = {}
        for base in reversed(cls.__mro__):
            for name, port in base.__dict__.get(which, {}).items():
                before = merged.get(name)
                if isinstance(before, Port) and before.description:
                    port = Port(dtype=port) if isinstance(port, str) else port
                    port = port if port.description else replace(port, description=before.description)
                merged[name] = port
            for name in base.__dict__.get("_optional_inputs", ()) if which == "inputs" else ():
                if name in merged:
                    port = merged[name]
                    merged[name] = Port(dtype=port, optional=True) if isinstance(port, str) else replace(port, optional=True)
        return merged

    @classmethod
    def class_ports(cls) -> tuple[Spec, Spec]:
        """Input and output ports as far as the class tells them; an instance may have others."""
        declared = make_spec(cls._class_declared("inputs"), "in")
        try:
            inputs = {name: port for name, port in input_spec_of(cls.forward, declared).items() if name != "self"}
        except (StructureError, AttributeError, TypeError):  # an abstract class has no forward that takes them
            inputs = declared
        return inputs, make_spec(cls._class_declared("outputs"), "out") or output_spec_of(cls.forward)

    @classmethod
    def converts(cls, source: str, target: str) -> bool:
        """True when the class declares an input of kind ``source``, needs no other, and has an output of kind ``target``."""
        inputs, outputs = cls.class_ports()
        needed = [port.dtype for port in inputs.values() if not port.optional]
        return needed == [source] and target in [port.dtype for port in outputs.values()]

    def precompute_invariants(self, **inputs: Any) -> Mapping[str, Any]:
        """Told once, before a loop that it stands in, the inputs of ``invariant_ports`` that no turn of it changes.

        Not called at a place that maps, may be skipped, is frozen or has adapters, nor for a dry run.

        Returns:
            Values by port that ``forward`` is called with in their place, in every turn: what can be computed once.
        """
        return {}

    def node_facts(self) -> list[str]:
        """What is worth a word in the summary of the level that it stands in."""
        return []

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
        self.check_ports()
        where = self.block_id
        checked = check_inputs(inputs or {}, self.get_input_spec(), where)
        return named_outputs(self(**checked), tuple(self.get_output_spec().values()), where)

    # --- training -----------------------------------------------------------------------------------------------------

    def trainable_parameters(self, through: Collection[str] | None = None) -> Iterator[nn.Parameter]:
        """Parameters that require gradients, each once; ``through`` is for levels, whose places may be chosen."""
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
        is_async: bool = False,
        rows_are_samples: bool = False,
    ) -> Block:
        """Makes a block of any module or function.

        Args:
            target: an ``nn.Module`` or a function.
            inputs: ports for what the signature does not tell; ``{"x": "tensor"}`` names the first argument ``x``.
            outputs: ports of what it returns; needed unless the return annotation is a single value.
            is_async: the call spends its time waiting on a network.
            rows_are_samples: promises that rows of the tensors that go in and come out are samples, each of which depends on its own row
                alone; ``batch`` and a server then make one call for several items.

        Example:
            >>> Block.wrap(torch.nn.Linear(4, 4), inputs={"x": "tensor"}, outputs={"y": "tensor"})
        """
        return WrappedBlock(target, inputs=inputs, outputs=outputs, is_async=is_async, rows_are_samples=rows_are_samples)


class WrappedBlock(Block):
    """A block around a module or function that is none; made by :meth:`Block.wrap`."""

    _takes_config = False
    ref_module = "target"  # files of others name its layers as the module does

    def __init__(
        self,
        target: nn.Module | Callable[..., Any],
        *,
        inputs: Mapping[str, str | Port] | None = None,
        outputs: Mapping[str, str | Port] | None = None,
        is_async: bool = False,
        rows_are_samples: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(target, type) and issubclass(target, nn.Module):
            raise StructureTypeError(
                f"Block.wrap: got the class {target.__name__}; expected an instance: write {target.__name__}(...) with its arguments"
            )
        if not callable(target):
            raise StructureTypeError(f"Block.wrap: got {describe(target)}; expected an nn.Module or a function")
        for which, declared in (("inputs", inputs), ("outputs", outputs)):
            check_declared({} if declared is None else declared, f"Block.wrap: {which}=")
        function = target.forward if isinstance(target, nn.Module) else target
        self.target = target
        self.rows_are_samples = rows_are_samples
        self.is_async = is_async or inspect.iscoroutinefunction(function)
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
