"""Ports and config read from Python signatures."""

from __future__ import annotations

import functools
import inspect
import math
import sys
import types
import typing
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from wgtorch.core.errors import ConfigError, StructureError, suggest
from wgtorch.core.kinds import describe, kind_of_annotation
from wgtorch.core.port import MISSING, Port, Spec

RESERVED = ("rng", "stream", "run_context")


def parameters_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Parameters of a function or bound method, without ``self``, annotations resolved where they can be."""
    if inspect.ismethod(function):  # asked for every block of a class, so read once for all
        return list(_parameters(function.__func__)[1:])
    known: Callable[..., Any] = function  # to mypy, a class may have no hash
    return list(_parameters(known) if isinstance(function, type) else _read_parameters(function))


@functools.lru_cache(maxsize=4096)
def _parameters(function: Callable[..., Any]) -> tuple[inspect.Parameter, ...]:
    return _read_parameters(function)


@functools.lru_cache(maxsize=4096)
def _signature(function: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(function)


def _read_parameters(function: Callable[..., Any]) -> tuple[inspect.Parameter, ...]:
    try:
        return tuple(inspect.signature(function, eval_str=True).parameters.values())
    except (NameError, TypeError, AttributeError):
        return tuple(inspect.signature(function).parameters.values())
    except ValueError:  # some functions written in C have no signature
        return ()


def spell_out_inherited(owner: type) -> None:
    """Has ``**name: Unpack[SomeTypedDict]`` of a class's constructor stand in its signature one by one (PEP 692).

    They are the arguments of that name of the class above, with its defaults and in its order, taken by name alone; before the class's
    own that are too. One that the constructor takes itself is its own.

    Raises:
        TypeError: the class above does not take one of them.
    """
    init = owner.__dict__.get("__init__")
    parameters = list(inspect.signature(init).parameters.values()) if init is not None else []
    rest = next((each for each in parameters if each.kind is each.VAR_KEYWORD and each.annotation is not each.empty), None)
    if init is None or rest is None:
        return
    stated = types.SimpleNamespace(__annotations__={rest.name: rest.annotation})
    try:
        passed_on = typing.get_type_hints(stated, init.__globals__)[rest.name]
    except Exception:  # of names that only type checkers see, or what is no type: whatever reading it raises
        return
    if typing.get_origin(passed_on) is not typing.Unpack:
        return
    (taken,) = typing.get_args(passed_on)
    hints = typing.get_type_hints(taken)
    above = inspect.signature(super(owner, owner).__init__).parameters  # type: ignore[arg-type, misc]
    if unknown := [name for name in hints if name not in above]:
        raise TypeError(f"{owner.__name__}.__init__: {taken.__name__} has {unknown[0]!r}, which the class above does not take")
    first, *own = [each for each in parameters if each is not rest]
    stated_here = {each.name for each in own}
    by_name = inspect.Parameter.KEYWORD_ONLY
    inherited = [
        parameter.replace(annotation=hints[name], kind=by_name)
        for name, parameter in above.items()
        if name in hints and name not in stated_here
    ]
    init.__signature__ = inspect.Signature([first, *sorted([*inherited, *own], key=lambda each: each.kind)])
    init.__annotations__ = {**hints, **{name: each for name, each in init.__annotations__.items() if name != rest.name}}


def check_passed_on(owner: type, given: Mapping[str, Any]) -> None:
    """Refuses arguments that a constructor would pass on to one that does not take them, in the name of the class that was called.

    Raises:
        TypeError: with the nearest argument that is taken.
    """
    spelled = getattr(owner.__init__, "__signature__", None)  # type: ignore[misc]
    if spelled is None or any(each.kind is each.VAR_KEYWORD for each in spelled.parameters.values()):
        return
    if unknown := [name for name in given if name not in spelled.parameters]:
        known = list(spelled.parameters)[1:]
        raise TypeError(f"{owner.__name__}.__init__() got an unexpected keyword argument {unknown[0]!r}; {suggest(unknown[0], known)}")


def input_spec_of(function: Callable[..., Any], declared: Mapping[str, Port]) -> Spec:
    """Input ports of ``forward``: those of its signature in order, then declared ones that it takes through ``**kwargs``.

    A declaration refines the port of the same name. A parameter with a default is optional; one without is not, unless its port
    has a default.
    """
    spec: Spec = {}
    open_ended = False
    for parameter in parameters_of(function):
        if parameter.name in RESERVED or parameter.kind is parameter.VAR_POSITIONAL:
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            open_ended = True
            continue
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise StructureError(
                f"{_named(function)}: parameter {parameter.name!r} is positional-only; inputs are passed by name, so drop the '/'"
            )
        has_default = parameter.default is not parameter.empty
        if parameter.name in declared:
            port = declared[parameter.name]
            is_optional = has_default or port.default is not MISSING
            spec[parameter.name] = port if port.optional == is_optional else replace(port, optional=is_optional)
        else:
            spec[parameter.name] = Port(parameter.name, dtype=kind_of_annotation(parameter.annotation), optional=has_default)
    for name, port in declared.items():
        if name not in spec:
            if not open_ended:
                raise StructureError(
                    f"{_named(function)}: input {name!r} is declared but not a parameter of forward; add it there, or take **inputs"
                )
            spec[name] = port
    return spec


def output_spec_of(function: Callable[..., Any]) -> Spec:
    """The single output ``output`` of a function whose return annotation is one value; empty when it says nothing."""
    try:
        annotation = typing.get_type_hints(function).get("return", inspect.Parameter.empty)
    except (NameError, TypeError, AttributeError):
        return {}
    if annotation in (inspect.Parameter.empty, None, type(None)):
        return {}
    kind = kind_of_annotation(annotation)
    return {} if kind == "dict" else {"output": Port("output", "out", kind)}


def positional_prefix(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names of the leading parameters that a call may pass by position."""
    names = []
    for parameter in parameters_of(function):
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD or parameter.name in RESERVED:
            break
        names.append(parameter.name)
    return tuple(names)


