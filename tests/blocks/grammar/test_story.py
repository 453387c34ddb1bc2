"""The grammar: what may come next, and sentences that say it."""

from __future__ import annotations

import copy
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgtorch.blocks.grammar.story import (
    _NEIGHBOURS,
    _WEATHER_AFTER,
    intent_of,
    new_landmark,
    next_scene,
    outcome_of,
    thing_in,
    updated_content,
)
from wgtorch.blocks.scenes.scene import ATTRIBUTES, Scene, caption, parse, sentence

SEEDS = st.integers(0, 10**6)


def random_scene(seed: int) -> dict[str, str]:
    return Scene.sample(random.Random(seed)).attributes()


def some_of(seed: int) -> dict[str, str]:
    """A scene of which only some attributes are known, as free descriptions give."""
    rng = random.Random(seed)
    return {name: value for name, value in random_scene(seed).items() if rng.random() < 0.6}


# --- what comes next --------------------------------------------------------------------------------------------------


@given(SEEDS, SEEDS)
def test_the_next_scene_is_one_that_can_be(seed, now):
    scene = next_scene(some_of(now), {}, {}, random.Random(seed))
    assert Scene(**scene).attributes().items() >= scene.items()


@given(SEEDS, SEEDS)
def test_time_goes_on_and_land_and_weather_follow(seed, now):
    before = random_scene(now)
    scene = next_scene(before, {}, {}, random.Random(seed))
    hours = ATTRIBUTES["time"]
    assert scene["time"] == hours[(hours.index(before["time"]) + 1) % 4]
    assert scene["weather"] in _WEATHER_AFTER[before["weather"]]
    assert scene["terrain"] in _NEIGHBOURS[before["terrain"]] and scene["terrain"] != before["terrain"]


def test_every_land_and_weather_is_reached():
    for table, name in ((_NEIGHBOURS, "terrain"), (_WEATHER_AFTER, "weather")):
        assert set(table) == set(ATTRIBUTES[name])
        reached = {"sea"} if name == "terrain" else {"clear"}
        for _ in table:
            reached |= {after for one in reached for after in table[one]}
        assert reached == set(table)
    rng = random.Random(0)
    scene: dict[str, str] = {}
    seen = [scene := next_scene(scene, {}, {}, rng) for _ in range(400)]
    for name in ("time", "weather", "terrain", "landmark", "color", "place"):
        assert {scene[name] for scene in seen if name in scene} == set(ATTRIBUTES[name]) - {"none"}


@given(SEEDS, SEEDS, SEEDS)
def test_a_wish_wins(seed, now, wished):
    wish = some_of(wished)
    scene = next_scene(random_scene(now), {"desert": {"landmark": "tent", "color": "red", "place": "left"}}, wish, random.Random(seed))
    for name in ("time", "weather", "landmark"):
        if name in wish:
            assert scene[name] == wish[name]
    if "terrain" in wish and wish.get("landmark") != "ship":
        assert scene["terrain"] == wish["terrain"]
    if wish.get("landmark", "none") != "none":
        assert {name: scene[name] for name in ("color", "place") if name in wish} == {
            name: wish[name] for name in ("color", "place") if name in wish
        }


def test_a_ship_is_at_sea():
    assert next_scene({}, {}, {"landmark": "ship", "terrain": "desert"}, random.Random(0))["terrain"] == "sea"
    for seed in range(50):
        scene = next_scene({}, {"hills": {"landmark": "ship", "color": "red", "place": "left"}}, {"terrain": "hills"}, random.Random(seed))
        assert scene["landmark"] == "house"


