"""Weights that lie outside: files, folders of diffusers and transformers, parts of other checkpoints; light variants."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.blocks_for_tests import Affine
from tests.checkpoints.blocks import Rich, assert_same, rich_graph
from wgtorch import lora
from wgtorch.core.block import Block, BlockRegistry, register_block
from wgtorch.core.checkpoint.refs import load_checkpoint
from wgtorch.core.errors import CheckpointError
from wgtorch.core.pool import now_building
from wgtorch.graph import Graph


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "outside" / "affine.safetensors"
    path.parent.mkdir()
    save_file(Affine(seed=8).state_dict(), path)
    return path


def referring(ref: str | Path, **place: Any) -> Graph:
    graph = Graph("g")
    graph.add_node("test/affine", "a", config={"checkpoint_ref": str(ref)}, **place)
    graph.infer_exposed_ports()
    return graph


def entry(path: Path, block: str = "a") -> dict[str, Any]:
    return json.loads((path / "manifest.json").read_text())["blocks"][block]


@pytest.mark.parametrize("format", ["dir", "archive"])
def test_an_unchanged_block_is_saved_as_its_ref(file: Path, format: str, tmp_path: Path) -> None:
    graph = referring(file)
    path = graph.save_checkpoint(tmp_path / "g", format)
    if format == "dir":
        assert not (path / "blocks").exists() and entry(path)["ref"] == str(file)
    loaded = Graph.load_from_checkpoint(path)
    assert_same(loaded, graph)
    assert_same(loaded.nodes["a"], Affine(seed=8))


def test_trained_or_self_contained_it_is_stored(file: Path, tmp_path: Path) -> None:
    graph = referring(file)
    whole = graph.save_checkpoint(tmp_path / "whole", self_contained=True)
    with torch.no_grad():
        graph.nodes["a"].linear.bias[0] += 1e-6
    trained = graph.save(tmp_path / "trained")
    for path in (whole, trained):
        assert entry(path)["files"] and "ref" not in entry(path)
    file.unlink()
    assert_same(Graph.load(trained), graph)
    assert_same(Graph.load(whole).nodes["a"], Affine(seed=8))


def test_a_dtype_of_its_own_is_a_change(file: Path, tmp_path: Path) -> None:
    save_file({name: value.half() for name, value in Affine(seed=8).state_dict().items()}, file)
    graph = referring(file)
    assert graph.nodes["a"].linear.weight.dtype == torch.float32, "a ref's weights take the block's dtype"
    assert entry(graph.save(tmp_path / "same"))["ref"]
    path = graph.half().save(tmp_path / "half")
    assert_same(Graph.load(path), graph)


def test_a_file_that_changed_since_the_save_is_an_error(file: Path, tmp_path: Path) -> None:
    path = referring(file).save(tmp_path / "g")
    save_file(Affine(seed=9).state_dict(), file)
    with pytest.raises(CheckpointError, match=r"affine.safetensors changed since the checkpoint was saved"):
        Graph.load(path)


def test_packaged_weights_that_are_newer_now_are_named_and_taken_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = Graph("g")
    graph.add_node("reader/trained", "read", config={"checkpoint_ref": "wgtorch:action_reader"})
    graph.infer_exposed_ports()
    path = graph.save(tmp_path / "g")
    monkeypatch.setattr("wgtorch.core.checkpoint.refs.digest_of", lambda file: "0" * 64)
    with pytest.raises(
        CheckpointError, match=r"come with wgtorch, and this version has others: load_from_checkpoint\(\.\.\., verify=False\)"
    ):
        Graph.load(path)
    assert Graph.load_from_checkpoint(path, verify=False).nodes["read"].read("go north")[0].verb == "go"


def test_a_relative_ref_is_found_from_another_folder(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = referring("outside/affine.safetensors").save(tmp_path / "g")
    assert entry(path)["ref"] == "outside/affine.safetensors"
    monkeypatch.chdir("/")
    assert_same(Graph.load(path).nodes["a"], Affine(seed=8))


def test_misfits_of_a_ref_are_listed(file: Path) -> None:
    save_file({"linear.weight": torch.zeros(3, 4), "extra": torch.zeros(1)}, file)
    with pytest.raises(CheckpointError) as caught:
        referring(file)
    for words in (
        "affine.safetensors does not fit (3 findings)",
        "linear.weight: float32 [3, 4]; expected float32 [4, 4]",
        "linear.bias: missing",
        "extra: unexpected",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize("layout", ["single", "diffusers", "transformers", "sharded", "index", "variant"])
def test_folders_as_diffusers_and_transformers_write_them(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = Affine(seed=8).state_dict()
    ref = tmp_path
    if layout in ("single", "diffusers", "transformers"):
        name = {"single": "any", "diffusers": "diffusion_pytorch_model", "transformers": "model"}[layout]
        save_file(state, tmp_path / f"{name}.safetensors")
        (tmp_path / "config.json").write_text("{}")
    else:
        save_file({"linear.weight": state["linear.weight"]}, tmp_path / "model-00001-of-00002.safetensors")
        save_file({"linear.bias": state["linear.bias"]}, tmp_path / "model-00002-of-00002.safetensors")
        weights = {"linear.weight": "model-00001-of-00002.safetensors", "linear.bias": "model-00002-of-00002.safetensors"}
        index = tmp_path / f"model.safetensors.index{'.fp16' if layout == 'variant' else ''}.json"
        index.write_text(json.dumps({"metadata": {}, "weight_map": weights}))
        ref = tmp_path if layout == "sharded" else index
    graph = referring(ref)
    assert_same(graph.nodes["a"], Affine(seed=8))
    assert_same(Graph.load(graph.save(tmp_path / "saved")), graph)
    monkeypatch.chdir(tmp_path.parent)
    path = referring(ref.relative_to(tmp_path.parent)).save(tmp_path / "relative")
    monkeypatch.chdir("/")
    assert_same(Graph.load(path), graph)


@register_block("test/bert")
class Bert(Block):
    """A transformers model whose architecture is in its config and whose weights lie in a folder it wrote itself."""

    outputs: ClassVar[Mapping[str, Any]] = {"embedding": "tensor"}

    def __init__(self, width: int = 16) -> None:
        from transformers import BertConfig, BertModel

        super().__init__()
        inner = BertModel(
            BertConfig(
                hidden_size=width,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=32,
                vocab_size=40,
                max_position_embeddings=16,
            )
        )
        for name, child in inner.named_children():
            self.add_module(name, child)
        self.__dict__["inner"] = inner

    def forward(self, tokens: Tensor) -> Tensor:
        return self.embeddings(tokens)


def test_a_folder_that_transformers_wrote(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    torch.manual_seed(3)
    inner = Bert().inner
    inner.save_pretrained(tmp_path / "bert", max_shard_size="10KB")
    assert len(list((tmp_path / "bert").glob("*.safetensors"))) > 1
    block = BlockRegistry.build({"block_type": "test/bert", "config": {"checkpoint_ref": str(tmp_path / "bert")}})
    state = block.state_dict()
    for name, value in inner.state_dict().items():
        assert torch.equal(state[name], value)


@register_block("test/around")
class Around(Block):
    """Reads its ref in its own constructor, into a submodule, as blocks around other libraries' models do."""

    outputs: ClassVar[Mapping[str, Any]] = {"y": "tensor"}
    ref_module: ClassVar[str] = "model"

    def __init__(self, checkpoint_ref: str | None = None) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(4, 4))
        if checkpoint_ref is not None and not now_building().empty:
            self.model.load_state_dict(load_file(checkpoint_ref))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def test_a_block_that_reads_its_ref_itself(tmp_path: Path) -> None:
    weights = nn.Sequential(nn.Linear(4, 4)).state_dict()
    save_file(weights, tmp_path / "w.safetensors")
    graph = Graph("g")
    graph.add_node("test/around", "a", config={"checkpoint_ref": str(tmp_path / "w.safetensors")})
    assert torch.equal(graph.nodes["a"].model[0].weight, weights["0.weight"])
    path = graph.save(tmp_path / "by_ref")
    assert entry(path)["ref"] and not (path / "blocks").exists()
    assert_same(Graph.load(path), graph)
    with torch.no_grad():
        graph.nodes["a"].model[0].bias.add_(1)
    trained = graph.save(tmp_path / "trained")
    (tmp_path / "w.safetensors").unlink()
    assert_same(Graph.load(trained), graph)


