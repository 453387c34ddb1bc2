"""The module that holds a level's children under their node ids."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import Any

from torch import nn

from wgtorch.core.errors import StructureError, UnknownNameError, suggest


class Nodes(nn.Module):
    """Children by node id, in the order they were added: a mapping that is also their parent module.

    ``nn.ModuleDict`` refuses ids such as ``keys`` or ``forward`` because they are its own attributes. Here such a child
    is called ``keys_`` in ``state_dict`` and ``named_parameters``, and ``keys`` everywhere else.
    """

    @staticmethod
    def key(node_id: str) -> str:
        """The child's attribute name."""
        return f"{node_id}_" if hasattr(Nodes, node_id.rstrip("_")) or node_id.rstrip("_") in _INSTANCE_NAMES else node_id

    @staticmethod
    def node_id(key: str) -> str:
        """The node id of an attribute name."""
        return key[:-1] if key.endswith("_") and Nodes.key(key[:-1]) == key else key

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """As ``nn.Module.add_module`` for what takes a node's place; a new node is the level's to add.

        Raises:
            StructureError: there is no such node.
        """
        self._check_key(name)
        super().add_module(name, module)

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, nn.Module):
            self._check_key(name)
        super().__setattr__(name, value)

    def _check_key(self, name: str) -> None:
        if name not in self._modules:
            raise StructureError(
                f"there is no node {name!r}, and setting it here would join it to nothing; add it by add_node of the level"
            )

    def __setitem__(self, node_id: str, child: nn.Module) -> None:
        raise StructureError(f"nodes[{node_id!r}] = ...: nodes are changed through their level; write replace_node({node_id!r}, child)")

    def __delitem__(self, node_id: str) -> None:
        raise StructureError(f"del nodes[{node_id!r}]: nodes are changed through their level; write remove_node({node_id!r})")

    def put(self, node_id: str, child: nn.Module) -> None:
        """Sets the child of a node, in place of one that was there."""
        self._modules[self.key(node_id)] = child

    def remove(self, node_id: str) -> nn.Module:
        """Takes a child out."""
        child = self[node_id]
        del self._modules[self.key(node_id)]
        return child

    def __getitem__(self, node_id: str) -> Any:
        if type(node_id) is str and node_id[-1:] != "_" and node_id in self._modules:  # its own key: no need to look for that
            return self._modules[node_id]
        try:
            return self._modules[self.key(node_id)]
        except (KeyError, AttributeError, TypeError):
            raise UnknownNameError(f"there is no node {node_id!r}; {suggest(node_id, self)}") from None

    def __contains__(self, node_id: object) -> bool:
        return isinstance(node_id, str) and self.key(node_id) in self._modules

    def __iter__(self) -> Iterator[str]:
        return (key if key[-1:] != "_" else self.node_id(key) for key in self._modules)

    def __len__(self) -> int:
        return len(self._modules)

    def __bool__(self) -> bool:
        return True

    def keys(self) -> KeysView[str]:
        """Node ids."""
        return dict.fromkeys(self).keys()

    def values(self) -> ValuesView[Any]:
        """Children."""
        return self._modules.copy().values()

    def items(self) -> ItemsView[str, Any]:
        """(node id, child)."""
        return {key if key[-1:] != "_" else self.node_id(key): child for key, child in self._modules.items()}.items()


_INSTANCE_NAMES = frozenset(nn.Module().__dict__)
