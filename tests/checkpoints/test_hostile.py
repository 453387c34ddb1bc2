"""Hostile files: each is a clear error within a second, or loads as what was saved; the module is left alone."""

from __future__ import annotations

import cProfile
import hashlib
import io
import json
import os
import pickle
import resource
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tests.blocks_for_tests import Affine, chain
from tests.checkpoints.blocks import rich_graph, small_world
from tests.checkpoints.hostile import LONGEST, TRIES, Count, attempt, judge, one_load, seconds_of
from tests.checkpoints.mutations import PLAIN, SEALED, Tree, read_tree, seal, write_tree, write_zip
from wgtorch.core.errors import CheckpointError, ConfigError, WgtorchError
from wgtorch.graph import Graph
from wgtorch.world import World

EXAMPLES = 60


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    path = rich_graph().save(tmp_path_factory.mktemp("good") / "it")
    Graph.load(path)  # imports are no file's doing
    return read_tree(path)


@pytest.fixture(scope="module")
def count() -> Iterator[Count]:
    yield (count := Count())  # of those that this process has tried
    print(f"\n{count.tried} hostile checkpoints: {count.refused} refused, slowest {count.slowest:.2f} s")


@pytest.mark.parametrize(("name", "sealed"), [(name, False) for name in PLAIN] + [(name, True) for name in SEALED])
def test_damage(name: str, sealed: bool, good: Tree, count: Count, tmp_path_factory: pytest.TempPathFactory) -> None:
    before = count.tried

    @settings(max_examples=EXAMPLES)
    @given(seed=st.integers(0, 2**62), archive=st.booleans())
    def damaged(seed: int, archive: bool) -> None:
        attempt(good, tmp_path_factory.mktemp("bad"), name, seed, sealed=sealed, archive=archive, count=count)

    damaged()
    assert count.tried - before >= EXAMPLES * 2 // 3, f"only {count.tried - before} hostile checkpoints were tried"


def test_how_many_hostile_checkpoints_are_tried() -> None:
    assert (len(PLAIN) + len(SEALED)) * EXAMPLES * 2 // 3 > 500


def test_truncated_at_every_byte(good: Tree, tmp_path: Path) -> None:
    """Of a safetensors file, and of an archive as a whole."""
    graph = rich_graph()
    name = "blocks/n2.safetensors"
    path = write_tree(good, tmp_path / "it")
    for length in range(len(good[name])):
        (path / name).write_bytes(good[name][:length])
        with pytest.raises(CheckpointError, match=r"n2.safetensors.*truncated"):
            Graph.load(path)
    archive = graph.save_checkpoint(tmp_path / "it.wgt", "archive")
    whole = archive.read_bytes()
    for length in range(0, len(whole), 37):
        archive.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"it\.wgt"):
            Graph.load_from_checkpoint(archive)


def test_every_byte_of_weights_is_proved(good: Tree, tmp_path: Path) -> None:
    name = "blocks/n1.safetensors"
    path = write_tree(good, tmp_path / "it")
    for at in range(0, len(good[name]), 5):
        raw = bytearray(good[name])
        raw[at] ^= 0x10
        (path / name).write_bytes(raw)
        with pytest.raises(CheckpointError, match=r"n1.safetensors: is not the file that was saved \(its hash differs\)"):
            Graph.load(path)


def refused(path: Path, words: str, *, load: Any = Graph.load_from_checkpoint) -> None:
    def refuse() -> None:
        with pytest.raises(WgtorchError, match=words):
            load(path)

    assert any(seconds_of(refuse) < LONGEST * one_load() for _ in range(TRIES))


def forged(good: Tree, name: str, raw: bytes) -> Tree:
    return seal({**good, name: raw})


