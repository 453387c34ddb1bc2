"""Pipelines of diffusers beside their graphs, on diffusers' own dummies: prints class x scheduler x the dummy's call.

python scripts/parity.py ~/diffusers/tests                     the test tree of a checkout of diffusers
python scripts/parity.py ~/diffusers/tests --only Flux Wan     classes whose names hold one of these
python scripts/parity.py ~/diffusers/tests --schedulers none   with the dummy's own scheduler alone

Each pipeline is built as its test builds it; what a test would take from the hub (tokenizers, tiny text encoders) is made here. A row
is the greatest difference of the two pictures, or why there is none. One above the tolerance is measured again with both in float64: what
is small there was rounding. Ends not with 0 when a difference that is none of rounding is above the tolerance.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from wgtorch import Graph
from wgtorch.integrations.diffusers.families import FAMILIES

TOLERANCE = 1e-4
DIFFUSION = (
    "DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "LMSDiscreteScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler", "LCMScheduler", "TCDScheduler",
)  # fmt: skip
FLOWS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
NOT_OURS = ("generator", "output_type", "return_dict", "callback_on_step_end", "callback_on_step_end_tensor_inputs")
_SIZES = {"vocab_size": 200, "d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4}
CHAT = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def main() -> int:
    """Prints the table; 1 when a row differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", type=Path, help="the folder tests of a checkout of diffusers")
    parser.add_argument("--only", nargs="*", default=[], help="parts of class names")
    parser.add_argument("--schedulers", default="all", choices=["all", "none"])
    chosen = parser.parse_args()
    sys.path.insert(0, str(chosen.tests.expanduser().resolve().parent))
    warnings.simplefilter("ignore")
    wrong = 0
    with tempfile.TemporaryDirectory() as room:
        named = mock.patch("transformers.PreTrainedTokenizerBase.from_pretrained", _tokenizers(Path(room)))
        with named, mock.patch("transformers.PreTrainedModel.from_pretrained", classmethod(_tiny_model)):
            for family in FAMILIES:
                for name in family.pipelines:
                    if not chosen.only or any(part in name for part in chosen.only):
                        wrong += sum(
                            _row(*row) for row in rows(chosen.tests.expanduser(), name, family.pipelines[name][0], chosen.schedulers)
                        )
    return int(wrong > 0)


def rows(tests: Path, name: str, task: str, schedulers: str) -> Iterator[tuple[str, str, str]]:
    """(class, scheduler, what came of it)."""
    found = dummy_of(tests, name)
    if isinstance(found, str):
        yield name, "", found
        return
    try:
        own = found.get_dummy_components()["scheduler"]
    except Exception as error:
        yield name, "", f"no local dummy: {type(error).__name__}: {error}"[:150]
        return
    kinds = [type(own).__name__]
    if schedulers == "all":
        kinds += [kind for kind in (FLOWS if kinds[0].startswith("Flow") else DIFFUSION) if kind not in kinds]
    for kind in kinds:
        other = None if kind == kinds[0] else kind
        result = compared(found, name, task, other)
        if _number(result) > TOLERANCE:
            torch.set_default_dtype(torch.float64)
            exact = compared(found, name, task, other)
            torch.set_default_dtype(torch.float32)
            result = f"{result}, in float64 {exact}"
        yield name, kind, result


def dummy_of(tests: Path, name: str) -> Any:
    """An object of the test class that makes a pipeline's dummies, or why there is none."""
    for file in sorted((tests / "pipelines").rglob("test_*.py")):
        if not re.search(rf"pipeline_class = {name}\b", file.read_text(encoding="utf-8")):
            continue
        module_name = ".".join(("tests", *file.relative_to(tests).with_suffix("").parts))
        try:
            module = _imported(module_name)
        except Exception as error:
            return f"its test cannot be imported: {type(error).__name__}: {error}"[:150]
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if getattr(getattr(kind, "pipeline_class", None), "__name__", "") == name and hasattr(kind, "get_dummy_components"):
                return object.__new__(kind)
    return "no dummy in the test tree"


def _imported(name: str) -> Any:
    """A test module; what only tests need, and is not installed, is stood in for, since they are not run."""
    for _ in range(8):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            missing = str(error.name)
            if missing.startswith(("tests", "diffusers", "transformers")):
                raise
            sys.modules[missing] = mock.MagicMock()
    return importlib.import_module(name)


