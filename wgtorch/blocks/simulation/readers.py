"""Readers of actions, as blocks: what a person typed in, what it names as data out."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wgtorch.blocks.simulation.action import UNKNOWN_VERB, Action
from wgtorch.blocks.simulation.ledger import shortened
from wgtorch.blocks.simulation.lexicon import words
from wgtorch.blocks.simulation.normalization import vocabulary
from wgtorch.blocks.simulation.phrases import PHRASES, VERBS
from wgtorch.blocks.simulation.reading import NEGATORS, RuleReader
from wgtorch.core.block import Block, register_block
from wgtorch.core.port import Port
from wgtorch.ports import ACTIONS

LONGEST = 2000
"""Characters of an action that are read."""
TAGS = ("other", "verb", "target", "place", "receiver", "manner")
"""What a word of an action is part of."""
ALIKE = 0.8
"""Likeness of spelling, from which a word may be a verb's."""
_IRREVOCABLE = frozenset(("harm", "destroy", "burn", "steal"))  # what nobody does by a guess


@register_block("reader/rules")
class RuleActionReader(Block):
    """Reads what a person typed by rules alone: ``{"": "go north"}`` is the traveller's, ``{"Anna": ...}`` is Anna's.

    >>> RuleActionReader()(action="go to the sea")["actions"][""][0]["verb"]
    'go'
    """

    inputs = {"action": Port(description="what was typed: a line for the traveller, or a mapping of lines by who acts")}
    outputs = {"actions": ACTIONS}
    uses_global_rng = False

    def __init__(self) -> None:
        super().__init__()
        self.rules = RuleReader()

    def read(self, text: str) -> list[Action]:
        """The actions that a line names, in order; at least one."""
        return self.rules.read(text)

    def forward(self, action: Any = None) -> dict[str, Any]:
        """``actions``: by name of who acts (empty for the traveller), what each line names, clause by clause."""
        given = action if isinstance(action, Mapping) else {"": action}
        found = {}
        for who, said in given.items():
            text = shortened(" ".join(str("" if said is None else said).encode("utf-8", "replace").decode().split()), LONGEST)
            if text:
                found[str(who)] = [entry.to_data() for entry in self.read(text)]
        return {"actions": found}


