"""Precision and recall: against a plain loop, and on sets whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from lab.errors import InputError
from lab.metrics.manifold import precision_recall

R = np.random.default_rng(0)


def test_equals_a_plain_loop() -> None:
    ours, reference = R.normal(size=(20, 3)), R.normal(size=(15, 3)) + 0.7

    def share(points: np.ndarray, centres: np.ndarray, k: int) -> float:
        inside = 0
        for p in points:
            radii = [sorted(np.linalg.norm(centres - c, axis=1))[k] for c in centres]
            inside += any(np.linalg.norm(p - c) <= r for c, r in zip(centres, radii, strict=True))
        return inside / len(points)

    for k in (1, 3):
        found = precision_recall(ours, reference, k)
        assert found == pytest.approx((share(ours, reference, k), share(reference, ours, k)))


def test_known_sets() -> None:
    both = np.concatenate([R.normal(size=(30, 4)), R.normal(size=(30, 4)) + 50])
    assert precision_recall(both, both) == (1.0, 1.0)
    assert precision_recall(both + 500, both) == (0.0, 0.0)
    half = precision_recall(both[:30], both)  # right, but half of it is missing
    assert half.precision == 1.0 and half.recall == 0.5


def test_bad_input_is_one_line() -> None:
    for ours, reference, k in ((both(3), both(9), 3), (both(9), both(9)[:, :1], 3), (both(9), both(9), 0)):
        with pytest.raises(InputError):
            precision_recall(ours, reference, k)


def both(n: int) -> np.ndarray:
    return R.normal(size=(n, 2))
