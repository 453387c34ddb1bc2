"""How likely a local model finds an answer: the loss of transformers itself, alone and in a batch; and training by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("llguidance")

from tests.integrations.transformers import tiny
from wgtorch import Graph, lora
from wgtorch.core.block import BlockRegistry
from wgtorch.core.errors import ConfigError
from wgtorch.train import Step
from wgtorch.train.objectives.answers import Answering

PROMPTS = ["A storm comes.", "The lamp of the harbour is dark and the keeper climbs."]
ANSWERS = ["The keeper lights the lamp.", "Dark."]


def block_of(kind: str, folder: Path) -> Any:
    return BlockRegistry.build({"block_type": f"{kind}/local", "config": {"checkpoint_ref": str(folder)}}).eval()


def absolute_positions(folder: Path) -> Path:
    """A GPT-2 of two layers, whose positions are numbers of their own."""
    from transformers import GPT2Config, GPT2LMHeadModel

    words = tiny.tokenizer(chat=False)
    torch.manual_seed(0)
    settings = {"vocab_size": len(words), "n_positions": 128, "n_embd": 16, "n_layer": 2, "n_head": 2, "initializer_range": 0.5}
    GPT2LMHeadModel(GPT2Config(**settings, bos_token_id=None, eos_token_id=words.eos_token_id)).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def test_it_is_the_loss_of_transformers(llm_folder: Path) -> None:
    llm = block_of("llm", llm_folder)
    found = llm(prompt=PROMPTS[0], answer=ANSWERS[0])
    asked = llm.backend.tokenizer(f"<|user|>{PROMPTS[0]}<|end|><|assistant|>", add_special_tokens=False).input_ids
    told = [*llm.backend.tokenizer(ANSWERS[0], add_special_tokens=False).input_ids, llm.backend.tokenizer.eos_token_id]
    tokens, labels = torch.tensor([asked + told]), torch.tensor([[-100] * len(asked) + told])
    torch.testing.assert_close(found["log_prob"][0], -llm.model(input_ids=tokens, labels=labels).loss * len(told))
    assert found["answer_tokens"].tolist() == [len(told)]
    assert found["text"] == ANSWERS[0]


@pytest.mark.parametrize("make", [tiny.language_model, absolute_positions])
def test_a_row_of_a_batch_is_as_likely_as_alone(make: Any, tmp_path: Path) -> None:
    llm = block_of("llm", make(tmp_path))
    together = llm(prompt=PROMPTS, answer=ANSWERS)
    alone = [llm(prompt=prompt, answer=answer) for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)]
    torch.testing.assert_close(together["log_prob"], torch.cat([each["log_prob"] for each in alone]), rtol=1e-4, atol=1e-4)
    assert together["answer_tokens"].tolist() == [int(each["answer_tokens"]) for each in alone]


@pytest.mark.parametrize("make", [tiny.vision_model, tiny.captioner])
def test_captions_depend_on_their_pictures(make: Any, tmp_path: Path) -> None:
    vlm = block_of("vlm", make(tmp_path))
    pictures = torch.stack([torch.zeros(3, 16, 16), torch.ones(3, 16, 16)])
    found = vlm(image=pictures, answer=ANSWERS)["log_prob"]
    assert found.shape == (2,)
    torch.testing.assert_close(vlm(image=pictures[:1], answer=ANSWERS[0])["log_prob"], found[:1], rtol=1e-4, atol=1e-4)
    assert not torch.equal(vlm(image=pictures.flip(0), answer=ANSWERS)["log_prob"], found)


def test_an_adapter_learns_answers_at_its_place_in_a_chat(llm_folder: Path) -> None:
    pytest.importorskip("peft")
    graph = Graph.from_template("chat", llm={"backend": "local", "checkpoint_ref": str(llm_folder)}, system="Write in English.")
    node = next(node_id for node_id, child in graph.nodes.items() if child.role == "llm")
    lora.add(graph, "author", rank=4, freeze_base=True)
    objective = Answering(at=node)
    objective.check(graph)
    batch = {"prompt": PROMPTS, "answer": ANSWERS}
    optimizer = torch.optim.Adam(list(graph.trainable_parameters()), lr=0.02)
    graph.train()
    losses = []
    for _ in range(8):
        loss = objective(graph, batch, Step(0, torch.Generator()))["loss"]
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 0.5
    graph.eval()
    worn = float(objective(graph, batch, Step(0, torch.Generator()))["loss"].detach())
    graph.set_adapter(node, None)
    bare = float(objective(graph, batch, Step(0, torch.Generator()))["loss"].detach())
    assert bare == pytest.approx(losses[0], abs=1e-4), "the base is as it was, and is what is asked once the adapter is off"
    assert worn < bare


def test_a_dry_run_has_stand_ins_for_the_likelihood(llm_folder: Path) -> None:
    llm = block_of("llm", llm_folder)
    found = llm.dry(prompt=PROMPTS, answer=ANSWERS)
    assert {name: found[name].shape for name in ("log_prob", "answer_tokens")} == {"log_prob": (2,), "answer_tokens": (2,)}
    assert "log_prob" not in llm.dry(prompt=PROMPTS)


def test_a_model_behind_an_api_has_no_such_ports() -> None:
    far = BlockRegistry.build({"block_type": "llm", "config": {"provider": "openai", "model_id": "m"}})
    assert "answer" not in far.get_input_spec()
    assert "log_prob" not in far.get_output_spec()
    with pytest.raises(ConfigError, match="answering: llm takes .*expected a model that says how likely an answer is"):
        Answering().check(far)


def test_too_long_an_answer_is_refused(tmp_path: Path) -> None:
    llm = block_of("llm", absolute_positions(tmp_path))
    with pytest.raises(ConfigError, match=r"llm: a question and its answer have \d+ tokens; the model reads at most 128"):
        llm(prompt=PROMPTS[0], answer="storm " * 200)
