"""An exported network, run by ONNX Runtime on the processor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.errors import CheckpointError, require


class OnnxNetwork:
    """A file of ONNX as a function of tensors, without gradients; may be used from several threads.

    Args:
        path: the file.

    Raises:
        CheckpointError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        library: Any = require("onnxruntime", "onnx")
        options = library.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = library.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # what the library raises has no class of its own
            raise CheckpointError(f"{path} cannot be read by ONNX Runtime: {error}") from error
        self.path = path
        self.inputs = tuple(entry.name for entry in self._session.get_inputs())
        self.outputs = tuple(entry.name for entry in self._session.get_outputs())

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Its outputs by name; of the inputs, those that it knows."""
        given = {name: inputs[name].detach().cpu().contiguous().numpy() for name in self.inputs}
        return {name: torch.from_numpy(value) for name, value in zip(self.outputs, self._session.run(None, given), strict=True)}

    def __deepcopy__(self, memo: dict[int, Any]) -> OnnxNetwork:
        return self  # it holds nothing that changes

    def __reduce__(self) -> tuple[Any, ...]:
        return OnnxNetwork, (self.path,)
