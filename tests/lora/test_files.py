"""Adapters in files: ours read by PEFT and diffusers, theirs read here, checkpoints that hold them."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

pytest.importorskip("peft")

import peft

from tests.blocks_for_tests import Scale, chain
from tests.lora.models import Body, fill, snapshot, twice
from wgtorch import lora
from wgtorch.core.block import Block
from wgtorch.core.errors import CheckpointError, StructureError
from wgtorch.core.pool import Pool
from wgtorch.graph import Graph
from wgtorch.lora.adapted_module import layers_of, tensors_of
from wgtorch.lora.peft_format import attach, stored_adapter
from wgtorch.pipeline import Pipeline

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


class Plain(nn.Module):
    """What Body is, without ports, and with outputs by position."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.load_state_dict(body.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


def adapted(name: str = "one", **options: Any) -> Graph:
    graph = chain(Body(), name="g")
    lora.add(graph, name, rank=2, **options)
    fill(graph)
    return graph


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True, "alpha": 5},
        {"target_modules": "first", "lora_bias": True},
        {"use_dora": True},
        {"method": "oft"},
        {"method": "oft", "oft_block_size": 4, "use_cayley_neumann": False, "modules_to_save": ["second"]},
        {"modules_to_save": ["second"]},
    ],
)
def test_what_we_save_peft_reads(options: dict[str, Any], tmp_path: Path) -> None:
    graph = adapted(**options)
    folder = lora.save(graph.nodes["n0"], tmp_path / "one", "one")
    assert sorted(file.name for file in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    model = peft.PeftModel.from_pretrained(Plain(Body()), str(folder))
    torch.testing.assert_close(model(X), graph(x=X)["y"], rtol=0, atol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", peft.utils.warning.PeftWarning)  # it takes a bias for a broken matrix
        own = peft.get_peft_model_state_dict(graph.nodes["n0"], adapter_name="one")
    assert {f"base_model.model.{key}" for key in own} == set(load_file(folder / "adapter_model.safetensors"))
    bare = peft.inject_adapter_in_model(peft.PeftConfig.from_pretrained(str(folder)), Plain(Body()), "x")
    state = {key.removeprefix("base_model.model."): value for key, value in load_file(folder / "adapter_model.safetensors").items()}
    found = peft.set_peft_model_state_dict(bare, state, "x")
    assert not found.unexpected_keys
    torch.testing.assert_close(bare.eval()(X), graph(x=X)["y"], rtol=0, atol=0)


@pytest.mark.parametrize(
    "config",
    [
        peft.LoraConfig(r=2, target_modules=["first", "second"], init_lora_weights=False),
        peft.LoraConfig(
            r=2, target_modules=["first", "second"], init_lora_weights=False, use_rslora=True, lora_alpha=5, rank_pattern={"second": 3}
        ),
        peft.LoraConfig(r=2, target_modules=["first", "second"], init_lora_weights=False, use_dora=True),
        peft.OFTConfig(oft_block_size=2, target_modules=["first", "second"], init_weights=False),
        peft.OFTConfig(r=2, oft_block_size=0, target_modules=["first", "second"], init_weights=False, coft=True, eps=0.1, block_share=True),
        peft.LoraConfig(r=2, target_modules=["first"], init_lora_weights=False, modules_to_save=["second"]),
        peft.OFTConfig(oft_block_size=4, target_modules=["first"], init_weights=False, modules_to_save=["second"]),
    ],
    ids=["lora", "rslora", "dora", "oft", "coft", "lora-copy", "oft-copy"],
)
def test_what_peft_saves_we_read(config: Any, tmp_path: Path) -> None:
    model = peft.get_peft_model(Plain(Body()), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:  # a copy begins as what it is a copy of
                parameter.add_(0.1)
    model.save_pretrained(tmp_path / "theirs")
    graph = chain(Body(), name="g")
    report = lora.load(graph, tmp_path / "theirs", "mine")
    assert graph.node_specs["n0"].adapter == "mine" and report.layers == len(config.target_modules) and report.adapted[0].path == "n0"
    torch.testing.assert_close(graph(x=X)["y"], model(X), rtol=0, atol=0)
    assert all(value.requires_grad for value in tensors_of(graph.nodes["n0"], "mine").values())


@pytest.mark.parametrize(
    "config",
    [
        peft.IA3Config(target_modules=["first"], feedforward_modules=["first"]),
        peft.VeraConfig(r=2, target_modules=["first", "second"]),
        peft.AdaLoraConfig(init_r=2, target_modules=["first"], total_step=10),
        peft.LNTuningConfig(target_modules=["second"]),
    ],
    ids=["ia3", "vera", "adalora", "norms"],
)
def test_kinds_of_peft_that_are_not_read_are_told_by_name(config: Any, tmp_path: Path) -> None:
    peft.get_peft_model(Plain(Body()), config).save_pretrained(tmp_path / "theirs")
    graph = chain(Body(), name="g")
    with pytest.raises(CheckpointError, match=rf"peft_type is '{config.peft_type.value}'.*merge_and_unload.*load that$"):
        lora.load(graph, tmp_path / "theirs")


def test_layers_of_a_wrapped_module_are_called_as_the_module_calls_them(tmp_path: Path) -> None:
    def wrapped() -> Graph:
        graph = Graph("g")
        graph.add_node(Block.wrap(Plain(Body()), inputs={"x": "tensor"}, outputs={"y": "tensor"}), "model")
        graph.infer_exposed_ports()
        return graph

    model = peft.get_peft_model(Plain(Body()), peft.LoraConfig(r=2, target_modules=["first"], init_lora_weights=False))
    model.save_pretrained(tmp_path / "theirs")
    graph = wrapped()
    lora.load(graph, tmp_path / "theirs", "style")
    torch.testing.assert_close(graph(x=X)["y"], model(X), rtol=0, atol=0)
    back = peft.PeftModel.from_pretrained(Plain(Body()), lora.save(graph.nodes["model"], tmp_path / "ours", "style"))
    torch.testing.assert_close(back(X), model(X), rtol=0, atol=0)


@pytest.mark.parametrize("level", [False, True])
def test_a_round_trip(level: bool, tmp_path: Path) -> None:
    graph = chain(Body(seed=1), Body(seed=2), name="g")
    lora.add(graph, "one", rank=2, target_modules=["first"])
    fill(graph)
    target = graph if level else graph.nodes["n1"]
    y = graph(x=X)["y"]
    lora.save(target, tmp_path / "saved", "one")
    lora.save(target, tmp_path / "saved", "one")
    if level:
        assert sorted(entry.name for entry in (tmp_path / "saved").iterdir()) == ["n0", "n1"]
    lora.remove(target, "one")
    report = lora.load(target, tmp_path / "saved", "one")
    assert len(report.adapted) == (2 if level else 1)
    if not level:
        graph.set_adapter("n1", "one")
    torch.testing.assert_close(graph(x=X)["y"], y, rtol=0, atol=0)


def test_blocks_are_found_by_layers_and_shapes_or_named(tmp_path: Path) -> None:
    lora.save(adapted().nodes["n0"], tmp_path / "one", "one")
    graph = chain(Body(seed=1), Body(seed=2), name="g")
    with pytest.raises(CheckpointError, match=r"fits several blocks: \['n0', 'n1'\]; say which with nodes="):
        lora.load(graph, tmp_path / "one")
    lora.load(graph, tmp_path / "one", nodes="n1")
    assert lora.adapters(graph) == {"style": ["n1"]} and graph.node_specs["n0"].adapter is None
    wide = chain(Body(seed=1), Body(width=8), name="g")
    lora.load(wide, tmp_path / "one")
    assert lora.adapters(wide) == {"style": ["n0"]}


class Holds(Block):
    """One layer."""

    outputs: ClassVar[Mapping[str, Any]] = {"y": "tensor"}

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        (nn.Linear, (4, 6), (6, 4)),
        (nn.Linear, (4, 6), (4, 5)),
        (nn.Linear, (4, 6), (5, 6)),
        (nn.Embedding, (4, 6), (6, 4)),
        (nn.Embedding, (4, 6), (4, 5)),
        (nn.Embedding, (4, 6), (5, 6)),
        (nn.Conv2d, (4, 6, 3), (6, 4, 3)),
        ("Conv1D", (4, 6), (6, 4)),
        ("Conv1D", (4, 6), (5, 6)),
    ],
)
def test_widths_tell_blocks_apart(kind: Any, first: tuple[int, ...], second: tuple[int, ...], tmp_path: Path) -> None:
    if kind == "Conv1D":  # of transformers, a linear layer written the other way round
        kind = pytest.importorskip("transformers.pytorch_utils").Conv1D
    for number, sizes in enumerate((first, second)):
        source = Holds(kind(*sizes))
        lora.add(source, "one", rank=2, target_modules=["layer"])
        lora.save(source, tmp_path / str(number), "one")
        graph = Graph("g")
        for node_id, own in (("n0", first), ("n1", second)):
            graph.add_node(Holds(kind(*own)), node_id)
        lora.load(graph, tmp_path / str(number))
        assert lora.adapters(graph) == {"style": [f"n{number}"]}


def test_the_folder_a_level_is_saved_to_holds_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(CheckpointError, match="holds 'letter.txt', which is no adapter"):
        lora.save(adapted(), tmp_path / "home", "one")
    lora.save(adapted(), tmp_path / "again", "one")
    for name in ("README.md", "samples.png"):
        (tmp_path / "again" / name).write_text("mine")
    lora.save(adapted(), tmp_path / "again", "one")
    assert [(tmp_path / "again" / name).read_text() for name in ("README.md", "samples.png")] == ["mine", "mine"], "a card stays"
    with pytest.raises(StructureError, match="no block below has an adapter 'tow'; known: 'one'"):
        lora.save(adapted(), tmp_path / "x", "tow")


# --- errors -----------------------------------------------------------------------------------------------------------


def spoil(folder: Path, **config: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))


