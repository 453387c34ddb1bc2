"""Generating text with a model of transformers, without leaving anything behind in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.errors import require
from wgtorch.integrations.transformers.constraint import FollowSchema, SchemaConstraint
from wgtorch.integrations.transformers.sampling import DrawEachRow, Sampling
from wgtorch.integrations.transformers.text_stream import GrowingText, WatchRows


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model wrote.

    Args:
        text: without special tokens and stop texts.
        tokens: how many it wrote.
        cut: True when the limit of tokens ended it.
    """

    text: str
    tokens: int
    cut: bool


def ends_of(model: Any, tokenizer: Any) -> list[int]:
    """Ids of the tokens that end an answer: those the model names, and the tokenizer's own."""
    named = getattr(model.generation_config, "eos_token_id", None)
    found = [*(named if isinstance(named, (list, tuple)) else [named]), tokenizer.eos_token_id]
    return list(dict.fromkeys(int(token) for token in found if token is not None))


def generate(
    model: Any,
    tokenizer: Any,
    inputs: Mapping[str, Tensor],
    sampling: Sampling,
    generators: Sequence[torch.Generator],
    *,
    ends: Sequence[int],
    constraint: SchemaConstraint,
    schema: Mapping[str, Any] | None = None,
    tell: Callable[[int, str], None] | None = None,
    cache: Mapping[str, Any] | None = None,
) -> list[Answer]:
    """Answers to a batch of prompts.

    Args:
        model: of transformers.
        tokenizer: its own.
        inputs: ``input_ids`` [B, L], padded on the left, ``attention_mask`` [B, L], and what else the model reads.
        sampling: how tokens are chosen.
        generators: of each row, for sampling.
        ends: ids of the tokens that end an answer.
        constraint: by which answers are held to ``schema``.
        tell: called with row and new text, as it comes.
        cache: of a batch of one, the model's argument with what was read of the prompt before. Tokens are then written one by one
            here, and those that the schema leaves no choice in are read together with the next: about half of most JSON.
    """
    library: Any = require("transformers", "transformers")
    processors: list[Any] = [] if schema is None else [constraint.processor(schema)]
    if sampling.temperature > 0:
        processors.append(DrawEachRow(sampling, generators))
    answers = [GrowingText(tokenizer, sampling.stop, _teller(tell, row)) for row in range(len(generators))]
    watch = WatchRows(answers, ends)
    with torch.no_grad():
        if cache:
            _write(model, inputs["input_ids"], cache, processors, watch, sampling.max_tokens)
        else:
            model.generate(
                **inputs,
                generation_config=_plain_config(library, sampling, ends, tokenizer),
                logits_processor=library.LogitsProcessorList(processors),
                stopping_criteria=library.StoppingCriteriaList([watch]),
            )
    return [Answer(answer.finish(), count, not ended) for answer, count, ended in zip(answers, watch.lengths, watch.ended, strict=True)]


def _write(model: Any, ids: Tensor, cache: Mapping[str, Any], processors: Sequence[Any], watch: WatchRows, limit: int) -> None:
    """Writes one answer, as greedy decoding of transformers does after the same processors."""
    follow = next((entry for entry in processors if isinstance(entry, FollowSchema)), None)
    draw = next((entry for entry in processors if isinstance(entry, DrawEachRow)), None)
    (held,) = cache.values()
    while True:
        scores = model(input_ids=ids[:, held.get_seq_length() :], use_cache=True, logits_to_keep=1, **cache).logits[:, -1].float()
        for processor in processors:
            scores = processor(ids, scores)
        token: int | None = int(scores.argmax(-1))
        fresh: list[int] = []
        while token is not None:
            fresh.append(token)
            if watch.add(0, token) or watch.lengths[0] >= limit:
                return
            token = None if follow is None else follow.only(token)
            if token is not None and draw is not None:
                draw.skip()
        ids = torch.cat([ids, torch.tensor([fresh], device=ids.device)], dim=1)


def pad_left(rows: Sequence[Sequence[int]], padding: int, device: Any) -> dict[str, Tensor]:
    """``input_ids`` and ``attention_mask`` [B, L] of prompts of different length, their ends aligned."""
    longest = max(len(row) for row in rows)
    ids = [[padding] * (longest - len(row)) + list(row) for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return {"input_ids": torch.tensor(ids, device=device), "attention_mask": torch.tensor(mask, device=device)}


def _plain_config(library: Any, sampling: Sampling, ends: Sequence[int], tokenizer: Any) -> Any:
    """Greedy decoding and nothing else: what the model's own config says of sampling is for :class:`Sampling` to hold."""
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(ends), 0)
    return library.GenerationConfig(
        max_new_tokens=sampling.max_tokens,
        eos_token_id=list(ends) or None,
        pad_token_id=padding,
        do_sample=False,
        num_beams=1,
        temperature=1.0,
        top_p=1.0,
        top_k=50,
        use_cache=True,
    )


def _teller(tell: Callable[[int, str], None] | None, row: int) -> Callable[[str], None] | None:
    return None if tell is None else lambda text: tell(row, text)
