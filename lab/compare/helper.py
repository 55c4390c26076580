"""A process beside another one's comparison: ``python -m lab.compare.helper FOLDER``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from lab.compare.work import Work, open_work
from lab.compare.workers import ARGUMENTS, Turns
from lab.runs.folder import Run
from lab.runs.lock import FolderLock
from lab.zoo.exact import exact_arithmetic


def help_along(out: Path, owner: int, native: bool = False, **request: Any) -> None:
    """Measure what is left of a comparison that the process `owner` began, until nothing is.

    Parameters
    ----------
    request
        Of `lab.compare.work.open_work`.
    """

    def watch(done: int, total: int, what: str) -> None:
        if os.getppid() != owner:  # it was killed: nobody will read what this one measures
            raise SystemExit(0)

    with exact_arithmetic(request["device"]):
        bench, chosen, where = open_work(**request, progress=watch)
        bench.native = native
        run = Run(out, {}, FolderLock(out))  # the lock is its owner's
        Work(bench, run, chosen, watch, where, Turns(out / "turns")).share()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    help_along(folder, **json.loads((folder / ARGUMENTS).read_text(encoding="utf-8")))
