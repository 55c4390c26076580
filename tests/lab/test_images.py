"""Pictures on their way to a model and back: channels and sides stay; sheets read row by row."""

from __future__ import annotations

import numpy as np
import pytest

from lab.images import SIDE, from_model, planes, sheet, to_model


def test_channels_and_sides_stay_where_they_are() -> None:
    colour = np.random.default_rng(0).random((2, SIDE, SIDE, 3)).astype(np.float32)
    assert planes(colour)[1, 2, 5, 7] == pytest.approx(colour[1, 5, 7, 2])
    np.testing.assert_array_equal(from_model(to_model(colour), (SIDE, SIDE, 3)), colour)
    grey = colour[..., 0]
    assert (planes(grey)[:, 1].numpy() == grey).all()
    np.testing.assert_allclose(from_model(to_model(grey), (SIDE, SIDE)), grey, atol=1e-6)
    np.testing.assert_allclose(from_model(to_model(colour), (SIDE, SIDE)), colour.mean(-1), atol=1e-6)
    small = np.zeros((1, 28, 28), np.float32)
    small[0, 4:10, 18:24] = 1  # above, on the right
    large = to_model(small)[0, 0].numpy()
    assert np.argwhere(large > 0.9).mean(0) == pytest.approx([15.5, 47.5], abs=1) and 0 <= large.min()
    assert large.max() <= 1 and from_model(to_model(small), (28, 28)).shape == (1, 28, 28)


def test_sheets_read_row_by_row_on_white() -> None:
    pictures = np.stack([np.full((2, 3, 3), k / 255) for k in range(5)])
    laid = sheet(pictures, 2, gap=1)
    assert laid.shape == (3 * 3, 2 * 4, 3)
    assert laid[::3, ::4, 0].tolist() == [[0, 1], [2, 3], [4, 255]]
    assert (laid[2] == 255).all() and (laid[:, 3] == 255).all(), "gaps are white"
