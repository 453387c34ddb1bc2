"""Models of diffusers and transformers as blocks: what they give, and how they are built."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from tests.integrations.diffusers import tiny
from tests.integrations.diffusers.comparing import picture
from wgtorch import lora
from wgtorch.core.block import Block, BlockRegistry
from wgtorch.core.errors import CheckpointError, ConfigError, PortError
from wgtorch.core.pool import Pool
from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.blocks.autoencoder_kl import AutoencoderKL
from wgtorch.integrations.diffusers.blocks.batching import GuidedCondition
from wgtorch.integrations.diffusers.blocks.text_encoders import CLIPText
from wgtorch.integrations.diffusers.blocks.tokenizers import T5Tokens
from wgtorch.integrations.diffusers.blocks.unet_2d_condition import UNet2DCondition

XL = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 12 + 6 * 4,
    "cross_attention_dim": 16,
}
LATENT, CONDITION = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.ones(2, 5, 16)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Path]]:
    """Models by block type, and the folders they are written to."""
    torch.manual_seed(0)
    made = {
        "backbone/unet_2d_condition": tiny.unet(),
        "codec/autoencoder_kl": tiny.autoencoder(),
        "conditioner/clip_text": tiny.text_encoder(),
    }
    folder = tmp_path_factory.mktemp("models")
    for name, model in made.items():
        model.save_pretrained(folder / name.replace("/", "_"))
    return {name: (model, folder / name.replace("/", "_")) for name, model in made.items()}


def built(block_type: str, **config: Any) -> Block:
    return BlockRegistry.build({"block_type": block_type, "config": config})


@pytest.mark.parametrize("name", ["backbone/unet_2d_condition", "codec/autoencoder_kl", "conditioner/clip_text"])
def test_a_folder_becomes_a_block_with_its_weights(models: dict[str, tuple[Any, Path]], name: str) -> None:
    model, folder = models[name]
    block = built(name, checkpoint_ref=str(folder))
    assert block.config["checkpoint_ref"] == str(folder)
    expected = model.state_dict()
    assert {key: torch.equal(value, expected[key]) for key, value in block.model.state_dict().items()} == dict.fromkeys(expected, True)
    again = BlockRegistry.build(block.to_config())
    assert again.to_config() == block.to_config()
    assert next(built(name, checkpoint_ref=str(folder), dtype="bfloat16").parameters()).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["backbone/unet_2d_condition", "codec/autoencoder_kl", "conditioner/clip_text"])
def test_a_folder_that_lacks_weights_is_refused(models: dict[str, tuple[Any, Path]], name: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(models[name][1], tmp_path / "half"))
    (file,) = folder.glob("*.safetensors")
    weights = load_file(file)
    lost = sorted(weights)[-1]
    del weights[lost]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"lacks 1 weights of a .*which would be random: {lost}; fetch the folder anew"):
        built(name, checkpoint_ref=str(folder))


@pytest.mark.parametrize("block_class", [UNet2DCondition, AutoencoderKL, CLIPText])
def test_the_config_of_a_block_around_a_model_builds_its_like(models: dict[str, tuple[Any, Path]], block_class: Any) -> None:
    model, _ = models[block_class.block_type]
    block = block_class.around(model)
    assert block.model is model
    assert json.loads(json.dumps(block.config)) == block.config
    fresh = BlockRegistry.build(block.to_config())
    assert {name: value.shape for name, value in fresh.state_dict().items()} == {
        name: value.shape for name, value in block.state_dict().items()
    }


def test_what_blocks_give_is_what_their_models_give(models: dict[str, tuple[Any, Path]]) -> None:
    unet, vae, text = (model for model, _ in models.values())
    with torch.no_grad():
        expected = unet(LATENT, 7, encoder_hidden_states=CONDITION).sample
        assert torch.equal(UNet2DCondition.around(unet).run({"latent": LATENT, "timestep": 7, "condition": CONDITION})["pred"], expected)
        codec, scale = AutoencoderKL.around(vae, sample=False), vae.config.scaling_factor
        image = picture(tiny.PIXELS, batch=2)
        torch.testing.assert_close(codec.run({"image": image})["latent"], vae.encode(image * 2 - 1).latent_dist.mean * scale)
        found = codec.run({"latent": LATENT})["image"]
        torch.testing.assert_close(found, (vae.decode(LATENT / scale).sample / 2 + 0.5).clamp(0, 1))
        tokens = torch.tensor([[0, 5, 6, 1]])
        given = CLIPText.around(text, layer="penultimate").run({"tokens": tokens})
        assert torch.equal(given["embedding"], text(tokens, output_hidden_states=True).hidden_states[-2])
        assert torch.equal(given["pooled"], text(tokens).pooler_output)


def test_one_of_the_posterior_is_drawn_for_each_sample(models: dict[str, tuple[Any, Path]]) -> None:
    graph = Graph("encode")
    graph.add_node(AutoencoderKL.around(models["codec/autoencoder_kl"][0]), "encoder", auto_connect=False)
    graph.expose_input("encoder", "image")
    graph.expose_output("encoder", "latent")
    image = picture(tiny.PIXELS).expand(2, -1, -1, -1)
    both = graph.run({"image": image}, seed=1)["latent"]
    assert not torch.equal(both[0], both[1])
    torch.testing.assert_close(graph.run({"image": image[:1]}, seed=1)["latent"], both[:1])


def test_conditions_of_xl_reach_the_unet() -> None:
    torch.manual_seed(0)
    block = UNet2DCondition.around(tiny.unet(**XL))
    call = {"latent": LATENT, "timestep": 7, "condition": CONDITION, "text_embeds": torch.ones(2, 12)}
    with torch.no_grad():
        small, large = (block.run({**call, "time_ids": torch.full((2, 6), size)})["pred"] for size in (16.0, 900.0))
    assert (small - large).abs().max() > 1e-3


@pytest.mark.parametrize("tokens", [5, 16, 77])
def test_keys_and_values_made_ahead_give_the_same_prediction_and_gradients(tokens: int) -> None:
    torch.manual_seed(0)
    unet = tiny.unet().requires_grad_(False).eval()
    block = UNet2DCondition.around(unet)
    text = torch.randn(2, tokens, 16, requires_grad=True)
    ahead = block.precompute_invariants(condition=text)["condition"]
    assert {key.shape[1] for key, _ in ahead.pairs} == {{5: 16, 16: 16, 77: 80}[tokens]}  # PyTorch's attention is quick for those
    expected = unet(LATENT, 7, encoder_hidden_states=text).sample
    found = block(LATENT, 7, ahead)["pred"]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    wanted, got = (torch.autograd.grad(pred.square().sum(), text)[0] for pred in (expected, found))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)


def test_a_model_in_two_graphs_is_there_once(models: dict[str, tuple[Any, Path]]) -> None:
    pool, ref = Pool(), str(models["backbone/unet_2d_condition"][1])
    graphs = [Graph("a"), Graph("b")]
    for graph in graphs:
        graph.add_node("backbone/unet_2d_condition", "backbone", config={"checkpoint_ref": ref}, pool=pool)
    assert graphs[0].nodes["backbone"] is graphs[1].nodes["backbone"]


@pytest.mark.parametrize("shards", [None, "20KB"])
def test_a_relative_folder_is_found_from_another_one(shards: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unet = tiny.unet()
    unet.save_pretrained(tmp_path / "unet", **({"max_shard_size": shards} if shards else {}))
    monkeypatch.chdir(tmp_path)
    graph = Graph("g")
    graph.add_node("backbone/unet_2d_condition", "backbone", config={"checkpoint_ref": "unet"})
    path = graph.save(tmp_path / "saved")
    monkeypatch.chdir("/")
    found = Graph.load(path).nodes["backbone"].state_dict()
    assert all(torch.equal(found[f"model.{name}"], value) for name, value in unet.state_dict().items())


def test_an_adapted_model_named_by_its_folder_takes_its_weights_back(models: dict[str, tuple[Any, Path]], tmp_path: Path) -> None:
    pytest.importorskip("peft")
    ref = str(models["backbone/unet_2d_condition"][1])

    def made() -> Graph:
        graph = Graph("g")
        graph.add_node("backbone/unet_2d_condition", "backbone", config={"checkpoint_ref": ref, "dtype": "bfloat16"}, auto_connect=False)
        lora.add(graph, "style", rank=2, target_modules=["to_q"])
        return graph

    saved, fresh = made(), made()
    path = saved.save(tmp_path / "saved")
    assert [file.name for file in path.rglob("*.safetensors")] == ["adapter_model.safetensors"]
    for parameter in fresh.parameters():
        torch.nn.init.zeros_(parameter)
    assert fresh.load_weights(path) == ()
    found = fresh.state_dict()
    assert all(torch.equal(found[name], value) for name, value in saved.state_dict().items())


def test_guidance_without_a_negative_prompt_of_xl_is_zeros() -> None:
    block = GuidedCondition(zero_negative=True)
    call = {"embedding": torch.ones(1, 2, 3), "negative_embedding": torch.ones(1, 2, 3)}
    assert block.run(call)["condition"][0].eq(0).all()
    assert block.run({**call, "negative_prompt": ""})["condition"][0].eq(1).all()


def test_bad_input(models: dict[str, tuple[Any, Path]], tmp_path: Path) -> None:
    unet, folder = models["backbone/unet_2d_condition"]
    block = UNet2DCondition.around(unet)
    with pytest.raises(PortError, match=r"latent: got shape \[2, 3, 8, 8\]; expected \[B, 4, H, W\]"):
        block.run({"latent": LATENT[:, :3], "timestep": 1, "condition": CONDITION})
    with pytest.raises(PortError, match="got 1 rows for 2 latents; expected as many"):
        block.run({"latent": LATENT, "timestep": 1, "condition": CONDITION[:1]})
    vae = AutoencoderKL.around(models["codec/autoencoder_kl"][0])
    with pytest.raises(PortError, match="got neither latent and image; expected one of them"):
        vae.run({})
    with pytest.raises(ConfigError, match=r"UNet2DCondition: got a AutoencoderKL, expected a UNet2DConditionModel of diffusers"):
        UNet2DCondition.around(vae.model)
    with pytest.raises(ConfigError, match="neither model nor checkpoint_ref"):
        UNet2DCondition()
    with pytest.raises(CheckpointError, match="holds a UNet2DConditionModel, expected a AutoencoderKL"):
        AutoencoderKL(checkpoint_ref=str(folder))
    with pytest.raises(CheckpointError, match="has no config.json; expected the folder of one model"):
        UNet2DCondition(checkpoint_ref=str(folder.parent))
    unet.save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(CheckpointError, match="holds no safetensors; pickles .* are never read"):
        UNet2DCondition(checkpoint_ref=str(tmp_path))


def test_a_tokenizer_with_a_constructor_of_its_own(tmp_path: Path) -> None:
    class Mine(T5Tokens):
        tokenizer_class = "CLIPTokenizer"

        def __init__(self, where: str) -> None:
            super().__init__(folder=where, length=7, clean=True)

    class Named(T5Tokens):
        tokenizer_class = "CLIPTokenizer"

    words = tiny.tokenizer(tmp_path / "words")
    words.save_pretrained(tmp_path / "saved")
    for block in (Mine(str(tmp_path / "saved")), Named.around(words, length=7, clean=True)):
        assert block(text="a   &amp; b")["tokens"].shape == (1, 7)
        assert torch.equal(block(text="a   b")["tokens"], block(text="a b")["tokens"])
    Mine.block_type = "test/own_tokens"
    assert Mine(str(tmp_path / "saved")).to_config()["config"] == {"where": str(tmp_path / "saved")}
    with pytest.raises(ConfigError, match="from no local folder"):
        Named.around(words).to_config()