@given(SEEDS, SEEDS)
def test_a_known_place_looks_as_it_did(seed, now):
    castle = {"landmark": "castle", "color": "blue", "place": "left"}
    places = dict.fromkeys(set(ATTRIBUTES["terrain"]) - {"sea"}, castle)
    scene = next_scene(random_scene(now), places, {}, random.Random(seed))
    if scene["terrain"] != "sea":
        assert castle.items() <= scene.items()
    empty = next_scene({}, {terrain: {"landmark": "none"} for terrain in ATTRIBUTES["terrain"]}, {}, random.Random(seed))
    assert empty["landmark"] == "none" and "color" not in empty


@pytest.mark.parametrize("known", [{}, {"color": "red"}, {"place": "left"}, {"color": "red", "place": "left"}])
def test_a_place_of_which_no_landmark_is_known(known):
    """As after a description that tells of a red roof and not of what it covers."""
    scene = next_scene({"terrain": "hills"}, {"sea": known}, {"terrain": "sea"}, random.Random(0))
    assert scene["landmark"] in ATTRIBUTES["landmark"]
    assert Scene(**scene)


def test_the_same_draws_give_the_same_scene():
    one, two = (next_scene({}, {}, {}, random.Random(5)) for _ in range(2))
    assert one == two
    assert len({str(next_scene({}, {}, {}, random.Random(seed))) for seed in range(30)}) > 20


def test_new_landmarks():
    rng = random.Random(0)
    at_sea = {new_landmark("sea", {}, rng)["landmark"] for _ in range(100)}
    on_land = {new_landmark("hills", {}, rng)["landmark"] for _ in range(200)}
    assert at_sea == {"ship", "tower", "house"} and on_land == {"house", "castle", "windmill", "tower", "tent"}
    assert new_landmark("hills", {"landmark": "none", "color": "red"}, rng) == {"landmark": "none"}


# --- sentences --------------------------------------------------------------------------------------------------------

ACTIONS = ["", "Open the gate", "rest by the fire.", "sing", "count to ten"]


@given(SEEDS, SEEDS, st.booleans(), st.sampled_from(ACTIONS))
def test_an_intent_says_its_scene(seed, now, known, action):
    """What the architect reads in it is what was meant."""
    rng = random.Random(seed)
    scene = next_scene(random_scene(now), {}, {}, rng)
    text = intent_of(scene, random_scene(now), "the traveller", known, action, rng)
    assert {name: value for name, value in parse(text).items() if name != "traveller"} == scene
    assert text[0].isupper() and text.endswith((".", '."')) and "  " not in text


@given(SEEDS, SEEDS)
def test_an_intent_still_says_its_scene_when_an_action_steers_it(seed, wished):
    rng = random.Random(seed)
    action = caption(
        Scene.sample(random.Random(wished)), random.Random(wished), ["time", "weather", "terrain", "landmark", "color", "place"]
    )
    scene = next_scene(random_scene(seed), {}, parse(action), rng)
    text = intent_of(scene, random_scene(seed), "the traveller", False, action, rng)
    read = parse(text)
    assert {name: read[name] for name in ("time", "weather", "terrain")} == {name: scene[name] for name in ("time", "weather", "terrain")}
    assert read.get("landmark") == scene["landmark"]
    assert action.strip().rstrip(".") in text


def test_an_intent_in_full():
    rng = random.Random(0)
    scene = {"time": "night", "weather": "snow", "terrain": "hills", "landmark": "castle", "color": "blue", "place": "left"}
    text = intent_of(scene, {"terrain": "sea"}, "a fox", True, "Sing.", rng)
    assert text == (
        "At night, in the snow, a fox comes to the rolling hills and knows a blue castle there from before, on the left, "
        'leaving the sea behind. A fox means to "Sing".'
    )
    bare = {"time": "dawn", "weather": "clear", "terrain": "sea", "landmark": "none"}
    assert intent_of(bare, {"terrain": "sea"}, "a fox", False, "", rng) == "At dawn, under a clear sky, a fox comes to the sea."


def test_things_in_words():
    assert thing_in({"landmark": "castle", "color": "red"}) == "a red castle"
    assert thing_in({"landmark": "castle"}) == "a castle"
    assert thing_in({"landmark": "none", "color": "red"}) == "" == thing_in({})


