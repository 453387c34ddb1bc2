"""What training registers, by the module that does: found by name, imported when asked for."""

from __future__ import annotations

from wgtorch.core.registry import provide_modules

_OBJECTIVES = {
    "wgtorch.train.objectives.denoising": ("denoising",),
    "wgtorch.train.objectives.preference": ("dpo",),
    "wgtorch.train.objectives.consistency": ("lcm",),
    "wgtorch.train.objectives.policy": ("ddpo",),
    "wgtorch.train.objectives.reconstruction": ("reconstruction",),
    "wgtorch.train.objectives.tokens": ("next_token",),
    "wgtorch.train.objectives.answers": ("answering",),
    "wgtorch.train.objectives.classification": ("classification",),
    "wgtorch.train.objectives.world_state": ("world_state",),
    "wgtorch.train.objectives.reward": ("reward",),
    "wgtorch.train.scenes.painter": ("scene_painting",),
    "wgtorch.train.scenes.captioner": ("scene_describing", "scene_reading"),
    "wgtorch.train.scenes.describer": ("scene_telling",),
    "wgtorch.train.scenes.upscaling": ("upscaling",),
    "wgtorch.train.simulation.actions": ("action_reading",),
    "wgtorch.train.pixel_scenes.describer": ("pixel_scene_describing",),
    "wgtorch.train.pixel_scenes.painter": ("plan_reading",),
}
_DATA = {
    "wgtorch.train.data.synthetic": ("synthetic",),
    "wgtorch.train.data.tensors": ("tensors",),
    "wgtorch.train.data.rows": ("rows",),
    "wgtorch.train.data.image_folder": ("image_folder",),
    "wgtorch.train.scenes.data": ("scenes", "scene_captions", "scene_episodes"),
    "wgtorch.train.scenes.upscaling": ("large_scenes",),
    "wgtorch.train.simulation.actions": ("typed_actions",),
    "wgtorch.train.simulation.narration": ("narrations",),
    "wgtorch.train.simulation.readings": ("typed_readings",),
    "wgtorch.train.pixel_scenes.data": ("pixel_scenes",),
}


def install() -> None:
    """Tells the registries which module provides which name."""
    provide_modules("wgtorch.objectives", _OBJECTIVES)
    provide_modules("wgtorch.rewards", {"wgtorch.train.objectives.reward": ("brightness", "label_likelihood")})
    provide_modules("wgtorch.data", _DATA)
