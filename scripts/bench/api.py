#!/usr/bin/env python
"""What a block around an API costs beside the bare SDK, and whether the targets are reached.

    python scripts/bench/api.py                         # everything, some minutes on two cores
    python scripts/bench/api.py --only overhead replay  # some of: overhead throughput memory replay speed prefix
    python scripts/bench/api.py --calls 200             # fewer of everything

The provider is the scripted server in a process of its own, which answers at once. What is compared is timed in interleaved
rounds of one process; a figure is the least of its rounds (for single calls: the median of each round, the least of those).

targets: overhead of a block's call <= 1 ms; 1,000 calls at concurrency 64 >= 0.9x of an asyncio gather written by hand; memory
flat over 10,000 calls (growth of the second half <= 5 MiB); replay >= 5,000 answers a second.

``speed`` and ``prefix`` need SmolLM2 (``wgtorch models add smollm2``). ``speed`` writes with transformers in float32, with a block in
bfloat16 whose weights are packed, held to a schema and with an adapter in use, and with llama.cpp where it is installed
(``wgtorch[llama_cpp]``), in turns; target of the block 1.4x of transformers, which is 20 tokens a second where transformers makes 14.6.
``prefix`` gives a growing prompt to it, as a world's passes do; of its tokens at most 20% are computed again.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from wgtorch import Block, BlockRegistry
from wgtorch.integrations.api import cassette
from wgtorch.testing import ScriptedServer

CASES = ("overhead", "throughput", "memory", "replay", "speed", "prefix")
ROUNDS = 7
CONCURRENCY = 64
MESSAGES = [{"role": "user", "content": "Tell of the sea."}]


def main() -> int:
    """Prints the figures; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        return serve()
    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        cases = {"overhead": overhead, "throughput": throughput, "memory": memory, "replay": replay, "speed": speed, "prefix": prefix}
        reached = [cases[name](url, chosen.calls) for name in CASES if name in chosen.only]
    finally:
        server.kill()
        server.wait()
    return 0 if all(reached) else 1


def serve() -> int:
    """Answers until the standard input ends; forgets what it was asked."""
    with ScriptedServer(lambda seen: "Of the sea much can be told.") as server:
        print(server.url, flush=True)
        while True:
            server.requests.clear()
            time.sleep(1)


