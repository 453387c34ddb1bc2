"""PromptAdapter: which phrases stand around a prompt, learned from what they bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wgtorch.core.block import Block, register_block
from wgtorch.core.port import Port
from wgtorch.core.run.rng import GLOBAL_RNG, Rng
from wgtorch.ports import TEXT


@register_block("prompt/adapter")
class PromptAdapter(Block):
    """Puts a prefix before a text and a suffix after it, each chosen among given phrases with learned probabilities.

    What stands before a model behind an API gets no gradient from it, so it learns by trying: in training the phrases are drawn,
    for every text anew, and ``log_prob`` says how likely that draw was. The objective ``reward`` makes draws likelier that were
    rewarded more than its baseline (score-function estimator: Williams 1992, https://doi.org/10.1007/BF00992696). Otherwise the
    likeliest phrases are taken.

    Example:
        >>> graph.add_node("prompt/adapter", "adapter", config={"suffixes": ["", "Answer in one word.", "Think first."]})
        >>> graph.add_edge("adapter.text", "llm.prompt")
        >>> Trainable(graph, objective={"type": "reward", "reward": "exact", "outputs": ["llm.text"], "log_prob": ["adapter.log_prob"]})

    Args:
        prefixes: phrases to choose from; an empty one stands for none.
        suffixes: likewise.
        join: what is put between phrase and text.
        sample: draw outside of training too.

    Raises:
        ValueError: there is nothing to choose, or a phrase comes twice.
    """

    inputs: Mapping[str, Any] = {"text": TEXT}
    outputs: Mapping[str, Any] = {
        "text": Port(dtype="text", description="the text between its prefix and suffix, or a list of them"),
        "log_prob": Port(dtype="tensor", shape=("B",), description="how likely the choice was, in nats, at most 0"),
        "entropy": Port(dtype="tensor", shape=("B",), description="entropy of the choices, in nats; rewarding it keeps them open"),
        "choice": Port(dtype="tensor", shape=("B", 2), description="numbers of prefix and suffix, int64"),
    }
    uses_global_rng = False
    compiles = False  # texts are chosen by numbers that a trace does not know

    def __init__(self, *, prefixes: Sequence[str] = (), suffixes: Sequence[str] = (), join: str = " ", sample: bool = False) -> None:
        super().__init__()
        self.phrases = {"prefix": tuple(prefixes) or ("",), "suffix": tuple(suffixes) or ("",)}
        for part, phrases in self.phrases.items():
            if len(set(phrases)) < len(phrases):
                raise ValueError(f"PromptAdapter.{part}es: found {list(phrases)}; expected different texts")
        if all(len(phrases) == 1 for phrases in self.phrases.values()):
            raise ValueError("PromptAdapter: nothing to choose; give at least two prefixes or two suffixes ('' stands for none)")
        self.join, self.sample = join, sample
        # A part without a choice has nothing to learn.
        self.logits = nn.ParameterDict(
            {part: nn.Parameter(torch.zeros(len(phrases))) for part, phrases in self.phrases.items() if len(phrases) > 1}
        )

    def probabilities(self) -> dict[str, dict[str, float]]:
        """How likely each phrase is: ``{"prefix": {phrase: p}, "suffix": {phrase: p}}``."""
        return {part: dict(zip(self.phrases[part], self._log_p(part).exp().tolist(), strict=True)) for part in self.phrases}

    def forward(self, text: str | list[str], rng: Rng | None = None) -> dict[str, Any]:
        """Chooses for a text, or for every text of a list."""
        texts = [text] if isinstance(text, str) else list(text)
        batch = len(texts)
        log_p = {part: self._log_p(part) for part in self.phrases}
        if self.training or self.sample:
            draws = (rng or GLOBAL_RNG).uniform((batch, 2))
            chosen = [_drawn(log_p[part], draws[:, k].contiguous()) for k, part in enumerate(self.phrases)]
        else:
            chosen = [log_p[part].argmax().expand(batch) for part in self.phrases]
        choice = torch.stack(chosen, dim=1)
        said = [self._around(each, prefix, suffix) for each, (prefix, suffix) in zip(texts, choice.tolist(), strict=True)]
        return {
            "text": said[0] if isinstance(text, str) else said,
            "log_prob": sum(log_p[part][choice[:, k]] for k, part in enumerate(self.phrases)),
            "entropy": sum(-(each.exp() * each).sum() for each in log_p.values()).expand(batch),  # type: ignore[union-attr]
            "choice": choice,
        }

    def dry(self, **inputs: Any) -> dict[str, Any]:
        """Stand-ins for the outputs, for dry runs."""
        text = inputs.get("text", "")
        batch = 1 if isinstance(text, str) else len(text)
        choice = torch.zeros(batch, 2, dtype=torch.long)
        return {"text": text, "log_prob": torch.zeros(batch), "entropy": torch.zeros(batch), "choice": choice}

    def _log_p(self, part: str) -> Tensor:
        """Log-probabilities [K] of a part's phrases."""
        if part in self.logits:
            return self.logits[part].float().log_softmax(0)
        return torch.zeros(1, device=next(self.parameters()).device)

    def _around(self, text: str, prefix: int, suffix: int) -> str:
        pieces = (self.phrases["prefix"][prefix], text, self.phrases["suffix"][suffix])
        return self.join.join(piece for piece in pieces if piece)


def _drawn(log_p: Tensor, uniform: Tensor) -> Tensor:
    """Numbers [B] drawn with the given log-probabilities [K], by where uniform draws [B] fall among their sums."""
    sums = log_p.detach().exp().cumsum(0)
    return torch.searchsorted(sums, uniform.to(sums), right=True).clamp(max=len(sums) - 1)
