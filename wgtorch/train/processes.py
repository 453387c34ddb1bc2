"""Several processes for one training, and what they leave behind in the one that started them."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

_SET_BY_LIGHTNING = ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "PL_GLOBAL_SEED", "PL_SEED_WORKERS", "WORLD_SIZE")
_LEADER = "WGTORCH_LEADER"


def is_follower() -> bool:
    """True in a process that another one has started to train with it."""
    return int(os.environ.get("LOCAL_RANK", "0")) > 0


@contextmanager
def tied_to_leader() -> Iterator[None]:
    """Inside, the processes that this one starts to train with it end within a second of its end, which they would wait for otherwise."""
    if is_follower():
        if _LEADER in os.environ:
            threading.Thread(target=_end_with, args=(int(os.environ[_LEADER]),), daemon=True).start()
        yield
        return
    os.environ[_LEADER] = str(os.getpid())
    try:
        yield
    finally:
        os.environ.pop(_LEADER, None)


def _end_with(leader: int) -> None:
    while os.getppid() == leader:
        time.sleep(1)
    os._exit(1)


@contextmanager
def one_training(arguments: Sequence[str]) -> Iterator[None]:
    """A training after which another may follow in this process.

    Lightning starts further processes with the arguments of this one; in a sweep those ask for the whole sweep. Afterwards it
    leaves variables that keep the next training from starting processes of its own, and a group of processes that are gone.

    Args:
        arguments: what further processes are to be started with.
    """
    before, argv = {name: os.environ.get(name) for name in _SET_BY_LIGHTNING}, sys.argv
    sys.argv = [argv[0], *arguments]
    try:
        yield
    finally:
        sys.argv = argv
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
