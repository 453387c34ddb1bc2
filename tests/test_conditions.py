"""Execution conditions: lists of slots, presets, registered names and callables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.world_blocks import FULL
from wgtorch.core.errors import StateError, UnknownNameError
from wgtorch.world_runtime.conditions import ConditionRegistry, check_condition, register_condition, slot_findings, unmet
from wgtorch.world_runtime.state import CANONICAL_SLOTS, State

SLOTS = st.sets(st.sampled_from(CANONICAL_SLOTS))


def holding(names) -> State:
    return State(**{name: FULL[name] for name in names})


@given(SLOTS, SLOTS, SLOTS)
def test_a_list_asks_for_filled_and_empty_slots(filled, wanted, unwanted):
    condition = [*wanted, *(f"!{name}" for name in unwanted)]
    assert (unmet(condition, holding(filled)) is None) is (wanted <= filled and not unwanted & filled)


def test_the_reason_names_the_slots():
    state = holding(["intent", "outcome"])
    assert unmet(["recipe"], state) == "recipe is empty"
    assert unmet(["recipe", "artifacts"], state) == "recipe, artifacts are empty"
    assert unmet(["intent", "!outcome"], state) == "outcome is filled"
    assert unmet(["recipe", "!outcome", "!intent"], state) == "recipe is empty and outcome, intent are filled"


@given(SLOTS)
def test_presets(filled):
    state = holding(filled)
    number = {name: index for index, name in enumerate(CANONICAL_SLOTS, start=1)}
    have = {number[name] for name in filled}
    expected = {
        "always": True,
        "philosopher": {1, 2, 3} <= have and 4 not in have,
        "author": {1, 2, 3, 4} <= have and 5 not in have,
        "complete": have == {1, 2, 3, 4, 5},
        "architect": 1 in have,
        "creator": 2 in have,
    }
    assert {name: unmet(name, state) is None for name in expected} == expected


def test_nothing_and_an_empty_list_always_hold():
    assert unmet(None, State()) is None
    assert unmet([], State()) is None


def test_a_callable_is_asked_and_named():
    def is_night(state):
        return "night" in (state.intent or "")

    assert unmet(is_night, State(intent="at night")) is None
    assert unmet(is_night, State(intent="by day")) == "is_night does not hold"
    assert unmet(lambda state: False, State())  # some reason


def test_a_registered_name():
    name = "test_is_long"

    @register_condition(name)
    def is_long(state):
        return len(state.intent or "") > 3

    assert name in ConditionRegistry
    assert unmet(name, State(intent="long enough")) is None
    assert unmet(name, State(intent="x")) == "'test_is_long' does not hold"
    assert check_condition(name, "stage") == name


def test_unknown_names_and_slots():
    with pytest.raises(StateError, match=r"world/paint: unknown condition 'complet'; did you mean 'complete'\?"):
        check_condition("complet", "world/paint")
    with pytest.raises(StateError, match=r"A list names slots that must be filled: \['intent'\]"):
        check_condition("intent", "stage")
    with pytest.raises(UnknownNameError, match="unknown condition 'complet'"):
        unmet("complet", State())
    with pytest.raises(StateError, match="no slot 'intnt'; did you mean 'intent'"):
        unmet(["intnt"], State())
    with pytest.raises(StateError, match="no slot 'intnt'"):
        unmet(["!intnt"], State())


@pytest.mark.parametrize("wrong", [3, [1.5], object(), {None: 2}.keys()])
def test_what_is_no_condition(wrong):
    with pytest.raises(StateError, match=r"stage: condition .*; expected a list of slots, a registered name, or a callable"):
        check_condition(wrong, "stage")


def test_check_returns_plain_lists():
    assert check_condition(("intent", "!outcome"), "stage") == ["intent", "!outcome"]
    assert check_condition(None, "stage") is None


def test_slots_that_a_schema_does_not_have():
    schema = ("intent", "answer")
    findings = slot_findings(["intent", "!recipe", "answer", "artifacts"], schema, "stage")
    assert [finding.found for finding in findings] == [
        "condition on slot '!recipe', which is not in the schema",
        "condition on slot 'artifacts', which is not in the schema",
    ]
    assert findings[0].where == "stage" and findings[0].expected == "one of ['intent', 'answer']"
    assert slot_findings(lambda state: True, schema, "stage") == []


def test_slots_of_a_preset_are_looked_at_too():
    findings = slot_findings("philosopher", ("intent", "recipe", "artifacts"), "stage")
    assert [finding.found for finding in findings] == ["condition on slot '!description', which is not in the schema"]


def test_slots_may_be_named_by_number():
    state = State(intent="a storm", recipe={"prompts": ["rain"]})
    assert unmet([1, 2], state) is None
    assert unmet([1, 3], state) == "artifacts is empty"
    assert unmet([1, "!2"], state.replace(recipe=None)) is None
    assert slot_findings([5, 6], State().schema, "stage")[0].found == "condition on slot 6, which is not in the schema"
