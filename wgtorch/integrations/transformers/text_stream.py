"""Watching answers grow: stop texts, and handing text on as it comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

_BROKEN = "\ufffd"  # the first bytes of a character whose rest is still to come


class GrowingText:
    """The text of one answer, token by token.

    Args:
        tokenizer: of transformers.
        stop: texts that end the answer.
        tell: is given each new piece of text; pieces together are the answer.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str], tell: Callable[[str], None] | None) -> None:
        self.tokenizer = tokenizer
        self.stop = stop
        self.tell = tell
        self.text = ""
        self.told = 0
        self.stopped = False
        self._ids: list[int] = []
        self._from, self._to = 0, 0

    def add(self, token: int) -> bool:
        """Takes in a token; true when the answer ends here."""
        if self.stopped:
            return True
        self._ids.append(token)
        # A token's text depends on those before it, so two stretches are decoded that differ in the new tokens alone.
        before = self._decoded(self._ids[self._from : self._to])
        after = self._decoded(self._ids[self._from :])
        if len(after) > len(before) and not after.endswith(_BROKEN):
            self.text += after[len(before) :]
            self._from, self._to = self._to, len(self._ids)
            self._look_for_stop()
            self._pass_on(self.stopped)
        return self.stopped

    def finish(self) -> str:
        """The whole answer, the rest of it passed on."""
        if not self.stopped:
            self.text += self._decoded(self._ids[self._from :])[len(self._decoded(self._ids[self._from : self._to])) :]
            self._look_for_stop()
        self._pass_on(True)
        return self.text

    def _decoded(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) if ids else ""

    def _look_for_stop(self) -> None:
        found = [at for text in self.stop if (at := self.text.find(text)) >= 0]
        if found:
            self.text, self.stopped = self.text[: min(found)], True

    def _pass_on(self, whole: bool) -> None:
        """Tells what is new, but for an end that may turn out to be the beginning of a stop text."""
        if self.tell is None:
            return
        end = len(self.text)
        if not whole:
            end -= max((n for text in self.stop for n in range(1, len(text)) if self.text.endswith(text[:n])), default=0)
        if end > self.told:
            self.tell(self.text[self.told : end])
            self.told = end


class WatchRows:
    """A stopping criterion of transformers that feeds new tokens to the answers of a batch."""

    def __init__(self, answers: Sequence[GrowingText], ends: Sequence[int]) -> None:
        self.answers = answers
        self.ends = frozenset(ends)
        self.lengths = [0] * len(answers)
        self.ended = [False] * len(answers)

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """True for each row [B] that has ended."""
        for row, token in enumerate(input_ids[:, -1].tolist()):
            self.add(row, token)
        return torch.tensor(self.ended, device=input_ids.device)

    def add(self, row: int, token: int) -> bool:
        """Feeds a token to a row; true where it has ended."""
        if not self.ended[row]:
            self.lengths[row] += 1
            self.ended[row] = token in self.ends or self.answers[row].add(token)
        return self.ended[row]
