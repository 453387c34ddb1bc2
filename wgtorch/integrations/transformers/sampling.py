"""Choosing tokens: each row of a batch from a random generator of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen.

    Args:
        temperature: what logits are divided by; 0 takes the likeliest token always.
        top_p: tokens are drawn from the likeliest whose probabilities reach this sum, in (0, 1].
        top_k: and from at most so many; 0 is no limit.
        max_tokens: most tokens of an answer.
        stop: texts that end an answer; they are not part of it.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 512
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value, fits, expected in (
            ("temperature", self.temperature, self.temperature >= 0, "0 or more"),
            ("top_p", self.top_p, 0 < self.top_p <= 1, "a number in (0, 1]"),
            ("top_k", self.top_k, self.top_k >= 0, "0 or more"),
            ("max_tokens", self.max_tokens, self.max_tokens >= 1, "at least 1"),
            ("stop", self.stop, all(self.stop), "texts that are not empty"),
        ):
            if not fits:
                raise ConfigError(f"sampling: {name} is {value!r}; expected {expected}")


class DrawEachRow:
    """A logits processor of transformers that draws one token for each row and leaves no other to choose.

    Greedy decoding after it takes what was drawn. A row's draws come from its own generator, one number for each token, so a
    row gets the same text whatever else is in the batch (as far as the model's own arithmetic does not depend on that).
    """

    def __init__(self, sampling: Sampling, generators: Sequence[torch.Generator]) -> None:
        self.sampling = sampling
        self.generators = generators

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [B, V] that are 0 for the drawn token and -inf for all others."""
        restricted_scores = restricted(scores.float() / self.sampling.temperature, self.sampling)
        cumulative = restricted_scores.softmax(-1).double().cumsum(-1)  # [B, V]
        total = cumulative[:, -1:].contiguous()
        uniform = [torch.rand((), generator=generator, dtype=torch.float64) for generator in self.generators]
        target = torch.stack(uniform).to(scores.device).unsqueeze(-1) * total
        drawn = torch.minimum(torch.searchsorted(cumulative, target, right=True), torch.searchsorted(cumulative, total))
        return torch.full_like(scores, float("-inf")).scatter_(-1, drawn, 0.0)

    def skip(self) -> None:
        """Leaves out the number of a token that needs no draw, in every row."""
        for generator in self.generators:
            torch.rand((), generator=generator, dtype=torch.float64)


def restricted(logits: Tensor, sampling: Sampling) -> Tensor:
    """Logits [B, V] with -inf where ``top_k`` and ``top_p`` (Holtzman et al. 2019, https://arxiv.org/abs/1904.09751) leave nothing."""
    if sampling.top_k:
        least = logits.topk(min(sampling.top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    if sampling.top_p < 1:
        ordered, order = logits.sort(descending=True)
        p = ordered.softmax(-1)
        beyond = p.cumsum(-1) - p >= sampling.top_p  # the likeliest token always stays
        logits = logits.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), float("-inf"))
    return logits


def sampling_defaults(generation_config: Any) -> dict[str, Any]:
    """What a model's own generation config says of sampling, as arguments of :class:`Sampling`."""
    if not getattr(generation_config, "do_sample", None):
        return {}
    names = ("temperature", "top_p", "top_k")
    return {name: value for name in names if (value := getattr(generation_config, name, None)) is not None}
