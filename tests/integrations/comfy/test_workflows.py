"""Workflows of ComfyUI as graphs: the same pictures as diffusers' pipelines, and as ComfyUI's loop written by hand."""

from __future__ import annotations

import copy
import json
import math
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers

from tests.integrations.diffusers import tiny
from tests.integrations.diffusers.comparing import NEGATIVE, PROMPT, half_mask, picture, theirs
from tests.integrations.diffusers.test_families import in_one_file
from tests.matrix import spread
from wgtorch import lora
from wgtorch.core.errors import CheckpointError, ConfigError, PortError
from wgtorch.graph import Graph
from wgtorch.integrations.comfy.prompts import weighted
from wgtorch.integrations.comfy.schedule import ComfySchedule

pytestmark = [  # of their code
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The decode_latents method:FutureWarning"),
]
SEED, STEPS, SCALE = 42, 5, 6.0
CLOSE = 1e-4


def workflow(**sampling: Any) -> dict[str, Any]:
    """Text to image, as ComfyUI opens it first."""
    sampled = {"seed": SEED, "steps": STEPS, "cfg": SCALE, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0, **sampling}
    return {
        "3": {
            "class_type": "KSampler",
            "inputs": {**sampled, "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]},
            "_meta": {"title": "KSampler"},
        },
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny.safetensors"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": tiny.PIXELS, "height": tiny.PIXELS, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": PROMPT, "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": NEGATIVE, "clip": ["4", 1]}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "ComfyUI", "images": ["8", 0]}},
    }


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A folder as ComfyUI's ``models`` with a single file of Stable Diffusion, and one with a folder of XL."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("comfy")
    sd = tiny.stable_diffusion(folder / "sd", schedule="euler")
    sd.save_pretrained(folder / "config")
    (folder / "models" / "checkpoints").mkdir(parents=True)
    save_file(in_one_file(sd), folder / "models" / "checkpoints" / "tiny.safetensors")
    xl = tiny.stable_diffusion_xl(folder / "xl")
    xl.save_pretrained(folder / "models" / "checkpoints" / "xl")
    return {"models": folder / "models", "config": folder / "config", "sd": sd, "xl": xl}


def graph_of(rooms: dict[str, Any], flow: Any, **more: Any) -> Graph:
    return Graph.from_comfy(flow, models=rooms["models"], config=rooms["config"], **more)


def noise(rows: int = 1, side: int = tiny.SIDE, seed: int = SEED) -> Tensor:
    return torch.randn(rows, 4, side, side, generator=torch.Generator().manual_seed(seed))


def pipeline(rooms: dict[str, Any], kind: str = "StableDiffusionPipeline", family: str = "sd", **parts: Any) -> Any:
    scheduler = diffusers.EulerDiscreteScheduler(**tiny.BETAS, timestep_spacing="trailing")
    more = {"requires_safety_checker": False} if family == "sd" else {"add_watermarker": False}
    return getattr(diffusers, kind)(**{**rooms[family].components, "scheduler": scheduler, **parts}, **more)


def check(found: Tensor, expected: Tensor) -> None:
    assert expected.std() > 0.03, "a flat picture proves nothing"
    torch.testing.assert_close(found, expected, rtol=0, atol=CLOSE)


def call(**more: Any) -> dict[str, Any]:
    return {"prompt": PROMPT, "negative_prompt": NEGATIVE, "guidance_scale": SCALE, "num_inference_steps": STEPS, **more}


# --- beside diffusers -------------------------------------------------------------------------------------------------


def in_parts(guider: str, **guided: Any) -> dict[str, Any]:
    """The same with each of a sampler's settings in a node of its own."""
    flow = workflow()
    flow["3"] = {
        "class_type": "SamplerCustomAdvanced",
        "inputs": {"noise": ["31", 0], "guider": ["32", 0], "sampler": ["33", 0], "sigmas": ["34", 0], "latent_image": ["5", 0]},
    }
    flow["31"] = {"class_type": "RandomNoise", "inputs": {"noise_seed": SEED, "control_after_generate": "fixed"}}
    flow["32"] = {"class_type": guider, "inputs": {"model": ["4", 0], **guided}}
    flow["33"] = {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "dpmpp_2m"}}
    settings = {"scheduler": "karras", "steps": STEPS, "denoise": 0.8}
    flow["34"] = {"class_type": "BasicScheduler", "inputs": {"model": ["4", 0], **settings}}
    return flow


@pytest.mark.parametrize("cfg", [SCALE, 1.0])
def test_a_sampler_in_parts_is_the_sampler_in_one(rooms: dict[str, Any], cfg: float) -> None:
    whole = graph_of(rooms, workflow(sampler_name="dpmpp_2m", scheduler="karras", denoise=0.8, cfg=cfg))
    guided = {"positive": ["6", 0], "negative": ["7", 0], "cfg": cfg}
    parts = graph_of(rooms, in_parts("CFGGuider", **guided) if cfg > 1 else in_parts("BasicGuider", conditioning=["6", 0]))
    expected = whole.run({})["image"]
    assert torch.equal(parts.run({})["image"], expected)
    changed = {"seed_3": 7, "steps_3": 6}
    assert torch.equal(parts.run(changed)["image"], whole.run(changed)["image"])
    assert (whole.run(changed)["image"] - expected).abs().max() > 1e-3


