"""Ctrl-C reaches every process of a terminal's group; only the first one answers it and ends the others."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


@contextmanager
def spared() -> Iterator[None]:
    """Keep SIGINT from processes that this thread starts meanwhile, also while they import.

    The signal is blocked rather than ignored: a Ctrl-C that comes meanwhile reaches this process afterwards.
    """
    resource_tracker.ensure_running()  # multiprocessing's: where it starts within, it unblocks SIGINT again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
