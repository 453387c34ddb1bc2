"""Weights that a config refers to instead of holding: ``checkpoint_ref``.

A ref names a safetensors file, a folder as diffusers and transformers write it (one file, or shards with an index), a
part of a wgtorch checkpoint (``runs/world#creator/paint/t2i/backbone``), weights that ship with the package
(``wgtorch:scene_painter``), a model by its name (``smollm2``), or a GGUF file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from wgtorch.core.checkpoint.assign import assign, misfit_error, misfits, to_dtypes_of
from wgtorch.core.checkpoint.io import HASHED, MANIFEST, MAX_MANIFEST, checked_name, open_source, read
from wgtorch.core.checkpoint.manifest import StoredFile, digest_of, map_header, read_manifest, stored_file, stored_part
from wgtorch.core.checkpoint.named import local_ref
from wgtorch.core.checkpoint.tensors import Header, joined, map_tensors, pieces_of
from wgtorch.core.config.resolve import resolve_environment
from wgtorch.core.errors import CheckpointError, suggest
from wgtorch.core.json_text import read_json
from wgtorch.core.limits import check_limit
from wgtorch.core.system_files import is_of_system

PACKAGED = Path(__file__).parents[2] / "weights"
_PREFIX = "wgtorch:"
_USUAL = ("diffusion_pytorch_model.safetensors", "model.safetensors")
_MAX_INDEX = 64 << 20
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_NO_PICKLES = "; pickles (.bin, .pt, .ckpt) are never read, convert it"


def ref_of(block: object) -> str | None:
    """The ref in a block's config, with values of the environment in place."""
    ref = getattr(block, "_config", {}).get("checkpoint_ref")
    return None if ref is None else str(resolve_environment({"ref": ref}, "checkpoint_ref")["ref"])


def resolve_checkpoint(ref: str) -> list[Path]:
    """The files of a ref, absolute and with links followed; the manifest, for a part of a wgtorch checkpoint.

    Raises:
        CheckpointError: there are none, or they are not safetensors.
    """
    if ref.startswith(_PREFIX):
        path = PACKAGED / f"{ref.removeprefix(_PREFIX)}.safetensors"
        known = [f"{_PREFIX}{entry.stem}" for entry in sorted(PACKAGED.glob("*.safetensors"))]
        if not path.is_file() or path.parent != PACKAGED:
            raise CheckpointError(f"checkpoint_ref {ref!r}: no such weights in the package; {suggest(ref, known)}")
        return [path]
    outer, part = _split(local_ref(ref))
    path = Path(outer).expanduser()
    if part:
        found = [path / MANIFEST if path.is_dir() else path]
    elif path.is_dir():
        found = _files_in(path, ref)
    elif path.suffix == ".json" and ".safetensors.index." in path.name:
        found = _sharded(path, ref)
    elif path.suffix == ".safetensors":
        found = [path]
    else:
        raise CheckpointError(
            f"checkpoint_ref {ref!r}: expected a .safetensors file, a folder that holds one or its index, or 'checkpoint#path'"
            + (_NO_PICKLES if path.suffix in PICKLES else "")
        )
    for file in found:
        if not file.is_file():
            raise CheckpointError(f"checkpoint_ref {ref!r}: {file} is not there")
    return [file.resolve() for file in found]


def identity_of(ref: str) -> list[tuple[str, int, int]]:
    """What a ref is now: (path, bytes, time of change) of each file, with the part it asks for."""
    part = _split(ref)[1] if not ref.startswith(_PREFIX) else ""
    ref = local_ref(ref)
    whole = Path(ref).expanduser()  # a whole pipeline of diffusers, with a folder for each of its models
    files = sorted(whole.rglob("*.safetensors")) if (whole / "model_index.json").is_file() else resolve_checkpoint(ref)
    stats = [(file, file.stat()) for file in files]
    return [(f"{file}#{part}" if part else str(file), stat.st_size, stat.st_mtime_ns) for file, stat in stats]


def read_ref(ref: str) -> tuple[dict[str, Tensor], str]:
    """The tensors of a ref, mapped from its files, and what to call them in messages.

    Raises:
        CheckpointError: it cannot be found or read.
    """
    files = resolve_checkpoint(ref)
    outer, part = _split(ref) if not ref.startswith(_PREFIX) else (ref, "")
    if part:
        with open_source(Path(outer).expanduser()) as source:
            return stored_part(source, read_manifest(source), part), ref
    tensors = joined((str(file), *map_header(file)) for file in files)
    return tensors, str(files[0]) if len(files) == 1 else f"{files[0].parent} ({len(files)} files)"