def rename(folder: Path, old: str, new: str) -> None:
    file = folder / "adapter_model.safetensors"
    save_file({key.replace(old, new): value for key, value in load_file(file).items()}, file)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda folder: rename(folder, "second", "third"), r"fits no block of \['n0'\]; the nearest, n0, has no place for 1: .*third"),
        (lambda folder: rename(folder, "second.lora_A", "second.lora_magnitude_vector"), "matched nothing.*is missing"),
        (lambda folder: spoil(folder, peft_type="IA3"), "peft_type is 'IA3'; expected 'LORA'"),
        (lambda folder: spoil(folder, r=3), r"has shape \[2, 4\], expected \[3, 4\]"),
        (lambda folder: spoil(folder, init_lora_weights="pissa"), "init_lora_weights is 'pissa', which changes the base itself"),
        (lambda folder: spoil(folder, bias="all"), "bias is 'all'"),
        (lambda folder: spoil(folder, modules_to_save=["first"]), "first.weight is missing"),
        (lambda folder: spoil(folder, something_new=3), "unknown 'something_new': 3; expected fields of peft.LoraConfig"),
        (lambda folder: spoil(folder, megatron_config={"tp": 1}, megatron_core="os"), r"unknown 'megatron_config': \{'tp': 1\}"),
        (lambda folder: spoil(folder, use_qalora=True), "unknown 'use_qalora': True"),
        (
            lambda folder: spoil(folder, r="2", lora_alpha=True),
            "lora_alpha is 'True'; expected a number; r is '2'; expected a whole number from 1",
        ),
        (lambda folder: spoil(folder, lora_alpha=None), "lora_alpha is 'None'; expected a number"),
        (lambda folder: spoil(folder, r=None), "r is 'None'; expected a whole number from 1"),
        (lambda folder: spoil(folder, r=0), "r is '0'; expected a whole number from 1"),
        (lambda folder: spoil(folder, r=2.0), "r is '2.0'; expected a whole number from 1"),
        (lambda folder: spoil(folder, lora_dropout=[]), r"lora_dropout is '\[\]'; expected a number"),
        (lambda folder: spoil(folder, lora_alpha=float("inf")), "lora_alpha is 'inf'; expected a number|Infinity"),
        (lambda folder: spoil(folder, target_modules={"first": 1}), "target_modules is .*; expected words, or an expression"),
        (lambda folder: spoil(folder, target_modules=["first", 2]), "target_modules is .*; expected words, or an expression"),
        (lambda folder: spoil(folder, rank_pattern=[2]), r"rank_pattern is '\[2\]'; expected whole numbers by layer"),
        (lambda folder: spoil(folder, rank_pattern={"first": 2.5}), "rank_pattern is .*; expected whole numbers by layer"),
        (lambda folder: spoil(folder, alpha_pattern={"first": "2"}), "alpha_pattern is .*; expected numbers by layer"),
        (lambda folder: spoil(folder, layers_to_transform=["a"]), "layers_to_transform is .*; expected whole numbers"),
        (lambda folder: spoil(folder, init_lora_weights=3), "init_lora_weights is '3'; expected true, false or a word"),
        (lambda folder: spoil(folder, use_dora="yes"), "use_dora is 'yes'; expected true or false"),
        (lambda folder: spoil(folder, lora_bias=1), "lora_bias is '1'; expected true or false"),
        (lambda folder: spoil(folder, task_type=3), "task_type is '3'; expected text"),
        (lambda folder: spoil(folder, r=10**12), "rank 1000000000000, and none of its tensors is so wide .the widest has 4"),
        (lambda folder: spoil(folder, rank_pattern={"first": 5}), "rank 5, and none of its tensors is so wide"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"PK"), "truncated"),
        (lambda folder: (folder / "adapter_config.json").write_text("[1"), "adapter_config.json"),
        (
            lambda folder: (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin"),
            r"no adapter_model.safetensors among \['adapter_config.json', 'adapter_model.bin'\]; a pickle",
        ),
        (lambda folder: shutil.rmtree(folder), "no adapter; expected a folder with"),
    ],
)
def test_files_that_do_not_fit_change_nothing(harm: Any, words: str, tmp_path: Path) -> None:
    folder = lora.save(adapted().nodes["n0"], tmp_path / "one", "one")
    harm(folder)
    graph = chain(Body(), name="g")
    before = snapshot(graph)
    with pytest.raises(Exception, match=words) as caught:
        lora.load(graph, folder)
    assert type(caught.value).__module__ == "wgtorch.core.errors"
    after = snapshot(graph)
    assert after[0] == before[0] and after[2:] == before[2:] and graph.node_specs["n0"].adapter is None


