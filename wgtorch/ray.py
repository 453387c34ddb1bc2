"""Beyond one machine with Ray: many worlds on many workers, and levels behind Ray Serve. Needs ``pip install wgtorch[ray]``.

Ray places workers and counts GPUs. What is kept of a world is in its storage, commit by commit, so what a killed worker had goes on
with another at the stage where it was.

    run_worlds(config, seeds=range(1000), num_steps=50, storage="/shared/runs")
       worker 0  [models once]  seed 0 -> /shared/runs/0      seed 8 -> ...
       worker 1  [models once]  seed 1 -> /shared/runs/1      ...
"""

from __future__ import annotations

import os
import pickle
import time
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from wgtorch.cli.target import level_from, open_level
from wgtorch.core.errors import EndpointError, PortTypeError, StateError, StructureError, require
from wgtorch.core.kinds import describe
from wgtorch.core.level import Level
from wgtorch.core.run.joined_runs import run_items
from wgtorch.core.run.rng import check_seed
from wgtorch.core.trust import Trust
from wgtorch.storage import open_storage
from wgtorch.storage.base import History
from wgtorch.world import World
from wgtorch.world_runtime.state import State


@dataclass(frozen=True)
class WorldRun:
    """What became of one world. Its States are in its storage, and are read when they are asked for.

    Args:
        seed: of its life.
        storage: where its log is.
        passes: how many it has lived.
        error: what it failed with; None where it lived to its end.
        seconds: how long the last worker was at it.
    """

    seed: int
    storage: str
    passes: int = 0
    error: Exception | None = None
    seconds: float = 0.0

    @property
    def history(self) -> History:
        """Its stored States, the oldest first."""
        return History(open_storage(self.storage))

    @property
    def state(self) -> State | None:
        """The State in flight after its last pass."""
        life = open_storage(self.storage).read_life()
        return None if life is None else life.state


def run_worlds(
    config: Mapping[str, Any] | str | os.PathLike[str],
    *,
    seeds: Iterable[int],
    num_steps: int,
    storage: str | os.PathLike[str],
    action: Any = None,
    params: Mapping[str, Any] | None = None,
    trust: Trust | None = None,
    workers: int | None = None,
    worlds_per_call: int = 1,
    placement: Mapping[str, Any] | None = None,
    max_restarts: int = 3,
) -> list[WorldRun]:
    """Lives one world for each seed, on as many workers as there is room for.

    A worker builds the world once and lives one seed after the other through the same models. Each world has a folder below ``storage``,
    which all workers have to see. Worlds that are there already go on from where they are, so a call that was interrupted is made again
    with the same arguments; a world that has lived ``num_steps`` passes is left as it is. Results are those of
    ``world.run(num_steps=..., seed=seed)`` in one process.

    Args:
        config: a world's config, a template (its name, or ``{"template": ..., "params": {...}}``), or the path of a config or of a saved
            folder, which all workers have to see.
        seeds: one for each world.
        num_steps: passes that each has lived in the end.
        storage: a folder, or an address that fsspec knows, where each world keeps its log under the number of its seed.
        action: one for all worlds and passes, or a list with one for each world, of which each may be a list with one for each pass.
        params: of a template that is named.
        trust: what a file may do beyond being data.
        workers: how many; as many as the cluster has room for when left out, and never more than there is work for.
        worlds_per_call: how many worlds a worker lives at once; their calls of local models join to one, as in a
            :class:`~wgtorch.world_batch.WorldBatch`.
        placement: what a worker needs, as of Ray's ``options``: ``{"num_cpus": 2, "num_gpus": 0.5, "scheduling_strategy": "SPREAD"}``.
        max_restarts: how often worlds whose worker was killed are given to another; they have failed after that.

    Returns:
        For each seed what became of its world, in their order. One that failed has its ``error``, and the others are not lost.

    Raises:
        PortTypeError: seeds, actions or a number are not what they have to be.
        ConfigError, UnknownNameError: the config describes no world.

    Example:
        >>> runs = wgtorch.ray.run_worlds("default", seeds=range(64), num_steps=10, storage="runs/many", placement={"num_cpus": 1})
        >>> [run.seed for run in runs if run.error is not None]
    """
    jobs = _jobs(seeds, num_steps, storage, action)
    for name, number, least in (("worlds_per_call", worlds_per_call, 1), ("max_restarts", max_restarts, 0)):
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise PortTypeError(f"run_worlds: {name} is {number!r}; expected a whole number from {least}")
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
        raise PortTypeError(f"run_worlds: workers is {workers!r}; expected a whole number from 1, or None for as many as there is room for")
    chunks = [jobs[first : first + worlds_per_call] for first in range(0, len(jobs), worlds_per_call)]
    ray: Any = require("ray", "ray")
    if not ray.is_initialized():
        ray.init()
    needs = {"num_cpus": 1, **(placement or {})}
    start = partial(ray.remote(_Worker).options(**needs).remote, config, params, trust)
    count = min(len(chunks), _room(ray.cluster_resources(), needs) if workers is None else workers)
    actors = [start() for _ in range(count)]
    try:
        found = _distributed(ray, actors, chunks, start, max_restarts)
    finally:
        for actor in actors:
            ray.kill(actor)
    return [found[seed] for seed, _, _ in jobs]


