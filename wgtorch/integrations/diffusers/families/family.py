"""What a family of models is: from one description importer, exporter and adapters derive."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wgtorch.core.errors import ConfigError
from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.source import Source
from wgtorch.lora.formats.names import AdapterNames

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

    Args:
        title: for messages.
        pipelines: the classes of diffusers that are taken, with the tasks that a graph of them may have; the first is the
            pipeline's own, and of several classes for one task the first is written where nothing else is known.
        build: makes the graph of a source for a task.
        parts: by the names of diffusers.
        adapters: how adapter files name the backbone's layers, by its class.
        settings: what else a pipeline of a graph is constructed with.
        is_even: as for :func:`~wgtorch.integrations.diffusers.translation.blocks_for`.
        ignored: further parts that graphs have no use for.
        marks: a node that only graphs of this family have, where the backbone's class leaves several.
    """

    title: str
    pipelines: Mapping[str, tuple[str, ...]]
    build: Callable[[Source, str, bool], Graph]
    parts: Mapping[str, Part]
    adapters: Mapping[str, AdapterNames] = field(default_factory=dict)
    settings: Callable[[Graph], dict[str, Any]] = lambda graph: {}
    is_even: bool = False
    ignored: tuple[str, ...] = ()
    marks: str = ""

    @property
    def backbone(self) -> str:
        """The part that denoises."""
        return next(name for name, part in self.parts.items() if part.node == "backbone")

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
        own = [name for name, tasks in self.pipelines.items() if tasks[0] == task]
        if not own:
            raise ConfigError(f"to_diffusers: no pipeline of {self.title} does {task}")
        return origin if origin in own else own[0]

    def check(self, source: Source) -> None:
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
PICTURES = ("AutoencoderKL", "AutoencoderTiny")


def text_part(which: str, *classes: str) -> dict[str, Part]:
    """A text encoder and its tokenizer, which a pipeline may lack where embeddings are given; ``which`` is the end of their names."""
    words = CLIP_WORDS if classes and classes[0].startswith("CLIP") else ()
    return {
        f"text_encoder{which}": Part(f"text_encoder{which}", classes, optional=True),
        f"tokenizer{which}": Part(f"tokenizer{which}", words, optional=True, is_tokenizer=True),
    }


def prompt_part(kind: str) -> dict[str, Part]:
    """A text encoder and a tokenizer that are one node, since the pipeline prepares prompts in a way of its own."""
    return {"text_encoder": Part("text_encoder", (kind,)), "tokenizer": Part("text_encoder", is_tokenizer=True)}


def tasks_of(family: str, *, inpaint: bool = True) -> dict[str, tuple[str, ...]]:
    """The three usual pipelines, each of which may be made a graph for any of the three tasks."""
    tasks = ("text_to_image", "image_to_image", "inpaint")
    endings = {"text_to_image": "", "image_to_image": "Img2Img", "inpaint": "Inpaint"}
    chosen = [task for task in tasks if inpaint or task != "inpaint"]
    return {f"{family}{endings[task]}Pipeline": (task, *[other for other in chosen if other != task]) for task in chosen}


def names(families: Iterable[Family]) -> str:
    """Their titles in a row."""
    return ", ".join(dict.fromkeys(family.title for family in families))
