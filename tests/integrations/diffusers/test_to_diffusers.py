"""Graphs written as folders that diffusers loads."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from tests.integrations.diffusers import tiny
from tests.integrations.diffusers.comparing import PROMPT, check_equal, half_mask, picture, theirs
from wgtorch.blocks.diffusion.guidance import ClassifierFreeGuidance
from wgtorch.blocks.diffusion.solvers import DPMpp2M
from wgtorch.core.errors import CheckpointError, ConfigError
from wgtorch.graph import Graph
from wgtorch.integrations.diffusers.translation import blocks_for, scheduler_for

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of their code, about numpy 2
STEPS = 4


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {
        "sd": tiny.stable_diffusion(tmp_path_factory.mktemp("sd")),
        "xl": tiny.stable_diffusion_xl(tmp_path_factory.mktemp("xl")),
        "sd3": tiny.stable_diffusion_3(tmp_path_factory.mktemp("sd3"), channels=16),
        "flux": tiny.flux(tmp_path_factory.mktemp("flux")),
    }


def loaded(folder: Path, **parts: Any) -> Any:
    from diffusers import DiffusionPipeline

    return DiffusionPipeline.from_pretrained(str(folder), local_files_only=True, **parts)


@pytest.mark.parametrize("task", ["text_to_image", "image_to_image", "inpaint"])
@pytest.mark.parametrize("family", ["sd", "xl", "sd3", "flux"])
def test_diffusers_loads_what_was_written(pipelines: dict[str, Any], tmp_path: Path, family: str, task: str) -> None:
    graph = Graph.from_diffusers(pipelines[family], task=task)
    assert graph.to_diffusers(tmp_path / "out") == tmp_path / "out"
    images = {"image": picture(tiny.PIXELS), "strength": 1.0} if task != "text_to_image" else {}
    masks = {"mask_image": half_mask(tiny.PIXELS)} if task == "inpaint" else {}
    sizes = {"height": 16, "width": 16} if family == "flux" else {}
    more = sizes | ({"max_sequence_length": 16} if family in ("sd3", "flux") else {})
    check_equal(loaded(tmp_path / "out"), graph, prompt=PROMPT, num_inference_steps=STEPS, **images, **masks, **more)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_weights_go_from_graph_to_graph_however_they_lie(pipelines: dict[str, Any], tmp_path: Path, layout: Any) -> None:
    pipelines["sd"].save_pretrained(tmp_path / "one")
    one = Graph.from_diffusers(tmp_path / "one")
    call = {"prompt": PROMPT, "num_inference_steps": STEPS}
    expected = one.run(call, seed=1)["image"]
    one.to(memory_format=layout)
    torch.testing.assert_close(one.run(call, seed=1)["image"], expected, rtol=0, atol=1e-5)
    other = Graph.from_diffusers(one.to_diffusers(tmp_path / "two")).to(memory_format=layout)
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    one.save(tmp_path / "named")  # its weights by the names of their files
    one.save_checkpoint(tmp_path / "whole.zip", "archive", self_contained=True)
    for saved in ("named", "whole.zip"):
        fresh = deepcopy(other)
        assert fresh.load_weights(tmp_path / saved) == ()
        torch.testing.assert_close(fresh.run(call, seed=1)["image"], expected, rtol=0, atol=1e-5)
        assert fresh.nodes["backbone"].model.conv_in.weight.is_contiguous(memory_format=layout)


def test_changed_weights_and_another_solver_are_in_the_folder(pipelines: dict[str, Any], tmp_path: Path) -> None:
    pipelines["sd"].save_pretrained(tmp_path / "first")
    graph = Graph.from_diffusers(tmp_path / "first")
    before = theirs(pipelines["sd"], prompt=PROMPT, num_inference_steps=STEPS)
    nn.init.normal_(graph.nodes["backbone"].model.conv_out.bias)
    schedule, solver = blocks_for(*tiny.SCHEDULERS["dpmpp_2m"], num_steps=9)
    graph.replace_node("schedule", schedule)
    graph.replace_node("solver", solver)
    graph.to_diffusers(tmp_path / "first")  # over the files that the weights are mapped from
    again = loaded(tmp_path / "first")
    assert type(again.scheduler).__name__ == "DPMSolverMultistepScheduler" and again.scheduler.config.use_karras_sigmas
    assert (check_equal(again, graph, prompt=PROMPT, num_inference_steps=STEPS) - before).abs().max() > 1e-3


@pytest.mark.parametrize("name", list(tiny.SCHEDULERS))
def test_schedulers_there_and_back(name: str) -> None:
    kind, config = tiny.SCHEDULERS[name]
    found, settings = scheduler_for(*blocks_for(kind, config, num_steps=5))
    assert found == kind
    for own, again in zip(blocks_for(kind, config, num_steps=5), blocks_for(found, settings, num_steps=5), strict=True):
        assert again.to_config() == own.to_config()


@pytest.mark.parametrize("is_even", [False, True])
@pytest.mark.parametrize("name", list(tiny.FLOWS))
def test_schedulers_of_flows_there_and_back(name: str, is_even: bool) -> None:
    kind, config = tiny.FLOWS[name]
    first = blocks_for(kind, config, num_steps=5, is_even=is_even)
    found, settings = scheduler_for(*first, is_even=is_even)
    assert found == kind
    assert [block.to_config() for block in blocks_for(found, settings, num_steps=5, is_even=is_even)] == [b.to_config() for b in first]


def test_without_the_third_text_encoder(tmp_path: Path) -> None:
    graph = Graph.from_diffusers(tiny.stable_diffusion_3(tmp_path, t5=False))
    graph.to_diffusers(tmp_path / "out")
    again = loaded(tmp_path / "out", text_encoder_3=None, tokenizer_3=None)  # diffusers wants to be told
    check_equal(again, graph, prompt=PROMPT, num_inference_steps=STEPS, max_sequence_length=16)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("DDPMScheduler", {"variance_type": "fixed_large", "thresholding": True, "sample_max_value": 2.0}),
        ("DDIMScheduler", {"clip_sample": True, "clip_sample_range": 0.7, "rescale_betas_zero_snr": True}),
        ("LCMScheduler", {"original_inference_steps": 25, "timestep_scaling": 3.0}),
        ("EulerDiscreteScheduler", {"use_karras_sigmas": True, "sigma_max": 9.0, "timestep_type": "continuous"}),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun", "lambda_min_clipped": -5.1}),
        ("UniPCMultistepScheduler", {"solver_type": "bh1", "solver_order": 1, "disable_corrector": [0]}),
        ("UniPCMultistepScheduler", {"solver_order": 3}),
    ],
)
def test_settings_there_and_back(kind: str, config: dict[str, Any]) -> None:
    first = blocks_for(kind, config, num_steps=5)
    assert first[1].block_type != "solver/diffusers"
    found, settings = scheduler_for(*first)
    assert found == kind
    assert [block.to_config() for block in blocks_for(found, settings, num_steps=5)] == [block.to_config() for block in first]


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("DPMSolverMultistepScheduler", {"solver_order": 3}),
        ("DPMSolverMultistepScheduler", {"use_lu_lambdas": True}),
        ("UniPCMultistepScheduler", {"predict_x0": False}),
        ("EulerDiscreteScheduler", {"interpolation_type": "log_linear"}),
        ("DEISMultistepScheduler", {}),
    ],
)
def test_settings_that_our_solvers_lack_are_left_to_the_scheduler_itself(kind: str, config: dict[str, Any]) -> None:
    schedule, solver = blocks_for(kind, config, num_steps=5)
    assert (schedule.block_type, solver.block_type) == ("schedule/diffusers", "solver/diffusers")
    assert schedule.config["scheduler"] == kind
    assert scheduler_for(schedule, solver) == (kind, config)


def test_what_no_pipeline_does_is_refused(pipelines: dict[str, Any], tmp_path: Path) -> None:
    graph = Graph.from_diffusers(pipelines["sd"])
    graph.replace_node("solver", DPMpp2M())
    with pytest.raises(ConfigError, match="DPMSolverMultistepScheduler has no place for schedule/diffusion.convention = 'ddim'"):
        graph.to_diffusers(tmp_path / "out")
    graph = Graph.from_diffusers(pipelines["sd"])
    graph.replace_node("guidance", ClassifierFreeGuidance(rescale=0.5))
    graph.add_node(torch.nn.Identity(), "extra")
    with pytest.raises(ConfigError, match="(?s)extra.*no place for.*guidance.rescale: 0.5; expected 0.0"):
        graph.to_diffusers(tmp_path / "out")
    graph = Graph.from_diffusers(pipelines["sd"])
    graph.remove_edge("tokenizer.attention_mask", "text_encoder.attention_mask")
    with pytest.raises(ConfigError, match=r"edge tokenizer.attention_mask -> text_encoder.attention_mask: .*missing"):
        graph.to_diffusers(tmp_path / "out")
    graph.remove_node("codec")
    with pytest.raises(ConfigError, match="has no node codec; expected a graph as from_diffusers makes them"):
        graph.to_diffusers(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="is a folder that holds no pipeline of diffusers"):
        Graph.from_diffusers(pipelines["sd"]).to_diffusers(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


class Packed(torch.Tensor):
    """Stands for a quantised tensor."""


def test_quantised_weights_are_named_before_anything_is_written(tmp_path: Path) -> None:
    pipeline = tiny.stable_diffusion(tmp_path / "sd")
    weight = pipeline.unet.conv_in.weight.detach().as_subclass(Packed)
    pipeline.unet.conv_in.weight = nn.Parameter(weight, requires_grad=False)
    with pytest.raises(ConfigError, match="unet.conv_in.weight is a Packed: what is quantised or distributed is not written"):
        Graph.from_diffusers(pipeline).to_diffusers(tmp_path / "out")
    assert not (tmp_path / "out").exists()
