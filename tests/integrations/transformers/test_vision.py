"""Local models that look at pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from tests.integrations.transformers import tiny
from wgtorch.core.block import BlockRegistry
from wgtorch.core.run.rng import Rng
from wgtorch.graph import Graph

PICTURES = torch.rand(3, 3, 20, 24, generator=torch.Generator().manual_seed(0))


def vlm_of(folder: Path, **config: Any) -> Any:
    config = {"checkpoint_ref": str(folder), "max_tokens": 8, "temperature": 1.0, **config}
    return BlockRegistry.build({"block_type": "vlm/local", "config": config})


def test_a_vlm_answers_for_each_picture_as_for_it_alone(vlm_folder: Path) -> None:
    vlm = vlm_of(vlm_folder)
    texts = vlm(image=PICTURES, prompt="What is there?", system="Be brief.", rng=Rng(1))["text"]
    assert len(texts) == 3
    assert vlm(image=PICTURES[:1], prompt="What is there?", system="Be brief.", rng=Rng(1))["text"] == texts[0]
    assert vlm_of(vlm_folder, batch_size=1)(image=PICTURES, prompt="What is there?", system="Be brief.", rng=Rng(1))["text"] == texts


def test_a_vlm_sees_the_picture_and_reads_the_question(vlm_folder: Path) -> None:
    vlm = vlm_of(vlm_folder, max_tokens=16)
    text = vlm(image=PICTURES[:1], prompt="What is there?", rng=Rng(1))["text"]
    assert vlm(image=1 - PICTURES[:1], prompt="What is there?", rng=Rng(1))["text"] != text
    assert vlm(image=PICTURES[:1], prompt="A storm comes.", rng=Rng(1))["text"] != text


def test_greedy_answers_are_those_of_transformers(vlm_folder: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model, processor = AutoModelForImageTextToText.from_pretrained(vlm_folder), AutoProcessor.from_pretrained(vlm_folder)
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is there?"}]}]
    pixels = (PICTURES[0] * 255).round().byte().permute(1, 2, 0).numpy()
    inputs = processor(text=[processor.apply_chat_template(turns, add_generation_prompt=True)], images=[pixels], return_tensors="pt")
    ids = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    answer = vlm_of(vlm_folder, temperature=0)(image=PICTURES[:1], prompt="What is there?")
    assert answer["text"] == processor.decode(ids, skip_special_tokens=True)
    assert answer["usage"]["prompt_tokens"] == inputs["input_ids"].shape[1]


def test_a_captioner_without_a_chat_template(tmp_path: Path) -> None:
    captioner = vlm_of(tiny.captioner(tmp_path / "blip"), temperature=0)
    texts = captioner(image=PICTURES, prompt="The picture of the sea")["text"]
    assert len(texts) == 3 and all(texts)


def test_a_mapped_place_gives_each_picture_its_own_draws(vlm_folder: Path) -> None:
    vlm = vlm_of(vlm_folder)
    graph = Graph("look")
    graph.add_node(vlm, "vlm", map="image", inputs={"prompt": "What is there?"})
    graph.infer_exposed_ports()
    same = PICTURES[0]
    texts = graph.run({"image": [same, same]}, seed=3)["text"]
    assert texts[0] != texts[1]
    assert graph.run({"image": [same]}, seed=3)["text"] == texts[:1]


def test_answers_can_be_held_to_a_schema(vlm_folder: Path) -> None:
    pytest.importorskip("llguidance")
    schema = {"type": "object", "properties": {"night": {"type": "boolean"}}, "required": ["night"], "additionalProperties": False}
    answer = vlm_of(vlm_folder)(image=PICTURES[:2], prompt="Is it night?", schema=schema, max_tokens=40, rng=Rng(1))
    assert [type(data["night"]) for data in answer["data"]] == [bool, bool]
