"""Reward: what should be high, by a derivative where there is one, else by a score-function estimator."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.block import Block
from wgtorch.core.composite import Composite
from wgtorch.core.errors import ConfigError
from wgtorch.stage import Stage
from wgtorch.train.learned import places_needed
from wgtorch.train.objective import Batch, Objective, Step
from wgtorch.train.objectives.inputs import inputs_of
from wgtorch.train.objectives.world_state import look_into
from wgtorch.train.recording import ActivationRecorder, forward_outputs
from wgtorch.train.registries import RewardRegistry, check_settings, register_objective, register_reward
from wgtorch.world import World
from wgtorch.world_runtime.cycle import one_pass
from wgtorch.world_runtime.state import State

BASELINES = ("running", "leave_one_out", "none")


@register_reward("brightness")
def brightness(values: Mapping[str, Any], batch: Batch, *, of: str = "image") -> Tensor:
    """Mean of a value [B, ...] for each sample: the plainest reward with a derivative, for trying things out."""
    return values[of].float().flatten(1).mean(1)


@register_reward("label_likelihood")
def label_likelihood(
    values: Mapping[str, Any], batch: Batch, *, of: str, label: str = "label", text: str | None = None, names: list[str] | None = None
) -> Tensor:
    """Log-likelihood [B], in (-inf, 0], of each sample's label by the logits ``of`` [B, K], which trains the layers that made them.

    With ``text``, a text for each sample, and the ``names`` of the K labels, 1 more where the text holds its label's name: what stands
    before a call over a network learns from that number.
    """
    likely = values[of].float().log_softmax(-1).gather(1, batch[label].view(-1, 1)).squeeze(1)
    if text is None or names is None:
        return likely
    told = [names[int(number)].lower() in said.lower() for said, number in zip(values[text], batch[label], strict=True)]
    return likely + torch.tensor(told, dtype=likely.dtype, device=likely.device)


@register_objective("reward")
class Reward(Objective):
    """Makes a registered reward [B] high.

    Without ``log_prob`` the reward is differentiated: loss = -mean(R). With it, the reward is a number that no derivative leads
    to - it came over a network, say - and the blocks that chose something tell the log-probability of their choice (Williams
    1992, REINFORCE): loss = -mean((R - b) log p). The baseline b takes variance away and adds no bias. Where such a reward has a
    derivative too, as that of layers after the call, both count: loss = -mean(R + (stopped(R) - b) log p) (Schulman et al. 2015,
    https://arxiv.org/abs/1506.05254).

    Args:
        reward: a registered name, or ``{"type": name, ...}``.
        outputs: outputs, ports by path, or slots of a world's State, that the reward looks at.
        log_prob: ports by path with log-probabilities [B], which are added up.
        inputs: input -> key of the batch, where they differ in name; for a world, slot -> key, and ``action``.
        baseline: ``running`` (mean of past rewards), ``leave_one_out`` (mean of the other samples of the batch: Kool et al. 2019) or
            ``none``.
        momentum: of the running mean, in [0, 1).
        entropy: port by path with an entropy [B], and
        entropy_weight: what it adds to the reward, so that choices stay open.
    """

    baseline_value: Tensor
    baseline_steps: Tensor

    def __init__(
        self,
        *,
        reward: str | dict[str, Any],
        outputs: list[str],
        log_prob: list[str] | None = None,
        inputs: dict[str, str] | None = None,
        baseline: str = "running",
        momentum: float = 0.9,
        entropy: str | None = None,
        entropy_weight: float = 0.0,
    ) -> None:
        super().__init__()
        settings = {"type": reward} if isinstance(reward, str) else dict(reward)
        self.reward, self.settings = RewardRegistry.get(settings.pop("type", "")), settings
        check_settings(self.reward, settings, "reward", ("values", "batch"))
        if baseline not in BASELINES or not 0 <= momentum < 1:
            raise ConfigError(f"reward: found baseline {baseline!r} and momentum {momentum}; expected one of {BASELINES} and [0, 1)")
        self.outputs, self.log_prob, self.inputs = list(outputs), list(log_prob or []), dict(inputs or {})
        self.baseline, self.momentum = baseline, momentum
        self.entropy, self.entropy_weight = entropy, entropy_weight
        self.register_buffer("baseline_value", torch.zeros(()))
        self.register_buffer("baseline_steps", torch.zeros((), dtype=torch.long))

    def forward(self, target: Block, batch: Batch, step: Step) -> Mapping[str, Tensor]:
        """``loss``; ``reward``: its mean."""
        also = [*self.log_prob, *([self.entropy] if self.entropy else [])]
        values = self.values(target, batch, [*self.outputs, *also])
        rewards = torch.as_tensor(self.reward(values, batch, **self.settings)).float()
        if rewards.dim() != 1:
            raise ConfigError(f"reward: it is {list(rewards.shape)}; expected one number for each sample, [B]")
        if not self.log_prob:
            loss = -rewards.mean()
        else:
            fixed = rewards.detach()
            log_p = torch.stack([values[port].float().reshape(-1) for port in self.log_prob]).sum(0)
            if log_p.shape != fixed.shape:
                raise ConfigError(f"reward: {len(log_p)} log-probabilities for {len(fixed)} rewards; expected one for each sample")
            loss = -((fixed - self._baseline(fixed).to(fixed)) * log_p).mean()
            if rewards.requires_grad:
                loss = loss - (rewards - fixed).mean()  # nothing but its derivative
            if step.training:
                self._follow(fixed)
        if self.entropy is not None:
            loss = loss - self.entropy_weight * values[self.entropy].float().mean()
        return {"loss": loss, "reward": rewards.detach().mean()}

    def reached(self, target: Block) -> Collection[str] | None:
        return places_needed(target, [*self.outputs, *self.log_prob, *([self.entropy] if self.entropy else [])])

    def samples(self, target: Block, batch: Batch, step: Step) -> Mapping[str, Any]:
        """What the reward looks at, of graphs and pipelines: pictures and texts."""
        if isinstance(target, Stage) or not isinstance(target, Composite):
            return {}
        seed = step.generator.initial_seed() % 2**31
        found = target.run(inputs_of(target, batch, self.inputs, "reward"), outputs=self.outputs, seed=seed)
        values = {name.rpartition(".")[2]: [value] if isinstance(value, str) else value for name, value in found.items()}
        return {name: value for name, value in values.items() if _is_shown(value)}

    def values(self, target: Block, batch: Batch, names: list[str]) -> dict[str, Any]:
        """Values of one run by name, whatever the level."""
        if not isinstance(target, (World, Stage)):
            return forward_outputs(target, inputs_of(target, batch, self.inputs, "reward"), names)
        slots = [name for name in names if name.split(".")[0] in (target.state_schema if isinstance(target, World) else State().schema)]
        watch = ActivationRecorder(target.block_id, [name for name in names if name not in slots])
        run, given = watch.run(target.block_id), {name: batch[key] for name, key in self.inputs.items()}
        action = given.pop("action", None)
        if isinstance(target, World):
            state, _ = one_pass(target, State(schema=target.state_schema, **given), action, target.content, run)
        else:
            state = target(State(**given), action=action, content={}, run_context=run)
        found = {name: look_into(state, name) for name in slots}
        for name, seen in watch.values.items():
            if not seen:
                raise ConfigError(f"reward: {name} had no value in this run: its node was skipped, or it has no such port")
            found[name] = seen[-1]
        return found

    def _baseline(self, rewards: Tensor) -> Tensor:
        if self.baseline == "running" and int(self.baseline_steps):
            return self.baseline_value
        if self.baseline != "none" and len(rewards) > 1:  # a running mean has nothing to begin with
            return (rewards.sum() - rewards) / (len(rewards) - 1)
        return rewards.new_zeros(())

    @torch.no_grad()
    def _follow(self, rewards: Tensor) -> None:
        keep = self.momentum if int(self.baseline_steps) else 0.0
        self.baseline_value.mul_(keep).add_(rewards.mean().to(self.baseline_value), alpha=1 - keep)
        self.baseline_steps += 1


def _is_shown(value: Any) -> bool:
    """True for pictures [B, 3, H, W] and lists of texts."""
    is_picture = isinstance(value, Tensor) and value.dim() == 4 and value.shape[1] == 3
    return is_picture or (isinstance(value, list) and all(isinstance(each, str) for each in value))
