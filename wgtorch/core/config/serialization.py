"""Levels from configs and configs from levels."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from wgtorch.core.block import Block, BlockRegistry
from wgtorch.core.config.resolve import resolve_refs
from wgtorch.core.config.schema import SCHEMA_VERSION, check_endpoint_config, check_level_config
from wgtorch.core.config.template import TemplateRegistry, build_template
from wgtorch.core.errors import ConfigError, StructureError
from wgtorch.core.place import PLACE_FIELDS
from wgtorch.core.pool import Pool, building, names_a_model
from wgtorch.core.registry import LevelRegistry, RemoteRegistry
from wgtorch.core.signature import ensure_plain
from wgtorch.core.structure import Node
from wgtorch.core.tree import is_level, walk
from wgtorch.core.trust import Trust, at_node, from_file, in_code

_PLACE_DEFAULTS = Node("_")


def from_config(
    cls: type[Any],
    config: Mapping[str, Any],
    *,
    base: str | os.PathLike[str] | None = None,
    pool: Pool | None = None,
    trust: Trust | bool | None = None,
) -> Any:
    """Builds a level; see :meth:`wgtorch.core.level.Level.from_config`."""
    files: dict[int, str] = {}
    tree = resolve_refs(config, base, read=files)
    builder = _Builder(files, trust)
    if isinstance(tree, Mapping) and "endpoint_url" in tree:
        with builder.place(tree, cls.level):
            return remote_from(tree, cls)
    _check_kind(tree, cls)
    check_level_config(tree, cls, BlockRegistry.get)
    with building(pool), builder.place(tree, tree[cls.id_key]):
        try:
            return builder.level(cls, tree)
        except RecursionError as error:
            raise ConfigError(f"{tree[cls.id_key]}: holds levels or data nested too deep to be built") from error


def child_from(source: str | os.PathLike[str] | Mapping[str, Any], child_class: type[Any]) -> Any:
    """A child from its config, a path to one, an endpoint's config, a registered block type, or a template's name."""
    if isinstance(source, Mapping) and "endpoint_url" in source:
        return remote_from(source, child_class)
    if child_class is Block:
        if isinstance(source, Mapping):
            return LevelRegistry.get(source["kind"]).from_config(source) if "kind" in source else BlockRegistry.build(source)
        return BlockRegistry.build({"block_type": str(source)})
    if isinstance(source, Mapping):
        if set(source) == {"ref"}:
            return child_class.from_yaml(source["ref"])
        return child_class.from_config(source)
    if isinstance(source, str) and f"{child_class.level}/{source}" in TemplateRegistry:
        return build_template(child_class.level, source, {})
    if Path(source).is_dir():
        return child_class.load(source)
    return child_class.from_yaml(source)


def remote_from(config: Mapping[str, Any], child_class: type[Any]) -> Any:
    """A child that runs at another endpoint, from ``{"endpoint_url": ..., "endpoint": {...}}``."""
    check_endpoint_config(config, child_class.level)
    return RemoteRegistry.get("http")(config, child_class)


def to_config(level: Any) -> dict[str, Any]:
    """A level's config in canonical form.

    A child that stands at several places is written once and named ``share`` at all of them.
    """
    counts: dict[int, int] = {}
    models: dict[str, int] = {}
    apart: set[int] = set()
    for _, child, _ in walk(level, repeats=0):
        counts[id(child)] = counts.get(id(child), 0) + 1
        model = _model(child)
        if model is not None and models.setdefault(model, id(child)) != id(child):
            apart.add(id(child))  # the same model, held twice: building must not make one of the two
    labels = {identity: f"shared-{number}" for number, identity in enumerate((i for i, count in counts.items() if count > 1), start=1)}
    try:
        return _Writer(labels, apart).level(level)
    except RecursionError as error:
        raise ConfigError(f"{level.block_id}: holds levels or data nested too deep to be written as a config") from error


def _model(child: Any) -> str | None:
    """What a pool would know a block by."""
    config = getattr(child, "_config", None)
    return json.dumps([child.block_type, config], sort_keys=True, default=str) if config and names_a_model(config) else None


class _Writer:
    def __init__(self, labels: Mapping[int, str], apart: set[int]) -> None:
        self.labels = labels
        self.apart = apart
        self.written: set[int] = set()

    def level(self, level: Any) -> dict[str, Any]:
        config: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "kind": level.level, level.id_key: level.block_id}
        config |= level.nodes_to_config([self.node(level, node_id, child) for node_id, child in level.nodes.items()])
        config |= level.own_config()
        config["metadata"] = ensure_plain(level.metadata, f"{level.block_id}.metadata")
        return config

    def node(self, level: Any, node_id: str, child: Any) -> dict[str, Any]:
        entry: dict[str, Any] = {"node_id": node_id}
        label = self.labels.get(id(child))
        if label:
            entry["share"] = label
        if not label or id(child) not in self.written:
            self.written.add(id(child))
            if is_level(child) and not child.remote:
                _check_is_its_kind(level, node_id, child)
                entry["config"] = self.level(child)
            else:
                try:
                    entry |= child.to_config()
                except (StructureError, ConfigError) as error:
                    raise type(error)(f"{level.block_id}/{node_id}: {error}") from None
        entry |= _place_config(level.node_specs[node_id], level)
        if id(child) in self.apart:
            entry["reuse"] = False
        return entry


def _check_is_its_kind(level: Any, node_id: str, child: Any) -> None:
    """Refuses a child whose class computes something else than what its config builds."""
    kind = LevelRegistry.get(child.level)
    if type(child).forward is not kind.forward:
        raise StructureError(
            f"{level.block_id}/{node_id}: {type(child).__name__} has a forward of its own, and its config builds a {kind.__name__}; "
            "make what it adds a registered block among its nodes"
        )


def _place_config(node: Node, level: Any) -> dict[str, Any]:
    place: dict[str, Any] = {}
    for name in PLACE_FIELDS:
        value = getattr(node, name)
        if value != getattr(_PLACE_DEFAULTS, name):
            if callable(value):
                raise StructureError(
                    f"{level.block_id}/{node.node_id}: the condition is a bare function; register it with register_condition and name it"
                )
            if name == "retry" and not isinstance(value["on"], str):
                raise StructureError(
                    f"{level.block_id}/{node.node_id}: retry's condition is a bare function; register it with register_retry and name it"
                )
            place[name] = ensure_plain(dict(value) if name == "inputs" else value, f"{level.block_id}/{node.node_id}.{name}")
    if not is_level(level.child_class):
        place.setdefault("trainable", True)
    return place


class _Builder:
    """Builds children from checked configs; what is shared is built once.

    Args:
        files: which mappings of the config came from files, though the config itself was written in code.
        trust: in them.
    """

    def __init__(self, files: Mapping[int, str], trust: Trust | bool | None) -> None:
        self.shared: dict[str, Any] = {}
        self.files = files
        self.trust = trust
        self.nodes_keys = {LevelRegistry.get(name).nodes_key for name in LevelRegistry.names()}

    def level(self, cls: type[Any], tree: Mapping[str, Any]) -> Any:
        level = cls(tree[cls.id_key], metadata=tree.get("metadata"))
        for _, entry in cls.nodes_in_config(tree):
            label = entry.get("share")
            child = None if label is None else self.shared.get(label)
            if child is None:
                with self.place(entry, entry["node_id"]):
                    child = self.child(entry, cls)
                if label is not None:
                    self.shared[label] = child
            level.add_child(child, entry["node_id"], **{name: entry[name] for name in PLACE_FIELDS if name in entry})
        level.apply_config(tree)
        return level

    @contextmanager
    def place(self, entry: Mapping[str, Any], node_id: str) -> Iterator[None]:
        """Around what is built at a node: says where it stands, and that it is a file's where a ref brought some of it."""
        with ExitStack() as around:
            if self.files and in_code() and (file := self._file_of(entry)) is not None:
                around.enter_context(from_file(file, self.trust))
            around.enter_context(at_node(node_id))
            yield

    def _file_of(self, value: Any, in_level: bool = True) -> str | None:
        """The file that brought a part of an entry; nodes of a level have places of their own."""
        if isinstance(value, (list, tuple)):
            return next((file for item in value if (file := self._file_of(item, in_level)) is not None), None)
        if not isinstance(value, Mapping):
            return None
        if id(value) in self.files:
            return self.files[id(value)]
        in_level = in_level and "block_type" not in value and "template" not in value
        inside = [item for key, item in value.items() if not (in_level and key in self.nodes_keys)]
        return self._file_of(inside, in_level)

    def child(self, entry: Mapping[str, Any], cls: type[Any]) -> Any:
        """What stands at a node of a level of this class."""
        nested = entry.get("config") or {}
        if "block_type" in entry:
            return BlockRegistry.build(entry)
        if "endpoint_url" in entry or "endpoint_url" in nested:
            source = entry if "endpoint_url" in entry else nested
            return remote_from({name: source[name] for name in ("endpoint_url", "endpoint") if name in source}, cls.child_class)
        if "template" in entry:
            level = cls.child_class if is_level(cls.child_class) else cls
            return build_template(level.level, entry["template"], entry.get("params", {}))
        if "kind" not in nested:
            raise ConfigError(f"node {entry['node_id']!r}: has neither block_type, template, share, endpoint_url nor the config of a level")
        return self.level(LevelRegistry.get(nested["kind"]), nested)


def _check_kind(tree: Mapping[str, Any], cls: type[Any]) -> None:
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{cls.level} config: got {type(tree).__name__}; expected a mapping")
    kind = tree.get("kind", cls.level)
    if kind != cls.level:
        name = LevelRegistry.get(kind).__name__ if isinstance(kind, str) and kind in LevelRegistry else "another class"
        raise ConfigError(f"config of kind {kind!r} given to {cls.__name__}.from_config; use {name}.from_config")
