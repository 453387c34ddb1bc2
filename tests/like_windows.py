"""Has this process's files behave as those of Windows, as far as a Linux machine can: imported first of all, for tests.

No folder can be opened; what is opened for reading alone cannot be brought to the disk; what is open, or mapped, can neither be
replaced, nor renamed, nor deleted, and no folder renamed around it; names hold none of ``<>:"|?*`` and end with no dot or space.
Modules and functions that only POSIX systems have are missing.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import signal
import stat
import sys
from typing import Any

import filelock  # noqa: F401  has a lock of Windows there, which is none here
import torch  # noqa: F401  asks for what is missing below while it is imported

MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "pty", "tty", "readline", "curses", "posix_ipc")
FUNCTIONS = ("fork", "fchmod", "fchown", "chown", "pread", "pwrite", "setsid", "killpg")
FUNCTIONS = (*FUNCTIONS, "sched_getaffinity", "mkfifo", "O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC")
SIGNALS = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGALRM", "SIGPIPE")
real_open, real_fsync, flags_of = os.open, os.fsync, fcntl.fcntl


def refuse(path: Any) -> None:
    raise PermissionError(errno.EACCES, "as on Windows", str(path))


def in_use() -> list[str]:
    """Files that this process holds open or has mapped."""
    held = []
    for number in os.listdir("/proc/self/fd"):
        try:
            held.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            continue
    with open("/proc/self/maps", encoding="utf-8") as maps:
        held += [line.split(maxsplit=5)[5].strip() for line in maps if line.count("/")]
    return [path for path in held if os.path.isfile(path)]


def check_free(path: Any, dir_fd: Any = None) -> None:
    path = os.fspath(path)
    path = path.decode() if isinstance(path, bytes) else path
    above = "" if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}")
    whole = os.path.realpath(os.path.join(above, path))
    if any(held == whole or held.startswith(whole + os.sep) for held in in_use()):
        refuse(path)


def open_(path: Any, flags: int, mode: int = 0o777, *, dir_fd: Any = None) -> int:
    if dir_fd is None and os.path.isdir(path):
        refuse(path)
    return real_open(path, flags, mode, dir_fd=dir_fd)


def fsync(handle: Any) -> None:
    number = handle if isinstance(handle, int) else handle.fileno()
    if flags_of(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY or stat.S_ISDIR(os.fstat(number).st_mode):
        raise OSError(errno.EBADF, "as on Windows")
    real_fsync(number)


def moving(name: str) -> None:
    real = getattr(os, name)

    def move(source: Any, target: Any, *, src_dir_fd: Any = None, dst_dir_fd: Any = None) -> None:
        check_free(source, src_dir_fd)
        if os.path.exists(target):
            check_free(target, dst_dir_fd)
            if name == "rename" or os.path.isdir(target):
                raise FileExistsError(errno.EEXIST, "as on Windows", str(target))
        real(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    setattr(os, name, move)


def deleting(name: str) -> None:
    real = getattr(os, name)

    def delete(path: Any, *, dir_fd: Any = None) -> None:
        direct, above = (sys._getframe(1), sys._getframe(2))
        if not {"tempfile", "filelock"} & {frame.f_globals["__name__"].split(".")[0] for frame in (direct, above)}:
            check_free(path, dir_fd)  # those two have ways of their own there
        real(path, dir_fd=dir_fd)

    setattr(os, name, delete)


def names(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("open", "os.mkdir", "os.rename", "os.link") and isinstance(arguments[0], (str, bytes, os.PathLike)):
        for path in arguments[: 2 if event in ("os.rename", "os.link") else 1]:
            whole = os.fsdecode(path)
            last = os.path.basename(whole)
            is_odd = bool(set(last) & set('<>:"|?*\\')) or last.rstrip(". ") != last
            if is_odd and last not in (".", "..") and not whole.startswith(("/proc", "/dev", "/sys")):
                raise OSError(errno.EINVAL, "a name as Windows has none", last)


def library(name: Any, *args: Any, **options: Any) -> Any:
    return object() if name is None else real_library(name, *args, **options)  # nothing of the C library


os.open, os.fsync = open_, fsync
real_library, ctypes.CDLL = ctypes.CDLL, library  # type: ignore[misc, assignment]
for name in ("rename", "replace"):
    moving(name)
for name in ("unlink", "remove"):
    deleting(name)
shutil._use_fd_functions = False  # type: ignore[attr-defined]
for name in FUNCTIONS:
    if hasattr(os, name):
        delattr(os, name)
for name in SIGNALS:
    if hasattr(signal, name):
        delattr(signal, name)
sys.modules.update(dict.fromkeys(MODULES))  # type: ignore[arg-type]
sys.addaudithook(names)