@pytest.mark.parametrize(("kind", "number"), [("peft", float("nan")), ("file", float("inf")), ("checkpoint", -float("inf"))])
def test_numbers_that_are_none_are_refused_by_name(kind: str, number: float, tmp_path: Path) -> None:
    source, key = adapted(), "first.lora_B.weight"
    path = lora.save(source.nodes["n0"], tmp_path / "one", "one")
    with torch.no_grad():
        tensors_of(source.nodes["n0"], "one")[key][0, 1] = number
    for format in ("peft", "kohya"):
        with pytest.raises(CheckpointError, match=rf"lora.save: n0: .*{key}: 1 of \d+ numbers are NaN or infinite"):
            lora.save(source, tmp_path / format, "one", format=format)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["one"]
    if kind == "checkpoint":
        path = source.save(tmp_path / "whole_one")
    else:
        file = path / "adapter_model.safetensors"
        save_file({name: value.detach().contiguous() for name, value in stored_adapter(source.nodes["n0"], "one")[1].items()}, file)
    if kind == "file":
        path = path / "adapter_model.safetensors"
    graph = chain(Body(), name="g")
    before = snapshot(graph)
    with pytest.raises(CheckpointError, match=rf"one.*{key}: 1 of \d+ numbers are NaN or infinite; the training") as caught:
        lora.load(graph, path)
    assert str(path) in str(caught.value)
    assert snapshot(graph)[2:] == before[2:] and graph.node_specs["n0"].adapter is None


