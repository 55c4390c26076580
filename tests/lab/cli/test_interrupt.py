"""Ctrl-C stops within a second with one line, also inside a library call that never looks at signals."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from lab.errors import STOPPED

SCRIPT = """
import sys, time
import numpy as np
{imports}
import lab.cli.main as cli

def job(**_):
    matrix = np.random.default_rng(0).normal(size=(3000, 3000))
    print("started", flush=True)
    {body}

cli.app = job
cli.main([])
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
