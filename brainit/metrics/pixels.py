"""Scores of single pairs of pictures: correlation, SSIM in two forms, squared error, PSNR."""

from __future__ import annotations

import numpy as np
import torch

from brainit.errors import InputError
from brainit.metrics import tensors
from brainit.metrics.tensors import GAUSS_WINDOW, SSIM_WINDOW

LUMINANCE = (0.2125, 0.7154, 0.0721)
"""Of red, green and blue (ITU-R BT.709, as in scikit-image's ``rgb2gray``)."""
_SLACK = 1e-4  # float32 arithmetic may leave 0..1 by this much


def check_pair(reconstruction: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both stacks as float64 after checking that they can be compared.

    Parameters
    ----------
    reconstruction, truth : array of shape (n, H, W) or (n, H, W, 3)
        Pictures in 0..1, in the same order.

    Raises
    ------
    InputError
        If the shapes differ, a value is not finite, or values lie outside 0..1.
    """
    pair = [np.asarray(a, np.float64) for a in (reconstruction, truth)]
    if pair[0].shape != pair[1].shape:
        raise InputError(
            f"reconstructions have shape {pair[0].shape} but stimuli {pair[1].shape}; both must be the same: "
            "resize the reconstructions to the stimuli's own size"
        )
    for name, images in zip(("reconstructions", "stimuli"), pair, strict=True):
        if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] != 3) or images.shape[0] == 0:
            raise InputError(
                f"{name} have shape {images.shape}; expected (n, H, W) or (n, H, W, 3) with n >= 1"
            )
        if not np.isfinite(images).all():
            raise InputError(f"{name} hold {int((~np.isfinite(images)).sum())} values that are not finite")
        low, high = images.min(), images.max()
        if low < -_SLACK or high > 1 + _SLACK:
            raise InputError(
                f"{name} range over {low:.4g}..{high:.4g}; expected 0..1: scale or clip them first"
            )
    return pair[0], pair[1]


def grey(images: np.ndarray) -> np.ndarray:
    """Return (n, H, W): luminance of colour pictures, grey ones unchanged."""
    images = np.asarray(images, np.float64)
    return images @ np.array(LUMINANCE) if images.ndim == 4 else images


def planes(images: np.ndarray) -> torch.Tensor:
    """Return pictures as a float64 tensor of shape (n, C, H, W), C 1 for grey ones."""
    values = torch.from_numpy(np.array(images, np.float64))
    return values[:, None] if values.ndim == 3 else values.movedim(-1, 1)


def constant_images(images: np.ndarray) -> np.ndarray:
    """Say which pictures have one value everywhere, so that no correlation exists: bool (n,)."""
    return tensors.centred_rows(torch.from_numpy(np.array(images, np.float64)))[1].numpy()


def pixcorr(reconstruction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Pearson correlation over the flattened pixels of each picture (all channels together).

    A constant picture has no correlation; it counts as 0 and `constant_images` tells how many there were.

    Returns
    -------
    float64 array of shape (n,)
    """
    reconstruction, truth = check_pair(reconstruction, truth)
    return tensors.pixcorr(planes(reconstruction), planes(truth)).numpy()


def mse(reconstruction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean squared error per picture, on the 0..1 scale."""
    reconstruction, truth = check_pair(reconstruction, truth)
    return tensors.mse(planes(reconstruction), planes(truth)).numpy()


def psnr(reconstruction: np.ndarray, truth: np.ndarray, cap: float = np.inf) -> np.ndarray:
    """Peak signal-to-noise ratio per picture in dB, peak 1; equal pictures get `cap`.

    Averages of it are averages of dB (the form most papers use), not the dB of an average.
    """
    reconstruction, truth = check_pair(reconstruction, truth)
    return tensors.psnr(planes(reconstruction), planes(truth), cap).numpy()


def ssim(reconstruction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Structural similarity per picture: scikit-image's default 7x7 uniform window, ``data_range`` 1.

    Colour pictures are compared channel by channel (``channel_axis=-1``) and averaged, not turned grey.
    """
    reconstruction, truth = check_pair(reconstruction, truth)
    _check_window(truth, SSIM_WINDOW)
    return tensors.ssim(planes(reconstruction), planes(truth)).numpy()


def ssim_gauss(reconstruction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Structural similarity in the field's form: grey, Gaussian window of sigma 1.5, population covariance.

    The setting of the MindEye and Brain-IT evaluators, without their resize to 425 pixels: pictures are
    scored at the stimulus' own size. Those evaluators also pass ``multichannel=True`` on grey pictures,
    which scikit-image 0.19 reads as "columns are channels" and later versions ignore; it is never passed
    here.
    """
    reconstruction, truth = check_pair(reconstruction, truth)
    _check_window(truth, GAUSS_WINDOW)
    return tensors.ssim(planes(grey(reconstruction)), planes(grey(truth)), gaussian=True).numpy()


def _check_window(images: np.ndarray, window: int) -> None:
    side = min(images.shape[1:3])
    if side < window:
        raise InputError(
            f"pictures are {images.shape[1]}x{images.shape[2]} pixels; this SSIM needs {window} per side"
        )
