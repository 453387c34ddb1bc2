"""OpenAI's endpoints, used by the official client; what a level cannot do is refused before anything runs."""

from __future__ import annotations

import base64
import gzip
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("openai")

import openai

from tests.serving.blocks import graph_of
from tests.serving.test_negotiation import ask, form_of
from wgtorch.core.block import Block, BlockRegistry
from wgtorch.core.port import Port
from wgtorch.core.run.rng import Rng
from wgtorch.graph import Graph
from wgtorch.serving.server import Limits, serving
from wgtorch.testing import ScriptedServer
from wgtorch.testing.replies import Reply, Seen


def as_graph(block: Block) -> Graph:
    return graph_of(block, "it")


class Painter(Block):
    """A picture whose colour is drawn, and whose height tells how long the prompt is."""

    outputs = {"image": Port(dtype="image", shape=("B", 3, 4, 6))}
    calls = 0

    def forward(self, prompt: str, tint: float = 0.0, rng: Rng | None = None) -> dict[str, Tensor]:
        Painter.calls += 1
        assert rng is not None
        return {"image": (rng.uniform([1, 3, 1, 1]).expand(1, 3, 4, 6) * 0.5 + tint).clone()}


class Retoucher(Block):
    """Paints the masked part in a colour."""

    inputs = {"image": "image", "mask_image": "image"}
    outputs = {"image": "image"}

    def forward(self, prompt: str, image: Tensor, mask_image: Tensor) -> dict[str, Tensor]:
        return {"image": torch.where(mask_image > 0.5, torch.ones_like(image), image)}


class Talker(Block):
    """Says back what it was told, in two pieces where somebody listens."""

    inputs = {"prompt": "text", "system": "text", "history": "list", "temperature": "number"}
    outputs = {"text": "text", "usage": "dict", "finish_reason": "text"}

    def forward(
        self,
        prompt: str,
        system: str | None = None,
        history: list | None = None,
        temperature: float | None = None,
        stream: Callable[..., None] | None = None,
    ) -> dict[str, Any]:
        said = json.dumps([prompt, system, history, temperature])
        if stream is not None:
            stream(text=said[:5], index=0)
            stream(text=said[5:], index=0)
        return {"text": said, "usage": {"prompt_tokens": 3, "completion_tokens": 4}, "finish_reason": "length"}


class Embedder(Block):
    outputs = {"embedding": "embedding"}

    def forward(self, text: str) -> dict[str, Tensor]:
        return {"embedding": torch.tensor([[float(len(text)), 0.5, -1.0]])}


