"""Prompts with places for values, and the language to write in."""

from __future__ import annotations

import pickle
from copy import deepcopy
from pathlib import Path

import pytest

from wgtorch.blocks.prompt import ContentLanguage, Prompt
from wgtorch.blocks.prompt.tongue import language_of
from wgtorch.core.block import Block
from wgtorch.core.errors import ConfigError, MissingInputError


def test_names_in_the_templates_are_the_ports() -> None:
    ask = Prompt(
        system="Write in {{ language }}.", prompt="{{ intent }}{% if action %}\n\n\n\n{{ action }}{% endif %}", optional=["action"]
    )
    spec = ask.get_input_spec()
    assert {name: port.optional for name, port in spec.items()} == {"language": False, "intent": False, "action": True}
    assert ask.run({"language": "Russian", "intent": "A storm.", "action": "run"}) == {
        "system": "Write in Russian.",
        "prompt": "A storm.\n\nrun",
    }
    assert ask.run({"language": "Russian", "intent": "A storm."})["prompt"] == "A storm."
    with pytest.raises(MissingInputError, match="intent"):
        ask.run({"language": "Russian"})
    assert "system" not in Prompt(prompt="a").run({})


def test_lists_are_numbered_and_values_are_never_read_as_templates() -> None:
    ask = Prompt(prompt="{{ seen | listed }}")
    assert ask(seen=["a", "b"])["prompt"] == "1. a\n2. b"
    assert ask(seen=["a"])["prompt"] == ask(seen="a")["prompt"] == "a"
    assert ask(seen="{{ 1 + 1 }} <b>")["prompt"] == "{{ 1 + 1 }} <b>"


def test_templates_from_a_file_cannot_reach_python() -> None:
    with pytest.raises(ConfigError, match="unsafe"):
        Prompt(prompt="{{ x.__class__.__mro__ }}")(x=1)
    with pytest.raises(ConfigError):
        Prompt(prompt="{{ x.append(1) }}")(x=[])


def test_mistakes_in_a_template() -> None:
    with pytest.raises(ConfigError, match=r"prompt\.prompt, line 2: .*expected a template of Jinja"):
        Prompt(prompt="a\n{% if b %}")
    with pytest.raises(ConfigError, match=r"'acton' is not in the templates; they name \['action'\]"):
        Prompt(prompt="{{ action }}", optional=["acton"])
    with pytest.raises(ConfigError, match="no attribute 'name'"):
        Prompt(prompt="{{ who.name }}")(who="Mara")


def test_a_prompt_is_copied_pickled_and_saved(tmp_path: Path) -> None:
    ask = Prompt(prompt="{{ intent }}!")
    ask.save(tmp_path / "ask")
    for other in (deepcopy(ask), pickle.loads(pickle.dumps(ask)), Block.load(tmp_path / "ask")):
        assert other(intent="Go")["prompt"] == "Go!"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("A lighthouse keeper lives alone on a rock in the sea.", "English"),
        ("Смотритель маяка зажигает лампу, и корабли идут к берегу.", "Russian"),
        ("Доглядач маяка запалює лампу, і її видно з моря.", "Ukrainian"),
        ("Der Wärter ist alt, und die Lampe ist nicht mehr hell.", "German"),
        ("Le gardien est dans la tour et la lampe est éteinte.", "French"),
        ("El guardián vive solo en una torre de la costa.", "Spanish"),
        ("灯台の守り人は一人で暮らしている。", "Japanese"),
        ("灯塔看守人独自住在岩石上。", "Chinese"),
        ("등대지기는 바위 위에 혼자 산다.", "Korean"),
        ("Ο φαροφύλακας ζει μόνος.", "Greek"),
        ("A storm", None),
        ("12 + 3", None),
        ("Ночь night", None),
    ],
)
def test_the_language_of_a_text(text: str, language: str | None) -> None:
    assert language_of(text) == language


def test_the_language_follows_the_content() -> None:
    which = ContentLanguage()
    story = "Смотритель маяка зажигает лампу."
    assert which(content={"story": story, "style": "ink and watercolour of the sea and the sky"})["language"] == "Russian"
    assert which(content={"story": story, "language": "Latin"})["language"] == "Latin"
    assert which(content={"style": "ink", "chronicle": ["A storm", story]})["language"] == "Russian"
    assert which(content={"glossary": {"Мара": "старуха", "Том": "рыжий мальчик"}})["language"] == "Russian"
    assert which(content={"style": "ink"})["language"] == which()["language"] == "the language of the world's own texts"
