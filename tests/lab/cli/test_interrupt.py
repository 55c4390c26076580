"""Ctrl-C stops within a second with one line, also inside a library call that never looks at signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from lab.cli.interrupt import prompt_stop
from lab.stopped import STOPPED, Cancelled

SCRIPT = """
import sys, time
import numpy as np
{imports}
import lab.cli.commands, lab.cli.main

def job(**_):
    matrix = np.random.default_rng(0).normal(size=(3000, 3000))
    print("started", flush=True)
    {body}

lab.cli.commands.tree = lambda: job
lab.cli.main.main([])
"""


HEAVY = "import diffusers, sklearn.cluster, torch  # what takes a second to take down"


# Imports take seconds. Both signals have one handler, so pairwise cover is enough.
@pytest.mark.parametrize(
    ("number", "imports", "body", "seconds"),
    # 0.7 s of grace in a library call; the rest is a busy machine
    [(signal.SIGTERM, "", "time.sleep(30)", 1.0), (signal.SIGINT, HEAVY, "np.linalg.svd(matrix)", 1.5)],
    ids=["python", "library"],
)
def test_stops_within_a_second(number: signal.Signals, imports: str, body: str, seconds: float) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(imports=imports, body=body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell's background job starts with SIGINT ignored, and its children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None and process.stdout.readline() == "started\n"
    time.sleep(0.2)
    began = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - began < seconds
    assert process.returncode == 130
    assert errors == f"brainlab: {STOPPED}\n"


EARLY = """
import os, signal, sys

class Asked:
    def find_spec(self, name, path, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), signal.{number})
            for _ in range(1000):
                pass  # Python answers signals between its own instructions

sys.meta_path.insert(0, Asked())
signal.signal(signal.SIGINT, signal.default_int_handler)
from lab.cli.main import main
main(["list", "settings"])
"""


# the command line itself, its settings, and what the job needs are imported one after the other
@pytest.mark.parametrize(
    ("name", "number"), [("click", "SIGINT"), ("click", "SIGTERM"), ("pydantic", "SIGINT")]
)
def test_stops_while_it_is_imported(name: str, number: str) -> None:
    script = EARLY.format(name=name, number=number)
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert found.returncode == 130, found.stderr
    assert found.stderr == f"brainlab: {STOPPED}\n"
    assert not found.stdout


def test_asked_twice_what_is_being_closed_is_closed() -> None:
    closed, stop = [], threading.Event()
    with pytest.raises(Cancelled), prompt_stop(stop, grace=60):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
            closed.append(stop.is_set())
    assert closed == [True]
