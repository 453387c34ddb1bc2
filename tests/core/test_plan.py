"""The planner, without tensors: orders, slots, frees, loops, findings."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wgtorch
from tests.core.random_structures import Sketch, dags, loop_members, loops
from wgtorch.core.errors import ValidationError
from wgtorch.core.plan import NONE, Call, Chain, Combine, Loop, Plan, Step, make_plan, strong_components, upstream, validate_structure
from wgtorch.core.structure import Edge, Exposed, InputShape, NodeShape, Structure


def node(name: str, *inputs: str | InputShape, outputs: Sequence[str] = ("y",), **more: object) -> NodeShape:
    """A shape; inputs by name, ``?`` behind an optional one."""
    shapes = tuple(port if isinstance(port, InputShape) else InputShape(port.rstrip("?"), not port.endswith("?")) for port in inputs)
    return NodeShape(name, inputs=shapes, outputs=tuple(outputs), **more)  # type: ignore[arg-type]


def structure(nodes: Iterable[NodeShape], edges: str = "", inputs: str = "", outputs: str = "", *, loops: bool = True) -> Structure:
    """``edges`` as ``a.y>b.x ...``, exposed ports as ``a.x`` or ``a.x=name``."""

    def exposed(text: str) -> tuple[Exposed, ...]:
        entries = [entry.partition("=") for entry in text.split()]
        return tuple(Exposed(*port.split("."), name or port.split(".")[1]) for port, _, name in entries)

    joined = tuple(Edge(*source.split("."), *target.split(".")) for source, target in (edge.split(">") for edge in edges.split()))
    return Structure("g", {shape.node_id: shape for shape in nodes}, joined, exposed(inputs), exposed(outputs), loops)


CHAIN = structure([node("a", "x"), node("b", "x"), node("c", "x")], "a.y>b.x b.y>c.x", "a.x", "c.y")


def calls(plan: Plan) -> list[Call]:
    return [step for step in plan.steps if isinstance(step, Call)]


# --- the naive walk ---------------------------------------------------------------------------------------------------


def walk(plan: Plan, turns: int = 3) -> set[int]:
    """Walks a plan with names of slots alone; returns the slots that hold something at the end.

    Raises:
        AssertionError: a step reads a slot that was freed or never filled.
    """
    alive = {slot for _, slot, _ in plan.inputs} | {slot for _, _, slot in (*plan.feeds, *plan.fills)}

    def perform(step: Step) -> None:
        if isinstance(step, Loop):
            for carry in step.carries:
                assert carry.start == NONE or carry.start in alive, f"the start of {carry.ports} is gone"
                alive.add(carry.slot)
            for turn in range(turns):
                for inner in step.body:
                    perform(inner)
                if turn < turns - 1:
                    for carry in step.carries:
                        assert carry.feedback in alive, f"what {carry.ports} carries is gone"
                        alive.add(carry.slot)
                    alive.difference_update(step.iteration_frees)
            assert set(step.done) <= alive
            alive.difference_update(step.iteration_frees)
        else:
            missing = set(step.reads) - alive
            assert not missing, f"{step.node} reads {missing}"
            alive.update(step.writes)
        alive.difference_update(step.frees)

    for step in plan.steps:
        perform(step)
    return alive


def check_frees(plan: Plan) -> None:
    """Nothing is dropped that is read later, and nothing is kept that is not."""
    wanted = {slot for _, slot in plan.outputs} | {slot for _, _, slot in plan.fills}
    left = walk(plan)
    assert wanted <= left, "an output was dropped"
    read = {slot for step in plan.steps for slot in (*step.reads, *step.writes)}
    assert left & read <= wanted, "a value outlives its last reader"


@given(dags())
def test_frees_never_drop_what_is_read_later(sketch: Sketch) -> None:
    check_frees(make_plan(sketch.structure()))


@given(loops())
def test_frees_in_loops_never_drop_what_is_read_later(sketch: Sketch) -> None:
    check_frees(make_plan(sketch.structure()))


@given(dags(), st.data())
def test_frees_of_partial_plans_never_drop_what_is_read_later(sketch: Sketch, data: st.DataObject) -> None:
    ports = [(f"n{number}", f"o{output}") for number in sketch.order for output in range(sketch.counts[number])]
    wanted = [Exposed(*port, ".".join(port)) for port in data.draw(st.lists(st.sampled_from(ports), min_size=1, max_size=3, unique=True))]
    fed = data.draw(st.lists(st.sampled_from(ports), max_size=3, unique=True))
    check_frees(make_plan(sketch.structure(), wanted=wanted, fed=fed))


# --- orders -----------------------------------------------------------------------------------------------------------


@given(loops())
def test_every_node_comes_after_what_it_reads(sketch: Sketch) -> None:
    plan = make_plan(sketch.structure(), also=[f"n{number}" for number in sketch.order])
    order = plan.order()
    assert sorted(order) == sorted(f"n{number}" for number in sketch.order)
    for number in sketch.order:
        for port in sketch.ports[number]:
            for source, _ in port.edges:
                assert order.index(f"n{source}") < order.index(f"n{number}")


@given(loops())
def test_loops_are_the_cycles_and_all_else_is_outside(sketch: Sketch) -> None:
    plan = make_plan(sketch.structure(), also=[f"n{number}" for number in sketch.order])
    found = {frozenset(step.nodes) for step in plan.steps if isinstance(step, Loop)}
    assert found == {frozenset(f"n{number}" for number in group) for group in loop_members(sketch).values() if group}


@given(loops())
def test_plans_are_the_same_every_time(sketch: Sketch) -> None:
    assert make_plan(sketch.structure()) == make_plan(sketch.structure())


def test_ready_nodes_run_by_their_ids_however_they_were_added() -> None:
    plan = make_plan(structure([node("b", "x"), node("a", "x"), node("c", "p", "q")], "a.y>c.p b.y>c.q", "a.x b.x", "c.y"))
    assert plan.order() == ("a", "b", "c")


def test_waiting_nodes_start_as_early_as_they_can() -> None:
    nodes = [node("a", "x"), node("b", "x"), node("w", "x", is_async=True), node("c", "p", "q")]
    plan = make_plan(structure(nodes, "b.y>c.p w.y>c.q a.y>w.x", "a.x b.x", "c.y"))
    assert plan.order() == ("a", "w", "b", "c")
    assert plan.units
    assert not make_plan(CHAIN).units


@given(
    st.integers(1, 7).flatmap(
        lambda count: st.tuples(st.just(count), st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1))))
    )
)
def test_strong_components_against_reachability(drawn: tuple[int, list[tuple[int, int]]]) -> None:
    count, pairs = drawn
    names = [f"n{index}" for index in range(count)]
    reach = {(a, a) for a in range(count)} | set(pairs)
    for middle in range(count):
        reach |= {(a, b) for a in range(count) for b in range(count) if (a, middle) in reach and (middle, b) in reach}
    expected = {tuple(f"n{b}" for b in range(count) if (a, b) in reach and (b, a) in reach) for a in range(count)}
    found = strong_components(names, [Edge(f"n{a}", "y", f"n{b}", "x") for a, b in pairs])
    assert {tuple(members) for members in found} == expected
    assert sorted(member for members in found for member in members) == sorted(names)


def test_a_chain_of_a_thousand_nodes_needs_no_recursion() -> None:
    count = 3000
    edges = " ".join(f"n{index}.y>n{index + 1}.x" for index in range(count - 1))
    plan = make_plan(structure([node(f"n{index}", "x") for index in range(count)], edges, "n0.x", f"n{count - 1}.y"))
    assert plan.order() == tuple(f"n{index}" for index in range(count))


def test_the_planner_is_pure() -> None:
    """Imported without the package's root, the planner needs no torch."""
    source = Path(wgtorch.__file__).parents[1]
    script = (
        "import sys, types\n"
        "for name in ('wgtorch', 'wgtorch.core'):\n"
        "    module = types.ModuleType(name)\n"
        f"    module.__path__ = [{str(source)!r} + '/' + name.replace('.', '/')]\n"
        "    sys.modules[name] = module\n"
        "import wgtorch.core.plan\n"
        "assert 'torch' not in sys.modules, 'the planner imports torch'\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)


# --- slots and steps --------------------------------------------------------------------------------------------------


def test_a_chain_frees_each_value_after_its_reader() -> None:
    plan = make_plan(CHAIN)
    assert plan.size == 4
    assert [step.frees for step in plan.steps] == [(0,), (1,), (2,)]
    assert plan.outputs == (("y", 3),)
    assert not any(step.needs for step in calls(plan))


def test_what_only_passes_a_value_on_is_joined_for_a_walk_that_nobody_watches() -> None:
    first, second, third = (node(name, "x", positional=("x",)) for name in "abc")
    plan = make_plan(structure([first, second, third], "a.y>b.x b.y>c.x", "a.x", "c.y"))
    (whole,) = plan.fast_steps
    assert isinstance(whole, Chain)
    assert (whole.calls, whole.arg_slot, whole.out_slot) == (plan.steps, 0, 3)
    last = node("c", "p", "q", positional=("p", "q"))
    fork = make_plan(structure([first, second, last], "a.y>b.x a.y>c.p b.y>c.q", "a.x", "c.y"))
    assert [len(step.calls) if isinstance(step, Chain) else step.node for step in fork.fast_steps] == [1, "b", "c"]
    two = node("a", "x", outputs=("y", "z"), positional=("x",))
    assert isinstance(make_plan(structure([two], "", "a.x", "a.y a.z")).fast_steps[0], Call)


@given(st.one_of(dags(), loops()))
def test_the_joined_walk_has_the_same_steps(sketch: Sketch) -> None:
    def flat(steps: Iterable[Step | Chain]) -> list[Step]:
        return [call for step in steps for call in (step.calls if isinstance(step, Chain) else (step,))]

    plan = make_plan(sketch.graph()._structure())
    assert flat(plan.fast_steps) == list(plan.steps)
    for step in plan.steps:
        if isinstance(step, Loop):
            assert flat(step.fast_body) == list(step.body)


def test_a_value_is_kept_for_its_last_reader() -> None:
    plan = make_plan(structure([node("a", "x"), node("b", "x"), node("c", "p", "q")], "a.y>b.x a.y>c.p b.y>c.q", "a.x", "c.y"))
    slot = dict(calls(plan)[0].store)["y"]
    assert [slot in step.frees for step in plan.steps] == [False, False, True]


def test_an_output_that_nobody_reads_gets_no_slot() -> None:
    plan = make_plan(structure([node("a", "x", outputs=("y", "z"))], "", "a.x", "a.z"))
    assert [port for port, _ in calls(plan)[0].store] == ["z"]


def test_leading_inputs_are_passed_by_position_and_the_rest_by_name() -> None:
    shape = node("a", "p", "q?", "r", positional=("p", "q", "r"))
    whole = calls(make_plan(structure([node("b"), shape], "b.y>a.q", "a.p a.r", "a.y")))[1]
    assert (len(whole.args), whole.kwargs) == (3, ())
    unsure = calls(make_plan(structure([shape], "", "a.p a.q a.r", "a.y")))[0]
    assert len(unsure.args) == 1
    assert [name for name, _ in unsure.kwargs] == ["q", "r"]
    gap = calls(make_plan(structure([shape], "", "a.p a.r", "a.y")))[0]
    assert len(gap.args) == 1
    assert [name for name, _ in gap.kwargs] == ["r"]


def test_an_input_that_may_stay_away_is_passed_by_name_and_looked_for_where_it_must_not() -> None:
    optional = make_plan(structure([node("a", "x", "b?", positional=("x", "b"))], "", "a.x a.b", "a.y"))
    assert optional.inputs == (("b", 0, False), ("x", 1, True))
    assert not calls(optional)[0].unsure
    assert (calls(optional)[0].args, calls(optional)[0].kwargs) == ((1,), (("b", 0),))
    needed = make_plan(structure([replace(node("a"), optional_outputs=frozenset({"y"})), node("b", "x")], "a.y>b.x", "", "b.y"))
    assert calls(needed)[1].unsure == (calls(needed)[0].store[0][1],)


def test_one_name_for_several_ports_is_one_slot() -> None:
    plan = make_plan(structure([node("a", "x"), node("b", "x?")], "", "a.x=u b.x=u", "a.y b.y=z"))
    assert plan.inputs == (("u", 0, True),)


def test_several_sources_are_combined_by_name_whatever_the_order_of_the_edges() -> None:
    shapes = [node("a"), node("b"), node("j", InputShape("x", aggregation="list"))]
    plan = make_plan(structure(shapes, "b.y>j.x a.y>j.x", "j.x=u", "j.y"))
    combine = next(step for step in plan.steps if isinstance(step, Combine))
    assert (combine.keys, combine.how) == (("a", "b", "u"), "list")


def test_sources_of_one_node_are_told_apart() -> None:
    shapes = [node("a", outputs=("y", "z")), node("b"), node("j", InputShape("x", aggregation="dict"))]
    plan = make_plan(structure(shapes, "a.y>j.x a.z>j.x b.y>j.x", "", "j.y"))
    combine = next(step for step in plan.steps if isinstance(step, Combine))
    assert combine.keys == ("a.y", "a.z", "b")


# --- loops ------------------------------------------------------------------------------------------------------------


BACKBONE = node("backbone", "latent", "t", outputs=("pred",))
SOLVER = node("solver", "latent", "pred", "t", outputs=("next", "next_t"))
DENOISER = structure(
    [SOLVER, BACKBONE],
    "backbone.pred>solver.pred solver.next>backbone.latent solver.next_t>backbone.t solver.next>solver.latent solver.next_t>solver.t",
    "backbone.latent=latent solver.latent=latent backbone.t=t solver.t=t",
    "solver.next",
)


def test_a_loop_is_ordered_by_what_is_not_fed_back() -> None:
    (loop,) = make_plan(DENOISER).steps
    assert isinstance(loop, Loop)
    assert loop.nodes == ("backbone", "solver")
    assert [carry.ports for carry in loop.carries] == [("backbone.latent", "solver.latent"), ("backbone.t", "solver.t")]
    assert all(carry.start != NONE for carry in loop.carries)


@pytest.mark.parametrize("start", ["exposed", "edge", "value"])
def test_three_kinds_of_start(start: str) -> None:
    shapes = [node("a"), node("b", InputShape("x", filled=start == "value"))]
    edges = "a.y>b.x b.y>b.x" if start == "edge" else "b.y>b.x"
    plan = make_plan(structure(shapes, edges, "b.x" if start == "exposed" else "", "b.y"))
    loop = next(step for step in plan.steps if isinstance(step, Loop))
    assert (loop.carries[0].start in [slot for _, _, slot in plan.fills]) is (start == "value")
    assert plan.order() == (("a", "b") if start == "edge" else ("b",))


def test_an_optional_port_may_be_fed_back_without_a_start() -> None:
    shapes = [node("a", "x", "memory?")]
    (loop,) = make_plan(structure(shapes, "a.y>a.memory", "a.x", "a.y")).steps
    assert isinstance(loop, Loop)
    assert loop.carries[0].start == NONE
    assert isinstance(loop.body[0], Call)
    assert ("memory", loop.carries[0].slot) in loop.body[0].kwargs


def test_only_what_closes_the_loop_is_cut() -> None:
    """writer -> critic by a required and an optional port; critic -> writer by an optional one: only that one waits a turn."""
    shapes = [node("writer", "prompt", "feedback?", outputs=("text", "notes")), node("critic", "text", "notes?", outputs=("critique",))]
    edges = "writer.text>critic.text writer.notes>critic.notes critic.critique>writer.feedback"
    (loop,) = make_plan(structure(shapes, edges, "writer.prompt", "critic.critique")).steps
    assert isinstance(loop, Loop)
    assert loop.nodes == ("writer", "critic")
    assert [carry.ports for carry in loop.carries] == [("writer.feedback",)]


def test_what_joins_several_sources_waits_only_for_the_one_that_closes_the_loop() -> None:
    """join takes a list: from a and b of this turn, and from c of the last."""
    shapes = [node("a", "x"), node("join", InputShape("parts", aggregation="list")), node("c", "x")]
    edges = "a.y>join.parts c.y>join.parts join.y>c.x c.y>a.x"
    (loop,) = make_plan(structure(shapes, edges, "a.x", "c.y")).steps
    assert isinstance(loop, Loop)
    assert loop.nodes == ("a", "join", "c")
    assert sorted(carry.ports for carry in loop.carries) == [("a.x",), ("join.parts",)]


def test_two_loops_are_two_steps() -> None:
    shapes = [node("a", "x"), node("b", "x")]
    plan = make_plan(structure(shapes, "a.y>a.x a.y>b.x b.y>b.x", "a.x", "b.y"))
    assert [step.nodes for step in plan.steps if isinstance(step, Loop)] == [("a",), ("b",)]


def test_what_does_not_change_inside_a_loop_is_outside() -> None:
    shapes = [node("text", "x"), node("step", "x", "condition")]
    plan = make_plan(structure(shapes, "text.y>step.condition step.y>step.x", "text.x=text step.x=x", "step.y"))
    assert [type(step) for step in plan.steps] == [Call, Loop]


def test_done_keeps_its_slot_though_nobody_reads_it() -> None:
    (loop,) = make_plan(structure([node("a", "x", outputs=("y", "done"))], "a.y>a.x", "a.x", "a.y")).steps
    assert isinstance(loop, Loop)
    assert len(loop.done) == 1


# --- partial plans ----------------------------------------------------------------------------------------------------


def test_only_what_is_wanted_is_planned() -> None:
    plan = make_plan(CHAIN, wanted=[Exposed("b", "y", "b.y")])
    assert plan.order() == ("a", "b")


def test_a_given_value_stands_in_for_its_node() -> None:
    plan = make_plan(CHAIN, fed=[("b", "y")])
    assert plan.order() == ("c",)
    assert plan.inputs == ()
    assert plan.unread == {"x"}
    assert [(fed, port) for fed, port, _ in plan.feeds] == [("b", "y")]


def test_a_node_whose_other_output_is_wanted_still_runs() -> None:
    shapes = [node("a", "x", outputs=("y", "z")), node("b", "p", "q")]
    plan = make_plan(structure(shapes, "a.y>b.p a.z>b.q", "a.x", "b.y"), fed=[("a", "y")])
    assert plan.order() == ("a", "b")
    assert [port for port, _ in calls(plan)[0].store] == ["z"]


def test_upstream_stops_where_it_is_told() -> None:
    assert upstream(CHAIN, ["c"]) == {"a", "b", "c"}
    assert upstream(CHAIN, ["c"], [("a", "y")]) == {"b", "c"}


@given(dags(), st.data())
def test_a_partial_plan_holds_exactly_what_is_needed(sketch: Sketch, data: st.DataObject) -> None:
    target = data.draw(st.sampled_from(sketch.order))
    needed: set[int] = set()
    todo = [target]
    while todo:
        number = todo.pop()
        if number not in needed:
            needed.add(number)
            todo += [source for port in sketch.ports[number] for source, _ in port.edges]
    plan = make_plan(sketch.structure(), wanted=[Exposed(f"n{target}", "o0", "w")])
    assert set(plan.order()) == {f"n{number}" for number in needed}


# --- findings ---------------------------------------------------------------------------------------------------------


def findings(made: Structure) -> list[str]:
    return [str(found) for found in validate_structure(made)[0]]


def warnings(made: Structure) -> list[str]:
    return [str(found) for found in validate_structure(made)[1]]


def test_random_structures_are_valid() -> None:
    @settings(max_examples=40)
    @given(loops())
    def check(sketch: Sketch) -> None:
        assert findings(sketch.structure()) == []

    check()


def test_all_dangling_ends_at_once() -> None:
    broken = structure([node("a", "x")], "a.z>a.x ghost.y>a.q a.y>b.x", "c.x a.w", "a.v d.y=k")
    found = "\n".join(findings(broken))
    for words in (
        "g: edge a.z -> a.x: 'a' has no output 'z'; expected one of ['y']",
        "g: edge ghost.y -> a.q: there is no node 'ghost'; expected one of ['a']",
        "g: edge ghost.y -> a.q: 'a' has no input 'q'; expected one of ['x']",
        "g: edge a.y -> b.x: there is no node 'b'",
        "g: exposed input c.x as 'x': there is no node 'c'",
        "g: exposed input a.w as 'w': 'a' has no input 'w'",
        "g: exposed output a.v as 'v': 'a' has no output 'v'",
        "g: exposed output d.y as 'k': there is no node 'd'",
    ):
        assert words in found
    assert len(findings(broken)) == 8


def test_a_port_that_nothing_feeds_and_the_port_that_might() -> None:
    (found,) = findings(structure([node("a", outputs=("condition",)), node("b", "condition")], "", "", "b.y"))
    assert found == (
        "g/b.condition: required, but nothing feeds it. Add an edge into it (for example from a.condition), "
        "expose_input('b', 'condition'), or give it a value."
    )


def test_two_edges_into_a_single_port() -> None:
    (found,) = findings(structure([node("a"), node("b"), node("c", "x")], "a.y>c.x b.y>c.x", "", "c.y"))
    assert found == (
        "g/c.x: 2 sources feed it (a.y -> c.x, b.y -> c.x); expected one. "
        "Remove one, or give the port an aggregation (concat, sum, first, dict, list)."
    )


def test_an_edge_and_an_exposed_input_into_a_single_port() -> None:
    (found,) = findings(structure([node("a"), node("c", "x")], "a.y>c.x", "c.x=u", "c.y"))
    assert "2 sources feed it (a.y -> c.x, input 'u')" in found


def test_two_feedback_edges_into_a_single_port() -> None:
    shapes = [node("a", "x"), node("b", "x")]
    found = findings(structure(shapes, "a.y>b.x b.y>a.x a.y>a.x", "a.x", "b.y"))
    assert any("g/a.x: 3 sources feed it" in line for line in found)


def test_a_loop_with_no_start() -> None:
    (found,) = findings(structure([node("a", "x"), node("b", "x")], "a.y>b.x b.y>a.x", "", "b.y"))
    assert found == (
        "g/a: the loop through a, b has no starting value; expected a start for one of b.x, a.x. "
        "Expose that input, add an edge from outside the loop, or give the node a default for it."
    )


def test_two_loops_with_no_start_are_two_findings() -> None:
    shapes = [node(name, "x") for name in "abcd"]
    found = findings(structure(shapes, "a.y>b.x b.y>a.x c.y>d.x d.y>c.x", "", "b.y d.y=z"))
    assert len(found) == 2


def test_a_cycle_where_none_may_be_lists_its_nodes() -> None:
    cyclic = replace(structure([node("a", "x"), node("b", "x")], "a.y>b.x b.y>a.x", "a.x", "b.y"), loops=False)
    found = findings(cyclic)
    assert any("a cycle through a -> b -> a" in line and "this level is a DAG" in line for line in found)


def test_no_output() -> None:
    (found,) = findings(structure([node("a")]))
    assert found == "g: no output is exposed; expected at least one. Call expose_output(node, port), or infer_exposed_ports()."


def test_warnings_for_nodes_that_hang_loose() -> None:
    shapes = [node("a", "x"), node("loose", "x?"), node("c", "x")]
    found = warnings(structure(shapes, "loose.y>c.x", "a.x", "a.y"))
    assert "g/loose: no input reaches it. Add an edge into it, or expose one of its inputs." in found
    assert "g/loose: it leads to no output. Expose one of its outputs, or remove the node." in found
    assert "g/c: it leads to no output. Expose one of its outputs, or remove the node." in found
    assert not any(line.startswith("g/a") for line in found)


def test_planning_raises_all_findings_at_once() -> None:
    broken = structure([node("a", "p", "q"), node("b", "x"), node("c", "x")], "b.y>c.x c.y>b.x", "", "a.y c.y=z")
    with pytest.raises(ValidationError) as caught:
        make_plan(broken)
    assert len(caught.value.findings) == 3
    text = str(caught.value)
    assert text.startswith("g is not valid (3 findings):")
    for words in ("g/a.p: required", "g/a.q: required", "the loop through b, c has no starting value"):
        assert words in text