@pytest.fixture(scope="module")
def clients() -> Iterator[dict[str, Any]]:
    """The official client for each served level."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        found = {}
        for block in (Painter(), Retoucher(), Talker(), Embedder()):
            url = stack.enter_context(serving(as_graph(block), api_key="secret", limits=Limits(max_batch=4)))
            found[type(block).__name__] = stack.enter_context(openai.OpenAI(base_url=f"{url}/v1", api_key="secret", max_retries=0))
        yield found


def pixels(data: str) -> Tensor:
    with Image.open(io.BytesIO(base64.b64decode(data))) as opened:
        return torch.frombuffer(bytearray(opened.convert("RGB").tobytes()), dtype=torch.uint8).view(opened.height, opened.width, 3)


def test_pictures_from_a_prompt_each_with_its_own_seed(clients: dict[str, Any]) -> None:
    found = clients["Painter"].images.generate(prompt="a hill", n=3, model="it", extra_body={"seed": 5, "tint": 0.25})
    graph = as_graph(Painter())
    for index, entry in enumerate(found.data):
        expected = graph.run({"prompt": "a hill", "tint": 0.25}, seed=5 + index)["image"][0]
        assert torch.equal(pixels(entry.b64_json), (expected * 255).round().to(torch.uint8).permute(1, 2, 0))
    url = clients["Painter"].images.generate(prompt="a hill", response_format="url", size="6x4").data[0].url
    assert url.startswith("data:image/png;base64,") and pixels(url.split(",")[1]).shape == (4, 6, 3)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": ""}, "request.prompt: ''"),
        ({"prompt": "a", "size": "512x512"}, r"one of \['auto', '6x4'\]"),
        ({"prompt": "a", "quality": "hd"}, "request.quality"),
        ({"prompt": "a", "n": 17}, "from 1 to 16"),
        ({"prompt": "a", "extra_body": {"strenth": 1}}, "no such field"),
        ({"prompt": "a", "extra_body": {"seed": "x"}}, "seed is 'x'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_done_is_refused_before_anything_runs(clients: dict[str, Any], fields: dict[str, Any], words: str) -> None:
    before = Painter.calls
    with pytest.raises(openai.BadRequestError, match=words):
        clients["Painter"].images.generate(**fields)
    assert Painter.calls == before


def test_other_models_other_endpoints_and_no_key(clients: dict[str, Any]) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-image-1' here; there is 'it'"):
        clients["Painter"].images.generate(prompt="a", model="gpt-image-1")
    with pytest.raises(openai.NotFoundError, match="does not fit the endpoint: its inputs are prompt"):
        clients["Painter"].chat.completions.create(model="it", messages=[{"role": "user", "content": "a"}])
    with pytest.raises(openai.AuthenticationError):
        clients["Painter"].with_options(api_key="wrong").images.generate(prompt="a")
    assert [model.id for model in clients["Painter"].models.list()] == ["it"]
    assert clients["Painter"].models.retrieve("it").id == "it"
    for named in ("gpt-image-1", "org/flux-1"):
        with pytest.raises(openai.NotFoundError, match=f"there is no model '{named}' here; there is 'it'"):
            clients["Painter"].models.retrieve(named)


def test_edits_keep_what_is_not_masked(clients: dict[str, Any]) -> None:
    image, mask = Image.new("RGB", (6, 4), (10, 20, 30)), Image.new("RGBA", (6, 4), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 3, 4))
    files = []
    for picture in (image, mask):
        held = io.BytesIO()
        picture.save(held, "PNG")
        files.append(("picture.png", held.getvalue(), "image/png"))
    found = clients["Retoucher"].images.edit(image=files[0], mask=files[1], prompt="snow", model="it")
    shown = pixels(found.data[0].b64_json)
    assert shown[:, :3].float().mean() == 255 and shown[0, 3].tolist() == [10, 20, 30]
    with pytest.raises(openai.BadRequestError, match=r"request.mask: missing"):
        clients["Retoucher"].images.edit(image=files[0], prompt="snow")
    with pytest.raises(openai.BadRequestError, match="the picture cannot be read"):
        clients["Retoucher"].images.edit(image=("x.png", b"no picture", "image/png"), mask=files[1], prompt="snow")


CONVERSATION = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "who are you?"},
    {"role": "assistant", "content": "a hill"},
    {"role": "user", "content": [{"type": "text", "text": "and where?"}]},
]
TOLD = json.dumps(["and where?", "be kind", [{"role": "user", "content": "who are you?"}, {"role": "assistant", "content": "a hill"}], 0.5])


def test_a_conversation_is_answered_whole(clients: dict[str, Any]) -> None:
    found = clients["Talker"].chat.completions.create(model="it", messages=CONVERSATION, temperature=0.5, user="anna")
    assert found.choices[0].message.content == TOLD
    assert found.choices[0].finish_reason == "length"
    assert (found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.total_tokens) == (3, 4, 7)


def test_a_conversation_is_streamed_as_it_is_told(clients: dict[str, Any]) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(clients["Talker"].chat.completions.create(model="it", messages=CONVERSATION, temperature=0.5, **options))
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert pieces == [TOLD[:5], TOLD[5:]]
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert chunks[-1].usage.total_tokens == 7


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"messages": []}, "a list of messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "user, assistant or system"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "the last one is not the user's"),
        ({"messages": CONVERSATION, "top_p": 0.5}, "request.top_p"),
        ({"messages": CONVERSATION, "tools": [{"type": "function", "function": {"name": "f"}}]}, "request.tools"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y.png"}}]}]}, "data:image/png"),
    ],
    ids=["none", "role", "last", "top_p", "tools", "picture"],
)
def test_a_conversation_that_cannot_be_had_is_refused(clients: dict[str, Any], fields: dict[str, Any], words: str) -> None:
    with pytest.raises(openai.BadRequestError, match=words):
        clients["Talker"].chat.completions.create(model="it", **fields)


@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_embeddings_of_several_texts(clients: dict[str, Any], encoding: str | None) -> None:
    options = {} if encoding is None else {"encoding_format": encoding}
    found = clients["Embedder"].embeddings.create(model="it", input=["abc", "a"], **options)
    rows = [entry.embedding for entry in found.data]
    if encoding == "base64":
        rows = [torch.frombuffer(bytearray(base64.b64decode(row)), dtype=torch.float32).tolist() for row in rows]
    assert rows == [[3.0, 0.5, -1.0], [1.0, 0.5, -1.0]]


def test_a_fault_in_the_middle_of_a_stream_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(prompt: str, stream: Any = None) -> dict[str, Any]:
        raise RuntimeError("the lens is cracked")

    graph = as_graph(Block.wrap(broken, inputs={"prompt": "text"}, outputs={"text": "text"}))
    sent = {"messages": [{"role": "user", "content": "x"}], "stream": True}
    with serving(graph) as url:
        status, _, content = ask(url, "/v1/chat/completions", json.dumps(sent).encode())
    assert status == 200 and b"the lens is cracked" in content and content.endswith(b"data: [DONE]\n\n")


def test_what_a_request_says_twice_or_in_no_form_is_refused_and_nothing_is_passed_over(clients: dict[str, Any]) -> None:
    said, chat = {"role": "user", "content": "x"}, clients["Talker"].chat.completions
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(png_of((6, 4))).decode()}"}}
    for fields, words in (
        ({"extra_body": {"prompt": "y"}}, "request.prompt: given beside"),
        ({"messages": [{"role": "system", "content": "z"}, said], "extra_body": {"system": "y"}}, "request.system: given beside"),
        ({"extra_body": {"stream_options": "x"}, "stream": True}, "request.stream_options: 'x'"),
        ({"extra_body": {"stream_options": {"include_usage": "no"}}, "stream": True}, "request.stream_options"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}, "'text': 5"),
        ({"messages": [{"role": "user", "content": [picture, picture]}]}, "one image_url"),
    ):
        with pytest.raises(openai.BadRequestError, match=words):
            chat.create(**{"model": "it", "messages": [said], **fields})
    idle = {"tools": [], "tool_choice": "auto", "logit_bias": {}, "functions": [], "function_call": "none", "top_logprobs": 0}
    assert chat.create(model="it", messages=[said], extra_body=idle).choices[0].message.content.startswith('["x"')
    with pytest.raises(openai.BadRequestError, match=r"request.text: given beside"):
        clients["Embedder"].embeddings.create(model="it", input="a", extra_body={"text": "b"})


def png_of(size: tuple[int, int], mode: str = "RGBA") -> bytes:
    held = io.BytesIO()
    Image.new(mode, size).save(held, "PNG")
    return held.getvalue()


@pytest.mark.parametrize(
    ("parts", "status", "words"),
    [
        ([("seed", None, b'{"a": 1, "a": 2}')], 400, "request.seed: key 'a' is there twice"),
        ([("seed", None, b"[" * 100_000)], 400, "seed is '[[[["),
        ([("seed", "s.txt", b"5")], 200, ""),
        ([("prompt", "p.txt", "мост".encode())], 200, ""),
        ([("prompt", None, "мост".encode("cp1251"))], 400, "request.prompt: 'utf-8' codec"),
        ([("mask", "m.png", png_of((3, 3)))], 400, "request.mask: 3x3; expected 6x4"),
        ([("mask", "m.png", b"no picture")], 400, "not a picture: 10 bytes"),
        ([("image", "a.png", b"")], 400, "not a picture: 0 bytes"),
        ([("image", None, b"")], 400, "request.image"),
        ([("strength", "s", b"\xff")], 400, "request.strength"),
    ],
    ids=lambda value: value[0][0] if isinstance(value, list) else "",
)
def test_a_form_of_an_edit_may_be_odd(clients: dict[str, Any], parts: list[Any], status: int, words: str) -> None:
    usual = [("image", "a.png", png_of((6, 4), "RGB")), ("mask", "m.png", png_of((6, 4))), ("prompt", None, b"x")]
    data, kind = form_of(*[part for part in usual if part[0] != parts[0][0]], *parts)
    url = str(clients["Retoucher"].base_url).removesuffix("/v1/")
    answered, _, content = ask(url, "/v1/images/edits", data, kind=kind, Authorization="Bearer secret")
    assert (answered, words in json.loads(content).get("error", {}).get("message", "")) == (status, True), content[:500]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/run"])
def test_bodies_that_are_compressed_or_of_another_type_are_refused_by_name(clients: dict[str, Any], path: str) -> None:
    url, key = str(clients["Talker"].base_url).removesuffix("/v1/"), {"Authorization": "Bearer secret"}
    for coding in ("gzip", "br", "deflate"):
        answered, _, content = ask(url, path, gzip.compress(b"{}"), **{"Content-Encoding": coding, **key})
        assert answered == 415 and f"Content-Encoding '{coding}'" in json.loads(content)["error"]["message"]
    answered, _, content = ask(url, path, b"messages=x", kind="application/x-www-form-urlencoded", **key)
    assert answered == 415 and "expected" in json.loads(content)["error"]["message"]


def behind_an_api(seen: Seen) -> Reply | str:
    """A model that does as the last line of its prompt says."""
    asked = seen.prompt.split("\n")[-1]
    if asked == "fail":
        return Reply("broken.", status=500)
    if asked == "break off":
        return Reply("one two three four", cut=3, drip=0.02)
    return "<think>hmm</think>The answer." if asked == "think" else f"You said {asked}"


@pytest.fixture(scope="module")
def relayed() -> Iterator[Callable[..., Any]]:
    """Asks a served graph, whose first model tells its second a context; both are elsewhere, and stream."""
    with ScriptedServer(behind_an_api) as peer:
        at = {"provider": "openai", "model_id": "m", "endpoint_url": peer.url, "retries": 1, "backoff": 0.01, "stream": True}
        graph = Graph("it")
        for name in ("first", "second"):
            graph.add_node(BlockRegistry.build({"block_type": "llm", "config": at}), name, auto_connect=False)
        graph.configure_node("first", inputs={"prompt": "a plan"})
        graph.add_edge("first.text", "second.context")
        for name in ("prompt", "temperature", "top_p", "max_tokens"):
            graph.expose_input("second", name)
        for name in ("text", "thoughts"):
            graph.expose_output("second", name)
        with serving(graph) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:

            def ask_it(prompt: str, **options: Any) -> Any:
                return client.chat.completions.create(model="it", messages=[{"role": "user", "content": prompt}], **options)

            yield ask_it


def test_of_models_elsewhere_the_one_whose_text_is_the_answer_is_streamed(relayed: Callable[..., Any]) -> None:
    whole = relayed("think").choices[0].message
    assert (whole.content, whole.reasoning_content) == ("The answer.", "hmm")
    deltas = [chunk.choices[0].delta for chunk in relayed("think", stream=True)]
    assert "".join(delta.content or "" for delta in deltas) == "The answer."
    assert [delta.reasoning_content for delta in deltas if getattr(delta, "reasoning_content", None)] == ["hmm"]
    assert len([delta for delta in (chunk.choices[0].delta for chunk in relayed("hello there", stream=True)) if delta.content]) > 1


def test_a_stream_that_begins_anew_is_an_error_since_nothing_that_was_sent_can_be_taken_back(relayed: Callable[..., Any]) -> None:
    pieces = []
    with pytest.raises(openai.APIError, match="began anew, and what was read of it is void"):
        for chunk in relayed("break off", stream=True):
            pieces.append(chunk.choices[0].delta.content)
    assert "".join(filter(None, pieces)).startswith("one")


@pytest.mark.parametrize(
    ("prompt", "options", "status", "words"),
    [
        ("x", {"temperature": -1}, 400, "temperature: found -1"),
        ("x", {"top_p": 0}, 400, "top_p: found 0"),
        ("x", {"max_tokens": 0}, 400, "max_tokens: found 0"),
        ("fail", {}, 424, "status 500, broken after 2 tries"),
    ],
    ids=["temperature", "top_p", "max_tokens", "elsewhere"],
)
def test_whose_fault_it_is_can_be_told_from_the_status(
    relayed: Callable[..., Any], prompt: str, options: dict[str, Any], status: int, words: str
) -> None:
    with pytest.raises(openai.APIStatusError, match=words) as failed:
        relayed(prompt, **options)
    assert failed.value.status_code == status
