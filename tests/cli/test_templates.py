"""``wgtorch templates``."""

from __future__ import annotations

import pytest

from wgtorch.cli.main import main
from wgtorch.core.config.template import TemplateRegistry, register_template
from wgtorch.graph import Graph


def test_every_template_is_listed_with_summary_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["templates"]) == 0
    said = capsys.readouterr().out
    heads = [row.split(":")[0] for row in said.splitlines() if not row.startswith(" ")]
    assert heads == TemplateRegistry.names()
    assert "world/default: A simulated world that lives by itself" in said
    assert "    traveller = 'the traveller'\n" in said


def test_one_level_alone_and_a_parameter_without_a_default(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TemplateRegistry.names():  # what a module registers while the copy stands would be gone with it
        TemplateRegistry.get(name)
    monkeypatch.setattr(TemplateRegistry, "_entries", dict(TemplateRegistry._entries))

    @register_template("for_this_test", level="pipeline")
    def for_this_test(*, size: int, tint: str = "blue") -> Graph:
        """Tints."""
        raise NotImplementedError

    assert main(["templates", "--level", "pipeline"]) == 0
    said = capsys.readouterr().out
    assert "pipeline/for_this_test: Tints.\n    size\n    tint = 'blue'\n" in said
    assert all(row.startswith(("pipeline/", "    ")) for row in said.splitlines())
