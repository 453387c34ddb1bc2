"""Runs that stop at a node and go on later, as methods of every level; :mod:`wgtorch.core.run.pause` says how it is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from wgtorch.core.run.pause import PauseRequest, Stopped, never_reached, request_of, run_until_stopped
from wgtorch.core.run.paused import Paused, check_of
from wgtorch.core.tree import split_path

_KEPT = ("outputs", "num_loop_steps", "training")
"""Options of a run that hold for the rest of it, too."""


class Pausable:
    """The methods of levels by which their runs stop and go on."""

    def run_until(
        self: Any,
        *inputs: Any,
        before: str | None = None,
        after: str | None = None,
        iteration: int | Sequence[int] | None = None,
        **options: Any,
    ) -> Paused:
        """Runs until a node is about to be called, or has been, and stops there, so that values can be looked at, changed and saved.

        Nodes are called one after the other in such a run, those that wait on a network as well, and bodies of compiled loops eagerly.

        Args:
            inputs: as of :meth:`run`.
            before, after: path of the node, here or below (``"t2i/solver"``); one of the two.
            iteration: of the loops around the node, from 0: a number for the innermost, a sequence for all, the outermost first. The first
                time that the run comes to the node when left out.
            options: as of :meth:`run`.

        Returns:
            The run as it has stopped; :meth:`resume` goes on.

        Raises:
            PortError: the run ended and never came there.
            UnknownNameError: there is no such node.

        Example:
            >>> paused = graph.run_until({"prompt": "the sea"}, before="solver", iteration=3, seed=7)
            >>> graph.resume(paused, {"solver.latent": paused.values["solver.latent"].flip(-1)})
        """
        for name in ("dry_run", "cache", "profile"):
            if options.get(name):
                raise TypeError(f"{self.block_id}: run_until() has no option {name!r}")
        run: Any = self.run
        request = request_of(self, before, after, iteration)
        stop = run_until_stopped(request, partial(run, *inputs, **options))
        if not isinstance(stop, Stopped):
            raise never_reached(request)
        return Paused.of(stop, request, {name: options[name] for name in _KEPT if options.get(name) is not None})

    def resume(
        self: Any,
        paused: Paused,
        values: Mapping[str, Any] | None = None,
        *,
        before: str | None = None,
        after: str | None = None,
        iteration: int | Sequence[int] | None = None,
        **options: Any,
    ) -> Any:
        """Goes on with a run that has stopped, in this process or another; bit for bit as if it never had, where nothing was changed.

        Args:
            paused: what :meth:`run_until` returned, or ``Paused.load(path)``; it can be gone on with several times.
            values: what to replace, by the paths of ``paused.values``.
            before, after, iteration: stop again there.
            options: callbacks, limits and debug, as of :meth:`run`; seed, mode and number of iterations are those of the run that stopped.

        Returns:
            What :meth:`run` returns; a :class:`~wgtorch.core.run.paused.Paused` where it stopped again.

        Raises:
            PortError: the level is not as it was, or a value does not fit.
            UnknownNameError: the paused run has no such value.
        """
        for name in ("seed", *_KEPT, "dry_run", "cache", "inputs"):
            if name in options:
                own = "the run's own, as it began" if name in ("seed", *_KEPT) else "not for runs that stop"
                raise TypeError(f"{self.block_id}: resume() has no option {name!r}: it is {own}")
        frames, changed = check_of(paused, self).changed(values or {}, self)
        stops = before is not None or after is not None or iteration is not None
        request = request_of(self, before, after, iteration) if stops else PauseRequest(self)
        request.frames, request.inputs, request.key, request.is_resumed = frames, changed, paused.key, True
        request.resumed, request.skips = tuple(paused.node.split("/")), paused.is_before and paused.node == before
        request.taken = {split_path(name): value for name, value in paused.taken.items()}
        run: Any = self.run
        result = run_until_stopped(request, partial(run, **paused.arguments, **paused.options, **options))
        if isinstance(result, Stopped):
            return Paused.of(result, request, paused.options)
        if stops:
            raise never_reached(request)
        return result
