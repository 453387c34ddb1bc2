"""YAML text to plain data, with limits, so that a hostile file is an error and not a crash.

PyYAML's own composer recurses for every nesting (a hundred thousand ``[`` end the process) and shares aliased values,
which expand to any size when they are walked. Here the parser's events are put together one by one: depth, size and
aliases are counted on the way, and a tag can name nothing but the plain types.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from wgtorch.core.errors import ConfigError
from wgtorch.core.limits import check_limit

MAX_DEPTH = 500
"""How deep values of a config may lie in each other: three times as deep as its levels."""
MAX_VALUES = 500_000
"""Values that one file of a config may hold."""
MAX_TEXT = 16 << 20
"""Characters of YAML."""
_YAML = "tag:yaml.org,2002:"
_PLAIN = frozenset(f"{_YAML}{name}" for name in ("null", "bool", "int", "float"))
_ALLOWED = _PLAIN | {f"{_YAML}{name}" for name in ("str", "map", "seq")}


def parse_yaml(text: str, most: int | None = None) -> Any:
    """Reads one YAML document of mappings, lists, text, numbers, booleans and null.

    Raises:
        ConfigError: it is no YAML, names a tag, refers to itself, holds a key twice, or is too deep or too large.
    """
    import yaml

    check_limit(len(text), MAX_TEXT, "{} characters", "YAML", ConfigError, "Write a config this large as JSON")
    try:
        return _Reader(yaml, most or MAX_VALUES).read(text)
    except yaml.YAMLError as error:
        if "nesting depth" in str(error):  # libyaml counts too, and may give up before us
            raise ConfigError(f"nested deeper than libyaml reads: {error}") from error
        raise ConfigError(f"not valid YAML: {error}") from error
    except (ValueError, OverflowError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"not valid YAML: {error}") from error


def write_yaml(data: Any) -> str:
    """Plain data as YAML text, however deep: events go to the emitter one by one, where PyYAML's own writer recurses."""
    import yaml

    dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return yaml.emit(_events(data, yaml), Dumper=dumper, allow_unicode=True, width=120)


def _events(data: Any, yaml: Any) -> Iterator[Any]:
    scalars, resolver = yaml.representer.SafeRepresenter(), yaml.resolver.Resolver()
    yield yaml.StreamStartEvent()
    yield yaml.DocumentStartEvent(explicit=False)
    waiting: list[Any] = [iter([data])]
    ends: list[Any] = [yaml.DocumentEndEvent(explicit=False)]
    while waiting:
        value = next(waiting[-1], _END)
        if value is _END:
            waiting.pop()
            yield ends.pop()
        elif isinstance(value, Mapping):
            yield yaml.MappingStartEvent(None, None, True, flow_style=False)
            waiting.append(chain.from_iterable(value.items()))
            ends.append(yaml.MappingEndEvent())
        elif isinstance(value, (list, tuple)):
            yield yaml.SequenceStartEvent(None, None, True, flow_style=False)
            waiting.append(iter(value))
            ends.append(yaml.SequenceEndEvent())
        else:
            node = scalars.represent_data(value)
            implicit = tuple(resolver.resolve(yaml.ScalarNode, node.value, kind) == node.tag for kind in ((True, False), (False, True)))
            yield yaml.ScalarEvent(None, node.tag, implicit, node.value, style=node.style)
    yield yaml.StreamEndEvent()


class _Open:
    """A mapping or list that is being read."""

    __slots__ = ("anchor", "key", "own", "size", "value")

    def __init__(self, value: dict | list, anchor: str | None, size: int) -> None:
        self.value = value
        self.anchor = anchor
        self.size = size
        self.key: Any = _NO_KEY
        self.own: set[Any] = set()  # keys of its own; those that "<<" brought may be written over


_NO_KEY, _END = object(), object()
_MERGE = object()


