"""Training around a model behind ``transformers serve``: what stands before the call learns by reward, what stands after it by gradient."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lightning")
pytest.importorskip("openai")

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tests.served_model import transformers_serve
from wgtorch import Graph
from wgtorch.cli.train import run, target_from
from wgtorch.core.errors import CheckpointError
from wgtorch.train.data.rows import Rows
from wgtorch.train.objectives.reward import label_likelihood

CONF = Path(__file__).parents[2] / "conf"


def test_a_named_label_counts_beside_its_likelihood() -> None:
    logits = torch.tensor([[0.0, 2.0], [1.0, 0.0]])
    batch = {"label": torch.tensor([1, 1])}
    plain = label_likelihood({"output": logits}, batch, of="output")
    torch.testing.assert_close(plain, -torch.nn.functional.cross_entropy(logits, batch["label"], reduction="none"))
    texts = {"output": logits, "text": ["It is Positive.", "It is negative."]}
    told = label_likelihood(texts, batch, of="output", text="text", names=["negative", "positive"])
    torch.testing.assert_close(told - plain, torch.tensor([1.0, 0.0]))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The address of a server and the id of its model, SmolLM2 of 135M."""
    pytest.importorskip("transformers")
    pytest.importorskip("uvicorn")
    from wgtorch.integrations.transformers.packaged_models import PACKAGED_MODELS

    try:
        model = str(PACKAGED_MODELS["smollm2"].folder())
    except CheckpointError as error:
        pytest.skip(str(error))
    with transformers_serve(model, tmp_path_factory.mktemp("served") / "log.txt") as url:
        yield url, model


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_a_phrase_and_a_head_learn_around_a_real_model(served: tuple[str, str], tmp_path: Path) -> None:
    url, model = served
    with initialize_config_dir(str(CONF), version_base=None):
        words = [f"graph.nodes.1.config.endpoint_url={url}", f"graph.nodes.1.config.model_id={model}"]
        quiet = ["+trainer.enable_progress_bar=false", "samples=null", "logger=csv", "trainer.val_check_interval=null"]
        config: Any = OmegaConf.to_container(compose("train", ["experiment=around_api", *words, *quiet]), resolve=True)
    held = Rows(**{name: value for name, value in config["data"].items() if name != "type"}).validation()
    assert held is not None
    before = _measured(target_from(config), held)
    run(config, tmp_path / "run", CONF)
    after = _measured(Graph.load(tmp_path / "run/checkpoints/last"), held)
    print(f"held-out reward {before[0]:.2f} -> {after[0]:.2f}, loss {before[1]:.2f} -> {after[1]:.2f}")
    assert after[0] > before[0] + 0.5, "the phrase that has the model name the label was found"
    assert after[1] < before[1] - 0.1, "and the head reads it"


def _measured(graph: Any, rows: Any) -> tuple[float, float]:
    """Mean reward, and cross-entropy of the head, on rows that were not trained on."""
    graph.eval()
    batch = {"prompt": [row["prompt"] for row in rows], "label": torch.tensor([row["label"] for row in rows])}
    with torch.no_grad():
        found = graph.run({"prompt": batch["prompt"]}, outputs=["output", "text"])
    reward = label_likelihood(found, batch, of="output", text="text", names=["negative", "positive"])
    return float(reward.mean()), -float(label_likelihood(found, batch, of="output").mean())
