"""Ways to damage a checkpoint: bytes of its files, what its manifest, config and headers say, and the zip around them.

A mutation takes the tree (bytes by name) and a source of random choices and returns another tree. ``sealed`` ones are
given hashes that are true again, as whoever forges a checkpoint would: what lies behind the hashes must hold alone.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from wgtorch.core.checkpoint.manifest import _own_hash

Tree = dict[str, bytes]
Mutation = Callable[[Tree, random.Random], Tree]

ODD: list[Any] = [
    None, True, -1, 0, 1e308, 2**63, "", "x", "../x", "/etc/passwd", "a\x00b", "C:\\x", [], {}, [[]], {"a": {}}, "é" * 300, float("nan"),
    ["a"] * 50, {"ref": "x.yaml"}, "${oc.env:HOME}", "test/affine", "world",
]  # fmt: skip


def read_tree(folder: Path) -> Tree:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def write_tree(tree: Tree, folder: Path) -> Path:
    for name, raw in tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(raw)
    return folder


def write_zip(tree: Tree, path: Path, **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", options.get("compression", zipfile.ZIP_STORED)) as archive:
        for name, raw in tree.items():
            archive.writestr(zipfile.ZipInfo(name), raw, options.get("compression", zipfile.ZIP_STORED))
    return path


def seal(tree: Tree) -> Tree:
    """The tree with sizes and hashes in its manifest that are true of its files."""
    try:
        manifest = json.loads(tree["manifest.json"])
    except (ValueError, KeyError):
        return tree

    def visit(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("file"), str) and value["file"] in tree:
                raw = tree[value["file"]]
                value |= {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
            for item in value.values():
                visit(item)
        elif isinstance(value, list):
            for item in value:
                visit(item)

    visit(manifest)
    if isinstance(manifest, dict):
        manifest.pop("manifest_sha256", None)
        manifest["manifest_sha256"] = _own_hash(manifest)
    return {**tree, "manifest.json": json.dumps(manifest).encode()}


# --- bytes ------------------------------------------------------------------------------------------------------------


def _some(tree: Tree, draw: random.Random) -> str:
    return draw.choice(sorted(tree))


def truncate(tree: Tree, draw: random.Random) -> Tree:
    """At any byte, or at a boundary: empty, inside the length, after it, inside or after the header, before the last."""
    name = _some(tree, draw)
    raw = tree[name]
    header = 8 + int.from_bytes(raw[:8], "little") if name.endswith(".safetensors") else len(raw) // 2
    places = [0, 1, 7, 8, 9, header - 1, header, header + 1, len(raw) - 1, draw.randrange(len(raw) + 1)]
    return {**tree, name: raw[: max(0, min(draw.choice(places), len(raw)))]}


def flip(tree: Tree, draw: random.Random) -> Tree:
    name = _some(tree, draw)
    raw = bytearray(tree[name])
    if raw:
        raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
    return {**tree, name: bytes(raw)}


def splice(tree: Tree, draw: random.Random) -> Tree:
    """Bytes put in, taken out or written over."""
    name = _some(tree, draw)
    raw = tree[name]
    at, length = draw.randrange(len(raw) + 1), draw.choice([1, 4, 8, 64])
    given = bytes(draw.randrange(256) for _ in range(length))
    taken = draw.choice([0, length, 2 * length])
    return {**tree, name: raw[:at] + given * draw.choice([0, 1]) + raw[at + taken :]}


def drop(tree: Tree, draw: random.Random) -> Tree:
    name = _some(tree, draw)
    return {other: raw for other, raw in tree.items() if other != name}


def swap(tree: Tree, draw: random.Random) -> Tree:
    one, two = _some(tree, draw), _some(tree, draw)
    return {**tree, one: tree[two], two: tree[one]}


def foreign(tree: Tree, draw: random.Random) -> Tree:
    """Something else under a file's name: a pickle, a zip, text, a header as long as the world."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", b"x")
    header = b'{"a":{"dtype":"F32","shape":[1000000000,1000000000],"data_offsets":[0,4000000000000000000]}}'
    many = json.dumps({f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(2000)}).encode()
    kinds = [
        b"",
        pickle.dumps({"a": print}),
        buffer.getvalue(),
        b"#!/bin/sh\n",
        struct.pack("<Q", 2**63) + b"x" * 100,
        struct.pack("<Q", 100_000_000) + b"{" * 1000,
        struct.pack("<Q", len(header)) + header,
        struct.pack("<Q", len(many)) + many,
        struct.pack("<Q", 20000) + b'{"a":' + b"[" * 19995,
        struct.pack("<Q", 2) + b"[]",
    ]
    return {**tree, _some(tree, draw): draw.choice(kinds)}


