"""The word model: splitting and joining, causality, going on with a text."""

import itertools

import pytest
import torch

from wgtorch.blocks.scenes.teller import END, PAD, UNKNOWN, WordModel, split
from wgtorch.core.block import BlockRegistry
from wgtorch.core.errors import ConfigError
from wgtorch.core.run.rng import Rng

WORDS = ["a", "castle", "night", "at", ".", ",", "Told", ":"]


def tiny(**config):
    torch.manual_seed(1)
    return WordModel(**{"words": WORDS, "width": 16, "depth": 2, "heads": 2, "max_length": 24, **config}).eval()


def test_words_and_marks_are_split_and_joined():
    model = tiny()
    assert split("Told: a castle, at night.") == ["Told", ":", "a", "castle", ",", "at", "night", "."]
    tokens = model.encode("Told: a castle, at dawn.")
    assert tokens[-2] == UNKNOWN and PAD not in tokens and END not in tokens
    assert model.decode(tokens) == "Told: a castle, at [unknown]."
    assert model.decode([*model.encode("a castle"), END, *model.encode("night")]) == "a castle"


@torch.no_grad()
def test_a_word_sees_only_those_before_it():
    model = tiny()
    tokens = torch.randint(3, 11, (2, 12), generator=torch.Generator().manual_seed(0))
    other = tokens.clone()
    other[:, 7:] = (other[:, 7:] - 3 + 1) % 8 + 3
    before, after = model.logits(tokens), model.logits(other)
    assert before.shape == (2, 12, len(WORDS) + 3)
    torch.testing.assert_close(before[:, :7], after[:, :7], rtol=0, atol=1e-6)
    assert (before[:, 7:] - after[:, 7:]).abs().max() > 1e-2


def answering(model, answer):
    """The model with logits that say `answer` after "Told:", word by word, and then the end."""
    order = [*model.encode(":"), *model.encode(answer), END]
    following = dict(itertools.pairwise(order))
    model.logits = lambda tokens: torch.nn.functional.one_hot(
        torch.tensor([[following.get(int(token), END) for token in row] for row in tokens]), len(WORDS) + 3
    ).float()
    return model


def test_it_goes_on_word_by_word_up_to_the_end():
    model = answering(tiny(), "a castle at night .")
    assert model.run({"prompt": "Told:"})["text"] == "a castle at night."
    assert model(prompt=["Told:", "castle"])["text"] == ["a castle at night.", "at night."]


def test_it_stops_when_there_is_no_room_and_reads_the_end_of_a_long_prompt():
    model = tiny(max_length=9)
    model.logits = lambda tokens: torch.nn.functional.one_hot(torch.full_like(tokens, 3), len(WORDS) + 3).float()
    assert model(prompt="a castle")["text"] == " ".join(["a"] * 7)
    assert model(prompt="night " * 30)["text"] == "a a a"


def test_unknown_words_are_never_said_and_draws_follow_the_seed():
    model = tiny(temperature=1.0)
    first = model(prompt=["Told:"] * 6, rng=Rng(1, "x"))["text"]
    assert first == model(prompt=["Told:"] * 6, rng=Rng(1, "x"))["text"] != model(prompt=["Told:"] * 6, rng=Rng(2, "x"))["text"]
    assert len(set(first)) > 3 and not any("[unknown]" in text for text in first)


def test_its_config_builds_its_equal():
    model = BlockRegistry.build({"block_type": "llm/words", "config": {"words": WORDS, "width": 8, "depth": 1, "heads": 1}})
    assert type(model).from_config(model.config).config == model.config
    assert model.role == "llm"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"words": ["a", "a"]}, "found 2 words, 1 of them different"),
        ({"width": 10, "heads": 4}, "width 10 must be a multiple of heads 4"),
        ({"temperature": -1.0}, "temperature: found -1.0"),
    ],
)
def test_settings_that_cannot_be_are_refused(config, message):
    with pytest.raises(ConfigError, match=message):
        tiny(**config)
