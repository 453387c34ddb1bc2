"""The configs of conf/ as part of the package, so that ``wgtorch train`` works from a wheel; all else is in pyproject.toml."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithConfigs(build_py):
    """Copies conf/ to wgtorch/conf; in an editable installation the checkout's own are used."""

    def run(self) -> None:
        super().run()
        if not getattr(self, "editable_mode", False):
            into = Path(self.build_lib) / "wgtorch" / "conf"
            shutil.copytree(Path(__file__).parent / "conf", into, dirs_exist_ok=True, ignore=shutil.ignore_patterns("local"))


setup(cmdclass={"build_py": WithConfigs})
