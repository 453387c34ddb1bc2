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

_SCENE = Port(dtype="dict", description="data of a ScenePlan")
_SHOWN = Port(description="what a describer reads in the picture: a mapping, or a list of them")


@register_block("picture/misread")
class Misread(Block):
    """Gives the scene again where its picture shows something else, and ``fine`` where it does not."""

    inputs: Mapping[str, Any] = {"scene": _SCENE, "attributes": _SHOWN}
    outputs: Mapping[str, Any] = {
        "again": Port(dtype="dict", description="the scene, where its picture shows something else"),
        "fine": Port(description="True where the picture shows the scene"),
    }
    routes = ("again", "fine")
    uses_global_rng = False

    def forward(self, scene: Mapping[str, Any], attributes: Any) -> dict[str, Any]:
        """``again``: the scene; or ``fine``."""
        return {"again": scene} if wrong(scene, attributes) else {"fine": True}


@register_block("picture/again")
class Again(Block):
    """The scene as it is, which must be there: what it stands before runs only where a picture was misread."""

    inputs: Mapping[str, Any] = {"scene": _SCENE}
    outputs: Mapping[str, Any] = {"scene": _SCENE}
    uses_global_rng = False

    def forward(self, scene: Mapping[str, Any]) -> dict[str, Any]:
        """``scene``."""
        return {"scene": scene}


@register_block("picture/better")
class Better(Block):
    """Of a picture and its second try the one that shows more of the scene; the first where there is no second."""

    inputs: Mapping[str, Any] = {
        "scene": _SCENE,
        "image": Port(dtype="image", description="the first picture [B, 3, H, W] in [0, 1]"),
        "attributes": _SHOWN,
        "second": Port(dtype="image", description="the second picture, like the first"),
        "second_attributes": Port(description="what the second picture shows"),
    }
    outputs = {"image": Port(dtype="image", description="the better of the two")}
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
