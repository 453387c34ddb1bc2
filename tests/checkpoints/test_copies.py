"""What becomes of a checkpoint's files after it was loaded, whose they are, and what is refused before one is written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.blocks_for_tests import Affine, chain
from tests.checkpoints.blocks import assert_same, rich_graph, small_world
from wgtorch import lora
from wgtorch.core.block import Block, register_block
from wgtorch.core.checkpoint.tensors import write_tensors
from wgtorch.core.errors import CheckpointError
from wgtorch.core.pool import Pool
from wgtorch.graph import Graph
from wgtorch.storage import DirectoryStorage
from wgtorch.world import World
from wgtorch.world_runtime.state import State

FORMATS = ["dir", "archive"]


# --- mapped, or copied ------------------------------------------------------------------------------------------------


def spoil(path: Path) -> None:
    """Overwrites the weights of a checkpoint where they lie."""
    for file in path.rglob("*.safetensors") if path.is_dir() else [path]:
        with file.open("r+b") as handle:
            handle.seek(file.stat().st_size // 2)
            handle.write(b"\x7f" * (file.stat().st_size // 2))


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_copied_stays_as_it_was(format: str, tmp_path: Path) -> None:
    path = rich_graph().save_checkpoint(tmp_path / "it", format)
    loaded = Graph.load_from_checkpoint(path, map=False)
    spoil(path)
    assert_same(loaded, rich_graph())


def test_what_is_mapped_is_the_files_own(tmp_path: Path) -> None:
    path = rich_graph().save(tmp_path / "it")
    loaded = Graph.load(path)
    spoil(path)
    weights = [tensor for tensor in loaded.state_dict().values() if tensor.is_floating_point() and tensor.numel()]
    fresh = [tensor for tensor in rich_graph().state_dict().values() if tensor.is_floating_point() and tensor.numel()]
    assert not all(torch.equal(one, other) for one, other in zip(weights, fresh, strict=True))


def test_copies_are_made_of_files_that_refs_name(tmp_path: Path) -> None:
    save_file(Affine(seed=8).state_dict(), tmp_path / "a.safetensors")
    graph = Graph("g")
    graph.add_node("test/affine", "a", config={"checkpoint_ref": str(tmp_path / "a.safetensors")})
    path = graph.save(tmp_path / "g")
    loaded = Graph.load(path, map=False)
    spoil(tmp_path)
    assert_same(loaded.nodes["a"], Affine(seed=8))


@pytest.mark.parametrize("how", ["config", "yaml"])
def test_copies_are_made_where_a_config_names_weights(how: str, tmp_path: Path) -> None:
    save_file(Affine(seed=8).state_dict(), tmp_path / "a.safetensors")
    config = {
        "kind": "graph",
        "graph_id": "g",
        "nodes": [{"node_id": "a", "block_type": "test/affine", "config": {"checkpoint_ref": str(tmp_path / "a.safetensors")}}],
    }
    (tmp_path / "g.yaml").write_text(json.dumps(config))
    loaded = Graph.from_config(config, base=tmp_path, map=False) if how == "config" else Graph.from_yaml(tmp_path / "g.yaml", map=False)
    spoil(tmp_path)
    assert_same(loaded.nodes["a"], Affine(seed=8))
    with pytest.raises(TypeError, match="map is 'no'; expected True"):
        Graph.from_config(config, base=tmp_path, map="no")  # type: ignore[arg-type]


def test_a_pool_tells_copies_from_what_is_mapped(tmp_path: Path) -> None:
    path = rich_graph().save(tmp_path / "it")
    pool = Pool()
    mapped, copied = Graph.load(path, pool=pool), Graph.load(path, pool=pool, map=False)
    assert mapped.nodes["n1"] is not copied.nodes["n1"]
    assert Graph.load(path, pool=pool, map=False).nodes["n1"] is copied.nodes["n1"]


def test_a_copy_outlives_a_file_that_is_cut_short(tmp_path: Path) -> None:
    """The mapped one would end the process."""
    path = chain(Affine(256)).save(tmp_path / "g")
    code = (
        "import sys, os, pathlib; import tests.checkpoints.blocks; from wgtorch.graph import Graph\n"
        "path = pathlib.Path(sys.argv[1]); graph = Graph.load(path, map=False)\n"
        "[os.truncate(file, 0) for file in path.rglob('*.safetensors')]\n"
        "print(sum(float(tensor.abs().sum()) for tensor in graph.state_dict().values()) > 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr


def test_saving_over_its_own_source(tmp_path: Path) -> None:
    path = rich_graph().save(tmp_path / "it")
    for map in (True, False):
        loaded = Graph.load(path, map=map)
        loaded.save(path)
        assert_same(loaded, rich_graph())
        assert_same(Graph.load(path), rich_graph())


# --- whose the files are ----------------------------------------------------------------------------------------------


@pytest.fixture(params=[0o022, 0o027, 0o077], ids=oct)
def mask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(path: Path) -> set[int]:
    return {file.stat().st_mode & 0o777 for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()}


def test_files_have_the_permissions_that_the_umask_says(mask: int, tmp_path: Path) -> None:
    graph = rich_graph()
    assert modes(graph.save(tmp_path / "dir")) == {0o666 & ~mask}
    assert (tmp_path / "dir").stat().st_mode & 0o777 == 0o777 & ~mask
    assert modes(graph.save_checkpoint(tmp_path / "it.wgt", "archive")) == {0o666 & ~mask}
    DirectoryStorage(tmp_path / "life").store(0, State(artifacts=[torch.eye(3)]), {"vector": torch.arange(4)})
    assert modes(tmp_path / "life") == {0o666 & ~mask}
    assert modes(small_world().save(tmp_path / "world")) == {0o666 & ~mask}


def test_adapters_have_the_permissions_that_the_umask_says(mask: int, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    graph = rich_graph()
    lora.add(graph, "style", rank=2, target_modules=["linear"])
    assert modes(lora.save(graph, tmp_path / "style", "style")) == {0o666 & ~mask}


def test_tensors_are_written_as_others_read_them(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(6).view(2, 3).t(), "a": torch.randn(3).bfloat16(), "none": torch.empty(0, 2), "c": torch.tensor(True)}
    write_tensors(tmp_path / "it.safetensors", tensors, {"format": "pt"})
    found = load_file(tmp_path / "it.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


# --- what is refused before anything is written -----------------------------------------------------------------------


ROOT = Path(__file__).parents[2]


class Holding(nn.Module):
    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.register_buffer("odd", tensor)


def distributed() -> Tensor:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(torch.ones(4), init_device_mesh("cpu", (1,)))


@pytest.fixture
def group() -> Iterator[None]:
    from torch import distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


ODD: dict[str, tuple[Any, str]] = {
    "DTensor": (distributed, r"n1\.held\.odd: is a DTensor, .*full_tensor\(\)"),
    "coo": (
        lambda: torch.eye(3).to_sparse(),
        r"n1\.held\.odd: torch.float32 of layout sparse_coo cannot be stored .* dense tensor",
    ),
    "csr": (lambda: torch.eye(3).to_sparse_csr(), r"n1\.held\.odd: torch.float32 of layout sparse_csr cannot be stored"),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(2)], layout=torch.jagged), r"n1\.held\.odd: is a NestedTensor"),
    "nested, strided": (lambda: torch.nested.nested_tensor([torch.ones(2)]), r"n1\.held\.odd: torch.float32 \(nested\) cannot be stored"),
    "meta": (lambda: torch.empty(3, device="meta"), r"n1\.held\.odd: has no memory"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", ODD)
def test_what_cannot_be_stored_is_named_before_anything_is_written(
    kind: str, format: str, tmp_path: Path, group: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, words = ODD[kind]
    graph = chain(Affine(seed=1), Affine(seed=2))
    graph.nodes["n1"].held = Holding(make())
    monkeypatch.setattr("wgtorch.core.checkpoint.save.write_folder", lambda *_: pytest.fail("began to write"))
    monkeypatch.setattr("wgtorch.core.checkpoint.save.write_file", lambda *_: pytest.fail("began to write"))
    with pytest.raises(CheckpointError, match=words):
        graph.save_checkpoint(tmp_path / "it", format)
    assert list(tmp_path.iterdir()) == []


SHARDED = """
import sys, torch
from torch import distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.device_mesh import init_device_mesh
from tests.blocks_for_tests import Affine, chain
from wgtorch.core.errors import CheckpointError

dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=int(sys.argv[1]), world_size=2)
graph = chain(Affine(seed=1), Affine(seed=2))
fully_shard(graph.nodes["n1"], mesh=init_device_mesh("cpu", (2,)))
for format in ("dir", "archive"):
    try:
        graph.save_checkpoint(sys.argv[3], format)
        raise SystemExit("it was saved")
    except CheckpointError as error:
        assert "n1." in str(error) and "is a DTensor" in str(error) and "full_tensor()" in str(error), error
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_what_two_processes_share_is_named_by_both(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", SHARDED]
    places = [str(tmp_path / "meeting"), str(tmp_path / "it")]
    running = [subprocess.Popen([*command, rank, *places], stderr=subprocess.PIPE, text=True, cwd=ROOT) for rank in "01"]
    said = [process.communicate(timeout=240)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert not (tmp_path / "it").exists()


# --- a weight that was named ------------------------------------------------------------------------------------------


@register_block("test/deaf")
class Deaf(Block):
    """Takes a ref and reads nothing."""

    outputs: ClassVar[Mapping[str, Any]] = {"y": "tensor"}

    def __init__(self, checkpoint_ref: str | None = None, width: int = 4) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class DeafAsWell(Deaf):
    """Hands the ref on to who does not read it."""

    def __init__(self, checkpoint_ref: str | None = None) -> None:
        super().__init__(checkpoint_ref=checkpoint_ref)


def deaf(ref: Path, **config: Any) -> Graph:
    graph = Graph("g")
    graph.add_node("test/deaf", "n", config={"checkpoint_ref": str(ref), **config})
    return graph


def test_a_weight_that_was_named_is_loaded_though_the_block_reads_nothing(tmp_path: Path) -> None:
    weights = Deaf().state_dict()
    save_file(weights, tmp_path / "w.safetensors")
    graph = deaf(tmp_path / "w.safetensors")
    ref = {"checkpoint_ref": str(tmp_path / "w.safetensors")}
    blocks = [made.nodes["n"] for made in (graph, Graph.from_config(graph.to_config()), Graph.load(graph.save(tmp_path / "g")))]
    for block in (*blocks, Deaf(**ref), Deaf.from_config(ref), DeafAsWell(**ref)):
        assert all(torch.equal(tensor, weights[name]) for name, tensor in block.state_dict().items())
    with pytest.raises(CheckpointError, match=r"Deaf: takes checkpoint_ref .*elsewhere\.safetensors is not there"):
        Deaf(checkpoint_ref=str(tmp_path / "elsewhere.safetensors"))


@pytest.mark.parametrize("missing", ["fit", "file"])
def test_a_weight_that_was_named_and_cannot_be_loaded_is_an_error(missing: str, tmp_path: Path) -> None:
    if missing == "fit":
        save_file(Deaf(width=3).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="Deaf: takes checkpoint_ref and does not hold the weights that it names: .*w.safetensors"):
        deaf(tmp_path / "w.safetensors")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("block_type", ["test/affine", "test/deaf"])
def test_what_is_self_contained_names_nothing_outside(block_type: str, format: str, tmp_path: Path) -> None:
    file = tmp_path / "outside.safetensors"
    save_file((Affine(seed=8) if block_type == "test/affine" else Deaf()).state_dict(), file)
    graph = Graph("g")
    graph.add_node(block_type, "a", config={"checkpoint_ref": str(file)})
    graph.add_node(block_type, "b", config={"checkpoint_ref": str(file)})
    whole = graph.save_checkpoint(tmp_path / "whole", format, self_contained=True)
    assert graph.nodes["a"].config["checkpoint_ref"] == str(file), "what was saved is as before"
    expected = {name: tensor.clone() for name, tensor in graph.state_dict().items()}
    save_file({name: tensor + 1 for name, tensor in load_file(file).items()}, tmp_path / "other")
    (tmp_path / "other").replace(file)
    for raw in [part.read_bytes() for part in (whole.rglob("*") if whole.is_dir() else [whole]) if part.is_file()]:
        assert b"outside.safetensors" not in raw
    loaded = Graph.load(whole)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())
    assert str(file) not in str(loaded.to_config())
    assert Graph.from_config(loaded.to_config()).nodes.keys() == graph.nodes.keys()


def test_what_is_self_contained_has_no_base(tmp_path: Path) -> None:
    base = rich_graph().save(tmp_path / "base")
    with pytest.raises(CheckpointError, match="self_contained stores everything, and base names what is not stored; give one"):
        rich_graph().save_checkpoint(tmp_path / "it", self_contained=True, base=base)


def test_a_world_is_copied_too(tmp_path: Path) -> None:
    world = small_world()
    path = world.save(tmp_path / "w")
    loaded = World.load(path, map=False)
    spoil(path)
    assert_same(loaded, world)
