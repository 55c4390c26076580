"""What a feature network is given: pictures in 0..1, or a refusal."""

from __future__ import annotations

import torch
from torch import Tensor

from lab.errors import InputError

_SLACK = 1e-4  # float32 arithmetic may leave 0..1 by this much


def check_pictures(images: Tensor) -> Tensor:
    """Return pictures as they are if they are floating point and in 0..1; other ranges score, too, but wrong.

    Raises
    ------
    InputError
        Integers, values outside of 0..1, or values that are not finite.
    """
    if not images.is_floating_point():
        raise InputError(
            f"pictures are {images.dtype}; expected floating point in 0..1: divide 8 bits by 255"
        )
    low, high = (float(end) for end in torch.aminmax(images.detach())) if images.numel() else (0.0, 0.0)
    if not (low >= -_SLACK and high <= 1 + _SLACK):  # NaN fails both
        raise InputError(
            f"pictures range over {low:.4g}..{high:.4g}; expected finite values in 0..1: scale or clip them"
        )
    return images
