#!/usr/bin/env python
"""Puts the weights of a training into the package, in half precision.

    python scripts/ship_default.py outputs/default_describer/<time>
    python scripts/ship_default.py outputs/default_painter/<time> --checkpoint best --out /tmp/weights

scripts/evaluate_default.py --painter or --describer measures a file before it takes the place of another.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from wgtorch.blocks.simulation.readers import TrainedActionReader
from wgtorch.core.block import Block
from wgtorch.core.checkpoint.atomic import write_file, write_folder
from wgtorch.core.checkpoint.load import stored_adapters
from wgtorch.core.checkpoint.manifest import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from wgtorch.core.checkpoint.refs import PACKAGED
from wgtorch.core.checkpoint.tensors import PACKED, packed, write_tensors
from wgtorch.core.config.resolve import read_config
from wgtorch.core.errors import CheckpointError, WgtorchError, suggest
from wgtorch.core.level import Level
from wgtorch.graph import Graph
from wgtorch.train.folders import read_training

SHIPPED: dict[str, tuple[str, str]] = {
    "default_painter": ("backbone", "scene_painter"),
    "default_describer": ("", "scene_describer"),
    "default_text": ("", "scene_text"),
    "default_upscaler": ("", "scene_upscaler"),
    "default_action_reader": ("", "action_reader"),
    "default_pixel_painter": ("backbone", "pixel_painter"),
    "default_pixel_reading": ("backbone", "pixel_painter"),
    "default_pixel_describer": ("", "pixel_describer"),
}
"""By experiment: the node of its graph that is shipped, or none where it trains a bare block; and the file's name."""
SHIPPED_ADAPTERS = {"default_narrator": "narrator_smollm2", "default_model_reader": "action_reader_smollm2"}
"""By experiment, the name of the folder of its adapter, as PEFT reads it."""

IN_8_BITS = ("scene_painter", "scene_describer", "action_reader")
"""Files whose matrices are stored in 8 bits."""


def ship(run: Path, folder: Path, *, checkpoint: str = "last") -> Path:
    """Writes the weights of a run of one of the experiments :data:`SHIPPED` into a folder, as ``<name>.safetensors``.

    Numbers are stored as float16, of some in 8 bits; an adapter becomes a folder as PEFT reads it. The metadata hold the block's type
    and config, the experiment, its steps, data and seed.

    Args:
        run: folder of the run, ``outputs/default_painter/<time>``.
        folder: where the file goes.
        checkpoint: ``last`` or ``best``; averaged weights where the run had such.

    Raises:
        CheckpointError: the folder holds no such run.
    """
    settings = _settings(run)
    if settings["name"] in SHIPPED_ADAPTERS:
        return _ship_adapter(run, folder / SHIPPED_ADAPTERS[settings["name"]], checkpoint, settings)
    node, name = SHIPPED[settings["name"]]
    path = run / "checkpoints" / checkpoint
    target: Block = Graph.load(path) if node else Block.load(path)
    block = target.find(node) if isinstance(target, Level) else target
    block = block.made_small() if isinstance(block, TrainedActionReader) else block
    state = block.state_dict()
    weights = packed(state) if name in IN_8_BITS else {key: value.half() for key, value in state.items()}
    metadata = {
        "format": "pt",
        **({PACKED: "int8"} if name in IN_8_BITS else {}),
        "block_type": block.block_type,
        "config": json.dumps({key: value for key, value in block.config.items() if key != "checkpoint_ref"}),
        **_made_by(settings, path),
    }
    return write_file(folder / f"{name}.safetensors", lambda part: write_tensors(part, weights, metadata))


def _ship_adapter(run: Path, folder: Path, checkpoint: str, settings: dict[str, Any]) -> Path:
    """Writes the adapter of a checkpoint as PEFT's two files, its numbers as float16."""
    path = run / "checkpoints" / checkpoint
    [(_, _, config, tensors)] = stored_adapters(path)
    rest = {"base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct", "inference_mode": True}

    def fill(fresh: Path) -> None:
        (fresh / ADAPTER_CONFIG).write_text(json.dumps({**config, **rest}, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        halves = {name: value.half() for name, value in tensors.items()}
        write_tensors(fresh / ADAPTER_WEIGHTS, halves, {"format": "pt", **_made_by(settings, path)})

    return write_folder(folder, fill)


def _made_by(settings: dict[str, Any], checkpoint: Path) -> dict[str, str]:
    return {
        "trained_by": f"scripts/train.py experiment={settings['name']}",
        "trained_on": f"{_words(settings['data'])}; {_steps(checkpoint)} steps; seed {settings['seed']}",
        "license": "Apache-2.0",
    }


def _settings(run: Path) -> dict[str, Any]:
    if not (run / "config.yaml").is_file():
        raise CheckpointError(f"{run}: no config.yaml, so this is no run; expected a folder such as outputs/default_painter/<time>")
    settings: dict[str, Any] = read_config(run / "config.yaml")
    known = (*SHIPPED, *SHIPPED_ADAPTERS)
    if settings.get("name") not in known:
        raise CheckpointError(
            f"{run}: a run of {settings.get('name')!r}; what ships is trained by others: {suggest(str(settings.get('name')), known)}"
        )
    return settings


def _words(data: dict[str, Any]) -> str:
    return f"data {data['type']} in batches of {data['batch_size']}"


def _steps(checkpoint: Path) -> int:
    """Steps that a checkpoint was trained for."""
    return int(read_training(checkpoint)["global_step"])


def arguments() -> argparse.ArgumentParser:
    """The program's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--checkpoint", default="last", choices=("last", "best"))
    parser.add_argument("--out", type=Path, default=PACKAGED, help="folder for the file")
    return parser


def main() -> None:
    args = arguments().parse_args()
    try:
        path = ship(args.run, args.out, checkpoint=args.checkpoint)
    except WgtorchError as error:
        sys.exit(f"ship_default: {error}")
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
