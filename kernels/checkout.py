"""Which commit the code is of."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def commit(file: Path = Path(__file__)) -> str:
    """Return the checkout's commit, marked where it was changed.

    The environment variable BRAINLAB_COMMIT says it for a copy without history; else it is "unknown". An
    installed copy may lie inside another project's checkout, whose commit says nothing of it.

    Parameters
    ----------
    file : Path
        A source file of the checkout.
    """
    if stated := os.environ.get("BRAINLAB_COMMIT"):
        return stated
    said = ""
    for asked in (["ls-files", "--error-unmatch", file.name], ["describe", "--always", "--dirty"]):
        try:
            found = subprocess.run(
                ["git", *asked], cwd=file.parent, capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired):
            return "unknown"
        if found.returncode:
            return "unknown"
        said = found.stdout.strip()
    return said or "unknown"