def compared(dummy: Any, name: str, task: str, scheduler: str | None) -> str:
    """The greatest difference of a pipeline and its graph, or why there is none."""
    import diffusers

    try:
        parts = dummy.get_dummy_components()
        if scheduler is not None:
            parts["scheduler"] = getattr(diffusers, scheduler).from_config(parts["scheduler"].config)
        for part in parts.values():
            if isinstance(part, torch.nn.Module):
                part.eval().to(torch.get_default_dtype())
                if getattr(part.config, "force_upcast", False) and torch.get_default_dtype() == torch.float64:
                    part.register_to_config(force_upcast=False)  # which would be a cast down
        pipeline = getattr(diffusers, name)(**parts)
        pipeline.set_progress_bar_config(disable=True)
        wants_device = "device" in inspect.signature(dummy.get_dummy_inputs).parameters
        call = {key: value for key, value in dummy.get_dummy_inputs(*(["cpu"] if wants_device else [])).items() if key not in NOT_OURS}
    except Exception as error:
        return f"no local dummy: {type(error).__name__}: {error}"[:150]
    try:
        torch.manual_seed(0)
        theirs = pipeline(output_type="np", **{key: list(value) if isinstance(value, list) else value for key, value in call.items()})
    except Exception as error:
        return f"diffusers itself: {type(error).__name__}: {error}"[:150]
    expected = torch.from_numpy(theirs.frames if hasattr(theirs, "frames") else theirs.images).movedim(-1, -3)
    try:
        graph = Graph.from_diffusers(pipeline, task=task)
        torch.manual_seed(0)
        (found,) = graph.run({key: _picture(value) for key, value in call.items()}).values()
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:150]
    if found.shape != expected.shape:
        return f"shape {list(found.shape)}, expected {list(expected.shape)}"
    return f"{(found - expected).abs().max():.1e}"


def _row(name: str, scheduler: str, result: str) -> bool:
    """Prints a row; True when the two differ."""
    differs = _number(result.split("in float64 ")[-1]) > TOLERANCE or result.startswith("shape")
    print(f"{name:38} {scheduler:34} {result}{'   <-' if differs else ''}", flush=True)
    return differs


def _number(result: str) -> float:
    """The difference that a row tells; 0 where it tells none."""
    return float(result) if re.fullmatch(r"\d\.\de[+-]\d+", result) else 0.0


def _picture(value: Any) -> Any:
    """PIL's pictures as tensors in [0, 1]; theirs are in [-1, 1] where they come as tensors of such."""
    if hasattr(value, "getbands"):
        data = torch.frombuffer(bytearray(value.tobytes()), dtype=torch.uint8).view(value.height, value.width, -1)
        return (data.permute(2, 0, 1).float() / 255)[None]
    if isinstance(value, Tensor) and value.dim() == 4 and value.is_floating_point() and bool(value.min() < 0):
        return (value + 1) / 2
    return value


def _tokenizers(room: Path) -> Any:
    """``from_pretrained`` of tokenizers, without the hub: they know single characters."""

    def made(cls: Any, *ignored: Any, **options: Any) -> Any:
        import transformers

        letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
        if cls.__name__.startswith("CLIP"):
            names = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
            (room / "vocab.json").write_text(json.dumps({name: index for index, name in enumerate(names)}))
            (room / "merges.txt").write_text("#version: 0.2\n")
            return transformers.CLIPTokenizer(vocab=str(room / "vocab.json"), merges=str(room / "merges.txt"), model_max_length=77)
        if cls.__name__.startswith("T5") or (cls.__name__ == "AutoTokenizer" and "t5" in str(ignored).lower()):
            pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁", -2.0), *((letter, -2.5) for letter in letters)]
            return transformers.T5TokenizerFast(vocab=pieces, extra_ids=0)
        tokenizers: Any = importlib.import_module("tokenizers")
        known = ["<pad>", "<unk>", "<bos>", *(chr(code) for code in range(32, 127)), "\n"]
        model = tokenizers.Tokenizer(tokenizers.models.WordLevel({name: index for index, name in enumerate(known)}, unk_token="<unk>"))
        model.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=model, pad_token="<pad>", unk_token="<unk>", bos_token="<bos>")
        tokenizer.chat_template = CHAT
        return tokenizer

    import transformers

    transformers.AutoTokenizer.from_pretrained = classmethod(made)  # type: ignore[method-assign]
    transformers.AutoConfig.from_pretrained = classmethod(_tiny_config)  # type: ignore[method-assign]
    return classmethod(made)


def _tiny_config(cls: Any, name: str, *ignored: Any, **options: Any) -> Any:
    """A config of T5, without the hub."""
    import transformers

    if "t5" not in name.lower():
        raise OSError(f"{name} comes from the hub")
    return (transformers.UMT5Config if "umt5" in name.lower() else transformers.T5Config)(**_SIZES)


def _tiny_model(cls: Any, *ignored: Any, **options: Any) -> Any:
    """``from_pretrained`` of text encoders, without the hub."""
    if not cls.__name__.startswith(("T5", "UMT5")):
        raise OSError(f"{cls.__name__} comes from the hub")
    torch.manual_seed(0)
    return cls(cls.config_class(**_SIZES))


if __name__ == "__main__":
    sys.exit(main())
