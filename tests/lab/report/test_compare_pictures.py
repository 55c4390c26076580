"""Strips of pictures with gaps, and differences that show both signs."""

from __future__ import annotations

import numpy as np

from lab.compare.recipes import FULL
from lab.report.compare_pictures import GAP, OPEN, difference, grid, picture_blocks, strip
from lab.report.page import render_block


def pictures(value: int, k: int = 3) -> np.ndarray:
    return np.full((k, 16, 16, 3), value, np.uint8)


def test_a_strip_has_transparent_gaps() -> None:
    made = strip(pictures(200))
    assert made.shape == (16, 3 * 16 + 2 * GAP, 4)
    assert (made[:, 16 : 16 + GAP, 3] == 0).all() and (made[:, :16] == (200, 200, 200, 255)).all()


def test_differences_are_ten_times_around_grey() -> None:
    assert difference(pictures(100), pictures(100)).max() == 127
    assert difference(pictures(105), pictures(100)).max() == 177
    assert difference(pictures(95), pictures(100)).max() == 77
    assert difference(pictures(0), pictures(255)).max() == 0  # clipped, not wrapped


def test_most_recipes_are_behind_a_click_and_names_stay_escaped() -> None:
    names = [FULL, *(f"r{i}+bits=<{i}>" for i in range(OPEN + 1))]
    (block,) = picture_blocks({name: ("20.0 dB", pictures(90)) for name in names})
    page = render_block(block)
    assert page.count("<img") == 2 * len(names) - 1 and "2 more recipes" in page
    assert "<wbr>+bits=&lt;0&gt;" in page and "<0>" not in page
    assert "only latents" in render_block(picture_blocks({})[0])
    assert grid({name: pictures(90) for name in names}).shape == (
        len(names) * (16 + GAP),
        300 + 3 * (16 + GAP),
        3,
    )
