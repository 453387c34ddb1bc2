"""Errors and findings: what went wrong, where, and what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


class WgtorchError(Exception):
    """Root of every error that wgtorch raises on its own account."""


class PortError(WgtorchError, ValueError):
    """A port is unknown, missing, fed twice, or fed with a value of the wrong kind."""


class PortTypeError(PortError, TypeError):
    """A value or an edge has a kind that the port does not accept."""


class MissingInputError(PortError):
    """A required input has no value."""


class UnknownNameError(WgtorchError, KeyError):
    """A node, port, slot, template or registered type does not exist."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class StructureError(WgtorchError, ValueError):
    """A composite cannot be built this way: a clashing id, a bad name, an edge that cannot be."""


class StructureTypeError(StructureError, TypeError):
    """What a structure is built from is of another type than expected."""


class ConfigError(WgtorchError, ValueError):
    """A config does not describe something that can be built."""


class CheckpointError(WgtorchError, ValueError):
    """Files on disk are missing, foreign, damaged or do not fit the module."""


class StateError(WgtorchError, ValueError):
    """A State, its slots or a stage's contract over them are wrong."""


class StorageError(WgtorchError, ValueError):
    """A world's storage cannot be read or written."""


class EndpointError(WgtorchError, RuntimeError):
    """Another endpoint cannot be reached, failed, or answers something else than its contract."""


class RequestError(WgtorchError, ValueError):
    """A request to a served level is refused; ``findings`` lists why, ``status`` is the HTTP status."""

    def __init__(self, message: str, findings: Iterable[Finding] = (), *, status: int = 400) -> None:
        self.findings = tuple(findings)
        self.status = status
        super().__init__("; ".join([message, *map(str, self.findings)]) if self.findings else message)


class TrainingError(WgtorchError, ValueError):
    """A training cannot begin or go on: nothing to train, no gradient, an objective that does not fit."""


class ModelMemoryError(WgtorchError, MemoryError):
    """A model does not fit into the memory that its pool may use."""


class RunTimeoutError(WgtorchError, TimeoutError):
    """A node or a run took longer than the limit it was given."""


class RunCancelled(WgtorchError):
    """A run was cancelled between two nodes or loop steps."""


class PluginError(WgtorchError):
    """An installed package announces a name (an entry point) and fails to bring it."""


class MissingExtraError(WgtorchError, ImportError):
    """An optional package is needed; the message holds the pip line."""


class PromptTruncatedWarning(UserWarning):
    """A prompt is longer than what reads it takes; the message says what was cut off."""


class RebuiltOtherwiseWarning(UserWarning):
    """What is saved of a block is otherwise once loaded: its weights fit not what its config builds, or share memory; says which."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that validation noticed.

    Args:
        where: path of the node or port (``graph/backbone.condition``).
        found: what is there.
        expected: what should be there.
        mend: what to write instead.
    """

    where: str
    found: str
    expected: str = ""
    mend: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.found}"
        if self.expected:
            text += f"; expected {self.expected}"
        return f"{text}. {self.mend}" if self.mend else text


class ValidationError(StructureError):
    """A composite has findings that stop it from running; ``findings`` lists them all."""

    def __init__(self, subject: str, findings: Iterable[Finding]) -> None:
        self.findings = tuple(findings)
        lines = "\n".join(f"  - {finding}" for finding in self.findings)
        count = len(self.findings)
        super().__init__(f"{subject} is not valid ({count} finding{'s' if count != 1 else ''}):\n{lines}")


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """What ``validate`` found.

    Args:
        errors: findings that stop a run.
        warnings: findings worth a look.
    """

    errors: tuple[Finding, ...] = ()
    warnings: tuple[Finding, ...] = ()

    @property
    def is_valid(self) -> bool:
        """True when nothing stops a run."""
        return not self.errors

    def __str__(self) -> str:
        rows = [f"error: {finding}" for finding in self.errors] + [f"warning: {finding}" for finding in self.warnings]
        return "\n".join(rows) if rows else "valid"


_COMPARED = 1000  # letters of a name, and names, that are looked at


class PythonAdvice(str):
    """A note of an error that says what to write in Python; the command line leaves it out, and says its own."""

    __slots__ = ()


def without_python_advice(error: BaseException) -> None:
    """Takes such notes off an error."""
    if notes := getattr(error, "__notes__", None):
        notes[:] = [note for note in notes if not isinstance(note, PythonAdvice)]


def suggest(name: object, known: Iterable[object]) -> str:
    """Words for a message: the nearest known names, or all of them when none is near.

    Example:
        >>> suggest("promt", ["prompt", "image"])
        "did you mean 'prompt'?"
    """
    names = [str(entry) for entry in known]
    near = difflib.get_close_matches(str(name)[:_COMPARED], names[:_COMPARED], n=3, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(repr(entry) for entry in near)}?"
    if not names:
        return "there are none"
    shown = ", ".join(repr(entry) for entry in names[:12])
    return f"known: {shown}{f' and {len(names) - 12} more' if len(names) > 12 else ''}"


def require(module: str, extra: str) -> object:
    """Imports an optional package, or says which extra brings it.

    Raises:
        MissingExtraError: the package is not installed.
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = error.name or module
        if missing.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtraError(f"{module!r} is not installed; run: pip install 'wgtorch[{extra}]'") from error
