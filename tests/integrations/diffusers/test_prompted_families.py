"""Families whose pipelines prepare prompts in a way of their own: the same pictures and videos as the pipeline's own call."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from safetensors.torch import save_file

from tests.integrations.diffusers import tiny_prompted
from tests.integrations.diffusers.adapter_files import Maker
from tests.integrations.diffusers.comparing import NEGATIVE, PROMPT, check_equal, ours, picture, theirs
from tests.matrix import thinned
from wgtorch import lora
from wgtorch.core.errors import ConfigError, PortError
from wgtorch.graph import Graph
from wgtorch.lora.formats.foreign_layer_names import Spelling, adapter_names

pytestmark = [  # of their code
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*beautifulsoup4.*"),
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
]
FAMILIES = {
    "qwen_image": {"height": 16, "width": 16, "max_sequence_length": 400},
    "z_image": {"height": 16, "width": 16, "max_sequence_length": 16},
    "sana": {"height": 32, "width": 32, "max_sequence_length": 16, "use_resolution_binning": False},
    "pixart": {"height": 16, "width": 16, "max_sequence_length": 16, "use_resolution_binning": False, "clean_caption": False},
    "ltx": {"height": 32, "width": 32, "num_frames": 9, "max_sequence_length": 16},
    "ltx_dynamic": {"height": 32, "width": 64, "num_frames": 9, "max_sequence_length": 16},
    "cogvideox": {"height": 16, "width": 16, "num_frames": 9, "max_sequence_length": 16},
    "flux2_klein": {"height": 16, "width": 32, "max_sequence_length": 64, "text_encoder_out_layers": (1, 2, 3)},
    "flux2_distilled": {"height": 16, "width": 16, "max_sequence_length": 64, "text_encoder_out_layers": (1, 2, 3)},
    "lumina2": {"height": 32, "width": 48, "max_sequence_length": 200, "system_prompt": "be brief"},
    "chroma": {"height": 16, "width": 16, "max_sequence_length": 16},
    "hunyuan_video": {
        "height": 16, "width": 16, "num_frames": 5, "max_sequence_length": 16, "prompt_template": {"template": "x{}", "crop_start": 1},
    },
}  # fmt: skip
SCALES = {"qwen_image": {"true_cfg_scale": 3.0}, "hunyuan_video": {"true_cfg_scale": 3.0}}
TASKS = {"ltx": "text_to_video", "ltx_dynamic": "text_to_video", "cogvideox": "text_to_video", "hunyuan_video": "text_to_video"}
NEVER_TOLD = ("flux2_klein", "flux2_distilled")  # what is not wanted


@pytest.fixture(scope="module")
def pipelines() -> dict[str, Any]:
    return {name: getattr(tiny_prompted, name)() for name in FAMILIES}


def call_of(family: str, **more: Any) -> dict[str, Any]:
    return {"prompt": PROMPT, "num_inference_steps": 3, **FAMILIES[family], **more}


def graph_of(source: Any, family: str, **options: Any) -> Graph:
    return Graph.from_diffusers(source, task=TASKS.get(family, "text_to_image"), **options)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_the_same_as_the_pipelines_own_call(pipelines: dict[str, Any], family: str) -> None:
    pipeline = pipelines[family]
    graph = graph_of(pipeline, family)
    plain = check_equal(pipeline, graph, **call_of(family))
    told = {} if family in NEVER_TOLD else {"negative_prompt": NEGATIVE}
    if family != "flux2_distilled":
        found = check_equal(pipeline, graph, **call_of(family, **told, **SCALES.get(family, {"guidance_scale": 3.0})))
        assert (found - plain).abs().max() > 1e-4
    many = {"num_videos_per_prompt" if TASKS.get(family) else "num_images_per_prompt": 2}
    check_equal(pipeline, graph, **call_of(family, prompt=["a", "the cat a dog"]))
    if family != "cogvideox":  # whose pipeline makes one, whatever is asked for
        check_equal(pipeline, graph, **call_of(family, **many))
        guided = {} if family == "flux2_distilled" else SCALES.get(family, {"guidance_scale": 3.0})
        told = {name: [text, "a"] for name, text in told.items()}
        check_equal(pipeline, graph, **call_of(family, prompt=["a", "the cat a dog"], **many, **told, **guided))
    if "sigmas" in inspect.signature(type(pipeline).__call__).parameters and family not in ("pixart", "ltx"):
        check_equal(pipeline, graph, **{**call_of(family), "sigmas": [1.0, 0.7, 0.3]})


@pytest.mark.parametrize("family", thinned(FAMILIES))
def test_from_a_folder_and_back(pipelines: dict[str, Any], family: str, tmp_path: Path) -> None:
    from diffusers import DiffusionPipeline

    pipeline = pipelines[family]
    pipeline.save_pretrained(tmp_path / "in")
    graph = graph_of(tmp_path / "in", family)
    check_equal(pipeline, graph, **call_of(family))
    again = Graph.from_config(graph.to_config())
    torch.testing.assert_close(ours(again, **call_of(family)), ours(graph, **call_of(family)), rtol=0, atol=0)
    graph.to_diffusers(tmp_path / "out")
    check_equal(DiffusionPipeline.from_pretrained(str(tmp_path / "out"), local_files_only=True), graph, **call_of(family))


@pytest.mark.parametrize("family", thinned((name for name in FAMILIES if name != "cogvideox"), 1))
def test_defaults_are_those_of_the_pipeline(pipelines: dict[str, Any], family: str) -> None:
    sizes = {name: value for name, value in FAMILIES[family].items() if name != "max_sequence_length"}
    call = {"prompt": PROMPT, **sizes}
    check_equal(pipelines[family], graph_of(pipelines[family], family), **call)


@pytest.mark.parametrize("family", thinned((name for name in FAMILIES if name != "pixart"), 2))
def test_adapters_leave_for_diffusers_and_come_back(pipelines: dict[str, Any], family: str, tmp_path: Path) -> None:
    pipeline = pipelines[family]
    graph = graph_of(pipeline, family)
    plain = ours(graph, **call_of(family))
    lora.add(graph, "mine", rank=2, alpha=3, nodes=["backbone", *(["negative_backbone"] if "negative_backbone" in graph.nodes else [])])
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in graph.named_parameters():
            if ".lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    found = ours(graph, **call_of(family))
    assert (found - plain).abs().max() > 1e-4
    for written in ("diffusers", "kohya"):
        lora.save(graph, tmp_path / written, "mine", format=written)
    lora.remove(graph, "mine")
    for written in ("diffusers", "kohya"):
        lora.load(graph, tmp_path / written, "again")
        torch.testing.assert_close(ours(graph, **call_of(family)), found, rtol=0, atol=1e-4)
        lora.remove(graph, "again")
    pipeline.load_lora_weights(tmp_path / "diffusers")
    torch.testing.assert_close(theirs(pipeline, **call_of(family)), found, rtol=0, atol=1e-4)
    pipeline.unload_lora_weights()


FORMATS = [
    ("transformer.", "peft"),
    ("transformer.", "dora_peft"),
    ("diffusion_model.", "peft_alpha"),
    *(("lora_unet_", kind) for kind in ("kohya", "dora", "dora_columns", "loha", "lokr", "lokr_whole", "diff")),
]


@pytest.mark.parametrize("family", thinned(name for name in FAMILIES if name not in ("ltx_dynamic", "flux2_distilled")))
def test_adapter_files_of_every_kind(pipelines: dict[str, Any], family: str, tmp_path: Path) -> None:
    """Each is the same as the weights that were changed by hand; the names of the model's first code too, where there are some."""
    model, graph = pipelines[family].transformer, graph_of(pipelines[family], family)
    modules = dict(model.named_modules())
    paths = [path for path, module in modules.items() if isinstance(module, torch.nn.Linear) and "to_" in path][:6]
    names = adapter_names(model)
    first = list(names.spellings(model).items())[:3] if names is not None else []
    cells = [(prefix, kind, [(path, Spelling((path,))) for path in paths]) for prefix, kind in FORMATS]
    cells += [("diffusion_model.", "peft", first)] if first else []
    plain = ours(graph, **call_of(family))
    for number, (prefix, kind, layers) in enumerate(cells):
        maker = Maker(number)
        for name, spelling in layers:
            key = prefix + (name.replace(".", "_") if prefix.endswith("_") else name)
            maker.layer(kind, key, "transformer", list(spelling.layers), modules, swapped=spelling.swapped)
        save_file(maker.tensors, tmp_path / f"{number}.safetensors")
        lora.load(graph, tmp_path / f"{number}.safetensors", "mine")
        found = ours(graph, **call_of(family))
        lora.remove(graph, "mine")
        before = {path: modules[path].weight.data for _, path in maker.weights}
        for (_, path), value in maker.weights.items():
            modules[path].weight.data = value
        expected = ours(graph, **call_of(family))
        for path, value in before.items():
            modules[path].weight.data = value
        assert (expected - plain).abs().max() > 1e-5, (prefix, kind)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4, msg=lambda words, cell=(prefix, kind): f"{cell}: {words}")