def overhead(url: str, calls: int) -> bool:
    """One call of a block beside one of the SDK."""
    import openai

    sdk, block = openai.OpenAI(api_key="none", base_url=url), built(url)
    ways: dict[str, Callable[[], Any]] = {
        "SDK": lambda: sdk.chat.completions.create(model="m", messages=MESSAGES),  # type: ignore[arg-type]
        "block": lambda: block(prompt=MESSAGES[0]["content"]),
    }
    rounds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS + 1):
        for name, way in ways.items():
            rounds[name].append(statistics.median(timed(way) for _ in range(max(10, calls // 10))))
    best = {name: min(times[1:]) * 1e3 for name, times in rounds.items()}
    over = best["block"] - best["SDK"]
    return told("overhead", f"SDK {best['SDK']:.2f} ms, block {best['block']:.2f} ms: {over:+.2f} ms a call", over <= 1.0)


def throughput(url: str, calls: int) -> bool:
    """Many calls at once: a batch of a block beside a gather written by hand."""
    import openai

    block = built(url, limits={"in_flight": CONCURRENCY})
    prompts = [f"Tell of the sea, {n}." for n in range(calls)]

    async def by_hand() -> list[str]:
        client, turn = openai.AsyncOpenAI(api_key="none", base_url=url), asyncio.Semaphore(CONCURRENCY)

        async def one(prompt: str) -> str:
            async with turn:
                answer = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": prompt}])
                return answer.choices[0].message.content or ""

        async with client:
            return list(await asyncio.gather(*(one(prompt) for prompt in prompts)))

    ways: dict[str, Callable[[], Any]] = {"by hand": lambda: asyncio.run(by_hand()), "block": lambda: block(prompt=prompts)}
    rounds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            rounds[name].append(timed(way))
    rate = {name: calls / min(times) for name, times in rounds.items()}
    ratio = rate["block"] / rate["by hand"]
    return told("throughput", f"by hand {rate['by hand']:.0f}/s, block {rate['block']:.0f}/s: {ratio:.2f}x", ratio >= 0.9)


def memory(url: str, calls: int) -> bool:
    """Memory after many calls."""
    block = built(url, limits={"in_flight": CONCURRENCY})
    grown = []
    for _ in range(3):  # the first fills pools and caches
        for _ in range(10):
            block(prompt=["Tell of the sea."] * (calls // 2))
        gc.collect()
        grown.append(resident())
    growth = (grown[2] - grown[1]) / 2**20
    return told(
        "memory", f"{15 * calls} calls: {grown[0] / 2**20:.0f} MiB at first, {growth:+.2f} MiB over the last {5 * calls}", growth <= 5
    )


def replay(url: str, calls: int) -> bool:
    """Answers out of a cassette, one by one."""
    with tempfile.TemporaryDirectory() as folder:
        tape, block = Path(folder) / "tape.sqlite", built(url)
        prompts = [f"Tell of the sea, {n}." for n in range(calls)]
        with cassette(tape, mode="record"):
            block(prompt=prompts)
        with cassette(tape, mode="replay"):
            single = calls / min(timed(lambda: [block(prompt=prompt) for prompt in prompts]) for _ in range(ROUNDS))
            batch = calls / min(timed(lambda: block(prompt=prompts)) for _ in range(ROUNDS))
    return told("replay", f"{single:.0f} answers/s one by one, {batch:.0f} answers/s in a batch", single >= 5000)


def speed(url: str, calls: int) -> bool:
    """Tokens a second of a small model that is here."""
    import torch

    from wgtorch import Graph, lora

    plain, block = small_model(dtype="float32"), small_model(dtype="bfloat16", pack=True)
    if plain is None or block is None:
        return True
    graph, tokens = Graph("bench"), max(16, calls // 20)
    graph.add_node(block, "llm")
    for port in ("prompt", "schema", "max_tokens"):
        graph.expose_input("llm", port)
    for port in ("text", "usage"):
        graph.expose_output("llm", port)
    lora.add(graph, "style", rank=8, target_modules=["q_proj", "v_proj"])
    lora.set_adapter(graph, "style")
    length = 3 * tokens
    schemas = {
        "three words": {"type": "array", "items": {"enum": ["sea", "storm", "harbour"]}, "minItems": tokens // 4, "maxItems": tokens // 4},
        "free text": {"type": "string", "minLength": length, "maxLength": length},
    }

    def by_transformers() -> float:
        ids = torch.ones(1, 100, dtype=torch.long)
        with torch.no_grad():
            seconds = timed(lambda: plain.model.generate(ids, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False))
        return tokens / seconds

    def by_block(schema: dict[str, Any]) -> float:
        started = time.perf_counter()
        usage = graph.run({"prompt": "Tell of the sea in JSON.", "schema": schema, "max_tokens": 4 * tokens})["usage"]
        return int(usage["completion_tokens"]) / (time.perf_counter() - started)

    ways: dict[str, Callable[[], float]] = {"transformers, float32": by_transformers}
    for name, schema in schemas.items():
        ways[f"block, bfloat16, packed, schema of {name}, adapter"] = partial(by_block, schema)
    beside = small_model(backend="llama_cpp", threads=torch.get_num_threads())
    if beside is not None:
        ways["llama.cpp, Q4_1"] = lambda: tokens / timed(lambda: beside(prompt="Tell of the sea.", max_tokens=tokens))
    rounds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS // 2 + 1):
        for name, way in ways.items():
            rounds[name].append(way())
    best = {name: max(rates) for name, rates in rounds.items()}
    base = best["transformers, float32"]
    reached = [
        told("speed", f"{name}: {rate:.1f} tokens/s, {rate / base:.2f}x", not name.startswith("block") or rate >= 1.4 * base)
        for name, rate in best.items()
    ]
    return all(reached)


def prefix(url: str, calls: int) -> bool:
    """Prompt tokens that are computed again while a prompt grows at its end."""
    llm = small_model(dtype="bfloat16", max_tokens=1)
    if llm is None:
        return True
    system = "You tell what happens in a small harbour town. " * 12
    days = [f"On day {n} the keeper climbs the stairs, lights the lamp, and looks at the sea until the morning comes. " for n in range(16)]
    read = again = 0
    for count in range(6, 16):
        usage = llm(prompt="".join(days[:count]) + "What comes next?", system=system)["usage"]
        if count > 6:
            read, again = read + usage["prompt_tokens"], again + usage["prompt_tokens"] - usage["cached_tokens"]
    return told("prefix", f"of {read} prompt tokens {again} were computed: {again / read:.0%}", again <= 0.2 * read)


def small_model(**config: Any) -> Any:
    """SmolLM2; None where it, or what runs it, is not installed."""
    from wgtorch.core.errors import CheckpointError, MissingExtraError

    try:
        return BlockRegistry.build({"block_type": "llm", "config": {"backend": "local", "checkpoint_ref": "smollm2", **config}})
    except (CheckpointError, MissingExtraError) as error:
        print(f"left out: {error}", flush=True)
        return None


def built(url: str, **config: Any) -> Block:
    """The block that all cases ask with."""
    return BlockRegistry.build({"block_type": "llm", "config": {"model_id": "m", "endpoint_url": url, **config}})


def timed(way: Callable[[], Any]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    way()
    return time.perf_counter() - started


def resident() -> int:
    """Bytes of memory that this process holds now."""
    pages = Path("/proc/self/statm")
    return (
        int(pages.read_text().split()[1]) * resource.getpagesize() if pages.exists() else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    )


def told(case: str, words: str, reached: bool) -> bool:
    """Prints a figure."""
    print(f"{case:11} {words}  {'ok' if reached else 'MISSED'}", flush=True)
    return reached


if __name__ == "__main__":
    raise SystemExit(main())
