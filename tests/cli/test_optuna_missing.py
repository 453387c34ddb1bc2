"""hydra/sweeper=optuna without Optuna: what is said."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("hydra")

from hydra.errors import CompactHydraException

from wgtorch.cli.optuna_sweeper import _Search


def test_of_a_missing_optuna_the_message_alone_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    search = _Search(n_trials=1, direction="minimize", sampler="tpe", seed=None, storage=None)
    with pytest.raises(CompactHydraException, match=r"^train: 'optuna' is not installed; run: pip install 'wgtorch\[optuna\]'$"):
        search.sweep(["optimizer.lr=interval(1e-5,1e-3)"])
