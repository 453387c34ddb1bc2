#!/usr/bin/env python
"""How much of a world's prompts stays the same from pass to pass, by role: what providers and local models need not read again.

    python scripts/bench/prompts.py                     # storytelling, 24 passes, answers of a scripted server
    python scripts/bench/prompts.py --passes 12 --read  # and the same prompts read by a small random model, which keeps keys and values

A prompt is everything that is sent: what the model is told first, then the question. For each role, from the second pass on: the share of
its prompts that also began the role's prompt of the pass before, in tokens of a tokenizer where SmolLM2 is installed, else in bytes.
Answers are texts of the simulated world's episodes, so chronicle, glossary and summary grow and are forgotten as in a life.

targets: at least 80% of a storytelling world's prompts are such a beginning; with ``--read`` at most 20% of its prompt tokens are computed
again by one model in all roles, with as much room as ``llm/local`` has by default.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from wgtorch import World
from wgtorch.blocks.simulation.lives import live
from wgtorch.testing import ScriptedServer
from wgtorch.testing.replies import Seen

ROLES = {
    "art director": "architect",
    "keep the records": "world_update",
    "mind of a world": "development",
    "chronicler": "author",
    "look at pictures": "philosopher",
}
MODELS = {"SmolLM2-135M in bfloat16": (2 * 30 * 3 * 64 * 2, 270 * 10**6), "Qwen3-4B in bfloat16": (2 * 36 * 8 * 128 * 2, 8 * 10**9)}
"""Bytes of a token's keys and values - both, layers, heads, head size, bytes of a number - and of the weights."""
STYLE = "ink and watercolour, muted colours"


class Storyteller:
    """Answers of every role out of a simulated life, each of the length that its words ask for."""

    def __init__(self, seed: int, passes: int) -> None:
        self.episodes = [passage.outcome for passage in live(seed, passes + 2)]
        self.rng = random.Random(seed)
        self.at = 0

    def __call__(self, seen: Seen) -> str:
        role = role_of(seen.system)
        episode = self.episodes[self.at]
        if role == "author":
            return episode
        if role == "world_update":
            self.at += 1
            return json.dumps({"glossary": self._names(episode), "summary": " ".join(" ".join(self.episodes[: self.at]).split()[-110:])})
        if role == "architect":
            return json.dumps({"prompts": [" ".join(self.episodes[self.at].split()[:40])]})
        return " ".join(self.episodes[self.at].split()[:60])

    def _names(self, episode: str) -> list[dict[str, str]]:
        words = sorted({word.strip(".,;") for word in episode.split()[1:] if word[:1].isupper()})
        chosen = self.rng.sample(words, min(3, len(words)))
        return [{"name": name, "description": " ".join(episode.split()[:25])} for name in chosen]


def role_of(system: str) -> str:
    return next(role for words, role in ROLES.items() if words in system)


def main() -> int:
    """Prints the shares; 1 where the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--read", action="store_true", help="read the prompts with a model")
    args = parser.parse_args()
    encode = tokens_of()
    last: dict[str, Sequence[Any]] = {}
    prompts: list[tuple[bool, Sequence[Any]]] = []  # whether it counts, and its tokens
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    with ScriptedServer(Storyteller(args.seed, args.passes)) as server:
        model = {"provider": "openai", "model_id": "m", "endpoint_url": server.url}
        painter = {"template": "text_to_image", "params": {"steps": 1}}
        World.from_template("storytelling", llm=model, creator=painter, style=STYLE).run(num_steps=args.passes, seed=args.seed)
        for seen in server.requests:
            role, prompt = role_of(seen.system), encode(f"{seen.system}\n\n{seen.prompt}")
            prompts.append((role in last, prompt))
            if role in last:
                rows[role]["shared"] += shared(last[role], prompt)
                rows[role]["length"] += len(prompt)
                rows[role]["prompts"] += 1
            last[role] = prompt
    total = sum(rows.values(), Counter())
    for role, row in [*rows.items(), ("together", total)]:
        print(f"{role:13} {row['length'] / row['prompts']:6.0f} a prompt, {row['shared'] / row['length']:.1%} as in the pass before")
    reached = total["shared"] >= 0.8 * total["length"]
    if args.read:
        for name, sizes in MODELS.items():
            again, held = read_again(prompts, *sizes)
            reached = reached and again <= 0.2
            print(f"computed again by one model in all roles: {again:.1%} of its prompt tokens; it keeps {held / 1e6:.0f} MB as {name}")
    print("ok" if reached else "MISSED")
    return 0 if reached else 1


def read_again(prompts: Sequence[tuple[bool, Sequence[int]]], bytes_per_token: int, weights: int) -> tuple[float, float]:
    """The share of prompt tokens that a model with a cache of prefixes computes, in the order in which a world asks, and bytes kept."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from wgtorch.integrations.transformers.prefix_cache import PrefixCache, room_for

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1 + max(max(prompt) for _, prompt in prompts), hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1, max_position_embeddings=8192,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    own = 2 * config.hidden_size * 4  # bytes of a token's keys and values in this small one
    cache = PrefixCache(room_for(weights) * own // bytes_per_token)
    read = known = 0
    for counts, prompt in prompts:
        _, found = cache.read(model, torch.tensor([list(prompt)]))
        if counts:
            read, known = read + len(prompt), known + found
    return 1 - known / read, cache.stats.bytes * bytes_per_token / own


def shared(first: Sequence[Any], second: Sequence[Any]) -> int:
    return next((at for at, (one, other) in enumerate(zip(first, second, strict=False)) if one != other), min(len(first), len(second)))


def tokens_of() -> Callable[[str], Sequence[Any]]:
    """SmolLM2's tokenizer where it is installed, else bytes."""
    from wgtorch.core.checkpoint.named import local_ref
    from wgtorch.core.errors import CheckpointError

    try:
        from tokenizers import Tokenizer

        words = Tokenizer.from_file(f"{local_ref('smollm2')}/tokenizer.json")
    except (CheckpointError, ImportError):
        return str.encode
    return lambda text: words.encode(text).ids


if __name__ == "__main__":
    raise SystemExit(main())