def with_header(header: Any, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", r"0 bytes; no safetensors file"),
        (b"\x00" * 7, r"7 bytes; no safetensors"),
        (struct.pack("<Q", 2**63) + b"x" * 50, r"announces a header of 9223372036854775808 bytes in a file of 58"),
        (struct.pack("<Q", 99_999_999) + b"x" * 50, "announces a header of 99999999 bytes"),
        (pickle.dumps({"weight": [1.0] * 50}), r"looks like a pickle"),
        (struct.pack("<Q", 50_000) + b'{"a":' + b"[" * 49_995, "header is not JSON"),
        (with_header([]), "the header is a list"),
        (with_header({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 2**61]}}), "bytes for F32"),
        (
            with_header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}),
            r"truncated: .* take 4 bytes and there are 0",
        ),
        (with_header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"x" * 8), "begins at byte 4, expected 0"),
        (with_header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"x" * 4), "shape"),
        (with_header({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, b"x" * 4), "shape"),
        (with_header({"a": {"dtype": "F31", "shape": [1], "data_offsets": [0, 4]}}, b"x" * 4), "dtype 'F31'; expected one of"),
        (with_header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"x" * 5), "followed by bytes of no tensor"),
        (with_header({"a": {"dtype": "F32", "shape": [1] * 65, "data_offsets": [0, 4]}}, b"x" * 4), "shape"),
        (with_header({"a": {"dtype": "F32", "shape": [1]}}), "expected dtype, shape and data_offsets"),
        (b'\x1c\x00\x00\x00\x00\x00\x00\x00{"__metadata__":{"a":[1,2]}}', "__metadata__ is not a mapping of texts"),
    ],
)
def test_safetensors_that_are_none(raw: bytes, words: str, good: Tree, tmp_path: Path) -> None:
    refused(write_tree(forged(good, "blocks/n1.safetensors", raw), tmp_path / "it"), f"n1.safetensors.*{words}")
    refused(write_zip(forged(good, "blocks/n1.safetensors", raw), tmp_path / "it.wgt"), f"n1.safetensors.*{words}")


@pytest.mark.parametrize("sort", ["shape", "dtype", "missing", "unexpected"])
def test_sealed_weights_that_do_not_fit(sort: str, good: Tree, tmp_path: Path) -> None:
    state = dict(Affine(seed=3).state_dict())
    if sort == "shape":
        state["linear.weight"] = torch.zeros(4, 5)
    elif sort == "dtype":
        state["linear.weight"] = torch.zeros(4, 4, dtype=torch.int64)
    elif sort == "missing":
        del state["linear.weight"]
    else:
        state["more"] = torch.zeros(1)
    save_file(state, tmp_path / "forged")
    words = {
        "shape": r"n1\.linear\.weight: float32 \[4, 5\]; expected float32 \[4, 4\]",
        "dtype": r"n1\.linear\.weight: int64 \[4, 4\]; expected float32 \[4, 4\]",
        "missing": r"n1\.linear\.weight: missing; expected float32 \[4, 4\]",
        "unexpected": r"n1\.more: unexpected float32 \[1\]",
    }[sort]
    refused(write_tree(forged(good, "blocks/n1.safetensors", (tmp_path / "forged").read_bytes()), tmp_path / "it"), words)


# --- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "/tmp/outside.safetensors", "blocks/../../x", "blocks\\x", "C:/x", "a//b", "./x", ""]
)
def test_a_manifest_cannot_name_files_outside(name: str, good: Tree, tmp_path: Path) -> None:
    manifest = json.loads(good["manifest.json"])
    manifest["blocks"]["n1"]["files"][0]["file"] = name
    (tmp_path / "outside.safetensors").write_bytes(good["blocks/n1.safetensors"])
    refused(
        write_tree(seal({**good, "manifest.json": json.dumps(manifest).encode()}), tmp_path / "it"), "leaves the checkpoint|no file name"
    )


def test_links_out_of_the_folder_are_not_followed(good: Tree, tmp_path: Path) -> None:
    path = write_tree(good, tmp_path / "it")
    (tmp_path / "outside").write_bytes(good["blocks/n1.safetensors"])
    (path / "blocks/n1.safetensors").unlink()
    (path / "blocks/n1.safetensors").symlink_to(tmp_path / "outside")
    refused(path, "is a link that leaves the checkpoint's folder")


