"""What local language and vision models share: requests in batches, each answer from draws of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from wgtorch.core.errors import ConfigError
from wgtorch.integrations.models.requests import Completion, Message, TextRequest
from wgtorch.integrations.transformers.constraint import SchemaConstraint
from wgtorch.integrations.transformers.conversation import context_length, fitted, in_words, marks_of, special_tokens_of
from wgtorch.integrations.transformers.generation import ends_of, generate
from wgtorch.integrations.transformers.packed_weights import PackedWeights
from wgtorch.integrations.transformers.prefix_cache import PrefixCache, room_for
from wgtorch.integrations.transformers.sampling import Sampling, sampling_defaults
from wgtorch.integrations.transformers.scoring import score
from wgtorch.integrations.transformers.weight_sums import WeightSums


class LocalText:
    """Answers of a model of transformers that stands in memory.

    Args:
        model: the weights.
        tokenizer: its own.
        batch_size: most answers that are written at once.
        top_k: most tokens that one is drawn from; the model's own where left out, 0 for no limit.
        template_options: for the chat template (``{"enable_thinking": False}``).
        keep_bytes: most bytes of keys and values of earlier prompts that are kept; :func:`room_for` them where None.
        pack: keep the weights packed beside as they are.
        where: what messages call it.
    """

    is_async = False

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        batch_size: int,
        top_k: int | None,
        template_options: Mapping[str, Any] | None,
        keep_bytes: int | None = 0,
        pack: bool = False,
        chat_template: str | Mapping[str, str] | None = None,
        where: str,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"{where}.batch_size: found {batch_size}, expected at least 1")
        if keep_bytes is None:
            keep_bytes = room_for(sum(weight.nbytes for weight in model.parameters()))
        if isinstance(keep_bytes, bool) or not isinstance(keep_bytes, int) or keep_bytes < 0:
            raise ConfigError(f"{where}.keep_bytes: found {keep_bytes!r}, expected a number of bytes from 0, such as {2**30}")
        self.prefixes = PrefixCache(keep_bytes)
        self.packed = PackedWeights(model) if pack else None
        self.model: Any = model
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.top_k = top_k
        self.template_options = dict(template_options or {})
        self.where = where
        self.ends = ends_of(model, tokenizer)
        self.marks = marks_of(special_tokens_of(tokenizer), chat_template or getattr(tokenizer, "chat_template", None))
        self.constraint = SchemaConstraint(tokenizer, self.ends)

    def complete(self, requests: Sequence[TextRequest], on_text: Callable[[int, str], None] | None = None) -> list[Completion]:
        """One answer for each request, in order; requests with the same options share batches."""
        answers: dict[int, Completion] = {}
        todo = list(range(len(requests)))
        sums = WeightSums()
        with contextlib.nullcontext() if self.packed is None else self.packed.in_use(sums):
            while todo:
                like = _options(requests[todo[0]])
                batch = [index for index in todo if _options(requests[index]) == like][: self.batch_size]
                answers.update(zip(batch, self._batch([requests[index] for index in batch], batch, sums, on_text), strict=True))
                todo = [index for index in todo if index not in batch]
        return [answers[index] for index in range(len(requests))]

    def score(self, requests: Sequence[TextRequest], answers: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Log-probability [B] in nats of an answer to each request, its end included, and its tokens [B]; with gradients.

        Raises:
            ConfigError: a request and its answer are longer than the model reads.
        """
        if self.packed is not None and self.model.training:
            self.packed.drop()
        inputs = self.encode([in_words(request.messages, self.marks) for request in requests])
        own = self.tokenizer.eos_token_id
        end = list(self.ends[:1]) if own is None else [own]
        rows = [[*self.tokenizer(answer, add_special_tokens=False).input_ids, *end] for answer in answers]
        limit, length = context_length(self.model, self.tokenizer), inputs["input_ids"].shape[1] + max(len(row) for row in rows)
        if limit is not None and length > limit:
            raise ConfigError(f"{self.where}: a question and its answer have {length} tokens; the model reads at most {limit}")
        padding = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else next(iter(self.ends), 0)
        return score(self.model, inputs, rows, padding=padding)

    def encode(self, conversations: Sequence[tuple[Message, ...]]) -> dict[str, Tensor]:
        """The model's inputs for a batch: ``input_ids`` and ``attention_mask`` [B, L], padded on the left, and more."""
        raise NotImplementedError

    def _batch(
        self, requests: Sequence[TextRequest], places: Sequence[int], sums: WeightSums, on_text: Callable[[int, str], None] | None
    ) -> list[Completion]:
        sampling = self._sampling(requests[0])
        limit = context_length(self.model, self.tokenizer)
        conversations = [in_words(request.messages, self.marks) for request in requests]
        if limit is not None:
            room = limit - min(sampling.max_tokens, limit // 2)
            conversations = [fitted(messages, self._length, self.tokenizer, room, self.where) for messages in conversations]
        inputs = self.encode(conversations)
        if limit is not None:
            sampling = replace(sampling, max_tokens=min(sampling.max_tokens, limit - inputs["input_ids"].shape[1]))
        cache: dict[str, Any] = {}
        cached = 0
        if inputs["input_ids"].shape[0] == 1 and set(inputs) == {"input_ids", "attention_mask"}:
            cache, cached = self.prefixes.read(self.model, inputs["input_ids"], sums)
        texts = generate(
            self.model,
            self.tokenizer,
            inputs,
            sampling,
            [_generator(request.seed) for request in requests],
            ends=self.ends,
            constraint=self.constraint,
            schema=requests[0].schema,
            tell=None if on_text is None else lambda row, text: on_text(places[row], text),
            cache=cache,
        )
        read = inputs["attention_mask"].sum(-1).tolist()
        return [
            Completion(text.text, "length" if text.cut else "stop", _usage(count, text.tokens, cached))
            for text, count in zip(texts, read, strict=True)
        ]

    def _sampling(self, request: TextRequest) -> Sampling:
        """What the request says, and the model's own generation config where it says nothing: mostly the likeliest token."""
        own = {"temperature": 0.0, **sampling_defaults(self.model.generation_config)}
        asked = {name: getattr(request, name) for name in ("temperature", "top_p", "max_tokens")} | {"top_k": self.top_k}
        return Sampling(**{**own, **{name: value for name, value in asked.items() if value is not None}}, stop=request.stop)

    def _length(self, messages: tuple[Message, ...]) -> int:
        return self.encode([messages])["input_ids"].shape[1]


def _usage(read: int, written: int, cached: int) -> dict[str, int]:
    return {"prompt_tokens": read, "completion_tokens": written, "cached_tokens": cached}


def _options(request: TextRequest) -> tuple[Any, ...]:
    return request.temperature, request.top_p, request.max_tokens, request.stop, request.schema


def _generator(seed: int | None) -> torch.Generator:
    return torch.Generator().manual_seed(int(torch.randint(2**62, ())) if seed is None else seed)
