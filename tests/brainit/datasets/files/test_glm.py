"""Amplitudes of blocks from BOLD that was made with a response written out here."""

from __future__ import annotations

import numpy as np
from scipy.stats import gamma

from brainit.datasets.files.events import Event
from brainit.datasets.files.glm import block_betas

TR, N = 2.0, 90


def bold(events: list[Event], percent: np.ndarray, mean: float) -> np.ndarray:
    """SPM's double gamma (peak at 5 s, a sixth of it undershoots at 15 s), of area 1, after each block."""
    fine = np.arange(0, N * TR, 0.05)
    answer = gamma.pdf(fine[:640], 6) - gamma.pdf(fine[:640], 16) / 6
    series = np.full((N, percent.shape[1]), mean)
    for event, rows in zip(events, percent, strict=True):
        box = (fine >= event.onset) & (fine < event.onset + event.duration)
        course = np.convolve(box, answer / answer.sum())[: len(fine)]
        series += mean * rows / 100 * np.interp(np.arange(N) * TR, fine, course)[:, None]
    return series


def test_betas_are_percent_of_the_mean_in_seconds_from_the_first_volume() -> None:
    events = [Event(9.0 + 33 * k, 15.0, name) for k, name in enumerate(("cat", "face", "cat", "house"))]
    percent = np.random.default_rng(0).uniform(-2, 3, (4, 3))
    series = bold(events, percent, 800.0)
    series += np.linspace(-4, 4, N)[:, None] * [1, 0, -1]  # drift
    shuffled = [2, 0, 3, 1]  # a table need not be in order
    betas, warnings = block_betas(series, [events[k] for k in shuffled], TR, "run 1", hrf="spm")
    np.testing.assert_allclose(betas, percent[shuffled], atol=0.1)
    assert not warnings
    raw, _ = block_betas(series, events, TR, "run 1", hrf="spm", baseline="none")
    np.testing.assert_allclose(raw, 8 * percent, atol=0.8)
