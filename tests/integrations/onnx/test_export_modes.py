"""An export leaves the modes of what it writes as they were, where it fails too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from wgtorch.blocks.pixel_scenes.describer import PixelSceneDescriber
from wgtorch.integrations.onnx import export


@pytest.mark.parametrize("fails", [False, True], ids=["written", "failed"])
@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_every_module_has_its_own_mode_after(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: bool, fails: bool) -> None:
    describer = PixelSceneDescriber().train(mode)
    next(describer.children()).train(not mode)
    before = [module.training for module in describer.modules()]
    seen: list[bool] = []

    def written(module: torch.nn.Module, *args: Any, **options: Any) -> None:
        seen.extend(each.training for each in module.modules())
        if fails:
            raise OSError("No space left on device")

    monkeypatch.setattr(export, "require", lambda *names: None)
    monkeypatch.setattr(torch.onnx, "export", written)
    try:
        export.export_describer(describer, tmp_path)
    except OSError:
        assert fails
    assert len(seen) > 5 and not any(seen)
    assert [module.training for module in describer.modules()] == before
