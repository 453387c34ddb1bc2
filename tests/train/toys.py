"""Small blocks, worlds and data for the tests of training."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wgtorch import Block, Graph, Pipeline, Stage, World, register_block
from wgtorch.core.block import BlockRegistry
from wgtorch.ports import ANSWER_TOKENS, LOG_PROB
from wgtorch.roles import LanguageModel as Llm
from wgtorch.train import Data, Objective, register_data, register_objective

BACKBONE = {"image_size": 16, "width": 12, "heads": 2, "depth": 1, "conv_width": 8, "map_width": 4, "condition_width": 8}
FLOW = {"type": "denoising", "prediction": "x0", "loss_on": "flow", "schedule": {"kind": "flow", "num_train_timesteps": 1}}
PICTURES = {
    "type": "synthetic", "count": 40, "held_out": 4, "batch_size": 4,
    "values": {"image": {"kind": "gradient", "shape": [3, 16, 16]}, "condition": {"kind": "uniform", "shape": [7, 8]}},
}  # fmt: skip
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "log_every_n_steps": 1}


def backbone(seed: int = 0) -> Block:
    """The painter's backbone with 20 thousand random weights."""
    torch.manual_seed(seed)
    return BlockRegistry.build({"block_type": "backbone/scene", "config": BACKBONE})


@register_block("train_toys/linear")
class Linear(Block):
    """A layer, with dropout where asked for."""

    inputs = {"x": "tensor"}
    outputs = {"y": "tensor"}

    def __init__(self, size: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.layer, self.dropout = nn.Linear(size, size), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> dict:
        return {"y": self.dropout(self.layer(x))}


@register_block("train_toys/api")
class Far(Block):
    """Answers over a network, as far as anybody can see: it waits, and has no derivative."""

    inputs = {"x": "tensor"}
    outputs = {"y": "tensor"}
    is_async = True

    def forward(self, x: Tensor) -> dict:
        return {"y": x.detach() * 2}


@register_block("train_toys/language_model")
class LanguageModel(Block):
    """Logits for each next token, from the token alone; with a picture, its mean is added."""

    inputs = {"tokens": "tokens"}
    outputs = {"logits": "tensor"}

    def __init__(self, vocabulary: int = 5) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, vocabulary)

    def forward(self, tokens: Tensor) -> dict:
        return {"logits": self.table(tokens)}


END = 0


@register_block("train_toys/words")
class WordModel(Llm):
    """A language model of words, each of which follows from the mean of those before it; 0 ends an answer."""

    inputs = {"answer": "text"}
    outputs = {"log_prob": LOG_PROB, "answer_tokens": ANSWER_TOKENS}

    def __init__(self, words: list[str]) -> None:
        super().__init__()
        self.words = ["", *words]
        self.embedding = nn.Embedding(len(self.words), 16)
        self.following = nn.Sequential(nn.Linear(16, 32), nn.SiLU(), nn.Linear(32, len(self.words)))

    def encode(self, text: str) -> list[int]:
        return [self.words.index(word) for word in text.replace(".", " .").split()]

    def logits(self, tokens: Tensor) -> Tensor:
        counts = torch.arange(1, tokens.shape[1] + 1).view(-1, 1)
        return self.following(self.embedding(tokens).cumsum(1) / counts)

    def forward(self, prompt: str | list[str], answer: str | list[str] | None = None) -> dict:
        if answer is None:
            texts = [self.words[int(self.logits(torch.tensor([self.encode(text)]))[0, -1].argmax())] for text in prompt]
            return {"text": texts}
        found, counts = [], []
        for before, after in zip(prompt, answer, strict=True):
            asked, told = self.encode(before), [*self.encode(after), END]
            scores = self.logits(torch.tensor([asked + told]))[0, len(asked) - 1 : -1].log_softmax(-1)
            found.append(scores[range(len(told)), told].sum())
            counts.append(len(told))
        return {"text": answer, "log_prob": torch.stack(found), "answer_tokens": torch.tensor(counts)}