class _Reader:
    def __init__(self, yaml: Any, most: int) -> None:
        self.yaml = yaml
        self.most = most
        self.resolver = yaml.resolver.Resolver()
        self.constructor = yaml.constructor.SafeConstructor()
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.stack: list[_Open] = []
        self.result: Any = None
        self.count = 0

    def read(self, text: str) -> Any:
        yaml, documents = self.yaml, 0
        scalar, ends = yaml.ScalarEvent, (yaml.MappingEndEvent, yaml.SequenceEndEvent)
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            kind = type(event)
            if kind is scalar:
                value = self.scalar(event)
                self.add(value, 1, event)
                self.remember(event.anchor, value, 1)
            elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                self.check_tag(event)
                if len(self.stack) >= MAX_DEPTH:
                    check_limit(len(self.stack) + 1, MAX_DEPTH, "nested {} deep", _place(event), ConfigError)
                empty: dict | list = {} if kind is yaml.MappingStartEvent else []
                self.stack.append(_Open(empty, event.anchor, self.count))
                self.spend(1, event)
            elif kind in ends:
                closed = self.stack.pop()
                size = self.count - closed.size
                self.add(closed.value, 0, event)
                self.remember(closed.anchor, closed.value, size)
            elif kind is yaml.AliasEvent:
                if event.anchor not in self.anchors:
                    raise ConfigError(f"{_place(event)}: alias *{event.anchor} refers to itself or to nothing before it")
                value, size = self.anchors[event.anchor]
                self.add(value, size, event)
            elif kind is yaml.DocumentStartEvent:
                documents += 1
                if documents > 1:
                    raise ConfigError(f"{_place(event)}: a second document begins; expected one")
        return self.result

    def add(self, value: Any, size: int, event: Any) -> None:
        """Puts a finished value where it belongs: the result, a list, a key or the value of a key."""
        self.spend(size, event)
        if not self.stack:
            self.result = value
            return
        top = self.stack[-1]
        if isinstance(top.value, list):
            top.value.append(value)
        elif top.key is _NO_KEY:
            if isinstance(value, (dict, list)):
                raise ConfigError(f"{_place(event)}: a key is a {type(value).__name__}; keys of a config are text")
            if value in top.own:
                raise ConfigError(f"{_place(event)}: key {value!r} is there twice")
            top.key = value
            top.own.add(value)
        else:
            key, top.key = top.key, _NO_KEY
            if key is _MERGE:
                for part in value if isinstance(value, list) else [value]:
                    if not isinstance(part, dict):
                        raise ConfigError(f"{_place(event)}: '<<' merges a mapping, or a list of mappings")
                    top.value.update({name: item for name, item in part.items() if name not in top.value})
            else:
                top.value[key] = value

    def spend(self, size: int, event: Any) -> None:
        self.count += size
        if self.count > self.most:
            what = "holds {} values, aliases counted as what they stand for"
            check_limit(self.count, self.most, what, _place(event), ConfigError, "Write a config this large as JSON")

    def remember(self, anchor: str | None, value: Any, size: int) -> None:
        if anchor is not None:
            self.anchors[anchor] = (value, size)

    def check_tag(self, event: Any) -> None:
        if event.tag is not None and event.tag != "!" and event.tag not in _ALLOWED:
            raise ConfigError(f"{_place(event)}: tag {event.tag!r}; a config holds plain data and names no types")

    def scalar(self, event: Any) -> Any:
        self.check_tag(event)
        if event.tag in (None, "!"):
            if event.style or not event.implicit[0]:
                return event.value
            tag = self.resolver.resolve(self.yaml.ScalarNode, event.value, event.implicit)
            if tag == f"{_YAML}merge":
                return _MERGE
        else:
            tag = event.tag
        if tag not in _PLAIN:
            return event.value
        if tag == f"{_YAML}int" and len(event.value) > 64:
            raise ConfigError(f"{_place(event)}: a number of {len(event.value)} digits")
        return self.constructor.construct_object(self.yaml.ScalarNode(tag, event.value, event.start_mark))


def _place(event: Any) -> str:
    return f"line {event.start_mark.line + 1}, column {event.start_mark.column + 1}"
