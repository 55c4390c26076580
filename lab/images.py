"""Between a dataset's pictures and the 64x64 colour pictures of the zoo's models; sheets of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from lab.errors import InputError
from lab.files import replacing

SIDE = 64


def resize(images: torch.Tensor, side: int) -> torch.Tensor:
    """Resize ``images`` (n, c, h, w) in 0..1 to side x side: bicubic, antialiased to shrink, clamped."""
    if images.shape[-1] == side and images.shape[-2] == side:
        return images
    return F.interpolate(images, (side, side), mode="bicubic", antialias=True, align_corners=False).clamp(
        0, 1
    )


def planes(pictures: np.ndarray) -> torch.Tensor:
    """Turn pictures (n, H, W) or (n, H, W, 3) into float32 (n, 3, H, W)."""
    x = torch.from_numpy(np.ascontiguousarray(pictures, dtype=np.float32))
    return x[:, None].expand(-1, 3, -1, -1) if x.ndim == 3 else x.permute(0, 3, 1, 2)


def to_model(pictures: np.ndarray) -> torch.Tensor:
    """Turn pictures (n, H, W) or (n, H, W, 3) in 0..1 into float32 (n, 3, 64, 64)."""
    return resize(planes(pictures), SIDE)


def from_model(images: torch.Tensor, like: tuple[int, ...]) -> np.ndarray:
    """Turn (n, 3, 64, 64) into pictures of a dataset's own form: ``like`` is (H, W) for grey or (H, W, 3)."""
    x = resize(images.float().cpu(), like[0])
    return x.mean(dim=1).numpy() if len(like) == 2 else x.permute(0, 2, 3, 1).numpy()


def sheet(pictures: np.ndarray, columns: int, gap: int = 0) -> np.ndarray:
    """Lay pictures (n, h, w, 3) in 0..1, or uint8, out row by row on white: one uint8 picture."""
    if pictures.dtype != np.uint8:
        pictures = np.rint(np.clip(pictures, 0, 1) * 255).astype(np.uint8)
    n, h, w, _ = pictures.shape
    rows = -(-n // columns)
    tiles = np.full((rows * columns, h + gap, w + gap, 3), 255, np.uint8)
    tiles[:n, :h, :w] = pictures
    laid = tiles.reshape(rows, columns, h + gap, w + gap, 3).swapaxes(1, 2)
    return laid.reshape(rows * (h + gap), columns * (w + gap), 3)


def write_picture(picture: np.ndarray, path: Path, quality: int = 92, about: str = "") -> None:
    """Write a uint8 picture (h, w, 3) whole or not at all, as PNG or WebP by the file's ending.

    ``about`` says what is seen; a PNG carries it as its description.

    Raises
    ------
    InputError
        The ending is another one.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    form = {".png": "PNG", ".webp": "WEBP"}.get(path.suffix.lower())
    if form is None:
        raise InputError(f"{path}: pictures are written as .png or .webp; give the file one of these endings")
    options: dict[str, Any] = {"quality": quality, "method": 6} if form == "WEBP" else {"optimize": True}
    if about and form == "PNG":
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt("Description", about)
    with replacing(path) as temporary:
        Image.fromarray(picture).save(temporary, format=form, **options)
