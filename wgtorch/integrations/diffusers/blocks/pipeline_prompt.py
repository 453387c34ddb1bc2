"""Prompts of models whose pipelines prepare them in a way of their own."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, Unpack

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from wgtorch.core.block import register_block
from wgtorch.core.errors import CheckpointError, ConfigError, PortError, require, suggest
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.foreign import ForeignModel, ModelSource
from wgtorch.integrations.diffusers.blocks.tokenizers import InFolder
from wgtorch.ports import ATTENTION_MASK, MAX_SEQUENCE_LENGTH, TEXT
from wgtorch.roles import Conditioner

PIPELINES = (
    "ChromaPipeline",
    "CogVideoXPipeline",
    "Flux2KleinPipeline",
    "Flux2Pipeline",
    "HunyuanVideoPipeline",
    "LTXPipeline",
    "Lumina2Pipeline",
    "PixArtAlphaPipeline",
    "PixArtSigmaPipeline",
    "QwenImagePipeline",
    "SanaPipeline",
    "ZImagePipeline",
)
"""Whose ``encode_prompt`` may be asked."""
PROCESSED = ("Flux2Pipeline",)
"""Those whose tokenizer is a processor, of pictures too."""
MODELS = (
    "Gemma2Model",
    "LlamaModel",
    "Mistral3ForConditionalGeneration",
    "Qwen2_5_VLForConditionalGeneration",
    "Qwen3ForCausalLM",
    "Qwen3Model",
    "T5EncoderModel",
)
"""Text encoders of transformers that these pipelines have."""


@register_block("conditioner/pipeline_prompt")
class PipelinePrompt(InFolder, ForeignModel, Conditioner):
    """A tokenizer and a text encoder, asked as the ``encode_prompt`` of a pipeline of diffusers asks them: templates, system prompts,
    cleaning and which layer counts are the pipeline's.

    Args:
        pipeline: its class.
        kind: class of the text encoder in transformers.
        folder: with the tokenizer's files.
        length: tokens, where the input ``max_sequence_length`` is not fed; the pipeline's own default where left out.
    """

    library = "transformers"
    inputs: Mapping[str, Any] = {
        "text": TEXT,
        "max_sequence_length": MAX_SEQUENCE_LENGTH,
        "complex_human_instruction": Port(dtype="list", description="what a language model is told before the prompt (Sana)"),
        "clean_caption": Port(description="True cleans the text first, for a pipeline that does that"),
        "text_encoder_out_layers": Port(dtype="list", description="numbers of the layers that count (FLUX.2)"),
        "prompt_template": Port(dtype="dict", description="template around a prompt, and crop_start, its tokens left out (HunyuanVideo)"),
        "system_prompt": Port(dtype="text", description="what stands before the prompt (Lumina)"),
        "is_unwanted": Port(description="the text is a negative prompt, of a pipeline that prepares those in another way"),
    }
    outputs: Mapping[str, Any] = {"attention_mask": ATTENTION_MASK}

    def __init__(self, *, pipeline: str, kind: str, folder: str, length: int | None = None, **source: Unpack[ModelSource]) -> None:
        for name, known, given in (("pipeline", PIPELINES, pipeline), ("kind", MODELS, kind)):
            if given not in known:
                raise ConfigError(f"PipelinePrompt.{name}: found {given!r}; {suggest(given, known)}")
        super().__init__(**source)
        self.pipeline = pipeline
        self.length = length
        self.tokenizer: Any = None
        if folder:
            library: Any = require("transformers", "diffusers")
            if not Path(folder).expanduser().is_dir():
                raise CheckpointError(f"PipelinePrompt.folder: {folder!r} is no folder; expected one with a tokenizer's files")
            self.tokenizer = (library.AutoProcessor if pipeline in PROCESSED else library.AutoTokenizer).from_pretrained(
                str(Path(folder).expanduser()), local_files_only=True, trust_remote_code=False
            )

    @classmethod
    def around_both(cls, model: Any, tokenizer: Any, **config: Any) -> Self:
        """A block around a text encoder and a tokenizer that are there already."""
        folder = str(getattr(tokenizer, "name_or_path", ""))
        block = cls.around(model, folder=folder if Path(folder).is_dir() else "", kind=type(model).__name__, **config)
        block.tokenizer = tokenizer
        return block

    @classmethod
    def _class(cls, **config: Any) -> Any:
        return getattr(require(cls.library, "diffusers"), config["kind"])

    def forward(
        self,
        text: str | list[str],
        max_sequence_length: int | None = None,
        complex_human_instruction: Sequence[str] | None = None,
        clean_caption: bool | None = None,
        text_encoder_out_layers: Sequence[int] | None = None,
        prompt_template: Mapping[str, Any] | None = None,
        system_prompt: str | None = None,
        is_unwanted: bool | None = None,
    ) -> dict[str, Any]:
        """``embedding`` [B, L, D] and ``attention_mask`` [B, L], 0 where a text has ended."""
        if not isinstance(text, str) and not len(text):
            raise PortError(f"{self.block_id}.text: got an empty list; expected a prompt, or several")
        pipeline_class = getattr(require("diffusers", "diffusers"), self.pipeline)
        taken = inspect.signature(pipeline_class.__init__).parameters
        parts = {name: None for name in list(taken)[1:] if taken[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD}
        pipeline = pipeline_class(**{**parts, "text_encoder": self.model, "tokenizer": self.tokenizer})
        length = self.length if max_sequence_length is None else int(max_sequence_length)
        texts = [text] if isinstance(text, str) else list(text)
        options: dict[str, Any] = {
            "prompt": texts,
            "device": self.model.device,
            "do_classifier_free_guidance": False,
            "max_sequence_length": length,
            "complex_human_instruction": list(complex_human_instruction) if complex_human_instruction else False,
            "clean_caption": bool(clean_caption),
            "text_encoder_out_layers": None if text_encoder_out_layers is None else tuple(text_encoder_out_layers),
            "prompt_template": prompt_template,
            "pooled_prompt_embeds": torch.zeros(1),  # of another encoder, which is a node of its own
        }
        if system_prompt is not None:
            options["system_prompt"] = system_prompt
        if is_unwanted:  # the prompt's own embedding is not asked for
            nothing = torch.zeros(len(texts), 1, 1)
            options |= {"prompt": None, "prompt_embeds": nothing, "prompt_attention_mask": nothing[..., 0], "negative_prompt": texts}
            options["do_classifier_free_guidance"] = True
        known = inspect.signature(pipeline.encode_prompt).parameters
        found = pipeline.encode_prompt(
            **{name: value for name, value in options.items() if name in known and (value is not None or name == "prompt")}
        )
        if is_unwanted:
            found = found[2:]
        embedding, mask = found[0], None
        if isinstance(embedding, list):
            mask = pad_sequence([torch.ones(len(one), dtype=torch.long, device=one.device) for one in embedding], batch_first=True)
            embedding = pad_sequence(embedding, batch_first=True)
        masks = [one for one in found[1:] if isinstance(one, Tensor) and one.shape == embedding.shape[:2]]
        if mask is None:
            mask = masks[0] if masks else embedding.new_ones(embedding.shape[:2], dtype=torch.long)
        return {"embedding": embedding, "attention_mask": mask}
