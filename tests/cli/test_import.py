"""``wgtorch import``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from safetensors.torch import save_file

from tests.integrations.comfy.test_workflows import workflow
from tests.integrations.diffusers import tiny
from tests.integrations.diffusers.test_families import in_one_file
from wgtorch.cli.main import main
from wgtorch.graph import Graph

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers, about numpy 2


def test_a_workflow_is_imported_and_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pipeline = tiny.stable_diffusion(tmp_path / "sd")
    pipeline.save_pretrained(tmp_path / "config")
    save_file(in_one_file(pipeline), tmp_path / "tiny.safetensors")
    Path("flow_api.json").write_text(json.dumps(workflow(sampler_name="euler_ancestral")))
    assert main(["import", "comfy", "flow_api.json"]) == 2
    assert "wgtorch import: a workflow names files of models; give --models" in capsys.readouterr().err
    assert main(["import", "comfy", "flow_api.json", "--models", ".", "--task", "inpaint"]) == 2
    assert "comfy takes no --task; known: --config, --dtype, --images, --models" in capsys.readouterr().err
    assert main(["import", "comfy", "flow_api.json", "--models", ".", "--config", "config"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("flow_api: 9 nodes\n")
    assert "sampler_3 differs: ComfyUI draws" in told
    assert main(["run", "flow_api", "--input", "text_6=the dog", "--seed", "3", "--out", "out"]) == 0
    assert list(Path("out").glob("*.png"))
    assert main(["validate", "flow_api"]) == 0
    assert capsys.readouterr().out.splitlines()[-3] == "graph flow_api: valid", "it is called as its folder"
    assert main(["import", "diffusers", "config", "--task", "image_to_image", "--out", "two"]) == 0
    assert "inputs: prompt*" in capsys.readouterr().out
    assert "encoder" in Graph.load("two").nodes