Job = tuple[int, str, list[Any]]
"""A world's seed, its storage, and its action in each pass."""


def _jobs(seeds: Any, num_steps: Any, storage: Any, action: Any) -> list[Job]:
    if isinstance(seeds, (int, str)) or not isinstance(seeds, Iterable):
        raise PortTypeError(f"run_worlds: seeds is {describe(seeds)}; expected one for each world, as range(64)")
    all_seeds = list(seeds)
    for seed in all_seeds:
        check_seed(seed, "run_worlds")
    if len(set(all_seeds)) != len(all_seeds):
        raise PortTypeError(f"run_worlds: {len(all_seeds)} seeds, {len(set(all_seeds))} different; two worlds would be the same")
    if isinstance(num_steps, bool) or not isinstance(num_steps, int) or num_steps < 0:
        raise PortTypeError(f"run_worlds: num_steps is {num_steps!r}; expected a whole number of passes from 0")
    actions = list(action) if isinstance(action, (list, tuple)) else [action] * len(all_seeds)
    if len(actions) != len(all_seeds):
        raise PortTypeError(
            f"run_worlds: {len(actions)} actions for {len(all_seeds)} worlds; give one for all, or a list with one for each"
        )
    jobs = []
    for seed, own in zip(all_seeds, actions, strict=True):
        passes = list(own) if isinstance(own, (list, tuple)) else [own] * num_steps
        if len(passes) != num_steps:
            raise PortTypeError(f"run_worlds: {len(passes)} actions for {num_steps} passes of seed {seed}; give one for each pass")
        place = os.fspath(storage) if "://" in os.fspath(storage) else os.path.abspath(storage)
        jobs.append((int(seed), f"{place.rstrip('/')}/{int(seed)}", passes))
    return jobs


