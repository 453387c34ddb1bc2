"""Levels on the Hugging Face Hub: published with a card that says what they are, and loaded back. Needs ``pip install huggingface_hub``."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from wgtorch.core.block import Block
from wgtorch.core.checkpoint.atomic import write_folder
from wgtorch.core.checkpoint.io import open_source
from wgtorch.core.checkpoint.manifest import read_manifest
from wgtorch.core.errors import CheckpointError, StructureError, require
from wgtorch.core.pool import Pool
from wgtorch.core.registry import LevelRegistry
from wgtorch.core.tree import is_level, unique_blocks
from wgtorch.core.trust import Trust, from_file

CARD = "README.md"


def push_to_hub(
    level: Block,
    repo_id: str,
    *,
    token: str | None = None,
    endpoint: str | None = None,
    private: bool | None = None,
    self_contained: bool = True,
    message: str = "Upload with wgtorch",
    card: str | None = None,
) -> str:
    """Publishes a block or level: what ``save_checkpoint`` writes, with a card.

    Args:
        level: a block, graph, pipeline, stage or world; a world goes with its life.
        repo_id: ``name/of-the-repository``; made where it is not there.
        token: of the Hub; what ``hf auth login`` left, when left out.
        endpoint: of another Hub.
        private: of a repository that is made.
        self_contained: store weights that refs name too, so that others can load it.
        message: of the commit.
        card: the text of the card, in place of the one that is made.

    Returns:
        The address of the commit.

    Raises:
        MissingExtraError: ``huggingface_hub`` is not installed.
        CheckpointError: the level cannot be stored; nothing is published.

    Example:
        >>> wgtorch.hub.push_to_hub(Graph.from_template("text_to_image"), "me/small-painter")
        >>> Graph = wgtorch.hub.from_hub("me/small-painter")
    """
    hub: Any = require("huggingface_hub", "diffusers")
    api = hub.HfApi(endpoint=endpoint, token=token, library_name="wgtorch")
    with tempfile.TemporaryDirectory() as folder:
        saved = level.save_checkpoint(Path(folder) / "level", self_contained=self_contained)
        (saved / CARD).write_text(card if card is not None else card_of(level, repo_id), encoding="utf-8")
        api.create_repo(repo_id, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo_id, folder_path=str(saved), commit_message=message).commit_url)


def from_hub(
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    endpoint: str | None = None,
    pool: Pool | None = None,
    map: bool = True,
    trust: Trust | bool | None = None,
) -> Any:
    """Loads what :func:`push_to_hub` published.

    Args:
        repo_id: of the repository.
        revision: branch, tag or commit.
        token, endpoint: as of :func:`push_to_hub`.
        pool: models that are loaded already are taken from there.
        map: False copies the weights into memory, see :meth:`wgtorch.Block.load_from_checkpoint`.
        trust: what its config may do beyond being data.

    Returns:
        The block or level.

    Raises:
        CheckpointError: the repository holds no checkpoint of wgtorch.
    """
    hub: Any = require("huggingface_hub", "diffusers")
    snapshot = Path(hub.snapshot_download(repo_id, revision=revision, token=token, endpoint=endpoint))
    folder = Path(hub.constants.HF_HOME) / "wgtorch" / repo_id / snapshot.name
    if not folder.is_dir():
        _unlinked(snapshot, folder)
    with open_source(folder) as source:
        kind = read_manifest(source).kind
    if kind != "block" and kind not in LevelRegistry:
        raise CheckpointError(f"{repo_id}: holds a {kind!r}; expected a block or one of {LevelRegistry.names()}")
    loaded: Any = Block if kind == "block" else LevelRegistry.get(kind)
    with from_file(os.fspath(folder), trust):
        return loaded.load_from_checkpoint(folder, pool=pool, map=map, trust=trust)


def card_of(level: Block, repo_id: str) -> str:
    """The text of a card: what it is, its ports, its models, and how it is loaded."""
    blocks = unique_blocks(level)
    rows, total = [], 0
    for path, found in blocks.items():
        size = sum(tensor.nbytes for tensor in (*found.block.parameters(), *found.block.buffers()))
        name = getattr(found.block, "block_type", "") or type(found.block).__name__
        rows.append(f"| `{path.replace('.', '/')}` | `{name}` | {size / 1e6:.1f} MB |")
        total += size
    ports = [
        f"| {side} | `{name}` | {port.dtype} | {port.description} |"
        for side, spec in (("in", _spec(level, "get_input_spec")), ("out", _spec(level, "get_output_spec")))
        for name, port in spec.items()
    ]
    kind = level.level if is_level(level) else "block"
    text = ["---", "library_name: wgtorch", f"tags: [wgtorch, {kind}]", "---", "", f"# {level.block_id}", ""]
    text += [f"A {kind} of wgtorch: {len(blocks)} blocks, {total / 1e6:.1f} MB of weights.", ""]
    text += ["```python", "import wgtorch", "", f'level = wgtorch.hub.from_hub("{repo_id}")', "```", ""]
    if ports:
        text += ["| | port | kind | |", "| --- | --- | --- | --- |", *ports, ""]
    return "\n".join([*text, "| place | block | weights |", "| --- | --- | --- |", *rows, ""])


def _unlinked(snapshot: Path, folder: Path) -> None:
    """The files of a snapshot in a folder of their own: the cache holds links, which may not lead out of a checkpoint, and the card."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"copy_function": _linked_or_copied, "ignore": shutil.ignore_patterns(CARD, ".git*")}
    write_folder(folder, lambda fresh: shutil.copytree(snapshot, fresh, dirs_exist_ok=True, **options))


def _linked_or_copied(source: str, target: str) -> None:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:  # another file system
        shutil.copyfile(source, target)


def _spec(level: Any, which: str) -> Any:
    try:
        return getattr(level, which)()
    except StructureError:  # a world has a State in place of ports
        return {}