def test_pipes_and_loops_of_links_are_no_files(good: Tree, tmp_path: Path) -> None:
    path = write_tree(good, tmp_path / "it")
    (path / "blocks/n1.safetensors").unlink()
    os.mkfifo(path / "blocks/n1.safetensors")
    refused(path, "is no plain file")
    (path / "blocks/n1.safetensors").unlink()
    (path / "blocks/n1.safetensors").symlink_to("n1.safetensors")
    refused(path, "n1.safetensors: missing or not readable")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "is neither a folder nor a file")


@pytest.mark.parametrize("name", ["../x", "/x", "blocks/../../x", "a\\b", "x/./y"])
def test_an_archive_with_names_that_climb(name: str, good: Tree, tmp_path: Path) -> None:
    refused(write_zip({**good, name: b"x"}, tmp_path / "it.wgt"), "leaves the checkpoint")
    assert not (tmp_path.parent / "x").exists()


# --- zips -------------------------------------------------------------------------------------------------------------


def test_a_compressed_archive_and_a_bomb(good: Tree, tmp_path: Path) -> None:
    refused(write_zip(good, tmp_path / "deflated.wgt", compression=zipfile.ZIP_DEFLATED), "is compressed")
    bomb = {**good, "life/x": b"\x00" * (64 << 20)}
    refused(write_zip(bomb, tmp_path / "bomb.wgt", compression=zipfile.ZIP_DEFLATED), "is compressed")


def test_foreign_zips_and_files(good: Tree, tmp_path: Path) -> None:
    refused(write_zip({"word/document.xml": b"<x/>"}, tmp_path / "a.docx"), "a zip without manifest.json")
    torch.save({"a": torch.zeros(3)}, tmp_path / "b.pt")
    refused(tmp_path / "b.pt", "a zip without manifest.json")
    (tmp_path / "c.wgt").write_bytes(pickle.dumps({"a": 1}) * 10)
    refused(tmp_path / "c.wgt", "no archive of a checkpoint")
    (tmp_path / "d.wgt").write_bytes(b"PK")
    refused(tmp_path / "d.wgt", "truncated, or no archive")
    refused(tmp_path / "nowhere", "there is no such checkpoint")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no manifest.json, so this is no checkpoint")


def test_a_zip_with_a_member_twice(good: Tree, tmp_path: Path) -> None:
    path = write_zip(good, tmp_path / "it.wgt")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("config.yaml", b"kind: graph")
    refused(path, "config.yaml: is there twice")


def test_a_zip_whose_members_overlap(good: Tree, tmp_path: Path) -> None:
    raw = bytearray(write_zip(good, tmp_path / "it.wgt").read_bytes())
    directory = struct.unpack_from("<L", raw, len(raw) - 22 + 16)[0]
    first, name, extra, comment = struct.unpack_from("<L", raw, directory + 42)[0], *struct.unpack_from("<3H", raw, directory + 28)
    second = directory + 46 + name + extra + comment
    struct.pack_into("<L", raw, second + 42, first)
    (tmp_path / "it.wgt").write_bytes(raw)
    refused(tmp_path / "it.wgt", "overlap|has another name there")


def test_a_zip_that_announces_a_million_members(good: Tree, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x", b"")
    raw = bytearray(buffer.getvalue())
    entry = bytes(raw[struct.unpack_from("<L", raw, len(raw) - 22 + 16)[0] : -22])
    count = 400_000
    body = bytes(raw[: struct.unpack_from("<L", raw, len(raw) - 22 + 16)[0]])
    size = len(entry) * count
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, len(body))
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(body) + size, 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    (tmp_path / "it.wgt").write_bytes(body + entry * count + end64 + locator + end)
    refused(tmp_path / "it.wgt", "announces 400000 members")


# --- configs ----------------------------------------------------------------------------------------------------------

