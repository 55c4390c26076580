"""A job on a thread of its own, for whoever shows its progress and may stop it: the app and the widgets."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from lab.jobs.contract import Cancelled, Context
from lab.progress import Estimate, duration

_DEVICE = threading.Lock()
_LOOK = 0.1  # seconds between two looks at whether a waiting job was stopped
QUIET = 3.0
"""Seconds of silence after which a job's words say that it is still at work, and for how long."""


class Running:
    """One job; jobs of one process that use the device take turns.

    Parameters
    ----------
    job : callable
        ``job(context) -> result``.
    stays : bool
        It goes on when nobody follows it any more: it writes a run folder, where it is found again.

    Attributes
    ----------
    last : str
        What it last said of its progress.
    """

    def __init__(self, job: Callable[[Context], Any], stays: bool = False) -> None:
        self._events: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._stop, self._stays, self._followed = threading.Event(), stays, True
        self.last = ""
        self._context = Context(
            report=self._report, preview=lambda preview: self._tell("preview", preview), stop=self._stop
        )
        self._job = job
        self._thread = threading.Thread(target=self._work, daemon=True, name="brainlab job")

    @property
    def alive(self) -> bool:
        """Whether it is at work."""
        return self._thread.is_alive()

    def cancel(self) -> None:
        """Ask it to stop; it does within a second."""
        self._stop.set()

    def _report(self, done: int, total: int, what: str) -> None:
        self.last = f"{what} ({done} of {total})"
        self._tell("progress", (done, total, what))

    def _tell(self, kind: str, what: Any) -> None:
        if self._followed:  # nobody would take it away again
            self._events.put((kind, what))

    def _work(self) -> None:
        try:
            while not _DEVICE.acquire(timeout=_LOOK):
                self._context.progress(0, 1, "waiting for another job on this device")
            try:
                self._events.put(("done", self._job(self._context)))
            finally:
                _DEVICE.release()
        except Cancelled:
            self._events.put(("cancelled", None))
        except BaseException as fault:  # whoever follows says it
            self._events.put(("fault", fault))

    def follow(self, every: float = 0.3) -> Iterator[tuple[str, Any]]:
        """Start; yield ("progress", sentence) and ("preview", Preview), then one of done, cancelled, fault.

        Parameters
        ----------
        every : float
            Seconds between two sentences.
        """
        self._thread.start()
        estimate, spoken, words, heard = Estimate(), 0.0, "", time.monotonic()
        try:
            while True:
                try:
                    kind, what = self._events.get(timeout=QUIET)
                except queue.Empty:
                    silence = duration(time.monotonic() - heard)
                    yield "progress", f"{words or 'starting'} ... at work on this for {silence}"
                    continue
                heard = time.monotonic()
                if kind == "progress":
                    done, total, name = what
                    _, left = estimate.update(done, total)
                    more = "" if left is None else f", about {duration(left)} left"
                    if time.monotonic() - spoken > every and words != f"{name} ({done} of {total}{more})":
                        spoken, words = time.monotonic(), f"{name} ({done} of {total}{more})"
                        yield "progress", words
                else:
                    yield kind, what
                    if kind != "preview":
                        return
        finally:
            self._followed = False
            if not self._stays:
                self.cancel()
