"""Configs of levels: how they are written and built from, as methods of every level.

A level says what its config looks like: ``config_properties`` is the JSON Schema of what ``own_config`` gives, and ``nodes_schema``,
``nodes_in_config`` and ``nodes_to_config`` are how its nodes are written, under ``nodes_key``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from wgtorch.core.checkpoint.io import mapping
from wgtorch.core.config import serialization
from wgtorch.core.config.resolve import read_config
from wgtorch.core.config.schema import level_schema, listed
from wgtorch.core.config.template import build_template
from wgtorch.core.pool import Pool, building
from wgtorch.core.trust import Trust, from_file


class Configured:
    """The methods of levels by which their structure becomes plain data and back.

    Attributes:
        level: the kind of level, as configs name it.
        nodes_key: under which a config has the nodes.
        config_properties: JSON Schema of :meth:`own_config`, by entry.
    """

    level: ClassVar[str]
    nodes_key: ClassVar[str] = "nodes"
    config_properties: ClassVar[Mapping[str, Any]] = {}

    @property
    def config(self) -> dict[str, Any]:
        """The same as :meth:`to_config`."""
        return self.to_config()

    def to_config(self) -> dict[str, Any]:
        """The structure as plain data, in its canonical form."""
        return serialization.to_config(self)

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        *,
        base: str | os.PathLike[str] | None = None,
        pool: Pool | None = None,
        map: bool | None = None,
        trust: Trust | bool | None = None,
    ) -> Self:
        """Builds a level from its config. Nodes that name the same model (``checkpoint_ref``) share one instance of it.

        Args:
            config: plain data; any sub-config may be ``{"ref": "file.yaml"}``.
            base: the folder that refs are relative to, and may not leave; the working folder by default.
            pool: where models are looked for, so that levels built apart share them too.
            map: False copies weights that refs name into memory; they are mapped from their files otherwise, see
                :meth:`load_from_checkpoint`.
            trust: what files that refs name may do beyond being data; the config itself is the caller's own.

        Raises:
            ConfigError: lists everything that is wrong, each with its path in the config.
        """
        with mapping(map):
            return serialization.from_config(cls, config, base=base, pool=pool, trust=trust)

    @classmethod
    def from_yaml(
        cls, path: str | os.PathLike[str], *, pool: Pool | None = None, map: bool | None = None, trust: Trust | bool | None = None
    ) -> Self:
        """Builds a level from a YAML or JSON file.

        The file may read ``WGTORCH_*`` of the environment, and send a provider's own key to that provider's own address.

        Args:
            path: the file; refs in it are relative to its folder.
            pool, map: as for :meth:`from_config`.
            trust: what it may do beside, as ``Trust(env=("MY_LLM_KEY",))``; True for everything.

        Raises:
            ConfigError: as for :meth:`from_config`; or it asks for what it may not have.
        """
        with mapping(map), from_file(path, trust):
            return serialization.from_config(cls, read_config(path), base=Path(path).parent, pool=pool)

    @classmethod
    def from_template(cls, name: str, **params: Any) -> Self:
        """Builds a level from a registered template; an unknown parameter is an error that lists the known ones."""
        return build_template(cls.level, name, params)

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The JSON Schema of this level's configs."""
        return level_schema(cls.level)

    def saved_config(self) -> dict[str, Any]:
        """The config that checkpoints hold."""
        return self.to_config()

    @classmethod
    def from_saved_config(cls, config: Mapping[str, Any], *, base: str | os.PathLike[str] | None = None, empty: bool = False) -> Self:
        """Builds from what :meth:`saved_config` gave; ``empty`` leaves weights without memory, for the caller to give."""
        with building(empty=empty):
            return serialization.from_config(cls, config, base=base)

    # --- what configs hold of a level -------------------------------------------------------------------------------------

    @classmethod
    def nodes_schema(cls, node: dict[str, Any], child: dict[str, Any]) -> dict[str, Any]:
        """The JSON Schema of what :meth:`nodes_to_config` gives, from those of a node's entry and of a child's config."""
        return {cls.nodes_key: listed(node)}

    @classmethod
    def nodes_in_config(cls, config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Entries of nodes in a config, each with the path of the child's config; what is malformed is left out."""
        nodes = config.get(cls.nodes_key)
        if isinstance(nodes, (list, tuple)):
            yield from ((f"{cls.nodes_key}[{index}].config", entry) for index, entry in enumerate(nodes) if isinstance(entry, Mapping))

    def nodes_to_config(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        """What a config holds of the nodes."""
        return {self.nodes_key: entries}

    def own_config(self) -> dict[str, Any]:
        """Entries of the config that belong to this kind of level."""
        return {}

    def apply_config(self, config: Mapping[str, Any]) -> None:
        """Takes over what :meth:`own_config` gave, once the nodes stand."""
