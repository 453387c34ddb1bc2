"""Denoising: one noised step of a diffusion or flow model."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from typing import Any, TypedDict

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.schedules import GridSchedule, build_schedule
from wgtorch.core.block import Block
from wgtorch.core.errors import ConfigError, suggest
from wgtorch.core.level import Level
from wgtorch.core.tree import levels, walk
from wgtorch.graph import Graph
from wgtorch.train.learned import places_below
from wgtorch.train.objective import Batch, Objective, Step
from wgtorch.train.objectives.denoiser import (
    EMBEDDINGS,
    Denoiser,
    adapters_on_the_way,
    check_as_sampled,
    denoiser_of,
    denoising_graph,
    encoder_in,
    guidance_offset,
    path_of,
    prediction_in,
    schedule_in,
    with_embeddings,
)
from wgtorch.train.objectives.noising import (
    Noised,
    checked_prediction,
    draw_noise,
    draw_times,
    masked_mean,
    noised,
    times_from,
    weighting_from,
    weights_of,
)
from wgtorch.train.registries import register_objective

_OF_CROPS = ("original_size", "crops_coords_top_left", "target_size")
"""What is told of a picture that was cropped, and of a sample is not."""


class GraphSettings(TypedDict, total=False):
    """Arguments of :class:`Denoising` that say what is called, and how pictures are shown."""

    at: str | None
    backbone: str | None
    prediction: str | None
    schedule: dict[str, Any] | None
    inputs: dict[str, Any] | None
    sample_inputs: dict[str, Any] | None


class EncodedSettings(GraphSettings, total=False):
    """The same with what makes latents of a batch's pictures."""

    encoder: str | None


