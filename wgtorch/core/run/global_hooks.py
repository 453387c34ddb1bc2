"""Whether hooks are registered for all modules of the process, in every version of PyTorch that is declared."""

from __future__ import annotations

from torch.nn.modules import module

_HOOKS = (
    module._global_backward_pre_hooks, module._global_backward_hooks, module._global_forward_pre_hooks, module._global_forward_hooks,
)  # fmt: skip


def has_global_hooks() -> bool:
    """True where ``register_module_forward_hook`` or one of its kind was called and not undone."""
    first, second, third, fourth = _HOOKS
    return bool(first or second or third or fourth)
