"""Answers that fit a JSON schema: at each step only tokens that can still lead to one may be chosen."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wgtorch.core.errors import ConfigError, require


class SchemaConstraint:
    """A grammar over a tokenizer's tokens, by llguidance (https://github.com/guidance-ai/llguidance).

    Args:
        tokenizer: of transformers, a fast one.
        ends: ids of the tokens that end an answer.
    """

    def __init__(self, tokenizer: Any, ends: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self.ends = list(ends)
        self._lock = threading.Lock()
        self._tokens: dict[int, Any] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> SchemaConstraint:
        return SchemaConstraint(self._tokenizer, self.ends)

    def __reduce__(self) -> tuple[Any, ...]:
        return SchemaConstraint, (self._tokenizer, self.ends)

    def processor(self, schema: Mapping[str, Any]) -> FollowSchema:
        """A logits processor for the answers of one batch.

        Raises:
            ConfigError: the schema cannot be held to.
        """
        library: Any = require("llguidance", "transformers")
        compact = {**schema, "x-guidance": {"whitespace_flexible": False}}
        try:
            grammar = library.LLMatcher.grammar_from_json_schema(json.dumps(compact))
        except ValueError as error:
            raise ConfigError(f"schema: {error}") from error
        return FollowSchema(self, grammar)

    def matchers(self, grammar: str, rows: int, width: int) -> list[Any]:
        """What follows the grammar in each row of a batch, over ``width`` logits."""
        library: Any = require("llguidance", "transformers")
        vocabulary = self._vocabulary(width)
        if problem := library.LLMatcher.validate_grammar(grammar, vocabulary):
            raise ConfigError(f"schema: local models cannot be held to it: {problem}")
        return [library.LLMatcher(vocabulary, grammar) for _ in range(rows)]

    def _vocabulary(self, width: int) -> Any:
        """Made once, as it reads the whole tokenizer."""
        hf: Any = require("llguidance.hf", "transformers")
        with self._lock:
            if width not in self._tokens:
                try:
                    self._tokens[width] = hf.from_tokenizer(self._tokenizer, n_vocab=width, eos_token=self.ends)
                except ValueError as error:
                    raise ConfigError(f"schema: {type(self._tokenizer).__name__} cannot be held to one: {error}") from error
            return self._tokens[width]


class FollowSchema:
    """A logits processor of transformers: -inf for every token that cannot come next in an answer that fits."""

    def __init__(self, constraint: SchemaConstraint, grammar: str) -> None:
        self.constraint = constraint
        self.grammar = grammar
        self.matchers: list[Any] = []
        self.read = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [B, V] for the token after ``input_ids`` [B, L]; the first call tells where the answers begin."""
        if not self.matchers:
            self.matchers = self.constraint.matchers(self.grammar, *scores.shape)
            self.read = input_ids.shape[1]
        fresh = input_ids[:, self.read :].tolist()
        self.read = input_ids.shape[1]
        allowed = torch.zeros(scores.shape, dtype=torch.bool)
        for row, (matcher, tokens) in enumerate(zip(self.matchers, fresh, strict=True)):
            if tokens and not matcher.is_stopped():
                matcher.consume_tokens(tokens)
            if matcher.is_stopped():
                allowed[row, self.constraint.ends] = True
            else:
                allowed[row] = _bits(matcher.compute_bitmask(), scores.shape[1])
        return scores.masked_fill(~allowed.to(scores.device), float("-inf"))

    def only(self, token: int) -> int | None:
        """Takes in the next token of a batch of one; gives the one after it where nothing else can come, None where there is a choice."""
        matcher = self.matchers[0]
        self.read += 1
        if not matcher.is_stopped():
            matcher.consume_token(token)
        if matcher.is_stopped():
            return next(iter(self.constraint.ends), None)
        mask = int.from_bytes(matcher.compute_bitmask(), "little")
        return mask.bit_length() - 1 if mask.bit_count() == 1 else None


def _bits(mask: bytes, width: int) -> Tensor:
    return torch.from_numpy(np.unpackbits(np.frombuffer(mask, dtype=np.uint8), bitorder="little")[:width].astype(bool))
