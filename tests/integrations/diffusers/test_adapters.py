"""ControlNet, T2I-Adapter and IP-Adapter: one more node, equal to the pipelines of diffusers on the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from tests.integrations.diffusers import tiny
from tests.integrations.diffusers.comparing import NEGATIVE, PROMPT, ours, picture, theirs
from wgtorch.core.errors import CheckpointError, ConfigError, PortError
from wgtorch.graph import Graph
from wgtorch.integrations.diffusers import add_adapter
from wgtorch.integrations.diffusers.blocks.controlnet import ControlNet
from wgtorch.integrations.diffusers.blocks.image_encoders import CLIPImage
from wgtorch.integrations.diffusers.blocks.ip_adapter import IPAdapter
from wgtorch.integrations.diffusers.blocks.t2i_adapter import T2IAdapter

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of their code, about numpy 2
    pytest.mark.filterwarnings("ignore:The decode_latents method:FutureWarning"),  # of their code, about itself
]
CALL: dict[str, Any] = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "num_inference_steps": 5}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny.stable_diffusion(tmp_path_factory.mktemp("sd"))


@pytest.fixture(scope="module")
def controlnet(pipeline: Any) -> Any:
    """A ControlNet whose last layers are no zeros, as they are before any training."""
    from diffusers import ControlNetModel

    torch.manual_seed(4)
    model = ControlNetModel.from_unet(pipeline.unet, conditioning_embedding_out_channels=(4, 8)).eval()
    for part in (*model.controlnet_down_blocks, model.controlnet_mid_block, model.controlnet_cond_embedding.conv_out):
        nn.init.normal_(part.weight, std=0.3)
    return model


@pytest.fixture(scope="module")
def sketch() -> Any:
    from diffusers import T2IAdapter as Model

    torch.manual_seed(5)
    return Model(in_channels=3, channels=[8, 16], num_res_blocks=1, downscale_factor=2, adapter_type="full_adapter").eval()


def with_controlnet(pipeline: Any, controlnet: Any, **more: Any) -> Any:
    from diffusers import StableDiffusionControlNetPipeline

    return StableDiffusionControlNetPipeline(**{**pipeline.components, **more}, controlnet=controlnet, requires_safety_checker=False)


@pytest.mark.parametrize("schedule", ["ddim", "euler", "heun", "dpmpp_2m"])
def test_a_controlnet_is_one_more_node(pipeline: Any, controlnet: Any, schedule: str) -> None:
    their = with_controlnet(pipeline, controlnet, scheduler=tiny.scheduler(schedule))
    graph = Graph.from_diffusers(their_text_to_image(pipeline, schedule))
    graph.add_node(ControlNet.around(controlnet), "controlnet")
    graph.validate()
    edges = picture(tiny.PIXELS)
    plain = ours(Graph.from_diffusers(their_text_to_image(pipeline, schedule)), **CALL)
    found = ours(graph, control_image=edges, controlnet_conditioning_scale=0.7, **CALL)
    expected = theirs(their, image=edges, controlnet_conditioning_scale=0.7, **CALL)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert (found - plain).abs().max() > 1e-3, "the ControlNet changes nothing"


def their_text_to_image(pipeline: Any, schedule: str) -> Any:
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline(**{**pipeline.components, "scheduler": tiny.scheduler(schedule)}, requires_safety_checker=False)


def test_a_controlnet_for_a_part_of_the_steps_and_a_batch(pipeline: Any, controlnet: Any) -> None:
    graph = Graph.from_diffusers(pipeline)
    graph.add_node(ControlNet.around(controlnet, start=0.2, end=0.8), "controlnet")
    call = {**CALL, "prompt": [PROMPT, "the dog"], "negative_prompt": [NEGATIVE, NEGATIVE]}
    edges = picture(tiny.PIXELS, batch=2)
    expected = theirs(with_controlnet(pipeline, controlnet), image=edges, control_guidance_start=0.2, control_guidance_end=0.8, **call)
    torch.testing.assert_close(ours(graph, control_image=edges, **call), expected, rtol=0, atol=1e-4)


def test_a_t2i_adapter_is_one_more_node(pipeline: Any, sketch: Any) -> None:
    from diffusers import StableDiffusionAdapterPipeline, StableDiffusionPipeline

    torch.manual_seed(1)
    crossing = {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}
    parts = {**pipeline.components, "unet": tiny.unet(**crossing)}
    pipeline = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    their = StableDiffusionAdapterPipeline(
        **{name: part for name, part in parts.items() if name != "image_encoder"}, adapter=sketch, requires_safety_checker=False
    )
    graph = Graph.from_diffusers(pipeline)
    graph.add_node(T2IAdapter.around(sketch), "sketch")
    edges = picture(tiny.PIXELS)
    plain = ours(Graph.from_diffusers(pipeline), **CALL)
    found = ours(graph, adapter_image=edges, adapter_conditioning_scale=0.8, **CALL)
    # Their pipeline takes pictures of PIL or tensors in [0, 1], and draws nothing before the noise.
    expected = theirs(their, image=edges, adapter_conditioning_scale=0.8, **CALL)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert (found - plain).abs().max() > 1e-3, "the adapter changes nothing"


def test_two_adapters_contribute_together(pipeline: Any, controlnet: Any, sketch: Any) -> None:
    from diffusers import MultiControlNetModel

    their = with_controlnet(pipeline, MultiControlNetModel([controlnet, controlnet]))
    graph = Graph.from_diffusers(pipeline)
    block = ControlNet.around(controlnet)
    graph.add_node(block, "first")
    graph.add_node(block, "second", auto_connect=False)
    with pytest.raises(ValueError, match="second"):
        graph.validate()
    for port in ("latent", "timestep", "condition"):
        for edge in [edge for edge in graph.edges if (edge.target_node, edge.target_port) == ("first", port)]:
            graph.add_edge(edge.source_node, edge.source_port, "second", port)
    graph.add_edge("second.adapted", "backbone.adapted")
    graph.expose_input("second", "image", "second_image")
    one, other = picture(tiny.PIXELS), picture(tiny.PIXELS, seed=9)
    expected = theirs(their, image=[one, other], controlnet_conditioning_scale=[1.0, 1.0], **CALL)
    torch.testing.assert_close(ours(graph, control_image=one, second_image=other, **CALL), expected, rtol=0, atol=1e-4)


def test_a_graph_with_an_adapter_survives_its_config_and_its_checkpoint(pipeline: Any, controlnet: Any, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path / "pipeline")
    graph = Graph.from_diffusers(tmp_path / "pipeline")
    graph.add_node(ControlNet.around(controlnet), "controlnet")
    edges = picture(tiny.PIXELS)
    before = ours(graph, control_image=edges, **CALL)
    rebuilt = Graph.from_config(graph.to_config())
    rebuilt.load_state_dict(graph.state_dict(), strict=True)
    assert torch.equal(ours(rebuilt, control_image=edges, **CALL), before)
    assert torch.equal(ours(Graph.load(graph.save(tmp_path / "saved")), control_image=edges, **CALL), before)


def test_what_cannot_be_is_refused(pipeline: Any, controlnet: Any) -> None:
    with pytest.raises(ConfigError, match="0 <= start < end <= 1"):
        ControlNet.around(controlnet, start=0.6, end=0.5)
    graph = Graph.from_diffusers(pipeline)
    graph.add_node(ControlNet.around(controlnet), "controlnet")
    with pytest.raises(PortError, match=r"controlnet.*image.*got 3 rows for a batch of 2"):
        graph.run({**CALL, "control_image": picture(tiny.PIXELS, batch=3)}, seed=0)


def test_in_two_calls_instead_of_one_batch_nothing_is_guessed(pipeline: Any, controlnet: Any) -> None:
    graph = Graph.from_diffusers(pipeline, batched=False)
    graph.add_node(ControlNet.around(controlnet), "controlnet")
    assert [edge.target_port for edge in graph.edges if edge.target_node == "controlnet"].count("latent") == 2  # start and feedback
    found = graph.validate(strict=False)
    assert any("controlnet.condition" in str(each) and "could feed it" in str(each) for each in (*found.errors, *found.warnings))


def test_the_picture_is_followed_without_a_prompt(pipeline: Any, controlnet: Any) -> None:
    their, graph = with_controlnet(pipeline, controlnet), Graph.from_diffusers(pipeline)
    graph.add_node(ControlNet.around(controlnet), "controlnet")
    edges = picture(tiny.PIXELS, batch=2)
    call = {**CALL, "prompt": ["", ""], "negative_prompt": ["", ""]}
    plain = ours(graph, control_image=edges, **call)
    for more in ({"guess_mode": True}, {"guess_mode": True, "guidance_scale": 1.0}):
        found = ours(graph, control_image=edges, **call, **more)
        torch.testing.assert_close(found, theirs(their, image=edges, **call, **more), rtol=0, atol=1e-4)
        assert (found - plain).abs().max() > 1e-3


@pytest.mark.parametrize("schedule", ["ddim", "heun", "pndm"])
def test_in_two_calls_the_controlnet_stands_at_two_places(pipeline: Any, controlnet: Any, schedule: str) -> None:
    their = with_controlnet(pipeline, controlnet, scheduler=tiny.scheduler(schedule))
    graph = Graph.from_diffusers(their_text_to_image(pipeline, schedule), batched=False)
    alone = Graph.from_diffusers(their_text_to_image(pipeline, schedule), batched=False)
    alone.add_node(ControlNet.around(controlnet), "controlnet")
    edges = picture(tiny.PIXELS)
    with pytest.raises(PortError, match=r"condition: is not fed\. .*add_adapter\(graph, controlnet, node_id\)"):
        alone.run({**CALL, "control_image": edges})
    assert add_adapter(graph, ControlNet.around(controlnet, start=0.2, end=0.9), "controlnet") == ["controlnet", "negative_controlnet"]
    graph.validate()
    for call in (CALL, {**CALL, "prompt": ["a", "the cat"], "negative_prompt": ["x", "y"]}):
        found = ours(graph, control_image=edges, controlnet_conditioning_scale=0.7, **call)
        expected = theirs(
            their, image=edges, controlnet_conditioning_scale=0.7, control_guidance_start=0.2, control_guidance_end=0.9, **call
        )
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


# --- IP-Adapter -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def image_encoder() -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(6)
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8, projection_dim=12
    )
    return CLIPVisionModelWithProjection(config).eval()


def ip_weights(unet: Any) -> dict[str, dict[str, Any]]:
    """Random weights in the form of the authors' files."""
    generator = torch.Generator().manual_seed(7)
    width, tokens = unet.config.cross_attention_dim, 4

    def drawn(*shape: int) -> Any:
        return torch.randn(shape, generator=generator)

    projection = {
        "proj.weight": drawn(tokens * width, 12),
        "proj.bias": drawn(tokens * width),
        "norm.weight": drawn(width),
        "norm.bias": drawn(width),
    }
    layers = {}
    for number, name in enumerate(name for name in unet.attn_processors if name.endswith("attn2.processor")):
        out = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
        layers[f"{2 * number + 1}.to_k_ip.weight"], layers[f"{2 * number + 1}.to_v_ip.weight"] = drawn(out, width), drawn(out, width)
    return {"image_proj": projection, "ip_adapter": layers}


