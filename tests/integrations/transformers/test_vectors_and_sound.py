"""Local embedders, transcribers and voices, against transformers' own results."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from tests.integrations.transformers import tiny
from wgtorch.core.block import BlockRegistry
from wgtorch.core.errors import ConfigError
from wgtorch.core.run.rng import Rng

TEXTS = ["The lamp", "A storm comes from the sea", "Смотритель"]


def block_of(block_type: str, folder: Path, **config: Any) -> Any:
    return BlockRegistry.build({"block_type": block_type, "config": {"checkpoint_ref": str(folder), **config}})


# --- embedder ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.sentence_encoder(tmp_path_factory.mktemp("encoder") / "model")


def hidden_of(folder: Path, text: str) -> torch.Tensor:
    from transformers import AutoModel, AutoTokenizer

    model, words = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return model(**words(text, return_tensors="pt")).last_hidden_state[0]


def test_vectors_are_the_mean_over_the_words_of_each_text(encoder: Path) -> None:
    vectors = block_of("embedder/local", encoder, batch_size=2)(text=TEXTS)["embedding"]
    expected = torch.stack([torch.nn.functional.normalize(hidden_of(encoder, text).mean(0), dim=0) for text in TEXTS])
    torch.testing.assert_close(vectors, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("pooling", "row"), [("cls", 0), ("last", -1)])
def test_pooling_and_length_as_the_config_says(encoder: Path, pooling: str, row: int) -> None:
    vectors = block_of("embedder/local", encoder, pooling=pooling, normalize=False)(text=TEXTS)["embedding"]
    torch.testing.assert_close(vectors, torch.stack([hidden_of(encoder, text)[row] for text in TEXTS]), atol=1e-5, rtol=1e-5)


def test_a_folder_of_sentence_transformers_says_itself_how_to_pool(tmp_path: Path) -> None:
    folder = tiny.sentence_encoder(tmp_path / "model")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 16, "pooling_mode_cls_token": True}))
    kinds = ("Transformer", "Pooling")
    (folder / "modules.json").write_text(json.dumps([{"type": f"sentence_transformers.models.{kind}"} for kind in kinds]))
    vectors = block_of("embedder/local", folder)(text=TEXTS[0])["embedding"]
    torch.testing.assert_close(vectors[0], hidden_of(folder, TEXTS[0])[0], atol=1e-5, rtol=1e-5)


def test_an_embedder_can_be_trained_and_cuts_what_is_too_long(encoder: Path) -> None:
    embedder = block_of("embedder/local", encoder, dimensions=4)
    vectors = embedder(text=[*TEXTS, "A storm comes. " * 60, ""])["embedding"]
    assert vectors.shape == (5, 4) and vectors.isfinite().all()
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(5))
    vectors[0, 0].backward()
    assert embedder.model.embeddings.word_embeddings.weight.grad.abs().sum() > 0


# --- speech to text ---------------------------------------------------------------------------------------------------


def sine(rate: int, seconds: float = 1.0) -> torch.Tensor:
    return torch.sin(torch.arange(int(rate * seconds)) * (2 * math.pi * 440 / rate)).reshape(1, 1, -1)


def test_recordings_are_written_down_as_transformers_does(tmp_path: Path) -> None:
    from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor

    folder = tiny.listener(tmp_path / "whisper")
    model, processor = AutoModelForSpeechSeq2Seq.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    inputs = processor(sine(16000)[0, 0].numpy(), sampling_rate=16000, return_tensors="pt")
    expected = processor.batch_decode(model.generate(**inputs, max_new_tokens=8), skip_special_tokens=True)[0].strip()
    listener = block_of("speech_to_text/local", folder, max_tokens=8)
    assert listener(audio=sine(16000))["text"] == expected
    assert listener(audio=sine(16000).expand(2, 2, -1))["text"] == [expected, expected], "channels are mixed"
    with pytest.raises(ConfigError, match="cannot be told a language"):
        block_of("speech_to_text/local", folder, language="ru")(audio=sine(16000))


def test_sound_is_brought_to_the_rate_the_model_hears() -> None:
    from wgtorch.integrations.transformers.speech import resampled

    wanted = sine(16000)[0, 0]
    for rate in (8000, 44100):
        found = resampled(sine(rate)[0, 0], rate, 16000)
        assert found.shape == wanted.shape
        torch.testing.assert_close(found[500:-500], wanted[500:-500], atol=0.02, rtol=0)


# --- text to speech ---------------------------------------------------------------------------------------------------


def test_a_voice_speaks_with_draws_of_its_own(tmp_path: Path) -> None:
    voice = block_of("text_to_speech/local", tiny.voice(tmp_path / "vits"))
    both = voice(text=["hello there", "a lamp"], rng=Rng(3))
    alone = voice(text="hello there", rng=Rng(3))
    first = both["audio"][0, :, : int(both["lengths"][0])]
    assert torch.equal(first, alone["audio"][0]) and both["sampling_rate"] == 16000
    assert both["audio"].abs().max() <= 1 and both["audio"].shape[:2] == (2, 1)
    assert not torch.equal(voice(text="hello there", rng=Rng(4))["audio"], alone["audio"])
    state = torch.get_rng_state()
    voice(text="a lamp", rng=Rng(3))
    assert torch.equal(torch.get_rng_state(), state), "PyTorch's generator is as it was"


def test_what_a_voice_cannot_do(tmp_path: Path) -> None:
    folder = tiny.voice(tmp_path / "vits")
    assert not torch.equal(
        block_of("text_to_speech/local", folder, voice="0")(text="a lamp", rng=Rng(3))["audio"],
        block_of("text_to_speech/local", folder, voice="1")(text="a lamp", rng=Rng(3))["audio"],
    )
    with pytest.raises(ConfigError, match="voice: found 'Anna'; this model expects a number from 0 to 1"):
        block_of("text_to_speech/local", folder, voice="Anna")(text="a lamp")
    with pytest.raises(ConfigError, match="speaks at its own speed"):
        block_of("text_to_speech/local", folder, speed=2.0)(text="a lamp")
