"""Tensors from files: latents, embeddings or whatever was computed before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.data import Dataset, Subset

from wgtorch.core.errors import ConfigError
from wgtorch.core.json_text import loads
from wgtorch.train.data.base import Data
from wgtorch.train.registries import register_data


@register_data("tensors")
class Tensors(Data):
    """A folder of ``.safetensors`` files, each of which holds the same keys, with a row [N, ...] for every item.

    A file may hold texts for its rows in its metadata, as JSON lists under ``text:<key>``. Files are mapped, not read: data may be
    larger than memory.

    Args:
        folder: with the files; each one's items follow those of the files before it in the order of names.
        held_out: items at the end that are for validation; a share of all where it is below 1.
        batch_size: of each process.
        workers: processes that read items.
    """

    def __init__(self, *, folder: str, held_out: float = 0.0, batch_size: int = 8, workers: int = 0) -> None:
        super().__init__(batch_size=batch_size, workers=workers)
        self.rows = _Rows(Path(folder))
        held_back = int(held_out) if held_out >= 1 else int(held_out * len(self.rows))
        if held_out < 0 or held_back >= len(self.rows):
            raise ConfigError(f"data.held_out: found {held_out} of {len(self.rows)} items; expected fewer than all of them")
        self.held_back = held_back

    def train(self) -> Dataset[Any]:
        return Subset(self.rows, range(len(self.rows) - self.held_back))

    def validation(self) -> Dataset[Any] | None:
        return Subset(self.rows, range(len(self.rows) - self.held_back, len(self.rows))) if self.held_back else None


class _Rows(Dataset[Any]):
    """All rows of all files."""

    def __init__(self, folder: Path) -> None:

        from safetensors import safe_open

        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise ConfigError(f"data.folder: {folder} holds no .safetensors file")
        self.places: list[tuple[Path, int]] = []
        self.texts: dict[Path, dict[str, list[str]]] = {}
        self.keys: list[str] | None = None
        for file in files:
            with safe_open(file, framework="pt") as opened:
                keys = sorted(opened.keys())
                sizes = {opened.get_slice(key).get_shape()[0] for key in keys}
                texts = {key[5:]: loads(value) for key, value in (opened.metadata() or {}).items() if key.startswith("text:")}
            every = sorted([*keys, *texts])
            sizes |= {len(lines) for lines in texts.values()}
            if len(sizes) != 1 or (self.keys is not None and every != self.keys):
                raise ConfigError(
                    f"{file}: keys {every} with {sorted(sizes)} rows; expected the keys {self.keys or every}, as many rows of each"
                )
            self.keys, self.texts[file] = every, texts
            self.places += [(file, row) for row in range(sizes.pop())]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        from safetensors import safe_open

        file, row = self.places[index]
        with safe_open(file, framework="pt") as opened:
            item: dict[str, Any] = {key: opened.get_slice(key)[row] for key in opened.keys()}  # noqa: SIM118
        return item | {key: lines[row] for key, lines in self.texts[file].items()}
