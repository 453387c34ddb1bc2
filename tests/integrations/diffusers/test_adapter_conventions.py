"""Adapter files as other programs begin their names and narrow their numbers: all read as the same file in plain."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

pytest.importorskip("diffusers")
pytest.importorskip("peft")

from tests.integrations.diffusers.comparing import ours
from tests.integrations.diffusers.test_adapter_files import CALLS, PARTS, built, call_of, expected_of, graph_of, made, same
from wgtorch import lora
from wgtorch.graph import Graph

pytestmark = [pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")]  # of their code


def with_file(graph: Graph, family: str, tensors: dict[str, Tensor], file: Path) -> Tensor:
    """The picture with an adapter of a file, which the graph does not keep."""
    save_file(tensors, file, metadata={"ss_network_alpha": "999", "modelspec.title": "a style"})
    lora.load(graph, file, "style")
    found = ours(graph, **call_of(family))
    lora.remove(graph, "style")
    return found


@pytest.mark.parametrize("family", list(CALLS))
def test_beginnings_of_names(family: str, tmp_path: Path) -> None:
    pipeline = built(family, tmp_path / "parts")
    part, graph = PARTS.get(family, "transformer"), graph_of(pipeline, family)
    maker = made(pipeline, family, "toolkit", "peft")
    prefixes = ("", f"{part}.", "base_model.model.", f"base_model.model.{part}.", "model.diffusion_model.", "diffusion_model.")
    own = [{f"{prefix}{key.removeprefix('diffusion_model.')}": value for key, value in maker.tensors.items()} for prefix in prefixes]
    found = [with_file(graph, family, tensors, tmp_path / "style.safetensors") for tensors in own]
    flat = made(pipeline, family, "kohya", "kohya")
    for prefix in ("lycoris_", "lora_transformer_", "lora_unet_"):
        tensors = {f"{prefix}{key.removeprefix('lora_unet_')}": value for key, value in flat.tensors.items()}
        found.append(with_file(graph, family, tensors, tmp_path / "style.safetensors"))
    for one in found[1:6]:
        same(one, found[0], atol=0)
    for one in found[7:]:
        same(one, found[6], atol=0)
    same(expected_of(pipeline, maker, family), found[0])


@pytest.mark.parametrize("family", list(CALLS))
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, torch.float16])
def test_narrow_numbers(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    pipeline = built(family, tmp_path / "parts")
    graph, maker = graph_of(pipeline, family), made(pipeline, family, "kohya", "kohya")
    plain = ours(graph, **call_of(family))
    narrow = {key: value if key.endswith("alpha") else value.to(dtype) for key, value in maker.tensors.items()}
    found = with_file(graph, family, narrow, tmp_path / "narrow.safetensors")
    wide = with_file(graph, family, {key: value.float() for key, value in narrow.items()}, tmp_path / "wide.safetensors")
    same(found, wide, atol=1e-2 if dtype.itemsize == 2 else 0)  # 16 bits are computed with as they are
    assert (found - plain).abs().max() > 1e-3


@pytest.mark.parametrize("family", list(CALLS))
def test_without_alpha_it_is_the_rank(family: str, tmp_path: Path) -> None:
    pipeline = built(family, tmp_path / "parts")
    graph, maker = graph_of(pipeline, family), made(pipeline, family, "kohya", "kohya")
    without = {key: value for key, value in maker.tensors.items() if not key.endswith("alpha")}
    said = {
        **without,
        **{
            key.replace("lora_down.weight", "alpha"): torch.tensor(float(value.shape[0])) for key, value in without.items() if "down" in key
        },
    }
    same(*(with_file(graph, family, tensors, tmp_path / "style.safetensors") for tensors in (without, said)), atol=0)
