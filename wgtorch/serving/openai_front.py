"""The part of OpenAI's HTTP interface that a level's ports fit, so that the ``openai`` client and every tool built on it can use it.

| endpoint | a level with |
| --- | --- |
| ``POST /v1/images/generations`` | a text input and an image output |
| ``POST /v1/images/edits`` | a picture as input beside them, and a mask |
| ``POST /v1/chat/completions`` | a text input and a text output; streamed where the level streams |
| ``POST /v1/embeddings`` | a text input and an embedding output |
| ``GET /v1/models``, ``GET /v1/models/NAME`` | any |

A world answers chat too: a message is an action, see :mod:`wgtorch.serving.world_chat`.

What a request asks for and the level cannot do is refused before anything runs.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import anyio
import torch
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from torch import Tensor

from wgtorch.core.composite import Composite
from wgtorch.core.errors import Finding, RequestError
from wgtorch.core.json_text import parse_json
from wgtorch.integrations.models.errors import ApiTransportError
from wgtorch.serving.forms import fields_of, part_value, picture
from wgtorch.serving.negotiation import EVENTS_TYPE, JSON_TYPE, MULTIPART_TYPE, content_type
from wgtorch.serving.openai_tasks import Task, chat_inputs, count_and_seed, data_picture, joined, other_inputs, prompt_of, tasks_of
from wgtorch.serving.services import Service
from wgtorch.serving.streaming import Stream, Work
from wgtorch.serving.world_chat import WorldChat
from wgtorch.storage.media import png_bytes

Answers = Callable[[Request, list[dict[str, Any]]], Awaitable[list[dict[str, Any]]]]
"""Runs several requests to the level; raises what one of them raised."""
_PLAIN_IMAGE: dict[str, tuple[Any, ...]] = {
    "response_format": ("b64_json", "url"), "size": ("auto",), "quality": ("auto", "standard"), "style": ("vivid", "natural"),
    "background": ("auto", "opaque"), "moderation": ("auto", "low"), "output_format": ("png",), "stream": (False,),
    "partial_images": (0,), "input_fidelity": ("low", "high"), "output_compression": (100,),
}  # fmt: skip
_PLAIN_CHAT: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0, 0.0), "presence_penalty": (0, 0.0), "logprobs": (False,), "modalities": (["text"],), "tools": ([],),
    "parallel_tool_calls": (True, False), "response_format": ({"type": "text"},), "stream": (False, True),
    "tool_choice": ("none", "auto"), "functions": ([],), "function_call": ("none", "auto"), "logit_bias": ({},), "top_logprobs": (0,),
}  # fmt: skip


class OpenAIFront:
    """The routes.

    Args:
        service: what is served.
        message: reads a request's body within the server's limits: raw bytes.
        answers: runs requests.
        busy: how many may run at once.
        most: bytes of a request.
        name: of the model; the level's own id, and ``wgtorch``, are taken for it too.
        world_chat: conversations, where a world is served.
    """

    def __init__(
        self,
        service: Service,
        message: Callable[[Request], Awaitable[bytearray]],
        answers: Answers,
        busy: Any,
        most: int,
        name: str,
        world_chat: WorldChat | None = None,
    ) -> None:
        self.service = service
        self.contract = service.contract
        self.tasks = tasks_of(service.contract)
        self.raw = message
        self.answers = answers
        self.busy = busy
        self.most = most
        self.name = name
        self.world_chat = world_chat
        self.created = int(time.time())

    def routes(self, guarded: Callable[[Callable[[Request], Awaitable[Response]]], Any]) -> list[Route]:
        """The routes, each behind the server's checks."""
        pages = {
            "/v1/images/generations": self.generations, "/v1/images/edits": self.edits, "/v1/chat/completions": self.chat,
            "/v1/embeddings": self.embeddings,
        }  # fmt: skip
        found = [Route(path, guarded(page), methods=["POST"]) for path, page in pages.items()]
        looked_up = {"/v1/models": self.models, "/v1/models/{name:path}": self.model}
        return [*found, *(Route(path, guarded(page), methods=["GET"]) for path, page in looked_up.items())]

    async def models(self, request: Request) -> Response:
        """The one model that there is."""
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        """The model, if it has that name."""
        self._check_name(request.path_params["name"])
        return JSONResponse(self._model())

    async def generations(self, request: Request) -> Response:
        """Pictures from a prompt."""
        body = await self._json(request)
        task = self._task("generations", body)
        given = other_inputs(body, {"prompt"}, self._with_sizes(_PLAIN_IMAGE), self.contract)
        return await self._pictures(request, body, joined(given, {task.text: prompt_of(body)}), task)

    async def edits(self, request: Request) -> Response:
        """Pictures from a picture and a prompt; painted anew where the mask is transparent."""
        body: dict[str, Any] = {}
        if content_type(request.headers) == MULTIPART_TYPE:
            kinds = {name: port["dtype"] for name, port in self.contract.get("inputs", {}).items()}
            kinds |= {"prompt": "text", "model": "text", "user": "text", "image": "any", "mask": "any"}
            for name, value in await fields_of(bytes(await self.raw(request)), request.headers, self.most):
                name = name.removesuffix("[]")
                if name in body:
                    raise RequestError("the request does not fit", [Finding(f"request.{name}", "several of them", "one")])
                is_file = isinstance(value, bytes) and name in ("image", "mask")
                try:
                    body[name] = value if is_file else part_value(value, kinds.get(name, "any"))
                except ValueError as error:
                    raise RequestError("the request does not fit", [Finding(f"request.{name}", str(error)[:200], "a value")]) from None
        else:
            body = await self._json(request)
        task = self._task("edits", body)
        assert task.image is not None
        given = other_inputs(body, {"prompt", "image", "mask"}, self._with_sizes(_PLAIN_IMAGE), self.contract)
        image = self._picture(body.get("image"), "request.image").unsqueeze(0)
        given = joined(given, {task.text: prompt_of(body), task.image: image})
        if body.get("mask") is not None:
            if task.mask is None:
                raise RequestError("this level takes no mask", [Finding("request.mask", "a mask", "none")])
            given = joined(given, {task.mask: self._mask(body["mask"], image)})
        elif task.mask is not None and not self.contract["inputs"][task.mask].get("optional"):
            raise RequestError("the request does not fit", [Finding("request.mask", "missing", "a PNG, transparent where to paint anew")])
        return await self._pictures(request, body, given, task)

    async def embeddings(self, request: Request) -> Response:
        """An embedding for each text."""
        body = await self._json(request)
        task = self._task("embeddings", body)
        usual: dict[str, tuple[Any, ...]] = {"encoding_format": ("float", "base64")}
        if isinstance(width := (self.contract["outputs"][task.output].get("shape") or (None,))[-1], int):
            usual["dimensions"] = (width,)
        given = other_inputs(body, {"input"}, usual, self.contract)
        texts = body.get("input")
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise RequestError(
                "the request does not fit", [Finding("request.input", f"{body.get('input')!r}"[:60], "a text, or a list of texts")]
            )
        seed = count_and_seed(body)[1]
        found = await self.answers(request, [{"inputs": joined(given, {task.text: text}), **_seeded(seed)} for text in texts])
        rows = [torch.as_tensor(answer["outputs"][task.output]).detach().float().cpu().reshape(-1) for answer in found]
        in_base64 = body.get("encoding_format") == "base64"
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": base64.b64encode(row.numpy().astype("<f4").tobytes()).decode() if in_base64 else row.tolist(),
            }
            for index, row in enumerate(rows)
        ]
        return JSONResponse({"object": "list", "model": self.name, "data": data, "usage": _usage(found, whole=False)})

    async def chat(self, request: Request) -> Response:
        """One answer in a conversation, or several; streamed where asked for."""
        body = await self._json(request)
        task = self._task("chat", body)
        head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": self.name}
        if self.world_chat is not None:
            return await self._world_chat(self.world_chat, body, task, head)
        ports = self.contract["inputs"]
        read = {"messages", "stream_options"} | ({"max_completion_tokens"} if "max_tokens" in ports else set())
        usual = dict(_PLAIN_CHAT)
        if "schema" in ports and isinstance(body.get("response_format"), Mapping):
            read.add("response_format")
        for name, plain in (("temperature", (1, 1.0)), ("top_p", (1, 1.0))):
            if name not in ports:
                usual[name] = plain
        given = joined(other_inputs(body, read, usual, self.contract), chat_inputs(body, task, self.contract))
        if body.get("max_completion_tokens") is not None and "max_tokens" in ports:
            given = joined(given, {"max_tokens": body["max_completion_tokens"]})
        if "response_format" in read and (schema := _schema(body["response_format"])) is not None:
            given["schema"] = schema
        count, seed = count_and_seed(body)
        if body.get("stream"):
            if count > 1:
                raise RequestError("the request does not fit", [Finding("request.n", str(count), "1 where the answer is streamed")])
            message = {"inputs": given, **_seeded(seed)}
            return self._chat_stream(lambda tell, stop: self.service.answer(message, tell=tell, cancelled=stop), body, task, head)
        found = await self.answers(request, [{"inputs": given, **_seeded(seed, index)} for index in range(count)])
        return _chat_answer(found, task, head)

    async def _world_chat(self, chat: WorldChat, body: Mapping[str, Any], task: Task, head: dict[str, Any]) -> Response:
        """What comes of the last message as an action; ``modalities: ["text", "image"]`` gives the episode's picture beside it."""
        usual = {**_PLAIN_CHAT, "temperature": (1, 1.0), "top_p": (1, 1.0), "modalities": (["text"], ["text", "image"], ["image", "text"])}
        other_inputs(body, {"messages", "stream_options"}, usual, self.contract)
        # As of a level that takes all that a conversation may hold; what a world cannot be told is refused below.
        given = chat_inputs(body, task, {"inputs": {name: {"dtype": "text"} for name in (task.text, "system", "history")}})
        count, seed = count_and_seed(body)
        if count > 1:
            raise RequestError("the request does not fit", [Finding("request.n", str(count), "1", "Ask again for another answer.")])
        if "system" in given:
            mend = "Leave it out: a world has rules of its own."
            raise RequestError("the request does not fit", [Finding("request.messages", "a system message", "none", mend)])
        caller = body.get("safety_identifier") or body.get("user")
        work = partial(
            chat.answer,
            given.get("history", []),
            given[task.text],
            seed=seed,
            caller=None if caller is None else str(caller),
            with_picture="image" in (body.get("modalities") or ()),
        )
        if body.get("stream"):
            return self._chat_stream(lambda tell, stop: work(cancelled=stop), body, task, head)
        return _chat_answer([await anyio.to_thread.run_sync(work, limiter=self.busy)], task, head)

    def _chat_stream(self, work: Work, body: Mapping[str, Any], task: Task, head: dict[str, Any]) -> Response:
        """Chunks as the level tells of them, then what was not told, and the reason why it ended."""
        options = body.get("stream_options") or {}
        if not isinstance(options, Mapping) or not isinstance(options.get("include_usage", False), bool):
            found = Finding("request.stream_options", f"{options!r}"[:60], '{"include_usage": true}')
            raise RequestError("the request does not fit", [found])
        with_usage = options.get("include_usage", False)
        told: list[str] = []
        source, port = _source(self.service.level, task.output)

        def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
            return _event({**head, "object": "chat.completion.chunk", "choices": [choice]})

        def encode(entry: dict[str, Any]) -> bytes:
            if "result" in entry:
                outputs = entry["result"]["outputs"]
                whole = _text(outputs[task.output])
                rest = whole.removeprefix("".join(told)) if whole.startswith("".join(told)) else ""
                beside = _beside(outputs)
                last = [chunk({"content": rest, **beside})] if rest or beside else []
                last.append(chunk({}, _reason(outputs)))
                if with_usage:
                    last.append(_event({**head, "object": "chat.completion.chunk", "choices": [], "usage": _usage([entry["result"]])}))
                return b"".join(last)
            if "fault" in entry:
                return _event(entry["fault"])
            event = entry.get("event", {})
            if event.get("kind") != "chunk" or not f"{event['path']}/".startswith(f"{source}/"):
                return b""
            if event["outputs"].get("restart") and told:
                words = "the answer broke off and began anew, and what was read of it is void; ask again"
                raise ApiTransportError(f"{self.name}: {words}")
            text = event["outputs"].get(port)
            if not isinstance(text, str) or not text:
                return b""
            first = b"" if told else chunk({"role": "assistant", "content": ""})
            told.append(text)
            return first + chunk({"content": text})

        return Stream(work, self.busy, EVENTS_TYPE, encode=encode, last=b"data: [DONE]\n\n")

    async def _pictures(self, request: Request, body: Mapping[str, Any], given: dict[str, Any], task: Task) -> Response:
        count, seed = count_and_seed(body)
        if isinstance(body.get("size"), str) and "width" in self.contract["inputs"]:
            sizes = dict(zip(("width", "height"), map(int, body["size"].split("x")), strict=True)) if body["size"] != "auto" else {}
            given = joined(given, sizes)
        messages = [{"inputs": given, "outputs": [task.output], **_seeded(seed, index)} for index in range(count)]
        found = await self.answers(request, messages)
        data = []
        for answer in found:
            images = answer["outputs"][task.output]
            images = images if isinstance(images, (list, tuple)) else [images]
            for image in (row for entry in images for row in (entry if entry.dim() == 4 else [entry])):
                text = base64.b64encode(png_bytes(image)).decode()
                data.append({"url": f"data:image/png;base64,{text}"} if body.get("response_format") == "url" else {"b64_json": text})
        return JSONResponse({"created": int(time.time()), "data": data, "output_format": "png"})

    def _with_sizes(self, usual: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        """Sizes that the level can be asked for: any where it has inputs for them, else the one that its output's shape says."""
        shape = next((port.get("shape") for port in self.contract["outputs"].values() if port["dtype"] == "image"), None)
        if "width" in self.contract["inputs"] and "height" in self.contract["inputs"]:
            return {**usual, "size": _AnySize()}
        if shape and all(isinstance(size, int) for size in shape[-2:]):
            return {**usual, "size": ("auto", f"{shape[-1]}x{shape[-2]}")}
        return usual

    def _task(self, name: str, body: Mapping[str, Any]) -> Task:
        if name not in self.tasks:
            shown = ", ".join(f"{port} ({entry['dtype']})" for port, entry in self.contract.get("inputs", {}).items()) or "none"
            takes = "it takes an action" if self.contract["level"] == "world" else f"its inputs are {shown}"
            text = f"this {self.contract['level']} does not fit the endpoint: {takes}"
            raise RequestError(text, [Finding("endpoint", name, f"one of {sorted(self.tasks)}")], status=404)
        self._check_name(body.get("model"))
        return self.tasks[name]

    def _check_name(self, model: Any) -> None:
        if model is not None and model not in (self.name, self.contract["id"], "wgtorch"):
            raise RequestError(f"there is no model {str(model)[:60]!r} here; there is {self.name!r}", status=404)

    def _model(self) -> dict[str, Any]:
        return {"id": self.name, "object": "model", "created": self.created, "owned_by": "wgtorch"}

    async def _json(self, request: Request) -> dict[str, Any]:
        if (kind := content_type(request.headers)) != JSON_TYPE:
            raise RequestError(f"content type {kind[:100]!r}; expected {JSON_TYPE!r}", status=415)
        raw = bytes(await self.raw(request))
        try:
            body = parse_json(raw)
        except (ValueError, RecursionError) as error:
            raise RequestError("the body cannot be read", [Finding("request", str(error)[:200], "JSON")]) from None
        if not isinstance(body, dict):
            raise RequestError("the body cannot be read", [Finding("request", type(body).__name__, "a JSON object")])
        return body

    @staticmethod
    def _picture(source: Any, where: str) -> Tensor:
        if isinstance(source, bytes):
            try:
                return picture(source)
            except ValueError as error:
                raise RequestError("the picture cannot be read", [Finding(where, str(error)[:200], "a PNG, JPEG or WebP file")]) from None
        return data_picture(source, where)

    def _mask(self, source: Any, image: Tensor) -> Tensor:
        """A mask [1, 3, H, W] of a picture: 1 where it is painted anew, which is where OpenAI's is transparent."""
        import io

        from PIL import Image

        height, width = self._picture(source, "request.mask").shape[1:]
        if (height, width) != tuple(image.shape[2:]):
            sizes = f"{width}x{height}", f"{image.shape[3]}x{image.shape[2]}"
            raise RequestError("the request does not fit", [Finding("request.mask", sizes[0], f"{sizes[1]}, the picture's size")])
        url = source.get("url") if isinstance(source, Mapping) else source
        raw = source if isinstance(source, bytes) else base64.b64decode(str(url).partition(";base64,")[2])
        with Image.open(io.BytesIO(raw)) as opened:
            alpha = opened.convert("RGBA").getchannel("A")
            held = torch.frombuffer(bytearray(alpha.tobytes()), dtype=torch.uint8).view(1, 1, alpha.height, alpha.width)
        return (1 - held.float() / 255).expand(1, 3, -1, -1).contiguous()


class _AnySize(tuple[Any, ...]):
    """Sizes as ``512x512``, or ``auto``."""

    def __contains__(self, value: object) -> bool:
        if value == "auto":
            return True
        parts = str(value).split("x")
        return len(parts) == 2 and all(part.isascii() and part.isdigit() and 0 < int(part) <= 8192 for part in parts)


def _seeded(seed: int | None, index: int = 0) -> dict[str, Any]:
    """The seed of one of several answers."""
    return {} if seed is None else {"seed": seed + index}


def _chat_answer(found: Sequence[Mapping[str, Any]], task: Task, head: Mapping[str, Any]) -> Response:
    choices = []
    for index, answer in enumerate(found):
        outputs = answer["outputs"]
        message = {"role": "assistant", "content": _text(outputs[task.output]), "refusal": None, **_beside(outputs)}
        choices.append({"index": index, "message": message, "finish_reason": _reason(outputs), "logprobs": None})
    return JSONResponse({**head, "object": "chat.completion", "choices": choices, "usage": _usage(found)})


def _source(level: Any, output: str) -> tuple[str, str]:
    """Path of the node whose output a level gives under a name, and that output's name there."""
    path = []
    while isinstance(level, Composite):
        shown = next(entry for entry in level.exposed_outputs if entry.name == output)
        path.append(shown.node_id)
        level, output = level.nodes[shown.node_id], shown.port_name
    return "/".join(path), output


def _beside(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """What stands beside the text, as servers send it whose models think or answer in pictures: thoughts, and a world's picture."""
    picture, thoughts = outputs.get("picture"), _text(outputs.get("thoughts") or "")
    shown = {"images": [{"type": "image_url", "image_url": {"url": picture}}]} if isinstance(picture, str) else {}
    return {**shown, "reasoning_content": thoughts} if thoughts else shown


def _event(entry: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(entry, ensure_ascii=False)}\n\n".encode()


def _text(value: Any) -> str:
    return "\n".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _reason(outputs: Mapping[str, Any]) -> str:
    reason = outputs.get("finish_reason")
    reason = reason[0] if isinstance(reason, (list, tuple)) and reason else reason
    return reason if reason in ("stop", "length", "content_filter", "tool_calls") else "stop"


def _schema(wanted: Mapping[str, Any]) -> Any:
    """The JSON Schema that an answer is to have."""
    kind = wanted.get("type")
    if kind == "json_schema" and isinstance(wanted.get("json_schema"), Mapping):
        return wanted["json_schema"].get("schema", {"type": "object"})
    if kind == "json_object":
        return {"type": "object"}
    if kind == "text":
        return None
    raise RequestError("the request does not fit", [Finding("request.response_format", f"{kind!r}", "text, json_object or json_schema")])


def _usage(found: Sequence[Mapping[str, Any]], *, whole: bool = True) -> dict[str, int]:
    """Tokens, where the level's models tell of them."""
    used = [answer["outputs"].get("usage") or {} for answer in found]
    used = [one for entry in used for one in (entry if isinstance(entry, (list, tuple)) else [entry])]

    def total(*names: str) -> int:
        return sum(int(next((one[name] for name in names if isinstance(one.get(name), (int, float))), 0)) for one in used)

    asked, answered = total("prompt_tokens", "input_tokens"), total("completion_tokens", "output_tokens")
    return {"prompt_tokens": asked, **({"completion_tokens": answered} if whole else {}), "total_tokens": asked + answered}
