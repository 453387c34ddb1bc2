"""The vocabulary: captions are read back exactly, free text is read sensibly."""

import random

import pytest

from wgtorch.blocks.scenes.scene import ATTRIBUTES, VOCABULARY, Scene, caption, parse, sentence, words


@pytest.mark.parametrize("seed", range(10))
def test_parse_inverts_caption(seed):
    rng = random.Random(seed)
    for _ in range(100):
        scene = Scene.sample(rng)
        named = [name for name in ATTRIBUTES if rng.random() < 0.7]
        expected = {name: value for name, value in scene.attributes().items() if name in named}
        text = caption(scene, rng, named)
        assert parse(text) == expected, text


def test_parse_inverts_sentence():
    rng = random.Random(0)
    for _ in range(500):
        have = Scene.sample(rng).attributes()
        named = {name: value for name, value in have.items() if rng.random() < 0.7}
        assert parse(sentence(named)) == named, sentence(named)


def test_caption_names_every_attribute_when_asked():
    scene = Scene("dusk", "snow", "forest", "tent", "blue", "right", "yes")
    for seed in range(50):
        assert parse(caption(scene, random.Random(seed), ATTRIBUTES)) == scene.attributes()


def test_captions_vary_and_stay_within_the_vocabulary():
    rng, known = random.Random(0), set(VOCABULARY)
    captions = [caption(Scene.sample(rng), rng) for _ in range(500)]
    assert len(set(captions)) > 480
    assert {word for text in captions for word in words(text)} <= known


def test_nothing_named_is_no_text():
    scene = Scene.sample(random.Random(0))
    assert caption(scene, random.Random(0), ()) == "" == sentence({})
    assert parse("") == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The people of Aralia rebuilt their fortress beside the ocean.", {"terrain": "sea", "landmark": "castle"}),
        ("Rain and thunder all evening; a pilgrim rests.", {"time": "dusk", "weather": "storm", "traveller": "yes"}),
        ("No rain today, and no travellers.", {"traveller": "no"}),
        ("A blue sky over white snow.", {"weather": "snow"}),
        ("a white windmill", {"landmark": "windmill", "color": "white"}),
        ("One day they left the house in the middle of the woods.", {"terrain": "forest", "landmark": "house", "place": "middle"}),
        ("You are right, the tower has a golden roof", {"landmark": "tower", "color": "yellow"}),
        ("quantum chromodynamics", {}),
    ],
)
def test_parse_reads_free_text(text, expected):
    assert parse(text) == expected


def test_a_scene_refuses_what_it_cannot_be():
    with pytest.raises(ValueError, match=r"Scene.time: found 'noon', expected one of dawn, day, dusk, night"):
        Scene("noon", "clear", "sea")
    with pytest.raises(ValueError, match="needs terrain 'sea'"):
        Scene("day", "clear", "desert", "ship", "red", "left")
    with pytest.raises(ValueError, match="write color=None"):
        Scene("day", "clear", "sea", "none", "red")
    with pytest.raises(ValueError, match=r"Scene\.place: found None"):
        Scene("day", "clear", "sea", "house", "red")


def test_sample_covers_every_value():
    rng = random.Random(0)
    seen = [Scene.sample(rng).attributes() for _ in range(600)]
    for name, values in ATTRIBUTES.items():
        assert {have[name] for have in seen if name in have} == set(values)


def test_complete_keeps_what_is_named():
    rng = random.Random(0)
    for _ in range(300):
        have = Scene.sample(rng).attributes()
        named = {name: value for name, value in have.items() if rng.random() < 0.6}
        completed = Scene.complete(named, rng).attributes()
        assert named.items() <= completed.items(), (named, completed)
    assert Scene.complete({"landmark": "ship"}, rng).terrain == "sea"
    assert Scene.complete({"landmark": "ship", "terrain": "desert"}, rng).landmark == "house"