def test_what_is_left_out_of_samplers_in_parts(rooms: dict[str, Any]) -> None:
    flow = in_parts("DualCFGGuider", conditioning=["6", 0])
    flow["8"]["inputs"]["samples"] = ["3", 1]
    flow["34"]["class_type"] = "SDTurboScheduler"
    with pytest.raises(ConfigError) as raised:
        graph_of(rooms, flow)
    words = str(raised.value)
    assert "DualCFGGuider '32': not supported: of samplers in parts SamplerCustomAdvanced with RandomNoise, CFGGuider" in words
    assert "SDTurboScheduler '34': not supported" in words
    assert "samples: leads to output 1 of SamplerCustomAdvanced '3', which is no LATENT" in words


def test_text_to_image_from_a_single_file(rooms: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "workflow_api.json").write_text(json.dumps(workflow()))
    graph = graph_of(rooms, tmp_path / "workflow_api.json")
    # trailing steps of diffusers start from noise times the largest sigma, ComfyUI's from a little more
    start = noise() * (1 + 1 / graph.nodes["sampler_3"].nodes["schedule"].trained[-1] ** 2) ** 0.5
    expected = theirs(pipeline(rooms), latents=start, **call())
    found = graph.run({})["image"]
    check(found, expected)
    assert torch.equal(graph.run({"seed_3": SEED, "text_6": PROMPT})["image"], found)
    assert (graph.run({"seed_3": 1})["image"] - found).abs().max() > 1e-2
    assert graph.run({"batch_size_5": 2, "width_5": 32, "steps_3": 2})["image"].shape == (2, 3, 16, 32)
    again = Graph.load(graph.save(tmp_path / "saved"))
    assert torch.equal(again.run({})["image"], found)


def test_xl_from_a_folder(rooms: dict[str, Any]) -> None:
    flow = workflow()
    flow["4"]["inputs"]["ckpt_name"] = "xl"
    graph = graph_of(rooms, flow)
    start = noise() * (1 + 1 / graph.nodes["sampler_3"].nodes["schedule"].trained[-1] ** 2) ** 0.5
    check(graph.run({})["image"], theirs(pipeline(rooms, "StableDiffusionXLPipeline", "xl"), latents=start, **call()))


SIZES = {"width": 40, "height": 24, "crop_w": 3, "crop_h": 5, "target_width": 32, "target_height": 48}


@pytest.mark.parametrize("both", [True, False])
def test_xl_with_two_texts_and_sizes_of_its_own(rooms: dict[str, Any], both: bool) -> None:
    flow = workflow()
    flow["4"]["inputs"]["ckpt_name"] = "xl"
    clip = {"clip": ["4", 1]}
    flow["6"] = {"class_type": "CLIPTextEncodeSDXL", "inputs": {**clip, **SIZES, "text_l": PROMPT, "text_g": "a c e"}}
    other = {**SIZES, "width": 8, "crop_w": 1}
    if both:
        flow["7"] = {"class_type": "CLIPTextEncodeSDXL", "inputs": {**clip, **other, "text_l": NEGATIVE, "text_g": "g"}}
    graph = graph_of(rooms, flow)
    start = noise() * (1 + 1 / graph.nodes["sampler_3"].nodes["schedule"].trained[-1] ** 2) ** 0.5
    said = {"original_size": (24, 40), "crops_coords_top_left": (5, 3), "target_size": (48, 32), "prompt_2": "a c e"}
    side = (tiny.PIXELS, tiny.PIXELS)
    unwanted = ((24, 8), (5, 1), (48, 32)) if both else (side, (0, 0), side)
    names = ("negative_original_size", "negative_crops_coords_top_left", "negative_target_size")
    said |= {**dict(zip(names, unwanted, strict=True)), "negative_prompt_2": "g" if both else NEGATIVE}
    found = graph.run({})["image"]
    check(found, theirs(pipeline(rooms, "StableDiffusionXLPipeline", "xl"), latents=start, **call(**said)))
    assert (graph.run({"text_g_6": "z"})["image"] - found).abs().max() > 1e-3
    assert (graph.run({"text_l_6": "z"})["image"] - found).abs().max() > 1e-3


