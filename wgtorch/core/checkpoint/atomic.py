"""Files and folders that are put in place whole or not at all."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2)
_AT_FDCWD = -100
_LONGEST = 220  # bytes of a name that stand in that of a file beside it
_FRESH = 10.0  # seconds in which a new name may not be locked yet by the writer that made it


def write_folder(directory: str | os.PathLike[str], fill: Callable[[Path], object]) -> Path:
    """Fills a new folder and puts it in place of the old one only when it is whole and on disk.

    The two change places in one step where the system can do that (Linux), so that a kill at any moment leaves either.
    Elsewhere there is a moment in which only ``.<name>.wgtorch-old`` is there: :func:`recovered` finds it.
    """
    target = Path(os.path.realpath(directory))
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "a file stands where the folder is to be written", str(target))
    fresh = _beside(target)
    fresh.mkdir()
    with _held(fresh):
        try:
            fill(fresh)
            for folder, _, files in os.walk(fresh, topdown=False):
                for name in files:
                    sync(Path(folder, name))
                sync(Path(folder))
            if not target.exists():
                fresh.rename(target)
                shutil.rmtree(_aside(target), ignore_errors=True)
            elif _exchange(fresh, target):
                shutil.rmtree(fresh, ignore_errors=True)
            else:
                with _replacing(target):
                    _step_aside(fresh, target)
            sync(target.parent)
        except BaseException as error:
            shutil.rmtree(fresh, ignore_errors=True)
            _name(error, target)
            raise
    return Path(directory)


def write_file(path: str | os.PathLike[str], fill: Callable[[Path], object]) -> Path:
    """Fills a new file and puts it in place of the old one only when it is whole and on disk."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "a folder stands where the file is to be written", str(target))
    fresh = _beside(target)
    fresh.touch()
    with _held(fresh):
        try:
            fill(fresh)
            sync(fresh)
            with _replacing(target):
                os.replace(fresh, target)
            sync(target.parent)
        except BaseException as error:
            fresh.unlink(missing_ok=True)
            _name(error, target)
            raise
    return Path(path)


def recovered(path: Path) -> Path:
    """The folder to read: ``path``, or the one that stood there when a kill struck between two renames."""
    aside = _aside(path)
    return aside if not path.exists() and aside.is_dir() else path


def sync(path: Path) -> None:
    """Has a file or folder on disk before going on. Windows opens no folders, and brings to the disk only what may be written."""
    if not _is_posix() and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY if _is_posix() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(target: Path) -> None:
    """Takes away what killed writers of the same target left beside it; what a living one holds stays."""
    ours = re.compile(rf"\.{re.escape(_tag(target))}\.[0-9a-f]{{12}}\.new")
    for left in filter(lambda left: ours.fullmatch(left.name), target.parent.iterdir()):
        with _held(left) as free:
            if free and time.time() - left.stat().st_ctime > _FRESH:
                shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def _is_posix() -> bool:
    return hasattr(os, "O_DIRECTORY")


@contextmanager
def _replacing(target: Path) -> Iterator[None]:
    """Says why Windows lets something stay as it is."""
    try:
        yield
    except PermissionError as error:
        if _is_posix():
            raise
        why = "Windows replaces nothing that is open: a model that was loaded from there with map=True, or another program, has it"
        raise PermissionError(error.errno, f"{why}; save to another place, or load with map=False", str(target)) from error


def _name(error: BaseException, target: Path) -> None:
    """Has an error of the system that names no file, as where a disk is full, say what was to be written."""
    if isinstance(error, OSError) and error.errno is not None and error.filename is None:
        error.filename = str(target)


def _tag(target: Path) -> str:
    """The target's name; a digest stands for its end where what is added to it would be more than a name may have."""
    name = os.fsencode(target.name)
    return target.name if len(name) <= _LONGEST else name[: _LONGEST - 16].decode(errors="ignore") + hashlib.sha256(name).hexdigest()[:16]


def _aside(target: Path) -> Path:
    return target.parent / f".{_tag(target)}.wgtorch-old"


def _step_aside(fresh: Path, target: Path) -> None:
    aside = _aside(target)
    shutil.rmtree(aside, ignore_errors=True)
    target.rename(aside)
    try:
        fresh.rename(target)
    except BaseException:
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Has two paths change places in one step; False where the system or the file system cannot."""
    if sys.platform != "linux":
        return False
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(second))


@contextmanager
def _held(path: Path) -> Iterator[bool]:
    """Locks a file or folder for as long as this process lives and works on it; False when another one has it locked."""
    try:
        import fcntl
    except ImportError:  # Windows: no leftovers are ever taken away
        yield False
        return
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
    finally:
        os.close(handle)


def _beside(target: Path) -> Path:
    """A new name beside the target, once what killed writers left there is gone."""
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target)
    return target.parent / f".{_tag(target)}.{secrets.token_hex(6)}.new"
