"""The canonical stages and the default world."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wgtorch.core.block import Block, BlockRegistry
from wgtorch.core.config.template import build_template, register_template
from wgtorch.core.errors import ConfigError, suggest
from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline
from wgtorch.stage import Stage
from wgtorch.templates.narrator import NARRATOR, READER, add_model, narrator_model, takes
from wgtorch.world import World

READER_REF = "wgtorch:action_reader"


def single(block_type: str, name: str, **config: object) -> Pipeline:
    """A pipeline of one graph of one block, all its ports exposed."""
    return around(_alone(block_type, name, **config), name)


def _alone(block_type: str, name: str, **config: object) -> Graph:
    graph = Graph(name)
    graph.add_node(block_type, name, config=config)
    for port in graph.nodes[name].get_input_spec():
        graph.expose_input(name, port)
    for port in graph.nodes[name].get_output_spec():
        graph.expose_output(name, port)
    return graph


def around(graph: Graph, name: str) -> Pipeline:
    """A pipeline of one graph, with that graph's interface."""
    pipeline = Pipeline(name)
    pipeline.add_graph(graph, name)
    for port in graph.get_input_spec():
        pipeline.expose_input(name, port)
    for port in graph.get_output_spec():
        pipeline.expose_output(name, port)
    return pipeline


def stage_of(
    role: str,
    pipeline: Pipeline,
    node: str,
    inputs: list[str],
    outputs: list[str],
    reads: Mapping[str, str] | None = None,
    writes: Mapping[str, str] | None = None,
    *,
    map: str | None = None,
) -> Stage:
    """A stage of one pipeline, which runs when the cycle comes to its role.

    Args:
        role: also its id.
        pipeline: stands at ``node``; ``map`` is the input that it runs over item by item.
        inputs, outputs, reads, writes: its contract, as of :meth:`~wgtorch.stage.Stage.set_state_contract`.
    """
    stage = Stage(role, role=role)
    stage.add_pipeline(pipeline, node, **({} if map is None else {"map": map}))
    stage.set_state_contract(inputs, outputs, reads, writes)
    stage.set_execution_condition(role)
    return stage


@register_template("philosopher", level="stage")
def philosopher(*, painter: str = "pixels", sound: bool = False) -> Stage:
    """Looks at the artifacts and describes what is in them, in words and as data; it never sees the recipe.

    Args:
        painter: whose pictures it reads: ``pixels``, or ``scenes``.
        sound: the artifacts are a mapping, with the pictures under ``pictures``.
    """
    reader = {"pixels": "describe_scene", "scenes": "caption"}[_painter(painter)]
    reads = {"describe.image": "artifacts.pictures" if sound else "artifacts"}
    writes = {"description.text": "describe.text", "description.attributes": "describe.attributes"}
    pipeline = around(build_template("graph", reader, {}), "describe")
    return stage_of("philosopher", pipeline, "describe", ["artifacts"], ["description"], reads, writes, map="image")


@register_template("author", level="stage")
def author(*, teller: str = "grammar", narrator: str | dict[str, Any] | None = None) -> Stage:
    """Tells what really happened, from the episode's events and the world before the update.

    Args:
        teller: name of a registered teller.
        narrator: a language model that tells in its own words, as of the world.
    """
    if narrator is not None and teller != "grammar":
        raise ConfigError(f"template 'author': teller is {teller!r}, and a narrator tells beside the grammar; leave one of them out")
    return _author(teller, None if narrator is None else narrator_model(narrator))


def _author(teller: str, model: Block | None) -> Stage:
    told = single("simulation/author", "tell", teller=teller) if model is None else _narration(model)
    return stage_of("author", told, "tell", ["intent", "description"], ["outcome"])