def test_the_shorter_text_of_xl_gets_empty_sections(rooms: dict[str, Any]) -> None:
    flow = workflow()
    flow["4"]["inputs"]["ckpt_name"] = "xl"
    long = "a b c d e f g h i j k l m n o p"  # of two sections
    flow["6"] = {"class_type": "CLIPTextEncodeSDXL", "inputs": {"clip": ["4", 1], **SIZES, "text_l": "a", "text_g": long}}
    for text in ("text_l", "text_g"):
        flow["6"]["inputs"] |= {"text_l": long, "text_g": long, text: "a"}
        graph = graph_of(rooms, flow)
        embedded = graph.run({}, outputs=["embeddings_6.embedding"])["embeddings_6.embedding"]
        assert embedded.shape == (1, 32, 36)
        nothing = graph.run({"text_l_6": "", "text_g_6": ""}, outputs=["embeddings_6.embedding"])["embeddings_6.embedding"]
        own = slice(0, 16) if text == "text_l" else slice(16, 36)
        torch.testing.assert_close(embedded[:, 16:, own], nothing[:, :, own])
    flow["4"]["inputs"]["ckpt_name"] = "tiny.safetensors"
    with pytest.raises(ConfigError, match="CLIPTextEncodeSDXL '6': its checkpoint is not of Stable Diffusion XL; use CLIPTextEncode"):
        graph_of(rooms, flow)


def test_layers_of_clip_are_left_out(rooms: dict[str, Any]) -> None:
    flow = workflow(cfg=1.0)
    flow["10"] = {"class_type": "CLIPSetLastLayer", "inputs": {"clip": ["4", 1], "stop_at_clip_layer": -2}}
    plain = graph_of(rooms, flow).run({})["image"]
    for name in ("6", "7"):
        flow[name]["inputs"]["clip"] = ["10", 0]
    graph = graph_of(rooms, flow)
    start = noise() * (1 + 1 / graph.nodes["sampler_3"].nodes["schedule"].trained[-1] ** 2) ** 0.5
    found = graph.run({})["image"]
    clip, tokens = rooms["sd"].text_encoder, rooms["sd"].tokenizer(PROMPT, padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        before = getattr(clip, "text_model", clip).final_layer_norm(clip(tokens, output_hidden_states=True).hidden_states[-2])
    plainly = {"prompt_embeds": before, "guidance_scale": 1.0, "num_inference_steps": STEPS}
    check(found, theirs(pipeline(rooms), latents=start, **plainly))
    assert (found - plain).abs().max() > 1e-3


def test_loras_by_place_and_strength(rooms: dict[str, Any]) -> None:
    other = Graph.from_diffusers(copy.deepcopy(rooms["sd"]))
    lora.add(other, "mine", rank=2, nodes=["backbone", "text_encoder", "negative_text_encoder"])
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if ".lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    (rooms["models"] / "loras").mkdir(exist_ok=True)
    lora.save(other, rooms["models"] / "loras" / "mine.safetensors", "mine", format="kohya")
    flow = workflow()
    plain = graph_of(rooms, flow).run({})["image"]
    strengths = {"strength_model": 0.7, "strength_clip": 0.4}
    flow["10"] = {"class_type": "LoraLoader", "inputs": {"model": ["4", 0], "clip": ["4", 1], "lora_name": "mine.safetensors", **strengths}}
    flow["3"]["inputs"]["model"] = ["10", 0]
    flow["6"]["inputs"]["clip"] = flow["7"]["inputs"]["clip"] = ["10", 1]
    graph = graph_of(rooms, flow)
    their = pipeline({**rooms, "sd": copy.deepcopy(rooms["sd"])})
    their.load_lora_weights(rooms["models"] / "loras", weight_name="mine.safetensors", adapter_name="mine")
    their.set_adapters("mine", {"unet": 0.7, "text_encoder": 0.4})
    start = noise() * (1 + 1 / graph.nodes["sampler_3"].nodes["schedule"].trained[-1] ** 2) ** 0.5
    found = graph.run({})["image"]
    check(found, theirs(their, latents=start, **call()))
    assert (found - plain).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["ControlNetApply", "ControlNetApplyAdvanced"])
def test_a_controlnet(rooms: dict[str, Any], kind: str) -> None:
    torch.manual_seed(4)
    model = diffusers.ControlNetModel.from_unet(rooms["sd"].unet, conditioning_embedding_out_channels=(4, 8)).eval()
    for part in (*model.controlnet_down_blocks, model.controlnet_mid_block, model.controlnet_cond_embedding.conv_out):
        torch.nn.init.normal_(part.weight, std=0.3)
    model.save_pretrained(rooms["models"] / "controlnet" / "edges")
    flow = workflow()
    flow["10"] = {"class_type": "LoadImage", "inputs": {"image": "edges.png"}}
    flow["11"] = {"class_type": "ControlNetLoader", "inputs": {"control_net_name": "edges"}}
    sides = {"conditioning": ["6", 0]} if kind == "ControlNetApply" else {"positive": ["6", 0], "negative": ["7", 0]}
    flow["12"] = {"class_type": kind, "inputs": {**sides, "control_net": ["11", 0], "image": ["10", 0], "strength": 0.7}}
    flow["3"]["inputs"]["positive"] = ["12", 0]
    if kind != "ControlNetApply":
        flow["12"]["inputs"] |= {"start_percent": 0.0, "end_percent": 1.0}
        flow["3"]["inputs"]["negative"] = ["12", 1]
    graph = graph_of(rooms, flow)
    their = pipeline(rooms, "StableDiffusionControlNetPipeline", controlnet=model)
    start = noise() * (1 + 1 / graph.nodes["sampler_3"].nodes["schedule"].trained[-1] ** 2) ** 0.5
    edges = picture(tiny.PIXELS)
    check(graph.run({"image_10": edges})["image"], theirs(their, image=edges, latents=start, controlnet_conditioning_scale=0.7, **call()))
    with pytest.raises(CheckpointError, match=r"'edges.png' is no file; give the folder of pictures \(images=\), or feed the image"):
        graph.run({})
    flow["12"]["inputs"]["start_percent"] = 0.5
    with pytest.raises(ConfigError, match="12': start_percent(: found 0.5, supported: 0| is no input of it)"):
        graph_of(rooms, flow)