def test_embeddings_alone_for_a_pipeline_without_text_encoder(tmp_path: Path) -> None:
    pipeline = tiny_prompted.flux2()
    pipeline.save_pretrained(tmp_path / "flux2")
    embeds = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(2))
    for source in (pipeline, tmp_path / "flux2"):
        graph = Graph.from_diffusers(source)
        call = {"prompt_embeds": embeds, "height": 16, "width": 16, "num_inference_steps": 3}
        found = check_equal(pipeline, graph, **call)
        assert (check_equal(pipeline, graph, **call, guidance_scale=1.5) - found).abs().max() > 1e-4
        check_equal(pipeline, graph, prompt_embeds=embeds[:1], height=16, width=16, num_inference_steps=5, num_images_per_prompt=2)


@pytest.mark.parametrize("batched", [True, False])
def test_chroma_from_a_picture(pipelines: dict[str, Any], batched: bool) -> None:
    from diffusers import ChromaImg2ImgPipeline

    pipeline = ChromaImg2ImgPipeline(**pipelines["chroma"].components)
    graph = Graph.from_diffusers(pipeline, task="image_to_image", batched=batched)
    call = {**call_of("chroma"), "negative_prompt": NEGATIVE, "image": picture(16)}
    found = check_equal(pipeline, graph, **call)
    assert (check_equal(pipeline, graph, **call, strength=0.4) - found).abs().max() > 1e-3


