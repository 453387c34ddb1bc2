"""Textual inversion: a new word whose vectors in the text encoders' embeddings are all that learns."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import lightning.pytorch as pl
import torch
from pydantic import Field
from torch import Tensor, nn

from wgtorch.core.block import Block
from wgtorch.core.errors import ConfigError
from wgtorch.core.tree import levels, walk
from wgtorch.graph import Graph
from wgtorch.train.data.base import Data
from wgtorch.train.patterns import train_only

_log = logging.getLogger(__name__)
FILE = "learned_embeds.safetensors"


@dataclass(frozen=True, slots=True)
class _Encoder:
    """A text encoder that knows the word: where it first stands, its embedding and the word's rows there."""

    path: str
    name: str
    layer: nn.Embedding
    rows: Tensor
    """Numbers of the word's vectors, [vectors]."""
    others: Tensor
    """The embedding as it was, [words, D]."""


class TextualInversion(pl.Callback):
    """A word of one's own for pictures of one's own (Gal et al. 2022, https://arxiv.org/abs/2208.01618).

    The tokenizers of a target learn the word, and its vectors in the embeddings of the text encoders train: all else stays, bit for bit.
    :meth:`write` leaves a file that diffusers' ``load_textual_inversion`` takes.

    Example:
        >>> word = TextualInversion("<cat>", initializer="cat", vectors=2)
        >>> word.add(graph, Path("run/tokenizers"))
        >>> graph.run({"prompt": "a painting of <cat>"})

    Args:
        token: the word; one that the tokenizers do not know yet.
        initializer: words whose vectors, averaged, it begins with.
        vectors: how many vectors stand for it.

    Raises:
        ConfigError: a word that holds spaces.
    """

    def __init__(self, token: str, *, initializer: str, vectors: Annotated[int, Field(ge=1)] = 1) -> None:
        if not token or token != "".join(token.split()) or not initializer.strip():
            raise ConfigError(f"textual_inversion: found token {token!r} and initializer {initializer!r}; expected words, as <cat> and cat")
        self.token, self.initializer = token, initializer
        self.words = [token, *(f"{token}_{number}" for number in range(1, vectors))]
        self.encoders: list[_Encoder] = []
        self._tokenizers: list[Any] = []

    def add(self, target: Block, folder: Path) -> None:
        """Teaches the tokenizers and encoders below a target the word, and has nothing else train.

        Args:
            target: changed in place.
            folder: for the tokenizers, which configs name.

        Raises:
            ConfigError: there is no text encoder of transformers, or a tokenizer knows the word already.
        """
        pairs = list(_pairs_in(target))
        if not pairs:
            raise ConfigError(f"textual_inversion: {target.block_id} has no tokenizer and text encoder of transformers")
        for tokenizer, _ in pairs:
            if known := [word for word in self.words if word in tokenizer.tokenizer.get_vocab()]:
                raise ConfigError(
                    f"textual_inversion.token: {known[0]!r} is a word that {tokenizer.block_id} knows; expected a new one, as <cat>"
                )
        taught: dict[int, Block] = {}
        for number, (tokenizer, encoder) in enumerate(pairs):
            if id(tokenizer) not in taught:
                taught[id(tokenizer)] = self._taught(tokenizer, folder / f"{number}")
                self._tokenizers.append(taught[id(tokenizer)].tokenizer)  # type: ignore[attr-defined]
            rows = self._widened(encoder.model, taught[id(tokenizer)].tokenizer)  # type: ignore[attr-defined]
            settings = {name: value for name, value in encoder.config.items() if name not in ("model", "checkpoint_ref", "dtype")}
            taught[id(encoder)] = type(encoder).around(encoder.model, **settings)
            layer = encoder.model.get_input_embeddings()
            self.encoders.append(_Encoder("", "", layer, rows, layer.weight.detach().clone()))
        for path, block, level in list(walk(target)):
            if level is not None and id(block) in taught:
                level.replace_node(path.rpartition("/")[2], taught[id(block)])
        self.encoders = [_placed(target, encoder) for encoder in self.encoders]
        train_only(target, [f"{encoder.path}:{encoder.name}" for encoder in self.encoders], "textual_inversion")
        for encoder in self.encoders:
            encoder.layer.weight.register_hook(_only(encoder.rows))

    def check(self, data: Data, inputs: Mapping[str, Any]) -> None:
        """Says whether what trains is ever read: without the word in a text no gradient comes to its vectors.

        Args:
            data: of the training.
            inputs: of the target, the same for every batch.

        Raises:
            ConfigError: no text holds the word where an encoder still reads it.
        """
        if any(isinstance(text, str) and self._is_in(text) for text in inputs.values()):
            return
        texts = data.texts()
        found = sum(map(self._is_in, texts)) if texts is not None else any(self._is_in(text) for text in _texts_of(data.train()))
        mend = f"write it into the captions, or give data.prompt='a photo of {self.token}', which pictures without a caption have"
        if not found:
            shown = f"as {texts[0][:60]!r}; " if texts else ""
            raise ConfigError(f"textual_inversion.token: no caption holds {self.token!r}, which would learn nothing; {shown}{mend}")
        if texts is not None and found < len(texts):
            without = f"{len(texts) - found} of {len(texts)} captions do not hold {self.token}"
            _log.warning("%s, which learns nothing from them; %s", without, mend)

    def write(self, folder: Path) -> Path:
        """Writes the word as diffusers' ``load_textual_inversion`` reads it; of two encoders (XL) under ``clip_l`` and ``clip_g``."""
        from safetensors.torch import save_file

        vectors = [encoder.layer.weight.detach()[encoder.rows].float().cpu().contiguous() for encoder in self.encoders]
        names = [self.token] if len(vectors) == 1 else ["clip_l", "clip_g"]
        folder.mkdir(parents=True, exist_ok=True)
        save_file(dict(zip(names, vectors, strict=True)), folder / FILE, metadata={"token": self.token})
        return folder / FILE

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        count = sum(encoder.rows.numel() * encoder.layer.embedding_dim for encoder in self.encoders)
        _log.info("of the embeddings %d numbers train: those of %s", count, ", ".join(self.words))

    @torch.no_grad()
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Takes back what weight decay, or an optimizer that looks at whole matrices, did to other words."""
        for encoder in self.encoders:
            own = encoder.layer.weight[encoder.rows]
            encoder.layer.weight.copy_(encoder.others)
            encoder.layer.weight[encoder.rows] = own

    # --- private steps ------------------------------------------------------------------------------------------------

    def _is_in(self, text: str) -> bool:
        """Whether a tokenizer reads the word in a text, before what is cut off."""
        return any(each.convert_tokens_to_ids(self.token) in each(text, truncation=True).input_ids for each in self._tokenizers)

    def _taught(self, block: Any, folder: Path) -> Block:
        """A tokenizer that knows the word, from a folder that a config can name."""
        tokenizer = copy.deepcopy(block.tokenizer)
        tokenizer.add_tokens(self.words)
        tokenizer.save_pretrained(str(folder))
        return type(block)(**{**block.config, "folder": str(folder)})

    def _widened(self, model: Any, tokenizer: Any) -> Tensor:
        """Makes room for the word, which begins as the mean of the initializer's vectors; the numbers of its rows."""
        begun = tokenizer(self.initializer, add_special_tokens=False).input_ids
        rows = torch.tensor(tokenizer.convert_tokens_to_ids(self.words))
        model.resize_token_embeddings(max(len(tokenizer), model.get_input_embeddings().num_embeddings), mean_resizing=False)
        with torch.no_grad():
            weight = model.get_input_embeddings().weight
            weight[rows] = weight[begun].mean(0)
        return rows


