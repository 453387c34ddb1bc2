"""What is saved is what is loaded: every level, both formats, shards, ties, dtypes, sharing, parts."""

from __future__ import annotations

import copy
import functools
import json
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from tests.blocks_for_tests import Affine, Scale, as_pipeline, as_stage, chain
from tests.checkpoints.blocks import NeedsValues, Rich, assert_same, rich_graph, small_world
from wgtorch.core.block import Block, BlockRegistry, register_block
from wgtorch.core.checkpoint import save
from wgtorch.core.checkpoint.tensors import bytes_of, make_header
from wgtorch.core.errors import CheckpointError, ConfigError, RebuiltOtherwiseWarning
from wgtorch.core.level import Level
from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline
from wgtorch.world import World

FORMATS = ["dir", "archive"]
LEVELS = {
    "block": lambda: rich_graph().nodes["n0"],
    "graph": rich_graph,
    "pipeline": lambda: as_pipeline(rich_graph()),
    "stage": lambda: as_stage(rich_graph()),
    "world": small_world,
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("level", LEVELS)
def test_every_level_comes_back_bit_for_bit(level: str, format: str, tmp_path: Path) -> None:
    saved = LEVELS[level]()
    before = torch.get_rng_state()
    path = saved.save_checkpoint(tmp_path / "it", format)
    loaded = type(saved).load_from_checkpoint(path)
    assert torch.equal(torch.get_rng_state(), before), "loading draws nothing from the global generator"
    assert_same(loaded, saved)
    assert loaded.to_config() == saved.to_config()
    if level in ("graph", "pipeline", "block"):
        x = torch.randn(3, 4)
        torch.testing.assert_close(loaded.eval().run({"x": x}), saved.eval().run({"x": x}), rtol=0, atol=0)
    again = type(saved).load_from_checkpoint(loaded.save_checkpoint(tmp_path / "again", format))
    assert_same(again, saved)


@pytest.mark.parametrize("format", FORMATS)
def test_a_worlds_life_goes_along(format: str, tmp_path: Path) -> None:
    world = World.from_template("default")
    world.run(num_steps=1, seed=5)
    loaded = World.load_from_checkpoint(world.save_checkpoint(tmp_path / "w", format))
    assert loaded.content == world.content and loaded.life.passes == 1
    one, two = world.run(num_steps=1), loaded.run(num_steps=1)
    assert one["intent"] == two["intent"]
    torch.testing.assert_close(one["artifacts"], two["artifacts"], rtol=0, atol=0)


def test_a_shared_block_is_stored_once_and_shared_again(tmp_path: Path) -> None:
    world = small_world()
    path = world.save(tmp_path / "w")
    files = sorted(file.name for file in (path / "blocks").iterdir())
    assert files == ["one.work.only.n0.safetensors", "one.work.only.n1.safetensors", "one.work.only.n2.safetensors"]
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["blocks"]["one.work.only.n1"]["users"] == [
        f"{stage}.work.only.{node}" for stage in ("one", "two") for node in ("n1", "n3")
    ]
    loaded = World.load(path)
    assert loaded.find("one/work/only") is loaded.find("two/work/only")
    assert loaded.find("one/work/only/n1") is loaded.find("two/work/only/n3")
    clone = copy.deepcopy(loaded)
    assert clone.find("one/work/only/n1") is clone.find("two/work/only/n3")
    assert clone.find("one/work/only/n1") is not loaded.find("one/work/only/n1")


def test_ties_inside_a_block_are_ties_again_and_stored_once(tmp_path: Path) -> None:
    graph = rich_graph()
    path = graph.save(tmp_path / "g")
    assert "head.weight" not in load_file(path / "blocks/n0.safetensors")
    rich = Graph.load(path).nodes["n0"]
    assert rich.head.weight is rich.embed.weight
    rich.embed.weight.data.fill_(2.0)
    assert (rich.head.weight == 2).all()


def test_what_no_file_holds_is_computed_by_the_constructor(tmp_path: Path) -> None:
    loaded = Graph.load(rich_graph().save(tmp_path / "g"))
    fresh = Rich()
    assert torch.equal(loaded.nodes["n0"].frequencies, fresh.frequencies)
    assert torch.equal(loaded.nodes["n0"].table, fresh.table)
    assert loaded.nodes["n2"].scale == NeedsValues().scale
    assert not any(tensor.is_meta for tensor in (*loaded.parameters(), *loaded.buffers()))


def test_a_level_in_another_dtype_comes_back_in_it(tmp_path: Path) -> None:
    graph = chain(Affine(seed=1)).to(torch.bfloat16)
    assert_same(Graph.load(graph.save(tmp_path / "g")), graph)


def test_loaded_weights_train_and_the_file_stays_as_it_was(tmp_path: Path) -> None:
    graph = chain(Affine(seed=1))
    path = graph.save(tmp_path / "g")
    before = (path / "blocks/n0.safetensors").read_bytes()
    loaded = Graph.load(path)
    optimizer = torch.optim.SGD(loaded.parameters(), lr=1.0)
    loaded(x=torch.ones(1, 4))["y"].sum().backward()
    optimizer.step()
    assert not torch.equal(loaded.nodes["n0"].linear.weight, graph.nodes["n0"].linear.weight)
    assert (path / "blocks/n0.safetensors").read_bytes() == before
    loaded.save(path)  # over the file that is mapped
    assert_same(Graph.load(path), loaded)


@pytest.mark.parametrize("format", FORMATS)
def test_large_blocks_are_sharded(format: str, tmp_path: Path) -> None:
    graph = rich_graph()
    path = graph.save_checkpoint(tmp_path / "g", format, shard_bytes=40)
    names = zipfile.ZipFile(path).namelist() if format == "archive" else [file.name for file in (path / "blocks").iterdir()]
    shards = [name for name in names if "n0-" in name]
    assert len(shards) > 3 and all(f"-of-{len(shards):05d}" in name for name in shards)
    assert_same(Graph.load_from_checkpoint(path), graph)


def test_files_are_safetensors_that_the_library_reads(tmp_path: Path) -> None:
    tensors = {
        "a.f32": torch.randn(3, 5),
        "strided": torch.randn(6, 4).t()[1:, ::2],
        "scalar": torch.tensor(1.5, dtype=torch.float64),
        "bf16": torch.randn(7).bfloat16(),
        "f16": torch.randn(2, 2).half(),
        "f8": torch.randn(8).to(torch.float8_e4m3fn),
        "bool": torch.tensor([True, False, True]),
        "i8": torch.arange(5, dtype=torch.int8),
        "i64": torch.arange(5),
        "u8": torch.arange(5, dtype=torch.uint8),
        "empty": torch.empty(0, 3),
        "complex": torch.randn(3, dtype=torch.complex64).conj(),
    }
    header, order, size = make_header(tensors, {"format": "pt", "note": "ü"})
    raw = header + b"".join(bytes_of(order))
    assert len(raw) == size
    (tmp_path / "x.safetensors").write_bytes(raw)
    found = load_file(tmp_path / "x.safetensors")
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name].float() if name == "f8" else found[name], tensor.float() if name == "f8" else tensor)
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata()["note"] == "ü"


