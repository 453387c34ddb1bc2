"""A vision model: words about a picture."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.core.errors import PortError
from wgtorch.core.port import Port
from wgtorch.core.run.rng import Rng
from wgtorch.integrations.models.model_block import per_row
from wgtorch.integrations.models.requests import TextRequest
from wgtorch.integrations.models.text import TextModel, takes_options
from wgtorch.roles import VisionLanguageModel

QUESTION = "Describe what is in this picture."


@register_block("vlm")
class VLM(TextModel, VisionLanguageModel):
    """Answers a question about each of the pictures ``image`` [B, 3, H, W] (or [3, H, W], or a list of them) in [0, 1].

    Without a ``prompt`` the picture is to be described. One picture gives a text, several give a list.
    """

    __doc__ += TextModel.__doc__.split("\n", 1)[1]  # type: ignore[operator, union-attr]
    kind = "vlm"
    inputs = {"prompt": Port(dtype="text", description="the question; the picture is to be described where left out")}

    @takes_options
    def forward(
        self, image: Tensor | list[Tensor], prompt: str | list[str] | None = None, *, stream: Any = None, answer: Any = None, **options: Any
    ) -> dict[str, Any]:
        """One answer for a picture, or a list of them for several; or how likely given ones are."""
        requests = self._requests(image=image, prompt=prompt, **options)
        return self._outputs(requests, isinstance(image, (list, tuple)) or len(requests) != 1, stream, answer)

    def _requests(self, *, image: Any, prompt: Any = None, rng: Rng | None = None, **options: Any) -> list[TextRequest]:
        pictures = pictures_of(image, self.block_id)
        prompts = per_row(prompt, len(pictures), f"{self.block_id}.prompt")
        rows = self._rows(options, len(pictures))
        return [
            self._request(text or QUESTION, (picture,), row, rng, index)
            for index, (picture, text, row) in enumerate(zip(pictures, prompts, rows, strict=True))
        ]

    def dry(self, **inputs: Any) -> dict[str, Any]:
        """Stand-ins for the outputs, for dry runs."""
        image = inputs.get("image")
        count = len(image) if isinstance(image, (list, tuple)) or (isinstance(image, Tensor) and image.dim() == 4) else 1
        listed = isinstance(image, (list, tuple)) or count != 1
        return self._stand_ins(count, listed, inputs.get("answer"))


def pictures_of(image: Any, where: str) -> list[Tensor]:
    """Pictures [3, H, W] of what an image port takes: [B, 3, H, W], [3, H, W], or a list of either with one picture each.

    Raises:
        PortError: a tensor of another shape.
    """
    if isinstance(image, (list, tuple)):
        return [picture for item in image for picture in pictures_of(item, where)]
    if image.dim() == 3:
        image = image.unsqueeze(0)
    if image.dim() != 4 or image.shape[1] != 3:
        raise PortError(f"{where}.image: found a tensor {list(image.shape)}, expected [B, 3, H, W] or [3, H, W]")
    return list(image)


@register_block("vlm/api")
class ApiVLM(VLM):
    """A vision model behind an API."""


@register_block("vlm/openai")
class OpenAIVLM(VLM):
    """A vision model behind an API that speaks OpenAI's protocol."""

    default_provider = "openai"


@register_block("vlm/anthropic")
class AnthropicVLM(VLM):
    """A vision model of Anthropic's."""

    default_provider = "anthropic"


@register_block("vlm/local")
class LocalVLM(VLM):
    """A vision model whose weights are here."""

    default_backend = "local"