def test_what_has_no_memory_takes_no_adapter(tmp_path: Path) -> None:
    lora.save(adapted(), tmp_path / "it", "one")
    graph = chain(Body(), name="g").to("meta")
    with pytest.raises(CheckpointError, match=r"n0: what lies on the meta device has no memory"):
        lora.load(graph, tmp_path / "it", "one")
    assert graph.state_dict().keys() == chain(Body(), name="g").state_dict().keys()


def test_all_blocks_get_their_adapter_or_none(tmp_path: Path) -> None:
    graph = chain(Body(seed=1), Body(seed=2), name="g")
    lora.add(graph, "one", rank=2)
    lora.save(graph, tmp_path / "saved", "one")
    spoil(tmp_path / "saved" / "n1", r=3)
    fresh = chain(Body(seed=1), Body(seed=2), name="g")
    before = snapshot(fresh)
    with pytest.raises(CheckpointError, match=r"has shape \[2, 4\], expected \[3, 4\]"):
        lora.load(fresh, tmp_path / "saved", "one")
    after = snapshot(fresh)
    assert after[0] == before[0] and after[2:] == before[2:] and lora.adapters(fresh) == {}
    lora.add(fresh, "one", rank=2, nodes=["n1"])
    before = snapshot(fresh)
    with pytest.raises(CheckpointError, match="cannot take the place of adapter 'one' on n1: r. Load it under another name"):
        lora.load(fresh, tmp_path / "saved", "one", replace=True)
    after = snapshot(fresh)
    assert after[0] == before[0] and after[2:] == before[2:] and lora.adapters(fresh) == {"one": ["n1"]}


def test_which_file_of_a_folder_is_read(tmp_path: Path) -> None:
    lora.save(adapted().nodes["n0"], tmp_path / "one", "one")
    tensors = load_file(tmp_path / "one" / "adapter_model.safetensors")
    (home := tmp_path / "home").mkdir()
    save_file(tensors, home / "first.safetensors")
    graph = chain(Body(), name="g")
    lora.load(graph, home, "alone", wear=False)
    save_file(tensors, home / "second.safetensors")
    with pytest.raises(CheckpointError, match=r"no adapter; expected a folder with adapter_config.json \(PEFT\)"):
        lora.load(graph, home, "several")
    doubled = {key: value * 2 for key, value in tensors.items()}
    save_file(doubled, home / "pytorch_lora_weights.safetensors")
    lora.load(graph, home, "named", wear=False)
    own = [tensors_of(graph.nodes["n0"], name) for name in ("alone", "named")]
    assert list(lora.adapters(graph)) == ["alone", "named"] and all(torch.equal(own[1][key], 2 * own[0][key]) for key in own[0])
    with pytest.raises(CheckpointError, match="pickles are never read, convert it"):
        lora.load(graph, home / "lora.bin")
    with pytest.raises(CheckpointError, match="or a checkpoint$"):
        lora.load(graph, home / "lora.safetensors")


def save_bare(file: Path, *prefixes: str, metadata: dict[str, str] | None = None) -> Path:
    """Tensors for both layers of a Body, once under each prefix."""
    shapes = {"A": (2, 4), "B": (4, 2)}
    names = [
        (f"{prefix}{layer}.lora_{half}.weight", shape)
        for prefix in prefixes
        for layer in ("first", "second")
        for half, shape in shapes.items()
    ]
    save_file({name: torch.full(shape, 0.5) for name, shape in names}, file, metadata=metadata)
    return file


def test_what_a_file_calls_its_models_chooses_among_blocks_that_fit(tmp_path: Path) -> None:
    graph = Graph("g")
    for node_id in ("other", "unet", "text_encoder"):
        graph.add_node(Body(), node_id)
    lora.load(graph, save_bare(tmp_path / "one.safetensors", "unet."), "one")
    lora.load(graph, save_bare(tmp_path / "two.safetensors", "unet.", "text_encoder."), "two")
    lora.load(graph, tmp_path / "two.safetensors", "three", nodes={"unet": "other"})
    assert lora.adapters(graph) == {"one": ["unet"], "two": ["unet", "text_encoder"], "three": ["other", "text_encoder"]}
    with pytest.raises(CheckpointError, match=r"fits several blocks: \['other', 'unet', 'text_encoder'\]"):
        lora.load(graph, save_bare(tmp_path / "vae.safetensors", "vae."))


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"lora_adapter_metadata": "{"}, "its lora_adapter_metadata: not readable as JSON"),
        ({"lora_adapter_metadata": "[1]"}, "is a list; expected a mapping"),
        ({"lora_adapter_metadata": '{"unet.r": 0}'}, "what it says of unet: r is '0'; expected a whole number from 1"),
        ({"lora_adapter_metadata": '{"unet.r": 2, "unet.lora_alpha": "x"}'}, "lora_alpha is 'x'; expected a number"),
        ({"lora_adapter_metadata": '{"unet.r": 2, "unet.alpha_pattern": {"first": null}}'}, "alpha_pattern is .*expected numbers by layer"),
    ],
)
def test_damaged_metadata(metadata: dict[str, str], words: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=words):
        lora.load(chain(Body(), name="g"), save_bare(tmp_path / "one.safetensors", "unet.", metadata=metadata))


