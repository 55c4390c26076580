"""Ctrl-C while the command itself is being imported, or just leaves: one line, no traceback.

Imports almost nothing, so that the handlers stand a few milliseconds after Python does.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

from lab.stopped import STOPPED, STOPPED_CODE


def leave_when_stopped() -> None:
    """End the process at once on SIGINT or SIGTERM, until `lab.cli.interrupt.prompt_stop` answers them.

    Where SIGINT is ignored from the start (``nohup``, a script's ``&``) it stays so until then.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, f"brainlab: {STOPPED}\n".encode())  # sys.stderr may be in the middle of a line
    os._exit(STOPPED_CODE)
