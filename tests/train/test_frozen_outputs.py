"""What is frozen is computed once for each sample: prompts and latents, in memory or in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lightning")
pytest.importorskip("peft")
pytest.importorskip("transformers")

from tests.integrations.diffusers import tiny, tiny_prompted
from wgtorch import Graph, lora
from wgtorch.train.frozen_outputs import FrozenOutputs, content_hash
from wgtorch.train.objective import Step
from wgtorch.train.objectives.denoising import Denoising

SIZES = ("original_size", "crops_coords_top_left", "target_size")


def light(folder: Path, family: str = "stable_diffusion_xl") -> Graph:
    """A tiny model whose backbone alone has an adapter, and trains."""
    make: Any = getattr(tiny, family)
    make(folder / "words").save_pretrained(folder / family)
    graph = Graph.from_diffusers(folder / family)
    lora.add(graph, "style", rank=2, nodes=["backbone"], freeze_base=True)
    for name, parameter in graph.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(len(name)))
    graph.train()
    return graph


def step(cache: FrozenOutputs | None, index: int = 0) -> Step:
    return Step(index, torch.Generator().manual_seed(index), True, cache)


def batch(**more: Any) -> dict[str, Any]:
    pictures = torch.rand(3, 3, tiny.PIXELS, tiny.PIXELS, generator=torch.Generator().manual_seed(0))
    return {"image": pictures, "prompt": ["a", "the", "a"], **more}


class Calls:
    """How many samples each model of a graph was called with."""

    def __init__(self, graph: Graph) -> None:
        self.rows: dict[str, int] = {}
        for node, block in graph.nodes.items():
            if node in ("text_encoder", "text_encoder_2", "codec"):
                self.rows[node] = 0
                model = block.model.encoder if node == "codec" else block.model
                model.register_forward_hook(lambda module, args, found, node=node: self._count(node, args, found))

    def _count(self, node: str, args: Any, found: Any) -> None:
        value = found if isinstance(found, torch.Tensor) else found[0]
        self.rows[node] += len(value)


@pytest.mark.parametrize("family", ["stable_diffusion", "stable_diffusion_xl"])
def test_losses_are_those_without_a_cache_and_frozen_models_run_once_for_each_sample(family: str, tmp_path: Path) -> None:
    graph, objective, cache = light(tmp_path, family), Denoising(prediction="noise"), FrozenOutputs()
    plain = [objective(graph, batch(), step(None, index))["loss"] for index in range(3)]
    calls = Calls(graph)
    kept = [objective(graph, batch(), step(cache, index))["loss"] for index in range(3)]
    for mine, expected in zip(kept, plain, strict=True):
        torch.testing.assert_close(mine, expected)
    assert set(calls.rows.values()) <= {2, 3}
    assert calls.rows["text_encoder"] == 2, "two prompts, in three steps of three samples"
    assert calls.rows["codec"] == 3


@pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning", "ignore:.*LeafSpec:FutureWarning")
def test_a_step_does_not_walk_over_all_modules_of_the_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lightning.pytorch as pl

    from wgtorch.train import Trainable

    graph, seen = light(tmp_path), [0]
    unet, walk = graph.nodes["backbone"].model, torch.nn.Module.named_modules
    modules = set(map(id, unet.modules()))

    def counted(self: Any, *args: Any, **options: Any) -> Any:
        seen[0] += id(self) in modules
        return walk(self, *args, **options)

    class Last(pl.Callback):
        def on_train_batch_start(self, *args: Any) -> None:
            seen[0] = 0

        def on_train_batch_end(self, *args: Any) -> None:
            seen.append(seen[0])

    monkeypatch.setattr(torch.nn.Module, "named_modules", counted)
    trainable = Trainable(graph, objective=Denoising(prediction="noise"), cache={})
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    pl.Trainer(max_steps=2, accelerator="cpu", callbacks=[Last()], **quiet).fit(
        trainable,
        torch.utils.data.DataLoader([batch()] * 2, batch_size=None),  # type: ignore[arg-type]
    )
    assert seen[-1] < len(modules) / 4, "the first step checks more"


@pytest.mark.filterwarnings("ignore:`FluxPosEmbed`:FutureWarning")
@pytest.mark.parametrize("family", ["pixart", "sana", "qwen_image", "z_image", "lumina2", "chroma", "flux2_klein"])
def test_families_train_on_pictures_of_a_pipeline_in_memory(family: str, tmp_path: Path) -> None:
    graph = Graph.from_diffusers(getattr(tiny_prompted, family)(), task="text_to_image")
    lora.add(graph, "style", rank=2, nodes=["backbone"], freeze_base=True)
    graph.train()
    told = {"text_encoder_out_layers": (1, 2, 3), "max_sequence_length": 64} if family == "flux2_klein" else {}
    objective, cache = Denoising(inputs=told), FrozenOutputs()
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    given = {"image": pictures, "prompt": ["a cat", "the"]}
    plain = [objective(graph, given, step(None, index))["loss"] for index in range(2)]
    kept = [objective(graph, given, step(cache, index))["loss"] for index in range(2)]
    torch.testing.assert_close(kept, plain)
    assert cache.computed == 4, "two prompts and two pictures, once"
    codec = graph.nodes["codec"]
    where = codec.posterior(pictures)
    torch.testing.assert_close(where["mean"].detach(), codec(image=pictures, draws=False)["latent"].detach())
    if codec.sample:
        noise = torch.randn(where["mean"].shape, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(where["mean"] + where["deviation"] * noise, codec(image=pictures, noise=noise)["latent"])
    folder = FrozenOutputs(tmp_path / "kept")
    objective(graph, given, step(folder, 0))
    assert folder.computed == 2, "a tokenizer without a config is known to this process alone"


def test_the_negative_half_is_no_part_of_training(tmp_path: Path) -> None:
    graph = light(tmp_path)
    call = Denoising(prediction="noise").denoiser(graph).call
    assert not [node for node in call.nodes if node.startswith("negative") or node in ("noise", "schedule")]
    calls = Calls(graph)
    Denoising(prediction="noise")(graph, batch(), step(None))
    assert calls.rows["text_encoder"] == calls.rows["text_encoder_2"] == 3


def test_an_encoder_that_trains_runs_in_every_step(tmp_path: Path) -> None:
    tiny.stable_diffusion(tmp_path / "words").save_pretrained(tmp_path / "sd")
    graph = Graph.from_diffusers(tmp_path / "sd")
    lora.add(graph, "style", rank=2, nodes=["backbone", "text_encoder", "negative_text_encoder"], freeze_base=True)
    graph.train()
    calls, cache = Calls(graph), FrozenOutputs()
    for index in range(2):
        loss = Denoising(prediction="noise")(graph, batch(), step(cache, index))["loss"]
    assert calls.rows["text_encoder"] == 6
    loss.backward()
    assert any(p.grad is not None for name, p in graph.nodes["text_encoder"].named_parameters() if "lora" in name)


def test_what_changes_is_computed_anew(tmp_path: Path) -> None:
    graph, objective, cache = light(tmp_path), Denoising(prediction="noise"), FrozenOutputs()
    calls = Calls(graph)
    objective(graph, batch(), step(cache))
    flipped = batch()
    flipped["image"][0] = flipped["image"][0].flip(-1)
    objective(graph, flipped, step(cache))
    assert calls.rows["codec"] == 4, "the picture that is mirrored"
    with torch.no_grad():
        next(graph.nodes["text_encoder"].parameters()).add_(0.1)
    before = dict(calls.rows)
    loss = objective(graph, batch(), step(cache))["loss"]
    assert calls.rows["text_encoder"] == before["text_encoder"] + 2
    torch.testing.assert_close(loss, objective(graph, batch(), step(None))["loss"])


def test_a_folder_is_read_by_the_next_run_and_a_damaged_file_made_anew(tmp_path: Path) -> None:
    graph, objective = light(tmp_path), Denoising(prediction="noise")
    first = objective(graph, batch(), step(FrozenOutputs(tmp_path / "kept")))["loss"]
    files = sorted((tmp_path / "kept").rglob("*.result"))
    assert len(files) == 2 + 3
    calls, second = Calls(graph), FrozenOutputs(tmp_path / "kept")
    torch.testing.assert_close(objective(graph, batch(), step(second))["loss"], first)
    assert set(calls.rows.values()) == {0}
    assert second.computed == 0
    files[0].write_bytes(files[0].read_bytes()[:20])
    third = FrozenOutputs(tmp_path / "kept")
    torch.testing.assert_close(objective(graph, batch(), step(third))["loss"], first)
    assert third.computed == 1


def test_memory_is_bounded_and_keys_are_contents() -> None:
    cache = FrozenOutputs(max_bytes=2 * 4 * 4)
    for number in (0, 1, 2, 0):
        found = cache.get(str(number), lambda number=number: {"x": torch.full((4,), float(number))}, torch.device("cpu"))  # type: ignore[misc]
        assert found["x"].tolist() == [number] * 4
    assert cache.computed == 4, "the first was left out for the third"
    one = torch.arange(4)
    assert content_hash(one) == content_hash(one.clone()) != content_hash(one.float()) != content_hash(one.view(2, 2))
    assert content_hash(["a", "b"], 1) != content_hash(["a"], "b", 1)


def test_sizes_of_each_picture(tmp_path: Path) -> None:
    graph, objective = light(tmp_path), Denoising(prediction="noise")
    sizes = {
        "original_size": torch.tensor([[512, 768], [64, 64], [30, 20]]),
        "crops_coords_top_left": torch.tensor([[0, 4], [0, 0], [2, 0]]),
        "target_size": torch.tensor([[16, 16]] * 3),
    }
    seen = []
    graph.nodes["backbone"].register_forward_pre_hook(lambda module, args, given: seen.append((args, given)), with_kwargs=True)
    objective(graph, batch(**sizes), step(None))
    args, given = seen[-1]
    ids = next(value for value in (*args, *given.values()) if isinstance(value, torch.Tensor) and value.shape == (3, 6))
    assert ids.tolist() == [[512, 768, 0, 4, 16, 16], [64, 64, 0, 0, 16, 16], [30, 20, 2, 0, 16, 16]]
    together = objective.per_sample(graph, batch(**sizes), step(None))
    objective(graph, batch(original_size=[512, 768]), step(None))
    assert together.shape == (3,)
    with pytest.raises(Exception, match="2 sizes for 3 pictures"):
        objective(graph, batch(original_size=torch.tensor([[1, 2], [3, 4]])), step(None))


def test_embeddings_in_a_batch_take_the_place_of_text_encoders(tmp_path: Path) -> None:
    graph, objective = light(tmp_path), Denoising(prediction="noise")
    call = {"prompt": ["a", "the", "a"], "guidance_scale": 1.0}
    found = graph.run(call, outputs=["text_encoders.embedding", "text_encoder_2.pooled"])
    given = {"prompt_embeds": found["text_encoders.embedding"], "pooled_prompt_embeds": found["text_encoder_2.pooled"]}
    expected = objective(graph, batch(), step(None))["loss"]
    calls = Calls(graph)
    without = {key: value for key, value in batch(**given).items() if key != "prompt"}
    torch.testing.assert_close(objective(graph, without, step(None))["loss"], expected)
    assert calls.rows["text_encoder"] == calls.rows["text_encoder_2"] == 0


def test_layers_of_a_unet_are_computed_again_where_that_is_asked_for(tmp_path: Path) -> None:
    from wgtorch.train import Trainable

    graph, objective = light(tmp_path, "stable_diffusion"), Denoising(prediction="noise")
    gradients = []
    for again in (False, True):
        Trainable(graph, objective=objective, gradient_checkpointing=again)
        graph.train()
        graph.zero_grad()
        objective(graph, batch(), step(None))["loss"].backward()
        gradients.append([parameter.grad.clone() for parameter in graph.trainable_parameters() if parameter.grad is not None])
        assert graph.nodes["backbone"].model.is_gradient_checkpointing is again
    for mine, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, expected)


def test_weights_that_are_given_other_memory_are_others() -> None:
    kept, weight = FrozenOutputs(), torch.nn.Parameter(torch.ones(3))
    first = kept.weights_of([weight])
    weight.data = torch.zeros(3)
    second = kept.weights_of([weight])
    assert first != second
    with torch.no_grad():
        weight.add_(1)
    assert kept.weights_of([weight]) == first
