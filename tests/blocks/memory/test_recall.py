"""Memory: what of a world goes into a prompt, within its budget, the same each time."""

from __future__ import annotations

import copy
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgtorch.blocks.memory import Keep, Memory, register_retrieve
from wgtorch.blocks.memory.counting import estimate
from wgtorch.blocks.memory.notes import sentences, shortened, stems
from wgtorch.core.block import Block, BlockRegistry
from wgtorch.core.errors import CheckpointError, ConfigError, PromptTruncatedWarning, UnknownNameError

WORLD = {
    "language": "English",
    "style": "ink",
    "rules": ["Nobody can fly.", "It is always autumn."],
    "story": "A keeper lives in a lighthouse.",
    "glossary": {"Mara": "an old woman in a grey coat", "Tom": "a boy with red hair", "the Wren": "a small blue boat"},
    "chronicle": [f"Day {number}: nothing much happened on the rock. The wind blew on and on." for number in range(1, 20)],
    "episodes": 19,
}
texts = st.text("abc Жя雨.\n<>", max_size=60)
contents = st.dictionaries(
    st.sampled_from(["style", "story", "rules", "chronicle", "glossary", "other"]),
    st.one_of(texts, st.lists(texts, max_size=8), st.dictionaries(st.sampled_from(["Mara", "Tom", "Wren"]), texts)),
)


def recalled(query: str | None = None, content: dict[str, Any] = WORLD, **config: Any) -> dict[str, Any]:
    return Memory(**config)(content=content, query=query)


def shared_beginning(one: str, other: str) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def test_all_that_fits_is_there_in_the_contents_order() -> None:
    found = recalled(budget=10_000)
    assert found["left_out"] == 0
    tags = [found["context"].index(f"<{section}>") for section in ("style", "rules", "story", "glossary", "chronicle")]
    assert tags == sorted(tags)
    assert "<rules>\n- Nobody can fly.\n- It is always autumn.\n</rules>" in found["context"]
    assert "- Mara: an old woman in a grey coat" in found["context"]
    assert "language" not in found["context"] and "episodes" not in found["context"]


def test_what_the_query_speaks_of_comes_before_the_rest() -> None:
    found = recalled("Tom takes the boat.", budget=160, recent=1)
    assert "a boy with red hair" in found["context"] and "a small blue boat" in found["context"]
    old = {**WORLD, "chronicle": ["Tom was given the brass key.", *WORLD["chronicle"]]}
    assert "- Tom was given the brass key." in recalled("Where is the brass key?", old, budget=160)["context"]
    assert "- Tom was given the brass key." not in recalled("Does the wind blow?", old, budget=160)["context"]


def test_inflected_words_are_found() -> None:
    russian = {"chronicle": ["Мара нашла латунный ключ.", *(f"День {n}: ветер дул над скалой." for n in range(40))]}
    assert "латунный" in recalled("Где же ключи? Она ищет латунные.", russian, budget=120, summarise="nothing")["context"]


def test_the_newest_are_always_there_and_the_rest_is_summarised() -> None:
    found = recalled(budget=200, recent=2)
    assert "- Day 19:" in found["context"] and "- Day 18:" in found["context"]
    assert found["left_out"] > 5
    summary = found["context"].split("<chronicle>\n")[1].splitlines()[0]
    assert summary.startswith("Day 1: nothing much happened on the rock.") and "wind" not in summary
    assert "Day 1:" not in recalled(budget=200, summarise="nothing")["context"]


@given(content=contents, query=texts, budget=st.integers(1, 80), share=st.sampled_from([0.0, 0.2, 0.5]), recent=st.integers(0, 3))
def test_the_budget_holds_the_content_stays_and_the_words_are_the_same_each_time(
    content: dict[str, Any], query: str, budget: int, share: float, recent: int
) -> None:
    memory = Memory(budget=budget, summary_share=share, recent=recent)
    before = copy.deepcopy(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PromptTruncatedWarning)
        found = memory(content=content, query=query)
        assert memory(content=content, query=query) == found
    assert estimate(found["context"]) == found["tokens"] <= budget
    assert content == before


