"""Readers of actions: rules, and the small network beside them."""

from __future__ import annotations

import random

import pytest
import torch

from scripts.typed_actions import TYPED_ACTIONS, understood
from tests.blocks.simulation.test_actions import TABLE, TURNED_ROUND
from tests.blocks.simulation.test_typed_lines import typed
from wgtorch.blocks.simulation.action import Action
from wgtorch.blocks.simulation.lexicon import bare, words
from wgtorch.blocks.simulation.normalization import written_out
from wgtorch.blocks.simulation.readers import RuleActionReader, TrainedActionReader, agreed, key_of, tokenized
from wgtorch.core.block import BlockRegistry
from wgtorch.core.errors import ConfigError
from wgtorch.train.simulation.actions import ActionReading, TypedActions
from wgtorch.train.simulation.lines import Grammar, line


@pytest.fixture(scope="module")
def trained() -> TrainedActionReader:
    return BlockRegistry.build({"block_type": "reader/trained", "config": {"checkpoint_ref": "wgtorch:action_reader"}})


def test_the_shipped_reader_understands_the_list_and_turns_nothing_round(trained: TrainedActionReader) -> None:
    found = understood(trained)
    assert found["right"] >= 0.95 and found["turned_round"] == 0


def test_plain_lines_keep_the_meaning_that_the_rules_find(trained: TrainedActionReader) -> None:
    for text in (*TABLE, *TURNED_ROUND):
        read, ruled = trained.read(text), RuleActionReader().read(text)
        assert [(action.verb, action.negated) for action in read] == [(action.verb, action.negated) for action in ruled], text


@pytest.mark.parametrize(
    ("text", "verb", "negated", "place"),
    [
        ("dont go too the sea", "go", True, "sea"),
        ("walkin to the forrest", "go", False, "forest"),
        ("to the sea I walk", "go", False, "sea"),
    ],
)
def test_the_network_reads_what_is_misspelled_or_in_another_order(trained, text, verb, negated, place) -> None:
    (action,) = trained.read(text)
    assert (action.verb, action.negated, bare(action.place)) == (verb, negated, place)


@pytest.mark.parametrize(
    ("text", "acts"),
    [
        ("put my feet up", [("rest", False)]),
        ("too tired to go on, I lie down", [("rest", False)]),
        ("having nothing better to do, I wander about", [("wander", False)]),
        ("the last thing I want is to fight Igor", [("harm", True)]),
        ("like hell I'm going in there", [("enter", True)]),
        ("I change my mind about going to the sea", [("go", True)]),
        ("do not, I repeat, do not enter the cave", [("enter", True)]),
        ("read the letter, burn it, tell no one", [("read", False), ("burn", False), ("talk", True)]),
        ("everyone but me goes to the sea", [("remark", False)]),
        ("why don't you go and drown yourself, Elias", [("talk", False)]),
        ("take the lamp and light it", [("take", False), ("light", False)]),
        ("I leave the lamp with Rasmus", [("give", False)]),
        ("leave the lamp here", [("drop", False)]),
        ("leave the house with Anna", [("leave", False)]),
    ],
)
def test_what_no_reading_of_a_verb_alone_shows(trained, text, acts) -> None:
    """A denial of something else, somebody else's act, a thing that can be none: no act is made of them, and none is turned round."""
    assert [(action.verb, action.negated) for action in trained.read(text)] == acts


@pytest.mark.parametrize("text", ["blargh the fnord", "geh zum Meer", "vaya al mar", "water the garden", "reticulate the splines", "zzz"])
def test_no_word_that_nobody_knows_is_made_an_act(trained, text) -> None:
    assert [action.verb for action in trained.read(text)] == ["unknown"]


def test_what_is_tried_in_tests_is_never_trained_on() -> None:
    lists = (typed(name) for name in ("typed_lines.txt", "held_out_lines.txt", "fresh_lines.txt"))
    tried = (*TABLE, *TURNED_ROUND, *(entry[0] for entry in TYPED_ACTIONS), *(text for entries in lists for text, _ in entries))
    held_out = {" ".join(words(written_out(text))) for text in tried}
    made = {" ".join(words(" ".join(line(random.Random(f"0/{index}"))["words"]))) for index in range(20_000)}
    assert len(made) > 19_000 and not held_out & made


def test_words_and_what_they_are_belong_together_and_the_loss_falls() -> None:
    torch.manual_seed(0)
    data = TypedActions(count=64, validation=8, batch_size=64)
    batch = data.collate([data.train()[index] for index in range(64)])
    assert {len(batch[name]) for name in ("tags", "heads", "moods", "starts")} == {sum(map(len, batch["words"]))}
    reader, objective = TrainedActionReader(words=8, size=4, raw=8, ngrams=512, width=16, layers=1), ActionReading(vectors=None)
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