def _room(cluster: Mapping[str, float], needs: Mapping[str, Any]) -> int:
    """How many workers a cluster has room for."""
    asked = {"CPU": needs.get("num_cpus"), "GPU": needs.get("num_gpus"), **(needs.get("resources") or {})}
    return max(1, min((int(cluster.get(name, 0) // amount) for name, amount in asked.items() if amount), default=1))


def _distributed(ray: Any, actors: list[Any], chunks: Sequence[list[Job]], start: Any, max_restarts: int) -> dict[int, WorldRun]:
    """What became of all worlds, by seed; whoever is through gets the next, and what a killed worker had is given to another."""
    found: dict[int, WorldRun] = {}
    todo, idle = [(chunk, 0) for chunk in reversed(chunks)], list(actors)
    going: dict[Any, tuple[Any, list[Job], int]] = {}
    while todo or going:
        while todo and idle:
            actor, (chunk, tries) = idle.pop(), todo.pop()
            going[actor.live.remote(chunk)] = (actor, chunk, tries)
        for done in ray.wait(list(going), num_returns=1)[0]:
            actor, chunk, tries = going.pop(done)
            try:
                found.update((run.seed, run) for run in ray.get(done))
            except ray.exceptions.RayActorError as error:  # it is dead, or nobody reaches it
                ray.kill(actor)
                actors.remove(actor)
                actors.append(actor := start())
                if tries < max_restarts:
                    todo.append((chunk, tries + 1))
                else:
                    found.update((seed, WorldRun(seed, storage, error=error)) for seed, storage, _ in chunk)
            idle.append(actor)
    return found


class _Worker:
    """Lives worlds, through models that it has once."""

    def __init__(self, config: Any, params: Any, trust: Any) -> None:
        self.source = (config, params, trust)
        self.world: World | None = None

    def live(self, jobs: Sequence[Job]) -> list[WorldRun]:
        """Lives worlds to their ends, from where their storages say that they are."""
        if self.world is None:
            level = _level(*self.source)
            if not isinstance(level, World):
                raise StructureError(f"run_worlds: the config describes a {level.level}; expected a world")
            self.world = level
        runs = [partial(_lived, self.world, *job) for job in jobs]
        return run_items(runs, joins=len(jobs) > 1)


def _lived(world: World, seed: int, storage: str, actions: Sequence[Any]) -> WorldRun:
    started, own = time.monotonic(), world.fork()
    error: Exception | None = None
    try:
        own.set_storage(open_storage(storage))
        if own.history.storage.read_life() is None:
            own.life.seed = seed
        elif own.resume().life.seed != seed:
            raise StateError(f"{storage}: holds the life of seed {own.life.seed}; expected {seed}. Choose another storage")
        while own.life.passes < len(actions):
            own.run(num_steps=1, action=actions[own.life.passes])
    except Exception as raised:  # it is this world's own, and the others go on
        error = _sendable(raised)
    return WorldRun(seed, storage, own.life.passes, error, time.monotonic() - started)


def _sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever a foreign class raises when it is pickled
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _level(config: Any, params: Any, trust: Any) -> Level:
    if isinstance(config, Level):
        return config
    if isinstance(config, Mapping):
        return level_from(config)
    return open_level(os.fspath(config), params, trust=trust)


def deploy(
    level: Level | Mapping[str, Any] | str | os.PathLike[str],
    *,
    name: str = "wgtorch",
    num_replicas: int = 1,
    num_gpus: float = 0,
    num_cpus: float = 1,
    route_prefix: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    params: Mapping[str, Any] | None = None,
    trust: Trust | None = None,
    **options: Any,
) -> str:
    """Serves a level by Ray Serve: the HTTP service of ``wgtorch serve``, in replicas that Ray places and starts again.

    A replica builds the level once; concurrent requests to it share calls as they do there. A node with
    ``{"endpoint_url": <what this returns>}`` runs it from anywhere.

    Args:
        level: a level, which is copied to each replica; or a config, a template's name or a path, as of :func:`run_worlds`.
        name: of the application; another one of that name is replaced.
        num_replicas: how many. A world has one: it keeps its visitors' lives.
        num_gpus, num_cpus: share of each replica, such as ``num_gpus=0.5``; with GPUs the level is moved to the one that it got.
        route_prefix: where it lies below the address; ``/<name>`` when left out.
        host, port: of Ray Serve's proxy, where it is not running yet.
        params, trust: as of :func:`run_worlds`.
        options: of :func:`wgtorch.serving.server.make_app`: ``api_key``, ``limits``, ``cors``, ...

    Returns:
        Its address.

    Raises:
        StructureError: several replicas of a world.
        EndpointError: Ray Serve listens elsewhere than at ``host`` and ``port``.

    Example:
        >>> url = wgtorch.ray.deploy("text_to_image", name="painter", num_replicas=8, num_gpus=0.5)
    """
    ray: Any = require("ray", "ray")
    serve: Any = require("ray.serve", "ray")
    if not ray.is_initialized():
        ray.init()
    if isinstance(level, Level):
        _refuse_replicas(level, num_replicas)
    source = ray.put(level) if isinstance(level, Level) else level

    def app() -> Any:
        from wgtorch.serving.server import make_app

        own = _level(ray.get(source) if isinstance(source, ray.ObjectRef) else source, params, trust)
        _refuse_replicas(own, num_replicas)
        if num_gpus:
            return make_app(own.to("cuda"), device="cuda", **options)
        return make_app(own, **options)

    serve.start(http_options={"host": host, "port": port})
    needs = {"num_gpus": num_gpus, "num_cpus": num_cpus}
    deployment = serve.deployment(serve.ingress(app)()).options(name=name, num_replicas=num_replicas, ray_actor_options=needs)
    prefix = route_prefix or f"/{name}"
    serve.run(deployment.bind(), name=name, route_prefix=prefix)
    url = f"http://{host}:{port}{prefix.rstrip('/')}"
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=10):
            return url
    except OSError as error:
        raise EndpointError(
            f"deploy: {name} runs, and {url} does not answer ({error}); give the host and port that Ray Serve listens at"
        ) from error


def _refuse_replicas(level: Level, num_replicas: int) -> None:
    if level.level == "world" and num_replicas != 1:
        raise StructureError(f"deploy: {num_replicas} replicas of a world; expected 1, since it keeps its visitors' lives")
