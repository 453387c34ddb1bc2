"""Paused: a run that has stopped, to be looked at, changed, saved, and gone on with."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from wgtorch.core.checkpoint.atomic import write_file
from wgtorch.core.encoding import check_tensor, decode, encode, laid_out, layout_of
from wgtorch.core.errors import PortError, PortTypeError, StorageError, UnknownNameError, suggest
from wgtorch.core.json_text import read_json
from wgtorch.core.kinds import describe
from wgtorch.core.run.node_cache_folder import digest_of_entry
from wgtorch.core.run.pause import Frame, PauseRequest, Stopped

FORMAT_VERSION = "1.0"


class Paused:
    """A run that has stopped before or after a node, as ``level.run_until`` returns it; ``level.resume(paused)`` goes on.

    Example:
        >>> paused = graph.run_until({"prompt": "the sea"}, before="solver", iteration=3, seed=7)
        >>> latent = paused.values["solver.latent"]
        >>> graph.resume(paused, {"solver.latent": latent.flip(-1)})["image"]
        >>> paused.save("third.paused")                      # and in another process
        >>> graph.resume(Paused.load("third.paused"))

    Attributes:
        node: path of the node it stopped at.
        is_before: it stopped before the node; else after it.
        iterations: of the loops around the node, the outermost first.
        root: id of the level that ran.
    """

    def __init__(
        self,
        root: str,
        node: str,
        is_before: bool,
        iterations: tuple[int, ...],
        key: Any,
        options: Mapping[str, Any],
        arguments: Mapping[str, Any],
        taken: Mapping[str, Any],
        frames: list[Frame],
    ) -> None:
        self.root, self.node, self.is_before, self.iterations = root, node, is_before, iterations
        self.key, self.options, self.arguments, self.taken = key, dict(options), dict(arguments), dict(taken)
        self.frames = frames

    @classmethod
    def of(cls, stop: Stopped, request: PauseRequest, options: Mapping[str, Any]) -> Paused:
        """What a run holds that has stopped."""
        run = request.run
        taken = {f"{'/'.join(path)}.{port}": value for (path, port), value in (run.options.taken or {}).items()}
        iterations = tuple([frame.iteration for frame in reversed(stop.frames) if frame.iteration is not None])
        return cls(
            request.root.block_id,
            "/".join(request.target),
            request.is_before,
            iterations,
            run.key,
            options,
            request.arguments,
            taken,
            stop.frames,
        )

    @property
    def values(self) -> Mapping[str, Any]:
        """Values by path: exposed inputs, outputs of nodes as ``node.port``, and inputs of the node that it stopped before.

        Most that nobody reads any more are gone, and none of them can be replaced. Tensors are the run's own: change a copy, and give that
        to ``resume``.
        """
        return {name: frame.slots[slot] for name, (frame, slot, _) in self._places().items()}

    def changed(self, values: Mapping[str, Any], root: Any) -> tuple[list[Frame], dict[str, Any]]:
        """Frames in which values are replaced, and inputs of the node that it stopped before.

        Raises:
            UnknownNameError: a path names nothing that it holds.
            PortError: a value is of the wrong kind, or nothing reads it any more.
        """
        if not isinstance(values, Mapping):
            raise PortTypeError(f"{self.root}: values is {describe(values)}; expected a mapping by the paths of paused.values")
        places = self._places()
        frames = {id(frame): replace(frame, slots=dict(frame.slots)) for frame in self.frames}
        inputs: dict[str, Any] = {}
        for name, value in values.items():
            if name not in places:
                raise UnknownNameError(f"{self.root}: the paused run holds no {name!r}; {suggest(name, list(places))}")
            frame, slot, is_input = places[name]
            if value is not frame.slots[slot] and not frame.is_read(slot):
                used = ", ".join([repr(other) for other, (held, at, _) in places.items() if held.is_read(at)])
                raise PortError(
                    f"{self.root}: nothing reads {name!r} any more where the run stopped; what is left reads {used or 'nothing'}"
                )
            value = _port_of(root, name, is_input).check(value, f"{self.root}/{name}")
            if is_input and self.is_before and name.rpartition(".")[0] == self.node:
                inputs[name.rpartition(".")[2]] = value
            else:
                frames[id(frame)].slots[slot] = value
        return [frames[id(frame)] for frame in self.frames], inputs

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes it to one file, whole or not at all: tensors as safetensors, the rest as JSON.

        Raises:
            StorageError: a value cannot be stored; names it.
        """
        from safetensors.torch import save_file

        tensors: dict[str, Tensor] = {}
        laid: dict[str, dict[str, Any]] = {}

        def keep(tensor: Tensor, where: str) -> Tensor:
            if tensor.requires_grad:
                raise StorageError(f"{where}: a tensor that gradients go through cannot be saved; stop a run without training=True")
            check_tensor(tensor, where)
            key = where
            while key in tensors:
                key += "'"
            laid[key] = layout_of(tensor)
            return tensor.detach().to("cpu", copy=True).contiguous()

        def plain(value: Any, where: str) -> Any:
            return encode(value, where, tensors, keep=keep)

        entry = {
            "format_version": FORMAT_VERSION,
            "root": self.root,
            "node": self.node,
            "is_before": self.is_before,
            "iterations": list(self.iterations),
            "key": list(self.key) if isinstance(self.key, tuple) else self.key,
            "options": plain(self.options, "options"),
            "arguments": plain(self.arguments, "arguments"),
            "taken": plain(self.taken, "taken"),
            "frames": [_frame_as_plain(frame, plain) for frame in self.frames],
        }
        text = json.dumps({**entry, "laid": laid})
        about = {"paused": text, "digest": digest_of_entry(text, tensors)}
        return write_file(path, lambda file: save_file(tensors, file, about))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Paused:
        """Reads what :meth:`save` wrote; tensors go where they were, as far as that device is there.

        Raises:
            StorageError: the file is no paused run, or damaged.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            entry = read_json(about["paused"].encode(), str(path), StorageError)
            if "digest" in about and about["digest"] != digest_of_entry(about["paused"], stored):
                raise StorageError(f"{path}: damaged: its content is not what was written")
            tensors = {name: laid_out(tensor, entry["laid"].get(name)) for name, tensor in stored.items()}
            if entry["format_version"] != FORMAT_VERSION:
                raise StorageError(f"{path}: format_version {entry['format_version']!r}; this version reads {FORMAT_VERSION!r}")
            key = tuple(entry["key"]) if isinstance(entry["key"], list) else entry["key"]
            values = {name: decode(entry[name], tensors) for name in ("options", "arguments", "taken")}
            frames = [_frame_of_plain(frame, tensors) for frame in entry["frames"]]
            return cls(entry["root"], entry["node"], entry["is_before"], tuple(entry["iterations"]), key, **values, frames=frames)
        except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
            if isinstance(error, StorageError):
                raise
            raise StorageError(f"{path}: no paused run, or damaged: {error}") from error

    def __repr__(self) -> str:
        at = f" in iteration {', '.join(map(str, self.iterations))}" if self.iterations else ""
        return f"Paused run of {self.root} {'before' if self.is_before else 'after'} {self.node}{at}"

    def _places(self) -> dict[str, tuple[Frame, int, bool]]:
        """By path, where a value is: the frame, the slot, and whether it is an input."""
        found: dict[str, tuple[Frame, int, bool]] = {}
        for frame in reversed(self.frames):
            above = "/".join(frame.path)
            for name, slot in frame.names.items():
                is_input = "." not in name
                path = (f"{above}.{name}" if above else name) if is_input else f"{above}/{name}".lstrip("/")
                if slot in frame.slots:
                    found[path] = (frame, slot, is_input)
            for name, slot in frame.ports.items():
                if slot in frame.slots:
                    found[f"{above}/{name}".lstrip("/")] = (frame, slot, True)
        return found


def _port_of(root: Any, name: str, is_input: bool) -> Any:
    path, _, port = name.rpartition(".")
    child = root.find(path) if path else root
    spec = child.get_input_spec() if is_input else child.get_output_spec()
    return spec[port]


def _frame_as_plain(frame: Frame, plain: Any) -> dict[str, Any]:
    labels = {slot: name for name, slot in (*frame.names.items(), *frame.ports.items())}
    # What a node made before a loop is made again of what it was given.
    made = frozenset(frame.made)
    slots = {
        str(slot): plain(value, "/".join((*frame.path, labels.get(slot, f"slot {slot}"))))
        for slot, value in frame.slots.items()
        if slot not in made
    }
    return {
        **{entry.name: getattr(frame, entry.name) for entry in fields(frame)},
        "slots": slots,
        "hoisted": {str(step): plain(values, f"hoisted {step}") for step, values in frame.hoisted.items()},
        "read": None if frame.read is None else sorted(frame.read),
        "results": None if frame.results is None else plain(frame.results, "/".join((*frame.path, "results"))),
    }


def _frame_of_plain(plain: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Frame:
    held = {name: {int(key): decode(value, tensors) for key, value in plain[name].items()} for name in ("slots", "hoisted")}
    slots = {name: {str(key): int(slot) for key, slot in plain[name].items()} for name in ("names", "ports")}
    read, results = plain["read"], decode(plain["results"], tensors)
    sets: dict[str, Any] = {"path": tuple(plain["path"]), "made": tuple(plain["made"]), "results": results}
    return Frame(**{**plain, **held, **slots, **sets, "read": None if read is None else frozenset(map(int, read))})


def check_of(paused: Any, root: Any) -> Paused:
    """A paused run of this level.

    Raises:
        PortError: it is something else.
    """
    if not isinstance(paused, Paused):
        raise PortError(f"{root.block_id}: resume() got {type(paused).__name__}; expected what run_until() returned, or Paused.load(path)")
    return paused