def test_the_grammar_marks_one_head_for_each_act_and_says_its_mood() -> None:
    grammar = Grammar(random.Random(3))
    for lead, mood in (("i refuse to {b}", "not"), ("what if i {d}", "unreal"), ("we might as well {b}", "do")):
        said = grammar.led(lead, mood, tail=False)
        (at,) = (at for at, verb in enumerate(said.heads) if verb)
        assert said.moods[at] == mood and said.words[:at] == tokenized(lead)[: lead.count(" ")]
    said = Grammar(random.Random(4)).contrast()
    assert any(said.heads)


def test_what_ships_reads_as_what_was_trained() -> None:
    torch.manual_seed(1)
    reader = TrainedActionReader(words=3, size=4, raw=8, ngrams=64, width=8, layers=1)
    reader.keys[:2], reader.vectors[:2] = torch.tensor(sorted(map(key_of, ("take", "lamp")))), torch.randn(2, 8)
    small, said = reader.made_small(), [["Take", "the", "lamp"], ["rest"]]
    assert small.config["raw"] == 0 and small.vectors.shape == (3, 4)
    assert reader.knows(["take", "lamp", "the"]).tolist() != [-1, -1, -1] and reader.knows(["the"]).item() == -1
    for one, other in zip(reader.logits(said), small.logits(said), strict=True):
        torch.testing.assert_close(one, other)
    with pytest.raises(ConfigError, match="raw above 0"):
        ActionReading(vectors=None).check(TrainedActionReader(words=3, size=4, ngrams=64, width=8, layers=1))
    ActionReading(vectors=None).check(small)  # what ships may be trained on


@pytest.mark.parametrize(
    ("text", "rules", "network", "verbs"),
    [
        ("hit the hay", [Action("harm", "the hay")], ([Action("sleep")], 0.99), [("sleep", False)]),
        ("hit the hay", [Action("harm", "the hay")], ([Action("sleep")], 0.2), [("harm", False)]),
        ("i will not hit it", [Action("harm", "it", negated=True)], ([Action("harm", "it")], 0.99), [("harm", True)]),
        ("hit it", [Action("harm", "it")], ([Action("harm", "it", negated=True)], 0.99), [("harm", False)]),
        ("her hand fell", [Action("remark")], ([Action("harm", negated=True)], 0.99), [("remark", False)]),
    ],
    ids=["sure", "unsure", "the rules forbid it", "nothing denies it", "a denial out of nothing"],
)
def test_the_network_is_followed_where_it_is_sure_and_no_rule_forbids_it(text, rules, network, verbs) -> None:
    assert [(action.verb, action.negated) for action in agreed(rules, network, text, 0.5)] == verbs


def test_actions_by_name_and_what_is_no_action() -> None:
    reader = RuleActionReader()
    assert reader(action={"Anna": "rest", "Bruno": " ", "Cara": None})["actions"].keys() == {"Anna"}
    assert reader(action=None) == reader(action="\n ") == {"actions": {}}
    (entry,) = reader(action="x" * 9000)["actions"][""]
    assert entry["verb"] == "unknown" and len(entry["words"]) <= 2000


def test_a_reader_of_a_world_that_was_saved_before_is_todays() -> None:
    config = {"buckets": 8192, "width": 96, "depth": 3, "sure": 0.9, "checkpoint_ref": "wgtorch:action_reader"}
    assert BlockRegistry.build({"block_type": "reader/trained", "config": config}).read("she picked up the ring")[0].verb == "take"


@pytest.mark.parametrize("config", [{"width": 0}, {"sure": 2.0}])
def test_settings_that_make_no_sense(config) -> None:
    with pytest.raises(ValueError, match="expected positive sizes, and a share"):
        TrainedActionReader(**config)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("\x1b[31mgo\x07\x00 north\x1b[0m", "go north"),
        ("\u202ego\u2066 north", "go north"),
        ("go\n\tnorth\x9f", "go north"),
        ("\ud800", "?"),
        ("🔥" * 10_000, "🔥" * 1999 + "…"),
    ],
)
def test_what_is_not_seen_or_too_long_is_not_kept_of_what_was_typed(typed: str, words: str) -> None:
    reader = RuleActionReader()
    [[action]] = reader(action={"Anna\x1b[2J" + "h" * 500: typed})["actions"].values()
    [name] = reader(action={"Anna\x1b[2J" + "h" * 500: typed})["actions"]
    assert action["words"] == words
    assert name.isprintable() and len(name) == 80