# --- beside ComfyUI's loop, by hand -----------------------------------------------------------------------------------


def by_hand(
    rooms: dict[str, Any], sigmas: list[float], start: Tensor, kind: str = "euler", mask: Tensor | None = None, known: Any = None
) -> Tensor:
    """k-diffusion's samplers over the UNet as ComfyUI calls it, from x0 + sigma eps to a latent."""
    pipe = rooms["sd"]
    trained = torch.from_numpy(ComfySchedule(**{key: tiny.BETAS[key] for key in ("beta_start", "beta_end", "beta_schedule")}).trained)
    with torch.no_grad():
        words = [pipe.text_encoder(pipe.tokenizer(t, padding="max_length", return_tensors="pt").input_ids)[0] for t in (PROMPT, NEGATIVE)]

    def denoised(x: Tensor, sigma: float) -> Tensor:
        if mask is not None:
            x = x * mask + (known + noise() * sigma) * (1 - mask)
        t = float((math.log(sigma) - trained.log()).abs().argmin())
        with torch.no_grad():
            cond, uncond = (pipe.unet(x / (sigma**2 + 1) ** 0.5, t, encoder_hidden_states=one).sample for one in words)
        x0 = x - sigma * (uncond + SCALE * (cond - uncond))
        return x0 if mask is None else x0 * mask + known * (1 - mask)

    x, before = start, None
    for k, (now, then) in enumerate(pairwise(sigmas)):
        x0 = denoised(x, now)
        slope = (x - x0) / now
        if kind == "euler" or (kind == "heun" and then == 0):
            x = x + slope * (then - now)
        elif kind == "heun":
            there = x + slope * (then - now)
            x = x + (slope + (there - denoised(there, then)) / then) / 2 * (then - now)
        else:
            h = math.inf if then == 0 else math.log(now / then)
            mixed = x0
            if before is not None and then:
                ratio = math.log(sigmas[k - 1] / now) / h
                mixed = (1 + 1 / (2 * ratio)) * x0 - 1 / (2 * ratio) * before
            x = then / now * x - math.expm1(-h) * mixed
            before = x0
    return x


