"""Pictures of a comparison: a strip per recipe, with gaps, and ten times its difference to full precision."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from lab.compare.recipes import FULL
from lab.report.block import Block, sentence

GAP = 4
"""Pixels between pictures, transparent, so that it suits light and dark pages."""
SIDE = 112
"""Pixels that a picture is shown at, at least."""
GAIN = 10
OPEN = 8
"""Recipes that are shown without a click."""


def picture_blocks(rows: Mapping[str, tuple[str, np.ndarray]]) -> list[Block]:
    """Lay out strips in the order given.

    Parameters
    ----------
    rows : mapping of recipe to (what to say of it, uint8 array of shape (k, H, W, 3))
        Differences are drawn where full precision is among them.
    """
    if not rows:
        return [sentence("This model has no decoder here, so only latents were compared.")]
    exact = rows[FULL][1] if FULL in rows else None
    strips: list[dict[str, Any]] = []
    for name, (about, pictures) in rows.items():
        gap = None if exact is None or name == FULL else difference(pictures, exact)
        made = {"name": name, "about": about, "src": uri(strip(pictures))}
        strips.append({**made, "difference": "" if gap is None else uri(strip(gap))})
    height, width = next(iter(rows.values()))[1].shape[1:3]
    scale = max(1, round(SIDE / height))
    count = max(len(pictures) for _, pictures in rows.values())
    size = {"height": height * scale, "width": (count * (width + GAP) - GAP) * scale}
    return [Block("compare_pictures", {"first": strips[:OPEN], "rest": strips[OPEN:], **size})]


def difference(pictures: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Return ten times the difference around middle grey, so that both signs are seen: uint8, same shape."""
    gap = pictures.astype(np.float32) - exact[: len(pictures)].astype(np.float32)
    return np.clip(127.5 + GAIN * gap, 0, 255).astype(np.uint8)


def strip(pictures: np.ndarray) -> np.ndarray:
    """Lay pictures side by side with transparent gaps: uint8 (H, k (W + gap) - gap, 4)."""
    k, height, width, _ = pictures.shape
    sheet = np.zeros((height, k * (width + GAP) - GAP, 4), np.uint8)
    for i, picture in enumerate(pictures):
        left = i * (width + GAP)
        sheet[:, left : left + width, :3], sheet[:, left : left + width, 3] = picture, 255
    return sheet


def uri(picture: np.ndarray) -> str:
    """Return a picture as a data URL."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "WEBP", quality=90, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def grid(rows: Mapping[str, np.ndarray], label_width: int = 300) -> np.ndarray:
    """Lay pictures out, one row per recipe with its name at the left: uint8 (h, w, 3), for a file."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = next(iter(rows.values())).shape[1:3]
    columns = max(len(pictures) for pictures in rows.values())
    sheet = Image.new("RGB", (label_width + columns * (width + GAP), len(rows) * (height + GAP)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for r, (name, pictures) in enumerate(rows.items()):
        top = r * (height + GAP)
        pen.text((6, top + height / 2 - 8), _short(name, 40), fill="black", font=font)
        for c, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(picture), (label_width + c * (width + GAP), top))
    return np.asarray(sheet)


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
