"""A game: passes in a thread, pauses, edits, failures, what watchers are told."""

from __future__ import annotations

import asyncio

import pytest

from tests.play.worlds import FACTS, GATE, small_world, storytelling_world, told_world
from tests.waiting import wait_until
from wgtorch.play.game import Game, PlayError
from wgtorch.play.view import suggestions, view_of
from wgtorch.report.facts import cast_of, clock_of, map_of, map_svg
from wgtorch.world import World


@pytest.fixture
def game() -> Game:
    GATE.clear()
    return Game(small_world(), seed=3)


def played(game: Game, *actions: str | None) -> Game:
    for action in actions:
        game.act(action)
        game.wait(60)
    return game


def test_of_the_past_only_what_a_view_lacks_comes_until_it_is_another(tmp_path):
    game = Game(small_world(), seed=1, folder=tmp_path)
    first = view_of(played(game, "sing", "dance"))
    later = view_of(played(game, "swim"), first["past"], 0)
    assert later["after"] == 0
    assert [entry["action"] for entry in later["episodes"]] == ["dance", "swim"]
    assert later["past"] == first["past"]
    assert [entry["step"] for entry in view_of(game, "of another life", 0)["episodes"]] == [0, 1, 2]
    game.undo()
    again = view_of(played(game, "climb"), first["past"], 1)
    assert again["after"] == -1
    assert [entry["action"] for entry in again["episodes"]] == ["sing", "dance", "climb"]
    assert not {*again["episodes"][-1]["pictures"]} & {*later["episodes"][-1]["pictures"]}, "a browser would show the picture of before"
    game.fork("other")
    assert view_of(game, again["past"], 1)["after"] == -1


def test_a_pass_brings_an_episode_with_its_action_and_picture(game):
    view = view_of(played(game, "sing <script>", None))
    assert view["passes"] == 2
    assert view["seed"] == 3
    assert [entry["action"] for entry in view["episodes"]] == ["sing <script>", ""]
    assert view["episodes"][0]["texts"]["intent"] == "It comes to pass: sing <script>"
    assert view["episodes"][-1]["texts"]["intent"] == "It comes to pass: None"
    assert view["episodes"][-1]["pictures"] == [f"1/0.png?v={view['past']}"]
    assert game.episodes["main"].picture("1", 0).startswith(b"\x89PNG")
    assert game.episodes["main"].picture("now", 0).startswith(b"\x89PNG")
    assert game.episodes["main"].picture("now", 1) is None
    assert game.episodes["main"].picture("9", 0) is None


def test_only_one_pass_at_a_time(game):
    game.act("hold")
    for ask in (
        lambda: game.act("more"),
        lambda: game.edit("intent", "x"),
        lambda: game.undo(),
        lambda: game.fork("b"),
        lambda: game.switch("main"),
    ):
        with pytest.raises(PlayError, match="busy"):
            ask()
    GATE.set()
    game.wait(60)
    assert game.world.life.passes == 1


def test_who_hears_that_a_pass_is_over_finds_the_world_free():
    class Watched(Game):
        free: bool | None = None

        def publish(self, kind, **data):
            super().publish(kind, **data)
            if kind == "pass":
                self.free = not view_of(self)["busy"]

    assert played(Watched(small_world(), seed=3), "sing").free


def test_a_pass_waits_where_it_is_told_to_and_slots_can_be_edited_there(game):
    with pytest.raises(PlayError, match="no stage 'draem'; did you mean 'dream'"):
        game.set_pauses(["draem"])
    game.set_pauses(["dream"])
    told = []
    game.publish, publish = lambda kind, **data: (told.append(kind), publish(kind, **data)), game.publish
    game.act("sing")
    wait_until(lambda: game.paused_after == "dream")
    assert view_of(game)["paused"] == "dream"
    game.edit("intent", "It rains frogs")
    game.proceed()
    game.wait(60)
    assert game.world.state.intent == "It rains frogs"
    assert told == ["begun", "stage", "paused", "changed", "stage", "pass"]
    with pytest.raises(PlayError, match="nothing waits"):
        game.proceed()


def test_a_stopped_pass_goes_on_from_there(game):
    game.set_pauses(["dream"])
    game.act("sing")
    wait_until(lambda: game.paused_after == "dream")
    game.stop()
    game.wait(60)
    assert (game.world.life.passes, game.world.life.stage) == (0, 1)
    game.set_pauses([])
    played(game, None)
    assert game.world.state.intent == "It comes to pass: sing"
    assert game.world.life.passes == 1