def _narration(model: Block) -> Pipeline:
    """The facts as a prompt, a language model, and what of its prose agrees with them."""
    graph = Graph("tell")
    add_model(graph, model, NARRATOR, "llm", temperature=0.7, top_p=0.9)
    graph.add_node("simulation/account", "account", auto_connect=False)
    graph.add_node("simulation/narrated", "narrated", auto_connect=False)
    for port in ("prompt", "system", "max_tokens"):
        graph.add_edge(f"account.{port}", f"llm.{port}")
    graph.add_edge("llm.text", "narrated.prose")
    for port in ("intent", "content"):
        graph.expose_input("account", port)
        graph.expose_input("narrated", port)
    graph.expose_input("narrated", "description")
    graph.expose_output("narrated", "outcome")
    return around(graph, "tell")


def _development(reader: str, options: Mapping[str, Any], model: Block | None) -> Pipeline:
    """The reader of actions, and what tries them; a language model reads what the reader finds no verb in."""
    kinds = [name.removeprefix("reader/") for name in BlockRegistry.names() if name.startswith("reader/")]
    if reader not in kinds:
        raise ConfigError(f"reader: found {reader!r}; {suggest(str(reader), kinds)}")
    graph = Graph("development")
    graph.add_node(f"reader/{reader}", "reader", config={"checkpoint_ref": READER_REF} if reader == "trained" else {})
    graph.add_node("simulation/development", "development", config=dict(options))
    if model is None or not takes(model, READER):
        graph.add_edge("reader.actions", "development.actions")
    else:
        add_model(graph, model, READER, "llm", temperature=0.0, max_tokens=120)
        graph.add_node("reader/unread", "unread", auto_connect=False)
        graph.add_node("reader/read", "read", auto_connect=False)
        graph.add_edge("reader.actions", "unread.actions")
        for port in ("prompt", "system", "schema"):
            graph.add_edge(f"unread.{port}", f"llm.{port}")
        graph.add_edge("reader.actions", "read.actions")
        graph.add_edge("llm.data", "read.data")
        if "answer" in model.get_input_spec():
            add_model(graph, model, READER, "sure")
            for port in ("prompt", "system"):
                graph.add_edge(f"unread.{port}", f"sure.{port}")
            graph.add_edge("llm.text", "sure.answer")
            graph.add_edge("sure.log_prob", "read.log_prob")
            graph.add_edge("sure.answer_tokens", "read.tokens")
        graph.add_edge("read.actions", "development.actions")
    graph.expose_input("development", "content")
    graph.expose_input("reader", "action")
    graph.expose_output("development", "intent")
    return around(graph, "development")


@register_template("environment", level="stage")
def environment(
    *,
    memory: int = 6,
    places: int = 36,
    characters: int = 8,
    scheduling: str = "initiative",
    reader: str = "trained",
    teller: str = "grammar",
    narrator: str | dict[str, Any] | None = None,
) -> Stage:
    """Begins a simulated world, applies a complete state to its content, tries the action against it and develops what is next.

    Args:
        memory: episodes that the story tells in full.
        places: how many places the map has at first.
        characters: how many characters there are at first, the traveller included.
        scheduling: who acts in a pass beside the traveller: ``initiative``, ``turns`` or ``all``.
        reader: name of a registered reader of actions.
        teller: name of a registered teller, for the words of the intent.
        narrator: a language model that reads what the reader does not understand, as of the world.
    """
    options = {"places": places, "characters": characters, "scheduling": scheduling, "teller": teller}
    return _environment(memory, reader, options, None if narrator is None else narrator_model(narrator))


def _environment(memory: int, reader: str, options: Mapping[str, Any], model: Block | None) -> Stage:
    update = single("simulation/world_update", "world_update", memory=memory)
    return environment_of(update, _development(reader, options, model))


def environment_of(update: Pipeline, development: Pipeline) -> Stage:
    """The stage between two episodes: a complete state goes into the world's content, and from that comes the next intent.

    Args:
        update: the content after, of ``content`` and of what it has inputs for of the state.
        development: ``intent``, of ``content`` and ``action``.
    """
    stage = Stage("environment", role="environment")
    stage.add_pipeline(update, "world_update", condition="complete")
    stage.add_pipeline(development, "development")
    stage.add_edge("world_update.content", "development.content")
    known = [name for name in ("content", "intent", "recipe", "description", "outcome") if name in update.get_input_spec()]
    stage.set_state_contract(
        [],
        ["intent"],
        {f"world_update.{name}": name for name in known} | {"development.content": "content", "development.action": "action"},
        {"content": "world_update.content", "intent": "development.intent"},
        new_state=True,
    )
    return stage