def test_an_archive_is_a_zip_of_the_same_tree_with_aligned_tensors(tmp_path: Path) -> None:
    graph = rich_graph()
    folder, archive = graph.save(tmp_path / "dir"), graph.save_checkpoint(tmp_path / "it.wgt", "archive")
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() is None
        names = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
        assert set(opened.namelist()) == names
        for info in opened.infolist():
            assert info.compress_type == zipfile.ZIP_STORED
            assert opened.read(info) == (folder / info.filename).read_bytes()
            with archive.open("rb") as raw:
                raw.seek(info.header_offset + 26)
                name, extra = (int.from_bytes(raw.read(2), "little") for _ in range(2))
            assert (info.header_offset + 30 + name + extra) % 64 == 0, info.filename
        opened.extractall(tmp_path / "unpacked")
    assert_same(Graph.load(tmp_path / "unpacked"), graph)


def test_parts_load_alone(tmp_path: Path) -> None:
    world = small_world()
    path = world.save(tmp_path / "w")
    graph = Graph.load_from_checkpoint(path, part="two/work/only")
    assert_same(graph, world.find("one/work/only"))
    assert graph.nodes["n1"] is graph.nodes["n3"]
    assert_same(Pipeline.load_from_checkpoint(path, part="one/work"), world.find("one/work"))
    block = Block.load_from_checkpoint(path, part="two/work/only/n0")
    assert isinstance(block, Rich)
    assert_same(block, world.find("one/work/only/n0"))
    assert_same(Rich.load_from_checkpoint(path, part="one.work.only.n0"), block)


