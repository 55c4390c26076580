"""Ctrl-C stops within a second, even inside a long call into a numerical library.

Python delivers a signal between two of its own instructions, so one long factorization would hold it back.
A thread sees the signal at once through a wake-up pipe, gives the main thread a moment to leave in good
order, and then ends the process. Nothing is lost by that: every file of a run appears whole or not at all.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lab.stopped import STOPPED, STOPPED_CODE, Cancelled

GRACE_SECONDS = 0.7


@contextmanager
def prompt_stop(stop: threading.Event, grace: float = GRACE_SECONDS) -> Iterator[None]:
    """End the process at most ``grace`` seconds after SIGINT or SIGTERM, with exit code 130 (`STOPPED_CODE`).

    Parameters
    ----------
    stop : threading.Event
        Of the job's context: set at once, so that its other threads hear of it; the main thread gets
        `lab.stopped.Cancelled` where it stands.
    grace : float
        Seconds left to the main thread for closing its files.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to the main thread; a caller elsewhere has its own way to stop
        return
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    left = threading.Event()
    before_wakeup = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)

    def cancel(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            return  # asked before: the main thread closes its files, and ends with the grace at the latest
        stop.set()
        raise Cancelled(STOPPED)  # click would take KeyboardInterrupt for an error

    before = {number: signal.signal(number, cancel) for number in (signal.SIGTERM, signal.SIGINT)}
    watcher = threading.Thread(target=_watch, args=(receiver, left, grace), daemon=True, name="prompt-stop")
    watcher.start()
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(before_wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        sender.close()
        watcher.join(timeout=1)
        receiver.close()


def _watch(receiver: socket.socket, left: threading.Event, grace: float) -> None:
    while number := receiver.recv(1):
        if number[0] in (signal.SIGINT, signal.SIGTERM):
            break
    else:
        return
    if left.wait(grace):
        return
    time.sleep(0)  # let a main thread that is just leaving win
    sys.stderr.write(f"brainlab: {STOPPED}\n")
    sys.stderr.flush()
    os._exit(STOPPED_CODE)
