"""How a set of pictures reads: errors, verdicts, and their intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from brainit.metrics import binomial_interval, bootstrap_interval
from quant.adapters.watermark.core import signs
from quant.adapters.watermark.extractor import Extractor
from quant.adapters.watermark.losses import psnr
from quant.adapters.watermark.verify import threshold

LOOSE = 5e-3
"""The false-positive rate that the publications quote, beside the one asked for."""


@torch.no_grad()
def outputs(reader: Extractor, images: Tensor, batch: int = 250) -> Tensor:
    """Return the extractor's outputs (n, bits)."""
    return torch.cat([reader(x) for x in images.split(batch)])


@dataclass(frozen=True)
class Meter:
    """An extractor, a message, and the false-positive rate of the verdict."""

    reader: Extractor
    message: str
    rate: float

    def read(self, images: Tensor) -> Tensor:
        """Return outputs times the message's signs (n, bits): positive where a bit is right."""
        return outputs(self.reader, images) * signs(self.message, images.device)

    def row(
        self, kind: str, name: str, images: Tensor, reference: Tensor | None = None, **more: Any
    ) -> dict[str, Any]:
        """Measure pictures (n, 3, h, w) in 0..1, as stored; `reference` is what their PSNR is taken to."""
        found = self.read(images)
        right = (found > 0).sum(1)
        n, bits = found.shape
        accepted = {rate: int((right >= needed(bits, rate)).sum()) for rate in (self.rate, LOOSE)}
        share = binomial_interval(accepted[self.rate], n)
        error = bootstrap_interval(1 - (right / bits).cpu().double().numpy())
        level = None
        if reference is not None and reference.shape == images.shape:
            level = float(psnr(images, reference).mean())
        return {
            "kind": kind, "name": name, "n": n, "bit_error": error.mean, "bit_error_low": error.low,
            "bit_error_high": error.high, "accepted": accepted[self.rate],
            "accepted_share": accepted[self.rate] / n, "accepted_low": share.low,
            "accepted_high": share.high, "accepted_loose": accepted[LOOSE] / n,
            "margin": float(found.mean()), "most_matches": int(right.max()),
            "fewest_matches": int(right.min()), "psnr_db": level, **more,
        }  # fmt: skip


def needed(bits: int, rate: float) -> int:
    """Return the matches from which a picture counts as marked; more than there are bits if none would do."""
    found = threshold(bits, rate)
    return bits + 1 if found is None else found
