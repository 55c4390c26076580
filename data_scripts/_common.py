"""What the scripts share: run, print the findings, end with the error's exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from brainit import datasets
from brainit.errors import InputError


def progress(done: int, total: int, what: str) -> None:
    """Write progress to standard error."""
    sys.stderr.write(f"[{done}/{total}] {what}\n")


def finish(name: str, prepare: Callable[[], Path]) -> int:
    """Prepare a dataset, print what the check finds, and return the exit code."""
    try:
        root = prepare()
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    findings = datasets.check(name, root)
    for finding in findings:
        sys.stdout.write(f"{finding.severity}: {finding.message}\n")
    sys.stdout.write(f"{name} is in {root}\n")
    return 2 if any(f.severity == "error" for f in findings) else 0
