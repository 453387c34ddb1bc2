"""Files that LyCORIS itself writes, and what the model gives with them there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lycoris")
pytest.importorskip("diffusers")
pytest.importorskip("peft")

import lycoris
from torch import Tensor

from tests.integrations.diffusers import tiny
from wgtorch import lora
from wgtorch.core.errors import CheckpointError
from wgtorch.graph import Graph

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:`lora_bias=True` was passed")  # of their code


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny.stable_diffusion(tmp_path_factory.mktemp("sd"))


@torch.no_grad()
def predicted(unet: Any) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    condition = torch.randn(1, 5, unet.config.cross_attention_dim, generator=generator)
    return unet(torch.randn(1, 4, 8, 8, generator=generator), torch.tensor(7), condition).sample


def written(unet: Any, file: Path, *, prefix: str = "lora_unet", **options: Any) -> Tensor:
    """Writes a file with numbers in it, and gives what LyCORIS makes of the model with it; kohya's scripts name layers so."""
    lycoris.wrapper.LycorisNetwork.LORA_PREFIX = prefix
    network = lycoris.create_lycoris(unet, 1.0, linear_dim=3, linear_alpha=2, conv_dim=2, conv_alpha=1.5, **options)
    network.apply_to()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator) * 0.2
            parameter.copy_(parameter * (1 + noise.abs()) if "dora_scale" in name else parameter + noise)
    found = predicted(unet)
    network.save_weights(str(file), None, None)
    network.restore()
    return found


@pytest.mark.parametrize("tucker", [False, True])
@pytest.mark.parametrize("dora", [None, "rows", "columns"])
@pytest.mark.parametrize("algo", ["lora", "loha", "lokr", "full"])
def test_the_model_gives_the_same(pipeline: Any, algo: str, dora: str | None, tucker: bool, tmp_path: Path) -> None:
    if algo == "full" and (dora or tucker):
        pytest.skip("a whole change has neither")
    options = {"use_tucker": tucker, **({} if dora is None else {"dora_wd": True, "wd_on_output": dora == "rows"})}
    check(pipeline, written(pipeline.unet, tmp_path / "made.safetensors", algo=algo, **options), tmp_path)


def test_names_that_it_gives_layers_by_itself(pipeline: Any, tmp_path: Path) -> None:
    check(pipeline, written(pipeline.unet, tmp_path / "made.safetensors", prefix="lycoris"), tmp_path)


def check(pipeline: Any, expected: Tensor, folder: Path) -> None:
    plain = predicted(pipeline.unet)
    graph = Graph.from_diffusers(pipeline)
    lora.load(graph, folder / "made.safetensors", name="made")
    with lora.use_adapter(graph.nodes["backbone"], "made"):
        found = predicted(pipeline.unet)
    lora.remove(graph, "made")
    assert (found - plain).abs().max() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("more", "word"), [({"algo": "ia3"}, "on_input"), ({"algo": "boft"}, "oft_blocks"), ({"train_norm": True}, "w_norm")]
)
def test_what_has_no_place_is_refused_by_name(pipeline: Any, more: dict[str, Any], word: str, tmp_path: Path) -> None:
    written(pipeline.unet, tmp_path / "made.safetensors", **more)
    with pytest.raises(CheckpointError, match=rf"names are no adapter's that is known here: .*{word}"):
        lora.load(Graph.from_diffusers(pipeline), tmp_path / "made.safetensors", name="made")