@given(SEEDS, SEEDS)
def test_an_outcome_says_what_was_seen(seed, meant):
    seen = random_scene(seed)
    text = outcome_of(seen, random_scene(meant), {}, "the traveller")
    first = parse(text.split(".")[0])
    assert {name: first[name] for name in ("time", "weather", "terrain")} == {name: seen[name] for name in ("time", "weather", "terrain")}
    assert first.get("landmark", "none") == seen["landmark"]


def test_an_outcome_says_what_surprised():
    seen = {"time": "day", "weather": "fog", "terrain": "sea", "landmark": "tower", "color": "red"}
    meant = {"time": "day", "weather": "rain", "terrain": "forest", "landmark": "castle", "color": "blue"}
    text = outcome_of(seen, meant, {}, "the traveller")
    assert "It was not the sea, though the plan had said so." not in text
    assert "not the pine forest" in text
    assert "Where a blue castle was hoped for, there was a red tower." in text
    assert "The weather had turned: fog instead of rain." in text
    assert text.endswith("Nothing had an edge.")
    as_meant = outcome_of(seen, seen, {"terrain": "sea"}, "the traveller")
    assert as_meant == "By day, in the fog, the traveller came to the sea and found a red tower. It was the same land as before."
    empty = outcome_of({**seen, "landmark": "none"}, seen, {}, "the traveller")
    assert "found nothing built." in empty and "hoped for, there was none." in empty


# --- the world after --------------------------------------------------------------------------------------------------


def test_content_after_an_episode():
    content = {"story": "It began.", "style": "ink", "places": {"sea": {"landmark": "ship"}}}
    before = copy.deepcopy(content)
    seen = {"time": "day", "terrain": "hills", "landmark": "castle", "color": "red", "place": "left", "traveller": "yes"}
    after = updated_content(content, seen, "A thing happened.", 2)
    assert content == before, "the world before is not changed"
    assert after["style"] == "ink" and after["opening"] == "It began." and after["episodes"] == 1
    assert after["scene"] == seen and after["chronicle"] == ["A thing happened."]
    assert after["places"] == {"sea": {"landmark": "ship"}, "hills": {"landmark": "castle", "color": "red", "place": "left"}}
    assert after["story"] == "It began. A thing happened."


def test_the_story_tells_the_last_episodes_and_the_chronicle_all():
    content: dict = {"story": "It began."}
    for number in range(5):
        content = updated_content(content, {"terrain": "sea" if number % 2 else "hills"}, f"E{number}.", 2)
    assert content["chronicle"] == [f"E{number}." for number in range(5)] and content["episodes"] == 5
    assert content["story"] == "It began. 3 episodes passed, through hills, sea. E3. E4."
    assert content["opening"] == "It began."


def test_a_description_that_names_no_land():
    after = updated_content({"places": {}}, {"time": "day"}, "Something.", 6)
    assert after["places"] == {} and after["scene"] == {"time": "day"} and after["story"] == "Something."


@given(SEEDS)
def test_a_long_life_never_stops(seed):
    """Grammar alone, with descriptions that tell only a part: every step can be taken."""
    rng = random.Random(seed)
    content: dict = {"story": "It began."}
    for _ in range(12):
        scene = next_scene(
            content.get("scene", {}), content.get("places", {}), some_of(rng.randrange(99)) if rng.random() < 0.3 else {}, rng
        )
        text = intent_of(scene, content.get("scene", {}), "the traveller", False, "", rng)
        seen = {name: value for name, value in parse(sentence(parse(text))).items() if rng.random() < 0.7}
        whole = {"time": "day", "weather": "clear", "terrain": "sea", **seen}
        content = updated_content(content, seen, outcome_of(whole, scene, content.get("scene", {}), "the traveller"), 3)
    assert content["episodes"] == 12
