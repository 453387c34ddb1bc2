"""Weights stored in 8 bits: what comes back, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from wgtorch.core.checkpoint.refs import read_ref
from wgtorch.core.checkpoint.tensors import PACKED, packed, write_tensors
from wgtorch.core.errors import CheckpointError


def test_matrices_come_back_to_a_254th_of_their_rows_and_the_rest_as_float16(tmp_path: Path) -> None:
    torch.manual_seed(0)
    given = {"layer.weight": torch.randn(64, 8, 3, 3), "layer.bias": torch.randn(64), "small.weight": torch.randn(4, 4)}
    write_tensors(tmp_path / "weights.safetensors", packed(given), {"format": "pt", PACKED: "int8"})
    found, _ = read_ref(str(tmp_path / "weights.safetensors"))
    assert set(found) == set(given)
    matrix = given["layer.weight"]
    largest = matrix.flatten(1).abs().amax(1).view(-1, 1, 1, 1)
    assert ((found["layer.weight"] - matrix).abs() <= largest / 253).all()
    torch.testing.assert_close(found["layer.bias"], given["layer.bias"].half())
    torch.testing.assert_close(found["small.weight"], given["small.weight"].half())


def test_a_matrix_without_the_scale_of_its_rows_is_refused_by_name(tmp_path: Path) -> None:
    given = packed({"layer.weight": torch.randn(64, 64)})
    del given["layer.weight.scale"]
    write_tensors(tmp_path / "weights.safetensors", given, {PACKED: "int8"})
    with pytest.raises(CheckpointError, match="'layer.weight' is in 8 bits and has no scale"):
        read_ref(str(tmp_path / "weights.safetensors"))