BOMB = "a0: &a0 [x, x, x]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 15))
NODE = "- {node_id: n%d, block_type: test/scale}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: graph\ngraph_id: g\nnodes: []\nnods: []", r"nods: unknown key. Did you mean 'nodes'"),
        ("kind: graph\ngraph_id: g\nnodes: 3", r"nodes: got int 3; expected array"),
        ("kind: graph\ngraph_id: g\nnodes:\n" + "".join(NODE % index for index in range(100_000)), r"holds 4000\d values"),
        (
            "nodes:\n" + "".join("- {node_id: a}\n" for _ in range(100_000)),
            "holds 40001 values, aliases counted as what they stand for; expected at most 40000. Write a config this large as JSON",
        ),
        ("[" * 100_000, "nested deeper than libyaml reads"),
        ("{a: " * 5000, "nested 501 deep; expected at most 500"),
        ("- " * 50_000, "nested 501 deep; expected at most 500"),
        (
            "a0: &a0 [x, x, x, x, x, x, x, x]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 15)),
            "aliases counted",
        ),
        ("kind: &k [*k]", "refers to itself"),
        ("kind: !!python/object/apply:os.system [touch /tmp/wgtorch-was-here]", "tag .* names no types"),
        ("kind: graph\ngraph_id: g\nnodes: [{node_id: a, ref: x.yaml}]\nmetadata: {ref: ../../etc/passwd}", "names another file"),
        ("kind: graph\ngraph_id: g\nnodes: [{node_id: a, block_type: os.system}]", "unknown block type 'os.system'"),
        (
            "kind: graph\ngraph_id: g\nnodes: [{node_id: a, block_type: test/affine, config: {width: 1.0e+308}}]",
            "cannot be built|not valid",
        ),
        ("a: 1\na: 2", "key 'a' is there twice"),
        ("\x00", "unacceptable character"),
        ("just text", "expected a mapping"),
    ],
)
def test_hostile_configs(text: str, words: str, good: Tree, tmp_path: Path) -> None:
    refused(write_tree(forged(good, "config.yaml", text.encode()), tmp_path / "it"), words)
    refused(write_zip(forged(good, "config.yaml", text.encode()), tmp_path / "it.wgt"), words)


