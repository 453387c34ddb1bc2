"""How much of a file is read: more than is ever saved, and too little to fill the memory with what means harm.

Limits count bytes, values and depth. ``WGTORCH_FILE_LIMITS=10`` in the environment makes all of them ten times as large.
"""

from __future__ import annotations

import os

VARIABLE = "WGTORCH_FILE_LIMITS"


def check_limit(count: int, most: int, what: str, where: str, error: type[Exception], instead: str = "") -> None:
    """Refuses what is more than is read.

    Args:
        count: how much there is.
        most: how much is read, before ``WGTORCH_FILE_LIMITS``.
        what: what is counted, with its verb: ``"holds {} values"``.
        where: the file, or the place in it.
        error: the class to raise.
        instead: what to do, beside lifting the limit.
    """
    if count > most and count > (allowed := int(most * _times(error))):
        where = where if len(where) < 300 else f"{where[:200]}...{where[-60:]}"
        hint = f"{instead}, or set" if instead else "Set"
        raise error(f"{where}: {what.format(count)}; expected at most {allowed}. {hint} {VARIABLE}=10 to read ten times as much")


def _times(error: type[Exception]) -> float:
    text = os.environ.get(VARIABLE, "1")
    try:
        times = float(text)
    except ValueError:
        times = 0.0
    if not times > 0:
        raise error(f"{VARIABLE}={text!r}: expected a number such as 10, by which limits on files are multiplied")
    return times
