"""Edges from roles: the same whatever the order of the calls, never guessed, and the user's word comes first."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.blocks_for_tests import Scale
from wgtorch.core.autoconnect import RoleNode, RoleRule, SideBranchRule, edges_beside, edges_by_role
from wgtorch.core.block import Block, register_block
from wgtorch.core.errors import ValidationError
from wgtorch.core.structure import Edge
from wgtorch.graph import Graph
from wgtorch.roles import Backbone, Codec, Conditioner, Encoder, Guidance, Noise, Solver, Tokenizer


@register_block("test/tokenizer")
class Words(Tokenizer):
    def forward(self, text: str) -> dict[str, Tensor]:
        return {"tokens": torch.tensor([[len(word) for word in text.split()]])}


@register_block("test/conditioner")
class Mean(Conditioner):
    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        return {"embedding": tokens.float().mean(dim=1)[:, None, None]}


@register_block("test/backbone")
class Pull(Backbone):
    """Predicts the way to the condition."""

    def forward(self, latent: Tensor, timestep: Any, condition: Tensor | None = None) -> dict[str, Tensor]:
        goal = 0.0 if condition is None else condition.mean()
        return {"pred": goal - latent}


@register_block("test/solver")
class Euler(Solver):
    num_loop_steps = 2

    def forward(self, latent: Tensor, timestep: Any, pred: Tensor) -> dict[str, Any]:
        return {"next_latent": latent + 0.5 * pred, "next_timestep": timestep - 1}


@register_block("test/codec")
class Decode(Codec):
    def forward(self, latent: Tensor) -> dict[str, Tensor]:
        return {"image": latent.clamp(0, 1)}


@register_block("test/noise")
class Start(Noise):
    outputs = {"latent": "latent", "timestep": "number"}

    def forward(self) -> dict[str, Any]:
        return {"latent": torch.zeros(1, 3, 2, 2), "timestep": 2}


@register_block("test/encoder")
class Encode(Encoder):
    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"latent": image * 2}


@register_block("test/guidance")
class Double(Guidance):
    def forward(self, pred_cond: Tensor, pred_uncond: Tensor | None = None, scale: float = 2.0) -> dict[str, Tensor]:
        return {"pred_guided": pred_cond * scale}


FIVE: dict[str, type[Block]] = {"tokenizer": Words, "conditioner": Mean, "backbone": Pull, "solver": Euler, "codec": Decode}
TEXT_TO_IMAGE = {
    "tokenizer.tokens -> conditioner.tokens",
    "conditioner.embedding -> backbone.condition",
    "backbone.pred -> solver.pred",
    "solver.next_latent -> backbone.latent",
    "solver.next_latent -> solver.latent",
    "solver.next_timestep -> backbone.timestep",
    "solver.next_timestep -> solver.timestep",
    "solver.next_latent -> codec.latent",
}


def build(*roles: str, blocks: Mapping[str, type[Block]] = FIVE) -> Graph:
    graph = Graph("t2i")
    for role in roles:
        graph.add_node(blocks[role](), role)
    return graph


def edges(graph: Graph) -> set[str]:
    return {str(edge) for edge in graph.edges}


def test_text_to_image_is_five_calls() -> None:
    graph = build(*FIVE)
    assert edges(graph) == TEXT_TO_IMAGE
    graph.infer_exposed_ports()
    assert graph.validate().is_valid
    assert list(graph.get_input_spec()) == ["latent", "timestep", "text"] or set(graph.get_input_spec()) == {"latent", "timestep", "text"}
    latent = torch.zeros(1, 3, 2, 2)
    found = graph.run({"text": "aaa a", "latent": latent, "timestep": 2})["image"]
    torch.testing.assert_close(found, torch.full_like(latent, 1.0))  # 0 -> 1 -> 1.5, clamped


@pytest.mark.parametrize("order", list(itertools.permutations(FIVE)), ids=lambda order: "-".join(role[:3] for role in order))
def test_any_order_of_the_calls_gives_the_same_edges(order: tuple[str, ...]) -> None:
    assert edges(build(*order)) == TEXT_TO_IMAGE


@given(st.permutations([*FIVE, "noise", "guidance"]))
def test_any_order_with_a_start_and_guidance(order: list[str]) -> None:
    graph = build(*order, blocks={**FIVE, "noise": Start, "guidance": Double})
    expected = TEXT_TO_IMAGE - {"backbone.pred -> solver.pred"}
    expected |= {"backbone.pred -> guidance.pred_cond", "guidance.pred_guided -> solver.pred"}
    expected |= {f"noise.{port} -> {node}.{port}" for port in ("latent", "timestep") for node in ("backbone", "solver")}
    assert edges(graph) == expected
    graph.infer_exposed_ports()
    assert set(graph.get_input_spec()) == {"text"}
    assert set(graph.run({"text": "a"})) >= {"image"}


def test_an_encoded_image_starts_the_loop() -> None:
    graph = build("encoder", *FIVE, blocks={**FIVE, "encoder": Encode})
    assert {"encoder.latent -> backbone.latent", "encoder.latent -> solver.latent"} <= edges(graph)
    graph.infer_exposed_ports()
    assert set(graph.get_input_spec()) == {"text", "timestep", "image"}
    found = graph.run({"text": "a", "timestep": 1, "image": torch.zeros(3, 2, 2)}, num_loop_steps=1)["image"]
    torch.testing.assert_close(found, torch.full((3, 2, 2), 0.5))


@pytest.mark.parametrize("order", [("backbone", "solver", "second"), ("second", "backbone", "solver"), ("backbone", "second", "solver")])
def test_of_two_candidates_none_is_guessed_and_validation_names_them(order: tuple[str, ...]) -> None:
    graph = build(*order, blocks={**FIVE, "second": Pull})
    assert not any(edge.target_port == "pred" for edge in graph.edges)
    graph.infer_exposed_ports()
    graph._inputs = [entry for entry in graph._inputs if entry.port_name != "pred"]
    graph._changed()
    with pytest.raises(ValidationError) as caught:
        graph.validate()
    found = [str(finding) for finding in caught.value.findings]
    assert (
        "t2i/solver.pred: backbone.pred and second.pred could feed it, so nothing was joined. "
        "Choose one: add_edge('backbone.pred', 'solver.pred')."
    ) in found


def test_an_undecided_optional_port_is_a_warning() -> None:
    graph = build("conditioner", "again", "backbone", blocks={**FIVE, "again": Mean})
    graph.infer_exposed_ports()
    result = graph.validate()
    assert result.is_valid
    assert any("backbone.condition: again.embedding and conditioner.embedding could feed it" in str(found) for found in result.warnings)


def test_the_choice_is_made_by_an_edge() -> None:
    graph = build("backbone", "second", "solver", "codec", blocks={**FIVE, "second": Pull})
    graph.add_edge("second.pred", "solver.pred")
    assert [str(edge) for edge in graph.edges if edge.target_port == "pred"] == ["second.pred -> solver.pred"]
    graph.infer_exposed_ports()
    assert not any("could feed it" in str(found) for found in graph.validate(strict=False).errors)


def test_the_users_edge_wins_over_a_rule() -> None:
    graph = build("backbone", "solver")
    graph.add_node(Scale(3.0), "mine")
    graph.add_edge("backbone.pred", "mine.x")
    graph.add_edge("mine.y", "solver.pred")
    assert [str(edge) for edge in graph.edges if edge.target_port == "pred"] == ["mine.y -> solver.pred"]


def test_the_users_edge_wins_whenever_it_was_made() -> None:
    graph = Graph("g")
    graph.add_node(Scale(3.0), "mine")
    graph.add_node(Euler(), "solver")
    graph.add_edge("mine.y", "solver.pred")
    graph.add_node(Pull(), "backbone")
    assert [str(edge) for edge in graph.edges if edge.target_port == "pred"] == ["mine.y -> solver.pred"]


def test_the_users_start_stands_beside_the_loop() -> None:
    graph = Graph("g")
    for node_id, block in (("start", Scale()), ("backbone", Pull()), ("solver", Euler())):
        graph.add_node(block, node_id)
    graph.add_edge("start.y", "backbone.latent")
    into = {str(edge) for edge in graph.edges if (edge.target_node, edge.target_port) == ("backbone", "latent")}
    assert into == {"start.y -> backbone.latent", "solver.next_latent -> backbone.latent"}


def test_an_edge_that_was_removed_does_not_come_back() -> None:
    graph = build("conditioner", "backbone")
    graph.remove_edge("conditioner.embedding", "backbone.condition")
    graph.add_node(Euler(), "solver")
    assert "conditioner.embedding -> backbone.condition" not in edges(graph)
    assert "backbone.pred -> solver.pred" in edges(graph)


def test_a_removed_edge_may_be_added_again() -> None:
    graph = build("conditioner", "backbone")
    graph.remove_edge("conditioner.embedding", "backbone.condition")
    graph.add_edge("conditioner.embedding", "backbone.condition")
    assert "conditioner.embedding -> backbone.condition" in edges(graph)


def test_auto_connect_can_be_switched_off_for_a_node() -> None:
    graph = build("backbone")
    graph.add_node(Euler(), "solver", auto_connect=False)
    assert edges(graph) == set()


def test_a_value_that_the_node_holds_takes_the_port() -> None:
    graph = build("tokenizer")
    graph.add_node(Mean(), "conditioner", inputs={"tokens": torch.tensor([[1]])})
    assert edges(graph) == set()


def test_removing_a_node_lets_the_rules_look_again() -> None:
    graph = build("backbone", "second", "solver", blocks={**FIVE, "second": Pull})
    graph.remove_node("second")
    assert "backbone.pred -> solver.pred" in edges(graph)


def test_replacing_a_node_by_one_of_the_same_role_keeps_all_edges() -> None:
    graph = build(*FIVE)
    assert graph.replace_node("solver", Euler()) == []
    assert edges(graph) == TEXT_TO_IMAGE


def test_a_graph_read_from_its_config_has_the_same_edges_and_no_more() -> None:
    graph = build(*FIVE)
    graph.remove_edge("conditioner.embedding", "backbone.condition")
    graph.infer_exposed_ports()
    twin = Graph.from_config(graph.to_config())
    assert edges(twin) == edges(graph)
    assert twin.to_config() == graph.to_config()


def test_a_config_may_leave_the_edges_to_the_rules() -> None:
    config = build(*FIVE).to_config() | {"edges": [], "auto_connect": True}
    assert edges(Graph.from_config(config)) == TEXT_TO_IMAGE


def test_a_config_without_edges_and_without_the_word_has_none() -> None:
    config = build(*FIVE).to_config() | {"edges": []}
    assert edges(Graph.from_config(config)) == set()


# --- the pure function ------------------------------------------------------------------------------------------------


def role_node(name: str, role: str, inputs: Iterable[str] = (), outputs: Iterable[str] = ()) -> RoleNode:
    return RoleNode(name, role, frozenset(inputs), frozenset(outputs))


RULE = RoleRule("source", "out", "target", "in")


def test_a_rule_needs_both_ports() -> None:
    target = role_node("t", "target", ["in"])
    assert edges_by_role([role_node("s", "source", outputs=["other"]), target], [RULE], {}).edges == ()
    assert edges_by_role([role_node("s", "source", outputs=["out"]), target], [RULE], {}).edges == (Edge("s", "out", "t", "in"),)


def test_a_port_that_combines_takes_all_candidates() -> None:
    nodes = [role_node("a", "source", outputs=["out"]), role_node("b", "source", outputs=["out"]), role_node("t", "target", ["in"])]
    found = edges_by_role(nodes, [RULE], {}, combining=[("t", "in")])
    assert len(found.edges) == 2
    assert not found.undecided
    assert edges_by_role(nodes, [RULE], {}).undecided == {("t", "in"): ("a.out", "b.out")}


def test_a_rule_is_silent_when_another_role_stands_between() -> None:
    rule = RoleRule("source", "out", "target", "in", unless="between")
    nodes = [role_node("s", "source", outputs=["out"]), role_node("t", "target", ["in"])]
    assert edges_by_role(nodes, [rule], {}).edges
    assert not edges_by_role([*nodes, role_node("m", "between")], [rule], {}).edges


def test_what_stands_beside_gives_to_the_one_it_stands_beside() -> None:
    rule = SideBranchRule("control", "backbone", frozenset({"latent"}), gives=True)
    backbone = RoleNode("net", "backbone", frozenset({"latent", "residuals"}), frozenset({"pred"}))
    controls = [RoleNode(name, "control", frozenset({"latent"}), frozenset({"residuals"})) for name in ("edges", "depth")]
    fed = Edge("start", "latent", "net", "latent")

    one = edges_beside([backbone, controls[0]], [rule], [fed], {"edges"})
    assert set(one.edges) == {Edge("start", "latent", "edges", "latent"), Edge("edges", "residuals", "net", "residuals")}
    assert not one.undecided

    both = edges_beside([backbone, *controls], [rule], [fed], {"edges", "depth"})
    assert set(both.edges) == {Edge("start", "latent", name, "latent") for name in ("edges", "depth")}
    assert dict(both.undecided) == {("net", "residuals"): ("edges.residuals", "depth.residuals")}

    gathers = edges_beside([backbone, *controls], [rule], [fed], {"edges", "depth"}, combining={("net", "residuals")})
    assert {Edge(name, "residuals", "net", "residuals") for name in ("edges", "depth")} < set(gathers.edges)
    assert not gathers.undecided

    taken = Edge("mine", "y", "net", "residuals")
    assert set(edges_beside([backbone, controls[0]], [rule], [fed, taken], {"edges"}).edges) == {Edge("start", "latent", "edges", "latent")}
