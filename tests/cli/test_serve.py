"""``wgtorch serve``: who may call. What it serves is tested with the server itself."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from wgtorch.cli.main import main
from wgtorch.cli.serve import KEY, api_key
from wgtorch.cli.target import CommandError, name_of


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)
    assert api_key(None, "127.0.0.1", is_open=False) is None
    monkeypatch.setenv(KEY, "s3cret")
    assert api_key(None, "0.0.0.0", is_open=False) == "s3cret"
    assert api_key(None, "0.0.0.0", is_open=True) is None
    monkeypatch.setenv("OTHER", "0ther")
    assert api_key("OTHER", "127.0.0.1", is_open=False) == "0ther"
    with pytest.raises(CommandError, match="--api-key-env: the variable MISSING is not set"):
        api_key("MISSING", "127.0.0.1", is_open=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org"])
def test_a_server_that_others_can_call_needs_a_key(host: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv(KEY, raising=False)
    with pytest.raises(CommandError, match="other machines could call this server"):
        api_key(None, host, is_open=False)
    assert main(["serve", "default", "--host", host]) == 2
    assert f"set {KEY} to a key, or add --open" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_a_server_for_this_machine_needs_none(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)
    assert api_key(None, host, is_open=False) is None


def test_a_model_is_called_as_its_template_folder_or_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "blue.v2").mkdir()
    (tmp_path / "mine.yaml").write_text("")
    monkeypatch.chdir(tmp_path / "blue.v2")
    names = [name_of(target) for target in ("default", "graph/text_to_image", str(tmp_path / "blue.v2"), ".", "../mine.yaml")]
    assert names == ["default", "text_to_image", "blue.v2", "blue.v2", "mine"]
