"""Ports that many blocks share, each described once. An input is optional where ``forward`` has a default for it."""

from __future__ import annotations

from dataclasses import replace

from wgtorch.core.port import Port

# --- texts and pictures ---------------------------------------------------------------------------------------------------

TEXT = Port(dtype="text", description="one text, or a list with one for each sample")
IMAGE = Port(dtype="image", raw=True, description="pictures [B, 3, H, W] or [3, H, W] in [0, 1], or of Pillow, alone or a list of such")
PICTURES = Port(dtype="image", description="pictures [B, 3, H, W] in [0, 1]")
VIDEO = Port(dtype="video", shape=("B", "T", 3, "H", "W"), description="videos of T frames, in [0, 1]")
MASK = Port(dtype="tensor", shape=("B", 1, "H", "W"), description="1 where the picture is painted anew, 0 where it stays")
HEIGHT = Port(dtype="number", description="height in pixels")
WIDTH = Port(dtype="number", description="width in pixels")
LATENT_MASK = Port(dtype="tensor", shape=("B", 1, "h", "w"), description="the mask at the latents' size: 1 where they are painted anew")
NUM_IMAGES = Port(dtype="number", description="pictures for each prompt")
NUM_FRAMES = Port(dtype="number", description="frames of the video")
USAGE = Port(dtype="dict", optional=True, description="what the call took: seconds as latency, and tokens and cost where the model tells")

LOG_PROB = Port(dtype="tensor", shape=("B",), optional=True, description="log-probability of each answer with its end, in nats")
ANSWER_TOKENS = Port(dtype="tensor", shape=("B",), optional=True, description="tokens of each answer, the end among them")

# --- conditions -----------------------------------------------------------------------------------------------------------

TOKENS = Port(dtype="tokens", shape=("B", "L"), description="token ids, padded")
ATTENTION_MASK = Port(dtype="tokens", shape=("B", "L"), description="1 for a token of the text, 0 for padding")
ROWS = Port(dtype="embedding", description="conditions [B, ...], of which only the rows, the dtype and the device count")
MAX_SEQUENCE_LENGTH = Port(dtype="number", description="tokens of an embedded prompt")
POOLED = Port(dtype="embedding", shape=("B", "P"), description="one vector for each prompt")
TEXT_EMBEDS = Port(dtype="embedding", shape=("B", "P"), description="one vector for each prompt, pooled by a text encoder")
TIME_IDS = Port(dtype="tensor", description="original size, crop and target size in pixels [B, 6], for models trained with them (SDXL)")
GUIDANCE = Port(dtype="number", description="guidance scale that a distilled model is told, one for all or [B]; others ignore it")
GUIDANCE_SCALE = Port(dtype="number", description="strength of classifier-free guidance; at most 1 is none")
CONDITIONING_SCALE = Port(dtype="number", description="strength of what is added; 1 is as trained")
PARTS = Port(dtype="number", description="2 where the batch holds the unconditional rows before the conditional ones, else 1")
CONDITION = Port(dtype="embedding", optional=True, description="what the prediction depends on [B, T, D]")

# --- the denoising loop ---------------------------------------------------------------------------------------------------

LATENT = Port(dtype="latent", description="the noisy latents [B, C, ...]")
PICTURE_LATENT = Port(
    dtype="latent", shape=("B", "C", "H", "W"), description="the noisy latents of pictures; sides fit the model's patches"
)
VIDEO_LATENT = Port(
    dtype="latent", shape=("B", "C", "T", "H", "W"), description="the noisy latents of videos; sides fit the model's patches"
)
CLEAN_LATENT = Port(dtype="latent", description="latents without noise [B, C, ...]")
FIRST_TIMESTEP = Port(dtype="number", description="what the backbone is called with first")
TIMESTEP = Port(dtype="number", description="one for all, or [B]; in the units of the model's schedule")
PRED = Port(dtype="latent", description="noise, x0, velocity or flow, in the shape of the latents")
NOISE = Port(dtype="latent", description="standard normal noise in the shape of the latents")
PROGRESS = Port(description="the sampler's grid of timesteps, and how far along it the loop is")
DONE = Port(description="True after the last step")
NUM_STEPS = Port(dtype="number", description="steps of the loop")
STRENGTH = Port(dtype="number", description="share of the steps to take from an image, in (0, 1]; 1 starts from pure noise")
RUN_TIMESTEPS = Port(dtype="list", description="the timesteps of this run, falling, in place of num_steps")
RUN_SIGMAS = Port(dtype="list", description="the noise levels of this run, falling, in place of num_steps")
START = Port(dtype="number", description="share of the way to the data, in (0, 1), already made: the loop starts there and adds no noise")
END = Port(dtype="number", description="share of the way to the data, in (0, 1), at which the loop leaves off")
MU = Port(dtype="number", description="log of the shift of a flow's noise levels")
NUM_TOKENS = Port(dtype="number", description="patches of the latent, from which the shift is found")
ADAPTED = Port(aggregation="list", description="what adapters add: residuals of layers, keys and values of attentions; each sort is summed")
AFTER = Port(description="not read: it only makes this block draw after the one that gives it")
NOISE_AUG_STRENGTH = Port(dtype="number", description="deviation of noise in the picture, whose pixels count from -1 to 1")

# --- episodes of a world --------------------------------------------------------------------------------------------------

CONTENT = Port(dtype="dict", description="the world's content before the episode, by field")
FIRST_CONTENT = replace(CONTENT, aggregation="first")
NEW_CONTENT = replace(CONTENT, description="the world's content after the episode, by field; the one before is not changed")
ACTIONS = Port(dtype="dict", description="what each one does, clause by clause, by name; the empty name is the traveller")
INTENT = Port(description="what is meant to happen: words, or a mapping with text and resolution")
RECIPE = Port(dtype="dict", description="prompts, one for each picture, and the scene that they show")
DESCRIPTION = Port(description="what the pictures show, in words: one text, or a list with one for each picture")
OUTCOME = Port(dtype="text", description="what happened, in words")
