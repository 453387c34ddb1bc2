"""What a served level does with a request, without any HTTP: checks it, runs, and gives the answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from wgtorch.core.block import Block
from wgtorch.core.composite import Composite
from wgtorch.core.errors import Finding, RequestError, StateError
from wgtorch.core.run.active_call import ActiveCall, enter_call, leave_call
from wgtorch.core.run.context import RunContext, RunOptions
from wgtorch.core.run.error_paths import name_root
from wgtorch.core.run.events import Callback, Event
from wgtorch.core.run.foreign_draws import serving
from wgtorch.core.run.modes import training_mode
from wgtorch.core.run.port_checks import named_outputs
from wgtorch.core.run.result_cache import keeping_nothing
from wgtorch.core.run.rng import GLOBAL_RNG, Rng, check_seed
from wgtorch.core.run.run_values import inner_port
from wgtorch.core.tree import split_path
from wgtorch.integrations.api.usage import UsageMeter
from wgtorch.serving.checks import check_action, check_values, refuse_path_slots, refuse_paths
from wgtorch.serving.contracts import contract_of
from wgtorch.serving.requests import StageRequest, TaskRequest, WorldRequest, _Request, read_request
from wgtorch.stage import Stage
from wgtorch.world import World
from wgtorch.world_runtime.cycle import WorldStep
from wgtorch.world_runtime.state import State

Tell = Callable[[dict[str, Any]], None]
"""Sends a message of a stream."""


def service_for(level: Any, *, device: torch.device | str | None = None, timeout: float | None = None) -> Service:
    """The service of a block or level.

    Args:
        level: what is served; it is used as it is, not copied.
        device: where tensors of requests are moved.
        timeout: seconds that a run may take; looked at between nodes.
    """
    kinds: dict[type, type[Service]] = {World: WorldService, Stage: StageService, Composite: TaskService, Block: BlockService}
    return next(service for kind, service in kinds.items() if isinstance(level, kind))(level, device=device, timeout=timeout)


class Service:
    """A level and its contract."""

    request_class: ClassVar[type[_Request]] = TaskRequest

    def __init__(self, level: Any, *, device: torch.device | str | None = None, timeout: float | None = None) -> None:
        self.level = level
        self.device = device
        self.timeout = timeout
        self.contract = contract_of(level)

    def answer(
        self, message: Mapping[str, Any], *, tell: Tell | None = None, cancelled: Callable[[], bool] | None = None
    ) -> dict[str, Any]:
        """Runs the level for one request.

        Args:
            message: the request.
            tell: is told what happens on the way; streams use it.
            cancelled: asked between nodes.

        Raises:
            RequestError: the request is not valid; nothing has run.
            Exception: whatever the run raises.
        """
        request = read_request(self.request_class, message)
        self.check_digest(request)
        return self.answered(request, tell, cancelled)

    def answered(self, request: Any, tell: Tell | None, cancelled: Callable[[], bool] | None) -> dict[str, Any]:
        """The answer to a request that was read."""
        raise NotImplementedError

    def limit(self, asked: float | None) -> float | None:
        """Seconds that a run may take: the least of what is set here and what a caller waits for."""
        return _least(self.timeout, asked)

    def check_digest(self, request: _Request) -> None:
        if request.contract is not None and request.contract != self.contract["digest"]:
            found = Finding(
                self.level.block_id,
                f"its contract is {self.contract['digest']} and the caller was built against {request.contract}",
                "the same",
                "Build the caller again, without the contract it was given, so that it fetches the new one.",
            )
            raise RequestError("the contract of this endpoint has changed", [found], status=409)

    def _run_for(self, request: _Request, callbacks: tuple[Callback, ...], cancelled: Callable[[], bool] | None) -> RunContext:
        """The run that a request continues; its own when it names no place."""
        given = tuple(request.draws)
        return RunContext(
            RunOptions(self.level.block_id, callbacks, cancelled, _deadline(self.timeout, request.timeout)),
            path=tuple(request.path),
            key=given if len(given) > 1 else given[0] if given else check_seed(request.seed, self.level.block_id),
            num_loop_steps=request.num_loop_steps,
            iterations=tuple(request.iterations),
            sample=tuple(request.sample),
        )

    @contextmanager
    def _running(self, run: RunContext) -> Iterator[None]:
        root = "/".join(run.path) or run.options.root
        with torch.set_grad_enabled(False), training_mode(self.level, False), serving(run.key is not None):
            try:
                yield
            except Exception as error:
                name_root(error, root)
                raise

    def _here(self, values: Any) -> Any:
        if self.device is None:
            return values
        return tree_map(lambda value: value.to(self.device) if isinstance(value, Tensor) else value, values)


class TaskService(Service):
    """A graph or pipeline: values by input, values by output."""

    def answered(self, request: TaskRequest, tell: Tell | None, cancelled: Callable[[], bool] | None) -> dict[str, Any]:
        return {"outputs": self.outputs(request, () if tell is None else (partial(_tell_event, tell),), cancelled)}

    def outputs(self, request: TaskRequest, callbacks: tuple[Callback, ...], cancelled: Callable[[], bool] | None) -> dict[str, Any]:
        """Values by output."""
        level: Composite = self.level
        values = self.checked(request)
        if not request.path:
            with keeping_nothing():  # the next request may be another caller's
                return level.run(
                    values,
                    outputs=request.outputs,
                    seed=request.seed,
                    num_loop_steps=request.num_loop_steps,
                    callbacks=callbacks,
                    timeout=self.limit(request.timeout),
                    cancelled=cancelled,
                )
        run = self._run_for(request, callbacks, cancelled)
        with self._running(run):
            found: dict[str, Any] = level(run_context=run, **values)
            return found

    def checked(self, request: TaskRequest) -> dict[str, Any]:
        """The request's inputs, on the level's device and known to fit.

        Raises:
            RequestError: they do not fit; nothing has run.
        """
        level: Composite = self.level
        given, spec = self._here(request.inputs), level.get_input_spec()
        inner = {name: inner_port(level, *split_path(name), name) for name in given if name not in spec and "." in name}
        refuse_paths(given, {**spec, **inner}, level.block_id)
        return given if inner else check_values(given, spec, level.block_id)


class BlockService(Service):
    """One block."""

    def answered(self, request: TaskRequest, tell: Tell | None, cancelled: Callable[[], bool] | None) -> dict[str, Any]:
        return {"outputs": self.outputs(request)}

    def outputs(self, request: TaskRequest) -> dict[str, Any]:
        """Values by output, drawn as a node at the request's place would draw them."""
        block: Block = self.level
        given = self._here(request.inputs)
        refuse_paths(given, block.get_input_spec(), block.block_id)
        values = check_values(given, block.get_input_spec(), block.block_id)
        run = self._run_for(request, (), None)
        rng = GLOBAL_RNG if run.key is None else Rng.of(run.key, run.sample)
        with self._running(run):
            token = enter_call(ActiveCall(run))
            try:
                result = block(**values, rng=rng) if block.wants_rng else block(**values)
            finally:
                leave_call(token)
        named = named_outputs(result, tuple(block.get_output_spec().values()), block.block_id)
        return {name: value for name, value in named.items() if request.outputs is None or name in request.outputs}