def test_a_part_that_is_not_there_or_of_another_kind_is_an_error(tmp_path: Path) -> None:
    path = small_world().save(tmp_path / "w")
    with pytest.raises(CheckpointError, match="no part 'one/wrk'.*did you mean 'work'"):
        Graph.load_from_checkpoint(path, part="one/wrk")
    with pytest.raises(CheckpointError, match="is a Pipeline; Graph cannot load it"):
        Graph.load_from_checkpoint(path, part="one/work")
    with pytest.raises(ConfigError, match=r"use World\.from_config"):
        Graph.load(path)
    with pytest.raises(ConfigError, match="not 'block'; load it with World, or name a part"):
        Block.load(path)


def test_weights_are_copied_into_what_is_there(tmp_path: Path) -> None:
    world = small_world()
    path = world.save(tmp_path / "w")
    graph = rich_graph()
    with torch.no_grad():
        for parameter in graph.parameters():
            parameter.zero_()
    held = dict(graph.named_parameters())
    assert graph.load_weights(path, part="two/work/only") == ()
    assert_same(graph, world.find("one/work/only"))
    assert all(parameter is held[name] for name, parameter in graph.named_parameters())
    other = Affine(seed=9)
    other.load_weights(path, part="one/work/only/n3")
    assert_same(other, world.find("one/work/only/n1"))


def test_another_config_takes_the_weights_that_fit(tmp_path: Path) -> None:
    graph = chain(Affine(seed=1), Affine(seed=2))
    path = graph.save(tmp_path / "g")
    longer = chain(Affine(seed=5), Affine(seed=6), Scale(2.0))
    config = longer.save_config(tmp_path / "longer.yaml")
    loaded = Graph.load_from_checkpoint(path, config)
    assert list(loaded.nodes) == ["n0", "n1", "n2"]
    assert torch.equal(loaded.nodes["n1"].linear.weight, graph.nodes["n1"].linear.weight)
    more = chain(Affine(seed=5), Affine(seed=6), Affine(seed=7)).save_config(tmp_path / "more.yaml")
    with pytest.raises(CheckpointError, match=r"n2: its weights are missing"):
        Graph.load_from_checkpoint(path, more)
    partly = Graph.load_from_checkpoint(path, more, strict=False)
    assert torch.equal(partly.nodes["n0"].linear.weight, graph.nodes["n0"].linear.weight)
    assert torch.equal(partly.nodes["n2"].linear.weight, Affine(seed=7).linear.weight), "fresh where there is none"


def test_everything_that_does_not_fit_is_listed_and_nothing_is_changed(tmp_path: Path) -> None:
    path = chain(Affine(width=4), Affine(width=4), Affine(width=4)).save(tmp_path / "g")
    target = chain(Affine(width=8), Affine(width=4), Rich())
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        target.load_weights(path)
    text = str(caught.value)
    assert "n0.linear.weight: float32 [4, 4]; expected float32 [8, 8]" in text
    assert "n2.embed.weight: missing; expected float32 [4, 4]" in text
    assert "n2.linear.bias: unexpected float32 [4]" in text
    assert "head.weight" not in text, "one finding for what is one parameter"
    assert all(torch.equal(before[name], value) for name, value in target.state_dict().items())
    left_out = target.load_weights(path, strict=False)
    assert any("n0.linear.weight" in finding.where for finding in left_out)
    assert not torch.equal(before["nodes.n1.linear.weight"], target.nodes["n1"].linear.weight) or torch.equal(
        Affine(width=4).linear.weight, target.nodes["n1"].linear.weight
    )