def decoded(rooms: dict[str, Any], latent: Tensor) -> Tensor:
    vae = rooms["sd"].vae
    with torch.no_grad():
        return (vae.decode(latent / vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)


def encoded(rooms: dict[str, Any], image: Tensor) -> Tensor:
    vae = rooms["sd"].vae
    with torch.no_grad():
        return vae.encode(image * 2 - 1).latent_dist.mode() * vae.config.scaling_factor


def their_sigmas(scheduler: str, steps: int) -> list[float]:
    """As ComfyUI computes them, with PyTorch."""
    bars = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0).float()
    sigmas = ((1 - bars) / bars) ** 0.5
    logs = sigmas.log()

    def sigma(t: Tensor) -> float:
        low, high = t.floor().long(), t.ceil().long()
        w = t.frac()
        return float(((1 - w) * logs[low] + w * logs[high]).exp())

    low, high = float(sigmas[0]), float(sigmas[-1])
    if scheduler in ("normal", "sgm_uniform"):
        times = torch.linspace(999, 0, steps) if scheduler == "normal" else torch.linspace(999, 0, steps + 1)[:-1]
        found = [sigma(t) for t in times]
    elif scheduler == "karras":
        ramp = torch.linspace(0, 1, steps)
        found = ((high ** (1 / 7) + ramp * (low ** (1 / 7) - high ** (1 / 7))) ** 7).tolist()
    elif scheduler == "exponential":
        found = torch.linspace(math.log(high), math.log(low), steps).exp().tolist()
    elif scheduler == "simple":
        found = [float(sigmas[-(1 + int(x * (len(sigmas) / steps)))]) for x in range(steps)]
    elif scheduler == "ddim_uniform":
        found, x = [], 1
        while x < len(sigmas):
            found, x = [float(sigmas[x]), *found], x + max(len(sigmas) // steps, 1)
    elif scheduler == "kl_optimal":
        share = torch.arange(steps) / (steps - 1)
        found = (share * math.atan(low) + (1 - share) * math.atan(high)).tan().tolist()
    else:
        stats = pytest.importorskip("scipy.stats")
        shares = [1 - step / steps for step in range(steps)]
        places = dict.fromkeys(round(float(stats.beta.ppf(share, 0.6, 0.6)) * 999) for share in shares)
        found = [float(sigmas[place]) for place in places]
    return [*found, 0.0]


SCHEDULERS = ["normal", "karras", "exponential", "sgm_uniform", "simple", "ddim_uniform", "kl_optimal", "beta"]


@pytest.mark.parametrize(("kind", "scheduler"), spread(product(["euler", "heun", "dpmpp_2m"], SCHEDULERS)))
def test_samplers_and_schedulers(rooms: dict[str, Any], kind: str, scheduler: str) -> None:
    steps = STEPS + (scheduler == "normal")  # of five, one lies midway between two timesteps of training, and rounding says which is taken
    graph = graph_of(rooms, workflow(sampler_name=kind, scheduler=scheduler, steps=steps))
    sigmas = their_sigmas(scheduler, steps)
    is_whole = scheduler != "ddim_uniform"  # whose first sigma is below that of training's end
    expected = by_hand(rooms, sigmas, noise() * (is_whole + sigmas[0] ** 2) ** 0.5, kind)
    found = graph.run({}, outputs=["sampler_3.latent"])["sampler_3.latent"]
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def uni_pc_by_hand(rooms: dict[str, Any], sigmas: list[float], start: Tensor, variant: str) -> Tensor:
    """UniPC as ComfyUI has it (``multistep_uni_pc_bh_update`` of its authors, by data), from x0 + sigma eps to a latent."""
    sigmas = [*sigmas[:-1], 1e-3]
    level = [(1 / (1 + sigma**2) ** 0.5, sigma / (1 + sigma**2) ** 0.5, -math.log(sigma)) for sigma in sigmas]

    def predicted(x: Tensor, k: int) -> Tensor:
        return by_hand(rooms, [sigmas[k], 0.0], x / level[k][0])  # Euler to 0 is what the model predicts

    x = start / (1 + sigmas[0] ** 2) ** 0.5
    known = [predicted(x, 0)]
    for k in range(1, len(sigmas)):
        order = min(3, k, len(sigmas) - k)
        (_, sigma_0, lambda_0), (alpha, sigma, lam) = level[k - 1], level[k]
        h = lam - lambda_0
        ratios = [(level[k - 1 - i][2] - lambda_0) / h for i in range(1, order)] + [1.0]
        changes = [(known[-1 - i] - known[-1]) / ratios[i - 1] for i in range(1, order)]
        scale = -h if variant == "bh1" else math.expm1(-h)
        phi, b = math.expm1(-h) / -h - 1, []
        for i in range(1, order + 1):
            b.append(phi * math.factorial(i) / scale)
            phi = phi / -h - 1 / math.factorial(i + 1)
        r = torch.tensor([[ratio**i for ratio in ratios] for i in range(order)], dtype=torch.float64)
        weights = [0.5] if order == 1 else torch.linalg.solve(r, torch.tensor(b, dtype=torch.float64)).tolist()
        ahead = [0.5] if order == 2 else torch.linalg.solve(r[:-1, :-1], torch.tensor(b[:-1], dtype=torch.float64)).tolist()
        base = sigma / sigma_0 * x - alpha * math.expm1(-h) * known[-1]
        guess = base - alpha * scale * sum((w * change for w, change in zip(ahead, changes, strict=False)), torch.zeros(()))
        x = guess
        if k < len(sigmas) - 1:
            known.append(predicted(guess, k))
            corrected = [*changes, known[-1] - known[-2]]
            x = base - alpha * scale * sum((w * change for w, change in zip(weights, corrected, strict=True)), torch.zeros(()))
    return x / level[-1][0]


@pytest.mark.parametrize("steps", [2, 3, 6])
@pytest.mark.parametrize("kind", ["uni_pc", "uni_pc_bh2"])
def test_uni_pc(rooms: dict[str, Any], kind: str, steps: int) -> None:
    sigmas = their_sigmas("karras", steps + 1)
    del sigmas[-2]  # which a KSampler does for some of its samplers
    expected = uni_pc_by_hand(rooms, sigmas, noise() * (1 + sigmas[0] ** 2) ** 0.5, "bh2" if kind.endswith("2") else "bh1")
    found = graph_of(rooms, workflow(sampler_name=kind, scheduler="karras", steps=steps)).run({}, outputs=["sampler_3.latent"])
    assert expected.std() > 0.1
    torch.testing.assert_close(found["sampler_3.latent"], expected, rtol=1e-4, atol=1e-4)
    if steps == 6:
        flow = in_parts("CFGGuider", positive=["6", 0], negative=["7", 0], cfg=SCALE)
        flow["33"]["inputs"]["sampler_name"] = kind
        flow["34"]["inputs"] |= {"steps": steps, "denoise": 1.0}
        sigmas = their_sigmas("karras", steps)
        expected = uni_pc_by_hand(rooms, sigmas, noise() * (1 + sigmas[0] ** 2) ** 0.5, "bh2" if kind.endswith("2") else "bh1")
        found = graph_of(rooms, flow).run({}, outputs=["sampler_3.latent"])
        torch.testing.assert_close(found["sampler_3.latent"], expected, rtol=1e-4, atol=1e-4)


def test_a_part_of_the_noise_and_two_samplers_after_one_another(rooms: dict[str, Any]) -> None:
    image = picture(tiny.PIXELS)
    flow = workflow(denoise=0.6, scheduler="karras")
    flow["10"] = {"class_type": "LoadImage", "inputs": {"image": "in.png", "upload": "image"}}
    flow["11"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["10", 0], "vae": ["4", 2]}}
    flow["3"]["inputs"]["latent_image"] = ["11", 0]
    sigmas = their_sigmas("karras", int(STEPS / 0.6))[-(STEPS + 1) :]
    expected = by_hand(rooms, sigmas, encoded(rooms, image) + noise() * sigmas[0])
    check(graph_of(rooms, flow).run({"image_10": image})["image"], decoded(rooms, expected))

    two = workflow()
    shared = {key: value for key, value in two["3"]["inputs"].items() if key not in ("seed", "denoise")}
    first = {"add_noise": "enable", "noise_seed": SEED, "start_at_step": 0, "end_at_step": 3, "return_with_leftover_noise": "enable"}
    second = {"add_noise": "disable", "noise_seed": 0, "start_at_step": 3, "end_at_step": 10000, "return_with_leftover_noise": "disable"}
    two["3"] = {"class_type": "KSamplerAdvanced", "inputs": {**shared, **first}}
    two["10"] = {"class_type": "KSamplerAdvanced", "inputs": {**shared, **second, "latent_image": ["3", 0]}}
    two["8"]["inputs"]["samples"] = ["10", 0]
    check(graph_of(rooms, two).run({})["image"], graph_of(rooms, workflow()).run({})["image"])


