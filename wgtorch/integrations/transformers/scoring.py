"""How likely a model of transformers finds an answer: what it trains on, with gradients."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def score(model: Any, inputs: Mapping[str, Tensor], answers: Sequence[Sequence[int]], *, padding: int) -> tuple[Tensor, Tensor]:
    """Log-probability of an answer after each prompt.

    ::

        pad pad prompt prompt | answer answer end pad
                       ^------v ^----v ^----v          logits at a token are for the next one

    Args:
        model: of transformers, with logits [B, L, V].
        inputs: of the prompts: ``input_ids`` [B, P], padded on the left, ``attention_mask`` [B, P], and what else the model reads.
        answers: ids of each answer with its end, at least one.
        padding: id that fills rows.

    Returns:
        Log-probabilities [B] in nats, summed over the answer's tokens, and how many there are, [B].
    """
    ids, longest = inputs["input_ids"], max(len(row) for row in answers)
    rows = torch.tensor([[*row, *[padding] * (longest - len(row))] for row in answers], device=ids.device)
    told = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in answers], device=ids.device)
    whole = {name: value if value.shape != ids.shape else F.pad(value, (0, longest)) for name, value in inputs.items()}
    whole["input_ids"] = torch.cat([ids, rows], dim=1)
    whole["attention_mask"] = torch.cat([inputs["attention_mask"], told], dim=1)
    known = inspect.signature(model.forward).parameters
    if "position_ids" in known and set(whole) == {"input_ids", "attention_mask"}:  # models of pictures count in their own way
        whole["position_ids"] = (whole["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    logits_option = {"logits_to_keep": longest + 1} if "logits_to_keep" in known else {}
    logits: Tensor = model(**whole, **logits_option, use_cache=False).logits[:, -longest - 1 : -1].float()
    found = logits.log_softmax(-1).gather(-1, rows.unsqueeze(-1)).squeeze(-1)
    return (found * told).sum(1), told.sum(1)
