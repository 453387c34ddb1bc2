"""Readers of actions: rules, and the small network beside them."""

from __future__ import annotations

import random

import pytest
import torch

from tests.blocks.simulation.test_actions import TABLE, TURNED_ROUND
from wgtorch.blocks.simulation.lexicon import words
from wgtorch.blocks.simulation.readers import RuleActionReader, TrainedActionReader
from wgtorch.core.block import BlockRegistry
from wgtorch.evaluation.typed_actions import TYPED_ACTIONS, understood
from wgtorch.train.simulation.actions import ActionReading, TypedActions, line


@pytest.fixture(scope="module")
def trained() -> TrainedActionReader:
    return BlockRegistry.build({"block_type": "reader/trained", "config": {"checkpoint_ref": "wgtorch:action_reader"}})


def test_the_shipped_reader_understands_the_list_and_turns_nothing_round(trained: TrainedActionReader) -> None:
    found = understood(trained)
    assert found["right"] >= 0.95 and found["turned_round"] == 0


def test_where_rules_read_the_network_is_not_asked(trained: TrainedActionReader) -> None:
    for text in (*TABLE, *TURNED_ROUND):
        assert trained.read(text) == RuleActionReader().read(text), text


@pytest.mark.parametrize(
    ("text", "verb", "negated", "place"),
    [
        ("dont go too the sea", "go", True, "the sea"),
        ("walkin to the forrest", "go", False, "the forrest"),
        ("to the sea I walk", "go", False, "the sea"),
    ],
)
def test_the_network_reads_what_is_misspelled_or_in_another_order(trained, text, verb, negated, place) -> None:
    (action,) = trained.read(text)
    assert (action.verb, action.negated, action.place) == (verb, negated, place)


@pytest.mark.parametrize("text", ["blargh the fnord", "geh zum Meer", "vaya al mar", "water the garden", "reticulate the splines", "zzz"])
def test_no_word_that_nobody_knows_is_made_an_act(trained, text) -> None:
    assert [action.verb for action in trained.read(text)] == ["unknown"]


def test_what_is_tried_in_tests_is_never_trained_on() -> None:
    held_out = {" ".join(words(text)) for text in (*TABLE, *TURNED_ROUND, *(entry[0] for entry in TYPED_ACTIONS))}
    rng = random.Random(0)
    assert not held_out & {" ".join(line(rng)["words"]) for _ in range(20_000)}


def test_lines_and_their_tags_belong_together_and_the_loss_falls() -> None:
    torch.manual_seed(0)
    data = TypedActions(count=64, validation=8, batch_size=64)
    batch = data.collate([data.train()[index] for index in range(64)])
    assert all(len(said) == len(tags) for said, tags in zip(batch["words"], batch["tags"], strict=True))
    reader, objective = TrainedActionReader(buckets=512, width=16, depth=1), ActionReading()
    objective.check(reader)
    optimizer = torch.optim.Adam(reader.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        loss = objective(reader, batch, None)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_actions_by_name_and_what_is_no_action() -> None:
    reader = RuleActionReader()
    assert reader(action={"Anna": "rest", "Bruno": " ", "Cara": None})["actions"].keys() == {"Anna"}
    assert reader(action=None) == reader(action="\n ") == {"actions": {}}
    (entry,) = reader(action="x" * 9000)["actions"][""]
    assert entry["verb"] == "unknown" and len(entry["words"]) <= 2000


@pytest.mark.parametrize("config", [{"width": 0}, {"sure": 2.0}])
def test_settings_that_make_no_sense(config) -> None:
    with pytest.raises(ValueError, match="expected positive sizes, and a share"):
        TrainedActionReader(**config)