def test_more_nodes_than_are_read_as_json(good: Tree, tmp_path: Path) -> None:
    config = {"kind": "graph", "graph_id": "g", "nodes": [{"node_id": f"n{i}", "block_type": "test/scale"} for i in range(200_000)]}
    manifest = json.loads(good["manifest.json"])
    manifest["config"]["file"] = "config.json"
    tree = {name: raw for name, raw in good.items() if name != "config.yaml"}
    tree |= {"config.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode()}
    refused(
        write_tree(seal(tree), tmp_path / "it"),
        r"config.json: holds 600\d+ values; expected at most 500000. Set WGTORCH_FILE_LIMITS=10 to read ten times",
    )


def as_json(good: Tree, raw: bytes) -> Tree:
    """The tree with a config in JSON."""
    manifest = json.loads(good["manifest.json"])
    manifest["config"]["file"] = "config.json"
    tree = {name: raw for name, raw in good.items() if name != "config.yaml"}
    return {**tree, "config.json": raw, "manifest.json": json.dumps(manifest).encode()}


EMPTY = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
TENSORS = "blocks/n1.safetensors"
CROWDED: dict[str, tuple[Callable[[Tree], Tree], str]] = {
    "tensors": (
        lambda good: {**good, TENSORS: with_header({f"t{i}": EMPTY for i in range(60_000)})},
        r"header holds \d+ values; expected at most 200000. Spread the tensors",
    ),
    "tensors allowed": (lambda good: {**good, TENSORS: with_header({f"t{i}": EMPTY for i in range(16_000)})}, r"16002 findings"),
    "header": (
        lambda good: {**good, TENSORS: _sized(b'{"a":[' + b"[]," * 10_000_000 + b"[]]}")},
        r"header holds \d+ values; expected at most 200000. Spread the tensors",
    ),
    "shape": (
        lambda good: {**good, TENSORS: _sized(b'{"a":{"dtype":"F32","shape":[' + b"1," * 15_000_000 + b"1]}}")},
        "header holds .* values",
    ),
    "json": (
        lambda good: as_json(good, b'{"kind":"graph","metadata":[' + b"[]," * 20_000_000 + b"[]]}"),
        r"holds \d+ values; expected at most 500000",
    ),
    "nodes that are none": (
        lambda good: as_json(good, b'{"kind":"graph","nodes":[' + b"0," * 400_000 + b"0]}"),
        r"at least 1\d\d findings",
    ),
    "unknown blocks": (
        lambda good: as_json(good, b'{"kind":"graph","nodes":[' + b",".join([b'{"node_id":"n","block_type":"x/y"}'] * 7999) + b"]}"),
        r"at least 1\d\d findings",
    ),
    "yaml keys": (lambda good: {**good, "config.yaml": b"".join(b"a%d: 1\n" % i for i in range(19_000))}, r"at least 1\d\d findings"),
    "a long text": (lambda good: {**good, "config.yaml": b"kind: graph\ngraph_id: '" + b"a\n\n" * 1_000_000 + b"'"}, "graph_id: .{,400}\n"),
    "manifest": (
        lambda good: {**good, "manifest.json": good["manifest.json"].replace(b'"users": [', b'"users": [' + b'"u",' * 2_000_000, 1)},
        "manifest.json: holds .* values; expected at most 500000",
    ),
    "blocks": (
        lambda good: {
            **good,
            "manifest.json": good["manifest.json"].replace(
                b'"blocks": {', b'"blocks": {' + b"".join(b'"b%d":{},' % i for i in range(20_000)), 1
            ),
        },
        r"\(20000 findings\)",
    ),
}


def _sized(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header


@pytest.mark.parametrize("case", CROWDED)
def test_more_than_anybody_means(case: str, good: Tree, tmp_path: Path) -> None:
    """A few bytes each, a hundred times as much when read."""
    damage, words = CROWDED[case]
    path = write_tree(seal(damage(good)), tmp_path / "it")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(path, words)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 300, f"grew by {grown:.0f} MiB"


def shared_inside_shared(depth: int) -> Graph:
    """One block at the end of 2 ** depth paths."""
    inner = chain(Affine())
    for level in range(depth):
        outer = Graph(f"g{level}")
        for name in "ab":
            outer.add_node(inner, name)
        outer.add_edge("a.y", "b.x")
        outer.expose_input("a", "x")
        outer.expose_output("b", "y")
        inner = outer
    return inner


def test_levels_shared_inside_shared_levels(tmp_path: Path) -> None:
    """4096 paths to one block; a call for each step of each path would be sixteen times what 256 paths take."""

    def calls(depth: int) -> int:
        profile = cProfile.Profile()
        profile.runcall(lambda: Graph.load(shared_inside_shared(depth).save(tmp_path / str(depth))))
        return sum(entry.callcount for entry in profile.getstats())

    calls(2)  # what the first one imports is not counted
    assert calls(12) < 8 * calls(8)
    path = tmp_path / "12"
    loaded = Graph.load(path)
    assert len(list(loaded.parameters())) == 2 and len(list((path / "blocks").iterdir())) == 1


def test_refs_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("kind: graph\ngraph_id: g\nnodes: [{node_id: n, config: {ref: b.yaml}}]")
    (tmp_path / "b.yaml").write_text("ref: a.yaml")
    refused(tmp_path / "a.yaml", "refs go in a circle: a.yaml -> b.yaml -> a.yaml|go in a circle", load=Graph.from_yaml)


# --- manifests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format_version": "7.3"}, r"format_version '7\.3'; this version of wgtorch reads '1\.0', '1\.1', '1\.2'\. Update wgtorch"),
        ({"format_version": None}, "format_version 'None'"),
        ({"format": "other"}, "no manifest of a wgtorch checkpoint"),
        ({"blocks": []}, "blocks: got list; expected dict"),
        ({"kind": 3}, "kind: got int; expected str"),
        ({"surprise": 1}, "unknown key 'surprise'"),
        ({"config": {"file": "manifest.json", "bytes": 1, "sha256": "x"}}, "its config is 'manifest.json'"),
    ],
)
def test_manifests(change: dict[str, Any], words: str, good: Tree, tmp_path: Path) -> None:
    manifest = {**json.loads(good["manifest.json"]), **change}
    refused(write_tree(seal({**good, "manifest.json": json.dumps(manifest).encode()}), tmp_path / "it"), words)


