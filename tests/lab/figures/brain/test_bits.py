"""Quality over bytes: baselines as lines, recipes with their intervals."""

from __future__ import annotations

import pytest

from lab.errors import InputError
from lab.figures.brain.bits import Level, quality_over_bytes
from lab.figures.plate import Provenance
from lab.figures.tradeoff import STYLES, Point

SOURCE = Provenance("digits69 S1", "10 test pictures", 0)
LEVELS = [Level("full precision, 29.8 MB", 0.86, 0.84, 0.89), Level("ridge to pixels", 0.79)]


def points(count: int) -> list[Point]:
    return [Point(f"recipe-{i}", "", 4.0 + i, 0.8 + 0.005 * i, 0.78, 0.85) for i in range(count)]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_lines_points_and_words(theme: str) -> None:
    plate = quality_over_bytes(points(3), LEVELS, "PixCorr", SOURCE, theme)
    (ax,) = plate.figure.axes
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["full precision, 29.8 MB", "ridge to pixels", "recipe-0", "recipe-1", "recipe-2"]
    flat = [line for line in ax.lines if len(set(line.get_ydata())) == 1 and len(line.get_ydata()) == 2]
    assert {line.get_ydata()[0] for line in flat} == {0.86, 0.79}
    bars = [line for line in ax.lines if list(line.get_ydata()) == [0.78, 0.85]]
    assert [line.get_xdata()[0] for line in bars] == [4, 5, 6]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("size of the decoder's tensors, MB", "PixCorr")
    assert "simulated" in plate.caption and "recipe-1: 5.00 MB, 0.805" in plate.alt


def test_more_recipes_than_colours_stay_apart() -> None:
    plate = quality_over_bytes(points(len(STYLES) + 2), LEVELS, "PixCorr", SOURCE)
    marks = [line for line in plate.figure.axes[0].lines if line.get_label().startswith("recipe")]
    looks = {(line.get_color(), line.get_marker(), str(line.get_markerfacecolor())) for line in marks}
    assert len(looks) == len(marks)


def test_nothing_to_draw() -> None:
    with pytest.raises(InputError, match="no recipes"):
        quality_over_bytes([], LEVELS, "PixCorr", SOURCE)
