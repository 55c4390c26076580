"""A network's score of another range is a number, too: ranges are checked, never guessed."""

from __future__ import annotations

import pytest
import torch

from lab.errors import InputError
from lab.metrics.distances import pooled_features
from lab.metrics.efficientnet import EfficientNetLite0
from lab.metrics.pictures import check_pictures
from lab.metrics.stlpips import STLPIPS

GOOD = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (GOOD.mul(255).to(torch.uint8), "torch.uint8; expected floating point"),
        (GOOD * 255, r"0\.\d+\.\.25\d.*expected finite values in 0\.\.1"),
        (GOOD * 2 - 1, r"range over -0\.99"),
        (GOOD.masked_fill(GOOD > 0.99, torch.nan), "range over nan"),
    ],
)
def test_other_ranges_are_refused(bad: torch.Tensor, says: str) -> None:
    for score in (
        check_pictures,
        lambda x: STLPIPS()(GOOD, x),
        lambda x: STLPIPS()(x, GOOD),
        lambda x: pooled_features(EfficientNetLite0(), x, "16", size=32),
    ):
        with pytest.raises(InputError, match=says) as caught:
            score(bad)
        assert "\n" not in str(caught.value)
    assert check_pictures(GOOD + 5e-5) is not None and len(check_pictures(GOOD[:0])) == 0


def test_eight_bits_do_not_wrap_around() -> None:
    with pytest.raises(InputError, match=r"images are torch\.uint8"):
        EfficientNetLite0().prepare(GOOD.mul(255).to(torch.uint8), size=None)
