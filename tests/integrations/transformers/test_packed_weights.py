"""Packed copies of weights: the model's own words, nothing of them in the module, never those of other weights."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("transformers")
pytest.importorskip("llguidance")

from tests.integrations.transformers import tiny
from wgtorch import lora
from wgtorch.core.block import BlockRegistry
from wgtorch.core.run.rng import Rng
from wgtorch.integrations.transformers.packed_weights import PackedLinear, PackedWeights
from wgtorch.integrations.transformers.weight_sums import WeightSums

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN")
PROMPT = "The keeper climbs the stairs and lights the lamp. " * 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.language_model(tmp_path_factory.mktemp("llm") / "llama")


def llm_of(folder: Path, **config: Any) -> Any:
    return BlockRegistry.build({"block_type": "llm/local", "config": {"checkpoint_ref": str(folder), "max_tokens": 24, **config}})


def packed_of(llm: Any) -> dict[int, Any]:
    return dict(llm.backend.packed._packed)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("schema", [None, {"type": "array", "items": {"enum": ["sea", "storm"]}, "minItems": 3, "maxItems": 3}])
def test_the_words_are_those_of_the_weights_as_they_are(folder: Path, temperature: float, schema: Any) -> None:
    llms = [llm_of(folder, temperature=temperature, schema=schema, pack=pack) for pack in (False, True)]
    for prompt in (PROMPT, "short", ["two", "prompts"]):
        plain, packed = (llm(prompt=prompt, rng=Rng(3)) for llm in llms)
        assert plain["text"] == packed["text"]
    assert len(packed_of(llms[1])) == 15, "seven in each layer, and the head"


def test_greedy_words_are_those_of_transformers(folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    llm = llm_of(folder, temperature=0, pack=True)
    inputs = llm.backend.encode([llm._requests(prompt=PROMPT)[0].messages])
    ids = AutoModelForCausalLM.from_pretrained(folder).generate(**inputs, max_new_tokens=24, do_sample=False)
    words = llm.backend.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert llm(prompt=PROMPT)["text"] == words


EDITS: dict[str, Callable[[torch.Tensor], Any]] = {
    "one number": lambda weight: weight.data[1, 2].add_(0.5),
    "rows exchanged": lambda weight: weight.data.copy_(weight.data.roll(1, 0)),
    "columns exchanged": lambda weight: weight.data.copy_(weight.data.roll(8, 1)),
    "all negated": lambda weight: weight.data.neg_(),
    "some columns negated": lambda weight: weight.data[:, 3::4].neg_(),
    "every other column negated": lambda weight: weight.data[:, 1::2].neg_(),
    "constant": lambda weight: weight.data.fill_(0.25),
    "another": lambda weight: setattr(weight, "data", torch.ones_like(weight)),
}


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_edits_in_place_are_packed_anew(folder: Path, name: str, dtype: str) -> None:
    llm, plain = (llm_of(folder, dtype=dtype, pack=pack, keep_bytes=0) for pack in (True, False))
    llm(prompt=PROMPT)
    for model in (llm.model, plain.model):
        EDITS[name](model.model.layers[1].mlp.up_proj.weight)
    layer, inputs = llm.model.model.layers[1].mlp.up_proj, torch.randn(1, 3, 32, dtype=plain.model.dtype)
    with torch.no_grad(), llm.backend.packed.in_use(WeightSums()):
        found = layer(inputs)
    torch.testing.assert_close(found, nn.functional.linear(inputs, layer.weight))
    assert llm(prompt=PROMPT)["text"] == plain(prompt=PROMPT)["text"]


@pytest.mark.parametrize("rows", ["1", "many"])
def test_ones_of_a_matrix_that_change_places_are_seen(rows: str) -> None:
    """Their bytes add up to the same by row and by column."""
    layer = nn.Linear(64, 1 if rows == "1" else 2048, bias=False)
    layer.weight.data.copy_(torch.eye(64).repeat(32, 1)[: len(layer.weight)])
    packed, inputs = PackedWeights(layer.eval()), torch.randn(2, 64)
    for shift in (0, 2, 4):
        layer.weight.data.copy_(layer.weight.data.roll(shift, 1))
        with torch.no_grad(), packed.in_use(WeightSums()):
            torch.testing.assert_close(layer(inputs), nn.functional.linear(inputs, layer.weight))


def test_the_module_is_as_without(folder: Path) -> None:
    llm, plain = llm_of(folder, pack=True), llm_of(folder)
    llm(prompt=PROMPT)
    assert list(llm.state_dict()) == list(plain.state_dict()) and isinstance(llm.model.lm_head, nn.Linear)
    copies = (copy.deepcopy(llm), pickle.loads(pickle.dumps(llm.backend)))
    assert not packed_of(copies[0]) and copies[0](prompt=PROMPT)["text"] == llm(prompt=PROMPT)["text"]
    assert not copies[1].packed._packed and copies[1].packed.model is copies[1].model
    assert packed_of(copies[0]).keys().isdisjoint(packed_of(llm))
    lora.add(llm, "style", rank=2, target_modules=["q_proj"])
    for name, weight in llm.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, generator=torch.Generator().manual_seed(0))
    with lora.use_adapter(llm, "style"):
        assert llm(prompt=PROMPT)["text"] != plain(prompt=PROMPT)["text"]
    assert llm(prompt=PROMPT)["text"] == plain(prompt=PROMPT)["text"]


def test_training_reads_and_holds_no_copies(folder: Path) -> None:
    llm = llm_of(folder, pack=True)
    llm(prompt=PROMPT)
    llm.train()
    llm(prompt=PROMPT, answer="The sea.")["log_prob"].sum().backward()
    assert not packed_of(llm) and llm.model.model.layers[0].self_attn.q_proj.weight.grad is not None
    llm(prompt=PROMPT)
    assert not packed_of(llm)
    llm.eval()
    llm(prompt=PROMPT)
    assert packed_of(llm)


def test_a_layer_outside_of_an_answer_is_pytorchs() -> None:
    layer = nn.Sequential(nn.Linear(8, 8))
    packed, inputs = PackedWeights(layer), torch.randn(2, 8, requires_grad=True)
    assert type(layer[0]) is PackedLinear
    with packed.in_use(WeightSums()):
        (grad,) = torch.autograd.grad(layer(inputs).sum(), inputs)
        assert grad.shape == (2, 8)
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer(inputs).dtype == torch.bfloat16
    with torch.no_grad():
        assert torch.equal(layer(inputs), nn.functional.linear(inputs, layer[0].weight, layer[0].bias))


@pytest.mark.slow
def test_smollm2_writes_what_transformers_writes() -> None:
    from transformers import AutoModelForCausalLM

    from wgtorch.core.checkpoint.named import local_ref
    from wgtorch.core.errors import CheckpointError

    try:
        folder = Path(local_ref("smollm2"))
    except CheckpointError as error:
        pytest.skip(str(error))
    llm = BlockRegistry.build(
        {"block_type": "llm/local", "config": {"checkpoint_ref": "smollm2", "dtype": "float32", "pack": True, "temperature": 0}}
    )
    inputs = llm.backend.encode([llm._requests(prompt="Tell of the sea.")[0].messages])
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = plain.generate(**inputs, max_new_tokens=60, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert llm(prompt="Tell of the sea.", max_tokens=60)["text"] == llm.backend.tokenizer.decode(ids, skip_special_tokens=True)
