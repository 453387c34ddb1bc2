"""A server that we did not write: ``transformers serve`` with a small random model, made here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.served_model import transformers_serve
from wgtorch import Graph, World
from wgtorch.integrations.api import UsageMeter, cassette
from wgtorch.integrations.models.errors import AnswerFormatError, ApiError, ApiRequestError, ApiTransportError

pytest.importorskip("transformers")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

pytestmark = pytest.mark.xdist_group("processes")

_TEMPLATE = "{% for message in messages %}<{{ message.role }}> {{ message.content }} {% endfor %}<assistant>"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The address of the server and the id of its model."""
    folder = _made(tmp_path_factory.mktemp("tiny_llama"))
    with transformers_serve(str(folder), folder / "log.txt") as url:
        yield url, str(folder)


def _made(folder: Path) -> Path:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(models.BPE(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    marks = ["<unk>", "<s>", "</s>", "<pad>"]
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=marks, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    words.train_from_iterator(["a storm comes over the sea", "the traveller lights a lantern"], trainer)
    from tokenizers import decoders

    words.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    tokenizer.chat_template = _TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=3,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("provider", ["openai", "transformers_serve"])
def test_it_answers_in_chat(served, build, provider: str) -> None:
    url, model = served
    llm = build(provider=provider, endpoint_url=url, model_id=model, max_tokens=8, allow_cut=True, system="Tell.")
    out = llm(prompt=["a storm comes", "the sea"])
    assert len(out["text"]) == 2 and all(isinstance(text, str) for text in out["text"])
    for usage in out["usage"]:
        assert 0 < usage["completion_tokens"] <= 8 and usage["prompt_tokens"] > 5


def test_it_streams_the_text_that_it_answers(served, build, tmp_path: Path) -> None:
    url, model = served
    llm = build(endpoint_url=url, model_id=model, max_tokens=12, allow_cut=True, temperature=0.0, stream=True)
    whole = llm(prompt="a storm comes")["text"]
    pieces = list(llm.stream(prompt="a storm comes"))
    assert "".join(pieces) == whole and len(pieces) > 1
    graph = Graph("chat")
    graph.add_node(llm, "llm")
    graph.infer_exposed_ports()
    parts: list[str] = []
    with cassette(tmp_path / "tape.sqlite", mode="record"):
        text = graph.run(
            {"prompt": "the sea"}, seed=3, callbacks=[lambda event: parts.append(event.outputs["text"]) if event.kind == "chunk" else None]
        )["text"]
    assert "".join(parts) == text
    with cassette(tmp_path / "tape.sqlite", mode="replay"):
        assert graph.run({"prompt": "the sea"}, seed=3)["text"] == text


def test_its_errors_are_ours(served, build) -> None:
    url, model = served
    with pytest.raises(ApiError) as caught:
        build(endpoint_url=url, model_id="no/such-model", retries=0)(prompt="x")
    assert isinstance(caught.value, (ApiRequestError, ApiTransportError)) and caught.value.status is not None
    with pytest.raises(ApiRequestError, match="status 422"):
        build(endpoint_url=url, model_id=model, options={"tool_choice_of_nobody": 1})(prompt="x")
    with pytest.raises(ApiRequestError, match="status 404"):
        build("embedder", endpoint_url=url, model_id=model)(text="x")


def test_a_world_lives_on_it(served, build, server, tmp_path: Path) -> None:
    """Its random model tells, but makes no recipe: there the world pauses, until another model is at that place."""
    url, model = served
    server.respond = lambda seen: '{"prompts": ["A tent."]}'

    def world_of(**architect: Any) -> World:
        world = World.from_template(
            "storytelling",
            llm={"provider": "transformers_serve", "endpoint_url": url, "model_id": model, "max_tokens": 6, "allow_cut": True},
            vlm={"block_type": "vlm/scene", "config": {"checkpoint_ref": "wgtorch:scene_describer"}},
            creator={"template": "text_to_image", "params": {"steps": 1}},
            update="plain",
            story="A storm comes.",
            memory={"budget": 60},
            **architect,
        )
        world.set_storage({"state_dir": str(tmp_path / "life")})
        return world

    first = world_of()
    with pytest.raises(AnswerFormatError, match="does not follow the schema, after one repair"):
        first.run(num_steps=2, seed=3)
    assert first.state.intent and first.state.recipe is None
    second = world_of(architect={"model_id": "m", "endpoint_url": server.url})
    meter = UsageMeter()
    second.resume().run(num_steps=2, callbacks=[meter])
    assert len(second.history) == 1 and second.history[0].intent == first.state.intent and second.state.artifacts
    assert meter.models[f"transformers_serve/{model}"].completion_tokens > 0 and meter.under("author").calls == 1
    assert meter.under("architect").calls == len(server.requests) == 2