def test_a_failure_is_told_and_the_next_action_tries_again(game):
    played(game, "fail")
    view = view_of(game)
    assert view["error"]["type"] == "RuntimeError"
    assert "the dreamer is out of <b>dreams</b>" in view["error"]["message"]
    assert "stopped at pass" in view["error"]["message"] and "world." not in view["error"]["message"], "its reader is at a page"
    assert not view["busy"]
    assert view_of(played(game, "sing"))["error"] is None
    assert game.world.life.passes == 1


def test_an_edit_of_the_newest_stored_episode_is_seen(game):
    played(game, "sing", "dance")
    assert [entry["texts"]["intent"] for entry in view_of(game)["episodes"]][-1] == "It comes to pass: dance"
    past = view_of(game)["past"]
    game.edit("intent", "It rains frogs")
    game.wait(60)
    view = view_of(game)
    assert view["episodes"][-1]["texts"]["intent"] == "It rains frogs" and view["past"] != past


@pytest.mark.parametrize(
    ("slot", "text", "words"),
    [("intnet", "x", "did you mean 'intent'"), ("artifacts", "x", "cannot be written as text")],
)
def test_edits_that_do_not_fit_are_refused(game, slot, text, words):
    played(game, "sing")
    with pytest.raises(PlayError, match=words):
        game.edit(slot, text)


def test_data_is_edited_as_json_of_the_same_kind(game):
    played(game, "sing")
    game.world.state = game.world.state.replace(intent={"text": "a"})
    with pytest.raises(PlayError, match="expected JSON, as it was"):
        game.edit("intent", "{")
    with pytest.raises(PlayError, match="expected a mapping, as it was, found a list"):
        game.edit("intent", "[]")
    game.edit("intent", '{"text": "b"}')
    assert game.world.state.intent == {"text": "b"}


def test_what_cannot_be_taken_back_is_refused(game):
    with pytest.raises(PlayError, match="there are 0 passes; 1 cannot be taken back"):
        game.undo()
    with pytest.raises(PlayError, match="a name of its own; there are main"):
        game.fork("main")
    with pytest.raises(PlayError, match="no branch 'mian'; did you mean 'main'"):
        game.switch("mian")
    with pytest.raises(PlayError, match="at most 2000"):
        game.act("x" * 2001)


def test_passes_are_taken_back_one_by_one_to_the_beginning(game):
    played(game, "sing", "dance", "climb")
    game.undo()
    assert game.world.life.passes == 2
    assert game.world.state.intent == "It comes to pass: dance"
    assert [entry["action"] for entry in view_of(game)["episodes"]] == ["sing", "dance"]
    game.undo(2)
    assert game.world.life.passes == 0
    assert view_of(game)["episodes"] == []
    assert view_of(played(game, "swim"))["episodes"][0]["texts"]["intent"] == "It comes to pass: swim"


def test_branches_own_their_future_and_are_found_again(tmp_path):
    world = small_world()
    world.set_storage({"state_dir": str(tmp_path / "states")})
    game = played(Game(world, seed=3, folder=tmp_path / "branches"), "sing", "dance")
    with pytest.raises(PlayError, match="there are 2 passes; a branch begins after one of them, found 3"):
        game.fork("late", 3)
    game.fork("other", 1)
    assert [entry["action"] for entry in view_of(game)["episodes"]] == ["sing"]
    played(game, "climb")
    game.switch("main")
    assert [entry["action"] for entry in view_of(game)["episodes"]] == ["sing", "dance"]
    game.fork("third")

    again = small_world()
    again.set_storage({"state_dir": str(tmp_path / "states")})
    found = Game(again.resume(), folder=tmp_path / "branches")
    assert {name: found.parents[name] for name in found.branches} == {"main": None, "other": ("main", 1), "third": ("main", 2)}
    found.switch("other")
    assert view_of(found)["episodes"][-1]["texts"]["intent"] == "It comes to pass: climb"
    assert view_of(played(found, "swim"))["passes"] == 3


def test_an_edit_of_what_was_used_already_has_the_later_stages_run_again(game):
    played(game, "sing")
    before = game.world.state.artifacts[0].clone()
    game.edit("intent", "Frogs fall")
    game.wait(60)
    assert game.world.state.intent == "Frogs fall"
    assert game.world.life.passes == 1
    assert not bool((game.world.state.artifacts[0] == before).all())


def test_what_comes_of_an_action_is_told_before_the_next_one():
    game = played(Game(told_world(), seed=3), "sing")
    assert (game.world.life.passes, game.world.life.stage) == (1, 1)
    assert view_of(game)["episodes"][-1]["texts"] == {"intent": "It comes to pass: sing", "outcome": "So it was. It comes to pass: sing"}
    played(game, "dance")
    assert [entry["action"] for entry in view_of(game)["episodes"]] == ["sing", "dance"]
    assert game.world.state.outcome == "So it was. It comes to pass: dance"
    game.undo()
    assert (game.world.life.passes, game.world.life.stage, game.world.state.outcome) == (1, 1, "So it was. It comes to pass: sing")
    game.fork("other")
    assert played(game, "climb").world.state.outcome == "So it was. It comes to pass: climb"


