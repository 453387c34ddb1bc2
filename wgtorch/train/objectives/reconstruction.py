"""Reconstruction: a codec that gives back what it was given."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from wgtorch.core.block import Block
from wgtorch.core.errors import ConfigError, suggest
from wgtorch.core.level import Level
from wgtorch.train.learned import places_needed
from wgtorch.train.objective import Batch, Objective, Step
from wgtorch.train.objectives.inputs import inputs_of
from wgtorch.train.recording import forward_outputs
from wgtorch.train.registries import register_objective

DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mse": F.mse_loss, "l1": F.l1_loss, "huber": F.smooth_l1_loss}


def distance_of(name: str, where: str) -> Callable[[Tensor, Tensor], Tensor]:
    """A mean distance between tensors by name.

    Raises:
        ConfigError: there is no such distance.
    """
    if name not in DISTANCES:
        raise ConfigError(f"{where}: found {name!r}, expected one of {', '.join(DISTANCES)}; {suggest(name, DISTANCES)}")
    return DISTANCES[name]


@register_objective("reconstruction")
class Reconstruction(Objective):
    """Distance between pictures and what comes back of them.

    The target is a graph (or more) from the picture to an output like it, or a block that works both ways: an input ``image``
    with an output ``latent``, and an input ``latent`` with an output ``image``. A codec that cuts its pictures to [0, 1] gives no
    gradient where it has cut.

    Args:
        image: key of the pictures [B, 3, H, W] in [0, 1].
        output: the output, or port by path, that should be like them.
        latent: the port by path that holds the latent; needed for its penalty in a graph.
        loss: ``l1``, ``mse`` or ``huber``.
        latent_weight: factor of the latent's mean square, which keeps latents near unit variance from growing.
    """

    def __init__(
        self, *, image: str = "image", output: str = "image", latent: str | None = None, loss: str = "l1", latent_weight: float = 0.0
    ) -> None:
        super().__init__()
        if latent_weight < 0:
            raise ConfigError(f"reconstruction.latent_weight: found {latent_weight}; expected at least 0")
        self.image, self.output, self.latent, self.latent_weight = image, output, latent, latent_weight
        self.distance = distance_of(loss, "reconstruction.loss")

    def needed(self) -> tuple[str, ...]:
        return (self.image,)

    def check(self, target: Block) -> None:
        inputs, outputs = set(target.get_input_spec()), set(target.get_output_spec())
        if isinstance(target, Level):
            if self.latent_weight and self.latent is None:
                raise ConfigError(
                    "reconstruction: latent_weight needs to know which port holds the latent; give latent, as 'encoder.latent'"
                )
        elif not ({"image", "latent"} <= inputs and {"image", "latent"} <= outputs) and not {self.image} <= inputs:
            raise ConfigError(
                f"reconstruction: {target.block_id} takes {sorted(inputs)} and gives {sorted(outputs)}; expected a codec that works both "
                "ways (image and latent), or a graph from picture to picture"
            )

    def forward(self, target: Block, batch: Batch, step: Step) -> Mapping[str, Any]:
        """``loss``; ``distance``, and ``latent``: the latent's mean square."""
        picture = batch[self.image]
        back, latent = self.reconstructed(target, batch)
        if back.shape != picture.shape:
            raise ConfigError(f"reconstruction: {list(picture.shape)} came back as {list(back.shape)}; expected the same shape")
        distance = self.distance(back.float(), picture.float())
        if latent is None:
            return {"loss": distance, "distance": distance.detach(), "count": len(picture)}
        square = latent.float().square().mean()
        loss = distance + self.latent_weight * square
        return {"loss": loss, "distance": distance.detach(), "latent": square.detach(), "count": len(picture)}

    def reconstructed(self, target: Block, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """What comes back of the pictures, and the latent where it is known."""
        if not isinstance(target, Level) and "latent" in target.get_input_spec():
            latent = target(image=batch[self.image])["latent"]
            return target(latent=latent)["image"], latent
        wanted = [self.output, *([self.latent] if self.latent else [])]
        found = forward_outputs(target, inputs_of(target, batch, {}, "reconstruction"), wanted)
        return found[self.output], found.get(self.latent) if self.latent else None

    def reached(self, target: Block) -> Collection[str] | None:
        return places_needed(target, [self.output, *([self.latent] if self.latent else [])])

    def samples(self, target: Block, batch: Batch, step: Step) -> Mapping[str, Any]:
        """The pictures, and what comes back of them."""
        return {"pictures": batch[self.image], "reconstructions": self.reconstructed(target, batch)[0]}
