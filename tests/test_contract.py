"""The contract of a stage: slots to ports and back, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.blocks_for_tests import block_of
from tests.world_blocks import FULL, around, assert_same
from wgtorch.core.errors import PortTypeError, StateError, UnknownNameError
from wgtorch.core.run.context import RunContext, RunOptions
from wgtorch.stage import Stage
from wgtorch.world_runtime.contract import MergeRegistry, StateContract, matching_reads, matching_writes, register_merge
from wgtorch.world_runtime.state import State


def echo(text: str) -> dict[str, Any]:
    return {"text": text, "length": len(text)}


def two_outputs(name: str = "p"):
    """A pipeline text -> text, length."""
    return around(block_of(echo, text="text", length="number"), name)


def one(function, **outputs: str):
    return around(block_of(function, **outputs), "p")


def stage_with(*pipelines, **named) -> Stage:
    stage = Stage("painter")
    for index, pipeline in enumerate(pipelines):
        stage.add_pipeline(pipeline, f"p{index}")
    for node_id, pipeline in named.items():
        stage.add_pipeline(pipeline, node_id)
    return stage


# --- joining by name --------------------------------------------------------------------------------------------------


def test_names_that_match_are_joined():
    def tell(intent: str, content: dict, action: str = "none", style: str = "plain") -> str:
        return f"{intent} {sorted(content)} {action} {style}"

    stage = stage_with(one(tell, outcome="text"))
    stage.set_state_contract(["intent"], ["outcome"])
    assert stage.state_contract.reads == {"p0.intent": "intent", "p0.content": "content", "p0.action": "action"}
    assert stage.state_contract.writes == {"outcome": ("p0.outcome",)}
    state = stage.run(State(intent="rain"), action="go", content={"story": "s"})
    assert state.outcome == "rain ['story'] go plain"


def test_one_port_and_one_slot_need_no_name():
    stage = stage_with(one(lambda x: x.upper(), y="text"))
    stage.set_state_contract(["intent"], ["outcome"])
    assert stage.run(State(intent="rain")).outcome == "RAIN"


def test_a_name_that_matches_several_ports_is_an_error():
    stage = stage_with(two_outputs(), two_outputs())
    with pytest.raises(StateError, match=r"painter: 'text' matches several ports, \['p0.text', 'p1.text'\]; say which in mapping_input"):
        stage.set_state_contract(["text"], ["outcome"], mapping_output={"outcome": "p0.text"})
    with pytest.raises(
        StateError, match=r"output slot 'text' matches several ports, \['p0.text', 'p1.text'\]; say which in mapping_output"
    ):
        stage.set_state_contract(["intent"], ["text"], mapping_input={"p0.text": "intent", "p1.text": "intent"})


def test_an_output_slot_that_matches_no_port_is_an_error():
    stage = stage_with(two_outputs())
    with pytest.raises(
        StateError, match=r"output slot 'outcome' matches no port; there are \['p0.text', 'p0.length'\]; say which in mapping_output"
    ):
        stage.set_state_contract(["intent"], ["outcome"])


def test_ports_inside_the_stage_are_not_joined_again():
    def intent(intent: str) -> str:
        return f"{intent}!"

    stage = stage_with(one(intent, intent="text"), one(intent, intent="text"))
    stage.add_edge("p0.intent", "p1.intent")
    stage.set_state_contract(["intent"], ["intent"])
    assert stage.state_contract.reads == {"p0.intent": "intent"}
    assert stage.state_contract.writes == {"intent": ("p1.intent",)}
    assert stage.run(State(intent="go")).intent == "go!!"


def test_matching_without_a_stage():
    assert matching_reads(["intent"], ["a.x", "b.intent", "b.action"], "s") == {"b.intent": "intent", "b.action": "action"}
    assert matching_reads(["intent"], ["a.x", "a.y"], "s") == {}
    assert matching_writes(["recipe"], ["a.y", "b.recipe"], "s") == {"recipe": ("b.recipe",)}
    assert matching_writes(["recipe"], ["a.y"], "s") == {"recipe": ("a.y",)}


# --- mappings ---------------------------------------------------------------------------------------------------------


def test_sources_are_slots_fields_action_and_content():
    seen: list[dict] = []

    def note(prompt: str, second: str, action: Any, style: str, world: dict, absent: str = "left out") -> str:
        seen.append({"prompt": prompt, "second": second, "action": action, "style": style, "world": world, "absent": absent})
        return "done"

    stage = stage_with(one(note, y="text"))
    stage.set_state_contract(
        ["recipe"],
        ["outcome"],
        {
            "p0.prompt": "recipe.prompt",
            "p0.second": "recipe.all.1",
            "p0.action": "action",
            "p0.style": "content.style.name",
            "p0.world": "content",
            "p0.absent": "recipe.nothing.here",
        },
        {"outcome": "p0.y"},
    )
    content = {"style": {"name": "ink"}}
    action = object()
    stage.run(State(recipe={"prompt": "a", "all": ["b", "c"]}), action=action, content=content)
    assert seen == [{"prompt": "a", "second": "c", "action": action, "style": "ink", "world": content, "absent": "left out"}]
    assert seen[0]["action"] is action and seen[0]["world"] is content


def test_one_source_may_feed_several_ports():
    stage = stage_with(two_outputs(), two_outputs())
    stage.set_state_contract(
        ["intent"],
        ["outcome"],
        {"p0.text": "intent", "p1.text": "intent"},
        {"outcome": ["p0.text", "p1.text"]},
        merge={"outcome": "append"},
    )
    assert stage.run(State(intent="x")).outcome == ["x", "x"]
    assert list(stage.get_state_input_spec()) == ["intent"]
    assert set(stage.get_state_input_spec()["intent"]) == {"p0.text", "p1.text"}
    assert set(stage.get_state_output_spec()["outcome"]) == {"p0.text", "p1.text"}
    assert stage.get_state_output_spec()["outcome"]["p0.text"].dtype == "text"


def test_a_field_of_a_slot_and_of_the_content_can_be_written():
    stage = stage_with(two_outputs())
    stage.set_state_contract(
        ["intent"],
        ["recipe"],
        {"p0.text": "intent"},
        {"recipe.words.main": "p0.text", "content.sizes.last": "p0.length"},
    )
    recipe, content = {"words": {"old": 1}, "size": 3}, {"sizes": {"first": 1}, "style": "ink"}
    state = State(intent="rain", recipe=recipe)
    run = RunContext(RunOptions("painter"))
    after = stage(state, content=content, run_context=run)
    assert after.recipe == {"words": {"old": 1, "main": "rain"}, "size": 3}
    assert run.content == {"sizes": {"first": 1, "last": 4}, "style": "ink"}
    assert recipe == {"words": {"old": 1}, "size": 3} and content == {"sizes": {"first": 1}, "style": "ink"}
    assert state.recipe is recipe


def test_a_field_of_what_has_none():
    stage = stage_with(two_outputs())
    stage.set_state_contract(["recipe"], ["outcome"], {"p0.text": "recipe.prompt"}, {"outcome": "p0.text"})
    with pytest.raises(StateError, match=r"painter: recipe\.prompt: 'prompt' asks a field of str 'a picture'; expected a mapping"):
        stage.run(State(recipe="a picture"))


# --- several writers --------------------------------------------------------------------------------------------------


def writers(merge: str | None, before: Any = None) -> State:
    stage = stage_with(one(lambda x: [f"{x}1"], y="any"), one(lambda x: f"{x}2", y="any"))
    stage.set_state_contract(
        ["intent"],
        ["artifacts"],
        {"p0.x": "intent", "p1.x": "intent"},
        {"artifacts": ["p0.y", "p1.y"]},
        merge={} if merge is None else {"artifacts": merge},
    )
    return stage.run(State(intent="a", artifacts=before))


def test_two_writers_without_a_rule_are_an_error():
    with pytest.raises(
        StateError,
        match=r"painter: \['p0.y', 'p1.y'\] all write 'artifacts' and no rule says how; add merge=\{'artifacts': 'append'\} or 'replace'",
    ):
        writers(None)


def test_append_and_replace():
    before = ["old"]
    assert writers("append").artifacts == ["a1", "a2"]
    assert writers("append", before).artifacts == ["old", "a1", "a2"]
    assert before == ["old"]
    assert writers("replace", ["old"]).artifacts == "a2"


def test_a_registered_rule():
    @register_merge("test_joined")
    def joined(before: Any, value: Any) -> Any:
        return "+".join(filter(None, [before, *(value if isinstance(value, list) else [value])]))

    assert "test_joined" in MergeRegistry
    assert writers("test_joined", "old").artifacts == "old+a1+a2"


def test_an_unknown_rule():
    with pytest.raises(StateError, match=r"unknown merge rule 'apend' for 'artifacts'; did you mean 'append'\?"):
        writers("apend")


def test_a_rule_for_one_writer_adds_to_what_was_there():
    stage = stage_with(one(lambda x: x, y="any"))
    stage.set_state_contract(["intent"], ["artifacts"], {"p0.x": "intent"}, {"artifacts": "p0.y"}, merge={"artifacts": "append"})
    assert stage.run(State(intent="new", artifacts=["old"])).artifacts == ["old", "new"]


# --- what is refused --------------------------------------------------------------------------------------------------


def test_ports_that_do_not_exist():
    stage = stage_with(two_outputs())
    with pytest.raises(UnknownNameError, match=r"painter/p0: no input 'txt'; did you mean 'text'\?"):
        stage.set_state_contract(["intent"], ["outcome"], {"p0.txt": "intent"}, {"outcome": "p0.text"})
    with pytest.raises(UnknownNameError, match=r"painter/p0: no output 'lenght'; did you mean 'length'\?"):
        stage.set_state_contract(["intent"], ["outcome"], {"p0.text": "intent"}, {"outcome": "p0.lenght"})
    with pytest.raises(UnknownNameError, match=r"no node 'q'; known: 'p0'"):
        stage.set_state_contract(["intent"], ["outcome"], {"q.text": "intent"}, {"outcome": "p0.text"})
    with pytest.raises(StateError, match=r"port 'text' in the mapping; expected 'node\.port'"):
        stage.set_state_contract(["intent"], ["outcome"], {"text": "intent"}, {"outcome": "p0.text"})
    assert stage.state_contract == StateContract()


def test_an_output_slot_that_nothing_feeds():
    stage = stage_with(two_outputs())
    with pytest.raises(StateError, match="output slot 'recipe' is fed by no port; add it to mapping_output"):
        stage.set_state_contract(["intent"], ["outcome", "recipe"], {"p0.text": "intent"}, {"outcome": "p0.text"})


@pytest.mark.parametrize("source", ["action", "content"])
def test_action_and_content_are_no_slots(source):
    stage = stage_with(two_outputs())
    with pytest.raises(StateError, match=f"'{source}' is no slot; map a port to it in mapping_input"):
        stage.set_state_contract([source], ["outcome"], {"p0.text": source}, {"outcome": "p0.text"})


def test_one_source_cannot_feed_ports_that_exclude_each_other():
    def shout(text: str) -> str:
        return text

    def shift(tensor: torch.Tensor) -> torch.Tensor:
        return tensor + 1

    stage = stage_with(one(shout, y="text"), one(shift, y="tensor"))
    with pytest.raises(PortTypeError, match=r"painter: input 'intent' cannot feed p1\.tensor as well"):
        stage.set_state_contract(["intent"], ["outcome"], {"p0.text": "intent", "p1.tensor": "intent"}, {"outcome": "p0.y"})


def test_slots_that_are_not_in_the_schema():
    stage = stage_with(two_outputs())
    stage.set_state_contract(["intnt"], ["outcome"], {"p0.text": "recipe.prompt"}, {"outcome": "p0.text", "content.size": "p0.length"})
    found = {finding.found for finding in stage.slot_findings(("outcome", "answer"))}
    assert found == {"slot 'intnt' is not in the schema", "slot 'recipe' is not in the schema"}


# --- as data ----------------------------------------------------------------------------------------------------------


def test_it_survives_its_config():
    stage = stage_with(two_outputs(), two_outputs())
    stage.set_state_contract(
        ["intent"],
        ["outcome"],
        {"p0.text": "intent", "p1.text": "content.style"},
        {"outcome": ["p0.text", "p1.text"], "content": "p0.length"},
        merge={"outcome": "append"},
        new_state=True,
    )
    config = stage.state_contract.to_config()
    again = stage_with(two_outputs(), two_outputs())
    again.set_state_contract(**config)
    assert again.state_contract == stage.state_contract
    assert config["mapping_output"] == {"outcome": ["p0.text", "p1.text"], "content": "p0.length"}


def test_reading_and_writing_as_plain_functions():
    contract = StateContract(reads={"a.x": "intent", "a.y": "recipe.size"}, writes={"artifacts": ("a.out",)})
    state = State(**FULL)
    assert contract.read(state, None, None, "s") == {"intent": "the given intent"}
    after, content = contract.write(state, {"artifacts": ["new"]}, {"story": "s"})
    assert after.artifacts == ["new"] and content == {"story": "s"}
    assert_same(state, State(**FULL))
    unchanged, _ = contract.write(state, {}, None)
    assert_same(unchanged, state)


def test_content_that_is_written_is_another_mapping_than_before():
    """The world tells by it that it was updated, also when the update changed nothing."""
    contract = StateContract(writes={"content": ("a.out",)})
    content = {"story": "s"}
    _, after = contract.write(State(), {"content": content}, content)
    assert after == content and after is not content
    _, untouched = contract.write(State(), {}, content)
    assert untouched is content


def test_content_must_be_a_mapping():
    contract = StateContract(writes={"content": ("a.out",)})
    with pytest.raises(StateError, match=r"\['a.out'\] wrote str 'a story' as the content; expected a mapping"):
        contract.write(State(), {"content": "a story"}, {})


def test_new_state_keeps_the_schema_and_nothing_else():
    contract = StateContract(writes={"b": ("n.out",)}, new_state=True)
    after, _ = contract.write(State(schema=("a", "b"), a=1, b=2), {"b": 3}, None)
    assert after.schema == ("a", "b") and dict(after) == {"a": None, "b": 3}
