"""A row of a watermark's report, from an extractor whose answers are the pictures themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from brainit.metrics import binomial_interval, bootstrap_interval
from lab.zoo.watermark.measuring import LOOSE, Meter, needed

BITS, MATCHES = 48, (48, 41, 40, 34, 33, 20)


class Reads(torch.nn.Module):
    """Takes outputs out of a picture's first row: .5 is nothing."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, 0, 0] * 4 - 2


def test_a_row_by_hand() -> None:
    message = "01" * (BITS // 2)
    signs = torch.tensor([1.0 if bit == "1" else -1.0 for bit in message])
    right = torch.arange(BITS)[None] < torch.tensor(MATCHES)[:, None]
    images = (0.5 + 0.25 * torch.where(right, signs, -signs))[:, None, None].expand(-1, 3, 1, -1)
    row = Meter(Reads(), message, 1e-6).row("image", "x", images, images - 0.1, steps=3)
    wrong = 1 - np.array(MATCHES) / BITS
    assert (needed(BITS, 1e-6), needed(BITS, LOOSE), needed(16, 1e-6)) == (41, 34, 17)  # the card's table
    assert row["bit_error"] == pytest.approx(wrong.mean()) and (row["n"], row["steps"]) == (6, 3)
    assert (row["bit_error_low"], row["bit_error_high"]) == pytest.approx(bootstrap_interval(wrong)[1:])
    assert (row["accepted"], row["accepted_share"], row["accepted_loose"]) == (2, 2 / 6, 4 / 6)
    assert (row["accepted_low"], row["accepted_high"]) == binomial_interval(2, 6)[1:]
    assert (row["most_matches"], row["fewest_matches"]) == (48, 20)
    assert row["margin"] == pytest.approx(1 - 2 * wrong.mean()) and row["psnr_db"] == pytest.approx(20)
    assert Meter(Reads(), message, 1e-6).row("image", "x", images, images[..., :9])["psnr_db"] is None
