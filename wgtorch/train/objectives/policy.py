"""Policy gradient of sampling: pictures that get a higher reward become likelier (DDPO, GRPO)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.model_prediction import ModelPrediction
from wgtorch.blocks.diffusion.noise_level import NoiseLevel
from wgtorch.blocks.diffusion.schedules.grid import TimeGrid
from wgtorch.core.block import Block
from wgtorch.core.errors import ConfigError, suggest
from wgtorch.graph import Graph
from wgtorch.train.objective import Batch, Step, rows_in
from wgtorch.train.objectives.denoiser import Denoiser
from wgtorch.train.objectives.denoising import Denoising, GraphSettings
from wgtorch.train.objectives.noising import Noised, wide
from wgtorch.train.registries import RewardRegistry, register_objective

ADVANTAGES = ("group", "batch", "none")


@register_objective("ddpo")
class PolicyGradient(Denoising):
    """Denoising diffusion policy optimization (Black et al. 2023, https://arxiv.org/abs/2305.13301).

    Pictures are sampled with noise in every step, so that each step is a choice with a probability; the loss is
    -mean(A min(r, clipped r)) over some of the steps, with r the ratio of probabilities and A the reward above that of others: of the
    same prompt (``group``, GRPO: Shao et al. 2024, https://arxiv.org/abs/2402.03300; Liu et al. 2025, 2505.05470, for flows) or of
    the batch. The reward is called with the pictures and needs no derivative.

    A step from (alpha, sigma) to (alpha', sigma') is x' = alpha' x0 + sqrt(sigma'^2 - s^2) eps + s n, with the ancestral
    s = eta sigma' sqrt(1 - (alpha sigma' / (alpha' sigma))^2): DDIM's for diffusion, and a step that keeps a flow's marginals.

    Args:
        reward: a registered name, or ``{"type": name, ...}``; it sees ``image`` [B, 3, H, W] in [0, 1].
        shape: of a latent, [C, h, w].
        steps: of sampling.
        trained_steps: how many of them, drawn anew, are learned from in each batch; None all that have noise.
        samples: pictures of each prompt.
        eta: how much noise a step has, in (0, 1].
        advantage: ``group``, ``batch`` or ``none`` (the reward itself).
        clip: of the ratio, to 1 - clip and 1 + clip.
        settings: as for :class:`~.denoising.Denoising`.
    """

    def __init__(
        self,
        *,
        reward: str | dict[str, Any],
        shape: list[int],
        steps: int = 10,
        trained_steps: int | None = None,
        samples: int = 4,
        eta: float = 1.0,
        advantage: str = "group",
        clip: float = 0.2,
        **graph: Unpack[GraphSettings],
    ) -> None:
        super().__init__(**graph)
        settings = {"type": reward} if isinstance(reward, str) else dict(reward)
        self.reward = RewardRegistry.get(settings.pop("type", ""))
        self.settings = settings
        if advantage not in ADVANTAGES:
            raise ConfigError(
                f"ddpo.advantage: found {advantage!r}, expected one of {', '.join(ADVANTAGES)}; {suggest(advantage, ADVANTAGES)}"
            )
        if steps < 2 or samples < 1 or not 0 < eta <= 1 or clip <= 0 or (samples == 1 and advantage == "group"):
            raise ConfigError(
                f"ddpo: found steps {steps}, samples {samples}, eta {eta}, clip {clip}; expected at least 2 and 1 (2 for group), eta in "
                "(0, 1], clip above 0"
            )
        if trained_steps is not None and trained_steps < 1:
            raise ConfigError(f"ddpo.trained_steps: found {trained_steps}; expected at least 1, or null for all")
        self.shape, self.steps, self.trained_steps, self.samples_of_each = tuple(shape), steps, trained_steps, samples
        self.eta, self.advantage, self.clip = eta, advantage, clip

    def forward(self, target: Block, batch: Batch, step: Step) -> Mapping[str, Any]:
        """``loss``; ``reward``: its mean over the pictures."""
        denoiser = self.denoiser(target)
        conditions = {name: self._repeated(value, batch) for name, value in self.conditions(denoiser, batch, step).items()}
        count = self.samples_of_each * rows_in(batch)
        grid = self.schedule_of(denoiser).grid(self.steps)
        with torch.no_grad():
            walk = self._walk(target, denoiser, grid, conditions, count, step)
            rewards = self._rewards(denoiser, walk[-1], batch).to(walk[-1].device)
        advantages = self.advantages(rewards)
        noisy = [place for place in range(self.steps) if self._noise(grid, place) > 0]
        chosen = noisy
        if self.trained_steps is not None:
            order = torch.randperm(len(noisy), generator=step.generator, device=step.generator.device).tolist()
            chosen = [noisy[place] for place in order[: self.trained_steps]]
        losses = []
        for place in chosen:
            mean, deviation = self._step(target, denoiser, grid, place, walk[place], conditions, step)
            error = (walk[place + 1] - mean).square().flatten(1).mean(1)
            log_p = -error / (2 * deviation**2)  # of a mean over numbers, as DDPO takes it; what does not depend on the model is left out
            ratio = (log_p - log_p.detach()).exp()
            losses.append(-torch.minimum(advantages * ratio, advantages * ratio.clamp(1 - self.clip, 1 + self.clip)))
        return {"loss": torch.stack(losses).mean(), "reward": rewards.mean(), "count": count}

    def advantages(self, rewards: Tensor) -> Tensor:
        """By how much each picture's reward [B] is above that of others, in deviations."""
        if self.advantage == "none":
            return rewards
        rows = rewards.view(-1, self.samples_of_each) if self.advantage == "group" else rewards.view(1, -1)
        spread = rows.std(1, keepdim=True) if rows.shape[1] > 1 else torch.ones_like(rows)
        return ((rows - rows.mean(1, keepdim=True)) / (spread + 1e-6)).flatten()

    # --- private steps ------------------------------------------------------------------------------------------------

    def _walk(
        self, target: Block, denoiser: Denoiser, grid: TimeGrid, conditions: Mapping[str, Any], count: int, step: Step
    ) -> list[Tensor]:
        """Latents from noise to data, [count, C, h, w] each."""
        device = step.generator.device
        x = torch.randn((count, *self.shape), generator=step.generator, device=device) * grid.start_scale
        found = [x]
        for place in range(self.steps):
            mean, deviation = self._step(target, denoiser, grid, place, x, conditions, step)
            x = mean + deviation * torch.randn(x.shape, generator=step.generator, device=device) if deviation else mean
            found.append(x)
        return found

    def _noise(self, grid: TimeGrid, place: int) -> float:
        """The deviation s of a step."""
        (alpha, sigma), (next_alpha, next_sigma) = grid.levels[place], grid.targets[place]
        if not next_sigma or not sigma:
            return 0.0
        ratio = alpha * next_sigma / (next_alpha * sigma) if next_alpha else 1.0
        return self.eta * float(next_sigma) * max(0.0, 1 - float(ratio) ** 2) ** 0.5

    def _step(
        self, target: Block, denoiser: Denoiser, grid: TimeGrid, place: int, x: Tensor, conditions: Mapping[str, Any], step: Step
    ) -> tuple[Tensor, float]:
        """Mean and deviation of the next latent."""
        level, (alpha, sigma) = grid.levels[place], grid.targets[place]
        timestep = torch.full((len(x),), grid.timesteps[place], device=x.device)
        flat = torch.full((len(x),), 0.0, device=x.device)
        at = Noised(x, x, x, timestep, flat + float(level[0]), flat + float(level[1]))
        pred = self.predict(target, denoiser, at, conditions, step)
        found = ModelPrediction(self.prediction_of(denoiser), x, pred, NoiseLevel(wide(at.alpha, x), wide(at.sigma, x)))
        deviation = self._noise(grid, place)
        mean = float(alpha) * found.x0
        if left := max(0.0, float(sigma) ** 2 - deviation**2) ** 0.5:
            mean = mean + left * found.eps
        return mean, deviation

    def _rewards(self, denoiser: Denoiser, latent: Tensor, batch: Batch) -> Tensor:
        image = latent
        if isinstance(denoiser.graph, Graph):
            codec = next((block for block in denoiser.graph.nodes.values() if block.role == "codec"), None)
            if codec is not None:
                image = codec(latent=latent)["image"]
        rows = {key: self._repeated(value, batch) for key, value in batch.items()}
        rewards = torch.as_tensor(self.reward({"image": image}, rows, **self.settings)).float()
        if rewards.shape != (len(latent),):
            raise ConfigError(f"ddpo.reward: it is {list(rewards.shape)} for {len(latent)} pictures; expected one number for each")
        return rewards

    def _repeated(self, value: Any, batch: Batch) -> Any:
        """Each row so often as there are pictures of a prompt."""
        rows = rows_in(batch)
        if isinstance(value, Tensor) and value.dim() and len(value) == rows:
            return value.repeat_interleave(self.samples_of_each, dim=0)
        if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == rows:
            return [each for each in value for _ in range(self.samples_of_each)]
        return value
