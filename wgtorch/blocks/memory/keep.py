"""Keeping an episode: what a world remembers of it, and what it forgets for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from wgtorch.blocks.memory.counting import counter
from wgtorch.blocks.memory.notes import LOG, Log, log_of, said
from wgtorch.blocks.memory.policies import ForgetRegistry, SummariseRegistry
from wgtorch.core.block import Block, register_block
from wgtorch.core.errors import ConfigError, PortError
from wgtorch.core.kinds import describe
from wgtorch.core.port import Port
from wgtorch.ports import CONTENT, NEW_CONTENT, OUTCOME


@register_block("memory/keep")
class Keep(Block):
    """Takes an episode into a world's content: ``chronicle`` (episodes in full), ``summary`` (of those that went), ``glossary``.

    Where no model writes the summary, what is forgotten goes into it by the ``summarise`` policy.

    Args:
        episodes: that stay in full.
        names: entries of the glossary that stay; those that were written longest ago go first.
        at_once: episodes that are forgotten together once there are more than that, and of ``names`` as large a part. With several,
            prompts keep the same beginning for as many episodes; for them the content gets a field ``records``: glossary and
            summary as they were when episodes were last forgotten, and the names that each episode since has noted.
        forget: ``oldest``, ``idle`` (those that speak of the fewest names), ``never``, or one that
            :func:`~wgtorch.blocks.memory.policies.register_forget` named.
        summarise: ``lead`` (first sentences), ``newest`` (last sentences), ``nothing``, or a registered one.
        summary_budget: most tokens of the summary that the policy writes.
        tokenizer: folder with a ``tokenizer.json`` that counts them; an estimate where left out.
    """

    inputs: Mapping[str, Any] = {
        "outcome": OUTCOME,
        "content": CONTENT,
        "records": Port(description="a model's notes: glossary (name -> description, or a list of such entries) and summary of all so far"),
    }
    outputs: Mapping[str, Any] = {"content": NEW_CONTENT}
    uses_global_rng = False

    def __init__(
        self,
        *,
        episodes: int = 12,
        names: int = 40,
        at_once: int = 1,
        forget: str = "oldest",
        summarise: str = "lead",
        summary_budget: int = 250,
        tokenizer: str | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("episodes", episodes), ("names", names), ("summary_budget", summary_budget)):
            if value < 1:
                raise ConfigError(f"memory/keep.{name}: found {value}, expected at least 1")
        if not 1 <= at_once <= episodes:
            raise ConfigError(f"memory/keep.at_once: found {at_once}, expected 1 to {episodes}, the episodes that stay in full")
        self.at_once = at_once
        self.episodes, self.names, self.summary_budget = episodes, names, summary_budget
        self.forget = ForgetRegistry.get(forget)
        self.summarise = SummariseRegistry.get(summarise)
        self.count = counter(tokenizer)

    def forward(self, outcome: str, content: Mapping[str, Any] | None = None, records: Any = None) -> dict[str, Any]:
        """The ``content`` after an episode; the one before it is not changed."""
        before, noted = dict(content or {}), self._checked(records)
        known = earlier_names = _names(before.get("glossary"), self.block_id)
        written = _names(noted.get("glossary"), self.block_id)
        known = {**{name: words for name, words in known.items() if name not in written}, **written}  # the newest at the end
        if is_over := len(known) > self.names:
            known = dict(list(known.items())[-max(1, self.names * (self.episodes + 1 - self.at_once) // self.episodes) :])
        chronicle = [*before.get("chronicle", []), outcome]
        summary = noted.get("summary")
        stay = self.episodes if len(chronicle) <= self.episodes else self.episodes + 1 - self.at_once
        gone = set(self.forget([said(entry) for entry in chronicle], stay, known))
        if not summary and gone:
            told = [said(entry) for index, entry in enumerate(chronicle) if index in gone]
            earlier = [before["summary"]] if before.get("summary") else []
            summary = self.summarise([*earlier, *told], self.summary_budget, self.count)
        after = {**before, "episodes": int(before.get("episodes", len(chronicle) - 1)) + 1}
        for name, value in (("summary", summary), ("glossary", known)):
            if value:
                after[name] = value
        after["chronicle"] = [entry for index, entry in enumerate(chronicle) if index not in gone]
        if self.at_once > 1:
            episodes = len(after["chronicle"])
            log = log_of(before) or Log(earlier_names, str(before.get("summary") or ""), ({},) * (episodes - 1))
            log = Log(known, summary or log.summary, ({},) * episodes) if gone or is_over else replace(log, noted=(*log.noted, written))
            after[LOG] = {**asdict(log), "noted": list(log.noted), "written": str(after.get("summary") or "")}
        return {"content": after}

    def _checked(self, records: Any) -> Mapping[str, Any]:
        if records is None:
            return {}
        unknown = set(records) - {"glossary", "summary"} if isinstance(records, Mapping) else {describe(records)}
        if unknown:
            raise PortError(f"{self.block_id}.records: found {sorted(map(str, unknown))[0]!r}; expected 'glossary' and 'summary' alone")
        return records


def _names(glossary: Any, where: str) -> dict[str, str]:
    if not glossary:
        return {}
    if isinstance(glossary, Mapping):
        return {str(name): said(words) for name, words in glossary.items()}
    if isinstance(glossary, (list, tuple)) and all(
        isinstance(entry, Mapping) and {"name", "description"} <= set(entry) for entry in glossary
    ):
        return {str(entry["name"]): said(entry["description"]) for entry in glossary}
    raise PortError(f"{where}.glossary: found {glossary!r:.80}; expected a mapping, or a list of {{'name': ..., 'description': ...}}")