@register_template("architect", level="stage")
def architect(*, pictures: int = 1, painter: str = "pixels") -> Stage:
    """Plans the pictures of an episode from the world's facts as its events leave them.

    Args:
        pictures: pictures of one episode.
        painter: in whose words: ``pixels``, or ``scenes``.
    """
    plan = single("simulation/architect", "plan", pictures=pictures, painter=_painter(painter))
    return stage_of("architect", plan, "plan", ["intent"], ["recipe"])


@register_template("creator", level="stage")
def creator(
    *,
    painter: str = "pixels",
    steps: int = 10,
    guidance: float | None = None,
    larger: bool | None = None,
    sound: bool = False,
    repaint: bool = False,
) -> Stage:
    """Paints a picture for each prompt of the recipe: of the recipe's scene, where it holds the plan of one, else of the prompt's words.

    Args:
        painter: ``pixels``: pixel art of 512x512, all that a plan holds; ``scenes``: small soft pictures of a prompt's words.
        steps: solver steps.
        guidance: strength of classifier-free guidance, of the painter ``scenes`` (2).
        larger: False leaves pictures at 64x64; else ``pixels`` are enlarged to 512x512, and ``scenes`` to 128x128 by an upscaler.
        sound: make the sound of the place, too; the artifacts are then ``{"pictures": [...], "audio": [1, 1, N], "rate": 22050}``.
        repaint: of ``pixels``: a picture in which the describer does not find the plan is painted once more, from other noise, and
            the better one kept; what it still shows otherwise is a discrepancy, and no fact.
    """
    stage = Stage("creator", role="creator")
    reads = {"paint.prompt": "recipe.prompts"}
    if _painter(painter) == "pixels":
        if guidance is not None:
            raise ConfigError("template 'creator': guidance is an option of painter='scenes'; the painter is 'pixels'")
        options: dict[str, Any] = {"steps": steps, "scale": 1 if larger is False else 8}
        pipeline = _repainting(options) if repaint else build_template("pipeline", "scene_to_image", options)
        reads["paint.scene"] = "recipe.scene"
    else:
        if repaint:
            raise ConfigError("template 'creator': repaint is an option of painter='pixels'; the painter is 'scenes'")
        options = {"guidance": 2.0 if guidance is None else guidance, "larger": True if larger is None else larger}
        pipeline = build_template("pipeline", "text_to_image", {"steps": steps, **options})
    stage.add_pipeline(pipeline, "paint", map="prompt")
    writes = {"artifacts": "paint.image"}
    if sound:
        stage.add_pipeline(single("sound/pixel_scene", "sound"), "sound")
        reads |= {"sound.scene": "recipe.scene", "sound.prompt": "recipe.prompts"}
        writes = {"artifacts.pictures": "paint.image", "artifacts.audio": "sound.audio", "artifacts.rate": "sound.rate"}
    stage.set_state_contract(["recipe"], ["artifacts"], reads, writes)
    stage.set_execution_condition("creator")
    return stage


def _repainting(options: Mapping[str, Any]) -> Pipeline:
    """Paints a scene, looks at the picture, and paints it once more where it shows something else; the models are the same ones."""
    paint, look = build_template("graph", "scene_to_image", dict(options)), build_template("graph", "describe_scene", {})
    again = Graph("again")
    again.add_node("picture/again", "scene", auto_connect=False)
    again.add_node(paint, "t2i", auto_connect=False)
    again.add_edge("scene.scene", "t2i.scene")
    again.expose_input("scene", "scene", "scene")
    again.expose_input("t2i", "prompt", "prompt")
    again.expose_output("t2i", "image", "image")
    pipeline = Pipeline("repainting")
    for name, graph in (("t2i", paint), ("look", look), ("again", again), ("look_again", look)):
        pipeline.add_graph(graph, name)
    for block_type, name in (("picture/misread", "misread"), ("picture/better", "better")):
        pipeline.add_graph(_alone(block_type, name), name)
    for source, target in (
        ("t2i.image", "look.image"), ("look.attributes", "misread.attributes"), ("misread.again", "again.scene"),
        ("again.image", "look_again.image"), ("t2i.image", "better.image"), ("look.attributes", "better.attributes"),
        ("again.image", "better.second"), ("look_again.attributes", "better.second_attributes"),
    ):  # fmt: skip
        pipeline.add_edge(source, target)
    for node in ("t2i", "misread", "better"):
        pipeline.expose_input(node, "scene", "scene")
    for node in ("t2i", "again"):
        pipeline.expose_input(node, "prompt", "prompt")
    pipeline.expose_output("better", "image")
    return pipeline


