"""``wgtorch run``: worlds, graphs and pipelines, and what is left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from wgtorch.blocks.pixel_scenes.describer import PixelSceneDescriber
from wgtorch.cli import world_session
from wgtorch.cli.main import main
from wgtorch.cli.run import actions_of
from wgtorch.cli.target import CommandError
from wgtorch.integrations.models.errors import ApiError
from wgtorch.world import World

QUICK = ["--set", "steps=1"]


def entries(folder: Path) -> list[dict]:
    found = json.loads((folder / "episodes.json").read_text())["episodes"]
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in found]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_world_paints_and_prints_each_episode_and_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["run", "default", "--steps", "2", "--seed", "7", "--action", "go to the sea", "--set", "traveller=Anna", *QUICK]
    assert main(argv) == 0
    folder = Path("outputs/default/001")
    said = capsys.readouterr().out

    world = World.from_template("default", traveller="Anna", steps=1)
    world.run(num_steps=2, action="go to the sea", seed=7)
    first, second = entries(folder)
    assert first["slots"]["intent"] == world.history[0].intent
    assert first["slots"]["outcome"] == world.history[0].outcome
    assert second["slots"]["intent"] == world.state.intent
    assert "“go to the sea”" in second["slots"]["outcome"]
    assert first["action"] == second["action"] == "go to the sea"
    with Image.open(folder / "episode_002.png") as opened:
        shown = torch.tensor(list(opened.tobytes()), dtype=torch.uint8).view(512, 512, 3).permute(2, 0, 1)
    torch.testing.assert_close(shown, (world.state.artifacts[0][0].clamp(0, 1) * 255).round().to(torch.uint8), rtol=0, atol=0)

    flat = " ".join(said.replace("│", " ").split())
    assert "Episode 1" in flat
    assert f"intent {first['slots']['intent']['text']}" in flat
    assert f"prompt {first['slots']['recipe']['prompts'][0]}" in flat
    assert f"description {first['slots']['description']['text'][0]}" in flat
    assert f"outcome {second['slots']['outcome']}" in flat
    assert "100%" in flat
    assert f"Overview: {folder / 'overview.png'}" in said
    assert f"To go on, add to the same command: --out {folder} --resume" in said
    assert (folder / "overview.png").is_file()
    assert (folder / "story.md").read_text().count("## Episode") == 2


def test_a_traveller_with_a_name_is_in_the_pictures() -> None:
    assert main(["run", "default", "--steps", "1", "--seed", "7", "--set", "traveller=Anna", "--out", "here", *QUICK]) == 0
    (episode,) = entries(Path("here"))
    assert "Anna" in episode["slots"]["intent"]["text"]
    assert [thing["name"] for thing in episode["slots"]["recipe"]["scene"]["things"] if thing["role"] == "hero"] == ["Anna"]


def test_two_runs_have_a_folder_each() -> None:
    for _ in range(2):
        assert main(["run", "default", "--steps", "1", *QUICK]) == 0
    assert sorted(path.name for path in Path("outputs/default").iterdir()) == ["001", "002"]


def test_a_run_that_goes_on_is_the_run_that_never_stopped() -> None:
    for steps, more in (("3", []), ("1", []), ("2", ["--resume"])):
        assert main(["run", "default", "--seed", "3", "--steps", steps, "--out", "whole" if steps == "3" else "parts", *QUICK, *more]) == 0
    assert entries(Path("parts")) == entries(Path("whole"))
    assert len(entries(Path("whole"))) == 3
    for name in ("episode_001.png", "episode_002.png", "episode_003.png", "overview.png"):
        assert Path("parts", name).read_bytes() == Path("whole", name).read_bytes()


def test_an_earlier_run_is_not_written_over(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["run", "default", "--steps", "1", "--out", "here", *QUICK]
    assert main(argv) == 0
    before = entries(Path("here"))
    assert main(argv) == 2
    assert "here: holds the states of an earlier run; add --resume to go on with it, or choose another --out" in capsys.readouterr().err
    assert entries(Path("here")) == before


def test_resuming_what_never_ran_is_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "default", "--out", "here", "--resume"]) == 2
    assert "the storage keeps no life to resume" in capsys.readouterr().err
    assert main(["run", "default", "--resume"]) == 2
    assert "--resume: goes on with an earlier run; say which with --out" in capsys.readouterr().err


def test_an_interrupt_leaves_what_was_told_and_the_world_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[int] = []
    panel = world_session._panel

    def interrupted(episode, pictures):
        calls.append(episode.number)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return panel(episode, pictures)

    argv = ["run", "default", "--seed", "3", "--out", "here", *QUICK]
    monkeypatch.setattr(world_session, "_panel", interrupted)
    assert main([*argv, "--steps", "3"]) == 130
    said = capsys.readouterr().err
    assert "interrupted" in said and "To go on, add to the same command: --out here --resume" in said
    assert Path("here/overview.png").is_file()
    assert [entry["number"] for entry in entries(Path("here"))] == [1, 2]
    monkeypatch.setattr(world_session, "_panel", panel)
    assert main([*argv, "--steps", "1", "--resume"]) == 0
    assert [entry["number"] for entry in entries(Path("here"))] == [1, 2, 3]


def test_a_world_that_cannot_go_on_says_how_it_can_later(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["run", "default", "--out", "here", *QUICK]
    assert main([*argv, "--steps", "1"]) == 0

    def broken(self: PixelSceneDescriber, **inputs: object) -> dict[str, object]:
        raise ApiError("the lens is cracked")

    monkeypatch.setattr(PixelSceneDescriber, "forward", broken)
    for _ in range(2):
        assert main([*argv, "--steps", "1", "--resume"]) == 2
        said = capsys.readouterr().err
        assert "the lens is cracked" in said and "raised in node philosopher/" in said
        assert "To go on, add to the same command: --out here --resume" in said
        assert "--action TEXT for another action in this pass, --seed N for other draws" in said
        assert "default stopped at pass " in said and ", stage 'philosopher'; all before it is kept" in said
        assert "world." not in said, "a person at a shell writes no Python"


@pytest.mark.parametrize("options", [["--seed", "5"], ["--action", "dig a well"]])
def test_what_the_advice_names_is_what_helps(options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    argv = ["run", "default", "--out", "here", "--steps", "1", *QUICK]
    with monkeypatch.context() as patched:
        patched.setattr(PixelSceneDescriber, "forward", lambda self, **inputs: (_ for _ in ()).throw(ApiError("the lens is cracked")))
        assert main([*argv, "--seed", "1"]) == 2
    assert main([*argv, "--resume", *options]) == 0
    told = json.loads(Path("here/episodes.json").read_text())
    found = told["seed"] if options[0] == "--seed" else told["episodes"][-1]["action"]
    assert str(found) == options[1]


def test_a_saved_world_runs_under_its_folders_name(capsys: pytest.CaptureFixture[str]) -> None:
    world = World.from_template("default", steps=1)
    world.save("outputs/blue")
    world.save("elsewhere/green")
    world.save_config("red.yaml")
    folders = {"outputs/blue": "outputs/blue_runs/001", "elsewhere/green/": "outputs/green/001", "red.yaml": "outputs/red/001"}
    for target, folder in folders.items():
        assert main(["run", target, "--steps", "1"]) == 0
        assert f"To go on, add to the same command: --out {folder} --resume" in capsys.readouterr().out
        assert (Path(folder) / "story.md").is_file()
    assert not Path("outputs/default").exists()
    assert World.load("outputs/blue").life.passes == 0  # nothing was written into what was saved
    assert main(["run", "outputs/green/001", "--steps", "1"]) == 2
    assert "outputs/green/001: is the folder of an earlier run" in capsys.readouterr().err


def test_a_world_with_a_storage_of_its_own_keeps_it(capsys: pytest.CaptureFixture[str]) -> None:
    world = World.from_template("default", steps=1)
    world.set_storage({"state_dir": "mine"})
    world.save_config("world.yaml")
    assert main(["run", "world.yaml", "--steps", "2", "--out", "here"]) == 0
    assert Path("mine/wgtorch-storage.json").is_file()
    assert not Path("here/states").exists()
    capsys.readouterr()
    assert main(["run", "world.yaml", "--steps", "2", "--out", "here"]) == 2
    assert "mine: holds the states of an earlier run; add --resume to go on with it" in capsys.readouterr().err
    assert main(["run", "world.yaml", "--steps", "1", "--resume", "--out", "here"]) == 0
    assert [entry["number"] for entry in entries(Path("here"))] == [1, 2, 3]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["default", "--input", "a=b"], "default: is a world, and --input is not for it; it takes --action"),
        (["text_to_image", "--steps", "3"], "text_to_image: is a graph, and --steps is not for it; it takes --input"),
        (["text_to_image", "--action", "dig"], "text_to_image: is a graph, and --action is not for it"),
        (["pipeline/text_to_image", "--resume"], "text_to_image: is a pipeline, and --resume is not for it"),
        (["architect"], "architect: is a stage, which runs inside a world; run the world"),
        (["text_to_image"], "missing input 'prompt'"),
        (["text_to_image", "--input", "promt=x"], "unknown input 'promt'; did you mean 'prompt'?"),
        (["default", "--steps", "-1"], "steps -1: expected 0 or more"),
        (["default", "--steps", "1", "--action", "a", "--action", "b"], "2 actions for 1 passes"),
        (["default", "--set", "stepz=1"], "unknown parameter 'stepz'; did you mean 'steps'"),
    ],
)
def test_options_that_do_not_go_together(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *argv]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert "Traceback" not in captured.err
    assert not Path("outputs").exists()


def test_actions_for_the_passes() -> None:
    assert actions_of(None, 2) == [None, None]
    assert actions_of("dig", 2) == ["dig", "dig"]
    assert actions_of(["dig"], 2) == ["dig"]
    assert actions_of([], 0) == []
    with pytest.raises(CommandError, match="2 actions for 1 passes"):
        actions_of(["a", "b"], 1)


def test_a_graph_writes_its_picture_and_the_same_seed_the_same_one(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["run", "text_to_image", "--input", "prompt=a castle", "--input", "guidance_scale=1.5", "--set", "steps=2"]
    for seed, out in (("3", "a"), ("3", "b"), ("4", "c")):
        assert main([*argv, "--seed", seed, "--out", out]) == 0
    assert capsys.readouterr().out == "image: a/image.png\nimage: b/image.png\nimage: c/image.png\n"
    with Image.open("a/image.png") as opened:
        assert opened.size == (512, 512)
    assert Path("a/image.png").read_bytes() == Path("b/image.png").read_bytes() != Path("c/image.png").read_bytes()


def test_a_pipeline_of_a_config_file_prints_text_and_writes_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    config = Path(__file__).parents[2] / "conf" / "pipeline" / "paint_and_describe.yaml"
    assert main(["run", str(config), "--input", "prompt=the sea at night", "--seed", "1"]) == 0
    image, text = capsys.readouterr().out.splitlines()
    assert image == "image: outputs/paint_and_describe/001/image.png"
    assert text.startswith("text: The sea")


def test_a_picture_goes_in_and_data_comes_out_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (64, 64), (30, 60, 160)).save("blue.png")
    assert main(["run", "caption", "--input", "image=blue.png"]) == 0
    rows = dict(row.split(": ", 1) for row in capsys.readouterr().out.splitlines())
    assert set(json.loads(rows["attributes"])) >= {"time", "weather", "terrain"}
    assert 0 <= json.loads(rows["confidence"]) <= 1
    assert not Path("outputs").exists(), "there was no picture to write"


def test_tensors_that_are_no_pictures_are_written_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    Path("words.yaml").write_text(
        "{kind: graph, graph_id: words, nodes: [{node_id: tokenizer, block_type: tokenizer/scene, config: {max_length: 12}}],"
        " exposed_inputs: [{node_id: tokenizer, port_name: text}], exposed_outputs: [{node_id: tokenizer, port_name: tokens}]}"
    )
    assert main(["run", "words.yaml", "--input", "text=8"]) == 0
    assert capsys.readouterr().out == "tokens: outputs/words/001/tokens.safetensors\n"
    (held,) = load_file("outputs/words/001/tokens.safetensors").values()
    assert held.shape == (1, 12) and held.dtype == torch.int64


def test_every_output_of_a_pipeline_is_written_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "pipeline/text_to_video", "--set", "frames=2", "--input", "prompt=a red castle", "--seed", "1"]) == 0
    said = dict(row.split(": ", 1) for row in capsys.readouterr().out.splitlines())
    folder = Path("outputs/text_to_video/001")
    assert said["image"] == str(folder / "image.png")
    assert said["video"] in (str(folder / "video.mp4"), str(folder / "video.gif"))
    assert sorted(path.name for path in folder.iterdir()) == sorted(Path(path).name for path in said.values())


@pytest.mark.parametrize("argv", [["storytelling", "--steps", "1"], ["default", "--steps", "0"]], ids=["no key", "no passes"])
def test_a_run_in_which_nothing_happens_leaves_nothing(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    main(["run", *argv])
    assert list(Path().iterdir()) == []