def test_a_part_of_another_checkpoint_is_a_ref(tmp_path: Path) -> None:
    base = rich_graph()
    path = base.save(tmp_path / "base")
    graph = referring(f"{path}#n3")
    assert_same(graph.nodes["a"], base.nodes["n1"])
    saved = graph.save(tmp_path / "g")
    assert entry(saved)["ref"] == f"{path}#n3" and not (saved / "blocks").exists()
    assert_same(Graph.load(saved), graph)
    with pytest.raises(CheckpointError, match="no weights at 'n9'"):
        referring(f"{path}#n9")
    with pytest.raises(CheckpointError, match="say which part of it"):
        referring(path)


@pytest.mark.parametrize(
    ("ref", "words"),
    [
        ("nowhere.safetensors", "is not there"),
        ("model.bin", "pickles .* are never read"),
        ("org/model", "expected a .safetensors file, a folder"),
        ("wgtorch:scene_paintr", "did you mean 'wgtorch:scene_painter'"),
        ("wgtorch:../secret", "no such weights in the package"),
    ],
)
def test_a_ref_that_names_nothing(ref: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=words):
        referring(ref)


def test_what_lies_there_instead_of_weights_is_said(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"there: none; pickles .* are never read"):
        referring(tmp_path)
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 123456\n")
    with pytest.raises(CheckpointError, match="a pointer of Git LFS: git lfs pull"):
        referring(tmp_path)


