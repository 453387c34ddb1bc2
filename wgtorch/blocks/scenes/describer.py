"""Picture to text: a small network that sees which attributes a scene has, and words them."""

from __future__ import annotations

import itertools

from torch import Tensor, nn
from torch.nn import functional as F

from wgtorch.blocks.scenes.layers import Residual
from wgtorch.blocks.scenes.scene import ATTRIBUTES, sentence
from wgtorch.core.block import register_block
from wgtorch.core.port import Port
from wgtorch.roles import VisionLanguageModel


@register_block("vlm/scene")
class SceneDescriber(VisionLanguageModel):
    """Describes pictures of scenes: a residual CNN with one head per attribute, whose answers a grammar puts into words.

    It was trained on drawings with noise, blur and changed brightness, so that it also reads generated pictures; of
    anything but scenes it knows nothing, and it does not read the `prompt`.

    Args:
        width: channels at 32x32; they grow to 4x at 4x4.
        image_size: side that pictures are resized to.
    """

    inputs = {"prompt": Port(dtype="text", description="not read: this describer answers no questions")}
    outputs = {
        "attributes": Port(
            dtype="dict", description="the scene's attributes by name, no color and place without a landmark; a list for several pictures"
        ),
        "confidence": Port(dtype="number", description="mean probability of the attributes chosen, in [0, 1]; a list for several pictures"),
    }
    uses_global_rng = False

    def __init__(self, *, width: int = 24, image_size: int = 64):
        super().__init__()
        if width < 8 or width % 8:
            raise ValueError(f"SceneDescriber.width: found {width}, expected a multiple of 8")
        self.image_size = image_size
        widths = (width, width, 2 * width, 3 * width, 4 * width)
        self.enter = nn.Conv2d(3, width, 4, stride=2, padding=1)
        self.stages = nn.ModuleList(Residual(a, b, stride=1 if k == 0 else 2) for k, (a, b) in enumerate(itertools.pairwise(widths)))
        cells = (image_size // 16) ** 2
        self.norm = nn.GroupNorm(8, widths[-1])
        self.squeeze = nn.Conv2d(widths[-1], 32, 1)
        self.hidden = nn.Linear(32 * cells, 96)
        self.heads = nn.ModuleDict({name: nn.Linear(96, len(values)) for name, values in ATTRIBUTES.items()})

    def logits(self, image: Tensor) -> dict[str, Tensor]:
        """Per attribute, logits [B, values] for pictures [B, 3, H, W] in [0, 1].

        Those of `color` and `place` mean something only where the landmark is not "none".
        """
        if image.shape[-2:] != (self.image_size, self.image_size):
            image = F.interpolate(image, (self.image_size, self.image_size), mode="bilinear", antialias=True, align_corners=False)
        h = self.enter(2 * image - 1)
        for stage in self.stages:
            h = stage(h)
        h = F.silu(self.hidden(self.squeeze(F.silu(self.norm(h))).flatten(1)))
        return {name: head(h) for name, head in self.heads.items()}

    def forward(self, image: Tensor, prompt: str | None = None) -> dict:
        """Describes pictures [B, 3, H, W] (or one, [3, H, W]) in [0, 1].

        Returns:
            `text`: a sentence; `attributes`: its attributes by name, no `color` and `place` without a landmark;
            `confidence`: mean probability of the attributes chosen, in [0, 1]. For B > 1 each of them is a list of B.
        """
        texts, attributes, confidences = self.describe(image)
        if len(texts) == 1:
            return {"text": texts[0], "attributes": attributes[0], "confidence": confidences[0]}
        return {"text": texts, "attributes": attributes, "confidence": confidences}

    def describe(self, image: Tensor) -> tuple[list[str], list[dict[str, str]], list[float]]:
        """Sentences, attributes and confidences of pictures [B, 3, H, W] (or one, [3, H, W]) in [0, 1]."""
        logits = self.logits(image if image.ndim == 4 else image.unsqueeze(0))
        best = {name: values.detach().softmax(dim=-1).max(dim=-1) for name, values in logits.items()}
        readings, confidences = [], []
        for k in range(next(iter(best.values())).values.shape[0]):
            reading = {name: ATTRIBUTES[name][int(choice.indices[k])] for name, choice in best.items()}
            if reading["landmark"] == "none":
                del reading["color"], reading["place"]
            readings.append(reading)
            confidences.append(sum(float(best[name].values[k]) for name in reading) / len(reading))
        return [sentence(reading) for reading in readings], readings, confidences
