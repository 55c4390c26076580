"""What every job is: frozen settings in, plain data out, and a context for progress, cancelling and previews.

A job is one file with a class `Settings` and ``run(settings, context) -> Result``. The command line, the app,
the widgets and the report are made from `Settings` and `Result`; none of them computes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from lab.progress import Progress, silent


class Settings(BaseModel):
    """Settings of a job: every field has a description with its unit, bounds, and a default if it can."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Result(BaseModel):
    """What a job gives: numbers, words and paths; pictures lie in files that it names."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Cancelled(BaseException):
    """Somebody asked a job to stop. It is not an error: nothing that catches errors may swallow it.

    What is on disk is whole; the same settings go on from there.
    """


@dataclass(frozen=True)
class Preview:
    """Pictures on their way, for looking only: no result depends on them.

    Parameters
    ----------
    what : str
        Which stage, as a person would call it ("sampling, quantized").
    step, steps : int
        How far this stage is.
    images : uint8 array of shape (n, H, W, 3)
    """

    what: str
    step: int
    steps: int
    images: np.ndarray


def _unseen(preview: Preview) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Context:
    """What a job may use of whoever runs it.

    Parameters
    ----------
    report : callable
        ``report(done, total, what)``; hears of progress.
    preview : callable
        Receives a `Preview` now and then.
    stop : threading.Event
        Set by whoever wants the job to end; looked at whenever the job reports progress.
    """

    report: Progress = silent
    preview: Callable[[Preview], None] = _unseen
    stop: threading.Event = field(default_factory=threading.Event)

    def progress(self, done: int, total: int, what: str) -> None:
        """Report progress and stop here if asked to; pass this on as the ``progress`` of any library call.

        Raises
        ------
        Cancelled
            Somebody set ``stop``.
        """
        self.check()
        self.report(done, total, what)

    def check(self) -> None:
        """Stop here if asked to (raises `Cancelled`)."""
        if self.stop.is_set():
            raise Cancelled("stopped on request; the same command goes on from here")

    def cancel(self, *_: Any) -> None:
        """Ask the job to stop at its next report."""
        self.stop.set()
