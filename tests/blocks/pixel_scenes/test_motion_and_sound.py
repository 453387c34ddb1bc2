"""Loops and sounds of scenes: what can move does, what cannot stands still, both go round without a seam."""

from __future__ import annotations

import pytest
import torch

from wgtorch.blocks.pixel_scenes.drawing.picture import draw
from wgtorch.blocks.pixel_scenes.motion import PixelSceneMotion, motions_of
from wgtorch.blocks.pixel_scenes.palette import snap
from wgtorch.blocks.pixel_scenes.sound import RATE, PixelSceneSound
from wgtorch.blocks.simulation.scene_plan import ScenePlan, Thing
from wgtorch.core.errors import PortError

MILL = Thing("landmark", "windmill", "back_middle", "red")


def picture(plan: ScenePlan) -> torch.Tensor:
    return torch.tensor(draw(plan, 1)).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize(
    ("plan", "moving"),
    [
        (ScenePlan("day", "clear", "meadow"), ()),
        (ScenePlan("day", "rain", "meadow"), ("rain",)),
        (ScenePlan("day", "snow", "sea"), ("snow", "water")),
        (ScenePlan("day", "clear", "hills", (MILL,)), ("sails",)),
        (ScenePlan("day", "clear", "hills", (Thing("landmark", "windmill", "back_middle", "red", "ruined"),)), ()),
        (ScenePlan("day", "clear", "desert", (Thing("landmark", "inn", "back_left", "red", "burning"),)), ("smoke", "fire")),
    ],
    ids=["nothing", "rain", "snow-sea", "sails", "ruin", "fire"],
)
def test_what_moves_is_what_the_plan_says(plan, moving):
    assert motions_of(plan) == moving
    image = picture(plan)
    video = PixelSceneMotion(frames=6)(image=image, scene=plan)["video"]
    assert video.shape == (1, 6, 3, 64, 64)
    moved = bool((video[0] - video[0, :1]).abs().amax() > 0)
    assert moved is bool(moving)
    if not moving:
        torch.testing.assert_close(video[0, 3], image[0], atol=0.02, rtol=0)


def test_only_the_sails_of_a_windmill_move():
    plan = ScenePlan("day", "clear", "hills", (MILL,))
    video = PixelSceneMotion(frames=6)(image=picture(plan), scene=plan)["video"][0]
    change = (video - video[:1]).abs().amax(dim=(0, 1))
    assert change[14:50, 16:48].amax() > 0.1
    change[14:50, 16:48] = 0
    assert change.amax() == 0


def test_sails_leave_nothing_behind_and_go_round_without_a_seam():
    """On a plain ground, with arms that are each drawn in full, every pixel is that of the ground, the tower or a sail."""
    plan = ScenePlan("day", "clear", "hills", (MILL,))
    ground = torch.tensor([0.3, 0.6, 0.9])
    image = ground[:, None, None].repeat(1, 64, 64)
    tower = torch.zeros(64, 64, dtype=torch.bool)
    tower[32:48, 28:36] = True
    image[:, tower] = 0.8
    for dx in (-1, 1):
        for dy in (-1, 1):
            for step in range(1, 10):
                for side in range(3):
                    image[:, 31 + dy * step, 31 + dx * step + (dx > 0) + dx * dy * side] = torch.tensor([0.4, 0.1, 0.1])
    video = snap(PixelSceneMotion(frames=8)(image=image[None], scene=plan)["video"][0])
    known = snap(torch.stack([ground, torch.full((3,), 0.8), torch.tensor([0.4, 0.1, 0.1])]).T[None, :, :, None])[0, :, :, 0].T
    found = torch.unique(video.permute(0, 2, 3, 1).reshape(-1, 3), dim=0)
    assert {tuple(colour.tolist()) for colour in found} == {tuple(colour.tolist()) for colour in known}
    sails = (video - known[2][:, None, None]).abs().amax(1) < 1e-6
    share = sails.flatten(1).sum(1)
    assert int(share.min()) > 0.7 * int(share.max())  # at no angle do they fall apart


def test_a_loop_keeps_the_size_and_is_the_same_again():
    plan = ScenePlan("day", "clear", "sea")
    large = picture(plan).repeat_interleave(2, -1).repeat_interleave(2, -2)
    loops = [PixelSceneMotion(frames=3)(image=large, scene=plan.to_data())["video"] for _ in range(2)]
    assert loops[0].shape == (1, 3, 3, 128, 128)
    torch.testing.assert_close(*loops)


def test_motion_refuses_other_sizes_and_too_few_plans():
    plan = ScenePlan("day", "clear", "sea")
    with pytest.raises(PortError, match="multiple of 64"):
        PixelSceneMotion()(image=torch.rand(1, 3, 65, 65), scene=plan)
    with pytest.raises(PortError, match="1 plans for 2 pictures"):
        PixelSceneMotion()(image=torch.rand(2, 3, 64, 64), scene=plan)
    with pytest.raises(ValueError, match="at least 2"):
        PixelSceneMotion(frames=1)


def spectrum(plan: ScenePlan) -> torch.Tensor:
    return torch.fft.rfft(PixelSceneSound(seconds=1.0)(scene=plan)["audio"][0, 0]).abs()


def test_sound_has_the_length_is_quiet_and_goes_round():
    audio = PixelSceneSound(seconds=2.0)(scene=[ScenePlan("day", "storm", "sea"), ScenePlan("dawn", "clear", "forest")])["audio"]
    assert audio.shape == (2, 1, 2 * RATE)
    assert 0.01 < audio.abs().amax() <= 0.351
    steps = (audio[..., 1:] - audio[..., :-1]).abs()
    assert ((audio[..., 0] - audio[..., -1]).abs() <= steps.amax(dim=-1)).all()


def test_rain_is_higher_than_wind_and_crickets_sing_at_night():
    dry, wet = (spectrum(ScenePlan("day", weather, "desert")) for weather in ("cloudy", "rain"))
    assert wet[2000:8000].square().sum() / wet.square().sum() > 3 * dry[2000:8000].square().sum() / dry.square().sum()
    night, day = (spectrum(ScenePlan(time, "clear", "desert")) for time in ("night", "day"))
    assert night[3800:4400].amax() > 5 * day[3800:4400].amax()


def test_sound_refuses_lengths_without_sense():
    with pytest.raises(ValueError, match="expected 0.5 to 120"):
        PixelSceneSound(seconds=0)
