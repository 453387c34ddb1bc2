"""Counting tokens: by a tokenizer where one is given, else by an estimate."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wgtorch.core.checkpoint.named import local_ref
from wgtorch.core.errors import CheckpointError, require

Count = Callable[[str], int]
BYTES_PER_TOKEN = 4


def estimate(text: str) -> int:
    """Tokens of a text where no tokenizer is known: one for every 4 bytes of UTF-8, rounded up.

    That is four letters of English, two of Russian, a bit more than one Chinese character; of today's tokenizers few need more.

    Example:
        >>> estimate("a storm comes")
        4
    """
    return math.ceil(len(text.encode()) / BYTES_PER_TOKEN)


def counter(tokenizer: str | None) -> Count:
    """What counts tokens.

    Args:
        tokenizer: a folder with a ``tokenizer.json``, or that file, or a model's name, as a ``checkpoint_ref``; None for
            :func:`estimate`.

    Raises:
        CheckpointError: there is no such file, or it cannot be read.
    """
    if tokenizer is None:
        return estimate
    path = Path(local_ref(tokenizer)).expanduser()
    path = path / "tokenizer.json" if path.is_dir() else path
    if not path.is_file():
        raise CheckpointError(f"memory.tokenizer: {tokenizer!r}: {path} is not there; expected a folder with a tokenizer.json")
    library: Any = require("tokenizers", "transformers")
    try:
        words = library.Tokenizer.from_file(str(path))
    except Exception as error:  # what the library raises has no class of its own
        raise CheckpointError(f"memory.tokenizer: {path} cannot be read: {error}") from error
    words.no_truncation()
    words.no_padding()
    return lambda text: len(words.encode(text, add_special_tokens=False).ids)
