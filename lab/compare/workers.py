"""Several processes on one comparison: each takes the next measurement that nobody has.

Measurements differ in length by a factor of a hundred, so a fixed division would leave most processes idle.
All write into one folder; whatever a process that ended left undone, the first one does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.files import write_json
from lab.signals import spared

ARGUMENTS = "helper.json"


class Turns:
    """Names of measurements, each given once.

    Parameters
    ----------
    folder : Path, optional
        Holds an empty file for each measurement that is taken, and the reason of each that failed; without it
        there is one process, which gets all.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def begin(self) -> None:
        """Forget all; before any process starts."""
        self.end()
        if self.folder is not None:
            self.folder.mkdir(parents=True)

    def end(self) -> None:
        """Remove the folder; when all is measured."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def take(self, name: str) -> bool:
        """Whether the measurement is the caller's: nobody took it before."""
        if self.folder is None:
            return True
        try:
            os.close(os.open(self.folder / name, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True

    def fail(self, name: str, reason: str) -> None:
        """Say why a measurement could not be made, so that nobody tries it again in this call."""
        if self.folder is not None:
            (self.folder / name).write_text(reason, encoding="utf-8")

    def reason(self, name: str) -> str:
        """Why a measurement could not be made; nothing if nobody said."""
        file = None if self.folder is None else self.folder / name
        return file.read_text(encoding="utf-8") if file is not None and file.is_file() else ""


@contextmanager
def helpers(count: int, out: Path, arguments: dict[str, Any]) -> Iterator[list[subprocess.Popen]]:
    """Keep processes beside this one that take their turns; they end with the block, whatever happens.

    Parameters
    ----------
    count : int
        Processes beside this one.
    out : Path
        The run folder, which this process holds.
    arguments : dict
        Of `lab.compare.helper.help_along`, JSON-able.
    """
    command = [sys.executable, "-m", "lab.compare.helper", str(out)]
    running: list[subprocess.Popen] = []
    try:
        if count:
            write_json(out / ARGUMENTS, {**arguments, "owner": os.getpid()})
        with spared():
            running += [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(count)]
        yield running
    except BaseException:
        for process in running:
            process.terminate()
        raise
    finally:
        for process in running:
            process.wait()
        (out / ARGUMENTS).unlink(missing_ok=True)