def read_ref_for(block: nn.Module, ref: str) -> dict[str, Tensor]:
    """The tensors of a ref under the names that a block has for them.

    Raises:
        CheckpointError: it cannot be found or read.
    """
    tensors, _ = read_ref(ref)
    prefix = getattr(type(block), "ref_module", "")
    if not prefix or (not ref.startswith(_PREFIX) and _split(ref)[1]):  # parts of checkpoints are stored under the block's names
        return tensors
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def read_file(path: Path) -> tuple[Header, dict[str, Tensor]]:
    """The header of a safetensors file and its tensors, mapped.

    Raises:
        CheckpointError: it is truncated, foreign or damaged.
    """
    buffer, start, header = map_header(path)
    return header, map_tensors(buffer, start, header)


def load_checkpoint(block: nn.Module, ref: str) -> None:
    """Gives a block the weights of a ref, in the block's own dtype; without a copy where the dtype is the file's.

    Raises:
        CheckpointError: the files do not fit the block; lists every tensor that is missing, unexpected or mis-shaped.
    """
    if getattr(block, getattr(type(block), "ref_module", "") or "training", None) is None:
        return  # a model that is no module: nothing of it is loaded here
    tensors, where = read_ref(ref)
    inner = _referring(block)
    found = misfits(inner, tensors, type(block).__name__)
    if found:
        raise misfit_error(f"checkpoint_ref {ref!r}: {where}", found)
    assign(inner, to_dtypes_of(inner, tensors))
    note_ref(block)


def check_own_reading(block: nn.Module, ref: str) -> None:
    """Looks whether a block that takes ``checkpoint_ref`` itself has the weights that it names, and gives them where it has not.

    One whose class says which part of it stands for the ref's model (``ref_module``) is believed, since it may have converted them.

    Raises:
        CheckpointError: it has other weights, and those of the ref do not fit.
    """
    note_ref(block)
    state = {name: value for name, value in block.state_dict(keep_vars=True).items() if isinstance(value, Tensor)}
    if getattr(type(block), "ref_module", "") or not state or is_as_referred(block, ref, state):
        return
    try:
        load_checkpoint(block, ref)
    except CheckpointError as error:
        raise CheckpointError(
            f"{type(block).__name__}: takes checkpoint_ref and does not hold the weights that it names: {error}. Where the constructor "
            "reads it into a part of the block, name that part with ref_module"
        ) from error


def note_ref(block: nn.Module) -> None:
    """Remembers that a block was just given the weights of its ref, and in which dtypes."""
    block.__dict__["_ref_dtypes"] = {
        name: value.dtype for name, value in block.state_dict(keep_vars=True).items() if isinstance(value, Tensor)
    }


def _referring(block: nn.Module) -> nn.Module:
    """The module whose weights a ref names: the block, or the part of it that its class says (``ref_module``)."""
    name = getattr(type(block), "ref_module", "")
    return block if name and getattr(block, name, None) is None else block.get_submodule(name)


def is_as_referred(block: nn.Module, ref: str, own: Mapping[str, Tensor]) -> bool:
    """True while a block's own weights are exactly what loading its ref again would give it."""
    dtypes = block.__dict__.get("_ref_dtypes")
    if dtypes is None:
        return False
    try:
        named = read_ref_for(block, ref)
    except CheckpointError:
        return False
    present = {id(tensor) for name, tensor in own.items() if name in named}
    if any(name not in own for name in named):
        return False
    for name, tensor in own.items():
        if name not in named:
            if id(tensor) not in present:  # not even under another name
                return False
        elif tensor.dtype != dtypes.get(name) or not _same_tensor(tensor, named[name].to(tensor.dtype)):
            return False
    return True


def holds(ref: str, own: Mapping[str, Tensor]) -> bool:
    """True when a ref's tensors are these, by name, dtype and bit."""
    try:
        tensors, _ = read_ref(ref)
    except CheckpointError:
        return False
    same = tensors.keys() == own.keys()
    return same and all(tensor.dtype == tensors[name].dtype and _same_tensor(tensor, tensors[name]) for name, tensor in own.items())


def outside_files(ref: str) -> tuple[StoredFile, ...]:
    """What the files of a ref are now, with their hashes."""
    found = [stored_file(file, ref if ref.startswith(_PREFIX) else str(file)) for file in resolve_checkpoint(ref)]
    return tuple(replace(file, pieces=_pieces(Path(file.file))) if "#" in ref else file for file in found)