@register_block("reader/trained")
class TrainedActionReader(RuleActionReader):
    """Reads what a person typed by rules, and where no rule knows the verb by a small network: misspelled, bent, in another order.

    ::

        words -> hashed letter n-grams --mean--> word vectors -> convolutions over words -> tag of each word
                                                                       |--attention--> verb, negated, polite

    The network is asked where the rules find no verb. It says which word is the verb, how likely each verb is, what the other words
    are, and whether they are negated; a verb is taken only where the word is spelled like one of its own, so that no word that
    nobody knows is made an act. What neither knows stays ``unknown``.
    Word vectors of n-grams are those of fastText (Bojanowski et al. 2017, https://arxiv.org/abs/1607.04606).

    Args:
        buckets: n-grams that are told apart.
        width: of the word vectors.
        depth: convolutions over words, each of which sees five.
        sure: probability of ``unknown`` from which the network's reading is not taken, 0 to 1.
    """

    uses_global_rng = False

    def __init__(self, *, buckets: int = 8192, width: int = 96, depth: int = 3, sure: float = 0.9) -> None:
        super().__init__()
        if min(buckets, width, depth) < 1 or not 0 <= sure <= 1:
            raise ValueError(
                f"TrainedActionReader: found buckets {buckets}, width {width}, depth {depth}, sure {sure}; "
                "expected positive sizes, and a share from 0 to 1"
            )
        self.buckets, self.sure = buckets, sure
        self.grams = nn.EmbeddingBag(buckets, width, mode="mean")
        self.convolutions = nn.ModuleList(nn.Conv1d(width, width, 5, padding=2) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.attention = nn.Linear(width, 1)
        self.verb, self.flags, self.tags = nn.Linear(2 * width, len(VERBS)), nn.Linear(2 * width, 2), nn.Linear(width, len(TAGS))
        nn.init.normal_(self.grams.weight, std=0.1)

    def logits(self, texts: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of texts as words: verb [B, verbs], flags [B, 2] (negated, polite), tags [B, L, tags], and which words are there [B, L]."""
        longest = max(1, *map(len, texts))
        rows = [grams(word, self.buckets) for text in texts for word in [*text, *[""] * (longest - len(text))]]
        device = self.verb.weight.device
        offsets = torch.tensor([0, *map(len, rows[:-1])], device=device).cumsum(0)
        flat = torch.tensor([gram for row in rows for gram in row], device=device)
        h = self.grams(flat, offsets).view(len(texts), longest, -1)  # [B, L, width]
        there = torch.tensor([[k < len(text) for k in range(longest)] for text in texts], device=device).unsqueeze(-1)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            h = h + F.gelu(convolution((norm(h) * there).mT).mT)
        scores = self.attention(h).masked_fill(~there, -1e4).softmax(dim=1)  # [B, L, 1]
        pooled = torch.cat([(scores * h).sum(dim=1), h.masked_fill(~there, -1e4).amax(dim=1).clamp(min=-10)], dim=-1)
        return self.verb(pooled), self.flags(pooled), self.tags(h), there.squeeze(-1)

    def read(self, text: str) -> list[Action]:
        """The rules' reading, or the network's where they find no verb."""
        found = self.rules.read(text)
        if len(found) != 1 or found[0].verb != UNKNOWN_VERB or found[0].manner is not None:
            return found
        guess = self.guess(text)
        return [guess] if guess is not None else found

    @torch.no_grad()
    def guess(self, text: str) -> Action | None:
        """What the network takes a line for; None where it is not sure."""
        tokens = words(re.sub(r"<[^<>]{0,200}>", " ", text))[:32]
        if not tokens:
            return None
        logits, flags, tags, _ = self.logits([tokens])
        probabilities = dict(zip(VERBS, logits.softmax(dim=-1)[0].tolist(), strict=True))
        tagged = tags[0].argmax(dim=-1).tolist()
        acting = [word for word, tag in zip(tokens, tagged, strict=True) if TAGS[tag] == "verb"] or tokens[:1]
        if acting[0] in vocabulary()[0] and not any(phrase.startswith(acting[0]) for phrase in PHRASES):
            return None  # a word that is meant as it is, and is no verb
        likeness = _likeness(acting[0], frozenset(tokens))
        scores = {verb: like + probabilities[verb] / 2 for verb, like in likeness.items() if like >= ALIKE and verb not in _IRREVOCABLE}
        if probabilities[UNKNOWN_VERB] >= self.sure or not scores:
            return None
        verb = max(scores, key=lambda name: scores[name])
        parts: dict[str, list[str]] = {}
        for word, tag in zip(tokens, tagged, strict=True):
            parts.setdefault(TAGS[tag], []).append(word)
        said = {name: " ".join(parts[name]) if name in parts else None for name in ("target", "place", "receiver", "manner")}
        negated, polite = (flags.sigmoid()[0] > 0.5).tolist()
        return Action(verb, negated=negated and not NEGATORS.isdisjoint(tokens), polite=polite, words=text, **said)  # type: ignore[arg-type]


@lru_cache(maxsize=4096)
def _likeness(word: str, line: frozenset[str]) -> Mapping[str, float]:
    """By verb, how much a word is spelled like the first word of one of its phrases whose other words the line has, 0 to 1."""
    found: dict[str, float] = {}
    for phrase, verb in PHRASES.items():
        first, *others = phrase.split()
        if abs(len(first) - len(word)) <= 2 and len(first) > 2 and first[0] == word[0] and verb in VERBS and line.issuperset(others):
            found[verb] = max(found.get(verb, 0.0), SequenceMatcher(None, word, first).ratio())
    return found


def grams(word: str, buckets: int) -> list[int]:
    """Numbers of a word's n-grams of 2 to 4 letters, and of the word itself; the same in every process."""
    spelled = f"<{word}>"
    found = [spelled[at : at + size] for size in (2, 3, 4) for at in range(len(spelled) - size + 1)]
    return [zlib.crc32(gram.encode()) % buckets for gram in (spelled, *found)]
