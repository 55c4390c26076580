"""Progress with an estimate of what is left: a bar on a terminal, a line now and then elsewhere.

Everything in the house reports through a plain callable ``progress(done, total, what)``. It only watches: no
result may depend on it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from quant.progress import Progress, silent

__all__ = ["Bar", "Estimate", "Lines", "Progress", "duration", "reporting", "silent"]


class Estimate:
    """Time left in one stage, from the pace since it began.

    A stage is a run of reports that count up to one total. What it is called may change on the way, as when a
    job names the layer that it is at.

    Parameters
    ----------
    clock : callable
        Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._total: int | None = None
        self._start = 0.0
        self._first = 0
        self._done = 0

    def update(self, done: int, total: int) -> tuple[bool, float | None]:
        """Take a report in; return whether it begins a stage, and the seconds left (None: no pace yet)."""
        now = self._clock()
        new = total != self._total or done < self._done
        if new:
            self._total, self._start, self._first = total, now, done
        self._done = done
        gained = done - self._first
        if gained <= 0 or now <= self._start:
            return new, None
        return new, (total - done) * (now - self._start) / gained


class Lines:
    """Plain lines at most every few seconds; the first and last report of a stage always appear.

    Parameters
    ----------
    stream : text file
        Where the lines go.
    every : float
        Least number of seconds between two lines of one stage.
    clock : callable
        Seconds, monotonic.
    """

    def __init__(
        self, stream: IO[str], every: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream, self._every, self._clock = stream, every, clock
        self._estimate = Estimate(clock)
        self._last = 0.0

    def __call__(self, done: int, total: int, what: str) -> None:
        new, left = self._estimate.update(done, total)
        now = self._clock()
        if not new and done < total and now - self._last < self._every:
            return
        self._last = now
        eta = "" if left is None or done >= total else f", {duration(left)} left"
        self._stream.write(f"{what}: {done}/{total}{eta}\n")
        self._stream.flush()


class Bar:
    """A rich bar; the stage's name, share done, time left."""

    def __init__(self, display: Any) -> None:
        self._display = display
        self._estimate = Estimate()
        self._task: Any = None

    def __call__(self, done: int, total: int, what: str) -> None:
        new, _ = self._estimate.update(done, total)
        if new:
            if self._task is not None:
                self._display.stop_task(self._task)
            self._task = self._display.add_task(what, total=total)
        self._display.update(self._task, completed=done, description=what)


@contextmanager
def reporting(stream: IO[str] | None = None) -> Iterator[Progress]:
    """Give a progress callable that suits the stream: a bar on a terminal, else plain lines.

    Parameters
    ----------
    stream : text file, optional
        Default is stderr, so that results on stdout stay clean.
    """
    stream = sys.stderr if stream is None else stream
    if not stream.isatty():
        yield Lines(stream)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Display

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Display(*columns, console=Console(file=stream)) as display:
        yield Bar(display)


def duration(seconds: float) -> str:
    """Write seconds for a person: ``"8 s"``, ``"3 min 20 s"``, ``"2 h 05 min"``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