def where_it_lies(ref: str, recorded: Sequence[StoredFile]) -> str:
    """The ref, or else what it named when it was recorded, as for a relative ref in another folder.

    Raises:
        CheckpointError: neither is there.
    """
    try:
        resolve_checkpoint(ref)
    except CheckpointError:
        files = [Path(entry.file) for entry in recorded]
        if not files or "#" in ref or not all(file.is_file() for file in files):
            raise
        name = Path(ref).name
        whole = str(files[0].parent / name if name.endswith(".index.json") else files[0].parent)
        if not name.endswith(".safetensors") and _leads_to(whole, files):
            return whole
        if len(files) != 1:
            raise
        return str(files[0])
    return ref


def _leads_to(ref: str, files: Sequence[Path]) -> bool:
    try:
        return resolve_checkpoint(ref) == list(files)
    except CheckpointError:
        return False


def is_packaged(ref: str) -> bool:
    """True for weights that come with the package."""
    return ref.startswith(_PREFIX)


def is_unchanged(ref: str, recorded: Sequence[StoredFile], verify: bool | None) -> bool:
    """True while the files of a ref are those that :func:`outside_files` gave.

    Args:
        verify: True reads every byte, False compares sizes alone; None reads every byte of what is small, and of larger
            files the header and a piece of every tensor. Weights that come with the package are newer in a newer package: with False
            they are taken as they are.
    """
    if verify is False and is_packaged(ref):
        return True
    files = resolve_checkpoint(ref)
    if [file.stat().st_size for file in files] != [entry.bytes for entry in recorded]:
        return False
    if verify is False:
        return True
    whole = verify or sum(entry.bytes for entry in recorded) <= HASHED
    return all(
        digest_of(file) == entry.sha256 if whole or not entry.pieces else _pieces(file) == entry.pieces
        for file, entry in zip(files, recorded, strict=True)
    )


def _pieces(file: Path) -> str:
    """The hash of what is looked at of a large file: of weights some of each tensor, of an archive its manifest."""
    if file.name == MANIFEST:
        return ""
    if file.suffix == ".safetensors":
        return pieces_of(file, 0, map_header(file)[2])
    with open_source(file) as source:
        return hashlib.sha256(read(source, MANIFEST, MAX_MANIFEST)).hexdigest()


def _same_tensor(first: Tensor, second: Tensor) -> bool:
    """Same shape and same bits, for tensors of one dtype; NaN is itself here."""
    if first.shape != second.shape:
        return False
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}.get(first.dtype.itemsize, torch.uint8)
    one, two = (tensor.detach().cpu().contiguous() for tensor in (first, second))
    if first.dtype in (torch.bool, torch.uint8) or first.dtype.is_complex:
        return torch.equal(one, two)
    return torch.equal(one.view(bits), two.view(bits))


def _split(ref: str) -> tuple[str, str]:
    outer, _, part = ref.partition("#")
    return outer, part


def _files_in(folder: Path, ref: str) -> list[Path]:
    for name in _USUAL:
        if (folder / name).is_file():
            return [folder / name]
        if (folder / f"{name}.index.json").is_file():
            return _sharded(folder / f"{name}.index.json", ref)
    found = sorted(file for file in folder.glob("*.safetensors") if not is_of_system(file.name))
    if len(found) == 1:
        return found
    if len(variants := sorted(folder.glob("*.safetensors.index.*.json"))) == 1:  # of diffusers' variant=, as "fp16"
        return _sharded(variants[0], ref)
    if (folder / MANIFEST).is_file():
        raise CheckpointError(f"checkpoint_ref {ref!r}: is a wgtorch checkpoint; say which part of it, as {ref + '#node'!r}")
    held = [entry.name for entry in found][:8] or "none"
    more = _NO_PICKLES if not found and any(entry.suffix in PICKLES for entry in folder.iterdir()) else ""
    raise CheckpointError(f"checkpoint_ref {ref!r}: expected {' or '.join(_USUAL)}, or one .safetensors file; there: {held}{more}")


def _sharded(index: Path, ref: str) -> list[Path]:
    try:
        check_limit(index.stat().st_size, _MAX_INDEX, "{} bytes", str(index), CheckpointError)
        content = read_json(index.read_bytes(), str(index), CheckpointError)
    except OSError as error:
        raise CheckpointError(f"checkpoint_ref {ref!r}: {index} cannot be read: {error}") from error
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not names:
        raise CheckpointError(f"{index}: no weight_map; expected the index of a sharded model")
    return [index.parent / checked_name(name, str(index)) for name in sorted(set(map(str, names.values())))]
