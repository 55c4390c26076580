"""Pictures from people's files: checked before they are read, and never guessed at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lab.errors import InputError, MissingDataError
from lab.images import SIDE, resize

FORMS = {"PNG", "JPEG"}
MODES = {"L", "RGB", "RGBA", "P", "LA", "1"}
"""8 bits a channel; what has more would be clipped without a word."""
LARGEST = 4096


def read_picture(path: Path, smallest: int) -> Tensor:
    """Read a PNG or JPEG as float tensor of shape (1, 3, h, w) in 0..1, as it is.

    Raises
    ------
    MissingDataError
        No such file.
    InputError
        No PNG or JPEG by its content, damaged, more than 8 bits a channel, partly transparent, or sides
        outside `smallest` to 4096.
    """
    from PIL import Image

    if path.is_dir():
        raise InputError(f"{path} is a folder; give its pictures, as {path}/*.png")
    if not path.is_file():
        raise MissingDataError(f"no picture at {path}")
    try:
        with Image.open(path) as opened:
            if opened.format not in FORMS:
                raise InputError(f"{path} is {opened.format}; pictures are read as PNG or JPEG")
            if opened.mode not in MODES:
                raise InputError(f"{path} has pixels of kind {opened.mode!r}; store it with 8 bits a channel")
            width, height = opened.size
            if min(width, height) < smallest or max(width, height) > LARGEST:
                raise InputError(
                    f"{path} is {width}x{height}; sides must be {smallest} to {LARGEST} pixels: smaller ones "
                    "hold too little to say anything"
                )
            if "A" in opened.mode or "transparency" in opened.info:
                _refuse_transparent(path, np.array(opened.convert("RGBA"))[..., 3])
            array = np.array(opened.convert("RGB"))
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise InputError(f"{path} is not a picture, or is damaged: give a whole PNG or JPEG") from None
    return torch.from_numpy(array).permute(2, 0, 1)[None].float() / 255


def size_of(path: Path) -> tuple[int, int] | None:
    """Return a picture's width and height; None where the file is no picture."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            return opened.size
    except (OSError, UnidentifiedImageError):
        return None


def _refuse_transparent(path: Path, alpha: np.ndarray) -> None:
    if alpha.min() < 255:
        raise InputError(
            f"{path}: {100 * float((alpha < 255).mean()):.3g} % of its pixels are transparent, and what is "
            "seen there is not in the file; save it on its background"
        )


def to_model_size(picture: Tensor) -> Tensor:
    """Cut the middle square out and resize it to what the autoencoder takes: (1, 3, 64, 64)."""
    h, w = picture.shape[-2:]
    side = min(h, w)
    top, left = (h - side) // 2, (w - side) // 2
    return resize(picture[..., top : top + side, left : left + side], SIDE)
