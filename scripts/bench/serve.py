"""What it costs to send tensors between endpoints: our body against base64 in JSON, over a real server on loopback.

    python scripts/bench/serve.py [--sizes 4096 196608 3145728] [--rounds 20]

Both ways go through the same kind of server (Starlette under uvicorn) with the same work behind it: none, the tensor goes
back as it came. Rounds of the two are interleaved, and medians are shown. ``pack + unpack`` is the coding alone.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import torch
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from torch import Tensor

from wgtorch import Block, Graph
from wgtorch.serving.server import Limits, _listen, _uvicorn, serving
from wgtorch.serving.wire import CONTENT_TYPE, body, unpack


def echo() -> Graph:
    """A graph that gives back what it is given."""
    graph = Graph("echo")
    graph.add_node(Block.wrap(lambda x: {"y": x}, inputs={"x": "tensor"}, outputs={"y": "tensor"}), "echo")
    graph.infer_exposed_ports()
    return graph


def to_base64(x: Tensor) -> bytes:
    """The usual way: bytes as base64 in JSON, with dtype and shape."""
    data = base64.b64encode(x.numpy().tobytes()).decode()
    return json.dumps({"x": {"data": data, "dtype": "float32", "shape": list(x.shape)}}).encode()


def from_base64(text: bytes) -> Tensor:
    """The tensor again."""
    entry = json.loads(text)["x"]
    return torch.frombuffer(bytearray(base64.b64decode(entry["data"])), dtype=torch.float32).view(entry["shape"])


def base64_server() -> tuple[str, Callable[[], None]]:
    """A server that decodes and encodes base64 JSON: its URL, and what ends it."""

    async def run(request: Request) -> Response:
        return Response(to_base64(from_base64(await request.body())), media_type="application/json")

    server, listening = _uvicorn(Starlette(routes=[Route("/run", run, methods=["POST"])]), Limits()), _listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)

    def end() -> None:
        server.should_exit = True
        thread.join()
        listening.close()

    return f"http://127.0.0.1:{listening.getsockname()[1]}", end


class Caller:
    """One connection that stays open."""

    def __init__(self, url: str, kind: str) -> None:
        parts = urlsplit(url)
        self.connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
        self.headers = {"Content-Type": kind, "Accept": kind}

    def __call__(self, data: bytes) -> bytes:
        self.connection.request("POST", "/run", data, self.headers)
        answer = self.connection.getresponse()
        content = answer.read()
        assert answer.status == 200, content[:300]
        return content


def timed(call: Callable[[], Tensor], expected: Tensor) -> float:
    """Seconds of one call whose answer is right."""
    started = time.perf_counter()
    found = call()
    elapsed = time.perf_counter() - started
    assert torch.equal(found, expected)
    return elapsed


def bench_bodies(sizes: list[int], rounds: int) -> None:
    """Bytes and time of one tensor, each way."""
    url, end = base64_server()
    print(f"{'floats':>9} {'bytes/tensor':>24} {'pack + unpack, ms':>26} {'round trip, ms':>26}")
    print(f"{'':>9} {'ours':>12} {'base64':>11} {'ours':>9} {'base64':>9} {'ratio':>6} {'ours':>9} {'base64':>9} {'ratio':>6}")
    with serving(echo(), limits=Limits(max_bytes=1 << 31)) as ours_url:
        ours, theirs = Caller(ours_url, CONTENT_TYPE), Caller(url, "application/json")
        for size in sizes:
            x = torch.randn(size)
            times: dict[str, list[float]] = {name: [] for name in ("code", "code64", "trip", "trip64")}
            for _ in range(rounds):
                times["code"].append(timed(lambda x=x: unpack(bytearray(body({"inputs": {"x": x}})), "x")["inputs"]["x"], x))
                times["code64"].append(timed(lambda x=x: from_base64(to_base64(x)), x))
                times["trip"].append(timed(lambda x=x: unpack(bytearray(ours(body({"inputs": {"x": x}}))), "x")["outputs"]["y"], x))
                times["trip64"].append(timed(lambda x=x: from_base64(theirs(to_base64(x))), x))
            code, code64, trip, trip64 = (statistics.median(times[name]) * 1e3 for name in times)
            ours_bytes, their_bytes = len(body({"inputs": {"x": x}})), len(to_base64(x))
            print(
                f"{size:>9} {ours_bytes:>12} {their_bytes:>11} {code:>9.3f} {code64:>9.3f} {code / code64:>6.2f} "
                f"{trip:>9.3f} {trip64:>9.3f} {trip / trip64:>6.2f}"
            )
    end()


def bench_batching(requests: int, width: int) -> None:
    """Requests a second of a small network, alone and sharing passes."""
    network = torch.nn.Sequential(*[torch.nn.Linear(width, width) for _ in range(8)])
    graph = Graph("network")
    graph.add_node(Block.wrap(network, inputs={"x": "tensor"}, outputs={"y": "tensor"}, rows_are_samples=True), "network")
    graph.infer_exposed_ports()
    rates = {}
    for max_batch in (1, 16):
        with serving(graph, limits=Limits(max_batch=max_batch, concurrency=2)) as url, ThreadPoolExecutor(16) as pool:
            local = threading.local()

            def call(_: int, url: str = url, local: threading.local = local) -> None:
                if not hasattr(local, "caller"):
                    local.caller = Caller(url, CONTENT_TYPE)
                local.caller(body({"inputs": {"x": torch.randn(1, width)}}))

            list(pool.map(call, range(64)))
            started = time.perf_counter()
            list(pool.map(call, range(requests)))
            rates[max_batch] = requests / (time.perf_counter() - started)
    shared = rates[16] / rates[1]
    print(f"batching, 8 x Linear({width}): alone {rates[1]:.0f}/s, up to 16 rows in a pass {rates[16]:.0f}/s, {shared:.2f}x")


def bench_pictures(rounds: int, count: int = 8) -> None:
    """Requests of the default painter with a seed each, at once and in a row: the ratio, and how far their pictures lie apart."""
    prompts = [f"a {colour} {thing} at night" for colour in ("red", "blue") for thing in ("castle", "tower", "tent", "house")][:count]
    graph = Graph.from_template("text_to_image")
    with serving(graph, limits=Limits(max_batch=count, batch_wait=0.02)) as url, ThreadPoolExecutor(count) as pool:

        def painted(index: int) -> Tensor:
            message = body({"inputs": {"prompt": prompts[index]}, "seed": index})
            return unpack(bytearray(Caller(url, CONTENT_TYPE)(message)), "x")["outputs"]["image"]

        painted(0)
        ratios, apart = [], 0.0
        for _ in range(rounds):
            started = time.perf_counter()
            alone = [painted(index) for index in range(count)]
            between = time.perf_counter()
            together = list(pool.map(painted, range(count)))
            ratios.append((time.perf_counter() - between) / (between - started))
            apart = max(apart, *(float((one - other).abs().max()) for one, other in zip(alone, together, strict=True)))
    verdict = "reached" if statistics.median(ratios) <= 0.8 and apart <= 1 / 255 else "MISSED"
    print(f"pictures, {count} with seeds: at once {statistics.median(ratios):.2f}x of in a row (0.8), {apart:.1e} apart (1/255): {verdict}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--sizes", type=int, nargs="*", default=[4096, 196_608, 3_145_728], help="floats of the tensor")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--requests", type=int, default=400, help="of the batching part; 0 leaves it out")
    parser.add_argument("--pictures", type=int, default=5, help="rounds of the painter's part; 0 leaves it out")
    args = parser.parse_args()
    if args.sizes:
        bench_bodies(args.sizes, args.rounds)
    if args.pictures:
        bench_pictures(args.pictures)
    if args.requests:
        bench_batching(args.requests, 2048)


if __name__ == "__main__":
    main()
