"""Read one picture file exactly: 16 bits are 16 bits, and what the file leaves open is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from brainit.datasets.files.presence import check_content
from brainit.errors import InputError

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_GREY = ("1", "L", "LA", "I;16", "I;16B", "I;16L", "I")
_READ = (*_GREY, "P", "PA", "La", "RGB", "RGBA", "RGBa", "RGBX")
_ORIENTATION = 0x0112
_FROM_16_BITS = 65535 / 255


def read_picture(source: Any, where: str) -> np.ndarray:
    """Read a picture file as 8 bits a value.

    Parameters
    ----------
    source : path or binary stream
    where : str
        Name for messages.

    Returns
    -------
    uint8 array of shape (H, W) for grey, or (H, W, 3)
        16 bits are scaled from 0..65535.

    Raises
    ------
    InputError
        The file is damaged or no picture, is partly transparent, in inks or real numbers, holds several
        pictures, or says that it must be turned before it is shown.
    """
    from PIL import Image, UnidentifiedImageError

    if isinstance(source, Path):
        check_content(source)
    try:
        with Image.open(source) as image:
            if getattr(image, "n_frames", 1) > 1:
                raise InputError(f"{where} holds {image.n_frames} pictures; a stimulus is one")
            if image.getexif().get(_ORIENTATION, 1) not in (0, 1):
                raise InputError(
                    f"{where}: its EXIF orientation asks to turn it, which presentation programs may ignore; "
                    "save it as it was shown, without EXIF"
                )
            return _values(image, where)
    except InputError:
        raise
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(
            f"{where} cannot be read as a picture; it is damaged or no picture: remove it"
        ) from error


def _values(image: Any, where: str) -> np.ndarray:
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        if alpha.min() < 255:
            share = 100 * float((alpha < 255).mean())
            raise InputError(
                f"{where}: {share:.3g} % of its pixels are transparent, and what was behind them is not in "
                "the file; save it on its background"
            )
    if image.mode not in _READ or (image.mode == "I" and image.format != "PNG"):
        raise InputError(
            f"{where} is of mode {image.mode} ({image.format}), which does not say what a screen shows; save "
            "it as 8-bit grey or RGB"
        )
    if image.mode.startswith("I"):
        return np.rint(np.clip(np.asarray(image), 0, 65535) / _FROM_16_BITS).astype(np.uint8)
    return np.asarray(image.convert("L" if image.mode in _GREY else "RGB"))
