"""Autocast of every device type that PyTorch can tell of, also of backends that others bring."""

from __future__ import annotations

import torch

_DEVICE_TYPES = ("cpu", "cuda", "xpu", "mps", "hpu", "mtia", "maia", "xla", "ipu", "privateuseone")


def autocast_states() -> list[tuple[str, bool, torch.dtype]]:
    """Autocast of every device type that PyTorch can tell of: (device type, is on, its dtype)."""
    return [(kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in _AUTOCAST_TYPES]


def _has_autocast(kind: str) -> bool:
    try:
        torch.get_autocast_dtype(kind)
    except RuntimeError:
        return False
    return True


_AUTOCAST_TYPES = tuple(kind for kind in _DEVICE_TYPES if _has_autocast(kind))