def test_an_ip_adapter_is_one_more_node(pipeline: Any, image_encoder: Any) -> None:
    import copy

    from diffusers import StableDiffusionPipeline
    from transformers import CLIPImageProcessor

    weights = ip_weights(pipeline.unet)
    graph = Graph.from_diffusers(pipeline)
    plain = ours(graph, **CALL)
    graph.add_node(IPAdapter.from_file(weights, CLIPImage.around(image_encoder)), "ip")
    graph.validate()
    picture_16 = (picture(16) * 255).round() / 255
    found = ours(graph, ip_adapter_image=picture_16, ip_adapter_scale=0.6, **CALL)

    parts = {**pipeline.components, "unet": copy.deepcopy(pipeline.unet), "image_encoder": image_encoder}
    parts["feature_extractor"] = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16)
    their = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    their.unet._load_ip_adapter_weights(weights, low_cpu_mem_usage=False)
    their.set_ip_adapter_scale(0.6)
    pixels = CLIPImage.around(image_encoder).pixels(picture_16)
    torch.testing.assert_close(found, theirs(their, ip_adapter_image=pixels, **CALL), rtol=0, atol=1e-4)
    assert (found - plain).abs().max() > 1e-3, "the adapter changes nothing"
    from_pixels = parts["feature_extractor"]((picture_16[0] * 255).byte().permute(1, 2, 0).numpy(), return_tensors="pt").pixel_values
    torch.testing.assert_close(pixels, from_pixels, rtol=0, atol=1e-5)
    # The UNet is shared with the pipeline; without the node it is as it was, for both.
    torch.testing.assert_close(ours(Graph.from_diffusers(pipeline), **CALL), plain, rtol=0, atol=0)


