"""The shipped models: the describer reads drawings, the text encoder captions, the painter what it was told."""

import random

import pytest
import torch

np = pytest.importorskip("numpy")
pytest.importorskip("PIL")

from wgtorch.blocks.scenes.backbone import SceneBackbone  # noqa: E402
from wgtorch.blocks.scenes.describer import SceneDescriber  # noqa: E402
from wgtorch.blocks.scenes.drawing import draw  # noqa: E402
from wgtorch.blocks.scenes.scene import ATTRIBUTES, Scene, caption, parse  # noqa: E402
from wgtorch.blocks.scenes.text import (  # noqa: E402
    SceneCompletion,
    SceneTextEncoder,
    SceneTokenizer,
    condition_from_labels,
)
from wgtorch.core.checkpoint.refs import PACKAGED  # noqa: E402
from wgtorch.core.run.rng import Rng  # noqa: E402


def shipped(kind):
    ref = {SceneDescriber: "describer", SceneTextEncoder: "text", SceneBackbone: "painter"}[kind]
    return kind.from_config({"checkpoint_ref": f"wgtorch:scene_{ref}"}).eval()


@pytest.fixture(scope="module")
def drawings():
    rng = random.Random("not in the training data")
    scenes = [Scene.sample(rng) for _ in range(200)]
    pictures = np.stack([draw(scene, seed=2 * 10**9 + k) for k, scene in enumerate(scenes)])
    return scenes, torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255


@torch.no_grad()
def test_describer_reads_drawings(drawings):
    scenes, pictures = drawings
    logits = shipped(SceneDescriber).logits(pictures)
    for name, values in ATTRIBUTES.items():
        pairs = [(values[int(k)], scene.attributes().get(name)) for k, scene in zip(logits[name].argmax(-1), scenes, strict=True)]
        asked = [(seen, truth) for seen, truth in pairs if truth is not None]
        right = sum(seen == truth for seen, truth in asked) / len(asked)
        assert right >= 0.97, f"{name}: {right:.1%}"


@torch.no_grad()
def test_describer_gives_words(drawings):
    scenes, pictures = drawings
    describer = shipped(SceneDescriber)
    one = describer.run({"image": pictures[0]})
    assert parse(one["text"]) == one["attributes"] == scenes[0].attributes()
    assert 0.5 < one["confidence"] <= 1
    several = describer(pictures[:3], prompt="what do you see?")
    assert several["text"][0] == one["text"]
    assert [len(several[name]) for name in describer.get_output_spec()] == [3, 3, 3]


@torch.no_grad()
def test_describer_doubts_noise(drawings):
    describer = shipped(SceneDescriber)
    sure = describer(drawings[1][:50])["confidence"]
    unsure = describer(torch.rand(50, 3, 64, 64, generator=torch.Generator().manual_seed(0)))["confidence"]
    assert sum(sure) / 50 > sum(unsure) / 50 + 0.1


@torch.no_grad()
def test_describer_takes_other_sizes(drawings):
    scenes, pictures = drawings
    large = torch.nn.functional.interpolate(pictures[:20], scale_factor=2)
    seen = shipped(SceneDescriber)(large)["attributes"]
    assert sum(a["terrain"] == s.terrain for a, s in zip(seen, scenes, strict=False)) >= 19


@torch.no_grad()
def test_text_encoder_reads_captions():
    rng = random.Random("captions not trained on")
    texts = [caption(Scene.sample(rng), rng) for _ in range(300)]
    embedding = shipped(SceneTextEncoder)(SceneTokenizer()(texts)["tokens"])["embedding"]
    truth = condition_from_labels(torch.tensor([[_index(parse(text), name) for name in ATTRIBUTES] for text in texts]))
    right = (embedding.argmax(-1) == truth.argmax(-1)).float().mean(dim=0)
    assert right.min() >= 0.99, right
    torch.testing.assert_close(embedding.sum(-1), torch.ones(300, 7))


@torch.no_grad()
def test_empty_text_is_unspecified():
    encoder = SceneTextEncoder()
    nothing = condition_from_labels(torch.full((1, 7), -1))
    torch.testing.assert_close(encoder(SceneTokenizer()("")["tokens"])["embedding"], nothing, rtol=0, atol=0)


def _index(named, name):
    return ATTRIBUTES[name].index(named[name]) if name in named else -1


