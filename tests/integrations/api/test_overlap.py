"""Many calls at once: limits, budgets, cancelling, and what is left when one of them fails."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.waiting import wait_until
from wgtorch import Block, Graph, Pipeline, Stage, State
from wgtorch.core.errors import ConfigError, RunCancelled, RunTimeoutError
from wgtorch.integrations.api import clients, set_budget, set_price
from wgtorch.integrations.models.errors import ApiContentError, ApiTransportError, BudgetError
from wgtorch.testing import Reply, ScriptedServer, refusal


def answers_once(server: ScriptedServer, count: int) -> None:
    """Has the server answer once so many requests were with it at a time."""
    server.respond = lambda seen: Reply(seen.prompt, until=lambda: server.most_at_once >= count, delay=0.005)


def star(blocks: list[Block]) -> Graph:
    """Nodes beside one another, each with an output of its own."""
    graph = Graph("star")
    for index, block in enumerate(blocks):
        graph.add_node(block, f"n{index}")
        graph.expose_input(f"n{index}", "prompt", name="prompt")
        graph.expose_output(f"n{index}", "text", name=f"t{index}")
    return graph


def test_ten_nodes_on_one_model_under_a_limit_of_two_never_have_three_calls_in_flight(server: ScriptedServer, build) -> None:
    answers_once(server, 2)
    graph = star([build(limits={"in_flight": 2}, system=f"You are {index}.") for index in range(10)])
    assert graph.run({"prompt": "x"}) == {f"t{index}": "x" for index in range(10)}
    assert server.most_at_once == 2 and len(server.requests) == 10 and len(clients()) == 1


def test_a_graph_outside_of_a_world_pays_once(server: ScriptedServer, build) -> None:
    """Three nodes and a mapped list; one call fails, and only that one is made again, with the usage of the others as it was."""
    trouble = ["refused"]
    server.respond = lambda seen: Reply("down", status=500) if trouble and seen.prompt == trouble[0] else seen.prompt.upper()
    graph = star([build(retries=0, system=f"You are {index}.") for index in range(3)])
    graph.add_node(build(retries=0), "mapped", map="prompt")
    graph.expose_input("mapped", "prompt", name="prompts")
    graph.expose_output("mapped", "text", name="texts")
    inputs = {"prompt": "x", "prompts": ["a", "refused", "b"]}
    for count in (6, 7):
        with pytest.raises(ApiTransportError) as caught:
            graph.run(inputs, seed=1)
        assert len(server.requests) == count
    assert any("5 answers that came are kept" in note for note in caught.value.__notes__)
    trouble.clear()
    graph.nodes["n1"].defaults["system"] = "You are another."
    out = graph.run({**inputs, "prompts": ["a", "refused", "c"]}, seed=1)
    assert out["texts"] == ["A", "REFUSED", "C"] and len(server.requests) == 10, "refused, c, and the one that is told something else"
    assert [seen.system for seen in server.requests[7:] if seen.prompt == "x"] == ["You are another."]


def test_threads_and_batches_stand_in_the_same_line(server: ScriptedServer, build) -> None:
    answers_once(server, 3)
    llm = build(limits={"in_flight": 3})
    threads = [threading.Thread(target=llm, kwargs={"prompt": [f"{n}-{k}" for k in range(5)]}) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.most_at_once == 3 and len(server.requests) == 20


def test_calls_of_independent_nodes_and_of_a_mapped_list_overlap_in_a_plain_run(server: ScriptedServer, build) -> None:
    answers_once(server, 8)
    graph = star([build() for _ in range(4)])
    graph.add_node(build(), "mapped", map="prompt")
    graph.expose_input("mapped", "prompt", name="prompts")
    graph.expose_output("mapped", "text", name="texts")
    pipeline = Pipeline("p")
    pipeline.add_graph(graph, "g")
    pipeline.infer_exposed_ports()
    out = pipeline.run({"prompt": "x", "prompts": list("abcd")})
    assert out["texts"] == list("abcd") and server.most_at_once == 8


def test_the_eight_calls_of_a_stage_overlap(server: ScriptedServer, build) -> None:
    pipeline = Pipeline("p")
    pipeline.add_graph(star([build(max_tokens=index + 1) for index in range(8)]), "g")
    pipeline.infer_exposed_ports()
    stage = Stage("author", role="author")
    stage.add_pipeline(pipeline, "p")
    stage.set_state_contract(["intent"], ["outcome"], {"p.prompt": "intent"}, {"outcome": "p.t0"})
    stage.run(State(intent="warm"))
    answers_once(server, 8)
    assert stage.run(State(intent="x")).outcome == "x"
    assert server.most_at_once == 8 and len(server.requests) == 16


def test_nodes_that_compute_go_on_meanwhile(server: ScriptedServer, build) -> None:
    waiting = threading.Event()
    server.respond = lambda seen: Reply("done", until=waiting.is_set)

    class Count(Block):
        outputs = {"y": "tensor"}

        def forward(self, x: Tensor) -> dict:
            wait_until(lambda: server.requests)
            assert server.requests[0].ended is None
            waiting.set()
            return {"y": x + 1}

    graph = Graph("g")
    graph.add_node(build(), "llm")
    graph.add_node(Count(), "count")
    graph.expose_input("llm", "prompt")
    graph.expose_input("count", "x")
    graph.expose_output("llm", "text")
    graph.expose_output("count", "y")
    assert graph.run({"prompt": "x", "x": torch.zeros(1)})["text"] == "done" and waiting.is_set()


def test_async_code_is_not_held_up(server: ScriptedServer, build) -> None:
    answers_once(server, 3)
    graphs = [star([build()]) for _ in range(3)]

    async def both() -> list[dict]:
        return await asyncio.gather(*(graph.arun({"prompt": str(index)}) for index, graph in enumerate(graphs)))

    assert [out["t0"] for out in asyncio.run(both())] == ["0", "1", "2"] and server.most_at_once == 3


@pytest.mark.parametrize("nested", [False, True])
def test_cancelling_a_run_hangs_up(server: ScriptedServer, build, nested: bool) -> None:
    server.respond = lambda seen: Reply(hang=True)
    level = star([build(), build()])
    if nested:
        pipeline = Pipeline("p")
        pipeline.add_graph(level, "g")
        pipeline.infer_exposed_ports()
        level = pipeline
    with pytest.raises(RunCancelled):
        level.run({"prompt": "x"}, cancelled=lambda: len(server.requests) == 2)
    wait_until(lambda: all(seen.ended for seen in server.requests))
    assert [seen.left for seen in server.requests] == [True, True]
    wait_until(lambda: clients()[0].line.counts.in_flight == 0)
    assert clients()[0].spent.calls == 0


@pytest.mark.parametrize("limited", ["run", "node"])
def test_what_is_late_hangs_up(server: ScriptedServer, build, limited: str) -> None:
    graph = Graph("g")
    graph.add_node(build(), "llm")
    graph.infer_exposed_ports()
    graph.run({"prompt": "warm"})
    server.respond = lambda seen: Reply(hang=True)
    for limit in (0.2, 2.0, 20.0):  # longer where the request was not even sent in that time
        graph.configure_node("llm", timeout=limit if limited == "node" else None)
        words = f"llm took longer than its limit of {limit} s" if limited == "node" else "the run's time limit"
        with pytest.raises(RunTimeoutError, match=words):
            graph.run({"prompt": "x"}, timeout=limit if limited == "run" else None)
        if len(server.requests) > 1:
            break
    wait_until(lambda: server.requests[1].ended)
    assert server.requests[1].left


def test_what_a_failed_batch_brought_is_not_paid_for_again(server: ScriptedServer, build) -> None:
    server.respond = lambda seen: refusal() if seen.prompt == "bad" else Reply(seen.prompt, delay=0.05)
    llm = build()
    with pytest.raises(ApiContentError):
        llm(prompt=["a", "bad", "b"])
    assert sorted(seen.prompt for seen in server.requests) == ["a", "b", "bad"]
    assert llm(prompt=["a", "good", "b"])["text"] == ["a", "good", "b"]
    assert [seen.prompt for seen in server.requests[3:]] == ["good"]
    assert llm(prompt=["a"])["text"] == ["a"] and len(server.requests) == 5, "an answer is given once, then asked for again"


def test_calls_of_a_batch_that_have_not_begun_are_left_when_one_fails_for_good(server: ScriptedServer, build) -> None:
    server.respond = lambda seen: Reply("no", status=401)
    with pytest.raises(Exception, match="status 401"):
        build(limits={"in_flight": 2})(prompt=[str(n) for n in range(50)])
    assert len(server.requests) <= 4


@pytest.mark.parametrize(("budget", "words"), [({"calls": 3}, "3 calls is spent: 3 so far"), ({"tokens": 35}, "35 tokens is spent")])
def test_a_budget_stops_before_it_is_passed(server: ScriptedServer, build, budget: dict, words: str) -> None:
    server.respond = lambda seen: Reply("fine", tokens=(5, 5))
    llm = build(budget=budget)
    for _ in range(3):
        llm(prompt="four")
    with pytest.raises(BudgetError, match=words):
        for _ in range(5):
            llm(prompt="a prompt of more than twenty bytes")
    assert len(server.requests) == 3


def test_a_budget_of_money_counts_by_the_price_table(server: ScriptedServer, build) -> None:
    server.respond = lambda seen: Reply("fine", tokens=(1000, 1000))
    with pytest.raises(BudgetError, match=r"no price of this model is known. Give it with set_price"):
        build(model_id="unpriced", budget={"money": 1.0})(prompt="x")
    set_price("openai", "priced", prompt=100.0, completion=400.0)
    llm = build(model_id="priced", budget={"money": 1.2})
    llm(prompt="x")
    llm(prompt="x")
    with pytest.raises(BudgetError, match="budget of 1.2 money is spent"):
        llm(prompt="x", max_tokens=1000)
    assert len(server.requests) == 2


def test_calls_at_once_cannot_pass_a_budget_together(server: ScriptedServer, build) -> None:
    server.delay = 0.05
    with pytest.raises(BudgetError):
        build(budget={"calls": 4})(prompt=[str(n) for n in range(10)])
    assert len(server.requests) == 4
    out = build(budget={"calls": 10})(prompt=[str(n) for n in range(10)])
    assert out["text"] == [str(n) for n in range(10)] and len(server.requests) == 10


def test_a_batch_waits_for_what_its_calls_leave_of_a_budget_before_it_gives_up(server: ScriptedServer, build) -> None:
    server.respond = lambda seen: Reply("fine", tokens=(5, 5), until=lambda: len(server.requests) == 1 or server.most_at_once == 2)
    out = build(budget={"tokens": 1000}, max_tokens=400)(prompt=[str(n) for n in range(6)])
    assert out["text"] == ["fine"] * 6 and server.most_at_once == 2, "no more are on their way than could be paid at their longest"
    assert clients()[0].spent.tokens == 60


def test_a_budget_may_be_raised_while_the_block_stands(server: ScriptedServer, build) -> None:
    llm = build(model_id="raised", budget={"calls": 2})
    llm(prompt=["a", "b"])
    with pytest.raises(BudgetError, match=r"Raise it \(set_budget\(\)"):
        llm(prompt="c")
    set_budget("openai", "raised", calls=3)
    assert llm(prompt="c")["text"] == "c"
    with pytest.raises(BudgetError, match="budget of 3 calls"):
        llm(prompt="d")
    with pytest.raises(ConfigError, match="found 'many'"):
        set_budget("openai", "raised", calls="many")


def test_calls_that_failed_are_not_on_the_bill(server: ScriptedServer, build) -> None:
    server.script(refusal(), "fine")
    llm = build(budget={"calls": 1})
    with pytest.raises(ApiContentError):
        llm(prompt="x")
    assert llm(prompt="x")["text"] == "fine"


def test_requests_per_minute_hold_the_next_one_back(server: ScriptedServer, build) -> None:
    llm = build(limits={"requests_per_minute": 2})
    llm(prompt=["a", "b"])
    graph = Graph("g")
    graph.add_node(llm, "llm")
    graph.infer_exposed_ports()
    with pytest.raises(RunTimeoutError):
        graph.run({"prompt": "c"}, timeout=0.3)
    assert len(server.requests) == 2


@pytest.mark.xdist_group("processes")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_asks_over_connections_of_its_own(server: ScriptedServer, build, tmp_path: Path) -> None:
    llm = build(mode="auto", cassette=str(tmp_path / "tape.sqlite"))
    llm(prompt="here")
    before = server.connections
    child = os.fork()
    if child == 0:
        right = False
        try:
            right = llm(prompt="there")["text"] == "there" and [client.spent.calls for client in clients()] == [1]
        finally:
            os._exit(0 if right else 1)
    found = (0, -1)

    def ended() -> int:
        nonlocal found
        found = os.waitpid(child, os.WNOHANG)
        return found[0]

    try:
        wait_until(ended)
    finally:
        if not found[0]:
            os.kill(child, signal.SIGKILL)
    assert found[1] == 0
    assert server.connections == before + 1 and [seen.prompt for seen in server.requests] == ["here", "there"]
    assert llm(prompt=["here", "there"])["text"] == ["here", "there"] and len(server.requests) == 2


_ENDS = """
import ctypes, sys
from wgtorch.core.block import BlockRegistry
llm = BlockRegistry.build({"block_type": "llm", "config": {"provider": "openai", "model_id": "m", "endpoint_url": sys.argv[1]}})
print(llm(prompt="x")["text"])
for name in ("httpx2._client", "httpx._client", "wgtorch.integrations.api.client"):  # which others may hold until the very end
    if name in sys.modules:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(sys.modules[name]))
"""


def test_a_process_that_ends_says_nothing_of_its_connections(server: ScriptedServer) -> None:
    done = subprocess.run([sys.executable, "-c", _ENDS, server.url], capture_output=True, text=True, check=True, timeout=300)
    assert (done.stdout, done.stderr) == ("x\n", "")