def test_a_file_without_ranks(tmp_path: Path) -> None:
    save_file({"first.lora_B.weight": torch.zeros(4, 2)}, tmp_path / "half.safetensors")
    with pytest.raises(CheckpointError, match=r"no LoRA tensors among \['first.lora_B.weight'\]; expected names such as"):
        lora.load(chain(Body(), name="g"), tmp_path / "half.safetensors")


def test_checkpoints_without_adapters_or_with_several(tmp_path: Path) -> None:
    plain, graph = chain(Body(), name="g"), adapted()
    plain.save(tmp_path / "plain")
    with pytest.raises(CheckpointError, match="plain: holds no adapters"):
        lora.load(chain(Body(), name="g"), tmp_path / "plain")
    lora.add(graph, "two", rank=2)
    graph.save(tmp_path / "two")
    with pytest.raises(CheckpointError, match="holds several adapters for one block; leave name out"):
        lora.load(chain(Body(), name="g"), tmp_path / "two", "mine")
    lora.load(plain, tmp_path / "two")
    assert list(lora.adapters(plain)) == ["one", "two"]


def test_a_checkpoint_says_which_of_equal_blocks_had_it(tmp_path: Path) -> None:
    graph = chain(Body(seed=1), Body(seed=2), Body(seed=3), name="g")
    lora.add(graph, "one", rank=2, nodes=["n1"])
    graph.save(tmp_path / "saved")
    fresh = chain(Body(seed=1), Body(seed=2), Body(seed=3), name="g")
    lora.load(fresh, tmp_path / "saved")
    assert lora.adapters(fresh) == {"one": ["n1"]} and [fresh.node_specs[node].adapter for node in fresh.nodes] == [None, "one", None]
    with pytest.raises(
        CheckpointError, match=r"^\S+saved: the adapter of 'n1' on \['first', 'second'\]... fits no block of \['n0'\]; the nearest, n0, has"
    ):
        lora.load(chain(Scale(), name="g"), tmp_path / "saved")


def test_a_name_that_no_adapter_can_have(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"adapter 'a.b' cannot be attached: adapter name 'a.b': expected letters"):
        attach(Body(), "a.b", {"r": 2}, {"first.lora_A.weight": torch.ones(2, 4)}, "it")
    for name in ("a.b", ""):
        with pytest.raises(StructureError, match=f"adapter name {name!r}: expected letters"):
            lora.load(chain(Body(), name="g"), save_bare(tmp_path / "one.safetensors", ""), name)


def test_adapters_have_the_dtype_of_their_file(tmp_path: Path) -> None:
    lora.save(adapted().nodes["n0"], tmp_path / "one", "one")
    file = tmp_path / "one" / "adapter_model.safetensors"
    half = {key: value.to(torch.bfloat16) for key, value in load_file(file).items()}
    save_file(half, file)
    graph = chain(Body(), name="g")
    lora.load(graph, tmp_path / "one", "one")
    own = tensors_of(graph.nodes["n0"], "one")
    assert all(torch.equal(value, half[f"base_model.model.{key}"]) and value.dtype == torch.bfloat16 for key, value in own.items())
    assert graph(x=X)["y"].dtype == torch.float32


@pytest.mark.parametrize("kind", ["peft", "file"])
def test_halves_of_unlike_dtypes_are_as_wide_as_the_wider(kind: str, tmp_path: Path) -> None:
    folder = lora.save(adapted().nodes["n0"], tmp_path / "one", "one")
    file = folder / "adapter_model.safetensors"
    save_file({key: value.half() if "lora_A" in key else value for key, value in load_file(file).items()}, file)
    graph = chain(Body(), name="g")
    lora.load(graph, folder if kind == "peft" else file, "one")
    torch.testing.assert_close(graph(x=X)["y"], adapted()(x=X)["y"], atol=1e-2, rtol=1e-2)
    assert {value.dtype for value in tensors_of(graph.nodes["n0"], "one").values()} == {torch.float32}


def test_a_file_of_another_program_as_systems_name_it_or_without_an_adapter(tmp_path: Path) -> None:
    graph = chain(Body(), name="g")
    lora.load(graph, save_bare(tmp_path / "ONE.SAFETENSORS", ""), "one")
    save_file({}, tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="none.safetensors: holds no tensors, so no adapter"):
        lora.load(graph, tmp_path / "none.safetensors", "two")
    save_file({"first.lora_A.weight": torch.ones(3, 4), "first.lora_B.weight": torch.ones(4, 2)}, tmp_path / "odd.safetensors")
    with pytest.raises(CheckpointError, match="first: .* are of ranks 3 and 2; expected one rank"):
        lora.load(graph, tmp_path / "odd.safetensors", "two", nodes="n0")
    folder = lora.save(adapted().nodes["n0"], tmp_path / "marked", "one")
    (folder / "adapter_config.json").write_bytes(b"\xef\xbb\xbf" + (folder / "adapter_config.json").read_bytes())
    lora.load(graph, folder, "three")
    assert lora.adapters(graph) == {"one": ["n0"], "three": ["n0"]}


def test_weights_that_do_not_fit_an_adapter_that_is_there(tmp_path: Path) -> None:
    graph = adapted()
    graph.save(tmp_path / "saved")
    wide = chain(Body(), name="g")
    lora.add(wide, "one", rank=3)
    with pytest.raises(CheckpointError, match=r"n0: adapter 'one': first.lora_A.weight has shape \[2, 4\], expected \[3, 4\]"):
        wide.load_weights(tmp_path / "saved")
    lora.add(graph, "more", rank=2)
    found = graph.load_weights(tmp_path / "saved", strict=False)
    assert [str(finding) for finding in found] == ["n0: adapter 'more': missing from the checkpoint"]


