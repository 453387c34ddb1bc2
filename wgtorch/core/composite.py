"""Composite: a graph of executables. Graph, Pipeline and Stage are this, with another child type and a few words."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Self, Unpack, overload

import torch
from torch.compiler import is_dynamo_compiling

from wgtorch.core.errors import MissingInputError, PortError, ValidationError
from wgtorch.core.graph_builder import GraphBuilder
from wgtorch.core.level import edits
from wgtorch.core.plan import Loop, Plan, make_plan
from wgtorch.core.port import MISSING
from wgtorch.core.run.active_call import active_call
from wgtorch.core.run.cached_call import of_level
from wgtorch.core.run.context import RunContext
from wgtorch.core.run.dry_run import DryRun, dry_run_of
from wgtorch.core.run.events import Callback, Event
from wgtorch.core.run.executor import inlined_children, walk, walk_async
from wgtorch.core.run.joined_runs import run_batch
from wgtorch.core.run.loop_compiler import LoopCompiler, has_loops
from wgtorch.core.run.loop_steps import LoopSteps, check_loop_steps, check_loops_are_there, loops_below
from wgtorch.core.run.node_cache import copied
from wgtorch.core.run.partial_plan import plan_of_part
from wgtorch.core.run.pause import Stopped, resume_level
from wgtorch.core.run.profile import profiled
from wgtorch.core.run.result_cache import UnfinishedResults, keeps_results
from wgtorch.core.run.run_scope import RunScope, keeps_gradient_mode
from wgtorch.core.run.run_values import by_position, check_names, given_out, owned_generators, paths_of, taken_in, value_of
from wgtorch.core.run.start_run import RunKeywords, check_options, check_seeds_fit, new_run, requested, shows_options
from wgtorch.core.run.stream import events_of, refuse_in_stream
from wgtorch.core.signature import copy_containers, signed_forward
from wgtorch.core.structure import Node
from wgtorch.core.tree import is_level
from wgtorch.core.tree import walk as walk_tree


class Composite(GraphBuilder):
    """Children joined by edges, run as one. It is a block itself: its ports are the ports of its children that it exposes.

    The plan of a run is made once and kept until the structure changes. Nothing about a run is kept but what was paid for in one that
    failed: two threads may run one composite at once.

    Attributes:
        unfinished: answers of models behind APIs, and of other nodes that wait, in runs that failed; the same run again is given them
            in place of asking again.
    """

    def __init__(self, level_id: str | None = None, *, metadata: Mapping[str, Any] | None = None) -> None:
        super().__init__(level_id, metadata=metadata)
        self._plans: dict[Any, Plan] = {}
        self._plan: Plan | None = None
        self._is_async: bool | None = None
        self.loop_compiler: LoopCompiler | None = None
        self.unfinished = UnfinishedResults()
        self._loops: tuple[int, dict[tuple[str, ...], Loop] | None] | None = None
        self._sign_forward()

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        for name in ("forward", "_signed", "_about"):
            state.pop(name, None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "_seen": -1})  # edits are counted from 0 in every process
        self._sign_forward()

    def _sign_forward(self) -> None:
        """Gives ``forward`` the exposed inputs as its signature: what ``torch.export``, editors and ``help`` go by."""
        if type(self).forward is Composite.forward:
            self.__dict__["forward"] = self.__dict__["_signed"] = signed_forward(self, Composite.forward)

    def forward(self, *args: Any, run_context: RunContext | None = None, **inputs: Any) -> dict[str, Any]:
        """The computation itself, in the grad mode and train or eval mode that the caller has set.

        Its signature, as ``inspect.signature`` tells it, is that of the exposed inputs.

        Args:
            inputs: values by exposed input; unnamed ones are taken in the order of the spec.
            run_context: the run that it is part of; given by the engine.

        Returns:
            Values by exposed output.
        """
        run = run_context
        if run is None and not torch.compiler.is_compiling() and (outer := active_call()) is not None:
            run = outer.child()  # called inside a block of a run, it is part of that
        if args:
            inputs = by_position(self, args, inputs)
        plan = self.plan() if run is None else self.plan_for(run)
        if run is not None and run.options.pause is not None and (frame := run.options.pause.frame_of(run.path)) is not None:
            return self._walked(plan, *resume_level(self, plan, frame, run), run)
        slots: list[Any] = [MISSING] * plan.size
        used = 0
        for name, slot, required in plan.inputs:
            if name in inputs:
                slots[slot] = inputs[name]
                used += 1
            elif required:
                raise MissingInputError(
                    f"{self.block_id}: missing input {name!r}; needed: {[n for n, _, r in plan.inputs if r]}, given: {sorted(inputs)}"
                )
        if used < len(inputs):
            check_names(self, inputs)
        if run is not None and run.feeds:
            for node_id, port, slot in plan.feeds:
                slots[slot] = run.feeds[(node_id,), port]
        places = self._node_specs
        for node_id, port, slot in plan.fills:
            value = places[node_id].inputs[port]
            slots[slot] = copy_containers(value) if type(value) in (dict, list) else value  # so that no run changes the place
        if run is not None and run.options.pause is not None:
            return self._walked(plan, slots, plan.steps, run)
        if plan.units:
            walk_async(self, plan.units, slots, run)
        elif run is not None and run.options.is_watched:
            walk(self, plan.steps, slots, run)
        elif not plan.inlined:
            walk(self, plan.fast_steps, slots, run)
        elif (tables := inlined_children(self, plan.inlined)) is None:
            walk(self, plan.steps, slots, run)
        else:
            walk(self, plan.fast_steps, slots, run, tables)
        outputs = {name: slots[slot] for name, slot in plan.outputs if slots[slot] is not MISSING}
        return outputs if run is None or run.wanted is None else given_out(self, run, outputs)

    @overload
    def run(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        outputs: str | Sequence[str] | None = None,
        device: torch.device | str | None = None,
        dry_run: Literal[False] = False,
        **options: Unpack[RunKeywords],
    ) -> dict[str, Any]: ...

    @overload
    def run(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        outputs: str | Sequence[str] | None = None,
        device: torch.device | str | None = None,
        dry_run: Literal[True, "fake"],
        **options: Unpack[RunKeywords],
    ) -> DryRun: ...

    @shows_options(RunKeywords)
    def run(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        outputs: str | Sequence[str] | None = None,
        device: torch.device | str | None = None,
        dry_run: bool | str = False,
        **options: Any,
    ) -> Any:
        """Runs with checking, seeds, callbacks and limits.

        A run inside the call of a node of another run takes gradient mode, train or eval, seed, callbacks, limits and cancellation
        from that one, as far as it is not told otherwise here.

        Args:
            inputs: values by exposed input; a value under a port's path (``"a.y"``, ``"first/a.y"``) is taken in place of
                what that node would compute.
            outputs: exposed outputs or ports by path (``"a.y"``) to compute; only what they need is run.
            num_loop_steps: iterations of every loop, or of some by a node of theirs: ``{"solver": 20, "refine/solver": 8}``; of a
                sampler as many as its schedule has, or a warning says that it was cut short, or ended before.
            training: with gradients and as in ``train``; else without and as in ``eval``. Modules keep their own mode.
            seed: every node draws from its own generator, keyed by (seed, path, loop iteration, sample): an int, or a list with
                one for each sample of the batch, of which sample k is what ``seed=[that one]`` gives alone.
            device: where input tensors are moved.
            callbacks: called with an :class:`~wgtorch.core.run.events.Event` at each node's start and end and each loop step.
            dry_run: True checks order and availability and computes nothing; ``"fake"`` also runs with fake tensors and
                reports shapes, memory and API calls.
            timeout: seconds the run may take. Looked at between nodes and loop steps and at the end; nodes that wait are left when they
                are over, a block that computes is let finish first.
            cancelled: asked between nodes and loop steps; true stops the run.
            debug: find inputs that a block changes in place, and outputs of a wrong kind.
            cache: a :class:`~wgtorch.core.run.node_cache.NodeCache`: what is unchanged since a run with it is not computed again.
            profile: True prints where the time went, by node and operator; a path also writes a Chrome trace there; a
                :class:`~wgtorch.core.run.profile.Profile` is filled.

        Returns:
            Values by output name, or a :class:`~wgtorch.core.run.dry_run.DryRun`.

        Raises:
            PortError: an input is unknown, missing or of the wrong kind.
            TypeError: an option is unknown, or of another kind than it has to be.
            ValidationError: the structure cannot be run.
            RunCancelled, RunTimeoutError: it was stopped.
        """
        if options:
            self._refuse_unknown(options)
        if (profile := options.pop("profile", False)) is not False:
            told = options.pop("callbacks", None)
            run_it = partial(self.run, inputs, outputs=outputs, device=device, dry_run=dry_run, **options)
            return profiled(run_it, profile, told, self.block_id)
        names = None if outputs is None else requested(outputs, self.block_id)
        values, run = self._begin({} if inputs is None else inputs, names, device, dry_run, options)
        if dry_run:
            return dry_run_of(self, values, run, fake=dry_run == "fake")
        is_cached, training = options.get("cache") is not None, options.get("training")
        found = self._through_cache(run, values, training) if is_cached else None
        if found is None:
            with RunScope(self, run, training), keeps_results(self, run):
                found = self(run_context=run, **values)
                run.check_end()
        if names is not None:
            found = {name: value_of(self, name, found, run) for name in names}
        return copied(found) if is_cached else found

    def stream(self, *inputs: Any, callbacks: Any = None, cancelled: Callable[[], bool] | None = None, **options: Any) -> Iterator[Event]:
        """A run as an iterator over the events of callbacks, of this level and all below, as they come.

        The run waits while the loop's body works, and goes on when the next event is asked for. Leaving the loop stops it there: what is
        being computed is waited for, calls over a network are cancelled. Blocks that tell of parts of an output, as language models do
        of tokens, give events of kind ``chunk``.

        Args:
            inputs, callbacks, cancelled, options: as of :meth:`run`.

        Yields:
            :class:`~wgtorch.core.run.events.Event`; the last one is this level's own ``end``, with the run's ``outputs``.

        Example:
            >>> for event in graph.stream({"prompt": "the sea"}, seed=7):
            ...     if event.kind == "loop":
            ...         print(event.step, event.total)
            >>> event.outputs["image"]
        """
        refuse_in_stream(options, self.block_id)
        told = self.check_options({**options, "callbacks": () if callbacks is None else callbacks, "cancelled": cancelled}, "stream")
        return events_of(partial(self.run, *inputs, **options), self.level, self.block_id, told or (), cancelled)

    def batch(
        self, inputs: Sequence[Any], *, seed: int | Sequence[int] | None = None, batch_size: int = 64, callbacks: Any = None, **options: Any
    ) -> list[Any]:
        """Runs several items; where blocks take several samples in one call (``batched``, ``rows_are_samples``) they get them in one.

        Item k gives what ``run(inputs[k], seed=seed[k])`` gives. Events of callbacks say which ``item`` they tell of.

        Args:
            inputs: for each item what :meth:`run` takes.
            seed: one for all items, or a list with one for each.
            batch_size: how many items go on at once; each holds its values meanwhile.
            callbacks, options: as of :meth:`run`; the same for all items.

        Returns:
            What :meth:`run` returns, for each item. **In the place of an item that failed stands its exception**; the others are not lost.

        Example:
            >>> results = graph.batch([{"prompt": "a"}, {"prompt": "b"}], seed=[7, 8])
            >>> failed = [k for k, result in enumerate(results) if isinstance(result, Exception)]
        """
        if options.pop("profile", False) is not False:
            raise TypeError(f"{self.block_id}: batch() has no option 'profile'; use torch.profiler.profile around it")
        told = self.check_options({**options, "callbacks": () if callbacks is None else callbacks}, "batch")
        return run_batch(self, inputs, seed, batch_size, told or (), options)

    def compile_loops(self, options: Mapping[str, Any]) -> bool:
        if not has_loops(self.plan()):
            return super().compile_loops(options)
        self.loop_compiler = LoopCompiler(options)
        super().compile_loops(options)
        return True

    def gradient_checkpointing(self, on: bool = True) -> Self:
        """Says whether loops keep what their turns computed for backward, or compute it again there: less memory, more time.

        It is part of the config (``metadata["gradient_checkpointing"]``), and holds whenever gradients are enabled. Loops of
        levels below are asked as well.
        """
        if on:
            self.metadata["gradient_checkpointing"] = True
        else:
            self.metadata.pop("gradient_checkpointing", None)
        for child in self.child_levels():
            if isinstance(child, Composite):
                child.gradient_checkpointing(on)
        return self

    @property
    def is_async(self) -> bool:  # type: ignore[override]
        """True when some child waits on a network."""
        self.refresh_below()
        if self._is_async is None:
            self._is_async = any(child.is_async for _, child, _ in walk_tree(self, repeats=0) if child.remote or not is_level(child))
        return self._is_async

    def run_order(self) -> tuple[str, ...]:
        try:
            return self.plan().order()
        except ValidationError:  # it cannot run yet
            return ()

    def skip_reason(self, node: Node, run: RunContext | None) -> str | None:
        """Why a node is to be skipped now; levels with conditions answer."""
        return None

    # --- private steps ------------------------------------------------------------------------------------------------

    def _begin(
        self, inputs: Any, outputs: Sequence[str] | None, device: torch.device | str | None, dry_run: bool | str, options: Mapping[str, Any]
    ) -> tuple[dict[str, Any], RunContext]:
        """Values by exposed input, and the run that begins with them; what :meth:`run` was given is checked."""
        if device is not None:
            check_options(self.block_id, device=device)
        inputs, rng = owned_generators(self, inputs, options.get("seed"), options.get("cache"))
        values, feeds = taken_in(self, inputs, device)
        run = new_run(self.block_id, dry_run=dry_run, **options)
        check_seeds_fit(run.key, values, self.block_id)
        self._check_loop_steps(run.num_loop_steps)
        run.feeds, run.options.rng = feeds, rng
        if outputs is not None:
            run.wanted, run.exposed = paths_of(self, outputs)
            run.options.taken = {}
        if (pause := run.options.pause) is not None:
            if rng is not None:
                raise PortError(f"{self.block_id}: a run that draws from a generator of yours cannot stop and go on; give it seed= instead")
            pause.arguments = {"inputs": {f"{'/'.join(path)}.{port}": value for (path, port), value in feeds.items()}}
            if run.options.taken is not None:
                run.options.taken |= pause.taken
        return values, run

    def _invalidate_plan(self) -> None:
        super()._invalidate_plan()
        self.__dict__.update(_plans={}, _plan=None, _is_async=None, _about=None)
        if self.loop_compiler is not None:
            self.loop_compiler.forget()

    def plan(self) -> Plan:
        """The plan of a run of all that is exposed."""
        if is_dynamo_compiling():
            self._plan_while_traced()
        else:
            self.refresh_below()
        plan = self._plan
        if plan is None:
            plan = make_plan(self._structure(), plan_of=self._plan_to_inline)
            self._plan = plan
        return plan

    def _plan_to_inline(self, node_id: str) -> Plan | None:
        """The plan of a level below whose calls may stand in this one's plan; None where its own call does something more."""
        child = self.nodes[node_id]
        if not isinstance(child, Composite) or type(child).forward is not Composite.forward or child.remote:
            return None
        try:
            return child.plan()
        except ValidationError:  # whoever calls it is told
            return None

    def _plan_while_traced(self) -> None:
        """Makes the plan when ``torch.compile`` comes here first, which then finds it made: it calls this instead of tracing it."""
        self.plan()

    # What torch.compiler.assume_constant_result sets, which would import the compiler with this package.
    _plan_while_traced._dynamo_marked_constant = True  # type: ignore[attr-defined]

    def check_options(self, options: Mapping[str, Any], method: str) -> tuple[Callback, ...] | None:
        told = super().check_options(options, method)
        self._check_loop_steps(check_loop_steps(options.get("num_loop_steps"), self.block_id))
        if options.get("outputs") is not None:
            paths_of(self, requested(options["outputs"], self.block_id))
        return told

    def _check_loop_steps(self, given: LoopSteps | None) -> None:
        """Refuses numbers of iterations that no loop of this level or below would take."""
        if given is not None:
            if self._loops is None or self._loops[0] != edits.value:
                self._loops = (edits.value, loops_below(self))
            check_loops_are_there(self, given, self._loops[1])

    def plan_for(self, run: RunContext) -> Plan:
        """The plan for what a run wants of this composite, with the values it gives."""
        if not run.feeds and run.wanted is None:
            return self.plan()
        key = (run.wanted, run.exposed, frozenset(run.feeds or ()))
        self.refresh_below()
        if (plan := self._plans.get(key)) is not None:
            return plan
        plan = self._plans[key] = plan_of_part(self, self._structure(), run)
        return plan

    def _walked(self, plan: Plan, slots: list[Any], steps: Sequence[Any], run: RunContext) -> dict[str, Any]:
        """The outputs of a run that may stop, one step after the other."""
        try:
            walk(self, steps, slots, run)
        except Stopped as stop:
            stop.leave(self, plan, slots, run)
            raise
        outputs = {name: slots[slot] for name, slot in plan.outputs if slots[slot] is not MISSING}
        return outputs if run.wanted is None else given_out(self, run, outputs)

    def _through_cache(self, run: RunContext, values: dict[str, Any], training: bool | None) -> dict[str, Any] | None:
        """What this level gives as a whole, kept or computed; None where that is not looked for.

        What is kept is found before anything is set for a run.
        """
        cached = run.options.cache
        records = run.options.training or (keeps_gradient_mode(training) and torch.is_grad_enabled())
        if cached is None or records or not cached.is_plain or run.feeds or run.wanted is not None:
            return None
        if (target := of_level(self, None, run.num_loop_steps)) is None:
            return None

        def make() -> dict[str, Any]:
            with RunScope(self, run, training), keeps_results(self, run):
                made: dict[str, Any] = self(run_context=run, **values)
                run.check_end()
            return made

        key = None if run.key is None else (run.key, run.sample)
        found = cached.call("/".join(run.path) or self.block_id, target, values, key, make, sets_eval=True)
        run.check_end()
        return found

    def _refuse_unknown(self, options: Collection[str], method: str = "run") -> None:
        try:
            super()._refuse_unknown(options, method)
        except TypeError:
            if (wrong := next((name for name in options if name in self.get_input_spec()), None)) is not None:
                raise TypeError(f"{self.block_id}: {method}() takes inputs in a mapping; write {method}({{{wrong!r}: ...}})") from None
            raise