@pytest.mark.parametrize("kind", ["SetLatentNoiseMask", "VAEEncodeForInpaint"])
def test_what_a_mask_covers_is_painted(rooms: dict[str, Any], kind: str) -> None:
    image, mask = picture(tiny.PIXELS), half_mask(tiny.PIXELS)
    flow = workflow(sampler_name="dpmpp_2m", denoise=1.0 if kind == "VAEEncodeForInpaint" else 0.7)
    flow["10"] = {"class_type": "LoadImage", "inputs": {"image": "in.png"}}
    if kind == "SetLatentNoiseMask":
        flow["11"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["10", 0], "vae": ["4", 2]}}
        flow["12"] = {"class_type": kind, "inputs": {"samples": ["11", 0], "mask": ["10", 1]}}
        latent, sigmas = encoded(rooms, image), their_sigmas("simple", int(STEPS / 0.7))[-(STEPS + 1) :]
        start = latent + noise() * sigmas[0]
        small = mask
    else:
        flow["12"] = {"class_type": kind, "inputs": {"pixels": ["10", 0], "vae": ["4", 2], "mask": ["10", 1], "grow_mask_by": 5}}
        latent, sigmas = encoded(rooms, (image - 0.5) * (1 - mask) + 0.5), their_sigmas("simple", STEPS)
        start = latent + noise() * (1 + sigmas[0] ** 2) ** 0.5
        small = F.conv2d(mask, torch.ones(1, 1, 5, 5), padding=2).clamp(0, 1)
    small = F.interpolate(small, size=(tiny.SIDE, tiny.SIDE), mode="bilinear")
    flow["3"]["inputs"]["latent_image"] = ["12", 0]
    expected = by_hand(rooms, sigmas, start, "dpmpp_2m", small, latent)
    assert set(small.unique().tolist()) == {0.0, 1.0}
    check(graph_of(rooms, flow).run({"image_10": image, "mask_10": mask})["image"], decoded(rooms, expected))


def test_sizes_and_pictures_of_files(rooms: dict[str, Any], tmp_path: Path) -> None:
    from PIL import Image

    sides = {"upscale_method": "bilinear", "width": 24, "height": 0, "crop": "disabled"}
    Image.new("RGBA", (20, 16), (255, 0, 0, 0)).save(tmp_path / "in.png")
    flow = workflow()
    flow["10"] = {"class_type": "LoadImage", "inputs": {"image": "in.png"}}
    flow["11"] = {"class_type": "ImageScale", "inputs": {"image": ["10", 0], **sides}}
    flow["12"] = {"class_type": "ImageScaleBy", "inputs": {"image": ["11", 0], "upscale_method": "lanczos", "scale_by": 0.5}}
    flow["13"] = {"class_type": "PreviewImage", "inputs": {"images": ["12", 0]}}
    flow["14"] = {"class_type": "LatentUpscaleBy", "inputs": {"samples": ["3", 0], "upscale_method": "nearest-exact", "scale_by": 2}}
    flow["15"] = {"class_type": "LatentUpscale", "inputs": {**sides, "samples": ["14", 0], "crop": "center", "width": 48, "height": 32}}
    flow["8"]["inputs"]["samples"] = ["15", 0]
    graph = graph_of(rooms, flow, images=tmp_path)
    found = graph.run({}, outputs=["image_9", "image_13", "image_10.mask"])
    assert found["image_13"].shape == (1, 3, 10, 12)
    assert found["image_9"].shape == (1, 3, 32, 48)
    assert torch.equal(found["image_10.mask"], torch.ones(1, 16, 20))
    torch.testing.assert_close(found["image_13"][0, :, 0, 0], torch.tensor([1.0, 0.0, 0.0]))


