"""The half of a pool that moves models between a device and the host, on a simulated accelerator."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("on_simulated_accelerator.py")
NAMES = re.findall(r"^@check\n(?:@.*\n)?def (\w+)", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.fixture(scope="module")
def printed() -> str:
    if importlib.util.find_spec("torch_openreg") is None:
        pytest.skip("torch_openreg, the simulated accelerator of PyTorch's own tests, is not installed")
    environment = {**os.environ, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False, env=environment)
    assert not done.returncode, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_on_a_simulated_accelerator(name: str, printed: str) -> None:
    assert f"HOLDS {name}" in printed, printed


def test_each_check_has_a_name_here() -> None:
    assert len(NAMES) == SCRIPT.read_text(encoding="utf-8").count("\n@check\n") > 8
