"""A small word-level language model: learns to tell what happened as the grammar tells it. Optional; the grammar ships."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wgtorch.core.block import register_block
from wgtorch.core.errors import ConfigError
from wgtorch.core.run.rng import GLOBAL_RNG, Rng
from wgtorch.ports import ANSWER, ANSWER_TOKENS, LOG_PROB
from wgtorch.roles import LanguageModel

PAD, UNKNOWN, END = 0, 1, 2
_SPECIAL = 3


@register_block("llm/words")
class WordModel(LanguageModel):
    """Goes on with a text word by word: a causal transformer over a fixed list of words and marks.

    It knows the wording that it was trained on and nothing else; any other word is one unknown word to it.

    ::

        prompt --split, look up--> tokens --embed--> blocks of (causal attention, MLP) --> logits over words --> next word

    Args:
        words: the vocabulary, in the order of the embedding; padding (0), unknown (1) and the end (2) come before it.
        width: of the word vectors.
        depth: transformer blocks.
        heads: attention heads.
        max_length: words of prompt and answer together; of a longer prompt the end is read.
        temperature: 0 takes the likeliest word, 1 draws as the model thinks.
    """

    inputs = {"answer": ANSWER}
    outputs = {"log_prob": LOG_PROB, "answer_tokens": ANSWER_TOKENS}
    uses_global_rng = False

    def __init__(
        self,
        *,
        words: list[str],
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        max_length: int = 160,
        temperature: float = 0.0,
    ) -> None:
        super().__init__()
        if len(set(words)) != len(words) or not words:
            raise ConfigError(f"WordModel.words: found {len(words)} words, {len(set(words))} of them different; expected each once")
        if min(width, depth, heads, max_length) < 1 or width % heads:
            raise ConfigError(
                f"WordModel: width {width} must be a multiple of heads {heads}; depth {depth}, max_length {max_length} positive"
            )
        if temperature < 0:
            raise ConfigError(f"WordModel.temperature: found {temperature}, expected 0 or more")
        self.max_length, self.temperature = max_length, temperature
        self._words = list(words)
        self._index = {word: index for index, word in enumerate(words, start=_SPECIAL)}
        self.embedding = nn.Embedding(len(words) + _SPECIAL, width)
        self.position = nn.Embedding(max_length, width)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        for table in (self.embedding, self.position):
            nn.init.normal_(table.weight, std=0.02)

    def encode(self, text: str) -> list[int]:
        """Indices of the words and marks of a text."""
        return [self._index.get(word, UNKNOWN) for word in split(text)]

    def decode(self, tokens: list[int]) -> str:
        """The text of indices, up to the end: marks close up to the word before them."""
        shown = []
        for token in tokens:
            if token == END:
                break
            shown.append(self._words[token - _SPECIAL] if token >= _SPECIAL else "[unknown]")
        return re.sub(r" ([.,:])", r"\1", " ".join(shown))

    def logits(self, tokens: Tensor) -> Tensor:
        """Logits [B, L, V] of the word after each of tokens [B, L]; padding stands at the end of a row, if anywhere."""
        h = self.embedding(tokens) + self.position.weight[: tokens.shape[1]]
        for block in self.blocks:
            h = block(h)
        return F.linear(self.norm(h), self.embedding.weight)

    def rows(self, prompts: Sequence[str], answers: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokens [B, L] of prompts and answers one after the other with an end, padded; and which of them are answers.

        Raises:
            ConfigError: one of them is longer than the model reads.
        """
        rows, marks = [], []
        for prompt, answer in zip(prompts, answers, strict=True):
            before, after = self.encode(prompt), [*self.encode(answer), END]
            rows.append(torch.tensor(before + after))
            marks.append(torch.tensor([False] * len(before) + [True] * len(after)))
        longest = max(len(row) for row in rows)
        if longest > self.max_length:
            raise ConfigError(f"{self.block_id}: an answer ends at word {longest} with its prompt; max_length is {self.max_length}")
        device = self.embedding.weight.device
        tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD).to(device)
        return tokens, nn.utils.rnn.pad_sequence(marks, batch_first=True).to(device)

    def forward(self, prompt: str | list[str], answer: str | list[str] | None = None, rng: Rng | None = None) -> dict:
        """How the model goes on after a prompt, up to its end or until `max_length` is full; a list for a list.

        Given an `answer` it writes nothing: `log_prob` [B] is how likely it finds the answer, in nats, with gradients, and
        `answer_tokens` [B] its words and marks, the end among them.
        """
        if answer is not None:
            return {"text": answer, **self._likelihood(prompt, answer)}
        if isinstance(prompt, str):
            return {"text": self._complete(prompt, rng or GLOBAL_RNG, 0)}
        return {"text": [self._complete(text, rng or GLOBAL_RNG, index) for index, text in enumerate(prompt)]}

    def _likelihood(self, prompt: str | list[str], answer: str | list[str]) -> dict[str, Tensor]:
        prompts, answers = [[text] if isinstance(text, str) else text for text in (prompt, answer)]
        tokens, answered = self.rows(prompts, answers)
        found = self.logits(tokens[:, :-1]).float().log_softmax(-1).gather(-1, tokens[:, 1:, None]).squeeze(-1)
        told = answered[:, 1:]
        return {"log_prob": (found * told).sum(1), "answer_tokens": told.sum(1)}

    @torch.no_grad()
    def _complete(self, prompt: str, rng: Rng, index: int) -> str:
        room = max(1, self.max_length // 3)
        tokens = self.encode(prompt)[-(self.max_length - room) :] or [END]
        generator = rng.generator(index) if self.temperature else None
        given = len(tokens)
        while len(tokens) < self.max_length:
            row = torch.tensor([tokens], device=self.embedding.weight.device)
            scores = self.logits(row)[0, -1].float()
            scores[[PAD, UNKNOWN]] = -torch.inf
            if generator is None:
                following = int(scores.argmax())
            else:
                following = int(torch.multinomial((scores / self.temperature).softmax(-1).cpu(), 1, generator=generator))
            if following == END:
                break
            tokens.append(following)
        return self.decode(tokens[given:])


def split(text: str) -> list[str]:
    """The words and marks of a text, in order, as they are written."""
    return re.findall(r"[A-Za-z']+|[.,:]", text)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.attend = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.expand, self.contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.attend(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.contract(F.gelu(self.expand(self.norm2(x))))