class StageService(Service):
    """A stage: a State in, and what changed of it out."""

    request_class = StageRequest

    def answered(self, request: StageRequest, tell: Tell | None, cancelled: Callable[[], bool] | None) -> dict[str, Any]:
        stage: Stage = self.level
        state = _state(request.state, request.state_schema, stage.block_id)
        refuse_path_slots([stage], {**state, "action": request.action, "content": request.content or {}})
        state = stage.normalised(State(schema=state.schema, **self._here(dict(state))), strict=True)
        content = self._here(request.content)
        run = self._run_for(request, () if tell is None else (partial(_tell_event, tell),), cancelled)
        run.state = state
        if (reason := stage.why_skipped(state)) is not None:
            return {"state": {}, "skipped": reason}
        with self._running(run):
            after = stage(state, action=request.action, content=content, run_context=run)
        answer: dict[str, Any] = {"state": {slot: after[slot] for slot in after.schema if after[slot] is not state[slot]}}
        if run.content is not None and run.content is not content:
            answer["content"] = run.content
        return answer


class WorldService(Service):
    """A world: one life, which every call lives on; a second call waits for the first."""

    request_class = WorldRequest

    def __init__(self, level: Any, *, device: torch.device | str | None = None, timeout: float | None = None) -> None:
        super().__init__(level, device=device, timeout=timeout)
        self._turn = threading.Lock()
        self.used = UsageMeter()
        """What the models of its calls used, since it is served."""

    def answered(self, request: WorldRequest, tell: Tell | None, cancelled: Callable[[], bool] | None) -> dict[str, Any]:
        world: World = self.level
        state = None if request.state is None else _state(request.state, list(world.state_schema), world.block_id)
        refuse_path_slots(world.nodes.values(), {**(state or {}), "action": request.action})
        check_action(request.action, request.num_steps, world)
        limit = _least(self.timeout, request.timeout)
        if not self._turn.acquire(timeout=-1 if limit is None else limit):
            raise RequestError(f"{world.block_id}: lives through another call; try again later", status=503)
        try:
            options = {"action": request.action, "num_steps": request.num_steps, "seed": request.seed}
            with closing(world.stream(state, **options, timeout=limit, cancelled=cancelled, callbacks=self.used)) as steps:
                for step in steps:
                    if tell is not None:
                        tell({"step": _told(step)})
            after = world.state
            return {
                "state": None if after is None else dict(after),
                "content": dict(world.content),
                "passes": world.life.passes,
                "seed": world.life.seed,
            }
        finally:
            self._turn.release()


def _state(slots: Mapping[str, Any], schema: list[str] | None, where: str) -> State:
    try:
        return State(**({} if schema is None else {"schema": tuple(schema)}), **slots)
    except (StateError, TypeError) as error:
        raise RequestError("the state does not fit", [Finding(f"{where}: state", str(error))]) from None


def _tell_event(tell: Tell, event: Event) -> None:
    """An event without the values in it, which may be large; what a model used, and pieces of its text, go along."""
    told = {name: getattr(event, name) for name in ("kind", "path", "level", "step", "total", "elapsed", "reason")}
    outputs = event.outputs or {}
    shown = dict(outputs) if event.kind == "chunk" else {name: outputs[name] for name in ("usage",) if name in outputs}
    tell({"event": {**told, "outputs": shown} if shown else told})


def _told(step: WorldStep) -> dict[str, Any]:
    told = {name: getattr(step, name) for name in ("kind", "index", "stage", "skipped", "stored", "elapsed")}
    return {**told, "state": None if step.state is None else dict(step.state)}


def _least(*limits: float | None) -> float | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _deadline(*limits: float | None) -> float | None:
    limit = _least(*limits)
    return None if limit is None else time.monotonic() + limit
