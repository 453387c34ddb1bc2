"""Ports: named, typed inputs and outputs of an executable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor

from wgtorch.core.errors import PortError, PortTypeError, UnknownNameError
from wgtorch.core.kinds import describe, get_kind, mismatch

AGGREGATIONS = ("single", "concat", "sum", "first", "dict", "list")
Aggregation = Literal["single", "concat", "sum", "first", "dict", "list"]


class _Missing:
    """The mark of a value that is not there; falsy, one of a kind, also after copying."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False

    def __copy__(self) -> _Missing:
        return self

    def __deepcopy__(self, memo: dict) -> _Missing:
        return self

    def __reduce__(self) -> str:
        return "MISSING"


MISSING = _Missing()


@dataclass(frozen=True, slots=True)
class Port:
    """A named input or output.

    Args:
        name: the port's name; filled in from the mapping the port is declared in.
        direction: ``in`` or ``out``.
        dtype: the kind of value (``tensor``, ``text``, ``image``, ...), see :mod:`wgtorch.core.kinds`.
        optional: an input that need not be fed, or an output that may be left out.
        aggregation: how several edges into this input are combined; ``single`` refuses a second one.
        shape: pattern of a tensor's shape, e.g. ``("B", 3, None, None)``: a number must match, a letter must match
            itself within the pattern, None matches anything.
        default: value of an unfed input; its presence makes the port optional.
        description: what the value is, with its unit and range; ``help()`` of the block shows it.
        raw: what is no tensor comes as it is given, since its block has more to do with it than to make a tensor of it.

    Example:
        >>> Port(dtype="image", shape=("B", 3, "S", "S"), description="the pictures to enlarge, in [0, 1]")
    """

    name: str = ""
    direction: Literal["in", "out"] = "in"
    dtype: str = "any"
    optional: bool = False
    aggregation: Aggregation = "single"
    shape: tuple[int | str | None, ...] | None = None
    default: Any = MISSING
    description: str = field(default="", compare=False)
    raw: bool = False

    def __post_init__(self) -> None:
        get_kind(self.dtype)
        if self.aggregation not in AGGREGATIONS:
            raise PortError(f"port {self.name!r}: unknown aggregation {self.aggregation!r}; one of {AGGREGATIONS}")
        if self.default is not MISSING:
            object.__setattr__(self, "optional", True)

    def named(self, name: str, direction: Literal["in", "out"] | None = None) -> Port:
        """The same port under another name."""
        return replace(self, name=name, direction=direction or self.direction)

    def shape_text(self) -> str:
        """The shape's pattern as ``[B, 3, *]``; empty where any shape will do."""
        return "" if self.shape is None else f"[{', '.join('*' if size is None else str(size) for size in self.shape)}]"

    def why_not(self, source: Port) -> str | None:
        """Why ``source`` cannot feed this port, or None when it can."""
        return mismatch(source.dtype, self.dtype)

    def check(self, value: Any, *where: str) -> Any:
        """Checks a value and returns it normalised; each one of a list or mapping where the port combines sources to one.

        Args:
            value: what is to enter.
            where: parts of the port's path, joined only for a message.

        Raises:
            PortTypeError: the value is of another kind or shape.
        """
        if value is None and self.optional:
            return value
        if self.aggregation == "list" and isinstance(value, (list, tuple)):
            return [self._check_one(item, (*where, str(index))) for index, item in enumerate(value)]
        if self.aggregation == "dict" and isinstance(value, Mapping):
            return {key: self._check_one(item, (*where, str(key))) for key, item in value.items()}
        return self._check_one(value, where)

    def _check_one(self, value: Any, where: tuple[str, ...]) -> Any:
        kind = get_kind(self.dtype)
        if not kind.accepts(value):
            mend = "" if value is not None else ". A parameter of forward that takes None has a default: (..., x: Tensor | None = None)"
            raise PortTypeError(f"{'.'.join(where)}: got {describe(value)}; expected {kind.expects} (kind {kind.name!r}){mend}")
        try:
            value = value if self.raw and not isinstance(value, Tensor) else kind.normalise(value)
        except PortTypeError as error:
            raise PortTypeError(f"{'.'.join(where)}: {error}") from error
        if self.shape is not None and isinstance(value, Tensor) and not _fits(tuple(value.shape), self.shape):
            raise PortTypeError(f"{'.'.join(where)}: got shape {list(value.shape)}; expected {self.shape_text()}")
        return value


Spec = dict[str, Port]


def make_spec(declared: dict[str, str | Port], direction: Literal["in", "out"]) -> Spec:
    """Turns a declared mapping name -> kind or Port into a spec."""
    spec: Spec = {}
    for name, port in declared.items():
        port = Port(dtype=port) if isinstance(port, str) else port
        if not isinstance(port, Port):
            raise PortError(f"port {name!r}: declared as {describe(port)}; expected the name of a kind or a Port")
        spec[name] = port.named(name, direction)
    return spec


def check_declared(declared: Any, where: str) -> None:
    """Refuses a declaration of ports that is no mapping name -> kind or Port.

    Raises:
        PortTypeError: it is of another type.
        UnknownNameError: it names an unknown kind; the message has the nearest names.
    """
    if not isinstance(declared, Mapping):
        raise PortTypeError(f"{where} is {describe(declared)}; expected a mapping of kinds by port, such as {{'y': 'tensor'}}")
    for name, port in declared.items():
        if not isinstance(name, str):
            raise PortTypeError(f"{where}: a port is called {name!r}; expected a name as text")
        if isinstance(port, str):
            try:
                get_kind(port)
            except UnknownNameError as error:
                raise UnknownNameError(f"{where}[{name!r}]: {error}") from None
        elif not isinstance(port, Port):
            raise PortTypeError(f"{where}[{name!r}] is {describe(port)}; expected the name of a kind, such as 'tensor', or a Port")


def _fits(shape: tuple[int, ...], pattern: tuple[int | str | None, ...]) -> bool:
    if len(shape) != len(pattern):
        return False
    letters: dict[str, int] = {}
    for size, want in zip(shape, pattern, strict=True):
        if isinstance(want, str) and letters.setdefault(want, size) != size:
            return False
        if isinstance(want, int) and want != size:
            return False
    return True
