"""Folders of steps for people: each is there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from wgtorch.storage.step_folders import StepFolders
from wgtorch.world_runtime.state import State


@pytest.mark.parametrize("operation", range(3))
def test_a_removal_that_is_cut_off_leaves_no_half_of_a_folder(tmp_path, monkeypatch, operation):
    folders = StepFolders(tmp_path, ["a" * 32])
    folders.write("00001", 1, State(artifacts=[torch.rand(3, 8, 8)]))
    done = []

    def cut(name):
        def act(self, *args, **kwargs):
            if len(done) == operation:
                raise KeyboardInterrupt
            done.append(name)
            return real[name](self, *args, **kwargs)

        return act

    real = {name: getattr(Path, name) for name in ("rename", "unlink", "rmdir")}
    for name in real:
        monkeypatch.setattr(Path, name, cut(name))
    with pytest.raises(KeyboardInterrupt):
        folders.remove("00001")
    monkeypatch.undo()
    left = sorted(path.name for path in tmp_path.glob("0*"))
    assert left == ([] if operation else ["00001"])
    assert operation or sorted(path.name for path in (tmp_path / "00001").iterdir()) == ["artifacts_0.png", "state.json"]
    assert folders.write("00001", 1, State(artifacts=[torch.rand(3, 8, 8)])) == "00001"
