"""Values as files: what is written is read by the program it is for, and is the same."""

from __future__ import annotations

import io
import json
import re
import wave
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from wgtorch.core import kinds
from wgtorch.core.errors import PortTypeError
from wgtorch.report.show import show
from wgtorch.storage import media
from wgtorch.storage.media import png_bytes, video_bytes, wav_bytes, write_value
from wgtorch.world_runtime.state import State

G = torch.Generator().manual_seed(0)
PICTURES = torch.rand(2, 3, 8, 8, generator=G)
VIDEO = torch.rand(1, 6, 3, 16, 24, generator=G).repeat_interleave(4, -1).repeat_interleave(4, -2)


def test_pictures_of_a_batch_stand_side_by_side() -> None:
    with Image.open(io.BytesIO(png_bytes(PICTURES))) as opened:
        assert opened.size == (16, 8)
        assert opened.getpixel((8, 0)) == tuple((PICTURES[1, :, 0, 0] * 255).round().int().tolist())


def test_an_mp4_is_decoded_to_the_same_frames() -> None:
    av = pytest.importorskip("av")
    with av.open(io.BytesIO(video_bytes(VIDEO[0], "mp4", fps=12.5))) as opened:
        stream = opened.streams.video[0]
        assert stream.codec_context.name == "h264" and float(stream.average_rate) == 12.5
        frames = torch.stack([torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in opened.decode(video=0)])
    assert frames.shape == (6, 64, 96, 3)
    luma = torch.tensor([0.299, 0.587, 0.114])
    error = (frames.float() / 255 @ luma - VIDEO[0].permute(0, 2, 3, 1) @ luma).abs().mean()
    assert error < 0.03


@pytest.mark.parametrize("form", ["gif", "webp"])
def test_an_animation_has_its_frames_and_its_time(form: str) -> None:
    steps = (torch.arange(6) / 5).view(6, 1, 1, 1).expand(6, 3, 8, 8)
    with Image.open(io.BytesIO(video_bytes(steps, form, fps=10))) as opened:
        assert opened.n_frames == 6
        opened.seek(5)
        assert opened.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
        assert opened.info["duration"] == 100


def test_a_wav_has_its_samples_and_its_rate() -> None:
    audio = torch.tensor([[0.0, 0.5, -1.0, 1.0], [0.0, 0.0, 0.25, 2.0]])
    with wave.open(io.BytesIO(wav_bytes(audio, 8000))) as opened:
        assert (opened.getnchannels(), opened.getframerate(), opened.getnframes()) == (2, 8000, 4)
        samples = torch.frombuffer(bytearray(opened.readframes(4)), dtype=torch.int16).view(4, 2)
    assert samples.tolist() == [[0, 0], [16384, 0], [-32767, 8192], [32767, 32767]]


VALUES = {
    "image": (PICTURES, ["x.png", "x_2.png"]),
    "video": (VIDEO, ["x.mp4" if media.writes_mp4() else "x.gif"]),
    "audio": (torch.zeros(2, 1, 100), ["x.wav", "x_2.wav"]),
    "text": ("a story", ["x.txt"]),
    "tensor": (torch.ones(2), ["x.safetensors"]),
    "tokens": (torch.ones(1, 3, dtype=torch.long), ["x.safetensors"]),
    "latent": (torch.ones(1, 4, 2, 2), ["x.safetensors"]),
    "embedding": (torch.ones(1, 5), ["x.safetensors"]),
    "number": (2.5, ["x.json"]),
    "dict": ({"a": 1, "mask": torch.ones(3)}, ["x.json", "x.safetensors"]),
    "list": ([PICTURES[0], "words"], ["x.json", "x.safetensors", "x.png"]),
    "any": (PICTURES, ["x.png", "x_2.png"]),
}


@pytest.mark.parametrize("kind", sorted(VALUES))
def test_every_kind_has_a_writer(kind: str, tmp_path: Path) -> None:
    value, names = VALUES[kind]
    assert [path.name for path in write_value(value, kind, tmp_path / "new", "x")] == names
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(names)
    if names == ["x.safetensors"]:
        (held,) = load_file(tmp_path / "new" / "x.safetensors").values()
        assert torch.equal(held, value)
    if names == ["x.json"]:
        assert json.loads((tmp_path / "new" / "x.json").read_text()) == value


def test_the_table_of_kinds_is_whole() -> None:
    source = Path(kinds.__file__).read_text(encoding="utf-8")
    assert set(re.findall(r'^    Kind\(\s*"(\w+)"', source, flags=re.MULTILINE)) == set(VALUES)


def test_without_the_encoder_a_video_is_a_gif(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "writes_mp4", lambda: False)
    assert [path.name for path in write_value(VIDEO, "video", tmp_path, "x")] == ["x.gif"]


def test_what_no_file_can_hold_is_named_and_nothing_is_written_for_none(tmp_path: Path) -> None:
    with pytest.raises(PortTypeError, match="x: object .* cannot be written to a file"):
        write_value(object(), "any", tmp_path, "x")
    assert write_value(None, "image", tmp_path / "none", "x") == []
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (PICTURES[0], "shown.png"),
        (VIDEO, "shown.mp4" if media.writes_mp4() else "shown.gif"),
        (torch.zeros(1, 50), "shown.wav"),
        ([PICTURES[0], PICTURES[1]], "shown.png"),
        (Image.new("RGB", (4, 4)), "shown.png"),
    ],
    ids=["picture", "video", "sound", "list", "pil"],
)
def test_show_gives_a_file_outside_of_a_notebook(value: object, name: str, tmp_path: Path) -> None:
    path = show(value, folder=tmp_path)
    assert path == tmp_path / name and path.is_file()


def test_what_shows_itself_stands_on_a_page_that_reads_on_a_phone_and_in_the_dark(tmp_path: Path) -> None:
    path = show(State(intent="hello"), folder=tmp_path, name="a&b")
    page = path.read_text(encoding="utf-8") if path else ""
    assert "width=device-width" in page and "color-scheme:light dark" in page and "<title>a&amp;b</title>" in page and "hello" in page


def test_show_says_what_it_cannot_show() -> None:
    with pytest.raises(PortTypeError, match=r"show: Tensor\[7\]"):
        show(torch.zeros(7))
    with pytest.raises(PortTypeError, match="show: str 'words'; expected pictures"):
        show("words")


def test_show_stands_below_the_cell_in_a_notebook(tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    code = "import torch, wgtorch\nwgtorch.show(torch.zeros(1, 3, 8, 8))\nwgtorch.show(wgtorch.State(intent='hello'))"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output["data"]["text/html"] for output in notebook.cells[0].outputs if "data" in output]
    assert shown[0].startswith('<img src="data:image/png;base64,') and "hello" in shown[1]