def test_what_peft_writes_beside_is_not_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields that say nothing of the adapter, or name code, never reach PEFT."""
    folder = lora.save(adapted().nodes["n0"], tmp_path / "one", "one")
    spoil(
        folder,
        megatron_core="no.such.module",
        auto_mapping={"base_model_class": "x", "parent_library": "os"},
        r=4,
        rank_pattern={"first": 2},
    )
    file = folder / "adapter_model.safetensors"
    wide = {key: torch.ones(4, 4) if "second" in key else value for key, value in load_file(file).items()}
    save_file(wide, file)
    given: dict[str, Any] = {}
    made = peft.LoraConfig
    fields = made.__dataclass_fields__

    def config(**arguments: Any) -> Any:
        given.update(arguments)
        return made(**arguments)

    monkeypatch.setattr(peft, "LoraConfig", config)
    graph = chain(Body(), name="g")
    lora.load(graph, folder)
    assert (
        given["r"] == 4
        and not {"megatron_core", "megatron_config", "auto_mapping", "runtime_config"} & set(given)
        and set(given) < set(fields)
    )
    assert dict(graph.nodes["n0"].first.r) == {"style": 2} and dict(graph.nodes["n0"].second.r) == {"style": 4}


def test_other_weights_under_the_same_name(tmp_path: Path) -> None:
    first, second = adapted(), adapted()
    fill(second, seed=9)
    lora.save(second.nodes["n0"], tmp_path / "second", "one")
    held = dict(first.named_parameters())
    with pytest.raises(StructureError, match="n0: has an adapter 'one' already; pass replace=True"):
        lora.load(first, tmp_path / "second", "one")
    lora.load(first, tmp_path / "second", "one", replace=True)
    torch.testing.assert_close(first(x=X), second(x=X), rtol=0, atol=0)
    assert all(parameter is held[name] for name, parameter in first.named_parameters())
    lora.save(adapted(alpha=7).nodes["n0"], tmp_path / "third", "one")
    with pytest.raises(CheckpointError, match="cannot take the place of adapter 'one' on n0: lora_alpha"):
        lora.load(first, tmp_path / "third", "one", replace=True)


# --- diffusers --------------------------------------------------------------------------------------------------------


@pytest.fixture
def pipe(tmp_path: Path) -> Any:
    pytest.importorskip("diffusers")
    from tests.integrations.diffusers import tiny

    torch.manual_seed(0)
    return tiny.stable_diffusion(tmp_path / "sd")


def text_to_image(pipe: Any) -> tuple[Graph, str, str]:
    """The pipeline as a graph, and the nodes of its UNet and text encoder."""
    graph = Graph.from_diffusers(pipe)
    kinds = {child.block_type: node for node, child in graph.nodes.items()}
    return graph, kinds["backbone/unet_2d_condition"], kinds["conditioner/clip_text"]


def painted(model: nn.Module) -> Tensor:
    """What a UNet gives."""
    generator = torch.Generator().manual_seed(3)
    latent, condition = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 5, 16, generator=generator)
    with torch.no_grad():
        return model(latent, 7, encoder_hidden_states=condition, return_dict=False)[0]


def read(model: nn.Module) -> Tensor:
    """What a text encoder gives."""
    with torch.no_grad():
        return model(torch.arange(8).view(1, 8)).last_hidden_state


def as_kohya(state: dict[str, Tensor], model: str, alpha: float) -> dict[str, Tensor]:
    """``lora_unet_..._to_q.lora_down.weight``, ``lora_up`` and ``alpha``, as kohya's scripts write them."""
    words = {"unet": "lora_unet", "text_encoder": "lora_te"}[model]
    found = {}
    for key, value in state.items():
        layer, _, half = key.partition(".lora_")
        name = f"{words}_{layer.replace('.', '_')}"
        found[f"{name}.lora_{'down' if half.startswith('A') else 'up'}.weight"] = value
        found[f"{name}.alpha"] = torch.tensor(alpha)
    return found


def theirs(pipe: Any, style: str, folder: Path) -> Path:
    """LoRA files as diffusers and its training scripts write them, with values that matter."""
    from diffusers.utils import convert_state_dict_to_diffusers

    config = {"r": 2, "lora_alpha": 3 if style != "script" else 2, "init_lora_weights": False}
    pipe.unet.add_adapter(peft.LoraConfig(target_modules=["to_q", "to_v", "conv1"], **config), "x")
    peft.inject_adapter_in_model(peft.LoraConfig(target_modules=["q_proj", "v_proj"], **config), pipe.text_encoder, "x")
    states = {model: peft.get_peft_model_state_dict(getattr(pipe, model), adapter_name="x") for model in ("unet", "text_encoder")}
    if style == "adapter":
        pipe.unet.save_lora_adapter(folder, "x")
        return folder
    if style == "kohya":
        folder.mkdir()
        named = {key: value for model in states for key, value in as_kohya(states[model], model, 3.0).items()}
        save_file(named, folder / "kohya.safetensors")
        return folder / "kohya.safetensors"
    metadata = {}
    if style == "script":
        states = {model: convert_state_dict_to_diffusers(state) for model, state in states.items()}
    else:
        metadata = {f"{model}_lora_adapter_metadata": getattr(pipe, model).peft_config["x"].to_dict() for model in states}
    layers = {f"{model}_lora_layers": state for model, state in states.items()}
    type(pipe).save_lora_weights(folder, **layers, **metadata)
    return folder / "pytorch_lora_weights.safetensors" if style == "file" else folder