def test_an_edit_of_a_told_episode_has_it_made_and_told_again():
    game = played(Game(told_world(), seed=3), "sing")
    before = game.world.state.artifacts[0].clone()
    game.edit("intent", "Frogs fall")
    game.wait(60)
    assert game.world.state.outcome == "So it was. Frogs fall"
    assert not bool((game.world.state.artifacts[0] == before).all())
    game.edit("outcome", "Nobody saw it")
    assert not game.is_busy
    assert view_of(game)["episodes"][-1]["texts"]["outcome"] == "Nobody saw it"
    played(game, "dance")
    assert view_of(game)["episodes"][0]["texts"]["outcome"] == "Nobody saw it"


def test_a_life_that_ended_before_it_was_told_is_told_when_it_is_taken_up():
    world = told_world()
    world.run(action="sing", seed=3)
    game = Game(world)
    game.tell()
    game.wait(60)
    assert game.world.state.outcome == "So it was. It comes to pass: sing"
    game.tell()
    assert not game.is_busy


def test_a_new_life_begins_by_itself_and_one_that_has_begun_does_not(game):
    game.begin()
    game.wait(60)
    assert (game.world.life.passes, game.action) == (1, None)
    game.begin()
    game.wait(60)
    assert game.world.life.passes == 1


def test_a_first_pass_that_was_cut_off_goes_on_by_itself():
    world = small_world()
    for _ in world.stream(seed=5):
        break
    assert (world.life.passes, world.life.stage) == (0, 1)
    game = Game(world)
    game.begin()
    game.wait(60)
    assert (world.life.passes, world.life.seed, game.error) == (1, 5, None)


def test_a_world_that_asks_models_behind_an_api_waits_for_somebody():
    game = Game(storytelling_world())
    game.begin()
    assert not game.is_busy
    assert game.world.life.passes == 0


def test_watchers_are_told_and_those_who_come_back_hear_what_they_missed(game):
    async def watch() -> list[str]:
        with game.subscribed() as queue:
            game.publish("changed")
            first = await asyncio.wait_for(queue.get(), 60)
        game.publish("pass")
        with game.subscribed(after=first["id"]) as queue:
            second = await asyncio.wait_for(queue.get(), 60)
        return [first["kind"], second["kind"]]

    assert asyncio.run(watch()) == ["changed", "pass"]


def test_the_map_shows_what_is_known_and_what_lies_beside_it():
    shown = {tuple(place["at"]): place for place in map_of(FACTS)["places"]}
    assert set(shown) == {(0, 0), (0, 1)}
    assert shown[0, 0]["name"] == "Fen"
    assert shown[0, 0]["here"]
    assert shown[0, 1] == {"name": None, "at": [0, 1], "terrain": None, "landmark": None, "state": None, "here": False, "way": "north"}


def test_the_page_shows_the_facts_as_the_newest_episode_leaves_them():
    game = played(Game(World.from_template("default"), seed=4), "look around", "look around")
    content = game.world.content
    way, there = next(iter(content["places"][content["characters"][content["traveller"]]["place"]]["neighbours"].items()))
    view = view_of(played(game, f"go {way}"))
    assert view["episodes"][-1]["resolution"]["status"] == "done"
    assert [place["name"] for place in view["map"]["places"] if place["here"]] == [there]


def test_the_map_of_a_report_is_the_same_map():
    svg = map_svg(FACTS)
    assert 'aria-label="1 of 3 places are known"' in svg
    assert svg.count("<rect") == 2 and "Fen: marsh, well" in svg and "Far" not in svg
    assert map_svg({}) == ""


def test_the_cast_are_those_one_can_know_and_goals_of_others_are_not_told():
    cast = cast_of(FACTS)
    assert [entry["name"] for entry in cast] == ["Ada", "Bo"]
    assert cast[0]["carries"] == ["a key (broken)"]
    assert cast[1]["goal"] is None


def test_suggestions_come_from_the_facts_or_from_the_world():
    assert suggestions(FACTS, None) == ["talk to Bo", "take the a cup", "go north", "wait"]
    assert len(suggestions({}, None)) == 4
    assert clock_of(FACTS) == {"day": 3, "hour": 19, "part": "dusk", "weather": "rain"}
    assert map_of({}) is None
    assert cast_of({}) == []
