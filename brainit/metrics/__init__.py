"""How close a reconstruction is to its stimulus, always as one value per image.

Every function takes ``(reconstruction, truth)`` in that order, pictures in 0..1 of shape (n, H, W) or (n,
H, W, 3), and returns a float64 vector of shape (n,). Pictures are scored at the stimuli's own size; the
evaluators of MindEye and Brain-IT bring both to 425 pixels before PixCorr and SSIM, which gives other
numbers. `score` gathers them, `compare` sets them beside the baselines and gives the flat numbers of
``metrics.json``, `bootstrap_interval` says how sure they are.
"""

from brainit.metrics.identification import (
    TWO_WAY_CHANCE,
    correlation_block,
    top1,
    two_way,
    two_way_pix,
)
from brainit.metrics.intervals import (
    Interval,
    Null,
    binomial_interval,
    bootstrap_interval,
    paired_interval,
    permutation_null,
    share_interval,
    sign_flip_p,
)
from brainit.metrics.pixels import constant_images, grey, mse, pixcorr, psnr, ssim, ssim_gauss
from brainit.metrics.scores import SCORES, Scores, average_scores, compare, interval_of, score

__all__ = [
    "SCORES",
    "TWO_WAY_CHANCE",
    "Interval",
    "Null",
    "Scores",
    "average_scores",
    "binomial_interval",
    "bootstrap_interval",
    "compare",
    "constant_images",
    "correlation_block",
    "grey",
    "interval_of",
    "mse",
    "paired_interval",
    "permutation_null",
    "pixcorr",
    "psnr",
    "score",
    "share_interval",
    "sign_flip_p",
    "ssim",
    "ssim_gauss",
    "top1",
    "two_way",
    "two_way_pix",
]
