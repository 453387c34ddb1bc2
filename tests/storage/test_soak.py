"""The soak of storages, small."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openai")  # its worlds ask a server

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes")]


def test_nothing_is_lost_unnamed_or_leaked():
    counts = {"kills": 3, "hostile": 80, "faults": 15, "tapes": 3, "threads": 2, "runs": 3}
    options = [text for name, count in counts.items() for text in (f"--{name}", str(count))]
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-m", "scripts.soak.storage", *options], cwd=root, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["secrets"]["used"] == 12
    assert found["kills"]["kills"] >= 3 and found["faults"]["faults"] >= 5 and found["threads"]["runs"] == 6, done.stderr
    wrong = {name: part[name] for part in found.values() for name in part if name in ("lost", "unnamed", "wrong", "large", "leaked")}
    assert set(wrong.values()) == {0}, f"{found}\n{done.stderr}"
