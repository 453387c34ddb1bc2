"""Data and objective of the reader of typed lines: lines from a grammar, with what each word of them is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from wgtorch.blocks.simulation import wordings
from wgtorch.blocks.simulation.normalization import vocabulary
from wgtorch.blocks.simulation.readers import TrainedActionReader, key_of, tokenized
from wgtorch.core.block import Block, BlockRegistry
from wgtorch.core.errors import ConfigError
from wgtorch.train.data.base import AtLeastOne
from wgtorch.train.data.made import MadeData, MadeItems
from wgtorch.train.objective import Batch, Objective, Step
from wgtorch.train.registries import register_data, register_objective
from wgtorch.train.simulation import phrasing
from wgtorch.train.simulation.lines import line

VALIDATION = "validation"


@register_data("typed_actions")
class TypedActions(MadeData):
    """Lines as somebody might type them: `words`, and for each word `tags`, `heads`, `moods`, `starts`, as lists.

    Args:
        count: lines of an epoch; none comes twice.
        validation: lines that are held out.
        batch_size: lines of a batch.
        workers: processes that make them.
        seed: of the lines.
    """

    def __init__(
        self, *, count: AtLeastOne = 2_000_000, validation: AtLeastOne = 2000, batch_size: int = 128, workers: int = 0, seed: int = 0
    ) -> None:
        lines, held_out = TypedLines(count, seed=seed), TypedLines(validation, seed=VALIDATION)
        super().__init__(lines, held_out, batch_size=batch_size, workers=workers)

    @staticmethod
    def collate(items: list[Any]) -> Any:
        flat = {name: torch.tensor([entry for item in items for entry in item[name]]) for name in ("tags", "heads", "moods", "starts")}
        return {"words": [item["words"] for item in items], **flat}


class TypedLines(MadeItems):
    """Lines of the grammar by number."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        return line(self.rng(index))


@register_objective("action_reading")
class ActionReading(Objective):
    """Cross-entropy of what each word is: the head of a verb, of what mood, part of what, the first of a clause; for a `reader/trained` block.

    Before the first step the block's words are filled in: those that the grammar says and the most frequent ones of a language model's
    tokens, each with the model's vector. Logs `verb`, `mood` and `tags`, the shares that are right; verbs and moods at heads.

    Args:
        vectors: language model whose vectors words have; None leaves them as they are.
        hidden: share of words whose vector is left out of a step, so that letters alone are learned from too.
    """

    needs = ("words", "tags", "heads", "moods", "starts")

    def __init__(self, *, vectors: str | None = "smollm2", hidden: float = 0.12) -> None:
        super().__init__()
        self.source, self.hidden = vectors, hidden

    def check(self, target: Block) -> None:
        if not isinstance(target, TrainedActionReader) or not (target.raw or target.vectors.any()):
            raise ConfigError(
                f"objective action_reading: the target is a {type(target).__name__}; expected a block of type {TrainedActionReader.block_type!r} "
                "with vectors yet to be made smaller (raw above 0), or with a reader's own (checkpoint_ref)"
            )
        if self.source is not None and not target.vectors.any():
            fill_words(target, self.source)

    def forward(self, target: Block, batch: Batch, step: Step) -> Mapping[str, Tensor]:
        assert isinstance(target, TrainedActionReader)
        hide = step.uniform(len(batch["tags"])) < self.hidden if step is not None and step.training else None
        heads, moods, tags, starts = target.logits(batch["words"], hide=hide)
        acts = batch["heads"] > 0
        wrong = F.cross_entropy(moods[acts], batch["moods"][acts]) if acts.any() else moods.sum() * 0
        losses = [
            F.cross_entropy(heads, batch["heads"]) * 4,
            wrong,
            F.cross_entropy(tags, batch["tags"]),
            F.cross_entropy(starts, batch["starts"]),
        ]
        return {
            "loss": torch.stack(losses).sum(),
            "verb": (heads.argmax(-1) == batch["heads"])[acts].float().mean(),
            "mood": (moods.argmax(-1) == batch["moods"])[acts].float().mean(),
            "tags": (tags.argmax(-1) == batch["tags"]).float().mean(),
        }

    def samples(self, target: Block, batch: Batch, step: Step) -> Mapping[str, Any]:
        """Lines and what is read off them."""
        assert isinstance(target, TrainedActionReader)
        return {"read": [f"{' '.join(said)} -> {target.guess(' '.join(said))}" for said in batch["words"]]}


def fill_words(reader: TrainedActionReader, ref: str) -> None:
    """Gives a reader its known words with a language model's vectors, in place: a word of several tokens has their mean."""
    model: Any = BlockRegistry.build({"block_type": "llm", "config": {"backend": "local", "checkpoint_ref": ref}})
    found = next(module for module in model.modules() if isinstance(module, torch.nn.Embedding)).weight.detach().float()
    tokenizer = model.backend.tokenizer
    tokens = {
        token[1:]: at
        for token, at in sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
        if re.fullmatch("Ġ[a-z]{2,}", token)
    }
    said = {word.lower() for text in (wordings.FRAMES, phrasing.DO, phrasing.NOT, phrasing.UNREAL, phrasing.ASKS, phrasing.REMARKS, phrasing.TAILS, phrasing.FRONTS)
            for word in tokenized(text) if word[0].isalpha()}  # fmt: skip
    names = sorted(word for word in {*vocabulary()[0], *said} if " " not in word)
    names = list(dict.fromkeys([*names, *tokens]))[: len(reader.keys)]
    rows = torch.stack([found[tokenizer(f" {word}", add_special_tokens=False).input_ids].mean(dim=0) for word in names])
    rows = (rows - rows.mean(dim=0)) / rows.std()
    keys, order = torch.tensor([key_of(word) for word in names], dtype=torch.int64).sort()
    reader.keys[: len(names)], reader.vectors[: len(names)] = keys, rows[order]
