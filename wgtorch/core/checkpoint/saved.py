"""What every executable writes to files and reads from them: checkpoints, weights, its config."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

import torch

from wgtorch.core.checkpoint.atomic import write_file
from wgtorch.core.checkpoint.io import mapping
from wgtorch.core.checkpoint.load import load_checkpoint_of, load_weights
from wgtorch.core.checkpoint.save import SHARD, check_loads, save_checkpoint
from wgtorch.core.config.resolve import dump_config
from wgtorch.core.errors import Finding
from wgtorch.core.pool import Pool
from wgtorch.core.trust import Trust, from_file


class Saved:
    """The methods of blocks and levels by which they are saved and loaded."""

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Writes config and weights to a folder; see :meth:`save_checkpoint`."""
        return save_checkpoint(self, directory)

    @classmethod
    def load(
        cls, directory: str | os.PathLike[str], *, pool: Pool | None = None, map: bool = True, trust: Trust | bool | None = None
    ) -> Self:
        """Gives back what :meth:`save` wrote; see :meth:`load_from_checkpoint`."""
        return cls.load_from_checkpoint(directory, pool=pool, map=map, trust=trust)

    def save_checkpoint(
        self,
        path: str | os.PathLike[str],
        format: str = "dir",
        *,
        self_contained: bool = False,
        base: str | os.PathLike[str] | None = None,
        shard_bytes: int = SHARD,
    ) -> Path:
        """Writes config and weights, whole or not at all; each unique block is stored once.

        A block whose config names its weights (``checkpoint_ref``) and that still holds exactly those is stored as
        that name. What stood at ``path`` before stays whole until the new checkpoint is.

        Args:
            path: a folder (new, empty, or with a checkpoint), or the file of an archive.
            format: ``"dir"``, or ``"archive"`` for the same tree in one zip.
            self_contained: store weights that refs name too, and leave the refs out of the config. A block whose constructor reads more
                than weights from its ref (a tokenizer, the model's own config) keeps it.
            base: another checkpoint; blocks that are bit for bit what it holds at the same path are named, not stored.
            shard_bytes: weights of a block larger than this go to several files.

        Raises:
            CheckpointError: something cannot be stored, or ``path`` holds something else than a checkpoint.
            OSError: the disk is full, or not writable; the previous checkpoint is as it was.
        """
        return save_checkpoint(self, path, format=format, self_contained=self_contained, base=base, shard_bytes=shard_bytes)

    @classmethod
    def load_from_checkpoint(
        cls,
        path: str | os.PathLike[str],
        config_path: str | os.PathLike[str] | None = None,
        *,
        part: str | None = None,
        pool: Pool | None = None,
        strict: bool = True,
        device: torch.device | str | None = None,
        verify: bool | None = None,
        map: bool = True,
        trust: Trust | bool | None = None,
    ) -> Self:
        """Builds from a checkpoint: structure without memory, then the weights, mapped from the file without a copy.

        Mapped weights are the file's own pages, read when they are first used and shared with other processes that map them.
        Whoever writes into the file changes them in the running model; whoever cuts it short ends the process when it touches
        what is gone (SIGBUS). Replacing or removing the file is harmless, and so is saving over it, which makes a new one.
        Weights that are changed become the process's own, page by page. ``map=False`` reads them into memory instead.

        Args:
            path: a folder or an archive.
            config_path: a config to use in place of the stored one; weights are matched by path.
            part: a node's path inside what was saved (``creator/paint/t2i``), to load that alone.
            pool: models that are loaded already are taken from there.
            strict: False keeps fresh weights where the checkpoint has none, and leaves out what fits nothing.
            device: where the weights go.
            verify: True reads every byte to compare its hash; None those of adapters and of 16 MiB of weights, and of
                larger files their size, their header and a piece of every tensor; False none.
            map: False copies the weights, of files that refs name too, so that what becomes of the files later changes nothing.
            trust: what its config may do beyond being data, as ``Trust(env=("MY_LLM_KEY",))``; True for everything.

        Raises:
            CheckpointError: a file is missing, truncated, foreign, damaged or of an unknown version, or weights do not
                fit; lists all that do not.
            ConfigError: the config describes nothing that can be built, or asks for what it may not have.
        """
        with mapping(map), from_file(path, trust):
            return load_checkpoint_of(cls, path, config_path=config_path, part=part, pool=pool, strict=strict, device=device, verify=verify)

    def load_weights(
        self, path: str | os.PathLike[str], *, part: str | None = None, strict: bool = True, verify: bool | None = None
    ) -> tuple[Finding, ...]:
        """Copies weights of a checkpoint, or of a part of one, into this; parameters stay the objects they are.

        Args:
            path: a folder or an archive.
            part: a node's path inside what was saved.
            strict: False leaves out what is missing or fits nothing.
            verify: as for :meth:`load_from_checkpoint`.

        Returns:
            What was left out.

        Raises:
            CheckpointError: as for :meth:`load_from_checkpoint`; nothing was changed then.
        """
        return load_weights(self, path, part=part, strict=strict, verify=verify)

    def save_config(self: Any, path: str | os.PathLike[str]) -> Path:
        """Writes the config as YAML, or as JSON where the path ends so."""
        path = Path(path)
        config = self.saved_config()
        check_loads(config, self)
        text = dump_config(config, json_form=path.suffix == ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_file(path, lambda fresh: fresh.write_text(text, encoding="utf-8"))

    def write_extra(self, directory: Path) -> None:
        """Writes what belongs to a checkpoint beside config and weights."""

    def read_extra(self, directory: Path) -> None:
        """Reads what :meth:`write_extra` wrote."""