def _texts_of(items: Any) -> Iterator[str]:
    """Texts in items that have to be made."""
    for index in range(len(items)):
        for value in items[index].values():
            yield from (text for text in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(text, str))


def _pairs_in(target: Block) -> Iterator[tuple[Any, Any]]:
    """Tokenizers and text encoders of transformers that read what they give, each encoder once, in the order of their places."""
    seen: set[int] = set()
    for level in levels(target):
        for edge in level.edges if isinstance(level, Graph) else ():
            first, second = level.nodes[edge.source_node], level.nodes[edge.target_node]
            is_pair = hasattr(first, "tokenizer") and hasattr(getattr(second, "model", None), "get_input_embeddings")
            if is_pair and edge.source_port == "tokens" and id(second) not in seen:
                seen.add(id(second))
                yield first, second


def _placed(target: Block, encoder: _Encoder) -> _Encoder:
    """With the path of its place, and the name of its embedding's weight there."""
    for path, block, _ in walk(target):
        for name, parameter in block.named_parameters() if path else ():
            if parameter is encoder.layer.weight and not isinstance(block, Graph):
                return _Encoder(path, name, encoder.layer, encoder.rows, encoder.others)
    raise AssertionError("an encoder that was put in is there")


def _only(rows: Tensor) -> Any:
    """A hook that leaves of a gradient what is for some rows."""

    def masked(gradient: Tensor) -> Tensor:
        chosen = torch.zeros_like(gradient)
        chosen[rows] = gradient[rows]
        return chosen

    return masked
