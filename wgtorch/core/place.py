"""What may be said of a node's place: fields of :class:`~wgtorch.core.structure.Node`, checked where they are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wgtorch.core.errors import StructureError, StructureTypeError, suggest
from wgtorch.core.kinds import describe
from wgtorch.core.run.retry import check_retry

PLACE_FIELDS = ("trainable", "adapter", "inputs", "map", "timeout", "condition", "reuse", "retry")


def check_place(place: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What is said of a node's place, without what is None, and names of mapped ports as a tuple.

    Raises:
        StructureError: a field is unknown.
        StructureTypeError: a value is of another type than the field takes.
    """
    for name in place:
        if name not in PLACE_FIELDS:
            raise StructureError(
                f"{where}: unknown {name!r}; {suggest(name, PLACE_FIELDS)}. What the block itself is built from goes to its "
                f"constructor, or into config={{{name!r}: ...}} beside a block type"
            )
    place = {name: value for name, value in place.items() if value is not None}
    mapped = place.get("map", ())
    place["map"] = (mapped,) if isinstance(mapped, str) else mapped
    timeout = place.get("timeout", 1.0)
    expected = {
        "trainable": (isinstance(place.get("trainable", True), bool), "True or False"),
        "reuse": (isinstance(place.get("reuse", True), bool), "True or False"),
        "inputs": (isinstance(place.get("inputs", {}), Mapping), "a mapping of values by input, such as inputs={'scale': 2.0}"),
        "map": (
            isinstance(place["map"], (tuple, list)) and all(isinstance(name, str) for name in place["map"]),
            "the name of an input, or a list of names",
        ),
        "timeout": (
            isinstance(timeout, (int, float)) and not isinstance(timeout, bool) and timeout > 0,
            "seconds as a number above 0, such as timeout=1.5",
        ),
    }
    for name, (fits, words) in expected.items():
        if not fits:
            raise StructureTypeError(f"{where}: {name}={place[name]!r} is {describe(place[name])}; expected {words}")
    place["map"] = tuple(place["map"])
    if "retry" in place:
        place["retry"] = check_retry(place["retry"], where)
    return place
