"""What a world's passes took."""

from __future__ import annotations

from collections.abc import Mapping

from wgtorch.evaluation.past import Past
from wgtorch.evaluation.registry import NotMeasured, register_evaluator


@register_evaluator("cost")
def cost(past: Past) -> dict[str, float]:
    """Time, bytes, tokens and money of a pass, on average, from the traces.

    Returns:
        ``seconds``; ``seconds.STAGE`` for each stage; ``bytes`` where the storage is a folder; ``calls``, ``tokens`` and ``money``
        where models were called.
    """
    traces = past.traces
    if not traces:
        raise NotMeasured("the storage keeps no traces")
    passes = len({entry["pass"] for entry in traces})
    found: dict[str, float] = {"seconds": sum(float(entry.get("seconds") or 0.0) for entry in traces) / passes}
    for entry in traces:
        name = f"seconds.{entry['stage']}"
        found[name] = found.get(name, 0.0) + float(entry.get("seconds") or 0.0) / passes
    size = getattr(past.history.storage, "size", None)
    if size is not None:
        found["bytes"] = size() / passes
    calls = [call for entry in traces for call in entry.get("calls") or ()]
    if calls:
        used = [call["usage"] for call in calls if isinstance(call.get("usage"), Mapping)]
        found["calls"] = len(calls) / passes
        found["tokens"] = sum(int(usage.get(name) or 0) for usage in used for name in ("prompt_tokens", "completion_tokens")) / passes
        found["money"] = sum(float(usage.get("cost") or 0.0) for usage in used) / passes
    return found
