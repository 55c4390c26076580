from __future__ import annotations

import pytest

from lab.jobs.contract import Cancelled, Context, Settings


def test_a_cancelled_job_stops_at_its_next_report_and_no_handler_of_errors_keeps_it() -> None:
    seen: list[tuple[int, int, str]] = []
    context = Context(report=lambda *report: seen.append(report))
    context.progress(0, 2, "first")
    context.cancel()
    with pytest.raises(Cancelled):
        try:
            context.progress(1, 2, "second")
        except Exception:
            pytest.fail("an error handler caught it")
    assert seen == [(0, 2, "first")]


def test_settings_are_frozen_and_closed() -> None:
    class Mine(Settings):
        n: int = 1

    with pytest.raises(ValueError, match="frozen"):
        Mine().n = 2
    with pytest.raises(ValueError, match="Extra inputs"):
        Mine(m=1)
