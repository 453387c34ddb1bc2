"""The ``local`` backend of ``image_generator``: a diffusers folder as a graph."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from wgtorch.core.errors import ConfigError, PortError
from wgtorch.core.pool import now_building
from wgtorch.integrations.diffusers.importer import from_diffusers
from wgtorch.integrations.models.backends import register_backend
from wgtorch.integrations.models.requests import ImageRequest, Picture

_TASKS = {"image_to_image": "an image", "inpaint": "an image and a mask"}
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@register_backend("image_generator/local")
class LocalImageBackend:
    """Paints with the graph of a diffusers pipeline; every request is a run of its own, with its own seed.

    Args:
        checkpoint_ref: a folder that ``save_pretrained`` wrote.
        task: ``text_to_image``, ``image_to_image`` or ``inpaint``: what requests hold beside the prompt.
        dtype: of the weights; that of the folder where left out.
    """

    is_async = False

    def __init__(self, *, checkpoint_ref: str, task: str = "text_to_image", dtype: str | None = None) -> None:
        if dtype is not None and dtype not in _DTYPES:
            raise ConfigError(f"image_generator.dtype: found {dtype!r}, expected one of {', '.join(_DTYPES)}")
        self.task = task
        self.model: Any = from_diffusers(checkpoint_ref, task=task, pool=now_building().pool)
        if dtype is not None:
            self.model.to(_DTYPES[dtype])
        self.model.eval()

    def paint(self, requests: Sequence[ImageRequest]) -> list[Picture]:
        """One picture for each request, in order."""
        return [self._one(request) for request in requests]

    def _one(self, request: ImageRequest) -> Picture:
        given = {"image": request.image, "mask_image": request.mask}
        needed = {"image_to_image": {"image"}, "inpaint": {"image", "mask_image"}}.get(self.task, set())
        found = {name for name, value in given.items() if value is not None}
        if found != needed:
            words = _TASKS.get(self.task, "a prompt alone")
            raise PortError(f"image_generator: found {sorted(found) or 'a prompt alone'}, expected {words} for task {self.task!r}")
        inputs: dict[str, Any] = {"prompt": request.prompt, **request.options}
        inputs |= {name: value[None] for name, value in given.items() if value is not None}
        if request.width is not None:
            inputs |= {"width": request.width, "height": request.height}
        started = time.perf_counter()
        image = self.model.run(inputs, seed=request.seed, training=torch.is_grad_enabled())["image"]
        return Picture(image[0], {"latency": time.perf_counter() - started})