def plus_weights(unet: Any, depth: int) -> dict[str, dict[str, Any]]:
    """Random weights in the form of the authors' files of IP-Adapter Plus."""
    generator = torch.Generator().manual_seed(8)
    width, hidden, queries = unet.config.cross_attention_dim, 64, 3

    def drawn(*shape: int) -> Any:
        return torch.randn(shape, generator=generator) * 0.2

    projection = {"latents": drawn(1, queries, hidden), "proj_in.weight": drawn(hidden, 16), "proj_in.bias": drawn(hidden)}
    projection |= {"proj_out.weight": drawn(width, hidden), "proj_out.bias": drawn(width)}
    projection |= {"norm_out.weight": drawn(width), "norm_out.bias": drawn(width)}
    for layer in range(depth):
        for norm in ("0.norm1", "0.norm2", "1.0"):
            projection |= {f"layers.{layer}.{norm}.weight": drawn(hidden), f"layers.{layer}.{norm}.bias": drawn(hidden)}
        projection |= {f"layers.{layer}.0.to_q.weight": drawn(64, hidden), f"layers.{layer}.0.to_kv.weight": drawn(128, hidden)}
        projection |= {f"layers.{layer}.0.to_out.weight": drawn(hidden, 64)}
        projection |= {f"layers.{layer}.1.1.weight": drawn(4 * hidden, hidden), f"layers.{layer}.1.3.weight": drawn(hidden, 4 * hidden)}
    return {"image_proj": projection, "ip_adapter": ip_weights(unet)["ip_adapter"]}


