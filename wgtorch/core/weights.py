"""Weights that a config refers to instead of holding: ``checkpoint_ref``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from wgtorch.core.errors import CheckpointError, suggest

PACKAGED = Path(__file__).parents[1] / "weights"
_PREFIX = "wgtorch:"


def resolve_checkpoint(ref: str) -> Path:
    """The safetensors file of a ref: a path, or ``wgtorch:name`` for weights that ship with the package.

    Raises:
        CheckpointError: there is no such file.
    """
    if ref.startswith(_PREFIX):
        path = PACKAGED / f"{ref.removeprefix(_PREFIX)}.safetensors"
        known = [f"{_PREFIX}{entry.stem}" for entry in sorted(PACKAGED.glob("*.safetensors"))]
        if not path.is_file() or path.parent != PACKAGED:
            raise CheckpointError(f"checkpoint_ref {ref!r}: no such weights in the package; {suggest(ref, known)}")
        return path
    path = Path(ref).expanduser()
    if path.suffix != ".safetensors" or not path.is_file():
        raise CheckpointError(f"checkpoint_ref {ref!r}: expected the path of a .safetensors file that is there")
    return path.resolve()


def load_checkpoint(block: nn.Module, ref: str) -> None:
    """Loads weights into a block, in the block's own dtype.

    Raises:
        CheckpointError: the file does not fit the block; lists every tensor that is missing, unexpected or mis-shaped.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = resolve_checkpoint(ref)
    try:
        tensors: dict[str, Any] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be read as safetensors: {error}") from error
    own = block.state_dict()
    wrong = [f"missing {name}" for name in own if name not in tensors] + [f"unexpected {name}" for name in tensors if name not in own]
    wrong += [
        f"{name} has shape {list(tensor.shape)}, expected {list(own[name].shape)}"
        for name, tensor in tensors.items()
        if name in own and own[name].shape != tensor.shape
    ]
    if wrong:
        raise CheckpointError(f"{path} does not fit {type(block).__name__}: {'; '.join(wrong)}")
    block.load_state_dict(tensors)