@pytest.mark.parametrize("feathering", [0, 3, 8])
def test_a_picture_is_padded_for_outpainting(rooms: dict[str, Any], feathering: int) -> None:
    image, added = picture(tiny.PIXELS), {"left": 8, "top": 0, "right": 4, "bottom": 16}
    flow = workflow(denoise=0.7)
    flow["10"] = {"class_type": "LoadImage", "inputs": {"image": "in.png"}}
    flow["11"] = {"class_type": "ImagePadForOutpaint", "inputs": {"image": ["10", 0], **added, "feathering": feathering}}
    flow["12"] = {"class_type": "VAEEncodeForInpaint", "inputs": {"pixels": ["11", 0], "vae": ["4", 2], "mask": ["11", 1]}}
    flow["3"]["inputs"]["latent_image"] = ["12", 0]
    graph = graph_of(rooms, flow)
    found = graph.run({"image_10": image}, outputs=["image", "padded_11.image", "padded_11.mask"])
    side = tiny.PIXELS
    larger = torch.full((1, 3, side + 16, side + 12), 0.5)
    larger[:, :, :side, 8 : side + 8] = image
    mask = torch.ones(side + 16, side + 12)
    for y in range(side):  # ComfyUI's loop
        for x in range(side):
            near = min(side, side - y, x, side - x)
            is_in = near < feathering and feathering * 2 < side
            mask[y, x + 8] = ((feathering - near) / feathering) ** 2 if is_in else 0
    assert torch.equal(found["padded_11.image"], larger)
    torch.testing.assert_close(found["padded_11.mask"], mask[None])
    assert found["image"].shape == larger.shape
    with pytest.raises(PortError, match=r"found \[8, 0, -4, 16"):
        graph.run({"image_10": image, "right_11": -4})


