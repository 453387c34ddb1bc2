"""ResponseHead: small layers after a call, trained by a loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from wgtorch.core.block import Block, register_block
from wgtorch.core.errors import PortError
from wgtorch.core.port import Port


@register_block("head/response")
class ResponseHead(Block):
    """A small network over features of an answer: of an embedding [B, D], or of a sequence [B, T, D] by its mean.

    Features that came over a network are plain numbers, so gradients begin here; those of a local model pass on to it.

    Example:
        >>> graph.add_edge("embedder.embedding", "head.features")
        >>> Trainable(graph, objective={"type": "classification", "heads": {"head.output": "label"}})

    Args:
        in_features: D.
        out_features: K; the number of labels where left out.
        labels: names of the columns.
        hidden: widths of layers between, each with GELU after it.
        dropout: after each of them, in [0, 1).
        normalise: begin with a layer norm; embeddings of providers have a length of 1, whatever D.

    Raises:
        ValueError: a width is not positive, or there are not as many labels as columns.
    """

    inputs: Mapping[str, Any] = {
        "features": Port(dtype="embedding", description="features of answers, [B, D] or a sequence [B, T, D]"),
        "attention_mask": Port(dtype="tensor", description="nonzero where a position of the sequence counts [B, T]; all do where left out"),
    }
    outputs: Mapping[str, Any] = {
        "output": Port(dtype="tensor", shape=("B", "K"), description="one number for each label"),
        "label": Port(
            dtype="text", optional=True, description="name of the largest column, or a list of them; only where columns have names"
        ),
    }

    def __init__(
        self,
        *,
        in_features: int,
        out_features: int | None = None,
        labels: Sequence[str] = (),
        hidden: Sequence[int] = (),
        dropout: float = 0.0,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        columns = len(labels) if out_features is None else out_features
        widths = [in_features, *hidden, columns]
        if min(widths) < 1:
            raise ValueError(f"ResponseHead: found widths {widths} (in_features, hidden, out_features or labels); expected at least 1 each")
        if labels and len(labels) != columns:
            raise ValueError(f"ResponseHead: found {len(labels)} labels for out_features {columns}; leave out_features out")
        if not 0 <= dropout < 1:
            raise ValueError(f"ResponseHead.dropout: found {dropout}, expected a number in [0, 1)")
        self.in_features, self.labels = in_features, tuple(labels)
        self.uses_global_rng = dropout > 0
        layers: list[nn.Module] = [nn.LayerNorm(in_features)] if normalise else []
        for inner, outer in zip(widths, hidden, strict=False):
            layers += [nn.Linear(inner, outer), nn.GELU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-2], columns))

    def forward(self, features: Tensor, attention_mask: Tensor | None = None) -> dict[str, Any]:
        """What the features tell."""
        if features.dim() not in (2, 3) or features.shape[-1] != self.in_features:
            raise PortError(
                f"{self.block_id}.features: got {list(features.shape)}; expected [B, {self.in_features}] or [B, T, {self.in_features}], "
                "as in_features says"
            )
        if features.dim() == 3:
            features = _mean(features, attention_mask)
        weight = self.layers[-1].weight
        output = self.layers(features.to(weight.dtype))  # type: ignore[arg-type]
        if not self.labels:
            return {"output": output}
        names = [self.labels[column] for column in output.detach().argmax(-1).tolist()]
        return {"output": output, "label": names[0] if len(names) == 1 else names}

    def dry(self, **inputs: Any) -> dict[str, Any]:
        """Stand-ins for the outputs, for dry runs."""
        features: Tensor = inputs["features"]
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        output = features.new_zeros(len(features), last.out_features)
        return {"output": output, "label": ""} if self.labels else {"output": output}


def _mean(sequence: Tensor, mask: Tensor | None) -> Tensor:
    """Mean [B, D] over the positions that count."""
    if mask is None:
        return sequence.mean(1)
    counts = (mask != 0).to(sequence).unsqueeze(-1)
    return (sequence * counts).sum(1) / counts.sum(1).clamp(min=1)
