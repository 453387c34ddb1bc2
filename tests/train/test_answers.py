"""The objective answering: what it computes, where it finds the model, and what it says where there is none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from tests.train.toys import END, Linear, WordModel, chain
from wgtorch import Graph, Pipeline, Stage, World
from wgtorch.core.errors import ConfigError
from wgtorch.train.objectives.answers import Answering

pytest.importorskip("lightning")

from wgtorch.train import Step, Trainable

BATCH = {"prompt": ["rain", "red castle by the sea"], "answer": ["castle.", "rain by the sea."]}


def step() -> Step:
    return Step(0, torch.Generator().manual_seed(0))


def model() -> WordModel:
    torch.manual_seed(0)
    return WordModel(words=["rain", "red", "castle", "by", "the", "sea", "."])


def chat(llm: WordModel) -> Graph:
    graph = Graph("chat")
    graph.add_node(llm, "llm")
    graph.expose_input("llm", "prompt", "question")
    graph.expose_output("llm", "text")
    return graph


def world(llm: WordModel) -> World:
    pipeline = Pipeline("tell")
    pipeline.add_graph(chat(llm), "chat")
    pipeline.infer_exposed_ports()
    stage = Stage("author", role="author")
    stage.add_pipeline(pipeline, "tell")
    stage.set_state_contract(
        inputs=["intent"], outputs=["meta"], mapping_input={"tell.question": "intent"}, mapping_output={"meta": "tell.text"}
    )
    found = World("told")
    found.set_state_schema(["intent", "meta"])
    found.add_stage(stage, "author")
    found.set_cycle(["author"])
    return found


def by_hand(llm: WordModel) -> torch.Tensor:
    """Mean cross-entropy over the answers' words, their ends included, row by row and without padding."""
    losses = []
    for prompt, answer in zip(BATCH["prompt"], BATCH["answer"], strict=True):
        before, after = llm.encode(prompt), [*llm.encode(answer), END]
        logits = llm.logits(torch.tensor([before + after]))[0, len(before) - 1 : -1]
        losses.append(F.cross_entropy(logits, torch.tensor(after), reduction="none"))
    return torch.cat(losses).mean()


def test_it_is_the_cross_entropy_of_the_answers() -> None:
    llm = model().train()
    found = Answering()(llm, BATCH, step())
    torch.testing.assert_close(found["loss"], by_hand(llm))
    torch.testing.assert_close(found["perplexity"], found["loss"].detach().exp())
    found["loss"].backward()
    assert all(parameter.grad is not None for parameter in llm.parameters())


@pytest.mark.parametrize("level", ["graph", "pipeline", "world"])
def test_the_model_is_found_by_path_at_every_level(level: str) -> None:
    llm = model()
    whole = world(llm)
    target, at = {
        "graph": (whole.find("author/tell/chat"), "llm"),
        "pipeline": (whole.find("author/tell"), "chat/llm"),
        "world": (whole, "author/tell/chat/llm"),
    }[level]
    target.train()
    objective = Answering(at=at, inputs={"question": "prompt"})
    objective.check(target)
    found = objective(target, BATCH, step())
    torch.testing.assert_close(found["loss"], by_hand(llm))
    found["loss"].backward()
    assert llm.embedding.weight.grad is not None
    told = objective.samples(target.eval(), BATCH, step())["told"]
    assert [text.endswith(f"(wanted: {answer})") for text, answer in zip(told, BATCH["answer"], strict=True)] == [True, True]


def test_an_answer_is_never_the_question() -> None:
    captions = Answering(answer="prompt")
    assert captions.needed() == ("prompt",)
    with pytest.raises(ConfigError, match=r"answering: train_toys/words needs 'prompt'; the data gives \['image'\]"):
        captions(model(), {"prompt": ["rain"], "image": torch.zeros(1)}, step())


def test_it_trains() -> None:
    from lightning.pytorch import Trainer

    from tests.train.toys import QUIET
    from wgtorch.train.fitting import _quiet

    trainable = Trainable(model(), objective="answering", optimizer={"type": "adamw", "lr": 0.02})
    before = float(by_hand(trainable.target).detach())
    batches: Any = DataLoader([BATCH] * 30, batch_size=None)  # type: ignore[arg-type]
    with _quiet():
        Trainer(max_steps=30, logger=False, enable_checkpointing=False, enable_model_summary=False, **QUIET).fit(trainable, batches)
    assert float(by_hand(trainable.target.eval()).detach()) < before / 2


def test_where_there_is_no_such_model() -> None:
    with pytest.raises(ConfigError, match="answering: train_toys/linear takes .*; expected a model that says how likely an answer is"):
        Answering().check(Linear())
    with pytest.raises(ConfigError, match="answering: chat is a graph; name its model with at, as 'llm' or 'chat/llm'"):
        Answering().check(chat(model()))
    with pytest.raises(ConfigError, match="answering: a takes .*llm or vlm with backend local"):
        Answering(at="a").check(chain(Linear()))
    with pytest.raises(ConfigError, match="chat has no node 'lm'; did you mean 'llm'"):
        Answering(at="lm").check(chat(model()))
    told = world(model())
    told.set_trainable("author", False)
    with pytest.raises(ConfigError, match="'author/tell/chat/llm': author is set not to train"):
        Answering(at="author/tell/chat/llm").check(told)
