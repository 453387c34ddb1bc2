"""What was adapted, what was skipped and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Adapted:
    """A block that got an adapter: the path of its first place, its type, how many layers and numbers."""

    path: str
    block_type: str
    layers: int
    parameters: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """A block that got none, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """What :func:`add` did.

    Args:
        name: the adapter's.
        adapted: blocks that got one, each once however many places it stands at.
        skipped: those that did not.
        frozen: numbers of the base that were trainable before and are not now.
    """

    name: str
    adapted: tuple[Adapted, ...]
    skipped: tuple[Skipped, ...]
    frozen: int = 0

    @property
    def parameters(self) -> int:
        """Numbers that the adapters hold."""
        return sum(block.parameters for block in self.adapted)

    @property
    def layers(self) -> int:
        """Layers that were adapted."""
        return sum(block.layers for block in self.adapted)

    def __str__(self) -> str:
        rows = [f"  {block.path}  {block.block_type}: {block.layers} layers, {block.parameters:,} parameters" for block in self.adapted]
        rows += [f"  {block.path}  skipped: {block.reason}" for block in self.skipped]
        head = f"adapter {self.name!r}: {self.parameters:,} parameters on {len(self.adapted)} blocks, {len(self.skipped)} skipped"
        return "\n".join([head + (f", {self.frozen:,} of the base frozen" if self.frozen else ""), *rows])
