"""Language models in GGUF files, run by llama.cpp in this process, quantised as they are."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from wgtorch.core.errors import CheckpointError, ConfigError, require
from wgtorch.integrations.models.backends import OnText, register_backend
from wgtorch.integrations.models.errors import ApiRequestError
from wgtorch.integrations.models.requests import Completion, TextRequest
from wgtorch.integrations.transformers.conversation import in_words, marks_of
from wgtorch.integrations.transformers.packaged_models import gguf_of

_LONGEST = 512  # tokens of an answer where nothing limits it, as of other models that are here
_SEEDS = 2**32 - 1  # the number after these means "any" to llama.cpp


@register_backend("llm/llama_cpp")
class LlamaCppModel:
    """A language model of llama.cpp (https://github.com/ggml-org/llama.cpp), by the package xllamacpp.

    It answers several times as fast on a processor as the same weights in PyTorch, but it is no module: nothing of it can be trained,
    given an adapter of ours, or moved. Prompts that begin alike are read once; ``usage["cached_tokens"]`` says how much was not read
    again. Special tokens in a text are words, as for models of ``local``: none ends a turn or begins one.

    Example:
        >>> llm = BlockRegistry.build({"block_type": "llm", "config": {"backend": "llama_cpp", "checkpoint_ref": "qwen3-4b-q4.gguf"}})

    Args:
        checkpoint_ref: the ``.gguf`` file; or ``smollm2``, which ``wgtorch models add smollm2`` installs.
        context: tokens that it reads and writes together, at most.
        threads: that compute; what llama.cpp finds best where left out.
        gpu_layers: layers that go to a GPU, where xllamacpp was built for one.
    """

    is_async = False
    model = None
    _was_asked = False

    def __init__(self, *, checkpoint_ref: str, context: int = 4096, threads: int | None = None, gpu_layers: int = 0) -> None:
        for name, value, least in (
            ("context", context, 1),
            ("threads", 1 if threads is None else threads, 1),
            ("gpu_layers", gpu_layers, 0),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"llm.{name}: found {value!r}, expected a whole number of at least {least}")
        self._settings = {"checkpoint_ref": checkpoint_ref, "context": context, "threads": threads, "gpu_layers": gpu_layers}
        self._name = checkpoint_ref
        path = gguf_of(checkpoint_ref)
        library: Any = require("xllamacpp", "llama_cpp")
        chosen = library.CommonParams()
        chosen.model.path, chosen.n_ctx, chosen.n_parallel, chosen.n_gpu_layers = str(path), context, 1, gpu_layers
        chosen.verbosity, chosen.warmup, chosen.ui = -1, False, False
        chosen.api_keys = [secrets.token_hex(16)]  # it listens on a port of this machine too, for nobody
        if threads is not None:
            chosen.cpuparams.n_threads = chosen.cpuparams_batch.n_threads = threads
        try:
            self._server = library.Server(chosen)
        except RuntimeError as error:
            raise CheckpointError(f"llm.checkpoint_ref: llama.cpp cannot read {str(path)!r}: {error}") from error
        self._marks = marks_in(path)

    def __del__(self) -> None:
        # xllamacpp waits for ever when a server ends before its loop has begun, and an answer shows that it has.
        if not self._was_asked and hasattr(self, "_server"):
            with suppress(Exception):
                self._server.handle_chat_completions({"messages": [{"role": "user", "content": "."}], "max_tokens": 1})

    def __deepcopy__(self, memo: dict[int, Any]) -> LlamaCppModel:
        return self  # weights that nobody can change

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), **self._settings), ()  # type: ignore[arg-type]

    def complete(self, requests: Sequence[TextRequest], on_text: OnText | None = None) -> list[Completion]:
        """One answer for each request, in order, one after another."""
        return [self._answer(request, index, on_text) for index, request in enumerate(requests)]

    def _answer(self, request: TextRequest, index: int, on_text: OnText | None) -> Completion:
        asked, self._was_asked = _body(replace(request, messages=in_words(request.messages, self._marks))), True
        if on_text is None:
            return self._completion(self._checked(self._server.handle_chat_completions(asked)))
        pieces: list[str] = []
        whole: dict[str, Any] = {}
        raised: list[BaseException] = []

        def hear(chunk: dict[str, Any]) -> bool:
            """True ends the answer; what is raised here would be lost in llama.cpp."""
            try:
                self._checked(chunk)
                whole.update(usage=chunk.get("usage"))
                for choice in chunk.get("choices") or ():
                    whole["finish_reason"] = choice.get("finish_reason") or whole.get("finish_reason")
                    if piece := choice["delta"].get("content"):
                        pieces.append(piece)
                        on_text(index, piece)
            except BaseException as error:
                raised.append(error)
            return bool(raised)

        failed = self._server.handle_chat_completions({**asked, "stream": True, "stream_options": {"include_usage": True}}, hear)
        if raised:
            raise raised[0]
        self._checked(failed or {})
        choice = {"message": {"content": "".join(pieces)}, "finish_reason": whole.get("finish_reason")}
        return self._completion({"choices": [choice], "usage": whole.get("usage")})

    def _checked(self, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        error = answer.get("error")
        if error:
            words, status = (error.get("message"), error.get("code")) if isinstance(error, Mapping) else (error, None)
            raise ApiRequestError(f"llama.cpp {self._name}: {words}", provider="llama.cpp", model=self._name, status=status)
        return answer

    def _completion(self, answer: Mapping[str, Any]) -> Completion:
        choice, usage = answer["choices"][0], answer.get("usage") or {}
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
        counts = {name: usage.get(name, 0) for name in ("prompt_tokens", "completion_tokens")}
        message = choice["message"]
        return Completion(
            message.get("content") or "",
            choice.get("finish_reason") or "stop",
            {**counts, "cached_tokens": cached},
            thoughts=message.get("reasoning_content") or "",
        )


def _body(request: TextRequest) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "messages": [{"role": turn.role, "content": turn.text} for turn in request.messages],
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_tokens": _LONGEST if request.max_tokens is None else request.max_tokens,
        "stop": list(request.stop) or None,
        "seed": None if request.seed is None else request.seed % _SEEDS,
        "cache_prompt": True,
    }
    if request.schema is not None:
        asked["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(request.schema)}}
    return {name: value for name, value in asked.items() if value is not None}


_CHATML = "<|im_start|> <|im_end|>"  # what llama.cpp writes for files without a template
_NO_WORDS = (2, 3)  # kinds of tokens in a GGUF file: unknown ones, and those that control


def marks_in(path: Path) -> frozenset[str]:
    """What begins and ends turns by a GGUF file: special tokens, which llama.cpp reads as such wherever they stand, and its template's."""
    library: Any = require("gguf", "llama_cpp")
    fields = library.GGUFReader(path).fields
    tokens, kinds = fields.get("tokenizer.ggml.tokens"), fields.get("tokenizer.ggml.token_type")
    template = fields["tokenizer.chat_template"].contents() if "tokenizer.chat_template" in fields else _CHATML
    if tokens is None or kinds is None:
        return marks_of((), template)
    found = [index for index, part in enumerate(kinds.data) if int(kinds.parts[part][0]) in _NO_WORDS]
    return marks_of((bytes(tokens.parts[tokens.data[index]]).decode("utf-8", "replace") for index in found), template)
