"""Readers of actions, as blocks: what a person typed in, what it names as data out."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wgtorch.blocks.simulation import lexicon
from wgtorch.blocks.simulation.action import IMPOSSIBLE_VERB, UNKNOWN_VERB, Action
from wgtorch.blocks.simulation.cast import NAMES
from wgtorch.blocks.simulation.leads import NO
from wgtorch.blocks.simulation.ledger import shortened
from wgtorch.blocks.simulation.lexicon import DETERMINERS, words
from wgtorch.blocks.simulation.normalization import normalized
from wgtorch.blocks.simulation.phrases import PREPOSITIONS, VERBS
from wgtorch.blocks.simulation.reading import THOUGHT, RuleReader, without_markup
from wgtorch.core.block import Block, register_block
from wgtorch.core.errors import PortTypeError
from wgtorch.core.kinds import describe
from wgtorch.core.port import Port
from wgtorch.ports import ACTIONS

LONGEST = 2000
"""Characters of an action that are read."""
LONGEST_NAME = 80
"""Characters of the name of who acts."""
TAGS = ("other", "verb", "target", "place", "receiver", "manner")
"""What a word of an action is part of."""
SURER = 0.85
"""Probability from which the network's reading is taken where the rules find another act."""
SUREST = 0.95
"""Probability from which the network is followed where the rules find another act."""
DOUBTED = 0.7
"""Probability from which what the network takes for no act, or for the reverse, is not done; and from which
it is followed where what the rules read makes no sense."""
DOUBTFUL = "nobody can tell whether that is to be done, or only thought of"
MOODS = ("do", "not", "unreal", "later")
"""Whether an act is to be done, not to be done, only thought of, or done after the one behind it."""
_TOKEN = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*|[.,!?;:“”\"*()-]")
_UNSEEN = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_KNOWN_NAMES = frozenset(map(str.lower, NAMES))


def seen(said: Any) -> str:
    """What is seen of what was typed, on one line: no codes of terminals, no characters that only turn or hide others."""
    return " ".join(_UNSEEN.sub(" ", str(said).encode("utf-8", "replace").decode()).split())


def tokenized(text: str) -> list[str]:
    """The words and marks of a line, as they are written."""
    return _TOKEN.findall(text)


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
            if said is not None and not isinstance(said, (str, int, float)):
                raise PortTypeError(f"{self.block_id}.action: got {describe(action)}; expected a line, or a mapping of lines by who acts")
            if text := shortened(seen("" if said is None else said), LONGEST):
                found[shortened(seen(who), LONGEST_NAME)] = [entry.to_data() for entry in self.read(text)]
        return {"actions": found}


