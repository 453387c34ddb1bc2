"""Tokenizers of transformers."""

from __future__ import annotations

import html
import importlib.util
import re
import threading
import warnings
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Self

from wgtorch.core.block import Block, register_block
from wgtorch.core.errors import CheckpointError, ConfigError, PortError, PromptTruncatedWarning, require
from wgtorch.ports import ATTENTION_MASK, MAX_SEQUENCE_LENGTH
from wgtorch.roles import Tokenizer

_given: ContextVar[Any] = ContextVar("wgtorch_given_tokenizer", default=None)
_ONE_AT_A_TIME = threading.Lock()  # a call sets padding and truncation on the tokenizer itself


class InFolder(Block):
    """A block whose tokenizer is read from a folder, ``folder`` of its config."""

    def to_config(self) -> dict[str, Any]:
        if self._config.get("folder") == "":
            raise ConfigError(
                f"{self.block_id}: this tokenizer is from no local folder, so a config cannot name it; "
                "write the graph with to_diffusers(folder) and read that with from_diffusers(folder)"
            )
        return super().to_config()


class ForeignTokenizer(InFolder, Tokenizer):
    """A block around a tokenizer of transformers.

    Args:
        folder: with the tokenizer's files, as ``save_pretrained`` writes it.
    """

    outputs = {"attention_mask": ATTENTION_MASK}
    uses_global_rng = False
    tokenizer_class = ""

    def __init__(self, *, folder: str) -> None:
        super().__init__()
        given = _given.get()
        self.tokenizer: Any = self._read(Path(folder).expanduser()) if given is None else given

    @classmethod
    def around(cls, tokenizer: Any, **config: Any) -> Self:
        """A block around a tokenizer that is there already; a config can name it where it came from a local folder.

        Args:
            tokenizer: of the class that this block is for.
            config: the block's other arguments.
        """
        folder = str(getattr(tokenizer, "name_or_path", ""))
        token = _given.set(tokenizer)
        try:
            return cls(folder=folder if Path(folder).is_dir() else "", **config)
        finally:
            _given.reset(token)

    def ids(self, text: str | list[str], length: int) -> dict[str, Any]:
        """``tokens`` and ``attention_mask`` [B, length] of one text or several; what does not fit is cut off, with a warning."""
        if not isinstance(text, str) and not len(text):
            raise PortError(f"{self.block_id}.text: got an empty list; expected a prompt, or several")
        texts = [self._spread(one) for one in ([text] if isinstance(text, str) else list(text))]
        with _ONE_AT_A_TIME:
            found = self.tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
            wholes = [self.tokenizer(one, verbose=False).input_ids for one in texts]  # what is left out is told of here
        for whole in wholes:
            if len(whole) > length:
                cut = self.tokenizer.decode(whole[length - 1 : -1])
                warnings.warn(
                    f"{self.block_id}: the prompt has {len(whole)} tokens and the text encoder reads {length}; cut off: {cut!r}",
                    PromptTruncatedWarning,
                    stacklevel=3,
                )
        return {"tokens": found.input_ids, "attention_mask": found.attention_mask}

    def _spread(self, text: str) -> str:
        """A word that stands for several learned vectors (textual inversion, https://arxiv.org/abs/2208.01618) followed by the others.

        ``<cat>`` becomes ``<cat> <cat>_1 <cat>_2`` where the tokenizer knows these, as pipelines of diffusers do it.
        """
        known = self.tokenizer.added_tokens_encoder
        several = [word for word in known if f"{word}_1" in known]
        for word in several and set(self.tokenizer.tokenize(text)).intersection(several):
            words, number = [word], 1
            while f"{word}_{number}" in known:
                words.append(f"{word}_{number}")
                number += 1
            text = text.replace(word, " ".join(words))
        return text

    def _read(self, folder: Path) -> Any:
        where = f"{type(self).__name__}.folder: {str(folder)!r}"
        if not folder.is_dir():
            raise CheckpointError(f"{where} is no folder; expected one with a tokenizer's files")
        library: Any = require("transformers", "diffusers")
        try:
            return getattr(library, self.tokenizer_class).from_pretrained(str(folder), local_files_only=True)
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"{where} holds no {self.tokenizer_class}: {error}") from error


@register_block("tokenizer/clip")
class CLIPTokens(ForeignTokenizer):
    """``CLIPTokenizer`` of transformers: text to ids, padded to the length that the text encoder reads.

    Args:
        folder: with the tokenizer's files, as ``save_pretrained`` writes it.
    """

    tokenizer_class = "CLIPTokenizer"

    def forward(self, text: str | list[str]) -> dict[str, Any]:
        """``tokens`` and ``attention_mask`` [B, L] of one text or several; what does not fit is cut off, with a warning."""
        return self.ids(text, self.tokenizer.model_max_length)


def cleaned(text: str) -> str:
    """A prompt as Wan's pipeline cleans it; broken letters are mended too where ``ftfy`` is installed."""
    if importlib.util.find_spec("ftfy") is not None:
        text = importlib.import_module("ftfy").fix_text(text)
    return re.sub(r"\s+", " ", html.unescape(html.unescape(text)).strip()).strip()


@register_block("tokenizer/t5")
class T5Tokens(ForeignTokenizer):
    """``T5Tokenizer`` of transformers: text to ids, padded to one length.

    Args:
        folder: with the tokenizer's files, as ``save_pretrained`` writes it.
        length: tokens, where the input ``max_sequence_length`` is not fed.
        clean: texts are cleaned first, as for Wan: entities of HTML are what they stand for, runs of whitespace are one space.
    """

    inputs: Mapping[str, Any] = {"max_sequence_length": MAX_SEQUENCE_LENGTH}

    tokenizer_class = "T5TokenizerFast"

    def __init__(self, *, folder: str, length: int = 256, clean: bool = False) -> None:
        if length < 1:
            raise ValueError(f"T5Tokens.length: found {length}, expected a whole number of at least 1")
        super().__init__(folder=folder)
        self.length, self.clean = length, clean

    def forward(self, text: str | list[str], max_sequence_length: int | None = None) -> dict[str, Any]:
        """``tokens`` and ``attention_mask`` [B, L] of one text or several; what does not fit is cut off, with a warning."""
        if self.clean:
            text = cleaned(text) if isinstance(text, str) else [cleaned(one) for one in text]
        return self.ids(text, self.length if max_sequence_length is None else int(max_sequence_length))
