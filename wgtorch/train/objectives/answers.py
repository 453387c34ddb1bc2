"""Answers: language models, and models that say what is in a picture, learn what to say."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from wgtorch.core.block import Block
from wgtorch.core.errors import ConfigError
from wgtorch.core.level import Level
from wgtorch.graph import Graph
from wgtorch.train.learned import places_below
from wgtorch.train.objective import Batch, Objective, Step
from wgtorch.train.objectives.denoiser import check_way
from wgtorch.train.objectives.inputs import inputs_of
from wgtorch.train.registries import register_objective

_LIKELIHOOD = ("log_prob", "answer_tokens")


@register_objective("answering")
class Answering(Objective):
    """Cross-entropy of answers given what was asked, in nats per token of the model.

    For models of text that say how likely they find an answer: ``llm`` and ``vlm`` where their weights are here, whatever their
    tokens are. Where the model stands in a graph, the graph asks as it does when it runs: with the prompt it
    makes, and with the adapter that is active there.

    Example:
        >>> Trainable(chat, objective={"type": "answering", "at": "llm"})  # batches of prompt and answer
        >>> Trainable(world, objective={"type": "answering", "at": "author/tell/chat/llm"})

    Args:
        answer: key of the answers, a text for each row.
        at: path of the model below the target; None where the target is the model.
        inputs: input of the model's graph (or of the bare model) -> key of the batch, where they differ in name. The answers are
            never given as anything else.
    """

    def __init__(self, *, answer: str = "answer", at: str | None = None, inputs: dict[str, str] | None = None) -> None:
        super().__init__()
        self.answer, self.at, self.inputs = answer, at, dict(inputs or {})

    def needed(self) -> tuple[str, ...]:
        return (self.answer,)

    def check(self, target: Block) -> None:
        if self.at is None and isinstance(target, Level):
            raise ConfigError(f"answering: {target.block_id} is a {target.level}; name its model with at, as 'llm' or 'chat/llm'")
        if self.at is not None:
            check_way(target, self.at)
        model = target.find(self.at) if self.at is not None and isinstance(target, Level) else target
        if "answer" not in model.get_input_spec() or not set(_LIKELIHOOD) <= set(model.get_output_spec()):
            raise ConfigError(
                f"answering: {self.at or target.block_id} takes {list(model.get_input_spec())}; expected a model that says how likely an "
                "answer is, with the input 'answer': llm or vlm with backend local"
            )

    def forward(self, target: Block, batch: Batch, step: Step) -> Mapping[str, Tensor]:
        """``loss``; ``perplexity``: its exponential."""
        log_prob, tokens = self.likelihood(target, batch)
        loss = -log_prob.sum() / tokens.sum()
        return {"loss": loss, "perplexity": loss.detach().exp(), "count": tokens.sum()}

    def per_sample(self, target: Block, batch: Batch, step: Step) -> Tensor:
        """Cross-entropy of each answer [B], in nats per token."""
        log_prob, tokens = self.likelihood(target, batch)
        return -log_prob / tokens

    def likelihood(self, target: Block, batch: Batch) -> tuple[Tensor, Tensor]:
        """Log-probability [B] of each answer, and its length [B] in tokens."""
        place = self.place(target)
        values = self.given(place, batch)
        if isinstance(place, Graph):
            place, answer = self._likelihood_of(place)
            found = place(
                **{name: value for name, value in values.items() if name in place.get_input_spec()}, **{answer: batch[self.answer]}
            )
        else:
            found = place(**values, answer=batch[self.answer])
        return found["log_prob"], found["answer_tokens"]

    def reached(self, target: Block) -> Collection[str] | None:
        """The model, and what the graph asks it with."""
        place = self.place(target)
        if not isinstance(place, Graph):
            return None if self.at is None else {self.at}
        return places_below(str(self.at).rpartition("/")[0], self._likelihood_of(place)[0])

    def place(self, target: Block) -> Block:
        """What asks: the graph that the model stands in, or the model itself."""
        above = "" if self.at is None else self.at.rpartition("/")[0]
        return target.find(above) if above and isinstance(target, Level) else target

    def _likelihood_of(self, graph: Graph) -> tuple[Graph, str]:
        """The part of a graph that leads to the model, and its input for the answers."""
        node = str(self.at).rpartition("/")[2]
        rest = [entry.name for entry in graph.exposed_inputs if (entry.node_id, entry.port_name) != (node, "answer")]
        part = graph.select(inputs=[*rest, f"{node}.answer"], outputs=[f"{node}.{port}" for port in _LIKELIHOOD])
        return part, next(entry.name for entry in part.exposed_inputs if (entry.node_id, entry.port_name) == (node, "answer"))

    def given(self, place: Block, batch: Batch) -> dict[str, Any]:
        """The inputs beside the answer."""
        rest = {key: value for key, value in batch.items() if key != self.answer}
        found = inputs_of(place, rest, self.inputs, "answering")
        return {name: value for name, value in found.items() if name != "answer"}

    def samples(self, target: Block, batch: Batch, step: Step) -> Mapping[str, Any]:
        """What is told, beside what should be."""
        place = self.place(target)
        values = self.given(place, batch)
        if isinstance(place, Graph):
            node = str(self.at).rpartition("/")[2]
            place = place.select(outputs=[f"{node}.text"])
        told = place(**{name: value for name, value in values.items() if name in place.get_input_spec()})["text"]
        pairs = zip([told] if isinstance(told, str) else told, batch[self.answer], strict=True)
        return {"told": [text if text == answer else f"{text}\n  (wanted: {answer})" for text, answer in pairs]}