def _painter(name: str) -> str:
    if name not in ("pixels", "scenes"):
        raise ConfigError(f"painter: found {name!r}; {suggest(name, ('pixels', 'scenes'))}")
    return name


@register_template("default", level="world")
def default(
    *,
    story: str = "A traveller walks through a small painted world.",
    style: str = "painted scenes",
    traveller: str = "the traveller",
    pictures: int = 1,
    painter: str = "pixels",
    steps: int = 10,
    guidance: float | None = None,
    larger: bool | None = None,
    sound: bool = False,
    memory: int = 6,
    places: int = 36,
    characters: int = 8,
    scheduling: str = "initiative",
    reader: str = "trained",
    teller: str = "grammar",
    narrator: str | dict[str, Any] | None = None,
    repaint: bool = False,
) -> World:
    """A simulated world that lives by itself, answers what one types, and paints what happens; needs no network, key or GPU.

    Args:
        story: how it begins.
        style: a note that travels with the content.
        traveller: name of the one whom actions without a name belong to.
        pictures: pictures of one episode.
        painter: ``pixels``: pixel art of the whole plan of a scene; ``scenes``: small soft pictures of some of it.
        steps: solver steps of a picture.
        guidance: strength of classifier-free guidance, of the painter ``scenes`` (2).
        larger: False leaves pictures at 64x64; else ``pixels`` are enlarged to 512x512, and ``scenes`` to 128x128 by an upscaler.
        sound: make the sound of every place, too; the artifacts are then ``{"pictures": [...], "audio": [1, 1, N], "rate": 22050}``.
        memory: episodes that the story tells in full.
        places: how many places the map has at first.
        characters: how many characters there are at first, the traveller included.
        scheduling: who acts in a pass beside the traveller: ``initiative``, ``turns`` or ``all``.
        reader: name of a registered reader of actions: ``trained``, or ``rules`` alone.
        teller: name of a registered teller.
        narrator: a language model that tells in its own words, checked against the facts, and reads actions that the reader does not
            understand, those in other languages among them: ``smollm2``, which ``wgtorch models add smollm2`` installs; or the config of
            a language model. It is one in memory, with an adapter for each of the two.
        repaint: paint a picture once more in which the describer does not find what was planned.
    """
    name = traveller.strip()
    if not name or len(name) > 60 or any(not char.isprintable() for char in name):
        raise ConfigError(f"template 'default': traveller is {traveller!r}; expected a name of 1 to 60 printable characters")
    if narrator is not None and teller != "grammar":
        raise ConfigError(f"template 'default': teller is {teller!r}, and a narrator tells beside the grammar; leave one of them out")
    model = None if narrator is None else narrator_model(narrator)
    world = World("default")
    world.add_stage(philosopher(painter=painter, sound=sound))
    world.add_stage(_author(teller, model))
    options = {"places": places, "characters": characters, "scheduling": scheduling, "teller": teller}
    world.add_stage(_environment(memory, reader, options, model))
    world.add_stage(architect(pictures=pictures, painter=painter))
    world.add_stage(creator(painter=painter, steps=steps, guidance=guidance, larger=larger, sound=sound, repaint=repaint))
    world.set_canonical_cycle()
    world.set_initial_content({"story": story, "style": style, "traveller": name})
    return world