@register_objective("denoising")
class Denoising(Objective):
    """Squared error of a backbone's prediction at one random level of noise: x = alpha x0 + sigma eps.

    The target is a text-to-image graph, anything that holds one, or a bare backbone. In a graph the loop is cut away: the
    tokenizer, the conditioner and whatever else leads to the backbone's conditions run as they stand, the backbone once. What
    it predicts and the noise schedule are read from the graph's solver, noise and schedule blocks unless they are given.

    A batch holds ``latent`` [B, C, ...], or ``image`` [B, 3, H, W] in [0, 1], which the graph's encoder (or codec) turns into
    latents without gradients; and the inputs of the graph by their names (``prompt``), or of the bare backbone
    (``condition``). Where the graph takes a guidance scale it is given 1: no guidance in training.

    Args:
        at: path of the graph, where the target holds several.
        backbone: its node, where the graph holds several.
        encoder: node that makes latents of pictures, where that is not plain.
        prediction: ``noise`` (``epsilon``), ``x0``, ``v_prediction`` or ``flow``; see :mod:`wgtorch.blocks.diffusion.predictions`.
        loss_on: the prediction in which the error is measured, where that is not the model's own: a model of x0 whose loss is
            that of the flow, say.
        schedule: ``{"kind": "diffusion" or "flow", ...}``, as for :func:`~wgtorch.blocks.diffusion.schedules.build_schedule`.
        times: ``uniform``, or ``{"type": "logit_normal", "mean": 0, "std": 1}``; see :func:`~.noising.times_from`.
        weighting: ``none``, or ``{"type": "min_snr", "gamma": 5}``; see :func:`~.noising.weighting_from`.
        offset_noise: what is added to the noise of each channel as a whole, so that a model learns dark and bright pictures; 0.1 or so.
        prior_weight: of pictures of the class (``prior`` in the batch), which keep it as it was (Ruiz et al. 2023,
            https://arxiv.org/abs/2208.12242).
        drop_condition: share of samples that are trained without their condition, for classifier-free guidance (Ho & Salimans
            2022, https://arxiv.org/abs/2207.12598): their texts are empty, their condition tensors zero.
        inputs: further inputs of the graph, the same for every batch.
        sample_inputs: inputs of the whole graph for the pictures that are shown while it trains (``num_steps``, ...).
    """

    validation_draws = 32
    """Between the first levels of noise and the last the error is hundreds of times smaller."""

    def __init__(
        self,
        *,
        at: str | None = None,
        backbone: str | None = None,
        encoder: str | None = None,
        prediction: str | None = None,
        loss_on: str | None = None,
        schedule: dict[str, Any] | None = None,
        times: str | dict[str, Any] = "uniform",
        weighting: str | dict[str, Any] = "none",
        offset_noise: float = 0.0,
        prior_weight: float = 1.0,
        drop_condition: float = 0.0,
        inputs: dict[str, Any] | None = None,
        sample_inputs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if offset_noise < 0 or prior_weight < 0:
            raise ConfigError(f"denoising: found offset_noise {offset_noise} and prior_weight {prior_weight}; expected at least 0")
        self.offset_noise, self.prior_weight = offset_noise, prior_weight
        if not 0 <= drop_condition <= 1:
            raise ConfigError(f"denoising.drop_condition: found {drop_condition}, expected a share from 0 to 1")
        self.at, self.backbone, self.encoder = at, backbone, encoder
        self.prediction = None if prediction is None else checked_prediction(prediction, "denoising.prediction")
        self.loss_on = None if loss_on is None else checked_prediction(loss_on, "denoising.loss_on")
        self.schedule = None if schedule is None else build_schedule(schedule)
        self.times, self.weighting = times_from(times), weighting_from(weighting)
        self.drop_condition = drop_condition
        self.inputs, self.sample_inputs = dict(inputs or {}), dict(sample_inputs or {})
        self._parts: dict[Any, Denoiser] = {}
        self._embedded: dict[tuple[str, ...], tuple[Denoiser, Denoiser]] = {}

    def check(self, target: Block) -> None:
        denoiser = self.denoiser(target)
        self.prediction_of(denoiser)
        self.schedule_of(denoiser)
        check_as_sampled(denoiser.graph, self.prediction, self.schedule)

    def reached(self, target: Block) -> Collection[str] | None:
        """What leads to the backbone, where it stands in the target."""
        place = denoising_graph(target, self.at)
        call = self.denoiser(target).call
        if place is target:
            return list(call.nodes) if isinstance(call, Graph) else None
        way = path_of(target, place) if self.at is None else self.at
        return places_below(way, call) if isinstance(call, Graph) else {way}

    def forward(self, target: Block, batch: Batch, step: Step) -> Mapping[str, Tensor]:
        """``loss``, and ``error``: the plain squared error of the model's own prediction."""
        errors, weights = self.errors(target, batch, step)
        return {**self.averaged(weights.to(errors) * errors, batch), "error": errors.detach().mean()}

    def per_sample(self, target: Block, batch: Batch, step: Step) -> Tensor:
        """The weighted error of each sample [B]."""
        errors, weights = self.errors(target, batch, step)
        return weights.to(errors) * errors

    def errors(self, target: Block, batch: Batch, step: Step) -> tuple[Tensor, Tensor]:
        """Squared error [B] of the model's own prediction at one random level of noise, and what each counts [B]."""
        denoiser = self.denoiser_for(target, batch)
        noised = self.noised(denoiser, self.latent_of(denoiser, batch, step), step)
        pred = self.predict(target, denoiser, noised, self.conditions(denoiser, batch, step), step)
        return self.errors_of(denoiser, pred, noised, batch)

    def noised(self, denoiser: Denoiser, x0: Tensor, step: Step) -> Noised:
        """A latent [B, C, ...] at random levels of noise; in validation at levels that cover all of them evenly."""
        first = None if step.training else step.index * len(x0)
        timestep, alpha, sigma = draw_times(self.times, self.schedule_of(denoiser), len(x0), step.generator, first=first)
        return noised(x0, draw_noise(x0, step.generator, self.offset_noise), timestep, alpha, sigma)

    def predict(self, target: Block, denoiser: Denoiser, noised: Noised, conditions: Mapping[str, Any], step: Step) -> Tensor:
        """What the backbone says of a noised latent, with the adapters that its place selects."""
        values = {**conditions, denoiser.latent: noised.latent, denoiser.timestep: noised.timestep}
        with adapters_on_the_way(target, denoiser.graph, self.at):
            pred = denoiser.predict(values, step.cache)
        if pred.shape != noised.x0.shape:
            raise ConfigError(
                f"denoising: the backbone gave {list(pred.shape)} for a latent {list(noised.x0.shape)}; expected the same shape"
            )
        return pred

    def errors_of(self, denoiser: Denoiser, pred: Tensor, noised: Noised, batch: Batch) -> tuple[Tensor, Tensor]:
        """Squared error [B] of a prediction, over what the batch's masks leave, and what each counts [B]."""
        prediction = self.prediction_of(denoiser)
        square = (pred.float() - noised.target(prediction).float()).square()
        errors = square.flatten(1).mean(1) if batch.get("mask") is None else masked_mean(square, batch["mask"])
        return errors, weights_of(self.weighting, prediction, self.loss_on or prediction, noised.alpha, noised.sigma)

    def averaged(self, losses: Tensor, batch: Batch) -> dict[str, Any]:
        """``loss`` of each sample's [B]: their mean, and that of pictures of the class (``prior`` [B]) beside it."""
        prior = batch.get("prior")
        if prior is None or not bool(prior.any()):
            return {"loss": losses.mean(), "count": len(losses)}
        prior = prior.to(losses.device).bool()
        if bool(prior.all()):
            return {"loss": self.prior_weight * losses.mean(), "count": len(losses)}
        own, others = losses[~prior].mean(), losses[prior].mean()
        return {"loss": own + self.prior_weight * others, "prior": others.detach(), "count": int((~prior).sum())}

    # --- what a subclass may change -----------------------------------------------------------------------------------

    def latent_of(self, denoiser: Denoiser, batch: Batch, step: Step) -> Tensor:
        """x0 [B, C, ...] of a batch."""
        if "latent" in batch:
            return batch["latent"]
        if "image" in batch:
            return encoder_in(denoiser.graph, self.encoder)(batch["image"], step.generator, step.cache)
        raise ConfigError(f"denoising needs 'latent' or 'image' in every batch; the data gives {sorted(batch)}")

    def conditions(self, denoiser: Denoiser, batch: Batch, step: Step) -> dict[str, Any]:
        """Inputs of the denoiser beside the noised latent and its time."""
        values: dict[str, Any] = {}
        for name, port in denoiser.call.get_input_spec().items():
            if name in (denoiser.latent, denoiser.timestep):
                continue
            if name in self.inputs:
                values[name] = self.inputs[name]
            elif name in batch:
                values[name] = batch[name]
            elif name == "guidance_scale":
                values[name] = 1.0 - guidance_offset(denoiser.call)
            elif not port.optional:
                mend = "Give data.controls=my_edges, which image_folder reads; r" if name == "control_image" else "R"
                raise ConfigError(
                    f"denoising: {denoiser.call.block_id} needs {name!r}; the data gives {sorted(batch)}; {suggest(name, batch)}. "
                    f"{mend}ename the data's key, or give a value under objective.inputs"
                )
        return self.dropped(values, step) if self.drop_condition and step.training else values

    def dropped(self, values: Mapping[str, Any], step: Step) -> dict[str, Any]:
        """The inputs with nothing said in some samples: the same samples in each of them."""
        sizes = [
            len(value)
            for value in values.values()
            if isinstance(value, (list, Tensor)) and not (isinstance(value, Tensor) and not value.dim())
        ]
        if not sizes:
            return dict(values)
        without = (step.uniform(max(sizes)) < self.drop_condition).tolist()

        return {name: _emptied(value, without) for name, value in values.items()}

    def without(self, conditions: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs with nothing said: texts are empty, condition tensors zero."""
        return {
            name: _emptied(value, [True] * len(value)) if isinstance(value, (list, Tensor)) and _rows_of(value) else value
            for name, value in conditions.items()
        }

    def samples(self, target: Block, batch: Batch, step: Step) -> Mapping[str, Any]:
        """Pictures that the whole graph makes of the batch's inputs."""
        graph = denoising_graph(target, self.at)
        if not isinstance(graph, Graph):
            return {}
        pictures = [name for name, port in graph.get_output_spec().items() if port.dtype == "image"]
        spec = graph.get_input_spec()
        values = {name: batch[name] for name in spec if name in batch and name not in _OF_CROPS} | self.sample_inputs
        if not pictures or any(name not in values for name, port in spec.items() if not port.optional):
            return {}
        return graph.run(values, outputs=pictures, seed=step.generator.initial_seed() % 2**31)

    # --- found in the target ------------------------------------------------------------------------------------------

    def denoiser(self, target: Block) -> Denoiser:
        """The part of the target that predicts once; made anew when the graph's structure, or an adapter of its places, has changed."""
        place = denoising_graph(target, self.at)
        key = (id(place), _version(place), _worn(place), _modes(place))
        if key not in self._parts:
            if len(self._parts) > 8:
                self._parts.clear()
            learned = {id(parameter) for parameter in target.trainable_parameters()}
            guided = "guidance_scale" in self.inputs or "true_cfg_scale" in self.inputs
            self._parts[key] = denoiser_of(place, self.backbone, learned=learned, guided=guided)
        return self._parts[key]

    def denoiser_for(self, target: Block, batch: Batch) -> Denoiser:
        """The denoiser for what a batch brings: embeddings of prompts (``prompt_embeds``) take the place of text encoders."""
        denoiser = self.denoiser(target)
        given = tuple(key for key in EMBEDDINGS if key in batch and key not in denoiser.call.get_input_spec())
        if not given:
            return denoiser
        known = self._embedded.get(given)
        if known is None or known[0] is not denoiser:
            known = self._embedded[given] = (denoiser, with_embeddings(denoiser, given))
        return known[1]

    def prediction_of(self, denoiser: Denoiser) -> str:
        """What the backbone predicts.

        Raises:
            ConfigError: neither the settings nor a solver say it.
        """
        found = self.prediction or prediction_in(denoiser.graph)
        if found is None:
            raise ConfigError(
                f"denoising: nothing says what {denoiser.call.block_id} predicts; give prediction (noise, x0, v_prediction or flow)"
            )
        return found

    def schedule_of(self, denoiser: Denoiser) -> GridSchedule:
        """The noise schedule of training.

        Raises:
            ConfigError: neither the settings nor the graph say it.
        """
        found = self.schedule or schedule_in(denoiser.graph)
        if found is None:
            raise ConfigError(
                f"denoising: nothing says how {denoiser.call.block_id} is noised; give schedule, as {{'kind': 'flow', "
                "'num_train_timesteps': 1} or {'kind': 'diffusion'}"
            )
        return found


def _rows_of(value: Any) -> int:
    return 0 if isinstance(value, Tensor) and not value.dim() else len(value)


def _emptied(value: Any, which: list[bool]) -> Any:
    """A value of a batch with nothing in these rows."""
    if isinstance(value, list) and len(value) == len(which) and all(isinstance(text, str) for text in value):
        return ["" if gone else text for text, gone in zip(value, which, strict=True)]
    if isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 1 and len(value) == len(which):
        return value.masked_fill(torch.tensor(which, device=value.device).view(-1, *[1] * (value.dim() - 1)), 0)
    return value


def _version(place: Block) -> int:
    """Changes with the structure of a level and of those inside it."""
    return sum(level._version for level in levels(place))


def _worn(place: Block) -> Any:
    """The adapters that a level's own places select: a part that was cut out of it keeps those of then."""
    return repr([spec.adapter for spec in place.node_specs.values()]) if isinstance(place, Level) else ""


def _modes(place: Block) -> tuple[bool, ...]:
    """Which blocks are in train, and which of them could learn: what is frozen follows from it."""
    blocks = [child for _, child, _ in walk(place)]
    return tuple(
        [flag for block in blocks for flag in (block.training, any(p.requires_grad for p in itertools.islice(block.parameters(), 1)))]
    )
