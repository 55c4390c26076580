"""A newcomer's curve: every method's line with its intervals, each score on axes of its own."""

from __future__ import annotations

import pytest

from lab.errors import InputError
from lab.figures.brain.newcomer import Mark, newcomer_curve
from lab.figures.plate import Provenance

WHERE = Provenance("simulated sub-01", "32 test pictures", 0, simulated=True)


def marks() -> list[Mark]:
    return [
        Mark(
            name, (value, value - 0.05, value + 0.05), (value / 2, value / 2 - 0.1, value / 2 + 0.1), minutes
        )
        for name, base in (("ridge to tokens", 0.6), ("shared network", 0.8))
        for minutes, value in ((15, base), (60, base + 0.1))
    ]


def test_lines_and_intervals_are_the_scores() -> None:
    plate = newcomer_curve(marks(), WHERE)
    two_way, pixcorr = plate.figure.axes
    assert [text.get_text() for text in two_way.get_legend().get_texts()] == [
        "ridge to tokens",
        "shared network",
    ]
    curves = [line for line in two_way.lines if line.get_label() in ("ridge to tokens", "shared network")]
    assert [list(line.get_ydata()) for line in curves] == [
        [0.6, pytest.approx(0.7)],
        [0.8, pytest.approx(0.9)],
    ]
    bars = [
        tuple(line.get_ydata()) for line in pixcorr.lines if line not in curves and len(line.get_xdata()) == 2
    ]
    assert (pytest.approx(0.2), pytest.approx(0.4)) in bars
    assert "simulated subject" in plate.caption and "shared network at 60 min: 0.900" in plate.alt
    assert plate.png(foot=True).startswith(b"\x89PNG")


def test_marks_without_minutes_are_refused() -> None:
    with pytest.raises(InputError, match="minutes of scanning"):
        newcomer_curve([Mark("ridge", (0.5, 0.4, 0.6), (0.1, 0.0, 0.2))], WHERE)
