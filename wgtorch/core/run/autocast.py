"""What numbers depend on beside inputs: autocast of every device type, of backends that others bring as well, and settings of PyTorch."""

from __future__ import annotations

import torch

_DEVICE_TYPES = ("cpu", "cuda", "xpu", "mps", "hpu", "mtia", "maia", "xla", "ipu", "privateuseone")


def autocast_states() -> list[tuple[str, bool, torch.dtype]]:
    """Autocast of every device type that PyTorch can tell of: (device type, is on, its dtype)."""
    return [(kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in _AUTOCAST_TYPES]


def surroundings() -> bytes:
    """What the numbers of an operator depend on beside its inputs."""
    autocast = [state for state in autocast_states() if state[1]]
    backends = torch.backends
    flags = (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        torch.is_inference_mode_enabled(),
        (torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory),  # type: ignore[attr-defined]
        backends.mkldnn.enabled,
        backends.mha.get_fastpath_enabled(),
        (backends.cudnn.enabled, backends.cudnn.benchmark, backends.cudnn.deterministic, backends.cudnn.allow_tf32),
        (backends.cuda.flash_sdp_enabled(), backends.cuda.mem_efficient_sdp_enabled(), backends.cuda.math_sdp_enabled()),
        (backends.cuda.matmul.allow_fp16_reduced_precision_reduction, backends.cuda.matmul.allow_bf16_reduced_precision_reduction),
        torch.__version__,
    )
    return repr((autocast, flags)).encode()


def _has_autocast(kind: str) -> bool:
    try:
        torch.get_autocast_dtype(kind)
    except RuntimeError:
        return False
    return True


_AUTOCAST_TYPES = tuple(kind for kind in _DEVICE_TYPES if _has_autocast(kind))
