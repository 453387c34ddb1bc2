"""Lets a world live, from the configs in conf/: a Hydra program, for overrides and sweeps.

    python scripts/run_world.py world.params.traveller=Anna run.steps=3
    python scripts/run_world.py experiment=sea_voyage
    python scripts/run_world.py -m run.seed=1,2,3

Each run has a folder beneath outputs/run_world with its pictures, its states, and config.yaml: the config it ran with.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from wgtorch import World
from wgtorch.cli.run import actions_of, say_where
from wgtorch.cli.target import level_from
from wgtorch.cli.world_session import live
from wgtorch.core.errors import ConfigError, WgtorchError, require


def run_world(config: DictConfig) -> None:
    """One run, in the folder that Hydra made for it.

    Raises:
        ConfigError: ``world`` describes something else than a world.
    """
    from hydra.core.hydra_config import HydraConfig

    folder = Path(HydraConfig.get().runtime.output_dir)
    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(settings), encoding="utf-8")

    world = level_from(settings["world"], base=Path(__file__).parents[1] / "conf" / "world", where="world")
    if not isinstance(world, World):
        raise ConfigError(f"world: describes a {world.level}; expected a world")
    storage = settings["storage"]
    if "state_dir" in storage:
        storage["state_dir"] = str(folder / storage["state_dir"])  # an absolute one stays as it is
    world.set_storage(storage)
    run = settings["run"]
    overview = live(world, folder, steps=run["steps"], actions=actions_of(run["action"], run["steps"]), seed=run["seed"])
    say_where(folder, overview, world.life.seed)


def task(config: DictConfig) -> None:
    """:func:`run_world`; a user's mistake ends the program with a message instead of a traceback."""
    try:
        run_world(config)
    except WgtorchError as error:
        sys.exit(f"run_world: {error}")


if __name__ == "__main__":
    hydra: Any = require("hydra", "hydra")
    hydra.main(version_base=None, config_path="../conf", config_name="run_world")(task)()