def test_an_ip_adapter_plus(pipeline: Any, image_encoder: Any, tmp_path: Path) -> None:
    import copy

    from diffusers import StableDiffusionPipeline
    from safetensors.torch import save_file
    from transformers import CLIPImageProcessor

    weights = plus_weights(pipeline.unet, 4)
    flat = {f"{outer}.{name}": value for outer, inner in weights.items() for name, value in inner.items()}
    save_file(flat, tmp_path / "plus.safetensors")
    graph = Graph.from_diffusers(pipeline)
    graph.add_node(IPAdapter.from_file(tmp_path / "plus.safetensors", CLIPImage.around(image_encoder)), "ip")
    image = (picture(16) * 255).round() / 255
    parts = {**pipeline.components, "unet": copy.deepcopy(pipeline.unet), "image_encoder": image_encoder}
    parts["feature_extractor"] = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16)
    their = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    their.unet._load_ip_adapter_weights(weights, low_cpu_mem_usage=False)
    their.set_ip_adapter_scale(0.6)
    pixels = CLIPImage.around(image_encoder).pixels(image)
    found = ours(graph, ip_adapter_image=image, ip_adapter_scale=0.6, **CALL)
    torch.testing.assert_close(found, theirs(their, ip_adapter_image=pixels, **CALL), rtol=0, atol=1e-4)
    assert (found - ours(graph, ip_adapter_image=picture(16, seed=9), ip_adapter_scale=0.6, **CALL)).abs().max() > 1e-3
    again = Graph.load(graph.save(tmp_path / "saved")) if graph.nodes["tokenizer"].config.get("folder") else graph
    torch.testing.assert_close(ours(again, ip_adapter_image=image, ip_adapter_scale=0.6, **CALL), found, rtol=0, atol=0)


def test_an_ip_adapter_lets_gradients_through_to_its_picture(pipeline: Any, image_encoder: Any) -> None:
    graph = Graph.from_diffusers(pipeline)
    graph.add_node(IPAdapter.from_file(ip_weights(pipeline.unet), CLIPImage.around(image_encoder)), "ip")
    image = picture(20).requires_grad_()
    out = graph.run({**CALL, "num_inference_steps": 2, "ip_adapter_image": image}, seed=0, training=True)["image"]
    (slope,) = torch.autograd.grad(out.mean(), image)
    assert slope.abs().max() > 0


def test_an_ip_adapter_survives_its_config_and_is_refused_by_another_unet(pipeline: Any, image_encoder: Any, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path / "pipeline")
    graph = Graph.from_diffusers(tmp_path / "pipeline")
    graph.add_node(IPAdapter.from_file(ip_weights(pipeline.unet), CLIPImage.around(image_encoder)), "ip")
    before = ours(graph, ip_adapter_image=picture(16), **CALL)
    assert torch.equal(ours(Graph.load(graph.save(tmp_path / "saved")), ip_adapter_image=picture(16), **CALL), before)
    other = ip_weights(pipeline.unet)
    other["ip_adapter"] = {name: value for name, value in other["ip_adapter"].items() if not name.startswith("1.")}
    graph.replace_node("ip", IPAdapter.from_file(other, CLIPImage.around(image_encoder)))
    with pytest.raises(PortError, match="made for another model"):
        graph.run({**CALL, "ip_adapter_image": picture(16)}, seed=0)
    with pytest.raises(CheckpointError, match="plain IP-Adapter"):
        IPAdapter.from_file({"image_proj": {}, "ip_adapter": {}}, CLIPImage.around(image_encoder))
