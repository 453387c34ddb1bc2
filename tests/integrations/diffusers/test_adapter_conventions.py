"""Adapter files as other programs begin their names and narrow their numbers: all read as the same file in plain."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

pytest.importorskip("diffusers")
pytest.importorskip("peft")

from tests.integrations.diffusers.comparing import ours, theirs
from tests.integrations.diffusers.test_adapter_files import CALLS, PARTS, built, call_of, expected_of, graph_of, made, same
from wgtorch import lora
from wgtorch.core.errors import CheckpointError, StructureError
from wgtorch.graph import Graph

pytestmark = [  # of their code
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute in the model"),
]


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
    said = dict(without)
    for key, value in without.items():
        if key.endswith("lora_down.weight"):
            said[key.replace("lora_down.weight", "alpha")] = torch.tensor(float(value.shape[0]))
    same(*(with_file(graph, family, tensors, tmp_path / "style.safetensors") for tensors in (without, said)), atol=0)


@pytest.mark.parametrize("family", ["sd", "xl", "flux"])
def test_adapters_that_diffusers_has_loaded(family: str, tmp_path: Path) -> None:
    from diffusers import DiffusionPipeline

    pipeline = built(family, tmp_path / "parts")
    for number in range(2):
        tensors = {key: value * (1 + number) for key, value in made(pipeline, family, "diffusers", "peft").tensors.items()}
        save_file(tensors, tmp_path / f"{number}.safetensors")
        pipeline.load_lora_weights(tmp_path / f"{number}.safetensors", adapter_name=f"a{number}")
    pipeline.set_adapters(["a0", "a1"], [0.3, 0.6])
    expected = theirs(pipeline, **call_of(family))
    graph = graph_of(pipeline, family)
    same(ours(graph, **call_of(family)), expected)
    with pytest.raises(StructureError, match=r"to_diffusers: backbone: has adapters that PEFT put in itself.*wgtorch.lora.from_peft"):
        graph.to_diffusers(tmp_path / "out")
    lora.from_peft(graph)
    assert graph.node_specs["backbone"].adapter == {"a0": 0.3, "a1": 0.6}
    same(ours(graph, **call_of(family)), expected)
    graph.to_diffusers(tmp_path / "out")
    again = DiffusionPipeline.from_pretrained(str(tmp_path / "out"), local_files_only=True)
    again.load_lora_weights(str(tmp_path / "out"))
    same(theirs(again, **call_of(family)), expected)


def test_weights_by_block_have_no_place(tmp_path: Path) -> None:
    pipeline = built("sd", tmp_path / "parts")
    save_file(made(pipeline, "sd", "diffusers", "peft").tensors, tmp_path / "0.safetensors")
    pipeline.load_lora_weights(tmp_path / "0.safetensors", adapter_name="a0")
    pipeline.set_adapters("a0", {"unet": {"down": 0.2, "mid": 0.7}})
    graph = graph_of(pipeline, "sd")
    expected = theirs(pipeline, **call_of("sd"))
    same(ours(graph, **call_of("sd")), expected)
    with pytest.raises(StructureError, match=r"backbone: adapter 'a0' is weighted by \[0.2, 1.0\] in different layers"):
        lora.from_peft(graph)
    same(ours(graph, **call_of("sd")), expected)
    pipeline.set_adapters("a0", 0.5)
    lora.from_peft(graph)
    assert graph.node_specs["backbone"].adapter == {"a0": 0.5}
    with pytest.raises(StructureError, match="expected a name and a finite number"):
        lora.set_adapter(graph, {"a0": {"down": 0.2}})  # type: ignore[dict-item]


@pytest.mark.parametrize("family", ["sd", "sd3"])
def test_kinds_that_are_not_known_and_tensors_that_are_none_are_refused_by_name(family: str, tmp_path: Path) -> None:
    """IA3, OFT, BOFT, GLoRA, norms, whole numbers, no rank: named, and the graph stays as it was."""
    pipeline = built(family, tmp_path / "parts")
    graph = graph_of(pipeline, family)
    model = pipeline.unet if family == "sd" else pipeline.transformer
    path, layer = next((path, layer) for path, layer in model.named_modules() if path.endswith("to_q"))
    start, wide = f"lora_unet_{path.replace('.', '_')}" if family == "sd" else f"transformer.{path}", layer.in_features
    down, up = torch.randn(2, wide), torch.randn(wide, 2)
    plain = {f"{start}.lora_down.weight": down, f"{start}.lora_up.weight": up, f"{start}.alpha": torch.tensor(2.0)}
    assert _loads(graph, plain, tmp_path)
    lora.remove(graph, "style")
    odd = {
        "weight": {f"{start}.weight": torch.randn(1, wide), f"{start}.on_input": torch.tensor(True)},
        "oft_blocks": {f"{start}.oft_blocks": torch.randn(2, 8, 8), f"{start}.alpha": torch.tensor(1.0)},
        "rescale": {f"{start}.oft_blocks": torch.randn(2, 2, 8, 8), f"{start}.rescale": torch.randn(wide, 1)},
        "a1.weight": {f"{start}.a1.weight": down, f"{start}.b2.weight": up},
        "w_norm": {**plain, f"{start}.w_norm": torch.randn(wide)},
        "reshape_weight": {**plain, f"{start}.reshape_weight": torch.tensor([wide, wide])},
        "found int8": {**plain, f"{start}.lora_up.weight": up.to(torch.int8)},
        "found float32 .0": {**plain, f"{start}.lora_down.weight": down[:0], f"{start}.lora_up.weight": up[:, :0]},
        "alpha: found float32 .2.; expected one number": {**plain, f"{start}.alpha": torch.ones(2)},
    }
    for words, tensors in odd.items():
        with pytest.raises(CheckpointError, match=words):
            _loads(graph, tensors, tmp_path)
    assert _loads(graph, plain, tmp_path), "nothing of them is left"


def _loads(graph: Graph, tensors: dict[str, Tensor], folder: Path) -> bool:
    save_file({key: value.contiguous().clone() for key, value in tensors.items()}, folder / "odd.safetensors")
    return len(lora.load(graph, folder / "odd.safetensors", "style").adapted) == 1
