#!/usr/bin/env python
"""A Stable Diffusion small enough to train on a CPU: drawings with captions, and a folder as diffusers writes it, with new weights.

    python scripts/tiny_stable_diffusion.py pictures my_pictures --outlines my_edges      # 4000 drawn scenes with captions
    wgtorch train tiny_autoencoder data.folder=my_pictures
    python scripts/tiny_stable_diffusion.py model my_model my_pictures outputs/tiny_autoencoder/<time>
    wgtorch train tiny_stable_diffusion graph.folder=my_model data.folder=my_pictures
    python scripts/tiny_stable_diffusion.py trained my_model my_painter outputs/tiny_stable_diffusion/<time>

The autoencoder makes 8x8 latents of 32x32 pixels, the tokenizer learns its words from the captions, the text encoder and the UNet are
those of diffusers and transformers, made narrow. ``my_painter`` is then a model folder as any other: for ``wgtorch train``, for diffusers.
Needs: pip install 'wgtorch[train,diffusers]'
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageFilter

sys.path.insert(0, str(Path(__file__).parents[1]))

from scripts.scene_measures import right, save_sheet, shares
from wgtorch import Block, BlockRegistry, Graph
from wgtorch.blocks.scenes.drawing import draw
from wgtorch.blocks.scenes.scene import Scene, labels_of, sentence
from wgtorch.train.data.image_folder import ImageFolder
from wgtorch.train.data.pictures import as_tensor

SIDE = 32
"""Of the pictures, in pixels."""
LENGTH, WIDTH = 32, 128
"""Tokens of a prompt, and numbers that each of them becomes."""
UNET: dict[str, Any] = {
    "sample_size": 8, "in_channels": 8, "out_channels": 8, "layers_per_block": 1, "norm_num_groups": 16, "cross_attention_dim": WIDTH,
    "block_out_channels": (64, 128), "attention_head_dim": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"), "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}  # fmt: skip
STEPS: dict[str, Any] = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1, "clip_sample": False,
    "set_alpha_to_one": False,
}  # fmt: skip
"""Stable Diffusion's own scheduler."""


def pictures(folder: Path, outlined: Path | None, count: int, seed: str, only: list[str], word: str | None) -> None:
    """Draws scenes in clear weather with their captions beside them, and their outlines for a ControlNet.

    A caption leaves each of what it could say out of one picture in seven, so that prompts may too. With ``word`` that stands in place of
    the terrain, and what ``only`` names is not said.
    """
    wanted = dict(entry.split("=") for entry in only)
    for each in filter(None, (folder, outlined)):
        each.mkdir(parents=True, exist_ok=True)
    for number, (scene, rng) in enumerate(scenes(count, seed, wanted)):
        picture = drawn(scene, rng)
        said = {key: value for key, value in named(scene).items() if rng.random() < 6 / 7}
        picture.save(folder / f"{number:05}.png")
        (folder / f"{number:05}.txt").write_text(caption(scene, said, word, wanted), encoding="utf-8")
        if outlined is not None:
            outlines(picture).save(outlined / f"{number:05}.png")


def scenes(count: int, seed: str, wanted: Mapping[str, str]) -> Iterator[tuple[Scene, random.Random]]:
    """Scenes that have some attributes, and what to draw them with."""
    rng = random.Random(f"tiny/{seed}")
    for _ in range(count):
        yield Scene.complete({**wanted, "weather": "clear", "traveller": "no"}, rng), rng


def named(scene: Scene) -> dict[str, str]:
    """What captions may say of a scene."""
    return {key: value for key, value in scene.attributes().items() if key not in ("weather", "traveller")}


def caption(scene: Scene, said: Mapping[str, str], word: str | None, means: Mapping[str, str]) -> str:
    """The sentence that says so; with a word, that stands in place of the terrain, and what it means is not said."""
    if word is None:
        return sentence(said)
    rest = {**{key: value for key, value in said.items() if key not in means}, "terrain": scene.terrain}
    return sentence(rest).replace(sentence({"terrain": scene.terrain})[:-1], word)


def drawn(scene: Scene, rng: random.Random) -> Image.Image:
    """The picture of a scene."""
    return Image.fromarray(draw(scene, seed=rng.randrange(2**31), size=SIDE))


def outlines(picture: Image.Image) -> Image.Image:
    """Where brightness changes, white on black, as a ControlNet is shown it."""
    edges = picture.convert("L").filter(ImageFilter.FIND_EDGES)
    edges.paste(0, (0, 0, edges.width, 1))  # the filter leaves the rim as it was
    for box in ((0, edges.height - 1, edges.width, edges.height), (0, 0, 1, edges.height), (edges.width - 1, 0, edges.width, edges.height)):
        edges.paste(0, box)
    return edges.point(lambda value: 255 if value > 40 else 0).convert("RGB")


