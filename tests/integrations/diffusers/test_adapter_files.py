"""Adapter files of every program for every family: file to graph, graph to file, and what diffusers makes of both.

The reference is the pipeline with the changes added to its weights by hand, which diffusers is compared with too where it reads the
file. Cells that are empty are named with why in ``EMPTY``.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

pytest.importorskip("diffusers")
pytest.importorskip("peft")

from tests.integrations.diffusers import tiny
from tests.integrations.diffusers.adapter_files import KINDS, Maker, changed
from tests.integrations.diffusers.comparing import PROMPT, ours, theirs
from tests.matrix import spread
from wgtorch import lora
from wgtorch.core.errors import CheckpointError, StructureError
from wgtorch.graph import Graph

pytestmark = [  # of their code
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed"),
]
CLOSE = 1e-4


def built(family: str, folder: Path) -> Any:
    folder.mkdir(exist_ok=True)
    made = {
        "sd": lambda: tiny.stable_diffusion(folder),
        "xl": lambda: tiny.stable_diffusion_xl(folder),
        "sd3": lambda: tiny.stable_diffusion_3(folder),
        "flux": lambda: tiny.flux(folder),
        "wan": lambda: tiny.wan(),
    }
    return made[family]()


CALLS: dict[str, dict[str, Any]] = {
    "sd": {},
    "xl": {},
    "sd3": {"max_sequence_length": 16},
    "flux": {"height": 16, "width": 16, "max_sequence_length": 16},
    "wan": {"num_frames": 5, "height": 16, "width": 16, "max_sequence_length": 16},
}
TASKS = {"wan": "text_to_video"}


def call_of(family: str) -> dict[str, Any]:
    return {"prompt": PROMPT, "num_inference_steps": 2, **CALLS[family]}


@pytest.fixture
def pipeline_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return lambda family: built(family, tmp_path_factory.mktemp(family))


def graph_of(pipeline: Any, family: str) -> Graph:
    return Graph.from_diffusers(pipeline, task=TASKS.get(family, "text_to_image"))


Names = list[tuple[str, list[str]]]


def diffusers_names(family: str) -> Names:
    """Layers of the backbone as diffusers names them."""
    if family in ("sd", "xl"):
        inner = "down_blocks.1.attentions.0.transformer_blocks.0"
        layers = [f"{inner}.attn1.to_q", f"{inner}.attn2.to_k", f"{inner}.attn1.to_out.0", f"{inner}.ff.net.0.proj", f"{inner}.ff.net.2"]
        return [(layer, [layer]) for layer in [*layers, "up_blocks.0.attentions.0.proj_in", "mid_block.resnets.0.conv1"]]
    if family == "wan":
        layers = ["blocks.0.attn1.to_q", "blocks.1.attn2.to_out.0", "blocks.0.ffn.net.0.proj", "blocks.1.ffn.net.2"]
    elif family == "flux":
        layers = ["transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.add_k_proj", "single_transformer_blocks.0.attn.to_v"]
        layers += ["single_transformer_blocks.0.proj_out", "transformer_blocks.0.ff.net.2"]
    else:
        layers = ["transformer_blocks.0.attn.to_q", "transformer_blocks.1.attn.to_out.0", "transformer_blocks.0.ff.net.0.proj"]
    return [(layer, [layer]) for layer in layers]


def first_names(family: str) -> Names:
    """Layers of the backbone as its first code names them, with those that their rows are here."""
    if family == "xl":
        inner = "transformer_blocks.0"
        return [
            (f"input_blocks.3.1.{inner}.attn1.to_q", [f"down_blocks.1.attentions.0.{inner}.attn1.to_q"]),
            (f"middle_block.1.{inner}.attn2.to_k", [f"mid_block.attentions.0.{inner}.attn2.to_k"]),
            (f"output_blocks.1.1.{inner}.ff.net.2", [f"up_blocks.0.attentions.1.{inner}.ff.net.2"]),
            ("input_blocks.1.0.in_layers.2", ["down_blocks.0.resnets.0.conv1"]),
            ("output_blocks.1.2.conv", ["up_blocks.0.upsamplers.0.conv"]),
            ("input_blocks.2.0.op", ["down_blocks.0.downsamplers.0.conv"]),
            ("middle_block.0.emb_layers.1", ["mid_block.resnets.0.time_emb_proj"]),
            ("time_embed.0", ["time_embedding.linear_1"]),
        ]
    if family == "flux":
        single = "single_transformer_blocks.0"
        return [
            ("double_blocks.0.img_attn.qkv", [f"transformer_blocks.0.attn.to_{letter}" for letter in "qkv"]),
            ("double_blocks.0.txt_attn.qkv", [f"transformer_blocks.0.attn.add_{letter}_proj" for letter in "qkv"]),
            ("double_blocks.0.txt_mlp.2", ["transformer_blocks.0.ff_context.net.2"]),
            ("double_blocks.0.img_mod.lin", ["transformer_blocks.0.norm1.linear"]),
            ("single_blocks.0.linear1", [*(f"{single}.attn.to_{letter}" for letter in "qkv"), f"{single}.proj_mlp"]),
            ("single_blocks.0.linear2", [f"{single}.proj_out"]),
            ("final_layer.adaLN_modulation.1", ["norm_out.linear"]),
        ]
    if family == "sd3":
        return [
            ("joint_blocks.0.x_block.attn.qkv", [f"transformer_blocks.0.attn.to_{letter}" for letter in "qkv"]),
            ("joint_blocks.1.context_block.attn.qkv", [f"transformer_blocks.1.attn.add_{letter}_proj" for letter in "qkv"]),
            ("joint_blocks.0.context_block.mlp.fc2", ["transformer_blocks.0.ff_context.net.2"]),
            ("joint_blocks.0.context_block.adaLN_modulation.1", ["transformer_blocks.0.norm1_context.linear"]),
            ("joint_blocks.1.context_block.adaLN_modulation.1", ["transformer_blocks.1.norm1_context.linear"]),
        ]
    return [
        ("blocks.0.self_attn.q", ["blocks.0.attn1.to_q"]),
        ("blocks.1.cross_attn.o", ["blocks.1.attn2.to_out.0"]),
        ("blocks.0.ffn.0", ["blocks.0.ffn.net.0.proj"]),
    ]


SWAPPED = ("norm_out.linear", "transformer_blocks.1.norm1_context.linear")
PARTS = {"sd": "unet", "xl": "unet"}
TEXTS = {
    "sd": ["text_encoder"],
    "xl": ["text_encoder", "text_encoder_2"],
    "sd3": ["text_encoder", "text_encoder_2"],
    "flux": ["text_encoder"],
}
TEXT_LAYERS = ("encoder.layers.0.self_attn.q_proj", "encoder.layers.1.mlp.fc1")

SPELLINGS = {
    # how names of the backbone begin, whether dots become underscores, whose names
    "diffusers": ("{part}.", False, diffusers_names),
    "kohya": ("lora_unet_", True, diffusers_names),
    "kohya_first": ("lora_unet_", True, first_names),
    "bfl": ("diffusion_model.", False, first_names),
    "toolkit": ("diffusion_model.", False, diffusers_names),
}
FORMATS = [
    ("diffusers", "peft"),
    ("diffusers", "dora_peft"),
    ("toolkit", "peft"),
    ("kohya", "kohya"),
    ("kohya", "dora"),
    ("kohya", "dora_columns"),
    ("kohya", "loha"),
    ("kohya", "lokr"),
    ("kohya", "lokr_whole"),
    ("kohya", "diff"),
    ("kohya_first", "kohya"),
    ("kohya_first", "dora"),
    ("kohya_first", "loha"),
    ("kohya_first", "lokr"),
    ("bfl", "peft"),
    ("bfl", "peft_alpha"),
]
EMPTY = {("sd", "kohya_first"): "kohya's scripts train SD 1 and 2 under diffusers' names", ("sd", "bfl"): "nobody writes the UNet so"}
CELLS = [(family, *cell) for family in CALLS for cell in FORMATS if (family, cell[0]) not in EMPTY]
READ_BY_DIFFUSERS = {
    "sd": {("diffusers", "peft"), ("diffusers", "dora_peft"), ("kohya", "kohya")},
    "xl": {("diffusers", "peft"), ("diffusers", "dora_peft"), ("kohya", "kohya"), ("kohya_first", "kohya")},
    "sd3": {("diffusers", "peft"), ("diffusers", "dora_peft")},
    "flux": {("diffusers", "peft"), ("diffusers", "dora_peft")},
    "wan": {("diffusers", "peft"), ("diffusers", "dora_peft"), ("bfl", "peft")},
}
"""What diffusers reads itself. Of the rest it drops keys (dora_scale), knows no names (SD 3), or its converters know the sizes of one model
(12 B FLUX, each block of Wan): there the weights that were changed by hand are the only reference."""


def text_key(spelling: str, part: str, family: str, path: str, older: bool) -> str:
    number = {"text_encoder": "1", "text_encoder_2": "2"}[part]
    if SPELLINGS[spelling][1]:
        prefix = "lora_te_" if family == "sd" else f"lora_te{number}_"
        return f"{prefix}text_model_{path.replace('.', '_')}"
    return f"{part}.{'text_model.' if older else ''}{path}"


def made(pipeline: Any, family: str, spelling: str, kind: str, *, texts: bool = False, older: bool = True) -> Maker:
    """A file for a pipeline."""
    maker, part = Maker(seed=len(family) + len(kind)), PARTS.get(family, "transformer")
    prefix, is_flat, names = SPELLINGS[spelling]
    modules = dict(getattr(pipeline, part).named_modules())
    for name, layers in names(family):
        key = prefix.format(part=part) + (name.replace(".", "_") if is_flat else name)
        is_swapped = layers[0] in SWAPPED and name != layers[0]
        maker.layer(kind, key, part, layers, modules, swapped=is_swapped)
    for text in TEXTS.get(family, []) if texts else ():
        own = dict(getattr(pipeline, text).named_modules())
        for path in TEXT_LAYERS:
            held = path if path in own else f"text_model.{path}"
            maker.layer(kind, text_key(spelling, text, family, path, older), text, [held], own)
    return maker


def same(first: Tensor, second: Tensor, atol: float = CLOSE) -> None:
    torch.testing.assert_close(first, second, rtol=0, atol=atol)


def expected_of(pipeline: Any, maker: Maker, family: str) -> Tensor:
    """The picture of the pipeline with the changes in its weights, which it has for good then."""
    before = theirs(pipeline, **call_of(family))
    after = theirs(changed(pipeline, maker.weights), **call_of(family))
    assert (after - before).abs().max() > 1e-3, "an adapter that changes nothing proves nothing"
    return after


@pytest.mark.parametrize(("family", "spelling", "kind"), spread(CELLS, all_of=1))
def test_file_to_graph_to_file(pipeline_of: Any, family: str, spelling: str, kind: str, tmp_path: Path) -> None:
    pipeline = pipeline_of(family)
    texts = kind in ("peft", "dora", "loha") and spelling in ("diffusers", "kohya", "kohya_first")
    maker = made(pipeline, family, spelling, kind, texts=texts)
    save_file({key: value.contiguous() for key, value in maker.tensors.items()}, tmp_path / "style.safetensors")
    graph = graph_of(pipeline, family)
    plain = ours(graph, **call_of(family))
    report = lora.load(graph, tmp_path / "style.safetensors", "style")
    assert report.layers == len(maker.weights)
    found = ours(graph, **call_of(family))
    # Written in both forms, and read by a graph that knows nothing of the first file.
    for written in ("kohya", "diffusers"):
        lora.save(graph, tmp_path / written, "style", format=written)
    lora.remove(graph, "style")
    same(ours(graph, **call_of(family)), plain, atol=0)
    for written in ("kohya", "diffusers"):
        lora.load(graph, tmp_path / written, "again")
        same(ours(graph, **call_of(family)), found)
        lora.remove(graph, "again")
    # Of kohya's names for text encoders diffusers drops those of attention without a word where transformers is 5 or newer.
    if (spelling, kind) in READ_BY_DIFFUSERS[family] and not (texts and spelling.startswith("kohya")):
        more = {"unet_config": pipeline.unet.config} if family == "sd" else {}
        pipeline.load_lora_weights(tmp_path / "style.safetensors", **more)
        same(theirs(pipeline, **call_of(family)), found)
        pipeline.unload_lora_weights()
    pipeline.load_lora_weights(tmp_path / "diffusers")
    same(theirs(pipeline, **call_of(family)), found)
    pipeline.unload_lora_weights()
    same(expected_of(pipeline, maker, family), found)


def test_empty_cells_are_named_with_why(capsys: pytest.CaptureFixture[str]) -> None:
    for (family, spelling), why in EMPTY.items():
        print(f"{family} x {spelling}: {why}")
    assert len(capsys.readouterr().out.splitlines()) == len(EMPTY)
    assert {kind for _, kind in FORMATS} == KINDS.keys()


@pytest.mark.parametrize("older", [True, False])
@pytest.mark.parametrize("family", ["sd", "xl", "sd3", "flux"])
def test_either_spelling_of_text_encoders(pipeline_of: Any, family: str, older: bool, tmp_path: Path) -> None:
    pipeline = pipeline_of(family)
    maker = made(pipeline, family, "diffusers", "peft", texts=True, older=older)
    save_file(maker.tensors, tmp_path / "style.safetensors")
    graph = graph_of(pipeline, family)
    lora.load(graph, tmp_path / "style.safetensors", "style")
    found = ours(graph, **call_of(family))
    lora.remove(graph, "style")
    same(expected_of(pipeline, maker, family), found)


@pytest.mark.parametrize("family", list(CALLS))
def test_a_key_without_a_place_is_named(pipeline_of: Any, family: str, tmp_path: Path) -> None:
    pipeline = pipeline_of(family)
    maker = made(pipeline, family, "kohya", "kohya")
    down, up = torch.ones(2, 8), torch.ones(8, 2)
    lost = {"lora_unet_no_such_layer.lora_down.weight": down, "lora_unet_no_such_layer.lora_up.weight": up}
    save_file({**maker.tensors, **lost}, tmp_path / "lost.safetensors")
    graph = graph_of(pipeline, family)
    with pytest.raises(CheckpointError, match=r"has no place for 1: \['lora_unet_no_such_layer'\]"):
        lora.load(graph, tmp_path / "lost.safetensors", "x")
    save_file({**maker.tensors, "lora_unet_x.on_input": torch.ones(1)}, tmp_path / "kind.safetensors")
    with pytest.raises(CheckpointError, match=r"names are no adapter's that is known here: \['lora_unet_x.on_input'\]"):
        lora.load(graph, tmp_path / "kind.safetensors", "x")
    wide = {key: torch.ones(2, 99) if key.endswith("lora_down.weight") else value for key, value in maker.tensors.items()}
    save_file(wide, tmp_path / "wide.safetensors")
    with pytest.raises(CheckpointError, match="It was made for another model"):
        lora.load(graph, tmp_path / "wide.safetensors", "x")
    assert lora.adapters(graph) == {}


# --- what is trained here ---------------------------------------------------------------------------------------------


def trained(graph: Graph, **options: Any) -> None:
    """An adapter whose numbers matter, as training leaves it."""
    lora.add(graph, "mine", **options)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in graph.named_parameters():
            if ".lora_" in name and "magnitude" not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"rank": 4},
    "alpha": {"rank": 4, "alpha": 7},
    "dora": {"rank": 2, "use_dora": True},
    "rslora": {"rank": 4, "alpha": 3, "use_rslora": True},
    "bias": {"rank": 2, "lora_bias": True, "target_modules": ["to_out.0"]},
    "ranks": {"rank": 2, "rank_pattern": {"to_q": 3}, "alpha_pattern": {"to_q": 5}},
    "conv": {"rank": 2, "target_modules": ["conv1", "to_k", "proj", "conv_in", "patch_embedding"]},
}


@pytest.mark.parametrize(("family", "kind"), spread(product(CALLS, OPTIONS)))
def test_what_is_trained_here_leaves_for_diffusers(pipeline_of: Any, family: str, kind: str, tmp_path: Path) -> None:
    pipeline, nodes = pipeline_of(family), ["backbone"]
    if kind in ("plain", "alpha", "dora", "rslora"):
        nodes += [f"{prefix}{text}" for text in TEXTS.get(family, []) for prefix in ("", "negative_")]
    graph = graph_of(pipeline, family)
    plain = ours(graph, **call_of(family))
    options = dict(OPTIONS[kind])
    if "conv_in" in options.get("target_modules", ()):
        own = [path.rsplit(".", 1)[-1] for path, _ in graph.nodes["backbone"].model.named_modules()]
        options["target_modules"] = [name for name in options["target_modules"] if name in own]
    trained(graph, nodes=nodes, **options)
    found = ours(graph, **call_of(family))
    assert (found - plain).abs().max() > 1e-3
    for written in ("diffusers", "kohya"):
        lora.save(graph, tmp_path / written, "mine", format=written)
    graph.to_diffusers(tmp_path / "kept")
    graph.to_diffusers(tmp_path / "fused", adapters="fuse")
    same(ours(graph, **call_of(family)), found, atol=0)
    from diffusers import DiffusionPipeline

    fused = DiffusionPipeline.from_pretrained(str(tmp_path / "fused"), local_files_only=True)
    same(theirs(fused, **call_of(family)), found)
    assert not (tmp_path / "fused" / "pytorch_lora_weights.safetensors").exists()
    kept = DiffusionPipeline.from_pretrained(str(tmp_path / "kept"), local_files_only=True)
    same(theirs(kept, **call_of(family)), plain, atol=1e-6)
    kept.load_lora_weights(str(tmp_path / "kept"))
    same(theirs(kept, **call_of(family)), found)
    kept.unload_lora_weights()
    kept.load_lora_weights(str(tmp_path / "diffusers"))
    same(theirs(kept, **call_of(family)), found)
    lora.load(graph, tmp_path / "kohya" / "mine.safetensors", "again")
    same(ours(graph, **call_of(family)), found)
    lora.set_adapter(graph, "mine")
    lora.fuse(graph, "mine")
    lora.remove(graph, "again")
    same(ours(graph, **call_of(family)), found)
    assert not any("lora" in name or "base_layer" in name for name, _ in graph.named_parameters())


def test_merged_and_weighted_adapters_are_written_whole(pipeline_of: Any, tmp_path: Path) -> None:
    from diffusers import DiffusionPipeline

    graph = graph_of(pipeline_of("sd"), "sd")
    plain = ours(graph, **call_of("sd"))
    trained(graph, rank=2, nodes=["backbone"])
    lora.add(graph, "other", rank=3, nodes=["backbone"])
    with torch.no_grad():
        for name, parameter in graph.named_parameters():
            if ".other." in name:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)) * 0.2)
    lora.set_adapter(graph, {"mine": 0.5, "other": 2.0})
    found = ours(graph, **call_of("sd"))
    for adapters in ("keep", "fuse"):
        graph.to_diffusers(tmp_path / adapters, adapters=adapters)
    lora.set_adapter(graph, "mine")
    lora.merge(graph, "mine")
    merged = ours(graph, **call_of("sd"))
    graph.to_diffusers(tmp_path / "merged")
    graph.to_diffusers(tmp_path / "merged_fused", adapters="fuse")
    same(ours(graph, **call_of("sd")), merged, atol=0)
    for folder, without, within in (
        ("keep", plain, found),
        ("fuse", found, None),
        ("merged", plain, merged),
        ("merged_fused", merged, None),
    ):
        again = DiffusionPipeline.from_pretrained(str(tmp_path / folder), local_files_only=True)
        same(theirs(again, **call_of("sd")), without)
        if within is not None:
            again.load_lora_weights(str(tmp_path / folder))
            same(theirs(again, **call_of("sd")), within)


def test_what_no_file_of_theirs_has_a_place_for(pipeline_of: Any, tmp_path: Path) -> None:
    graph = graph_of(pipeline_of("flux"), "flux")
    lora.add(graph, "mine", rank=2, nodes=["backbone", "text_encoder_2", "negative_text_encoder_2"])
    with pytest.raises(StructureError, match="reads adapters of transformer, text_encoder here, and not of text_encoder_2"):
        lora.save(graph, tmp_path / "out", "mine", format="diffusers")
    lora.save(graph, tmp_path / "out", "mine", format="kohya")
    assert any(key.startswith("lora_te3_encoder_block_0") for key in load_file(tmp_path / "out" / "mine.safetensors"))
    lora.add(graph, "all", rank=2)
    with pytest.raises(StructureError, match="codec: files of other programs have no name for adapters of a AutoencoderKL"):
        lora.save(graph, tmp_path / "out", "all", format="kohya")
    with pytest.raises(StructureError, match="unknown format 'kohia'; did you mean 'kohya'"):
        lora.save(graph, tmp_path / "out", "mine", format="kohia")
    with pytest.raises(StructureError, match="negative_text_encoder are one model and select"):
        lora.set_adapter(graph, "mine")
        graph.set_adapter("negative_text_encoder", None)
        graph.to_diffusers(tmp_path / "unlike", adapters="fuse")


def test_an_adapter_that_some_places_do_not_select(pipeline_of: Any, tmp_path: Path) -> None:
    graph = graph_of(pipeline_of("sd"), "sd")
    trained(graph, rank=2, nodes=["backbone", "text_encoder"])
    for written in ("diffusers", "kohya"):
        with pytest.raises(StructureError, match="text_to_image: negative_text_encoder do not select 'mine', .* format='peft'"):
            lora.save(graph, tmp_path / written, "mine", format=written)
        assert not (tmp_path / written).exists()
    lora.save(graph, tmp_path / "peft", "mine")
    lora.set_adapter(graph, "mine")
    found = ours(graph, **call_of("sd"))
    lora.save(graph, tmp_path / "all", "mine", format="diffusers")
    lora.set_adapter(graph, None)  # kept, and selected nowhere: the adapter itself is written
    lora.save(graph, tmp_path / "parked", "mine", format="diffusers")
    lora.load(graph, tmp_path / "parked", "again")
    same(ours(graph, **call_of("sd")), found)
