"""State: five slots, never changed."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.world_blocks import FULL, assert_same
from wgtorch.core.errors import StateError
from wgtorch.world_runtime.state import CANONICAL_SLOTS, State, holds_something, look_up


def test_slots_by_name_attribute_and_number():
    state = State(**FULL)
    for number, name in enumerate(("intent", "recipe", "artifacts", "description", "outcome"), start=1):
        assert state[name] is state[number] is getattr(state, name) is FULL[name]


@pytest.mark.parametrize("key", [0, 6, -1, True, 1.0, None, ""])
def test_a_number_or_name_that_is_no_slot(key):
    with pytest.raises(StateError, match=r"State has no slot .*numbers 1 to 5"):
        State()[key]


def test_a_misspelt_slot_is_told_the_nearest():
    for wrong in (lambda: State(artefacts=[]), lambda: State().replace(artefacts=[]), lambda: State()["artefacts"]):
        with pytest.raises(StateError, match="no slot 'artefacts'; did you mean 'artifacts'"):
            wrong()
    with pytest.raises(AttributeError, match="'artefacts'; did you mean 'artifacts'"):
        _ = State().artefacts


def test_a_state_never_changes():
    state = State(intent="a storm comes")
    with pytest.raises(StateError, match=r"a State never changes; write state\.replace\(intent=\.\.\.\)"):
        state.intent = "calm"
    with pytest.raises(StateError, match="never changes"):
        state.other = 1
    with pytest.raises(TypeError):
        state["intent"] = "calm"  # type: ignore[index]
    with pytest.raises((AttributeError, StateError)):
        del state.intent
    assert state.intent == "a storm comes"


def test_replace_gives_another_state():
    before = State(**FULL)
    after = before.replace(intent="calm", outcome=None)
    assert after.intent == "calm" and after.outcome is None
    assert after.recipe is before.recipe
    assert_same(before, State(**FULL))


@pytest.mark.parametrize(
    ("value", "holds"),
    [
        (None, False),
        ("", False),
        ([], False),
        ({}, False),
        (torch.empty(0, 3), False),
        (" ", True),
        (0, True),
        (False, True),
        ([None], True),
        (torch.zeros(()), True),
        (torch.zeros(1, 3), True),
    ],
)
def test_a_slot_is_filled_when_it_holds_something(value, holds):
    assert holds_something(value) is holds
    assert (State(artifacts=value).filled == ("artifacts",)) is holds


@given(st.sets(st.sampled_from(CANONICAL_SLOTS)))
def test_filled_and_complete(names):
    state = State(**{name: FULL[name] for name in names})
    assert state.filled == tuple(name for name in CANONICAL_SLOTS if name in names)
    assert state.complete is (len(names) == 5)


def test_it_is_a_mapping():
    state = State(intent="x")
    assert list(state) == list(CANONICAL_SLOTS) and len(state) == 5
    assert dict(state) == {**dict.fromkeys(CANONICAL_SLOTS), "intent": "x"}
    assert "recipe" in state and "other" not in state
    assert State(**state) == state != State(intent="y")
    with pytest.raises(TypeError):
        hash(state)


def test_a_schema_of_its_own():
    state = State(schema=("question", "answer"), question="why?")
    assert state.schema == ("question", "answer") and state[1] == "why?" and state[2] is None
    assert state.replace(answer="because").complete
    with pytest.raises(StateError, match="numbers 1 to 2"):
        state[3]
    with pytest.raises(StateError, match="no slot 'intent'"):
        state.replace(intent="x")


def test_copies_and_pickles():
    state = State(**FULL)
    assert_same(pickle.loads(pickle.dumps(state)), state)
    assert copy.copy(state).artifacts is state.artifacts
    deep = copy.deepcopy(state)
    assert deep.artifacts[0] is not state.artifacts[0]
    assert_same(deep, state)
    assert copy.deepcopy(State(schema=("a", "b"), a=1)).schema == ("a", "b")


def test_repr_is_short():
    text = repr(State(intent="x" * 5000, artifacts=[torch.zeros(3, 64, 64)]))
    assert len(text) < 300
    assert "Tensor[3, 64, 64]" in text and "recipe" not in text


def test_look_up_walks_mappings_and_lists():
    value = {"prompts": ["a", {"text": "b"}], "size": {"height": 64}}
    assert look_up(value, [], "w") is value
    assert look_up(value, ["size", "height"], "w") == 64
    assert look_up(value, ["prompts", "1", "text"], "w") == "b"
    assert look_up(value, ["prompts", "7"], "w") is None
    assert look_up(value, ["nothing", "there"], "w") is None
    assert look_up(None, ["a"], "w") is None
    with pytest.raises(StateError, match=r"stage: recipe\.size: 'size\.height\.x' asks a field of int 64; expected a mapping"):
        look_up(value, ["size", "height", "x"], "stage: recipe.size")