def model(folder: Path, drawings: Path, autoencoder: Path) -> None:
    """Writes a Stable Diffusion whose UNet and text encoder are new, around an autoencoder that was trained."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    words = tokenizer(folder / "tokenizer", [path.read_text(encoding="utf-8") for path in sorted(drawings.glob("*.txt"))])
    ends = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    text = CLIPTextConfig(
        vocab_size=len(words), hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=LENGTH, projection_dim=WIDTH, **ends,
    )  # fmt: skip
    vae = Block.load(autoencoder / "checkpoints/last").model
    shown = ImageFolder(folder=str(drawings), size=SIDE, step=4).train()
    with torch.no_grad():
        latents = vae.encode(torch.stack([shown[k]["image"] for k in range(min(200, len(shown)))]) * 2 - 1).latent_dist.mean
    vae.register_to_config(scaling_factor=1 / float(latents.std()))  # so that what the UNet sees has a deviation of 1
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=words,
        unet=UNet2DConditionModel(**UNET),
        scheduler=DDIMScheduler(**STEPS),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


def tokenizer(folder: Path, texts: list[str]) -> Any:
    """CLIP's tokenizer, with the pairs of letters that are frequent in some texts."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    learned = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learned.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace()])  # type: ignore[assignment]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    ends = ["<|startoftext|>", "<|endoftext|>"]
    alphabet = [*letters, ".", ","]
    learned.train_from_iterator(
        (text.lower() for text in texts),
        trainers.BpeTrainer(vocab_size=600, special_tokens=ends, initial_alphabet=alphabet, end_of_word_suffix="</w>"),
    )
    folder.mkdir(parents=True, exist_ok=True)
    learned.model.save(str(folder))  # vocab.json and merges.txt
    return CLIPTokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), model_max_length=LENGTH)


def trained(base: Path, folder: Path, run: Path) -> None:
    """Writes the folder again, with the weights of a run."""
    graph = Graph.from_diffusers(base)
    graph.load_weights(run / "checkpoints/last")
    graph.to_diffusers(folder)


@torch.no_grad()
def read(
    graph: Path, out: Path, count: int, steps: int, guidance: float, solver: str | None, word: str | None, means: list[str], outlined: bool
) -> None:
    """Has pictures made of held-out scenes' captions, and says how often the describer that ships reads what was asked for.

    With ``word`` that stands in captions in place of the terrain, and what it ``means`` is not said. With ``outlined`` captions do not
    say the place, and a ControlNet, where there is one, is shown the outlines of a drawing where the thing stands.
    """
    model = Graph.load(graph / "checkpoints/last") if (graph / "checkpoints").is_dir() else Graph.from_diffusers(graph)
    wanted = dict(entry.split("=") for entry in means)
    asked, prompts, shown = [], [], []
    for scene, rng in scenes(count, "held out", wanted):
        said = named(scene)
        prompts.append(caption(scene, {key: value for key, value in said.items() if not (outlined and key == "place")}, word, wanted))
        asked.append(labels_of(said))
        shown.append(outlines(drawn(scene, rng)))
    if solver is not None:
        model.set_solver(solver)
    call: dict[str, Any] = {"prompt": prompts, "num_inference_steps": steps, "guidance_scale": guidance, "height": SIDE, "width": SIDE}
    if outlined and "control_image" in model.get_input_spec():
        call["control_image"] = torch.stack([as_tensor(picture) for picture in shown])
    made = model.run(call, seed=0)["image"]
    describer: Any = BlockRegistry.build({"block_type": "vlm/scene", "config": {"checkpoint_ref": "wgtorch:scene_describer"}}).eval()
    for name, share in shares(right(describer.logits, made, torch.tensor(asked))).items():
        if share == share:  # NaN where it was never asked for
            print(f"{name:10} {share:6.1%}")
    save_sheet(made[:16], out, columns=8, scale=4)
    print(f"{out}: {'; '.join(prompts[:4])}")


def arguments() -> argparse.ArgumentParser:
    """The program's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    drawing = commands.add_parser("pictures")
    drawing.add_argument("folder", type=Path)
    drawing.add_argument("--outlines", type=Path, dest="outlined", help="folder for what a ControlNet is shown of them")
    drawing.add_argument("--count", type=int, default=4000)
    drawing.add_argument("--seed", default="0")
    drawing.add_argument("--only", action="append", default=[], metavar="ATTRIBUTE=VALUE", help="as terrain=desert")
    drawing.add_argument("--word", help="stands in captions in place of the terrain")
    making = commands.add_parser("model")
    making.add_argument("folder", type=Path)
    making.add_argument("drawings", type=Path)
    making.add_argument("autoencoder", type=Path, help="a run's folder")
    writing = commands.add_parser("trained")
    writing.add_argument("base", type=Path)
    writing.add_argument("folder", type=Path)
    writing.add_argument("run", type=Path, help="its folder")
    reading = commands.add_parser("read")
    reading.add_argument("graph", type=Path, help="a folder of diffusers, or of a run")
    reading.add_argument("--out", type=Path, default=Path("pictures.png"))
    reading.add_argument("--count", type=int, default=100)
    reading.add_argument("--steps", type=int, default=20)
    reading.add_argument("--guidance", type=float, default=7.5)
    reading.add_argument("--solver", help="another one, as LCMScheduler")
    reading.add_argument("--word", help="stands in captions in place of the terrain")
    reading.add_argument("--means", action="append", default=[], metavar="ATTRIBUTE=VALUE", help="what the word should mean")
    reading.add_argument("--outlined", action="store_true", help="a ControlNet is shown outlines, and captions do not say the place")
    return parser


def main() -> None:
    """Does what the command line says."""
    chosen = vars(arguments().parse_args())
    {"pictures": pictures, "model": model, "trained": trained, "read": read}[chosen.pop("command")](**chosen)


if __name__ == "__main__":
    main()
