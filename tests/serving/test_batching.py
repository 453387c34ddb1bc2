"""Concurrent requests that share a forward pass get what they would get alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import torch

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from tests.serving.blocks import Counts, graph_of
from tests.serving.calling import run
from wgtorch.core.block import Block
from wgtorch.graph import Graph
from wgtorch.serving.server import Limits, serving


def all_at_once(url: str, inputs: list[dict[str, Any]], **fields: Any) -> list[tuple[int, Any]]:
    with ThreadPoolExecutor(len(inputs)) as pool:
        return list(pool.map(lambda given: run(url, inputs=given, **fields), inputs))


def rows(*counts: int, width: int = 2) -> list[dict[str, torch.Tensor]]:
    return [{"x": torch.full((count, width), float(index))} for index, count in enumerate(counts)]


def together(max_batch: int) -> Limits:
    return Limits(max_batch=max_batch, batch_wait=60.0, concurrency=4)  # nothing waits so long: the passes are full


def test_requests_share_one_pass_and_each_gets_its_own_rows() -> None:
    block = Counts()
    with serving(graph_of(block), limits=together(6)) as url:
        answers = all_at_once(url, rows(2, 2, 2))
    assert block.rows == [6], "one pass, begun as soon as it was full"
    for index, (count, (status, answer)) in enumerate(zip((2, 2, 2), answers, strict=True)):
        assert status == 200 and torch.equal(answer["outputs"]["y"], torch.full((count, 2), index + 1.0))


def test_what_does_not_go_together_runs_apart() -> None:
    block = Counts()
    with serving(graph_of(block), limits=together(4)) as url:
        answers = all_at_once(url, [*rows(1, 1), *rows(1, 1, width=3)])
        assert sorted(block.rows) == [2, 2], "rows of other shapes"
        assert [answer["outputs"]["y"].shape[1] for _, answer in answers] == [2, 2, 3, 3]
        block.rows.clear()
        all_at_once(url, rows(2, 2), seed=3)
        assert block.rows == [4], "requests with seeds share a pass as well"
    block.rows.clear()
    with serving(graph_of(block), limits=Limits(max_batch=4, batch_wait=0.1)) as url:
        all_at_once(url, rows(3, 3))
        assert block.rows == [3, 3], "never more rows than asked for"


def test_one_bad_request_does_not_spoil_the_others() -> None:
    def picky(x: torch.Tensor) -> dict[str, Any]:
        if bool((x == 1).any()):
            raise ValueError("no ones")
        return {"y": x}

    block = Block.wrap(picky, inputs={"x": "tensor"}, outputs={"y": "tensor"})
    with serving(graph_of(block), limits=together(3)) as url:
        answers = all_at_once(url, rows(1, 1, 1))
    assert [status for status, _ in answers] == [200, 500, 200]
    assert answers[1][1]["error"]["message"] == "no ones"


@pytest.mark.parametrize("answer", [lambda x: {"y": x.sum()}, lambda x: {"y": x[:1]}])
def test_outputs_that_have_no_rows_are_computed_for_each_request_alone(answer: Any) -> None:
    block = Block.wrap(answer, inputs={"x": "tensor"}, outputs={"y": "tensor"})
    inputs = rows(2, 2)
    with serving(graph_of(block), limits=together(4)) as url:
        answers = all_at_once(url, inputs)
    for given, (_, found) in zip(inputs, answers, strict=True):
        assert torch.equal(found["outputs"]["y"], answer(**given)["y"])


def test_a_picture_without_a_batch_is_not_taken_for_three_rows() -> None:
    seen = []

    def look(image: torch.Tensor) -> dict[str, Any]:
        seen.append(tuple(image.shape))
        return {"y": image}

    with serving(graph_of(Block.wrap(look, inputs={"image": "image"}, outputs={"y": "image"})), limits=Limits(max_batch=8)) as url:
        all_at_once(url, [{"image": torch.zeros(3, 4, 4)}, {"image": torch.zeros(3, 4, 4)}])
    assert seen == [(3, 4, 4), (3, 4, 4)]


def test_requests_with_texts_and_seeds_share_passes_and_each_gets_its_own_picture() -> None:
    graph = Graph.from_template("text_to_image", steps=2)
    prompts = [f"a {color} castle at night" for color in ("red", "blue", "white", "green")]
    rows_seen: list[int] = []
    backbone = graph.nodes["backbone"]
    backbone.register_forward_hook(lambda module, args, outputs: rows_seen.append(len(outputs["pred"])))
    with serving(graph, limits=together(4)) as url, ThreadPoolExecutor(4) as pool:
        ask = [partial(run, url, inputs={"prompt": prompt}, seed=seed) for seed, prompt in enumerate(prompts)]
        found = [future.result()[1]["outputs"]["image"] for future in [pool.submit(each) for each in ask]]
    assert max(rows_seen) >= 4, "one forward pass for all"
    for seed, (prompt, image) in enumerate(zip(prompts, found, strict=True)):
        torch.testing.assert_close(image, graph.run({"prompt": prompt}, seed=seed)["image"], rtol=0, atol=1e-5)


def test_no_request_waits_for_others_where_nothing_is_shared() -> None:
    linear = torch.nn.Linear(2, 2)
    shapes: list[int] = []
    linear.register_forward_pre_hook(lambda module, given: shapes.append(len(given[0])))
    for promised, expected in ((False, [1, 1]), (True, [2])):
        shapes.clear()
        block = Block.wrap(linear, inputs={"x": "tensor"}, outputs={"y": "tensor"}, rows_are_samples=promised)
        # A minute's wait for a third request would be a timeout of the second case, whose pass is full with two.
        with serving(graph_of(block), limits=Limits(max_batch=2 if promised else 3, batch_wait=60.0)) as url:
            answers = all_at_once(url, rows(1, 1))
        assert shapes == expected
        for (status, answer), given in zip(answers, rows(1, 1), strict=True):
            torch.testing.assert_close(answer["outputs"]["y"], linear(given["x"]).detach())
            assert status == 200
