"""Language models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from wgtorch.core.errors import ConfigError
from wgtorch.integrations.models.backends import register_backend
from wgtorch.integrations.models.requests import Message
from wgtorch.integrations.transformers.conversation import labelled, templated
from wgtorch.integrations.transformers.folder import dtype_of, model_folder, read_model, read_tokenizer
from wgtorch.integrations.transformers.generation import pad_left
from wgtorch.integrations.transformers.text import LocalText


@register_backend("llm/local")
class LocalLanguageModel(LocalText):
    """A causal language model from a folder of transformers.

    A row of a batch gets the same text as alone, as far as the model's arithmetic does not depend on the size of the batch:
    two tokens that are equally likely to the last bits may change places. ``batch_size=1`` rules that out.

    Args:
        checkpoint_ref: the folder: ``config.json``, safetensors and tokenizer, as ``save_pretrained`` writes them; a ``.gguf``
            file, which is converted once; or ``smollm2``, which ``wgtorch models add smollm2`` installs.
        dtype: of the weights: ``float32``, ``bfloat16``, ...; PyTorch's default dtype where left out.
        device: where the weights go (``cuda:0``); a level's ``.to`` moves them as well.
        batch_size: most answers that are written at once.
        top_k: most tokens that one is drawn from; the model's own where left out, 0 for no limit.
        template_options: for the chat template (``{"enable_thinking": False}``).
        keep_bytes: most bytes of keys and values of earlier prompts that are kept. A prompt that begins as one before is read from
            where it differs on; answers are the same to the last bit either way. For one prompt at a time, not for batches. What several
            prompts begin with is kept once; what was used longest ago goes first. 0 keeps none. ``backend.prefixes.stats`` counts. Left
            out, half of what the weights take, and half a gigabyte at least: some 20,000 tokens, the prompts of a world's roles.
        pack: on a CPU, keep a second copy of the linear layers' weights as the processor reads them fastest (oneDNN): about twice the
            memory, 1.5 times as many tokens a second. ``state_dict`` and training see nothing of it; weights that change are packed
            anew before the next answer. Elsewhere it changes nothing.
    """

    def __init__(
        self,
        *,
        checkpoint_ref: str,
        dtype: str | None = None,
        device: str | None = None,
        batch_size: int = 8,
        top_k: int | None = None,
        template_options: Mapping[str, Any] | None = None,
        keep_bytes: int | None = None,
        pack: bool = False,
    ) -> None:
        folder = model_folder(checkpoint_ref, "llm")
        super().__init__(
            read_model(folder, ("AutoModelForCausalLM",), dtype=dtype_of(dtype, "llm"), device=device, where="llm"),
            read_tokenizer(folder, "llm"),
            batch_size=batch_size,
            top_k=top_k,
            template_options=template_options,
            keep_bytes=keep_bytes,
            pack=pack,
            where="llm",
        )

    def encode(self, conversations: Sequence[tuple[Message, ...]]) -> dict[str, Tensor]:
        rows = [self._ids(messages) for messages in conversations]
        known = getattr(self.model.config, "vocab_size", None)
        if known is not None and (new := [token for row in rows for token in row if token >= known]):
            word = self.tokenizer.convert_ids_to_tokens(new[0])
            raise ConfigError(
                f"{self.where}: the tokenizer has {word!r}, which the model, of {known} tokens, does not know; take the model's own "
                "tokenizer, or train a model with the new token (resize_token_embeddings)"
            )
        padding = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else next(iter(self.ends), 0)
        return pad_left(rows, padding, self.model.device)

    def _ids(self, messages: Sequence[Message]) -> list[int]:
        if getattr(self.tokenizer, "chat_template", None):
            text = templated(self.tokenizer, messages, self.template_options)  # writes special tokens itself
            return self.tokenizer(text, add_special_tokens=False).input_ids
        return self.tokenizer(labelled(messages)).input_ids
