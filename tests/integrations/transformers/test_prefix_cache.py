"""Keys and values across calls: the same answers to the last bit, fewer tokens read, and never those of another model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("llguidance")

from tests.integrations.transformers import tiny
from wgtorch import lora
from wgtorch.core.block import Block, BlockRegistry
from wgtorch.core.errors import ConfigError
from wgtorch.core.run.rng import Rng
from wgtorch.graph import Graph
from wgtorch.integrations.transformers.prefix_cache import CHUNK

SYSTEM = "You keep the light of the harbour and write down what the sea brings. " * 12
STORY = [f"On day {number} the keeper climbs the stairs and lights the lamp. " for number in range(12)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.language_model(tmp_path_factory.mktemp("llm") / "llama")


def llm_of(folder: Path, **config: Any) -> Block:
    return BlockRegistry.build({"block_type": "llm/local", "config": {"checkpoint_ref": str(folder), "max_tokens": 12, **config}})


def prompt(days: int) -> str:
    return "".join(STORY[:days]) + "What comes next?"


def reads(llm: Block) -> list[int]:
    """Tokens of every call of the model, as it is called."""
    seen: list[int] = []
    llm.model.register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs["input_ids"].shape[1]), with_kwargs=True)
    return seen


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_are_the_same_with_and_without(folder: Path, temperature: float) -> None:
    warm, cold = llm_of(folder, temperature=temperature), llm_of(folder, temperature=temperature, keep_bytes=0)
    for days in (3, 4, 5, 3):
        answers = [llm(prompt=prompt(days), system=SYSTEM, rng=Rng(days)) for llm in (warm, llm_of(folder, temperature=temperature))]
        assert answers[0]["text"] == answers[1]["text"], "kept or read anew, to the last bit"
        plain = cold(prompt=prompt(days), system=SYSTEM, rng=Rng(days))
        assert plain["usage"]["cached_tokens"] == 0 and plain["usage"]["prompt_tokens"] == answers[0]["usage"]["prompt_tokens"]
    first, second = (warm.model(input_ids=torch.tensor([[5, 6, 7]])).logits for _ in range(2))
    assert torch.equal(first, second), "nothing stays in the model"


def test_of_a_growing_prompt_little_is_read_again(folder: Path) -> None:
    llm = llm_of(folder, max_tokens=1)
    seen, total, again = reads(llm), 0, 0
    for days in range(3, 12):
        seen.clear()
        usage = llm(prompt=prompt(days), system=SYSTEM)["usage"]
        assert sum(seen) == usage["prompt_tokens"] - usage["cached_tokens"] + 2, "all but what was kept, and the probe"
        if days > 3:
            total += usage["prompt_tokens"]
            again += usage["prompt_tokens"] - usage["cached_tokens"]
    assert again <= 0.2 * total


def test_a_model_with_a_schema_uses_them_too(folder: Path) -> None:
    llm = llm_of(folder, schema={"enum": ["yes", "no"]})
    answers = [llm(prompt=prompt(4), system=SYSTEM) for _ in range(2)]
    assert answers[0]["data"] == answers[1]["data"] and answers[1]["usage"]["cached_tokens"] >= 2 * CHUNK


def test_they_are_not_used_once_the_weights_or_adapters_are_others(folder: Path) -> None:
    def kept(graph: Graph) -> int:
        return graph.run({"prompt": prompt(4), "system": SYSTEM})["usage"]["cached_tokens"]

    graph = Graph("chat")
    graph.add_node(llm_of(folder), "llm")
    for port in ("prompt", "system"):
        graph.expose_input("llm", port)
    graph.expose_output("llm", "usage")
    assert (kept(graph), kept(graph) > 0) == (0, True)
    with torch.no_grad():
        graph.nodes["llm"].model.model.layers[1].self_attn.q_proj.weight.data.mul_(1.01)
    assert (kept(graph), kept(graph) > 0) == (0, True)
    lora.add(graph, "style", rank=2, target_modules=["q_proj"])
    for name, weight in graph.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(0))
    lora.set_adapter(graph, "style")
    assert (kept(graph), kept(graph) > 0) == (0, True)
    lora.set_adapter(graph, None)
    assert kept(graph) > 0, "what was read without it is still there"


TOKEN = 2 * 2 * 2 * 8 * 4  # keys and values, layers, heads, head size, bytes: of the tiny model


def test_no_more_is_kept_than_allowed_and_copies_keep_nothing(folder: Path) -> None:
    llm = llm_of(folder, keep_bytes=6 * CHUNK * TOKEN)
    for topic in ("sea", "lamp", "wind", "rope"):
        llm(prompt=f"{topic} " * 150)
    stats = llm.backend.prefixes.stats
    assert (stats.chunks, stats.bytes) == (6, 6 * CHUNK * TOKEN) and stats.evictions > 6 and stats.known == 0
    held = {tensor.untyped_storage() for layers in llm.backend.prefixes._chunks.values() for pair in layers for tensor in pair}
    assert sum(storage.nbytes() for storage in held) == stats.bytes, "no larger memory hangs on them"
    assert copy.deepcopy(llm).backend.prefixes.stats.chunks == 0
    for wrong in (-1, True, 0.5):
        with pytest.raises(ConfigError, match=f"keep_bytes: found {wrong}, expected a number of bytes"):
            llm_of(folder, keep_bytes=wrong)


def test_roles_of_one_model_share_what_they_begin_with_and_do_not_push_each_other_out(folder: Path) -> None:
    llm = llm_of(folder, max_tokens=1)
    tails = {name: [f"{name} {word} " * 60 for word in ("writes", "wrote")] for name in ("author", "painter", "critic")}

    def kept(name: str, turn: int) -> tuple[int, int]:
        usage = llm(prompt="".join(tails[name][: turn + 1]), system=SYSTEM)["usage"]
        return usage["cached_tokens"], usage["prompt_tokens"]

    first = {name: kept(name, 0) for name in tails}
    assert first["author"][0] == 0 and first["painter"][0] == first["critic"][0] > 2 * CHUNK, "the system's words are read once"
    for name, (_, length) in first.items():
        assert kept(name, 1)[0] > length - 2 * CHUNK, f"all that {name} was told before is there"
    stats = llm.backend.prefixes.stats
    assert stats.evictions == 0 and stats.bytes == stats.chunks * CHUNK * TOKEN
    assert stats.known + stats.read == sum(length for _, length in first.values()) + sum(kept(name, 1)[1] for name in tails)


def test_the_end_that_was_used_longest_ago_goes_first(folder: Path) -> None:
    llm = llm_of(folder, max_tokens=1)
    length = [llm(prompt=text, system=SYSTEM)["usage"]["prompt_tokens"] // CHUNK for text in ("sea " * 150, "lamp " * 150)]
    shared = sum(length) - llm.backend.prefixes.stats.chunks
    small = llm_of(folder, max_tokens=1, keep_bytes=(max(length) + 2) * CHUNK * TOKEN)
    for text in ("sea " * 150, "lamp " * 150):
        small(prompt=text, system=SYSTEM)
    found = [small(prompt=text, system=SYSTEM)["usage"]["cached_tokens"] // CHUNK for text in ("lamp " * 150, "sea " * 150)]
    assert found[0] == length[1] and shared <= found[1] < length[0], "the newer is whole, of the older the beginning is left"


def test_batches_are_read_as_before(folder: Path) -> None:
    out = llm_of(folder)(prompt=[prompt(3), prompt(4)], system=SYSTEM)
    assert [usage["cached_tokens"] for usage in out["usage"]] == [0, 0]


def test_a_weight_that_the_first_tokens_do_not_read_counts_too(folder: Path, tmp_path: Path) -> None:
    llm = llm_of(tiny.language_model(tmp_path / "untied", tie_word_embeddings=False))
    kept = [llm(prompt=prompt(4), system=SYSTEM)["usage"]["cached_tokens"] for _ in range(2)]
    embeddings = llm.model.get_input_embeddings().weight
    words = llm.backend.tokenizer(prompt(4)).input_ids  # after the system's, which begin the prompt
    assert kept[0] == 0 < kept[1]
    embeddings.data[words[3]] += 1.0
    assert llm(prompt=prompt(4), system=SYSTEM)["usage"]["cached_tokens"] == 0


@pytest.mark.parametrize("how", ["modules_to_save", "lora_embedding_B", "lora_embedding_A"])
def test_a_row_of_an_adapters_embedding_counts_too(folder: Path, how: str) -> None:
    graph = Graph("chat")
    graph.add_node(llm_of(folder), "llm")
    for port in ("prompt", "system"):
        graph.expose_input("llm", port)
    for port in ("text", "usage"):
        graph.expose_output("llm", port)

    def asked() -> dict[str, Any]:
        return graph.run({"prompt": prompt(4), "system": SYSTEM})

    plain = [asked() for _ in range(2)][1]["usage"]["cached_tokens"]
    saved = how == "modules_to_save"
    lora.add(
        graph,
        "style",
        rank=1,
        target_modules=["q_proj"] if saved else ["embed_tokens"],
        modules_to_save=["embed_tokens"] if saved else None,
    )
    lora.set_adapter(graph, "style")
    for name, weight in graph.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(0))
    assert [asked()["usage"]["cached_tokens"] > 0 for _ in range(2)] == [False, True]
    llm = graph.nodes["llm"]
    word = llm.backend.tokenizer(prompt(4)).input_ids[3]
    (weight,) = [weight for name, weight in graph.named_parameters() if how in name]
    if how == "lora_embedding_A":
        weight.data[:, word] += 1.0
    else:
        weight.data[word if saved else slice(None)] += 1.0
    after = asked()
    assert after["usage"]["cached_tokens"] == 0
    llm.backend.prefixes.__init__(0)
    assert asked()["text"] == after["text"]
    llm.backend.prefixes.__init__(2**20)
    lora.set_adapter(graph, None)
    asked()
    weight.data += 1.0
    assert asked()["usage"]["cached_tokens"] == plain, "what does not act in a call makes nothing of it old"