def test_completion_decides_what_is_open_and_nothing_else():
    said = [{"landmark": "castle", "color": "red"}, {"time": "night"}, {"landmark": "none"}, {"landmark": "ship", "terrain": "desert"}, {}]
    given = condition_from_labels(torch.tensor([[_index(named, name) for name in ATTRIBUTES] for named in said]))
    given = (0.9 * given).requires_grad_()
    block = SceneCompletion()
    full = block(given, rng=Rng(3))["embedding"]
    torch.testing.assert_close(full, block(given, rng=Rng(3))["embedding"], rtol=0, atol=0)
    assert not torch.equal(full, block(given, rng=Rng(4))["embedding"])
    scenes = [_read(row) for row in full]
    for named, scene in zip(said[:3], scenes, strict=False):
        assert named.items() <= scene.items()
        Scene(**scene)  # is whole
    assert (scenes[3]["landmark"], scenes[3]["terrain"]) == ("house", "desert")
    assert scenes[4] == {}
    color = list(ATTRIBUTES).index("color")
    torch.testing.assert_close(full[0, color], given[0, color], rtol=0, atol=0)
    full[0, color, 0].backward()
    assert given.grad[0, color, 0] == 1
    assert _read(SceneCompletion(keep_empty=False)(given, rng=Rng(3))["embedding"][4]) != {}


def _read(row):
    choices = {name: (*values, None)[int(row[k].argmax())] for k, (name, values) in enumerate(ATTRIBUTES.items())}
    return {name: value for name, value in choices.items() if value is not None}


def test_tokenizer_pads_cuts_and_knows_unknown_words():
    tokens = SceneTokenizer(max_length=3)(["Castle", "a castle, a qqq castle"])["tokens"]
    castle = int(tokens[0, 0])
    assert tokens[0].tolist() == [castle, 0, 0]
    assert int(tokens[1, 1]) == castle
    assert SceneTokenizer()("qqq")["tokens"][0, 0] == 1


@pytest.mark.parametrize("build", [SceneTextEncoder, SceneBackbone, SceneDescriber, SceneTokenizer, SceneCompletion])
def test_config_builds_its_equal(build):
    block = build()
    again = type(block).from_config(block.config)
    assert again.config == block.config
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in block.state_dict().items()}


def test_backbone_starts_as_the_linear_estimate():
    backbone = SceneBackbone(width=16, heads=2, depth=1, conv_width=8, map_width=4, condition_width=8)
    x, condition = torch.randn(2, 3, 64, 64), condition_from_labels(torch.zeros(2, 7, dtype=torch.long))
    pred = backbone(x, torch.tensor(0.5), condition)["pred"]
    torch.testing.assert_close(pred, x * (0.5 * 0.25) / (0.25 * 0.25 + 0.25))
    clean = backbone(x, torch.zeros(2), condition[:1])["pred"]
    torch.testing.assert_close(clean, x)


@torch.no_grad()
def test_painter_paints_what_it_is_told():
    """Six steps of Euler's method without guidance, judged by the describer."""
    rng = random.Random("painted in the test")
    scenes = [Scene.sample(rng).attributes() for _ in range(16)]
    condition = condition_from_labels(torch.tensor([[_index(scene, name) for name in ATTRIBUTES] for scene in scenes]))
    painter, x = shipped(SceneBackbone), torch.randn(16, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for step in range(6, 0, -1):
        t = step / 6
        x = x - (x - painter(x, t, condition)["pred"]) / t / 6
    seen = shipped(SceneDescriber)((x / 2 + 0.5).clamp(0, 1))["attributes"]
    for name in ATTRIBUTES:
        asked = [(guess.get(name), scene[name]) for guess, scene in zip(seen, scenes, strict=True) if name in scene]
        assert sum(guess == truth for guess, truth in asked) >= 0.75 * len(asked), (name, asked)


def test_weights_are_small_and_say_what_made_them():
    from safetensors import safe_open

    files = sorted(PACKAGED.glob("scene_*.safetensors"))
    assert {"scene_describer", "scene_painter", "scene_text"} <= {file.stem for file in files}
    assert sum(file.stat().st_size for file in files) < 10e6
    for file in files:
        with safe_open(file, framework="pt") as weights:
            assert {"block_type", "config", "trained_by", "trained_on", "license"} <= weights.metadata().keys()
            stored = [weights.get_tensor(key) for key in weights.keys()]  # noqa: SIM118
            assert {tensor.dtype for tensor in stored if tensor.dim() > 1} <= {torch.float16, torch.int8}
