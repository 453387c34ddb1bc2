"""Whose life a storage keeps, and whether a world may write there."""

from __future__ import annotations

from wgtorch.core.errors import StorageError
from wgtorch.core.trust import is_below_here
from wgtorch.storage.base import Life, Storage


def where_stored(storage: Storage) -> Life | None:
    """Whose life a storage keeps, and where that is; without what the world is there, which may be large."""
    head = getattr(storage, "head", None)
    if head is None:
        return storage.read_life()
    commit = head()
    if commit is None or commit.life is None:
        return None
    return Life(passes=commit.passes, stage=commit.stage, seed=commit.seed, id=commit.life)


def check_own_storage(world: str, storage: Storage, life: Life) -> None:
    """Refuses to write over what a storage keeps of another life, or of this one further on.

    Raises:
        StorageError: says whose life is there.
    """
    stored = where_stored(storage)
    if stored is None or (stored.id == life.id and (stored.passes, stored.stage) <= (life.passes, life.stage)):
        return
    if stored.id == life.id:
        here = f"this world is at pass {life.passes}, stage {life.stage}"
        found = f"this life up to pass {stored.passes}, stage {stored.stage}; {here}"
    else:
        found = f"the history of another life, up to pass {stored.passes}"
    raise StorageError(f"{world}: the storage holds {found}. Call world.resume() to go on with it, or choose another state_dir.")


def check_chosen_place(world: str, storage: Storage, life: Life, state_dir: str, file: str) -> None:
    """Refuses a folder outside of the current one that a file names, unless this life is there already.

    Raises:
        StorageError: names the folder and the file.
    """
    stored = where_stored(storage)
    if (stored is None or stored.id != life.id) and not is_below_here(state_dir):
        raise StorageError(
            f"{world}: the file {file} has the world's past written to {state_dir!r}; a file may choose a place below the current "
            f"folder. If it is to be there, call world.set_storage({{'state_dir': {state_dir!r}}}), or load it with trust=True"
        )
