"""A sweeper over Optuna's own API: ``-m hydra/sweeper=optuna optimizer.lr='interval(1e-5,1e-3)' +optimized_metric=val/loss``.

Its trials lie in a journal in the sweep's folder, so that a sweep that is started again with that folder goes on where it stood.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from wgtorch.core.errors import ConfigError, WgtorchError, require

MODULE = "hydra_plugins.wgtorch_optuna"
"""The name under which Hydra takes the class for a plugin."""
JOURNAL = "optuna.journal"
DEFAULTS = {"_target_": f"{MODULE}.OptunaSweeper", "n_trials": 20, "direction": "minimize", "sampler": "tpe", "seed": 0, "storage": None}


def register() -> None:
    """Makes ``hydra/sweeper=optuna`` known to Hydra."""
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins
    from hydra.plugins.sweeper import Sweeper

    class OptunaSweeper(_Search, Sweeper):
        """A sweeper whose trials are jobs of Hydra's launcher, one after another."""

    # Hydra takes plugins from packages of this name alone, and looks the class up there.
    OptunaSweeper.__module__, OptunaSweeper.__qualname__ = MODULE, "OptunaSweeper"
    package, _, name = MODULE.partition(".")
    above = sys.modules.get(package) or ModuleType(package)
    above.__dict__.setdefault("__path__", [])
    module = ModuleType(MODULE)
    module.__dict__["OptunaSweeper"] = OptunaSweeper
    setattr(above, name, module)
    sys.modules.update({package: above, MODULE: module})
    Plugins.instance().register(OptunaSweeper)
    ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=DEFAULTS, provider="wgtorch")


class _Search:
    """What of it is Optuna's.

    Args:
        n_trials: how many trials there are in all, those of an earlier start with this folder included.
        direction: ``minimize`` or ``maximize``.
        sampler: ``tpe``, ``random`` or ``cmaes``.
        seed: of the sampler.
        storage: a URL of Optuna's, for several machines; None for a journal in the sweep's folder.
    """

    def __init__(self, *, n_trials: int, direction: str, sampler: str, seed: int | None, storage: str | None) -> None:
        if direction not in ("minimize", "maximize") or sampler not in ("tpe", "random", "cmaes") or n_trials < 1:
            raise ConfigError(
                f"hydra.sweeper: found n_trials {n_trials}, direction {direction!r}, sampler {sampler!r}; expected at least 1, minimize or "
                "maximize, and tpe, random or cmaes"
            )
        self.n_trials, self.direction, self.sampler, self.seed, self.storage = n_trials, direction, sampler, seed, storage

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        """Told by Hydra before :meth:`sweep`."""
        from hydra.core.plugins import Plugins

        self.config = config
        self._jobs = Plugins.instance().instantiate_launcher(config=config, hydra_context=hydra_context, task_function=task_function)

    def sweep(self, arguments: list[str]) -> dict[str, Any]:
        """Runs trials until there are as many as wanted; gives the best. Of a mistake Hydra shows the message alone.

        Raises:
            CompactHydraException: Optuna is missing, no override says between what to search, or a job gives no number.
        """
        from hydra.errors import CompactHydraException

        try:
            return self._searched(arguments)
        except WgtorchError as error:
            raise CompactHydraException(f"train: {error}") from error

    def _searched(self, arguments: list[str]) -> dict[str, Any]:
        optuna: Any = require("optuna", "optuna")
        from hydra.core.override_parser.overrides_parser import OverridesParser

        parsed = OverridesParser.create().parse_overrides(arguments)
        fixed = [str(override.input_line) for override in parsed if not override.is_sweep_override()]
        space = {override.get_key_element(): distribution_of(override, optuna) for override in parsed if override.is_sweep_override()}
        if not space:
            raise ConfigError("hydra/sweeper=optuna: nothing to search; give overrides such as optimizer.lr='interval(1e-5,1e-3)'")
        folder = Path(str(self.config.hydra.sweep.dir))
        folder.mkdir(parents=True, exist_ok=True)
        study = optuna.create_study(
            study_name="sweep",
            direction=self.direction,
            storage=self._storage(optuna, folder),
            sampler=self._sampler(optuna),
            load_if_exists=True,
        )
        for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):  # of a start that was killed
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            study.enqueue_trial(trial.params)
        done = [trial for trial in study.get_trials(deepcopy=False) if trial.state == optuna.trial.TrialState.COMPLETE]
        for _ in range(self.n_trials - len(done)):
            trial = study.ask(space)
            overrides = [*fixed, *(f"{name}={value}" for name, value in trial.params.items())]
            (result,) = self._jobs.launch([overrides], initial_job_idx=trial.number)
            value = result.return_value
            if not isinstance(value, (int, float)):
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                raise ConfigError(f"hydra/sweeper=optuna: a job gave {value!r}; name what to optimize with +optimized_metric=val/loss")
            if math.isfinite(value):
                study.tell(trial, float(value))
            else:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return self._told(study, folder)

    def _told(self, study: Any, folder: Path) -> dict[str, Any]:
        """Writes the best trial, and prints it."""
        from omegaconf import OmegaConf

        try:
            best = study.best_trial
        except ValueError:  # all failed
            return {}
        found = {"best_value": float(best.value), "best_params": dict(best.params), "best_job": best.number}
        (folder / "optimization_results.yaml").write_text(OmegaConf.to_yaml(found), encoding="utf-8")
        print(f"Best of {len(study.trials)} trials: {best.value:.6g} with {best.params} (job {best.number})")
        return found

    def _storage(self, optuna: Any, folder: Path) -> Any:
        if self.storage is not None:
            return self.storage
        return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL)))

    def _sampler(self, optuna: Any) -> Any:
        kinds = {"tpe": "TPESampler", "random": "RandomSampler", "cmaes": "CmaEsSampler"}
        return getattr(optuna.samplers, kinds[self.sampler])(seed=self.seed)


def distribution_of(override: Any, optuna: Any) -> Any:
    """What Optuna draws an override from: ``interval(a,b)``, ``range(a,b,step)``, ``choice(...)`` or values; ``tag(log, ...)`` for logs.

    Raises:
        ConfigError: it is none of these.
    """
    from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep

    value = override.value()
    tags: Sequence[str] = sorted(getattr(value, "tags", ()))
    if isinstance(value, IntervalSweep):
        whole = isinstance(value.start, int) and isinstance(value.end, int)
        kind = optuna.distributions.IntDistribution if whole else optuna.distributions.FloatDistribution
        return kind(value.start, value.end, log="log" in tags)
    if isinstance(value, RangeSweep):
        return optuna.distributions.CategoricalDistribution(list(value.range()))
    if isinstance(value, ChoiceSweep):
        return optuna.distributions.CategoricalDistribution(list(override.sweep_iterator()))
    raise ConfigError(f"hydra/sweeper=optuna: {override.input_line!r} is no interval, range or choice")
