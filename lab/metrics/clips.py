"""Scores of pictures and of clips: a clip is scored frame by frame, and by how it moves.

Pictures are (n, 3, H, W), clips (n, frames, 3, H, W), both in 0..1.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from brainit.metrics import tensors
from lab.metrics import motion

PSNR_CAP = 100.0
"""What equal pictures count as, in dB; one level off in one pixel of a 64x64 picture is 89 dB."""


def frames_of(pictures: Tensor) -> Tensor:
    """Return clips' frames as pictures, clip after clip; pictures as they are."""
    return pictures.flatten(0, 1) if pictures.ndim == 5 else pictures


def mean_frame(values: Tensor, n: int) -> Tensor:
    """Mean over the frames of each of ``n`` clips: (n * frames, ...) to (n, ...)."""
    return values.unflatten(0, (n, -1)).mean(1)


def strips(pictures: Tensor) -> Tensor:
    """Lay the frames of each clip side by side: (n, 3, H, frames * W); pictures as they are."""
    return pictures.permute(0, 2, 3, 1, 4).flatten(3) if pictures.ndim == 5 else pictures


def scores(bench: Any, pictures: Tensor, reference: Tensor) -> dict[str, Tensor]:
    """Paired scores of each picture or clip against the full-precision model's: (n,) by name.

    Of a clip the mean over its frames, and the temporal-difference error and the motion energy over the
    reference's (`lab.metrics.motion`).
    """
    n, ours, theirs = len(pictures), frames_of(pictures), frames_of(reference)
    found = {"psnr_db": tensors.psnr(ours, theirs, PSNR_CAP), "ssim": tensors.ssim(ours, theirs)}
    perceptual = bench.networks.perceptual(ours, theirs)
    if perceptual is not None:
        found["st_lpips"] = perceptual
    if bench.sources is not None:
        found["pixcorr"] = tensors.pixcorr(ours, frames_of(bench.sources).to(ours.device))
    out = {name: mean_frame(score, n) for name, score in found.items()}
    if pictures.ndim == 5:
        out["change_error"] = motion.change_error(pictures, reference)
        out["motion_ratio"] = motion.energy_ratio(pictures, reference)
    return out