def test_a_file_of_tensors_alone_says_ranks_and_alphas(tmp_path: Path) -> None:
    """Layers of unlike rank; alpha is the rank where no ``.alpha`` says otherwise."""
    generator = torch.Generator().manual_seed(1)
    sizes = {"first": 2, "inner.third": 2, "inner.fourth": 3}
    state = {
        f"{layer}.lora_{half}.weight": torch.randn((rank, 4) if half == "A" else (4, rank), generator=generator)
        for layer, rank in sizes.items()
        for half in "AB"
    }
    save_file({**state, "inner.third.alpha": torch.tensor(5.0)}, tmp_path / "bare.safetensors")

    class Nested(Body):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.ModuleDict({"third": nn.Linear(4, 4), "fourth": nn.Linear(4, 4), "first": nn.Linear(4, 4)})

    graph = chain(Nested(), name="g")
    report = lora.load(graph, tmp_path / "bare.safetensors", "bare")
    assert (report.layers, report.parameters, report.frozen) == (3, 2 * 4 * (2 + 2 + 3), 0) and report.skipped == ()
    found = {path: (layer.r["bare"], layer.scaling["bare"]) for path, layer in layers_of(graph.nodes["n0"])}
    assert found == {"first": (2, 1.0), "inner.third": (2, 2.5), "inner.fourth": (3, 1.0)}
    assert all(torch.equal(value, state[name]) for name, value in tensors_of(graph.nodes["n0"], "bare").items())


@pytest.mark.parametrize("style", ["adapter", "folder", "file", "script", "kohya"])
def test_what_diffusers_saves_we_read(pipe: Any, style: str, tmp_path: Path) -> None:
    from tests.integrations.diffusers import tiny

    graph, unet, text = text_to_image(tiny.stable_diffusion(tmp_path / "sd2"))
    before = snapshot(graph)
    path = theirs(pipe, style, tmp_path / "lora")
    lora.load(graph, path, "theirs")
    places = {
        node for node, child in graph.nodes.items() if child is graph.nodes[unet] or (style != "adapter" and child is graph.nodes[text])
    }
    assert {name: set(paths) for name, paths in lora.adapters(graph).items()} == {"theirs": places}
    assert graph.node_specs[unet].adapter == "theirs"
    with lora.use_adapter(graph, "theirs"):
        torch.testing.assert_close(painted(graph.nodes[unet].model), painted(pipe.unet))
        if style != "adapter":
            torch.testing.assert_close(read(graph.nodes[text].model), read(pipe.text_encoder))
    lora.remove(graph, "theirs")
    assert snapshot(graph)[0] == before[0] and snapshot(graph)[2:] == before[2:]


def test_what_we_save_diffusers_reads(pipe: Any, tmp_path: Path) -> None:
    from tests.integrations.diffusers import tiny

    graph, unet, _ = text_to_image(tiny.stable_diffusion(tmp_path / "sd2"))
    lora.add(graph, "ours", rank=2, alpha=3, nodes=[unet])
    fill(graph)
    lora.save(graph, tmp_path / "ours", "ours")
    folder = tmp_path / "ours" / unet
    assert all(
        key.startswith("base_model.model.down_blocks") or "blocks" in key or "time" in key
        for key in load_file(folder / "adapter_model.safetensors")
    )
    model = peft.PeftModel.from_pretrained(pipe.unet, str(folder))
    with lora.use_adapter(graph, "ours"):
        torch.testing.assert_close(painted(graph.nodes[unet].model), painted(model.base_model.model))
    again = tiny.stable_diffusion(tmp_path / "sd3").unet
    state = {key.removeprefix("base_model.model."): value for key, value in load_file(folder / "adapter_model.safetensors").items()}
    again.load_lora_adapter(state, prefix=None, adapter_name="ours", metadata=json.loads((folder / "adapter_config.json").read_text()))
    with lora.use_adapter(graph, "ours"):
        torch.testing.assert_close(painted(graph.nodes[unet].model), painted(again))


def test_a_pipeline_that_has_one_already(pipe: Any, tmp_path: Path) -> None:
    theirs(pipe, "folder", tmp_path / "lora")
    graph, unet, text = text_to_image(pipe)
    expected = painted(pipe.unet)
    block = graph.nodes[unet]
    with pytest.raises(
        CheckpointError, match=r"has adapters \['x'\] that PEFT put in itself, active at every place; call wgtorch.lora.from_peft"
    ):
        block.save(tmp_path / "saved")
    assert {unet, text} <= set(lora.from_peft(graph)) and graph.node_specs[unet].adapter == graph.node_specs[text].adapter == "x"
    with lora.use_adapter(graph, "x"):
        torch.testing.assert_close(painted(block.model), expected, rtol=0, atol=0)
    loaded = type(block).load(block.save(tmp_path / "saved"))
    with lora.use_adapter(loaded, "x"):
        torch.testing.assert_close(painted(loaded.model), expected, rtol=0, atol=0)


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_a_checkpoint_brings_back_what_each_place_selects(tmp_path: Path) -> None:
    graph = twice(Body())
    lora.add(graph, "one", rank=2, nodes=["n1"])
    lora.add(graph, "two", rank=3, nodes=["n3"])
    graph.set_adapter("n1", {"one": 0.5, "two": 1.0})
    fill(graph)
    path = graph.save(tmp_path / "g")
    loaded = Graph.load(path)
    assert loaded.node_specs["n1"].adapter == {"one": 0.5, "two": 1.0} and loaded.node_specs["n3"].adapter == "two"
    assert loaded.nodes["n1"] is loaded.nodes["n3"]
    torch.testing.assert_close(loaded(x=X), graph(x=X), rtol=0, atol=0)
    loaded(x=X)["y"].sum().backward()
    assert loaded.nodes["n1"].first.lora_A["one"].weight.grad is not None
    assert set(load_file(path / "blocks" / "n1.safetensors")) == {"first.weight", "first.bias", "second.weight", "second.bias"}
    for name in ("one", "two"):
        lora.remove(loaded, name)
    torch.testing.assert_close(loaded(x=X)["y"], twice(Body())(x=X)["y"], rtol=0, atol=0)


