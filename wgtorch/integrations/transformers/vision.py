"""Vision language models, and captioners without a chat template."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from wgtorch.integrations.models.backends import register_backend
from wgtorch.integrations.models.requests import Message
from wgtorch.integrations.transformers.conversation import labelled, templated
from wgtorch.integrations.transformers.folder import dtype_of, model_folder, read_model, read_processor
from wgtorch.integrations.transformers.text import LocalText

_ONE_AT_A_TIME = threading.Lock()  # a processor sets padding on its tokenizer for the time of a call


@register_backend("vlm/local")
class LocalVisionModel(LocalText):
    """A model that reads pictures and text from a folder of transformers: LLaVA, Qwen-VL, SmolVLM, BLIP, ...

    Args:
        checkpoint_ref: the folder: ``config.json``, safetensors and processor, as ``save_pretrained`` writes them.
        dtype: of the weights: ``float32``, ``bfloat16``, ...; PyTorch's default dtype where left out.
        device: where the weights go (``cuda:0``); a level's ``.to`` moves them as well.
        batch_size: most answers that are written at once.
        top_k: most tokens that one is drawn from; the model's own where left out, 0 for no limit.
        template_options: for the chat template.
    """

    def __init__(
        self,
        *,
        checkpoint_ref: str,
        dtype: str | None = None,
        device: str | None = None,
        batch_size: int = 4,
        top_k: int | None = None,
        template_options: Mapping[str, Any] | None = None,
    ) -> None:
        folder = model_folder(checkpoint_ref, "vlm")
        model = read_model(folder, ("AutoModelForImageTextToText",), dtype=dtype_of(dtype, "vlm"), device=device, where="vlm")
        self.processor = read_processor(folder, "vlm")
        self.processor.tokenizer.padding_side = "left"
        super().__init__(
            model,
            self.processor.tokenizer,
            batch_size=batch_size,
            top_k=top_k,
            template_options=template_options,
            chat_template=getattr(self.processor, "chat_template", None),
            where="vlm",
        )

    def encode(self, conversations: Sequence[tuple[Message, ...]]) -> dict[str, Tensor]:
        pictures = [[_pixels(image) for turn in messages for image in turn.images] for messages in conversations]
        chats = bool(getattr(self.processor, "chat_template", None))
        if chats:
            texts = [templated(self.processor, messages, self.template_options, parts=True) for messages in conversations]
        else:
            texts = [labelled(messages, getattr(self.processor, "image_token", None) or "") for messages in conversations]
        images = pictures if chats else [image for row in pictures for image in row]
        with _ONE_AT_A_TIME:
            inputs = self.processor(
                text=texts,
                images=images if any(pictures) else None,
                padding=True,
                return_tensors="pt",
                add_special_tokens=not chats,  # a chat template writes them itself
            )
        moved = inputs.to(self.model.device)
        return {name: value.to(self.model.dtype) if value.is_floating_point() else value for name, value in moved.items()}


def _pixels(image: Tensor) -> Any:
    """A picture [3, H, W] in [0, 1] as uint8 [H, W, 3], the form that every image processor reads."""
    return (image.detach().float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