def arguments_with_defaults(function: Callable[..., Any]) -> frozenset[str]:
    """Names of the parameters that a call may leave out."""
    try:
        parameters = _signature(function).parameters.values()
    except (TypeError, ValueError):  # no function, or one written in C without a signature
        return frozenset()
    return frozenset(parameter.name for parameter in parameters if parameter.default is not parameter.empty)


def takes_argument(function: Callable[..., Any], name: str) -> bool:
    """True when the function has a parameter of this name."""
    code = getattr(function, "__code__", None)
    is_as_written = not hasattr(function, "__wrapped__") and not hasattr(function, "__signature__")
    if code is not None and is_as_written:  # asked of every block class, so at a hundredth of the cost
        return name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return any(parameter.name == name for parameter in parameters_of(function))


def config_of_call(init: Callable[..., Any], owner: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The constructor's arguments as a mapping, defaults included and containers copied.

    Raises:
        TypeError: the arguments do not fit; Python's own message, with the class in front.
    """
    signature = _signature(init)
    try:
        bound = signature.bind(None, *args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{owner.__name__}: {error}; signature is {owner.__name__}{_without_self(signature)}") from None
    bound.apply_defaults()
    config: dict[str, Any] = {}
    for index, (name, value) in enumerate(bound.arguments.items()):
        if index == 0:
            continue
        parameter = signature.parameters[name]
        if parameter.kind is parameter.VAR_KEYWORD:
            config.update(copy_plain(value))
        elif parameter.kind is parameter.VAR_POSITIONAL:
            if value:
                config[name] = [copy_plain(item) for item in value]
        else:
            config[name] = copy_plain(value)
    return config


def check_numbers(init: Callable[..., Any], config: Mapping[str, Any], where: str) -> None:
    """Refuses what is no finite number in arguments that are annotated as numbers: NaN, infinity, True, a text, a tensor of one element.

    Args:
        init: the constructor.
        config: what :func:`config_of_call` made of its call.
        where: whose constructor it is, for messages.

    Raises:
        ConfigError: with the argument and what it is.
    """
    for name, kind, has_none in _number_arguments(init):
        value = config.get(name)
        if kind == "several":
            if place := _nan_in(value, f"{where}.{name}"):
                raise ConfigError(f"{place}: found float nan; expected numbers")
        elif value is not None or not has_none:
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
            if not is_number or (kind == "int" and value % 1):  # type: ignore[operator]
                what = "a whole number" if kind == "int" else "a finite number"
                item = f"; write {type(value).__name__.lower()}.item()" if getattr(value, "shape", None) == () else ""
                raise ConfigError(f"{where}.{name}: found {describe(value)}; expected {what}{item}")


def _nan_in(value: Any, place: str) -> str | None:
    """Where the first NaN is in lists and mappings."""
    if isinstance(value, (list, dict)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return next((found for key, item in items if (found := _nan_in(item, f"{place}[{key!r}]"))), None)
    return place if isinstance(value, float) and math.isnan(value) else None


@functools.lru_cache(maxsize=4096)
def _number_arguments(init: Callable[..., Any]) -> tuple[tuple[str, str, bool], ...]:
    """Arguments that are annotated with numbers: (name, "int" or "float" where it is one number, else "several", whether None is one)."""
    found = []
    for parameter in _signature(init).parameters.values():
        text = parameter.annotation if isinstance(parameter.annotation, str) else inspect.formatannotation(parameter.annotation)
        members = {member.strip() for member in text.split("|")}
        has_none = "None" in members or parameter.default is None
        if members - {"None"} and members <= {"int", "float", "None"}:
            found.append((parameter.name, "float" if "float" in members else "int", has_none))
        elif "float" in text:
            found.append((parameter.name, "several", has_none))
    return tuple(found)


def copy_plain(value: Any) -> Any:
    """Copies dicts, lists and tuples (as lists), and leaves everything else as it is."""
    if isinstance(value, Mapping):
        return {key: copy_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [copy_plain(item) for item in value]
    return value


def copy_containers(value: Any) -> Any:
    """Copies dicts and lists, to any depth, and leaves everything else as it is."""
    if type(value) is dict:
        return {key: copy_containers(item) for key, item in value.items()}
    return [copy_containers(item) for item in value] if type(value) is list else value


def ensure_plain(value: Any, where: str) -> Any:
    """Copies plain data and refuses anything a YAML file could not hold.

    Raises:
        ConfigError: with the path of the value.
    """
    if value is None or type(value) in (bool, int, float, str):
        if type(value) is str and not value.isascii():
            _check_letters(value, where)
        return value
    if isinstance(value, (int, float, str)):  # as numpy.float64 is a float, and members of enumerations: YAML has no words for them
        return str.__str__(value) if isinstance(value, str) else int(value) if isinstance(value, int) else float(value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ConfigError(f"{where}: key {key!r} is {type(key).__name__}; keys of a config are str")
        return {key: ensure_plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [ensure_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    raise ConfigError(
        f"{where}: {describe(value)} is not plain data; a config holds dict, list, str, number, bool and null. "
        "Give the block a constructor of plain arguments, or register a block class that builds this value"
    )


def _check_letters(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{where}: text with half of a character ({text[error.start]!r}), which no file holds; "
            "write text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')"
        ) from None


def _named(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))


def _without_self(signature: inspect.Signature) -> inspect.Signature:
    return signature.replace(parameters=list(signature.parameters.values())[1:])


class InputSignature(inspect.Signature):
    """The signature of a composite's ``forward``: its exposed inputs as they are when it is asked for."""

    __slots__ = ("_composite",)

    def __init__(self, composite: Any) -> None:
        super().__init__()
        self._composite = weakref.ref(composite)

    def replace(self, **changes: Any) -> inspect.Signature:  # type: ignore[override]
        """An ordinary signature with some of it changed."""
        parameters = changes.get("parameters", self.parameters.values())
        return inspect.Signature(parameters, return_annotation=changes.get("return_annotation", self.return_annotation))

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:  # type: ignore[override]
        """By name; optional inputs are None where they are left out."""
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        found = {"self": inspect.Parameter("self", kind)}
        composite = self._composite()
        spec = {} if composite is None else composite.get_input_spec()
        ordered = sorted(spec.values(), key=lambda port: port.optional)
        for port in ordered:
            if port.name.isidentifier():
                found[port.name] = inspect.Parameter(port.name, kind, default=None if port.optional else inspect.Parameter.empty)
        return types.MappingProxyType(found)


def signed_forward(composite: Any, forward: Any) -> types.MethodType:
    """A composite's ``forward`` with its exposed inputs as signature."""
    own = types.FunctionType(forward.__code__, forward.__globals__, "forward", None, forward.__closure__)
    own.__kwdefaults__, own.__doc__, own.__module__ = forward.__kwdefaults__, forward.__doc__, type(composite).__module__
    own.__qualname__ = f"{type(composite).__name__}.forward"
    own.__signature__ = InputSignature(composite)  # type: ignore[attr-defined]
    return types.MethodType(own, composite)