def test_sizes_of_training_are_painted_and_cut_unless_told_otherwise(pipelines: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers.pipelines.sana import pipeline_sana

    monkeypatch.setattr(pipeline_sana, "ASPECT_RATIO_1024_BIN", {"0.5": [32, 64], "1.0": [64, 64], "2.0": [64, 32]})
    graph = graph_of(pipelines["sana"], "sana")
    call = {name: value for name, value in call_of("sana").items() if name != "use_resolution_binning"}
    for sides in ({"height": 64, "width": 64}, {"height": 32, "width": 32}, {"height": 32, "width": 96}):
        check_equal(pipelines["sana"], graph, **{**call, **sides})
    with pytest.raises(PortError, match="sizes of training are known for models of .* latents to a side, and this one has 8"):
        ours(graph_of(pipelines["pixart"], "pixart"), prompt=PROMPT, height=16, width=16)


@pytest.mark.parametrize("more", [{"cfg_normalization": 0.9}, {"cfg_truncation": 0.3}, {"cfg_normalization": True, "cfg_truncation": 0.9}])
def test_guidance_of_z_image_that_is_limited(pipelines: dict[str, Any], more: dict[str, Any]) -> None:
    graph = graph_of(pipelines["z_image"], "z_image")
    plain = ours(graph, **call_of("z_image"))
    assert (check_equal(pipelines["z_image"], graph, **call_of("z_image", **more)) - plain).abs().max() > 1e-4


def test_what_is_not_supported_is_named(pipelines: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="image_to_image of SanaPipeline is not supported; supported: text_to_image"):
        Graph.from_diffusers(pipelines["sana"], task="image_to_image")