@register_block("train_toys/chooser")
class Chooser(Block):
    """Chooses one of some arms for each row and says how likely that was."""

    inputs = {"x": "tensor"}
    outputs = {"choice": "tensor", "log_prob": "tensor", "probabilities": "tensor"}

    def __init__(self, arms: int = 3) -> None:
        super().__init__()
        self.preference = nn.Parameter(torch.zeros(arms))

    def forward(self, x: Tensor) -> dict:
        chances = torch.distributions.Categorical(logits=self.preference.expand(len(x), -1))
        choice = chances.sample()
        return {"choice": choice, "log_prob": chances.log_prob(choice), "probabilities": chances.probs}


@register_block("train_toys/both_ways")
class BothWays(Block):
    """A codec of pictures, both ways."""

    from wgtorch import Port

    inputs = {"image": Port(dtype="image", optional=True), "latent": Port(dtype="latent", optional=True)}
    outputs = {"image": Port(dtype="image", optional=True), "latent": Port(dtype="latent", optional=True)}
    role = "codec"

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 4, 2, stride=2), nn.ConvTranspose2d(4, 3, 2, stride=2)

    def forward(self, image: Tensor | None = None, latent: Tensor | None = None) -> dict:
        return {"latent": self.down(image)} if image is not None else {"image": self.up(latent)}


@register_objective("train_toys/mse")
class Distance(Objective):
    """Mean square of y - wanted."""

    needs = ("x", "wanted")

    def __init__(self, *, fails_at: int | None = None) -> None:
        super().__init__()
        self.fails_at = fails_at

    def forward(self, target: Block, batch: Mapping[str, Any], step: Any) -> Tensor:
        if step.training and self.fails_at == step.index:
            raise RuntimeError("the power is gone")
        return (target(x=batch["x"])["y"] - batch["wanted"]).square().mean()


@register_data("train_toys/numbers")
class Numbers(Data):
    """Rows of random numbers, each twice itself wanted."""

    def __init__(self, *, count: int = 24, size: int = 4, batch_size: int = 4, workers: int = 0) -> None:
        super().__init__(batch_size=batch_size, workers=workers)
        self.rows = torch.randn(count, size, generator=torch.Generator().manual_seed(0))

    def train(self) -> Any:
        return [{"x": row, "wanted": 2 * row} for row in self.rows]

    def validation(self) -> Any:
        return self.train()[:4]


def chain(*blocks: Block, name: str = "chain") -> Graph:
    """Blocks a, b, c, ... one after another, x to y."""
    graph = Graph(name)
    letters = [chr(ord("a") + index) for index in range(len(blocks))]
    for letter, block in zip(letters, blocks, strict=True):
        graph.add_node(block, letter)
    for before, after in itertools.pairwise(letters):
        graph.add_edge(f"{before}.y", f"{after}.x")
    graph.expose_input(letters[0], "x")
    graph.expose_output(letters[-1], "y")
    return graph


def turning_world(block: Block | None = None) -> World:
    """A world of two slots that writes block(last) into `last` again and again."""
    graph = chain(block or Linear())
    pipeline = Pipeline("step")
    pipeline.add_graph(graph, "graph")
    pipeline.infer_exposed_ports()
    stage = Stage("turn", role="turn")
    stage.add_pipeline(pipeline, "step")
    stage.set_state_contract(inputs=["last"], outputs=["last"], mapping_input={"step.x": "last"}, mapping_output={"last": "step.y"})
    world = World("turning")
    world.set_state_schema(["last"])
    world.add_stage(stage, "turn")
    world.set_cycle(["turn"])
    return world


def run_settings(**more: Any) -> dict[str, Any]:
    """Settings of a training of a layer with dropout, six batches in an epoch."""
    trainer = {**QUIET, "max_steps": 20, "val_check_interval": 3, **more.pop("trainer", {})}
    return {
        "data": "train_toys/numbers",
        "objective": "train_toys/mse",
        "optimizer": {"type": "adamw", "lr": 0.05, "schedule": {"type": "cosine", "warmup": 3}},
        "ema": {"decay": 0.9},
        "checkpoint": {"every": 5},
        "trainer": trainer,
        **more,
    }


def losses(folder: Path) -> dict[int, str]:
    """Every logged training loss by step, to the last digit."""
    import csv

    with (folder / "metrics.csv").open() as file:
        return {int(row["step"]): row["train/loss"] for row in csv.DictReader(file) if row.get("train/loss")}