def test_an_edited_manifest_says_so(good: Tree, tmp_path: Path) -> None:
    raw = good["manifest.json"].replace(b'"test/affine"', b'"test/affixe"')
    refused(write_tree({**good, "manifest.json": raw}, tmp_path / "it"), "its own hash differs")


def test_files_that_nobody_saved_are_not_read_as_a_life(tmp_path: Path) -> None:
    path = small_world().save(tmp_path / "w")
    (path / "life" / "life.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="life.safetensors: is not in the manifest"):
        World.load(path)


def test_a_damaged_life_is_noticed(tmp_path: Path) -> None:
    path = small_world().save(tmp_path / "w")
    (path / "life" / "life.json").write_text((path / "life" / "life.json").read_text().replace("story", "stori"))
    with pytest.raises(CheckpointError, match=r"life.json: is not the file that was saved"):
        World.load(path)


def test_a_ref_in_a_forged_checkpoint_reads_no_pickle(good: Tree, tmp_path: Path) -> None:
    evil = tmp_path / "evil.safetensors"
    evil.write_bytes(pickle.dumps({"x": 1}))
    manifest = json.loads(good["manifest.json"])
    outside = {"file": str(evil), "bytes": evil.stat().st_size, "sha256": hashlib.sha256(evil.read_bytes()).hexdigest()}
    manifest["blocks"]["n1"] |= {"files": [], "ref": str(evil), "outside": [outside]}
    tree = {name: raw for name, raw in good.items() if name != "blocks/n1.safetensors"}
    refused(write_tree(seal({**tree, "manifest.json": json.dumps(manifest).encode()}), tmp_path / "it"), "evil.safetensors")


def test_memory_stays_bounded(good: Tree, tmp_path: Path) -> None:
    count = Count()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    huge = with_header({"a": {"dtype": "F32", "shape": [2**31, 2**10], "data_offsets": [0, 2**43]}})
    config = "kind: graph\ngraph_id: g\nnodes: [{node_id: n1, block_type: test/affine, config: {width: 200000}}]"
    for index, tree in enumerate((forged(good, "blocks/n1.safetensors", huge), {**good, "config.yaml": b"[" * (3 << 20)})):
        judge(write_tree(tree, tmp_path / f"it{index}"), count, "huge", forged=True)
    path = write_tree(forged(good, "config.yaml", config.encode()), tmp_path / "wide")
    with pytest.raises(WgtorchError):
        Graph.load(path)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert count.refused == 2 and grown < 300, f"grew by {grown:.0f} MiB"


def test_yaml_of_a_person_is_still_yaml(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text(
        "kind: graph\ngraph_id: g\nx-unused: &d {width: 4}\n".replace("x-unused: &d {width: 4}\n", "")
        + "metadata: {common: &common {a: 1, b: [yes, 2.5, null, 'text']}, merged: {<<: *common, a: 2}}\nnodes: []\n"
    )
    graph = Graph.from_yaml(tmp_path / "g.yaml")
    assert graph.metadata["merged"] == {"a": 2, "b": [True, 2.5, None, "text"]}
    with pytest.raises(ConfigError, match="line 1, column 5: a key is a list"):
        (tmp_path / "b.yaml").write_text("? [a]\n: 1")
        Graph.from_yaml(tmp_path / "b.yaml")