def test_an_index_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))
    with pytest.raises(CheckpointError, match="leaves the checkpoint or is no plain path"):
        referring(tmp_path)


def test_a_failed_ref_leaves_the_block_as_it_was(file: Path) -> None:
    block = Rich()
    before = {name: value.clone() for name, value in block.state_dict().items()}
    with pytest.raises(CheckpointError):
        load_checkpoint(block, str(file))
    assert all(torch.equal(before[name], value) for name, value in block.state_dict().items())


@pytest.mark.parametrize("format", ["dir", "archive"])
def test_variants_of_a_base_store_what_differs(format: str, tmp_path: Path) -> None:
    graph = rich_graph()
    base = graph.save_checkpoint(tmp_path / "base", format)
    with torch.no_grad():
        graph.nodes["n2"].linear.bias.add_(1)
    path = graph.save_checkpoint(tmp_path / "variant", base=base)
    assert [file.name for file in (path / "blocks").iterdir()] == ["n2.safetensors"]
    assert entry(path, "n1")["ref"] == f"{base}#n1"
    loaded = Graph.load(path)
    assert_same(loaded, graph)
    assert loaded.nodes["n1"] is loaded.nodes["n3"]
    rich_graph().save_checkpoint(base, format, self_contained=True)
    assert_same(Graph.load(path), graph)
    other = rich_graph()
    with torch.no_grad():
        other.nodes["n1"].linear.bias.add_(1)
    other.save_checkpoint(base, format)
    with pytest.raises(CheckpointError, match="changed since the checkpoint was saved"):
        Graph.load(path)
    with pytest.raises(CheckpointError, match="cannot be its own base"):
        graph.save_checkpoint(path, base=path)


# --- adapters ---------------------------------------------------------------------------------------------------------


def adapted(ref: Path, seed: int, name: str = "mine") -> Graph:
    pytest.importorskip("peft")
    graph = referring(ref)
    lora.add(graph, name, rank=2, target_modules=["linear"])
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in graph.nodes["a"].named_parameters():
            if "lora_" in key:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return graph


def test_a_light_variant_holds_its_adapter_and_no_base(file: Path, tmp_path: Path) -> None:
    graph = adapted(file, 1)
    path = graph.save(tmp_path / "light")
    assert not (path / "blocks").exists() and entry(path)["ref"]
    weights = load_file(path / "adapters/a/mine/adapter_model.safetensors")
    assert sorted(weights) == ["base_model.model.linear.lora_A.weight", "base_model.model.linear.lora_B.weight"]
    loaded = Graph.load(path)
    x = torch.randn(3, 4)
    torch.testing.assert_close(loaded(x=x), graph(x=x), rtol=0, atol=0)
    assert not torch.equal(loaded(x=x)["y"], Affine(seed=8)(x=x))


def test_peft_itself_reads_the_adapter(file: Path, tmp_path: Path) -> None:
    graph = adapted(file, 1)
    path = graph.save(tmp_path / "light")

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x)

    plain = Plain()
    plain.load_state_dict(Affine(seed=8).state_dict())
    model = pytest.importorskip("peft").PeftModel.from_pretrained(plain, path / "adapters/a/mine")
    x = torch.randn(3, 4)
    torch.testing.assert_close(model(x), graph(x=x)["y"], rtol=0, atol=0)


def test_an_adapter_that_matches_nothing_is_an_error(file: Path, tmp_path: Path) -> None:
    path = adapted(file, 1).save(tmp_path / "light")
    manifest = json.loads((path / "manifest.json").read_text())
    weights = path / "adapters/a/mine/adapter_model.safetensors"
    save_file({"base_model.model.other.lora_A.weight": torch.zeros(2, 4)}, weights)
    with pytest.raises(CheckpointError, match="hash differs|truncated|longer"):
        Graph.load(path)
    reseal(path, manifest)
    with pytest.raises(CheckpointError, match="other.lora_A.weight matched nothing.*linear.lora_A.weight is missing"):
        Graph.load(path)


def reseal(path: Path, manifest: dict[str, Any]) -> None:
    """Gives a folder a manifest that is true of its files again."""
    import hashlib

    from wgtorch.core.checkpoint.manifest import _own_hash

    def visit(value: Any) -> None:
        if isinstance(value, dict):
            if {"file", "bytes", "sha256"} <= set(value):
                raw = (path / value["file"]).read_bytes()
                value["bytes"], value["sha256"] = len(raw), hashlib.sha256(raw).hexdigest()
            for name, item in value.items():
                if name != "outside":
                    visit(item)
        elif isinstance(value, list):
            for item in value:
                visit(item)

    visit(manifest)
    manifest.pop("manifest_sha256", None)
    manifest["manifest_sha256"] = _own_hash(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))