# --- what is said -----------------------------------------------------------------------------------------------------


def _edit(value: Any, draw: random.Random) -> Any:
    """Plain data with one place changed: another value, a key more, less or renamed."""
    value = copy.deepcopy(value)
    spots: list[tuple[Any, Any]] = []

    def visit(container: Any) -> None:
        keys = list(container) if isinstance(container, dict) else range(len(container))
        for key in keys:
            spots.append((container, key))
            if isinstance(container[key], (dict, list)):
                visit(container[key])

    if not isinstance(value, (dict, list)):
        return draw.choice(ODD)
    visit(value)
    if not spots:
        return draw.choice(ODD)
    container, key = draw.choice(spots)
    how = draw.randrange(5)
    if how == 0:
        del container[key]
    elif how == 1 and isinstance(container, dict):
        container[str(key) + "x"] = container.pop(key)
    elif how == 2 and isinstance(container, dict):
        container["unknown"] = draw.choice(ODD)
    elif how == 3 and isinstance(container, list):
        container.append(container[key])
    else:
        container[key] = draw.choice(ODD)
    return value


def edit_manifest(tree: Tree, draw: random.Random) -> Tree:
    return {**tree, "manifest.json": json.dumps(_edit(json.loads(tree["manifest.json"]), draw)).encode()}


def edit_config(tree: Tree, draw: random.Random) -> Tree:
    edited = _edit(yaml.safe_load(tree["config.yaml"]), draw)
    return {**tree, "config.yaml": yaml.safe_dump(edited, sort_keys=False, allow_unicode=True).encode()}


def edit_header(tree: Tree, draw: random.Random) -> Tree:
    """A tensor of another shape, dtype, place or name."""
    name = draw.choice([name for name in sorted(tree) if name.endswith(".safetensors")])
    raw = tree[name]
    size = int.from_bytes(raw[:8], "little")
    try:
        header = json.loads(raw[8 : 8 + size])
    except ValueError:
        return tree
    text = json.dumps(_edit(header, draw)).encode()
    return {**tree, name: struct.pack("<Q", len(text)) + text + raw[8 + size :]}


def hostile_config(tree: Tree, draw: random.Random) -> Tree:
    lines = "\n".join(f"b{i}: &b{i} [{', '.join([f'*b{i - 1}'] * 9)}]" for i in range(1, 12))
    texts = [
        "[" * 100_000,
        "- " * 50_000,
        "{a: " * 2000,
        f"b0: &b0 [x, x, x, x, x, x, x, x, x]\n{lines}\n",
        "a: &a [*a]",
        "!!python/object/apply:os.system ['true']",
        "kind: graph\ngraph_id: !!python/name:os.system x",
        "kind: graph\nkind: graph",
        "kind: graph\ngraph_id: g\nnodes:\n" + "".join(f"- {{node_id: n{i}, block_type: test/scale}}\n" for i in range(100_000)),
        "kind: graph\ngraph_id: g\nnodes: [{ref: other.yaml}]",
        "\x00\x01",
        "a: " + "9" * 5000,
        "? [a, b]\n: 1",
        "kind: graph\ngraph_id: g\nnodes: [{node_id: n0, config: " + "{kind: graph, graph_id: g, nodes: [{node_id: n, config: " * 30,
    ]
    return {**tree, "config.yaml": draw.choice(texts).encode()}


PLAIN: dict[str, Mutation] = {entry.__name__: entry for entry in (truncate, flip, splice, drop, swap, foreign, edit_manifest)}
SEALED: dict[str, Mutation] = {
    entry.__name__: entry
    for entry in (truncate, flip, splice, drop, swap, foreign, edit_manifest, edit_config, edit_header, hostile_config)
}