@register_block("reader/trained")
class TrainedActionReader(RuleActionReader):
    """Reads what a person typed by a small network over the words of the line, with rules that check it.

    ::

        words -> vectors of known words + hashed letter n-grams -> two-way recurrent layers -> of each word: the verb that it is the
                 head of, the mood of that, what part it is, whether a clause begins

    Vectors of known words are a language model's, made smaller, and stay as they are, so that words which training never showed mean
    what their like mean. N-grams are those of fastText (Bojanowski et al. 2017, https://arxiv.org/abs/1607.04606).

    Args:
        words: known words, of which the vectors are kept.
        size: of their vectors.
        raw: size of the vectors that they are made from, by a layer that is trained; 0 once they are made.
        ngrams: n-grams that are told apart.
        width: of the layers, each way.
        layers: recurrent layers.
        sure: probability from which the network is followed where the rules find no act, 0 to 1.
        buckets, depth: sizes of the reader that worlds were saved with before this one; they say nothing any more.
    """

    uses_global_rng = False
    keys: Tensor
    vectors: Tensor

    def __init__(
        self,
        *,
        words: int = 12000,
        size: int = 96,
        raw: int = 0,
        ngrams: int = 4096,
        width: int = 96,
        layers: int = 2,
        sure: float = 0.5,
        buckets: int | None = None,
        depth: int | None = None,
    ) -> None:
        super().__init__()
        if min(words, size, ngrams, width, layers) < 1 or not 0 <= sure <= 1:
            raise ValueError(
                f"TrainedActionReader: found words {words}, size {size}, ngrams {ngrams}, width {width}, layers {layers}, sure {sure}; "
                "expected positive sizes, and a share from 0 to 1"
            )
        self.ngrams, self.raw, self.sure = ngrams, raw, sure
        self.register_buffer("keys", torch.full((words,), _NO_KEY, dtype=torch.int64))  # sorted
        self.register_buffer("vectors", torch.zeros(words, raw or size))
        self.narrow = nn.Linear(raw, size, bias=False) if raw else nn.Identity()
        self.grams = nn.EmbeddingBag(ngrams, _LETTERS, mode="mean")
        self.inward = nn.Linear(size + _LETTERS + 4, width)
        self.layers = nn.GRU(width, width, num_layers=layers, batch_first=True, bidirectional=True)
        self.heads, self.moods = nn.Linear(2 * width, 1 + len(VERBS)), nn.Linear(2 * width, len(MOODS))
        self.tags, self.starts = nn.Linear(2 * width, len(TAGS)), nn.Linear(2 * width, 2)
        nn.init.normal_(self.grams.weight, std=0.1)

    def made_small(self) -> TrainedActionReader:
        """The same reader with its words' vectors made: what ships."""
        small = TrainedActionReader(
            **{key: value for key, value in self.config.items() if key not in ("checkpoint_ref", "buckets", "depth")} | {"raw": 0}
        )
        small.load_state_dict(
            {
                name: self.narrow(value) if name == "vectors" else value
                for name, value in self.state_dict().items()
                if name != "narrow.weight"
            }
        )
        return small

    def knows(self, texts: Sequence[str]) -> Tensor:
        """Of words in lower case, the number of each one's vector [N]; -1 where there is none."""
        wanted = torch.tensor([key_of(word) for word in texts], dtype=torch.int64, device=self.keys.device)
        at = torch.searchsorted(self.keys, wanted).clamp(max=len(self.keys) - 1)
        return torch.where(self.keys[at] == wanted, at, -1)

    def logits(self, texts: Sequence[Sequence[str]], *, hide: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of texts as words: heads [N, 1 + verbs], moods [N, moods], tags [N, tags], starts [N, 2], of all their N words one after another.

        Args:
            texts: words of each text, as they are written; at least one each.
            hide: words whose vectors are left out [N], as training does.
        """
        device, flat = self.vectors.device, [word.lower() for text in texts for word in text]
        known = self.knows(flat)
        there = (known >= 0) if hide is None else (known >= 0) & ~hide
        rows = [grams(word, self.ngrams) for word in flat]
        offsets = torch.tensor([0, *map(len, rows[:-1])], device=device).cumsum(0)
        letters = self.grams(torch.tensor([gram for row in rows for gram in row], device=device), offsets)
        marks = torch.tensor(
            [
                [word.lower() in _KNOWN_NAMES, at > 0 and word[:1].isupper(), not word[:1].isalnum()]
                for text in texts
                for at, word in enumerate(text)
            ],
            dtype=letters.dtype,
            device=device,
        )
        h = torch.cat(
            [self.narrow(self.vectors[known.clamp(min=0)]) * there.unsqueeze(-1), letters, marks, there.unsqueeze(-1).to(letters.dtype)],
            dim=-1,
        )
        lengths = [len(text) for text in texts]
        there = torch.arange(max(lengths), device=device) < torch.tensor(lengths, device=device).unsqueeze(-1)  # [texts, longest]
        inward = h.new_zeros(*there.shape, self.layers.input_size).masked_scatter(there.unsqueeze(-1), F.gelu(self.inward(h)))
        packed = nn.utils.rnn.pack_padded_sequence(inward, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
        out = nn.utils.rnn.pad_packed_sequence(self.layers(packed)[0], batch_first=True)[0][there]  # [N, 2 width]
        return self.heads(out), self.moods(out), self.tags(out), self.starts(out)

    def read(self, text: str) -> list[Action]:
        """The network's reading where it is sure and the rules do not forbid it; the rules' otherwise."""
        return agreed(self.rules.read(text), self.guess(text), text, self.sure)

    @torch.no_grad()
    def guess(self, text: str) -> tuple[list[Action], float]:
        """What the network takes a line for, and how sure it is, 0 to 1; no action where it finds none."""
        tokens = tokenized(normalized(without_markup(text)))[:48]
        if not tokens:
            return [], 0.0
        heads, moods, tags, starts = (logits.softmax(dim=-1) for logits in self.logits([tokens]))
        return decoded(tokens, heads, moods, tags, starts)


def decoded(tokens: list[str], heads: Tensor, moods: Tensor, tags: Tensor, starts: Tensor) -> tuple[list[Action], float]:
    """Actions from what each word is taken for, and the least probability among those that they hang on."""
    verbs, chances = heads.argmax(dim=-1).tolist(), heads.amax(dim=-1).tolist()
    begins = starts[:, 1].tolist()
    found: list[int] = []
    for at in (at for at, verb in enumerate(verbs) if verb):
        if found and max(begins[found[-1] + 1 : at + 1]) < 0.3 and verbs[at] == verbs[found[-1]]:
            continue
        found.append(at)
    if not found:
        return [], min(chances)
    edges = [0, *(max(range(last + 1, at + 1), key=lambda k: begins[k]) for last, at in pairwise(found)), len(tokens)]
    told = [MOODS[mood] for mood in moods.argmax(dim=-1).tolist()]
    parts = [TAGS[tag] for tag in tags.argmax(dim=-1).tolist()]
    read = [
        (_action(VERBS[verbs[at] - 1], told[at], tokens[start:end], parts[start:end]), told[at])
        for at, start, end in zip(found, edges[:-1], edges[1:], strict=True)
    ]
    sure = min(chances[at] * moods[at].max().item() for at in found)
    real = [action for action, mood in read if mood in ("do", "not")] + [action for action, mood in read if mood == "later"]
    return [action for action in real if action.verb != "remark"] or real[:1] or [Action("remark", manner=THOUGHT)], sure


def _action(verb: str, mood: str, tokens: list[str], parts: list[str]) -> Action:
    said: dict[str, str] = {}
    for name in ("target", "place", "receiver", "manner"):
        at = next((k for k, part in enumerate(parts) if part == name), None)
        if at is not None:
            end = next((k for k in range(at, len(parts)) if parts[k] != name), len(parts))
            said[name] = " ".join(tokens[at:end]).lower()
    if "manner" in said:
        said["manner"] = lexicon.DIRECTIONS.get(said["manner"], said["manner"])
    return Action(verb, negated=mood == "not" and verb not in _NO_ACTS, **said)  # type: ignore[arg-type]


def agreed(rules: list[Action], guess: tuple[list[Action], float], text: str, sure: float) -> list[Action]:
    """The reading that is taken of two: the rules', or the network's where it is sure and they find no act, or surer still and they do.

    Where one of them takes for an act what the other takes for denied, for no more than thought of or for a question, nobody knows whether
    it is meant: it is not done, and that is said.
    """
    found, chance = guess
    said = words(normalized(text))
    if (
        not found
        or rules[0].verb == IMPOSSIBLE_VERB
        or (rules[0].manner is not None and rules[0].verb in (UNKNOWN_VERB, "remark") and (chance < SURER or not _IFS.isdisjoint(said)))
        or (rules[0].manner == THOUGHT and _acts(found))
        or (rules[0].verb == "talk" and (rules[0].manner or "").startswith("to "))  # what somebody else is told to do
    ):
        return rules
    done, acted = _acts(rules), _acts(found)
    if [(action.verb, action.negated) for action in rules] == [(action.verb, action.negated) for action in found]:
        return [_merged(*both) for both in zip(rules, found, strict=True)]
    is_led = any(action.verb not in _NO_ACTS for action in rules)
    if (
        acted
        and any(map(_is_strained, rules))
        and not any(map(_is_strained, found))
        and chance >= DOUBTED
        and not acted & (_denied(rules) | _IRREVOCABLE - done)
    ):
        return [replace(action, words="" if at else text) for at, action in enumerate(found)]
    if (
        done - _HARMLESS
        and len(said) > 3
        and (not acted or acted & (_denied(rules) - done) or done & (_denied(found) - acted))
        and chance >= (DOUBTED if done & _IRREVOCABLE else SURER)
    ):
        is_told = chance >= SURER and found[0].verb in _NO_ACTS
        return [replace(found[0], words=text)] if is_told else [Action(UNKNOWN_VERB, manner=DOUBTFUL, words=text)]
    if acted & _denied(rules) - done - _denied(found) and chance >= SUREST and sum(word in NO for word in said) != 1:
        return [Action(UNKNOWN_VERB, manner=DOUBTFUL, words=text)]
    if all(action.verb in _NO_ACTS for action in found):
        is_denied = bool(_denied(rules)) and not NO.isdisjoint(said)
        is_told = not (done or is_denied) and (chance >= SURER or (not is_led and rules[0].verb == UNKNOWN_VERB and chance >= sure))
        return [replace(found[0], words=text)] if is_told and len(said) > 3 else rules
    if is_led and (rules[0].verb == "again" or not (done or acted) or len(found) < len(rules) or chance < SUREST):
        return rules
    if (len(said) < 3 or acted & _IRREVOCABLE - done) and chance < SURER:
        return rules
    is_asked = rules[0].verb == "ask"
    if not is_led and (chance < (SURER if is_asked else sure if acted else DOUBTED) or (is_asked and text.rstrip().endswith("?"))):
        return rules
    if bool(_denied(found)) is not (bool(_denied(rules)) if is_led else not NO.isdisjoint(said)):
        return rules
    polite = any(action.polite for action in rules)
    return [replace(action, polite=polite, words="" if at else text) for at, action in enumerate(found)]


_IRREVOCABLE = frozenset(("harm", "destroy", "burn", "steal"))  # what nobody does by a guess
_NO_ACTS = frozenset((UNKNOWN_VERB, "remark", "ask"))
_NOT_TO_DO = frozenset(("avoid", "refrain"))
_IFS = frozenset(["if", "unless", "provided", "whenever", "suppose", "supposing", "assuming", "should", "case"])
_FREE = _NO_ACTS | {"wish", "refrain", "pray", "talk", "avoid"}  # what they are about may be anything
_NEVER_FIRST = PREPOSITIONS | frozenset(
    ("back", "away", "out", "as", "not", "so", "short", "again", "and", "if", "that", "than", "i", "me", "myself")
)
_NEVER_INSIDE = frozenset(("and", "not", "until", "because", "but"))
_BODY = frozenset(
    (
        *("head", "heads", "nose", "foot", "feet", "finger", "fingers", "eye", "eyes", "ear", "ears", "tongue", "mouth", "lips"),
        *("arms", "leg", "legs", "knees", "shoulder", "shoulders", "heels", "mind"),
    )
)
_BODILY = frozenset(("feel", "look", "use", "open", "harm", "lock"))
_HARMLESS = frozenset(("talk", "ask", "remark", "feel", "wish", "pray", "look", "stay", "wait", "rest", UNKNOWN_VERB))


def _is_strained(action: Action) -> bool:
    """Whether an act is about what can be no thing or person: ``build my feet``, ``stay short of killing the wolf``."""
    said = words(action.target or "")
    if action.verb in _FREE or not said:
        return False
    if action.verb == "again":
        return True
    begin = said[1] if said[0] in DETERMINERS and len(said) > 1 else said[0]
    return begin in _NEVER_FIRST or not _NEVER_INSIDE.isdisjoint(said[1:]) or (said[-1] in _BODY and action.verb not in _BODILY)


def _acts(actions: list[Action]) -> set[str]:
    return {action.verb for action in actions if not action.negated} - _NO_ACTS - _NOT_TO_DO


def _denied(actions: list[Action]) -> set[str]:
    return {action.verb for action in actions if action.negated} | ({action.verb for action in actions} & _NOT_TO_DO)


def _merged(rules: Action, found: Action) -> Action:
    return replace(found, **{name: value for name, value in rules.to_data().items() if value is not None})


_NO_KEY, _LETTERS = 2**62, 32


@lru_cache(maxsize=16384)
def key_of(word: str) -> int:
    """A word's number; the same in every process."""
    return zlib.crc32(word.encode()) | (zlib.adler32(word.encode()) & 0xFFFF) << 32


@lru_cache(maxsize=16384)
def grams(word: str, buckets: int) -> list[int]:
    """Numbers of a word's n-grams of 2 to 4 letters, and of the word itself; the same in every process."""
    spelled = f"<{word}>"
    found = [spelled[at : at + size] for size in (2, 3, 4) for at in range(len(spelled) - size + 1)]
    return [zlib.crc32(gram.encode()) % buckets for gram in (spelled, *found)]
