"""Ctrl-C: processes that help are spared, the first one hears of it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from lab.signals import spared

HIT = "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('alive')"


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """As in a terminal: processes that run tests side by side ignore the signal, and so would their own."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_helper_is_spared_from_its_first_moment_and_the_owner_is_not() -> None:
    with pytest.raises(KeyboardInterrupt):
        with spared():
            signal.raise_signal(signal.SIGINT)  # to this thread, and kept for later
            found = subprocess.run([sys.executable, "-I", "-S", "-c", HIT], capture_output=True, text=True)
    assert (found.returncode, found.stdout, found.stderr) == (0, "alive\n", "")


def test_a_spawned_process_is_spared_while_it_imports() -> None:
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(0,))
    with spared():
        process.start()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join()
    assert process.exitcode == 0
