"""Settings of every experiment that nobody reads, or that are of a wrong kind: each is refused by name before the first step."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning")
pytest.importorskip("peft")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import lightning.pytorch as pl
from PIL import Image

from tests.integrations.diffusers import tiny
from tests.integrations.transformers.tiny import language_model
from tests.train.test_conf import COMMANDS, CONF, composed
from tests.train.toys import Linear, Numbers, chain, run_settings
from wgtorch.cli.train import TARGETS, experiments, run
from wgtorch.core.errors import WgtorchError
from wgtorch.train.fitting import fit

pytestmark = pytest.mark.filterwarnings("ignore")
HEADS = {name: command for name, command in reversed(COMMANDS) if name.startswith("experiment/")}
SPREAD = {"tiny_denoising": 1, "lora": 16, "light_style": 16}
"""Experiments of the fast lane, and of how many trials one is made there."""
NOT_ASKED = ("type", "kind", "_target_", "template", "level", "block_type", "strategy")
WRONG: dict[type, list[Any]] = {
    bool: ["maybe!", {"no": 1}],
    int: ["some!", {"no": 1}, [1, "x"], math.nan, -7],
    float: ["some!", {"no": 1}, [1, "x"], math.nan, math.inf, -7.0],
    str: [{"no": 1}, [1, {"x": 2}]],
    list: [{"no": {"x": 1}}, 7.5],
    dict: [7.5, [[1]]],
    type(None): [{"no": {"x": 1}}],
}


SIGNED = ("seed", "mean", "entropy_weight", "shift")
"""Settings that may be negative."""


class Trained(BaseException):
    """The first step was about to come."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with a model, pictures and what stands beside them."""
    path = tmp_path_factory.mktemp("work")
    tiny.stable_diffusion(path / "words").save_pretrained(path / "my_model")
    language_model(path / "llm")
    for name in ("my_pictures", "my_edges", "my_class", "my_others"):
        (path / name).mkdir()
        for index in range(4):
            Image.new("RGB", (64, 64), (60 * index, 0, 0)).save(path / name / f"{index}.png")
            (path / name / f"{index}.txt").write_text("a castle")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(path)
        patched.setenv("WGTORCH_SERVED", "served")
        patched.setenv("WGTORCH_LLM", str(path / "llm"))
        yield path


def refused(config: Mapping[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a training says of its settings; empty where its first step would have come."""

    def first_step(*args: Any, **options: Any) -> None:
        raise Trained

    monkeypatch.setattr(pl.Trainer, "fit", first_step)
    try:
        run(copy.deepcopy(dict(config)), folder / "run", CONF)
    except Trained:
        return ""
    except WgtorchError as error:
        return str(error)
    raise AssertionError("neither trained nor refused")


def test_what_an_adapter_or_endless_data_looks_at_first_is_refused_alike(tmp_path: Path) -> None:
    class Endless(Numbers):
        fresh = True

    with pytest.raises(WgtorchError, match="objective: found"):
        fit(chain(Linear()), run_settings(objective=7.5, lora={"rank": 2}), tmp_path)
    with pytest.raises(WgtorchError, match=r"cache.*latents"):
        fit(chain(Linear()), run_settings(data=Endless(), cache={"latents": "maybe!"}), tmp_path)


def trials(config: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """(where, key, value) of settings that are wrong."""
    groups = [key for key, value in config.items() if isinstance(value, Mapping)]
    inner = [(group, key) for group in groups for key, value in config[group].items() if isinstance(value, Mapping) and value]
    for path in [(group,) for group in groups] + [each for each in inner if each[0] not in TARGETS]:
        settings = config
        for key in path:
            settings = settings[key]
        if path not in (("data", "values"), ("optimizer", "nodes"), ("objective", "inputs"), ("graph", "params")):
            yield path, "no_such_setting", 1
        for key, value in settings.items():
            if key not in NOT_ASKED and path[0] not in TARGETS and path != ("data", "values"):
                yield from ((path, key, wrong) for wrong in WRONG[type(value)] if not (key in SIGNED and wrong == -7))
    for key, value in config.items():
        if key not in (*TARGETS, "hydra", "name"):
            yield from (((), key, wrong) for wrong in WRONG[type(value)] if (key, wrong) != ("cache", "no such thing"))


def with_setting(config: Mapping[str, Any], path: tuple[str, ...], key: str, value: Any) -> dict[str, Any]:
    changed: dict[str, Any] = copy.deepcopy(dict(config))
    place = changed
    for each in path:
        place = place[each]
    place[key] = value
    return changed


@pytest.mark.parametrize(
    ("name", "stride"),
    [*SPREAD.items()] + [pytest.param(name, 1, marks=pytest.mark.slow) for name in sorted(experiments()) if SPREAD.get(name) != 1],
)
def test_each_wrong_setting_is_refused_by_name(name: str, stride: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = composed(HEADS.get(f"experiment/{name}.yaml", f"python scripts/train.py experiment={name}"))
    assert refused(config, folder, monkeypatch) == "", "what ships trains"
    tried = list(trials(config))
    assert len(tried) > 60
    wrong = []
    for path, key, value in tried[::stride]:
        where = ".".join((*path, key))
        try:
            said = refused(with_setting(config, path, key, value), folder, monkeypatch)
        except Exception as error:  # a raw one is what is looked for
            wrong.append(f"{where}={value!r}: {type(error).__name__}: {error}")
            continue
        if not said:
            wrong.append(f"{where}={value!r}: is trained with")
        elif key not in said:
            wrong.append(f"{where}={value!r}: is not named: {said}")
    assert not wrong, "\n".join(wrong)
