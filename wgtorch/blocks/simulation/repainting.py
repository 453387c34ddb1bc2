"""A picture that the describer cannot read back is painted once more: what asks for it, and which of the two is kept.

::

    paint --image--> describe --attributes--> misread --again--> paint --> describe --> better --image-->
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wgtorch.blocks.simulation.staging import differences
from wgtorch.core.block import Block, register_block
from wgtorch.core.port import Port


@register_block("picture/misread")
class Misread(Block):
    """Gives the scene again where its picture shows something else, and ``fine`` where it does not."""

    inputs: Mapping[str, Any] = {"scene": "dict", "attributes": "any"}
    outputs: Mapping[str, Any] = {"again": "dict", "fine": "any"}
    routes = ("again", "fine")
    uses_global_rng = False

    def forward(self, scene: Mapping[str, Any], attributes: Any) -> dict[str, Any]:
        """``again``: the scene; or ``fine``."""
        return {"again": scene} if wrong(scene, attributes) else {"fine": True}


@register_block("picture/again")
class Again(Block):
    """The scene as it is, which must be there: what it stands before runs only where a picture was misread."""

    inputs: Mapping[str, Any] = {"scene": "dict"}
    outputs: Mapping[str, Any] = {"scene": "dict"}
    uses_global_rng = False

    def forward(self, scene: Mapping[str, Any]) -> dict[str, Any]:
        """``scene``."""
        return {"scene": scene}


@register_block("picture/better")
class Better(Block):
    """Of a picture and its second try the one that shows more of the scene; the first where there is no second."""

    inputs: Mapping[str, Any] = {
        "scene": "dict",
        "image": "image",
        "attributes": "any",
        "second": Port(dtype="image", optional=True),
        "second_attributes": Port(dtype="any", optional=True),
    }
    outputs = {"image": "image"}
    uses_global_rng = False

    def forward(
        self, scene: Mapping[str, Any], image: Tensor, attributes: Any, second: Tensor | None = None, second_attributes: Any = None
    ) -> dict[str, Any]:
        """``image``: the kept one."""
        is_better = second is not None and wrong(scene, second_attributes) < wrong(scene, attributes)
        return {"image": second if is_better else image}


def wrong(scene: Mapping[str, Any], attributes: Any) -> int:
    """How many things of a scene a description misses, over all pictures that it describes."""
    rows = attributes if isinstance(attributes, (list, tuple)) else [attributes]
    return sum(len(differences(scene, row)) for row in rows)
