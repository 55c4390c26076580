"""Clips in a comparison: frames are scored as pictures are, and movement beside them."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from brainit.metrics import tensors
from lab.compare.networks import Networks
from lab.metrics import clips

BENCH = SimpleNamespace(networks=Networks(), sources=None)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return tensors.eight_bit(torch.rand(*shape, generator=torch.Generator().manual_seed(seed)))


def test_pictures_score_as_before() -> None:
    one, other = drawn(4, 3, 16, 16), drawn(4, 3, 16, 16, seed=1)
    found = clips.scores(BENCH, one, other)
    assert set(found) == {"psnr_db", "ssim"}
    assert torch.equal(found["psnr_db"], tensors.psnr(one, other, clips.PSNR_CAP))
    assert torch.equal(clips.frames_of(one), one) and torch.equal(clips.strips(one), one)


def test_clips_have_frames_and_movement() -> None:
    one, other = drawn(2, 3, 3, 16, 16), drawn(2, 3, 3, 16, 16, seed=1)
    perfect = clips.scores(BENCH, one, one)
    assert perfect["psnr_db"].tolist() == [clips.PSNR_CAP] * 2
    assert perfect["change_error"].tolist() == [0, 0] and perfect["motion_ratio"].tolist() == [1, 1]
    found = clips.scores(BENCH, one, other)
    by_hand = [float(tensors.psnr(a, b).mean()) for a, b in zip(one, other, strict=True)]
    torch.testing.assert_close(found["psnr_db"], torch.tensor(by_hand, dtype=torch.float64))
    assert bool((found["change_error"] > 1).all())
    moved = [x.double().diff(dim=1).square().flatten(1).mean(1) for x in (one, other)]
    torch.testing.assert_close(found["motion_ratio"], moved[0] / moved[1])
    strip = clips.strips(one)
    assert strip.shape == (2, 3, 16, 48) and torch.equal(strip[1, :, :, 16:32], one[1, 1])
    assert clips.mean_frame(torch.arange(6.0)[:, None], 2).tolist() == [[1], [4]]