@pytest.mark.parametrize(("channel", "mode"), [("red", "RGB"), ("blue", "RGBA"), ("alpha", "RGBA"), ("alpha", "RGB")])
def test_a_mask_of_a_files_channel(rooms: dict[str, Any], channel: str, mode: str, tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    side = tiny.PIXELS
    pixels = torch.randint(256, (side, side, len(mode)), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    Image.fromarray(np.asarray(pixels), mode).save(tmp_path / "mask.png")
    flow = workflow(denoise=0.7)
    flow["10"] = {"class_type": "LoadImageMask", "inputs": {"image": "mask.png", "channel": channel, "upload": "image"}}
    flow["11"] = {"class_type": "SetLatentNoiseMask", "inputs": {"samples": ["5", 0], "mask": ["10", 0]}}
    flow["3"]["inputs"]["latent_image"] = ["11", 0]
    graph = graph_of(rooms, flow, images=tmp_path)
    rgba = torch.cat([pixels, torch.full((side, side, 1), 255, dtype=torch.uint8)], dim=-1)[..., :4].float() / 255
    expected = 1 - rgba[..., 3] if channel == "alpha" else rgba[..., ("red", "blue").index(channel) * 2]
    torch.testing.assert_close(graph.run({}, outputs=["mask_10.mask"])["mask_10.mask"], expected[None])
    fed = half_mask(side)
    assert torch.equal(graph.run({"mask_10": fed}, outputs=["mask_10.mask"])["mask_10.mask"], fed[:, 0])
    flow["10"]["inputs"]["channel"] = "violet"
    with pytest.raises(ConfigError, match="LoadImageMask '10': channel: found 'violet', supported: red, green, blue, alpha"):
        graph_of(rooms, flow)


# --- prompts ----------------------------------------------------------------------------------------------------------


def test_weights_in_brackets() -> None:
    assert weighted("a cat") == [("a cat", 1.0)]
    assert weighted("a (red:1.3) cat") == [("a ", 1.0), ("red", 1.3), (" cat", 1.0)]
    assert weighted("((a) b)") == [("a", pytest.approx(1.21)), (" b", 1.1)]
    assert weighted(r"\(a\) (b:c)") == [("(a) ", 1.0), ("b:c", 1.1)]


def test_weighted_and_long_prompts(rooms: dict[str, Any]) -> None:
    pipe, graph = rooms["sd"], graph_of(rooms, workflow())

    def embedding(text: str) -> Tensor:
        return graph.run({"text_6": text}, outputs=["embedding_6.embedding"])["embedding_6.embedding"]

    def clip(ids: list[int]) -> Tensor:
        padded = [0, *ids, 1, *[1] * (14 - len(ids))]
        with torch.no_grad():
            return pipe.text_encoder(torch.tensor([padded]))[0]

    letters = pipe.tokenizer("a b c d e f g h i j k l m n o p").input_ids[1:-1]
    assert len(letters) == 16
    torch.testing.assert_close(embedding("a b c d e f g h i j k l m n o p"), torch.cat([clip(letters[:14]), clip(letters[14:])], dim=1))
    plain, empty = clip(letters[:3]), clip([])
    by = torch.ones(16)
    by[2] = 1.4
    torch.testing.assert_close(embedding("a (b:1.4) c"), (plain - empty) * by[None, :, None] + empty)
    short = graph.run({})["image"]
    assert (graph.run({"text_6": "a b c d e f g h i j k l m n o p"})["image"] - short).abs().max() > 1e-3
    with pytest.raises(PortError, match="embedding:... is not supported"):
        embedding("a embedding:cat")


# --- refused ----------------------------------------------------------------------------------------------------------


def test_all_that_no_graph_has_is_named_at_once(rooms: dict[str, Any], tmp_path: Path) -> None:
    flow = workflow(sampler_name="dpm_2", schedule="karras")
    flow["20"] = {"class_type": "FreeU", "inputs": {"model": ["4", 0], "b1": 1.3}}
    flow["21"] = {"class_type": "NobodysNode", "inputs": {}}  # leads nowhere, so ComfyUI does not run it either
    flow["3"]["inputs"]["model"] = ["20", 0]
    flow["22"] = {"class_type": "UpscaleModelLoader", "inputs": {"model_name": "x4.pth"}}
    flow["23"] = {"class_type": "ImageUpscaleWithModel", "inputs": {"upscale_model": ["22", 0], "image": ["8", 0]}}
    flow["9"]["inputs"]["images"] = ["23", 0]
    flow["8"]["inputs"]["vae"] = ["4", 1]
    flow["6"]["inputs"]["text"] = ["99", 0]
    with pytest.raises(ConfigError) as caught:
        graph_of(rooms, flow)
    words = str(caught.value)
    for part in (
        "FreeU '20': not supported",
        "KSampler '3': sampler_name: found 'dpm_2', supported: euler, ddim",
        "(dpm_2: it calls the model between two steps too, at a timestep that no schedule here gives; the nearest is heun",
        "ImageUpscaleWithModel '23': not supported: models that enlarge pictures are not read; ImageScale and ImageScaleBy are",
        "KSampler '3': schedule is no input of it; did you mean 'scheduler'?",
        "VAEDecode '8': vae: leads to output 1 of CheckpointLoaderSimple '4', which is no VAE",
        "CLIPTextEncode '6': text: is a link to node '99'; expected a value",
    ):
        assert part in words, words
    assert "NobodysNode" not in words
    with pytest.raises(ConfigError, match="KSampler '3': cfg: found 0.5, expected at least 1"):
        graph_of(rooms, workflow(cfg=0.5))
    loop = workflow()
    loop["3"]["inputs"]["latent_image"] = ["3", 0]
    with pytest.raises(ConfigError, match="KSampler '3': it feeds itself"):
        graph_of(rooms, loop)
    with pytest.raises(ConfigError, match=r"as the editor saves it; expected its API form: Workflow > Export \(API\)"):
        graph_of(rooms, {"nodes": [], "links": []})
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ConfigError, match=r"broken.json cannot be read"):
        graph_of(rooms, tmp_path / "broken.json")
    missing = workflow()
    missing["4"]["inputs"]["ckpt_name"] = "tinny.safetensors"
    with pytest.raises(CheckpointError, match=r"'tinny.safetensors' is not in '.*checkpoints'; did you mean 'tiny.safetensors'"):
        graph_of(rooms, missing)
    missing["4"]["inputs"]["ckpt_name"] = "../tiny.safetensors"
    with pytest.raises(CheckpointError, match="leads out of the folder of models"):
        graph_of(rooms, missing)


def test_samplers_that_draw_say_how_they_differ(rooms: dict[str, Any]) -> None:
    for name in ("euler_ancestral", "dpmpp_2m_sde", "dpmpp_3m_sde", "lcm"):
        graph = graph_of(rooms, workflow(sampler_name=name))
        assert "ComfyUI draws the noise of its steps" in graph.metadata["differs"]["sampler_3"]
        one, other = graph.run({}, seed=1)["image"], graph.run({}, seed=2)["image"]
        assert (one - other).abs().max() > 1e-3
        assert torch.equal(one, graph.run({}, seed=1)["image"])
    assert not graph_of(rooms, workflow()).metadata["differs"]


def test_a_picture_that_comfyui_saved_carries_its_workflow(rooms: dict[str, Any], tmp_path: Path) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    carried = PngInfo()
    carried.add_text("prompt", json.dumps(workflow()))
    carried.add_text("workflow", json.dumps({"nodes": [], "links": []}))
    Image.new("RGB", (4, 4)).save(tmp_path / "saved.png", pnginfo=carried)
    Image.new("RGB", (4, 4)).save(tmp_path / "other.png")
    assert graph_of(rooms, tmp_path / "saved.png").to_config() == graph_of(rooms, workflow()).to_config()
    with pytest.raises(ConfigError, match=r"other.png cannot be read: the picture carries no workflow in API form"):
        graph_of(rooms, tmp_path / "other.png")
