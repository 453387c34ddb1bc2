"""Frames as rows of a batch, and walks between conditions."""

from __future__ import annotations

import pytest
import torch

from wgtorch.blocks.video import JoinFrames, RepeatFrames, SplitFrames, Walk
from wgtorch.core.errors import ConfigError, PortError


def test_a_walk_goes_from_one_condition_to_the_other() -> None:
    start, end = torch.zeros(2, 3, 4), torch.arange(2.0).view(2, 1, 1).expand(2, 3, 4)
    found = Walk(frames=5)(start=start, end=end)
    assert found["frames"] == 5
    rows = found["embedding"].unflatten(0, (2, 5))
    assert torch.equal(rows[:, 0], start)
    assert torch.equal(rows[:, -1], end)
    assert rows[1, :, 0, 0].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert Walk()(start=start, end=end, num_frames=1)["embedding"].shape == (2, 3, 4)


def test_one_condition_goes_with_many() -> None:
    assert Walk(frames=3)(start=torch.zeros(1, 2, 2), end=torch.ones(4, 2, 2))["embedding"].shape == (12, 2, 2)
    with pytest.raises(PortError, match="as many at the end as at the start"):
        Walk(frames=3)(start=torch.zeros(2, 2, 2), end=torch.ones(3, 2, 2))
    with pytest.raises(ConfigError, match="at least 1"):
        Walk(frames=0)


def test_frames_are_rows_and_rows_are_frames() -> None:
    video = torch.rand(2, 3, 3, 4, 4)
    rows = SplitFrames()(video=video)
    assert rows["frames"] == 3
    assert torch.equal(JoinFrames()(image=rows["image"], frames=3), video)
    first = RepeatFrames()(latent=video[:, 0], frames=3)
    assert torch.equal(first[:3], video[:1, 0].expand(3, -1, -1, -1))
    with pytest.raises(PortError, match="no whole videos of 4"):
        JoinFrames()(image=rows["image"], frames=4)
