"""What a family of models is: from one description importer, exporter and adapters derive."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wgtorch.core.errors import ConfigError
from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.assembly import Defaults, Parts, begin, finished
from wgtorch.integrations.diffusers.sampling import expose_distilled, sampling
from wgtorch.integrations.diffusers.schedulers import draws_in_steps
from wgtorch.integrations.diffusers.settings import Settings
from wgtorch.integrations.diffusers.source import Source
from wgtorch.integrations.diffusers.text import conditions
from wgtorch.integrations.diffusers.video import video_sampling
from wgtorch.lora.formats.foreign_layer_names import FUSED, AdapterNames

IGNORED = ("safety_checker", "feature_extractor", "watermark")
"""Parts of pipelines that change no picture, or only cover it, which graphs leave out."""


@dataclass(frozen=True)
class Part:
    """A model, tokenizer or processor of a pipeline.

    Args:
        node: that holds it in graphs.
        classes: that it may have; any where left out.
        optional: a pipeline may lack it.
        is_tokenizer: it is no module.
    """

    node: str
    classes: tuple[str, ...] = ()
    optional: bool = False
    is_tokenizer: bool = False


@dataclass(frozen=True)
class Family:
    """Models of one architecture, and the pipelines of diffusers that they make.

    A value that is a function of :class:`~wgtorch.integrations.diffusers.assembly.Parts` is asked when the models are there.

    Args:
        title: for messages.
        pipelines: the classes of diffusers that are taken, with the tasks that a graph of them may have; the first is the
            pipeline's own, and of several classes for one task the first is written where nothing else is known.
        tasks: what the pipelines do by default.
        backbone: block class around the model that denoises.
        codec: block classes around autoencoders that it may have.
        prompts: adds what turns prompts into embeddings; tells whether it is there, or a call gives embeddings.
        others: further parts, by the names of diffusers.
        model: the name of the backbone there.
        condition: where embeddings come from and what is done with them, as :func:`~wgtorch.integrations.diffusers.text.conditions`
            takes it.
        settings: of the graph's parts, as for :class:`~wgtorch.integrations.diffusers.assembly.Parts`.
        size: in pixels where a call says nothing: a side, (height, width), or, of videos, ``num_frames``, ``height``, ``width``.
        extra: further inputs of the backbone, beside those that the condition feeds, with the nodes that feed them.
        told: attributes of the autoencoder that the backbone is built with.
        noise: further settings of the node that draws.
        shown: inputs of nodes that the pipeline's call has: ``node.port`` or ``node.port as name``.
        starts: the task whose loop starts as this family's does, where that is another.
        shifts: the pipeline tells a scheduler the size of the picture, where that shifts by it.
        check: refuses a pipeline that is not supported, before anything is read.
        prepare: looks at the models, and completes what is known of the graph.
        loop: the loop, in place of the usual one.
        finish: what is left to join.
        adapters: how adapter files name the backbone's layers.
        arguments: what else a pipeline of a graph is constructed with.
        is_even: as for :func:`~wgtorch.integrations.diffusers.translation.blocks_for`.
        is_batched: guidance can be one batch.
        ignored: further parts that graphs have no use for.
        marks: a node that only graphs of this family have, where the backbone's class leaves several.
    """

    title: str
    pipelines: Mapping[str, tuple[str, ...]]
    tasks: Mapping[str, Defaults]
    backbone: Any
    codec: tuple[Any, ...]
    prompts: Callable[[Parts], bool]
    others: Mapping[str, Part]
    model: str = "transformer"
    condition: Mapping[str, Any] | Callable[[Parts], Mapping[str, Any]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    size: Any = None
    extra: Mapping[str, str] = field(default_factory=dict)
    told: tuple[str, ...] = ()
    noise: Mapping[str, Any] = field(default_factory=dict)
    shown: tuple[str, ...] = ()
    starts: str = ""
    shifts: bool = True
    check: Callable[[Source, str], None] = lambda source, task: None
    prepare: Callable[[Parts], None] = lambda parts: None
    loop: Callable[[Parts], None] | None = None
    finish: Callable[[Parts], None] = lambda parts: None
    adapters: AdapterNames | None = None
    arguments: Callable[[Graph], dict[str, Any]] = lambda graph: {}
    is_even: bool = False
    is_batched: bool = True
    ignored: tuple[str, ...] = ()
    marks: str = ""

    @property
    def parts(self) -> dict[str, Part]:
        """By the names of diffusers."""
        codecs = tuple(codec.model_class for codec in self.codec)
        return {self.model: Part("backbone", (self.backbone.model_class,)), "vae": Part("codec", codecs), **self.others}

    # --- in ---

    def build(self, source: Source, task: str, batched: bool) -> Graph:
        """The graph of a source for a task.

        Raises:
            ConfigError: the models are not for the task, or the scheduler wants what the pipeline does not tell it.
        """
        name, config = source.scheduler()
        if not self.shifts and config.get("use_dynamic_shifting"):
            raise ConfigError(
                f"from_diffusers: {name} shifts by the size of the picture, which the pipeline of {self.title} does not tell it"
            )
        if self.noise.get("frames_first"):
            try:
                draws = draws_in_steps(name, Settings(name, config).given)
            except Exception as error:
                raise ConfigError(
                    f"from_diffusers: {name} fails in its own steps with these settings, as in the pipeline of {self.title}: {error}. Look "
                    "at its config: with sigma_max beyond what it was trained for, as of Stable Video Diffusion, timesteps repeat"
                ) from error
            if draws:
                raise ConfigError(
                    f"from_diffusers: {name} draws in each step, and in the pipeline of {self.title} frame by frame, which no solver here "
                    "does; expected one that does not draw, such as DDIMScheduler or EulerDiscreteScheduler"
                )
        self.check(source, task)
        parts = begin(source, task, batched and self.is_batched, self.tasks[task], is_even=self.is_even, **self.settings)
        parts.vae = source.model("vae", next(one for one in self.codec if one.model_class == source.classes["vae"]).block_type)
        parts.backbone = source.model(self.model, self.backbone.block_type, **{name: getattr(parts.vae, name) for name in self.told})
        size = self.size(parts) if callable(self.size) else self.size
        if size is not None and not isinstance(size, Mapping):
            parts.sides = (size, size) if isinstance(size, int) else size
        self.prepare(parts)
        is_told = self.prompts(parts)
        if self.loop is None:
            self._conditioned_loop(parts, is_told, size)
        else:
            self.loop(parts)
        for shown in self.shown:
            place, _, name = shown.partition(" as ")
            node, _, port = place.partition(".")
            for own in (node, f"negative_{node}") if f"negative_{node}" in parts.graph.nodes else (node,):
                parts.graph.expose_input(own, port, name or port)
        self.finish(parts)
        expose_distilled(parts)
        return finished(parts)

    def _conditioned_loop(self, parts: Parts, is_told: bool, size: Any) -> None:
        """Conditions, and the loop of a picture or a video around them."""
        condition = dict(self.condition(parts) if callable(self.condition) else self.condition)
        embedding, pooled = condition.pop("embedding", "text_encoder.embedding"), condition.pop("pooled", "")
        fed = (("text_embeds", bool(pooled)), ("attention_mask", condition.get("masked")))
        extra = {**{name: "conditions" for name, is_fed in fed if is_fed}, **self.extra}
        is_video, is_counted = isinstance(size, Mapping), condition.pop("counted", True)
        conditions(parts, embedding if is_told else None, pooled, **condition)
        if is_counted:
            parts.graph.expose_input("conditions", "num_images_per_prompt", f"num_{'videos' if is_video else 'images'}_per_prompt")
        if condition.get("negated", True) and (condition.get("only_negative") or "zero_negative" in condition):
            parts.graph.expose_input("conditions", "negative_prompt")
        if is_video:
            video_sampling(parts, size, extra, **self.noise)
        else:
            sampling(parts, extra, start=self.starts)

    # --- out ---

    def task_of(self, graph: Graph) -> str:
        """The task of a graph that this family made."""
        tasks = {task for own in self.pipelines.values() for task in own}
        if "latent_mask" in graph.nodes:
            return "inpaint"
        if "encoder" in graph.nodes:
            return "image_to_video" if "image_to_video" in tasks else "image_to_image"
        return "text_to_video" if "text_to_video" in tasks else "text_to_image"

    def class_for(self, graph: Graph) -> str:
        """The pipeline that a graph is written as: that which it came from, where it still does the same."""
        task, origin = self.task_of(graph), str(graph.metadata.get("from_diffusers"))
        own = [name for name, tasks in self.pipelines.items() if tasks[0] == task] or [
            name for name, tasks in self.pipelines.items() if task in tasks
        ]
        if not own:
            raise ConfigError(f"to_diffusers: no pipeline of {self.title} does {task}")
        return origin if origin in own else own[0]

    def check_parts(self, source: Source) -> None:
        """Refuses a pipeline whose parts are not this family's.

        Raises:
            ConfigError: names each part that is missing, of another class, or of no use.
        """
        wrong = []
        for name, part in self.parts.items():
            found = source.classes.get(name)
            if found is None:
                wrong += [] if part.optional else [f"{name} is missing; expected {' or '.join(part.classes) or 'one'}"]
            elif part.classes and found not in part.classes:
                wrong.append(f"{name} is a {found}; expected {' or '.join(part.classes)}")
        wrong += [] if "scheduler" in source.classes else ["scheduler is missing"]
        known = {*self.parts, *IGNORED, *self.ignored, "scheduler"}
        wrong += [f"{name} ({kind}) has no place in {self.title}" for name, kind in source.classes.items() if name not in known]
        if wrong:
            raise ConfigError(f"from_diffusers: {source.name!r} is a {source.pipeline_class}, but {'; '.join(wrong)}")


CLIP, CLIP_PROJECTED, CLIP_WORDS = ("CLIPTextModel",), ("CLIPTextModelWithProjection",), ("CLIPTokenizer", "CLIPTokenizerFast")


def text_part(which: str, *classes: str) -> dict[str, Part]:
    """A text encoder and its tokenizer, which a pipeline may lack where embeddings are given; ``which`` is the end of their names."""
    words = CLIP_WORDS if classes and classes[0].startswith("CLIP") else ()
    return {
        f"text_encoder{which}": Part(f"text_encoder{which}", classes, optional=True),
        f"tokenizer{which}": Part(f"tokenizer{which}", words, optional=True, is_tokenizer=True),
    }


def prompt_part(*kinds: str, optional: bool = False) -> dict[str, Part]:
    """A text encoder and a tokenizer that are one node, since the pipeline prepares prompts in a way of its own."""
    return {
        "text_encoder": Part("text_encoder", kinds, optional=optional),
        "tokenizer": Part("text_encoder", is_tokenizer=True, optional=optional),
    }


def transformer_adapters(loader: str, first: FUSED | None = None) -> AdapterNames:
    """Names in adapter files of a transformer; kohya's scripts call its layers as diffusers does.

    Args:
        loader: diffusers' class that reads such files.
        first: layers of the model's first code, by its names.
    """
    return AdapterNames("transformer", ("transformer",), first=first or {}, first_in_kohya=lambda model: False, loader=loader)


def latents(count: int) -> Callable[[Parts], int]:
    """A side of so many latents, in pixels."""
    return lambda parts: int(count * parts.vae.factor)


def trained_side(parts: Parts) -> int:
    """The side that the backbone was trained at, in pixels."""
    return int(parts.backbone.model.config.sample_size * parts.vae.factor)


def tasks_of(family: str, *, inpaint: bool = True) -> dict[str, tuple[str, ...]]:
    """The three usual pipelines, each of which may be made a graph for any of the three tasks."""
    tasks = ("text_to_image", "image_to_image", "inpaint")
    endings = {"text_to_image": "", "image_to_image": "Img2Img", "inpaint": "Inpaint"}
    chosen = [task for task in tasks if inpaint or task != "inpaint"]
    return {f"{family}{endings[task]}Pipeline": (task, *[other for other in chosen if other != task]) for task in chosen}


def names(families: Iterable[Family]) -> str:
    """Their titles in a row, sorted."""
    return ", ".join(sorted({family.title for family in families}, key=str.casefold))
