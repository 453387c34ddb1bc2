"""A word that is learned: nothing else changes, and diffusers loads its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

pytest.importorskip("lightning")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from tests.integrations.diffusers import tiny
from tests.train.toys import QUIET
from wgtorch import Graph
from wgtorch.core.errors import ConfigError
from wgtorch.train.data.base import Data
from wgtorch.train.data.image_folder import ImageFolder
from wgtorch.train.fitting import fit
from wgtorch.train.textual_inversion import TextualInversion

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
CALL: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 2.0, "height": tiny.PIXELS, "width": tiny.PIXELS}
NOISE = torch.randn(1, 4, tiny.SIDE, tiny.SIDE, generator=torch.Generator().manual_seed(0))


def trained(pipeline: Any, tmp_path: Path, data: dict[str, Any] | None = None, **word: Any) -> Any:
    """A graph that has learned <cat> from a red picture in five steps."""
    pipeline.save_pretrained(tmp_path / "model")
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (tiny.PIXELS, tiny.PIXELS), "red").save(tmp_path / "pictures/a.png")
    graph = Graph.from_diffusers(tmp_path / "model")
    folder = str(tmp_path / "pictures")
    pictures = {"type": "image_folder", "folder": folder, "size": tiny.PIXELS, "step": 2, "prompt": "the <cat>", "repeats": 5}
    settings = {
        "data": {**pictures, **(data or {})},
        "objective": "denoising",
        "textual_inversion": {"token": "<cat>", "initializer": "c a", **word},
        "optimizer": {"type": "adamw", "lr": 0.1, "weight_decay": 0.5},
        "trainer": {**QUIET, "max_steps": 5},
    }  # fmt: skip
    fit(graph, settings, tmp_path / "run")
    return graph


def test_diffusers_loads_a_word_of_two_vectors(tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    pipeline = tiny.stable_diffusion(tmp_path / "words")
    before = pipeline.text_encoder.get_input_embeddings().weight.detach().clone()
    graph = trained(pipeline, tmp_path, vectors=2)
    rows = graph.nodes["text_encoder"].model.get_input_embeddings().weight
    changed = [index for index, row in enumerate(rows[: len(before)]) if not torch.equal(row, before[index])]
    assert len(changed) + len(rows) - len(before) == 2, "no other word has moved, whatever the weight decay"
    theirs: Any = StableDiffusionPipeline.from_pretrained(tmp_path / "model", safety_checker=None)
    theirs.set_progress_bar_config(disable=True)
    theirs.load_textual_inversion(tmp_path / "run/textual_inversion")
    picture = theirs("the <cat>", latents=NOISE, output_type="pt", **CALL).images
    torch.testing.assert_close(graph.run({"prompt": "the <cat>", "latents": NOISE, **CALL})["image"], picture, atol=1e-4, rtol=1e-3)
    assert (theirs("the ca", latents=NOISE, output_type="pt", **CALL).images - picture).abs().max() > 1e-3
    loaded = Graph.load(tmp_path / "run/checkpoints/last")
    torch.testing.assert_close(loaded.run({"prompt": "the <cat>", "latents": NOISE, **CALL})["image"], picture, atol=1e-4, rtol=1e-3)


def test_both_encoders_of_xl_learn_it(tmp_path: Path) -> None:
    from diffusers import StableDiffusionXLPipeline
    from safetensors.torch import load_file

    graph = trained(tiny.stable_diffusion_xl(tmp_path / "words"), tmp_path)
    theirs: Any = StableDiffusionXLPipeline.from_pretrained(tmp_path / "model", add_watermarker=False)
    theirs.set_progress_bar_config(disable=True)
    found = load_file(tmp_path / "run/textual_inversion/learned_embeds.safetensors")
    theirs.load_textual_inversion(found["clip_l"], token="<cat>", text_encoder=theirs.text_encoder, tokenizer=theirs.tokenizer)
    theirs.load_textual_inversion(found["clip_g"], token="<cat>", text_encoder=theirs.text_encoder_2, tokenizer=theirs.tokenizer_2)
    picture = theirs("the <cat>", latents=NOISE, output_type="pt", **CALL).images
    torch.testing.assert_close(graph.run({"prompt": "the <cat>", "latents": NOISE, **CALL})["image"], picture, atol=2e-4, rtol=1e-3)


class Told(Data):
    """Items that have to be made to know what they say."""

    def __init__(self, texts: list[str]) -> None:
        super().__init__()
        self.told = texts

    def train(self) -> Any:
        return [{"image": torch.rand(3, 8, 8), "prompt": text} for text in self.told]


def test_a_word_that_no_caption_holds_is_refused_before_the_first_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigError, match=r"no caption holds '<cat>'.*as 'a dog'; .*data.prompt='a photo of <cat>'"):
        trained(tiny.stable_diffusion(tmp_path / "words"), tmp_path, data={"prompt": "a dog"})
    assert not (tmp_path / "run/metrics.csv").exists()
    word = TextualInversion("<cat>", initializer="c")
    word.add(Graph.from_diffusers(tmp_path / "model"), tmp_path / "tokenizers")
    with pytest.raises(ConfigError, match="no caption holds '<cat>'"):
        word.check(Told(["a", "c"]), {})
    with pytest.raises(ConfigError, match="no caption holds"):  # an encoder reads 77 tokens
        word.check(Told(["a " * 100 + "<cat>"]), {})
    word.check(Told(["a", "the <cat>"]), {})
    word.check(Told(["a"]), {"prompt": "the <cat>", "steps": 3})
    caplog.clear()
    for name, text in (("a.png", None), ("b.png", "a dog"), ("c.png", "a <cat>")):
        Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / name)
        if text is not None:
            (tmp_path / "pictures" / name).with_suffix(".txt").write_text(text)
    word.check(ImageFolder(folder=str(tmp_path / "pictures"), size=8, step=2, prompt="my <cat>"), {})
    assert "1 of 3 captions do not hold <cat>, which learns nothing from them" in caplog.text


def test_words_that_cannot_be_learned(tmp_path: Path) -> None:
    tiny.stable_diffusion(tmp_path / "words").save_pretrained(tmp_path / "model")
    graph = Graph.from_diffusers(tmp_path / "model")
    with pytest.raises(ConfigError, match="'the</w>' is a word that .* knows"):
        TextualInversion("the</w>", initializer="a").add(graph, tmp_path)
    with pytest.raises(ConfigError, match="text_to_image has no tokenizer and text encoder of transformers"):
        TextualInversion("<a>", initializer="a").add(Graph.from_template("text_to_image"), tmp_path)
    with pytest.raises(ConfigError, match="expected words, as <cat> and cat"):
        TextualInversion("a cat", initializer="a")
    with pytest.raises(ConfigError, match="textual_inversion: lora says what trains too"):
        settings = {
            "data": "tensors",
            "objective": "denoising",
            "textual_inversion": {"token": "<a>", "initializer": "a"},
            "lora": {"rank": 1},
        }
        fit(graph, {**settings, "data": {"type": "synthetic", "values": {"image": {"kind": "gradient", "shape": [3, 16, 16]}}}}, tmp_path)
