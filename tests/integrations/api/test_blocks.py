"""Blocks of models behind an API: what they send, and what they make of the answers."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.waiting import wait_until
from wgtorch import BlockRegistry, Graph
from wgtorch.core.errors import ConfigError, PortError, UnknownNameError
from wgtorch.core.run.rng import Rng
from wgtorch.integrations.api import UsageMeter, clients, register_provider, set_price
from wgtorch.integrations.api.media import audio_of
from wgtorch.integrations.api.prices import price_of
from wgtorch.integrations.api.providers.openai import OpenAI
from wgtorch.integrations.models.errors import AnswerFormatError, ApiContentError, ApiRequestError, ApiTransportError
from wgtorch.integrations.models.llm import LLM
from wgtorch.storage.media import wav_bytes
from wgtorch.testing import Reply, ScriptedServer

RECIPE = {
    "type": "object",
    "properties": {"prompts": {"type": "array", "items": {"type": "string", "maxLength": 20}, "minItems": 1}},
    "required": ["prompts"],
}


def test_a_prompt_and_its_options_travel_in_openais_words(server: ScriptedServer, build) -> None:
    llm = build("llm", system="Be brief.", temperature=0.5, top_p=0.9, max_tokens=7, stop=["END"], options={"logit_bias": {"1": 2}})
    history = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    out = llm(prompt="Name a colour.", context="It is winter.", history=history, temperature=0.1, rng=Rng(7, "place"))
    assert out["text"] == "It is winter.\n\nName a colour."
    body = server.requests[0].body
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        *history,
        {"role": "user", "content": "It is winter.\n\nName a colour."},
    ]
    assert (body["temperature"], body["top_p"], body["max_tokens"], body["stop"]) == (0.1, 0.9, 7, ["END"])
    assert body["seed"] == Rng(7, "place").seed() % 2**31
    assert body["logit_bias"] == {"1": 2}
    assert out["usage"]["completion_tokens"] == 6 and out["finish_reason"] == "stop"


class Terse(LLM):
    """Has said already what others are asked."""

    def __init__(self, url: str) -> None:
        super().__init__(model_id="some-model", endpoint_url=url, system="Be brief.", temperature=0.5, max_tokens=7, stop="END")


def test_what_a_constructor_of_ones_own_hands_up_is_what_is_asked(server: ScriptedServer) -> None:
    Terse(server.url)(prompt="Name a colour.")
    body = server.requests[0].body
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (body["temperature"], body["max_tokens"], body["stop"]) == (0.5, 7, ["END"])


def test_the_same_block_speaks_anthropics_protocol(server: ScriptedServer, build) -> None:
    server.script(Reply("Blue", tokens=(11, 2), finish="length"))
    llm = build("llm/anthropic", system="Be brief.", temperature=0.5, stop="END", allow_cut=True)
    out = llm(prompt="Name a colour.")
    seen = server.requests[0]
    assert seen.path == "/v1/messages" and seen.body["system"] == "Be brief." and seen.body["stop_sequences"] == ["END"]
    assert "temperature" not in seen.body and out["usage"]["left_out"] == ["temperature"]
    assert (out["text"], out["finish_reason"], out["usage"]["prompt_tokens"], out["usage"]["completion_tokens"]) == (
        "Blue",
        "length",
        11,
        2,
    )


def unsupported(name: str) -> Reply:
    """What a model that reasons says of an option of sampling."""
    error = {"message": f"Unsupported value: {name!r}", "type": "invalid_request_error", "param": name, "code": "unsupported_value"}
    return Reply(raw=json.dumps({"error": error}).encode(), status=400)


def test_options_that_a_model_turns_out_not_to_have_are_left_out_and_named(server: ScriptedServer, build) -> None:
    def picky(seen) -> Reply | str:
        found = next((name for name in ("temperature", "top_p") if name in seen.body), None)
        return unsupported(found) if found else "fine"

    server.respond = picky
    llm = build(temperature=0.5, top_p=0.9, max_tokens=7, retries=0)
    out = llm(prompt="x")
    assert out["text"] == "fine" and out["usage"]["left_out"] == ["temperature", "top_p"] and len(server.requests) == 3
    assert list(llm.stream(prompt="x")) == ["fine"] and len(server.requests) == 4, "once it is known, it is not sent again"
    assert server.requests[-1].body["max_tokens"] == 7
    server.respond = lambda seen: unsupported("max_tokens")
    with pytest.raises(ApiRequestError, match="Unsupported value: 'max_tokens'"):
        llm(prompt="x")


@pytest.mark.parametrize("block_type", ["llm", "llm/anthropic"])
def test_text_streams_in_pieces(server: ScriptedServer, build, block_type: str) -> None:
    llm = build(block_type)
    assert list(llm.stream(prompt="a storm comes")) == ["a", " storm", " comes"]


@pytest.mark.parametrize("block_type", ["llm", "llm/anthropic"])
def test_callbacks_are_told_of_a_text_as_it_comes(server: ScriptedServer, build, block_type: str) -> None:
    graph = Graph("chat")
    graph.add_node(build(block_type, stream=True), "llm")
    graph.infer_exposed_ports()
    events = []
    out = graph.run({"prompt": "a storm comes"}, callbacks=[events.append])
    assert [event.kind for event in events] == ["start", "chunk", "chunk", "chunk", "end"]
    parts = [event.outputs["text"] for event in events if event.kind == "chunk"]
    assert "".join(parts) == out["text"] == "a storm comes" and {event.path for event in events} == {"llm"}


def test_leaving_a_stream_hangs_up(server: ScriptedServer, build) -> None:
    server.script(Reply("one two three four five six seven", drip=1.0))
    for piece in build().stream(prompt="count"):
        assert piece == "one"
        break
    wait_until(lambda: server.requests[0].ended is not None)
    assert server.requests[0].left


def test_a_list_of_prompts_gives_a_list_and_the_calls_overlap(server: ScriptedServer, build) -> None:
    server.respond = lambda seen: Reply(seen.prompt, until=lambda: server.most_at_once == 6)
    out = build()(prompt=[f"number {n}" for n in range(6)])
    assert out["text"] == [f"number {n}" for n in range(6)] and len(out["usage"]) == 6
    assert server.most_at_once == 6
    assert build()(prompt=[])["text"] == [] and build()(prompt=["x"])["text"] == ["x"]


@pytest.mark.parametrize("block_type", ["vlm", "vlm/anthropic"])
def test_a_picture_arrives_as_it_was(server: ScriptedServer, build, block_type: str) -> None:
    image = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(1))
    server.respond = lambda seen: "seen"
    assert build(block_type)(image=image, prompt="What is it?")["text"] == ["seen", "seen"]
    sent = []
    for seen in server.requests:
        part, question = seen.body["messages"][0]["content"]
        assert question["text"] == "What is it?"
        encoded = part["image_url"]["url"].partition(",")[2] if block_type == "vlm" else part["source"]["data"]
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as opened:
            sent.append(torch.frombuffer(bytearray(opened.tobytes()), dtype=torch.uint8).view(5, 7, 3).permute(2, 0, 1) / 255)
    assert sorted(float(torch.stack([(a - b).abs().max() for b in image]).min()) < 1 / 255 for a in sent) == [True, True]
    assert build(block_type)(image=image[0])["text"] == "seen"


def test_an_answer_that_follows_its_schema_is_data(server: ScriptedServer, build) -> None:
    server.script('```json\n{"prompts": ["a hut"]}\n```')
    out = build(schema=RECIPE)(prompt="Plan.")
    assert out["data"] == {"prompts": ["a hut"]}
    body = server.requests[0].body
    assert body["response_format"]["json_schema"]["schema"] == RECIPE
    assert '"maxLength": 20' in server.requests[0].system


@pytest.mark.parametrize("block_type", ["llm", "llm/anthropic"])
def test_an_answer_that_does_not_is_repaired_once(server: ScriptedServer, build, block_type: str) -> None:
    server.script('{"prompts": []}', Reply('{"prompts": ["a hut"]}', tokens=(5, 5)))
    out = build(block_type)(prompt="Plan.", schema=RECIPE)
    assert out["data"] == {"prompts": ["a hut"]} and out["usage"]["calls"] == 2
    assert "$.prompts" in server.requests[1].prompt and len(server.requests) == 2
    server.script("no", "still no")
    with pytest.raises(AnswerFormatError, match=r"'still no' does not follow the schema, after one repair: it is not JSON"):
        build(block_type)(prompt="Plan.", schema=RECIPE)
    assert len(server.requests) == 4


def test_only_what_was_wrong_in_a_batch_is_asked_again(server: ScriptedServer, build) -> None:
    def respond(seen) -> str:
        return '{"prompts": ["two"]}' if "cannot be used" in seen.prompt or seen.prompt == "good" else "bad"

    server.respond = respond
    out = build(schema=RECIPE)(prompt=["good", "bad", "good"])
    assert len(out["data"]) == 3 and all(data == {"prompts": ["two"]} for data in out["data"]) and len(server.requests) == 4


def test_what_is_no_schema_is_refused_when_the_block_is_built(build) -> None:
    with pytest.raises(ConfigError, match=r"schema: not a JSON Schema at \$\.type"):
        build(schema={"type": "objekt"})


def test_vectors_pictures_and_sound(server: ScriptedServer, build) -> None:
    vectors = build("embedder", dimensions=4)(text=["a", "b", "a"])["embedding"]
    assert vectors.shape == (3, 4) and torch.equal(vectors[0], vectors[2]) and not torch.equal(vectors[0], vectors[1])
    assert build("embedder")(text="a")["embedding"].shape == (1, 8)

    painter = build("image_generator", width=24, height=8, options={"quality": "low"})
    pictures = painter(prompt=["sea", "hut"])["image"]
    assert pictures.shape == (2, 3, 8, 24) and float(pictures.min()) >= 0 and float(pictures.max()) <= 1
    assert server.requests[-1].body["quality"] == "low" and server.requests[-1].body["size"] == "24x8"
    painter(prompt="sea", image=pictures[:1], mask=torch.ones(1, 1, 8, 24))
    assert server.requests[-1].path.endswith("/images/edits") and server.requests[-1].content.count(b"\x89PNG") == 2

    server.script(*[Reply(audio=wav_bytes(torch.rand(1, count), 8000)) for count in (300, 500)])
    spoken = build("text_to_speech", voice="coral", limits={"in_flight": 1})(text=["short", "longer"])
    assert spoken["audio"].shape == (2, 1, 500) and spoken["lengths"].tolist() == [300, 500] and spoken["sampling_rate"] == 8000
    assert spoken["audio"][0, 0, 300:].abs().max() == 0 and spoken["audio"].abs().max() > 0.4
    server.script("hello there")
    assert build("speech_to_text", language="en")(audio=spoken["audio"][:1], sampling_rate=8000)["text"] == "hello there"
    assert b'name="language"' in server.requests[-1].content and b"RIFF" in server.requests[-1].content


def test_a_recording_comes_back_from_wav_also_when_its_length_was_not_known() -> None:
    wave = torch.linspace(-1, 1, 100)[None]
    content = wav_bytes(wave, 16000)
    back, rate = audio_of(content)
    assert rate == 16000
    torch.testing.assert_close(back, wave, atol=1e-4, rtol=0)
    endless = content[:40] + b"\xff\xff\xff\xff" + content[44:]
    assert torch.equal(audio_of(endless)[0], back)


def test_building_connects_to_nothing_and_needs_no_key() -> None:
    before = clients()
    for block_type in ("llm", "llm/openai", "llm/anthropic", "llm/api", "vlm", "embedder", "image_generator", "speech_to_text"):
        block = BlockRegistry.build({"block_type": block_type, "config": {"model_id": "m", "endpoint_url": "http://127.0.0.1:9/v1"}})
        assert block.is_async and not list(block.parameters())
        assert type(block).from_config(block.config).config == block.config
    assert clients() == before


def test_configs_that_mean_nothing_are_refused_with_what_would() -> None:
    def build(**config: object) -> None:
        BlockRegistry.build({"block_type": config.pop("block_type", "llm"), "config": {"model_id": "m", **config}})

    with pytest.raises(UnknownNameError, match="did you mean 'anthropic'"):
        build(provider="antropic")
    with pytest.raises(ConfigError, match=r"takes no 'tiemout'; did you mean 'timeout'"):
        build(tiemout=3)
    with pytest.raises(ConfigError, match=r"limits: unknown entry 'inflight'; did you mean 'in_flight'"):
        build(limits={"inflight": 3})
    with pytest.raises(ConfigError, match=r"budget.calls: found -1"):
        build(budget={"calls": -1})
    with pytest.raises(ConfigError, match="anthropic offers no embedder; it offers llm and vlm"):
        build(block_type="embedder", provider="anthropic")
    with pytest.raises(ConfigError, match="needs 'model_id'"):
        BlockRegistry.build({"block_type": "llm", "config": {}})
    with pytest.raises(ConfigError, match="temperature: found -1"):
        build(temperature=-1)
    with pytest.raises(ConfigError, match="mode: found 'repaly'; did you mean 'replay'"):
        build(mode="repaly")


def test_inputs_of_the_wrong_shape_are_refused_before_anything_is_sent(server: ScriptedServer, build) -> None:
    with pytest.raises(PortError, match=r"image: found a tensor \[1, 1, 4, 5\]"):
        build("vlm")(image=torch.zeros(1, 4, 5))
    with pytest.raises(PortError, match="system: found 3 values, expected 2"):
        build()(prompt=["a", "b"], system=["x", "y", "z"])
    with pytest.raises(PortError, match="there is no image"):
        build("image_generator")(prompt="x", mask=torch.ones(1, 8, 8))
    assert server.requests == []


def test_usage_is_summed_by_node_and_priced(server: ScriptedServer, build) -> None:
    set_price("openai", "tiny", prompt=2.0, completion=10.0)
    server.respond = lambda seen: Reply("fine", tokens=(1000, 100))
    graph = Graph("two")
    graph.add_node(build(), "first")
    graph.add_node(build(), "second", map="prompt")
    graph.expose_input("first", "prompt", name="one")
    graph.expose_input("second", "prompt", name="many")
    graph.expose_output("first", "text", name="a")
    graph.expose_output("second", "text", name="b")
    meter = UsageMeter()
    out = graph.run({"one": "x", "many": ["y", "z"]}, callbacks=[meter])
    assert out == {"a": "fine", "b": ["fine", "fine"]}
    assert (meter.nodes["first"].calls, meter.nodes["second"].calls, meter.total.prompt_tokens) == (1, 2, 3000)
    assert meter.total.cost == pytest.approx(3 * (1000 * 2 + 100 * 10) / 1e6) and meter.under("second").calls == 2
    assert meter.models["openai/tiny"].calls == 3 and "first: 1 calls" in str(meter)
    spent = clients()[0].spent
    assert (spent.calls, spent.tokens) == (3, 3300) and spent.money == pytest.approx(meter.total.cost)


def test_every_model_that_a_config_names_has_a_price() -> None:
    root = Path(__file__).parents[3] / "conf" / "world"
    named = re.findall(r"provider: (openai|anthropic), model_id: ([\w.-]+)", "".join(path.read_text() for path in root.glob("story*.yaml")))
    assert len(named) == 4 and all(price_of(*pair) is not None for pair in named), named
    assert price_of("openai", "gpt-4.1-mini-2025-04-14") == price_of("openai", "gpt-4.1-mini")
    set_price("openai", "gpt-4.1-mini-2025-04-14", prompt=9.0, completion=9.0, call=1.0)
    assert price_of("openai", "gpt-4.1-mini-2025-04-14").of(10**6, 10**6) == 19.0 != price_of("openai", "gpt-4.1-mini").of(10**6, 10**6)


def test_another_provider_is_one_small_class(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    @register_provider("test_tiny")
    class Tiny(OpenAI):
        endpoint = server.url
        key_variable = "TINY_API_KEY"

    monkeypatch.setenv("TINY_API_KEY", "tiny-key")
    block = BlockRegistry.build({"block_type": "llm", "config": {"provider": "test_tiny", "model_id": "m", "api_key_env": "TINY_API_KEY"}})
    assert block(prompt="hi")["text"] == "hi"
    assert server.requests[0].headers["authorization"] == "Bearer tiny-key"


def test_a_dry_run_asks_nobody(server: ScriptedServer, build) -> None:
    graph = Graph("dry")
    graph.add_node(build(), "llm", map="prompt")
    graph.add_node(build("image_generator", width=8, height=8), "paint", map="prompt")
    graph.add_edge("llm.text", "paint.prompt")
    graph.expose_input("llm", "prompt")
    graph.expose_output("paint", "image")
    report = graph.run({"prompt": ["a", "b"]}, dry_run="fake")
    assert report.is_valid and server.requests == []


def test_a_stream_that_breaks_off_after_it_was_read_is_an_error(server: ScriptedServer, build) -> None:
    server.script(Reply("one two three", cut=3))
    with pytest.raises(ApiTransportError, match="what was read of it is void"):
        list(build().stream(prompt="count"))


def test_the_responses_protocol_of_openai(server: ScriptedServer, build) -> None:
    def responses(**config) -> object:
        return build(provider="openai_responses", **config)

    server.script(Reply("one END two", tokens=(11, 2)))
    history = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    out = responses(system="Be brief.", temperature=0.5, max_tokens=7, stop="END")(
        prompt="Name a colour.", history=history, rng=Rng(3, "x")
    )
    seen = server.requests[0]
    assert seen.path == "/v1/responses" and seen.body["instructions"] == "Be brief." and seen.body["max_output_tokens"] == 7
    assert [turn["role"] for turn in seen.body["input"]] == ["user", "assistant", "user"] and seen.body["store"] is False
    assert out["text"] == "one " and out["usage"]["left_out"] == ["seed"] and out["usage"]["prompt_tokens"] == 11
    server.script("a storm comes", Reply("cut", finish="length"), "whole", Reply(refusal="No."), '{"prompts": ["a hut"]}')
    assert "".join(responses().stream(prompt="x")) == "a storm comes"
    assert responses(max_tokens=3)(prompt="x")["text"] == "whole" and server.requests[-1].body["max_output_tokens"] >= 12
    with pytest.raises(ApiContentError, match=r"refuses: No\."):
        responses()(prompt="x")
    assert responses(schema=RECIPE)(prompt="x")["data"] == {"prompts": ["a hut"]}
    assert server.requests[-1].body["text"]["format"]["schema"] == RECIPE
    server.script("seen")
    responses(block_type="vlm")(image=torch.rand(3, 4, 4), prompt="What is it?")
    assert server.requests[-1].body["input"][0]["content"][0]["image_url"].startswith("data:image/png")


# --- servers that the user runs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", ["vllm", "llama_cpp", "ollama", "transformers_serve"])
def test_a_server_by_its_address_is_asked_in_the_protocols_older_words_and_without_a_key(build, server, monkeypatch, provider: str) -> None:
    """vLLM's, llama.cpp's and Ollama's documentation of ``/v1/chat/completions`` name all of these."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-this-server")
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    options = {"chat_template_kwargs": {"enable_thinking": False}, "top_k": 20}
    llm = build(provider=provider, system="Be brief.", temperature=0.3, top_p=0.9, max_tokens=64, stop=["END"], options=options)
    server.script('{"a": 7}')
    assert llm(prompt="A number.", schema=schema, rng=Rng(3, "x"))["data"] == {"a": 7}
    seen = server.requests[-1]
    assert seen.path.endswith("/chat/completions") and seen.headers.get("authorization") in (None, "Bearer none")
    body = seen.body
    assert 0 <= body.pop("seed") < 2**31 and [turn["role"] for turn in body.pop("messages")] == ["system", "user"]
    held = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    form = {} if provider == "transformers_serve" else {"response_format": held}
    assert body == {"model": "tiny", "temperature": 0.3, "top_p": 0.9, "max_tokens": 64, "stop": ["END"], **options, **form}
    list(llm.stream(prompt="x"))
    assert server.requests[-1].body["stream_options"] == {"include_usage": True} and server.requests[-1].body["stream"] is True
