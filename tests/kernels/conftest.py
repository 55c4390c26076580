"""Run a test file's `check` under Triton's interpreter, which is chosen before the first import."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def interpreted(repo: Path) -> Callable[[str], None]:
    """Run ``check("cpu")`` of a test file in a process of its own with TRITON_INTERPRET=1."""

    def run(file: str) -> None:
        if importlib.util.find_spec("triton") is None:
            pytest.skip("triton is not installed")
        code = "import runpy, sys; sys.path.insert(0, sys.argv[1]); runpy.run_path(sys.argv[2])['check']('cpu'); print('equal')"
        done = subprocess.run(
            [sys.executable, "-P", "-W", "ignore", "-c", code, str(repo), file],
            env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0 and done.stdout.strip() == "equal", done.stderr[-3000:]

    return run
