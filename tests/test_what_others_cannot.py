"""What a sampling pipeline cannot do and a graph of modules can, each on the default painter."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from wgtorch.core.block import Block, BlockRegistry, register_block
from wgtorch.graph import Graph

PROMPT = {"prompt": "a red castle in the hills at dusk"}
STEPS = 4


@register_block("tests/dim")
class Dim(Block):
    """Scales a prediction."""

    outputs = {"pred": "latent"}

    def __init__(self, factor: float = 0.9) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, pred: Tensor) -> dict:
        return {"pred": pred * self.factor}


@pytest.fixture
def painter() -> Graph:
    return Graph.from_template("text_to_image", steps=STEPS)


def gradients(graph: Graph) -> tuple[Tensor, list[Tensor]]:
    """Of the picture's redness: to the prompt's embedding, and to the backbone."""
    embedding = graph.run(PROMPT, outputs=["complete.embedding"], seed=1)["complete.embedding"].clone().requires_grad_()
    image = graph.run({**PROMPT, "complete.embedding": embedding}, seed=1, training=True)["image"]
    weights = list(graph.nodes["backbone"].parameters())
    found = torch.autograd.grad(image[:, 0].mean() - image[:, 2].mean(), [embedding, *weights], allow_unused=True)
    return found[0], [each for each in found[1:] if each is not None]


def test_gradients_reach_the_embedding_and_the_backbone_through_all_steps(painter: Graph) -> None:
    embedding, weights = gradients(painter)
    assert embedding.abs().max() > 0
    assert weights and any(each.abs().max() > 0 for each in weights)
    painter.gradient_checkpointing()
    again, recomputed = gradients(painter)
    torch.testing.assert_close(again, embedding)
    torch.testing.assert_close(recomputed, weights)


def test_an_embedding_is_tuned_by_the_picture_it_gives(painter: Graph) -> None:
    embedding = painter.run(PROMPT, outputs=["complete.embedding"], seed=1)["complete.embedding"].clone().requires_grad_()
    losses = []
    for _ in range(3):  # downhill: less red
        image = painter.run({**PROMPT, "complete.embedding": embedding}, seed=1, training=True)["image"]
        loss = image[:, 0].mean()
        losses.append(loss.item())
        (slope,) = torch.autograd.grad(loss, embedding)
        embedding = (embedding - 0.05 * slope / slope.norm()).detach().requires_grad_()
    assert losses[2] < losses[1] < losses[0]


def test_two_threads_run_one_graph(painter: Graph) -> None:
    prompts = ["a ship at sea in a storm", "a tent in the desert by day"]
    alone = [painter.run({"prompt": prompt}, seed=seed)["image"] for seed, prompt in enumerate(prompts)]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(3):
            together = list(pool.map(lambda job: painter.run({"prompt": job[1]}, seed=job[0])["image"], enumerate(prompts)))
            assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


def test_the_whole_graph_is_one_state_dict_and_one_checkpoint(painter: Graph, tmp_path: Path) -> None:
    image = painter.run(PROMPT, seed=1)["image"]
    bare = Graph.from_config(painter.to_config())
    with torch.no_grad():
        for weight in bare.parameters():
            weight.zero_()
    assert not torch.equal(bare.run(PROMPT, seed=1)["image"], image)
    bare.load_state_dict(painter.state_dict(), strict=True)
    assert torch.equal(bare.run(PROMPT, seed=1)["image"], image)
    painter.save_checkpoint(tmp_path / "painter.wgt", "archive")
    assert torch.equal(Graph.load_from_checkpoint(tmp_path / "painter.wgt").run(PROMPT, seed=1)["image"], image)


def test_another_composition_survives_save_and_load(painter: Graph, tmp_path: Path) -> None:
    before = painter.run(PROMPT, seed=1)["image"]
    painter.add_node("tests/dim", "dim", config={"factor": 0.9})
    painter.remove_edge("guidance.pred_guided", "solver.pred")
    painter.add_edge("guidance.pred_guided", "dim.pred")
    painter.add_edge("dim.pred", "solver.pred")
    painter.replace_node("guidance", BlockRegistry.build({"block_type": "guidance/cfg", "config": {"scale": 3.0, "rescale": 0.7}}))
    changed = painter.run(PROMPT, seed=1)["image"]
    assert not torch.allclose(changed, before, atol=1e-2)
    loaded = Graph.load(painter.save(tmp_path / "changed"))
    assert torch.equal(loaded.run(PROMPT, seed=1)["image"], changed)
    assert loaded.nodes["dim"].factor == 0.9


def test_any_latent_is_read_or_replaced_by_its_path(painter: Graph) -> None:
    latent = painter.run(PROMPT, outputs=["noise.latent"], seed=1)["noise.latent"]
    image = painter.run(PROMPT, seed=1)["image"]
    assert torch.equal(painter.run({**PROMPT, "noise.latent": latent}, seed=1)["image"], image)
    assert not torch.equal(painter.run({**PROMPT, "noise.latent": -latent}, seed=1)["image"], image)
    seen: list[Tensor] = []
    painter.run(
        PROMPT,
        seed=1,
        callbacks=[lambda event: seen.append(event.outputs["next_latent"]) if event.path == "solver" and event.kind == "end" else None],
    )
    assert len(seen) == STEPS
    assert torch.equal(painter.run(PROMPT, outputs=["solver.next_latent"], seed=1)["solver.next_latent"], seen[-1])


def test_a_loop_inside_a_loop() -> None:
    """A picture is repainted three times over; each time is a loop of solver steps."""
    refine = Graph.from_template("image_to_image", steps=STEPS, strength=0.5)
    outer = Graph("again_and_again", metadata={"num_loop_steps": 3})
    outer.add_node(refine, "refine")
    outer.add_edge("refine.image", "refine.image")
    for name in ("image", "prompt", "latents"):
        outer.expose_input("refine", name)
    outer.expose_output("refine", "image")

    image = Graph.from_template("text_to_image", steps=STEPS).run(PROMPT, seed=1)["image"]
    call = {"prompt": "a red castle in the hills at night", "latents": torch.randn(image.shape, generator=torch.Generator().manual_seed(3))}
    turns: list[str] = []
    found = outer.run({**call, "image": image}, callbacks=[lambda event: turns.append(event.path) if event.kind == "loop" else None])
    for _ in range(3):
        image = refine.run({**call, "image": image})["image"]
    assert torch.equal(found["image"], image)
    assert len(set(turns)) == 2 and len(turns) == 3 + 3 * (STEPS // 2)