def test_a_large_config_is_written_as_json(tmp_path: Path) -> None:
    graph = chain(Scale(2.0))
    graph.metadata["notes"] = ["a long note" * 10] * 4000
    path = graph.save(tmp_path / "g")
    assert (path / "config.json").is_file() and not (path / "config.yaml").exists()
    assert Graph.load(path).metadata == graph.metadata


def test_long_paths_get_short_file_names(tmp_path: Path) -> None:
    graph = Graph("g")
    names = ["a" * 200 + "1", "a" * 200 + "2"]
    for seed, name in enumerate(names):
        graph.add_node(Affine(seed=seed), name)
    path = graph.save(tmp_path / "g")
    assert all(len(file.name) < 140 for file in (path / "blocks").iterdir())
    assert_same(Graph.load(path), graph)


def test_what_cannot_be_stored_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    class Odd(Affine):
        def get_extra_state(self) -> dict:
            return {"a": 1}

        def set_extra_state(self, state: dict) -> None: ...

    BlockRegistry.register("test/odd", Odd)
    Odd.block_type = "test/odd"
    graph = chain(Affine())
    path = graph.save(tmp_path / "g")
    with pytest.raises(CheckpointError, match=r"n0\._extra_state: state_dict holds a dict"):
        chain(Odd()).save(path)
    assert_same(Graph.load(path), graph)
    with torch.device("meta"):
        empty = chain(Affine.__bases__[0].wrap(nn.Linear(2, 2), inputs={"x": "tensor"}, outputs={"y": "tensor"}))
    with pytest.raises(Exception, match="cannot be written to a config"):
        empty.save(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_saving_never_replaces_what_is_no_checkpoint(tmp_path: Path) -> None:
    graph = chain(Affine())
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(CheckpointError, match=r"holds \['letter.txt'\] and no checkpoint"):
        graph.save(tmp_path / "home")
    path = graph.save(tmp_path / "g")
    (path / "notes.md").write_text("mine")
    with pytest.raises(CheckpointError, match=r"holds \['notes.md'\], which saving would remove"):
        graph.save(path)
    with pytest.raises(CheckpointError, match="is a folder; an archive is one file"):
        graph.save_checkpoint(path, "archive")
    with pytest.raises(CheckpointError, match="format 'zip'; expected 'dir' or 'archive'"):
        graph.save_checkpoint(tmp_path / "x", "zip")
    assert (path / "notes.md").exists() and isinstance(Graph.load(path), Level)


def test_loading_to_a_device_and_checking_every_hash(tmp_path: Path) -> None:
    graph = chain(Affine(seed=4))
    path = graph.save(tmp_path / "g")
    assert_same(Graph.load_from_checkpoint(path, device="cpu", verify=True), graph)
    loaded = Graph.load_from_checkpoint(path, device="meta")
    assert all(parameter.is_meta for parameter in loaded.parameters())


def test_a_checkpoint_ref_in_a_blocks_own_config(tmp_path: Path) -> None:
    save_file(Affine(seed=8).state_dict(), tmp_path / "a.safetensors")
    block = BlockRegistry.build({"block_type": "test/affine", "config": {"checkpoint_ref": str(tmp_path / "a.safetensors")}})
    assert_same(type(block).from_config(block.config), block)
    assert_same(Block.load(block.save(tmp_path / "b")), block)


def test_what_is_written_as_yaml_is_within_what_is_read_as_yaml(tmp_path: Path) -> None:
    """The shortest values that a config can hold, as many as still go into YAML, and more."""
    for count in (2_000, 10_500, 30_000):
        graph = chain(Scale(2.0))
        graph.metadata["deep"] = [[[[1]]]] * count
        assert Graph.load(graph.save(tmp_path / str(count))).metadata == graph.metadata


def test_what_no_load_would_take_is_not_saved(tmp_path: Path) -> None:
    graph = chain(Scale(2.0))
    path = graph.save(tmp_path / "g")
    graph.metadata["numbers"] = list(range(600_000))
    with pytest.raises(CheckpointError, match=r"the config: holds 600\d+ values; expected at most 500000.*Keep many numbers in buffers"):
        graph.save(path)
    assert Graph.load(path).metadata == {}


def test_a_graph_of_many_thousand_nodes_is_saved_and_loaded(tmp_path: Path) -> None:
    graph = Graph("many")
    for index in range(8_100):
        graph.add_child(Scale(float(index)), f"n{index}")
    again = Graph.load(graph.save(tmp_path / "g"))
    assert len(again.nodes) == 8_100
    assert again.to_config() == graph.to_config()


def test_a_hundred_levels_in_each_other_are_saved_and_loaded(tmp_path: Path) -> None:
    graph = rich_graph()
    inner = graph
    for _ in range(99):
        outer = Graph()
        outer.add_node(graph, "inner")
        outer.infer_exposed_ports()
        graph = outer
    again = Graph.load(graph.save(tmp_path / "g"))
    assert_same(again.find("/".join(["inner"] * 99)), inner)
    with pytest.raises(ConfigError, match=f"{graph.block_id}: holds levels or data nested too deep to be written"):
        graph.metadata["deep"] = functools.reduce(lambda value, _: [value], range(5_000), 1)
        graph.save(tmp_path / "g")
    assert Graph.load(tmp_path / "g").metadata == {}


def test_many_tensors_are_spread_over_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(save, "MAX_TENSORS", 2)
    graph = rich_graph()
    path = graph.save(tmp_path / "g")
    assert len(list((path / "blocks").glob("n0-*"))) > 2
    assert_same(Graph.load(path), graph)


@register_block("test/lazy_layer")
class LazyLayer(Block):
    """A layer that takes its width from what it is first called with."""

    outputs = {"y": "tensor"}

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LazyLinear(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def test_a_lazy_module_comes_back_with_the_shape_that_it_took(tmp_path: Path) -> None:
    block = LazyLayer()
    with pytest.raises(CheckpointError, match=r"layer\.weight: has no shape yet.*call the block once"):
        block.save(tmp_path / "early")
    given = {"x": torch.ones(1, 3)}
    expected = block.run(given)["y"]
    path = block.save(tmp_path / "saved")
    assert torch.equal(LazyLayer.load(path).run(given)["y"], expected)
    other = LazyLayer()
    other.load_weights(path)
    assert torch.equal(other.run(given)["y"], expected)


def test_what_was_changed_after_it_was_built_is_said_when_it_is_saved(tmp_path: Path) -> None:
    block = LazyLayer()
    block.run({"x": torch.ones(1, 3)})
    nn.utils.parametrizations.weight_norm(block.layer)
    with pytest.warns(RebuiltOtherwiseWarning, match=r"block: was changed after it was built.*weight\.original0"):
        path = block.save(tmp_path / "saved")
    with pytest.raises(CheckpointError, match="does not fit"):
        LazyLayer.load(path)
    other = LazyLayer()
    other.run({"x": torch.ones(1, 3)})
    nn.utils.parametrizations.weight_norm(other.layer)
    other.load_weights(path)
    assert torch.equal(other.layer.weight, block.layer.weight)


def test_where_nothing_has_memory_no_weights_are_loaded(tmp_path: Path) -> None:
    path = chain(Rich()).save(tmp_path / "c")
    with torch.device("meta"), pytest.raises(CheckpointError, match=r"no memory.*load it outside of torch.device"):
        Graph.load(path)
    empty = Graph.load_from_checkpoint(path, device="meta")
    for strict in (True, False):
        with pytest.raises(CheckpointError, match=r"n0: what lies on the meta device has no memory.*to_empty"):
            empty.load_weights(path, strict=strict)
