"""docs/training.md: a Stable Diffusion from nothing, a word and a ControlNet on it, by the commands there, cut to a step each."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from tests.train.test_conf import composed
from wgtorch.cli.train import run

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def commands() -> list[str]:
    """All lines of the section's shell blocks, in their order."""
    text = (ROOT / "docs/training.md").read_text(encoding="utf-8").partition("## A Stable Diffusion from nothing")[2].partition("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    return [line.replace("\\\n", " ") for line in re.findall(r"(?:.+\\\n)*.+", "\n".join(blocks))]


def test_the_commands_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    script = runpy.run_path(str(ROOT / "scripts/tiny_stable_diffusion.py"))
    monkeypatch.chdir(tmp_path)
    lines = commands()
    assert len(lines) >= 9
    for line in lines:
        words = shlex.split(line.partition("   #")[0])
        name = words[2] if words[0] == "wgtorch" else words[1]
        if words[0] == "wgtorch":
            config = composed(line.partition("   #")[0])
            config["data"] |= {"held_out": min(2, config["data"]["held_out"])}
            config["samples"] = None
            run(config, tmp_path / "outputs" / name / "<time>")
        else:
            words = [*words, "--count", "6"] if words[2] in ("pictures", "read") and "--count" not in words else words
            words = [re.sub(r"^\d+$", "6", word) for word in words]
            monkeypatch.setattr("sys.argv", words[1:])
            script["main"]()
    said = capsys.readouterr().out
    assert "landmark" in said and "place" in said
    assert (tmp_path / "outputs/textual_inversion/<time>/textual_inversion/learned_embeds.safetensors").is_file()
    assert (tmp_path / "outputs/controlnet/<time>/controlnet/config.json").is_file()
