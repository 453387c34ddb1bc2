"""Worlds over models behind APIs: they finish, or pause with everything kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
import torch

from tests.integrations.api.answering_world import respond, world_of
from tests.waiting import at_some_pace
from wgtorch import BlockRegistry, World
from wgtorch.integrations.api import UsageMeter, cassette, close_clients, set_budget, set_price
from wgtorch.integrations.models.errors import (
    AnswerFormatError,
    ApiAnswerError,
    ApiAuthenticationError,
    ApiContentError,
    ApiQuotaError,
    ApiTransportError,
    BudgetError,
)
from wgtorch.testing import Reply, ScriptedServer, Seen, refusal


def same(first: object, second: object) -> bool:
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and torch.equal(first, second)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def episode(world: World) -> list[object]:
    return [world.state[slot] for slot in world.state_schema]


def test_a_world_runs_and_a_replayed_one_is_the_same_bit_for_bit_without_a_connection(server, build, tmp_path: Path) -> None:
    server.respond = respond
    recorded, meter = world_of(build), UsageMeter()
    with cassette(tmp_path / "tape.sqlite", mode="record"):
        recorded.run(num_steps=2, seed=7, callbacks=[meter])
    assert len(recorded.state.artifacts) == 3 and meter.total.calls == len(server.requests)
    assert meter.under("creator").calls == 6 and meter.under("philosopher").calls == 3
    connections = server.connections
    replayed = world_of(build)
    with cassette(tmp_path / "tape.sqlite", mode="replay"):
        replayed.run(num_steps=2, seed=7)
    assert same(episode(recorded), episode(replayed)) and server.connections == connections


TROUBLES = {
    "a wait of hours": (Reply("wait", status=429, headers={"Retry-After": "9999"}), ApiQuotaError),
    "an error of the server": (Reply("down", status=500), ApiTransportError),
    "silence": (Reply(hang=True), ApiTransportError),
    "broken JSON": (Reply(raw=b'{"cho'), ApiAnswerError),
    "another protocol": (Reply(raw=b'{"fine": true}'), ApiAnswerError),
    "half an answer": (Reply("hi", cut=20), ApiTransportError),
    "a refusal": (refusal(), ApiContentError),
    "a lost key": (Reply("who", status=401), ApiAuthenticationError),
}


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("place", ["JSON Schema", "images/generations", "image_url"])
def test_whatever_happens_the_world_pauses_and_goes_on_as_if_it_had_not(build, calm, trouble: str, place: str) -> None:
    reply, kind = TROUBLES[trouble]

    def check(limit: float) -> None:
        seen: list[Seen] = []
        with ScriptedServer(struck([reply], place, seen)) as server:
            world = world_of(build, endpoint_url=server.url, retries=0, timeout=limit)
            with pytest.raises(kind):
                world.run(num_steps=2, seed=5)
            world.run(num_steps=2, seed=5)
            # Nothing was asked for twice but what failed: its siblings brought their answers, and those were kept.
            assert same(episode(world), calm[0]) and len(server.requests) == calm[1] + 1

    at_some_pace(check, *limits_of(trouble))


PROTOCOLS = {
    "openai": {},
    "openai in streams": {"stream": True},
    "anthropic": {"provider": "anthropic"},
    "anthropic in streams": {"provider": "anthropic", "stream": True},
}
PASSING = {
    "limits": [Reply("slow down", status=429, headers={"Retry-After": "0.05"})] * 2,
    "a storm": [Reply("overloaded", status=status) for status in (500, 502, 503, 529)],
    "silence": [Reply(hang=True)],
    "half an answer": [Reply("one two three four", cut=3)] * 2,
    "a slow drip": [Reply("a very long answer that takes longer than anybody waits", drip=0.1)],
    "broken JSON": [Reply(raw=b'{"id": ')],
    "another protocol": [Reply(raw=b'{"fine": true}')],
    "a recipe that is none": [Reply("I would rather not.")],
}


def struck(replies: Sequence[Reply], place: str, seen: list[Seen]) -> Callable[[Seen], Reply | str]:
    """Gives the replies where ``place`` is asked for first, and then what is right."""
    left = list(replies)

    def answer(request: Seen) -> Reply | str:
        if left and place in request.path + request.content.decode("latin-1"):
            seen.append(request)
            return left.pop(0)
        return respond(request)

    return answer


SLOW = {"silence": ("openai in streams", "anthropic"), "a slow drip": ("openai", "anthropic in streams")}
"""Troubles that take a timeout to be seen, and with which protocols they are tried here."""


def each(troubles: Iterable[str]) -> list[tuple[str, str]]:
    return [(trouble, protocol) for trouble in troubles for protocol in SLOW.get(trouble, PROTOCOLS)]


def limits_of(trouble: str) -> tuple[float, ...]:
    """Long enough for a busy machine, short where it has to pass."""
    return (1.5, 6.0, 15.0) if trouble in SLOW else (60.0,)


@pytest.mark.parametrize(("trouble", "protocol"), each(PASSING))
def test_what_passes_is_weathered_and_the_world_finishes_as_if_it_had_not_been(build, calm, trouble: str, protocol: str) -> None:
    def check(limit: float) -> None:
        seen: list[Seen] = []
        with ScriptedServer(struck(PASSING[trouble], "JSON Schema", seen)) as server:
            texts = {**PROTOCOLS[protocol], "endpoint_url": server.anthropic_url if "anthropic" in protocol else server.url}
            world = world_of(build, texts=texts, endpoint_url=server.url, timeout=limit)
            world.run(num_steps=2, seed=5)
            assert same(episode(world), calm[0]) and len(seen) == len(PASSING[trouble]) and len(server.requests) == calm[1] + len(seen)

    at_some_pace(check, *limits_of(trouble))


@pytest.mark.parametrize(("trouble", "protocol"), [*each(["half an answer", "a refusal", "a lost key"]), ("silence", "anthropic")])
def test_every_protocol_pauses_the_world_with_everything_kept(build, calm, trouble: str, protocol: str) -> None:
    reply, kind = {**TROUBLES, "half an answer": (Reply("one two three four", cut=3), ApiTransportError)}[trouble]

    def check(limit: float) -> None:
        seen: list[Seen] = []
        with ScriptedServer(struck([reply], "JSON Schema", seen)) as server:
            texts = {**PROTOCOLS[protocol], "endpoint_url": server.anthropic_url if "anthropic" in protocol else server.url}
            world = world_of(build, texts=texts, endpoint_url=server.url, retries=0, timeout=limit)
            with pytest.raises(kind):
                world.run(num_steps=2, seed=5)
            assert world.state.intent is not None and world.state.recipe is None
            world.run(num_steps=2, seed=5)
            assert same(episode(world), calm[0]) and len(seen) == 1 and len(server.requests) == calm[1] + 1

    at_some_pace(check, *limits_of(trouble))


@pytest.mark.parametrize("spent", [{"calls": 4}, {"calls": 11}, {"tokens": 700}, {"money": 0.85}])
def test_the_same_call_goes_on_when_its_budget_is_raised_and_nothing_is_paid_for_twice(build, server, calm, spent: dict) -> None:
    server.respond = lambda seen: Reply(respond(seen), tokens=(50, 50))
    name = f"budget of {spent}"
    set_price("openai", name, call=0.1)
    world = world_of(build, model_id=name, budget=spent)
    with pytest.raises(BudgetError, match=f"{next(iter(spent))} is spent"):
        world.run(num_steps=2, seed=5)
    assert 3 < len(server.requests) < calm[1]
    set_budget("openai", name, **{unit: 100 * amount for unit, amount in spent.items()})
    world.run(num_steps=2, seed=5)
    assert same(episode(world), calm[0]) and len(server.requests) == calm[1]


@pytest.fixture(scope="module")
def calm() -> tuple[list[object], int]:
    """The world without troubles, and how many requests it makes."""
    with ScriptedServer(respond) as server:
        world = world_of(
            lambda kind, **config: BlockRegistry.build(
                {"block_type": kind, "config": {"model_id": "tiny", "endpoint_url": server.url, **config}}
            )
        )
        world.run(num_steps=2, seed=5)
        close_clients()
        return episode(world), len(server.requests)


def test_a_recipe_that_is_none_pauses_the_world_too(build, server, calm) -> None:
    wrong = ["first", "second"]
    server.respond = lambda seen: wrong.pop(0) if wrong and "JSON Schema" in seen.system else respond(seen)
    world = world_of(build)
    with pytest.raises(AnswerFormatError, match="'second' does not follow the schema"):
        world.run(num_steps=2, seed=5)
    assert world.state.intent is not None and world.state.recipe is None
    world.run(num_steps=2, seed=5)
    assert same(episode(world), calm[0])


def test_a_spent_budget_pauses_a_world_and_a_larger_one_lets_it_go_on_in_another_process(build, server, tmp_path: Path) -> None:
    server.respond = respond
    storage = {"state_dir": str(tmp_path / "life")}
    whole = world_of(build)
    whole.run(num_steps=2, seed=3)
    needed = len(server.requests)
    close_clients()
    server.requests.clear()

    world = world_of(build, budget={"calls": 2})
    world.set_storage(storage)
    with pytest.raises(BudgetError, match="budget of 2 calls is spent"):
        world.run(num_steps=2, seed=3)
    assert world.life.stage == 4 and world.state.recipe is not None and world.state.artifacts is None

    world = world_of(build, budget={"calls": 100})
    world.set_storage(storage)
    world.resume().run(num_steps=2)
    assert same(episode(world), episode(whole)) and len(server.requests) == needed


def test_what_was_edited_after_a_failure_is_asked_for_anew(build, server) -> None:
    world = world_of(build, retries=0)
    failing = True

    def storm(seen):
        return Reply("down", status=500) if failing and seen.prompt == "a lantern" else respond(seen)

    server.respond = storm
    with pytest.raises(ApiTransportError):
        world.run(seed=3)
    asked = len(server.requests)
    world.state = world.state.replace(recipe={"prompts": ["a dark sea", "another hut", "a lantern"]})
    failing = False
    world.run(seed=3)
    painted = [seen.prompt for seen in server.requests[asked:]]
    assert sorted(painted) == ["a lantern", "another hut"]