def test_pinned_fields_are_cut_only_with_a_warning() -> None:
    long = {"story": "The sea was calm. " * 60, "style": "ink"}
    with pytest.warns(PromptTruncatedWarning, match="longer than the budget of 40 tokens; cut: story. Raise memory's budget"):
        found = recalled(content=long, budget=40)
    assert "<style>\nink" in found["context"] and "The sea was calm. …" in found["context"]


def test_a_tokenizer_counts_where_one_is_given(tmp_path: Path) -> None:
    library = pytest.importorskip("tokenizers")
    words = library.Tokenizer(library.models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    words.pre_tokenizer = library.pre_tokenizers.WhitespaceSplit()
    words.save(str(tmp_path / "tokenizer.json"))
    found = recalled(budget=30, tokenizer=str(tmp_path), recent=0, summarise="nothing", retrieve="in_order")
    assert len(found["context"].split()) == found["tokens"] <= 30
    assert found["tokens"] > estimate(found["context"]) // 4
    with pytest.raises(CheckpointError, match=r"nowhere is not there; expected a folder with a tokenizer\.json"):
        Memory(tokenizer=str(tmp_path / "nowhere"))


def test_policies_are_open_to_more() -> None:
    @register_retrieve("test/shortest")
    def shortest(notes, query):
        return sorted(notes, key=lambda note: len(note.text))

    found = recalled(
        content={"things": ["a long thing of many words, and more", "tea", "a thing"]}, budget=9, retrieve="test/shortest", recent=0
    )
    assert "tea" in found["context"] and "long" not in found["context"]


def test_mistakes() -> None:
    for config, error, words in (
        ({"budget": 0}, ConfigError, "budget: found 0"),
        ({"retrieve": "relevnt"}, UnknownNameError, "unknown retrieve policy 'relevnt'; did you mean 'relevant'"),
        ({"summarise": "led"}, UnknownNameError, "did you mean 'lead'"),
        ({"pinned": ["style"], "hidden": ["style"]}, ConfigError, "'style' is pinned and hidden"),
        ({"summary_share": 1.0}, ConfigError, "summary_share"),
    ):
        with pytest.raises(error, match=words):
            Memory(**config)


def test_it_is_data_like_any_block(tmp_path: Path) -> None:
    memory = BlockRegistry.build({"block_type": "memory", "config": {"budget": 160, "retrieve": "recent"}})
    memory.save(tmp_path / "memory")
    assert Block.load(tmp_path / "memory")(content=WORLD) == memory(content=WORLD)
    assert memory(content={}) == memory() == {"context": "", "tokens": 0, "left_out": 0}


def test_sentences_and_stems() -> None:
    assert sentences('He said "Go!" She went. Then…') == ['He said "Go!"', "She went.", "Then…"]
    assert sentences("雨が降る。風が吹く。") == ["雨が降る。", "風が吹く。"]
    assert stems("Ключи, the keys") == ["ключи", "the", "keys"] and stems("латунный") == stems("латунные")
    assert stems("灯台") == ["灯台"]
    assert shortened("One two. Three four five.", 5, estimate) == "One two. …"
    assert shortened("unbroken" * 9, 4, estimate).endswith("…")


def test_what_stays_the_same_stands_first_where_a_prompt_should_keep_its_beginning() -> None:
    content = {"summary": "All of it.", **WORLD, "mood": "calm", "episodes": 40}
    found = recalled(content=content, budget=10_000, stable_first=True)["context"]
    assert re.findall(r"(?m)^<(\w+)>", found) == ["style", "rules", "story", "summary", "glossary", "mood", "chronicle"]
    assert recalled(content=content, budget=10_000)["context"].startswith("<summary>"), "else in the content's order"


def test_a_prompt_keeps_its_beginning_from_episode_to_episode() -> None:
    keep, memory = Keep(episodes=12, at_once=6), Memory(budget=10_000, stable_first=True)
    content: dict[str, Any] = {"style": "ink", "story": "A keeper lives in a lighthouse.", "glossary": {"Mara": "old", "Tom": "a boy"}}
    shares, before = [], ""
    for day in range(24):
        written = [{"name": ("Mara", "Tom", "the Wren")[day % 3], "description": f"as it was seen on day {day}, in the light of the lamp"}]
        outcome = f"Day {day}: nothing much happened on the rock. The wind blew on and on, and the lamp was lit."
        content = keep(outcome=outcome, content=content, records={"glossary": written, "summary": f"{day} days."})["content"]
        found = memory(content=content, query=f"day {day}")["context"]
        if before and not content["records"]["noted"][-1]:
            assert f"{day} days." in found and "(Mara" not in found, "episodes were forgotten: glossary and summary are as they are now"
        elif before:
            shares.append(shared_beginning(before, found) / len(found))
            assert found.rstrip().endswith(f"({written[0]['name']}: {written[0]['description']})\n</chronicle>")
        before = found
    assert len(shares) == 21 and min(shares[4:]) > 0.75 and sum(shares[4:]) / len(shares[4:]) > 0.85
    edited = {**content, "glossary": {**content["glossary"], "Tom": "a man"}}
    assert "- Tom: a man" in memory(content=edited)["context"] and "(Tom" not in memory(content=edited)["context"], "the content is right"


def test_what_does_not_fit_leaves_in_blocks_and_comes_back_at_the_end_where_it_is_asked_for() -> None:
    told = ["Tom was given the brass key.", "A whale was seen.", *WORLD["chronicle"]]
    world = {**WORLD, "chronicle": told}
    one, other = (recalled(query, world, budget=300, stable_first=True)["context"] for query in ("Where is the brass key?", "The whale!"))
    assert one[: one.index("<recalled>")] == other[: other.index("<recalled>")]
    assert "brass key" in one[one.index("<recalled>") :] and "whale" in other[other.index("<recalled>") :]


def test_a_summary_of_episodes_that_are_all_there_is_not_repeated() -> None:
    content = {"summary": "All of it.", "chronicle": ["One.", "Two."], "episodes": 2}
    assert "All of it" not in recalled(content=content)["context"]
    assert "All of it" in recalled(content={**content, "episodes": 3})["context"]


def test_meaning_is_weighed_with_recency_and_importance() -> None:
    pytest.importorskip("tokenizers")
    try:
        memory = Memory(budget=24, recent=0, retrieve="meaning", summarise="nothing", pinned=())
        lines = ["A fire destroyed the mill.", "She sang a song.", "He bought bread.", "Somebody sang again.", "They ate bread."]
        told = memory(content={"chronicle": lines}, query="the house burnt down")["context"]
        newest = memory(content={"chronicle": lines}, query="")["context"]
    except CheckpointError as error:
        pytest.skip(str(error))
    assert "fire destroyed" in told and "fire destroyed" not in newest


def test_what_a_character_recalls_of_a_thought() -> None:
    pytest.importorskip("tokenizers")
    from wgtorch.blocks.simulation.memory import memories

    def event(number: int, verb: str, target: str) -> dict[str, Any]:
        return {"id": number, "status": "done", "actor": "Anna", "verb": verb, "target": target, "where": "Torfield", "details": {}}

    content = {"events": [event(1, "quarrel", "Bruno"), event(2, "build", "house")]}
    try:
        found = [memories(content, "Anna", thought, count=1)[0]["verb"] for thought in ("an argument and a fight", "constructing a home")]
    except CheckpointError as error:
        pytest.skip(str(error))
    assert found == ["quarrel", "build"]
