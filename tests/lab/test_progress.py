"""Progress: few lines, an estimate, nothing on stdout."""

from __future__ import annotations

import io

import pytest

from lab.progress import Estimate, Lines, duration, reporting


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lines_come_seldom_and_carry_an_estimate() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = Lines(stream, every=5, clock=clock)
    for i in range(101):
        lines(i, 100, "training")
        clock.now += 1
    written = stream.getvalue().splitlines()
    assert written[0] == "training: 0/100"
    assert written[1] == "training: 5/100, 1 min 35 s left"
    assert written[-1] == "training: 100/100"
    assert len(written) == 21


def test_a_new_stage_starts_its_own_estimate() -> None:
    clock = Clock()
    estimate = Estimate(clock)
    assert estimate.update(0, 10) == (True, None)
    clock.now = 10
    assert estimate.update(5, 10) == (False, 10)
    assert estimate.update(90, 100) == (True, None)
    clock.now = 15
    assert estimate.update(95, 100) == (False, 5)
    assert estimate.update(0, 100) == (True, None)


def test_a_stage_that_renames_itself_stays_one_stage() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = Lines(stream, every=5, clock=clock)
    for i in range(21):
        lines(i, 20, f"layer {i}")
        clock.now += 0.5
    assert stream.getvalue().splitlines() == ["layer 0: 0/20", "layer 10: 10/20, 5 s left", "layer 20: 20/20"]


def test_reporting_picks_plain_lines_for_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with reporting() as progress:
        progress(1, 1, "done")
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == "done: 1/1\n"


def test_reporting_draws_a_bar_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with reporting(stream) as progress:
        progress(0, 2, "sampling")
        progress(2, 2, "sampling")
    assert "sampling" in stream.getvalue() and "2/2" in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(7.6, "8 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (-1, "0 s")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