def test_light_variants_hold_their_adapter_and_name_their_base(tmp_path: Path) -> None:
    base = chain(Body(), name="g")
    base.save(tmp_path / "base")
    outputs = {}
    for seed, name in enumerate(("winter", "summer")):
        graph = Graph.load(tmp_path / "base")
        lora.add(graph, "season", rank=2, freeze_base=True)
        fill(graph, seed)
        graph.save_checkpoint(tmp_path / name, base=tmp_path / "base")
        outputs[name] = graph(x=X)["y"]
        assert not (tmp_path / name / "blocks").exists()
    for name, y in outputs.items():
        torch.testing.assert_close(Graph.load(tmp_path / name)(x=X)["y"], y, rtol=0, atol=0)
    graph = Graph.load(tmp_path / "base")
    lora.load(graph, tmp_path / "winter", "winter")
    lora.load(graph, tmp_path / "summer", "summer")
    for name, y in outputs.items():
        lora.set_adapter(graph, name)
        torch.testing.assert_close(graph(x=X)["y"], y, rtol=0, atol=0)
    lora.set_adapter(graph, None)
    torch.testing.assert_close(graph(x=X)["y"], base(x=X)["y"], rtol=0, atol=0)


def test_one_base_in_memory_serves_variants_that_share_a_pool(tmp_path: Path) -> None:
    file = tmp_path / "body.safetensors"
    save_file(Body().state_dict(), file)
    paths = {}
    for seed, name in enumerate(("winter", "summer", "winter_too")):
        graph = Graph("g")
        graph.add_node("test_lora/body", "n0", config={"checkpoint_ref": str(file)})
        graph.infer_exposed_ports()
        lora.add(graph, name.removesuffix("_too"), rank=2)
        fill(graph, seed)
        paths[name] = (graph.save(tmp_path / name), graph(x=X)["y"])
    pool = Pool()
    worlds = {name: Graph.load(path, pool=pool) for name, (path, _) in paths.items()}
    assert worlds["winter"].nodes["n0"] is worlds["summer"].nodes["n0"]
    assert worlds["winter"].nodes["n0"] is not worlds["winter_too"].nodes["n0"], "one base cannot hold two of one name"
    again = Graph.load(paths["winter"][0], pool=pool)
    assert again.nodes["n0"] is worlds["winter"].nodes["n0"] and len(pool) == 1
    for name, (_, y) in paths.items():
        torch.testing.assert_close(worlds[name](x=X)["y"], y, rtol=0, atol=0)


def test_weights_of_a_checkpoint_go_into_adapters_too(tmp_path: Path) -> None:
    graph = adapted()
    path = graph.save(tmp_path / "g")
    other = adapted()
    fill(other, 5)
    other.load_weights(path)
    torch.testing.assert_close(other(x=X), graph(x=X), rtol=0, atol=0)
    bare = chain(Body(seed=4), name="g")
    before = snapshot(bare)[1]
    with pytest.raises(CheckpointError, match=r"n0: adapter 'one': the block has none of that name. Attach it with wgtorch.lora.load"):
        bare.load_weights(path)
    assert all(torch.equal(value, before[name]) for name, value in bare.state_dict().items())
    more = adapted()
    lora.add(more, "two", rank=2)
    with pytest.raises(CheckpointError, match="n0: adapter 'two': missing from the checkpoint"):
        more.load_weights(path)
    assert [finding.where for finding in more.load_weights(path, strict=False)] == ["n0: adapter 'two'"]


def test_parts_of_a_checkpoint(tmp_path: Path) -> None:
    pipeline = Pipeline("p")
    pipeline.add_graph(adapted(), "only")
    pipeline.infer_exposed_ports()
    path = pipeline.save(tmp_path / "p")
    torch.testing.assert_close(Graph.load_from_checkpoint(path, part="only")(x=X), adapted()(x=X), rtol=0, atol=0)
    fresh = chain(Body(), name="g")
    lora.load(fresh, path)
    assert lora.adapters(fresh) == {"one": ["n0"]}


def test_configs_and_state_dict_of_a_shared_block() -> None:
    graph = adapted()
    twin = adapted()
    fill(twin, 7)
    twin.load_state_dict(graph.state_dict(), strict=True)
    torch.testing.assert_close(twin(x=X), graph(x=X), rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="lora_A"):
        chain(Body(), name="g").load_state_dict(graph.state_dict(), strict=True)
