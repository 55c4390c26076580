"""Several processes on one study: launch-bound trainings side by side on one device.

The first process holds the folder and its scoreboard, hands out steps and takes in what they made. The others
have the ground from a file of this call, and keep nothing but states of unfinished trainings.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from lab.decoding.cohort.ground import Ground, read, write
from lab.decoding.cohort.scoreboard import Scoreboard
from lab.decoding.cohort.steps import ready
from lab.decoding.cohort.table import Study, at_work
from lab.errors import InputError
from lab.signals import spared

_PAUSE = 0.2
"""Seconds between two looks at whether somebody asked to stop."""


def run(study: Study, jobs: int, check: Callable[[], Any]) -> None:
    """Do what is left of a study in ``jobs`` processes beside this one.

    Parameters
    ----------
    study : Study
        Its board takes in what the steps make; ``study.keep`` is called after each.
    check : callable
        Called now and then; what it raises ends the processes.

    Raises
    ------
    InputError
        From a step.
    RuntimeError
        A process died, or a step failed.
    """
    done = {s.name for s in study.steps} - {s.name for s in study.left()}
    count = min(jobs, len(study.steps) - len(done))
    with _workers(study, count) as ends:
        free: list[Connection] = list(ends)
        taken: dict[Connection, str] = {}
        while len(done) < len(study.steps):
            while free and (step := ready(study.steps, done, set(taken.values()))):
                end = free.pop()
                end.send(step.name)
                taken[end] = step.name
            check()
            heard = wait(list(taken), _PAUSE)
            for end in [end for end in taken if end in heard]:
                message, *found = _receive(end, taken[end])
                if message == "progress":
                    at, total, what = found
                    study.trainer.progress(len(done), len(study.steps), f"{what} ({at}/{total})")
                    continue
                study.take(*found)
                study.keep()
                study.trainer.forget(found[-1])
                done.add(taken.pop(end))
                free.append(end)


def _receive(end: Connection, step: str) -> Any:
    try:
        message, *found = end.recv()
    except (EOFError, ConnectionError):
        raise RuntimeError(
            f"the process that did {step!r} died; the same command goes on from here"
        ) from None
    if message == "refused":
        raise InputError(*found)
    if message == "failed":
        raise RuntimeError(f"{step!r} failed in another process:\n{found[0]}")
    return message, *found


@contextmanager
def _workers(study: Study, count: int) -> Iterator[list[Connection]]:
    """Keep processes that wait for the names of steps; they end with the block, whatever happens."""
    new = multiprocessing.get_context("spawn")
    threads = min(torch.get_num_threads(), max(1, len(os.sched_getaffinity(0)) // max(1, count)))
    ends, running = [], []
    with tempfile.TemporaryDirectory(prefix="study-") as folder:
        ground = Path(folder) / "ground.pt"
        write(study.ground, ground)
        try:
            for _ in range(count):
                end, other = new.Pipe()
                given = (other, ground, study.trainer.folder, study.painter.device, threads)
                process = new.Process(target=_serve, args=given, daemon=True)
                with spared():
                    process.start()
                other.close()  # the pipe ends with the process that has the other end
                ends.append(end)
                running.append(process)
            yield ends
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.join()


def _serve(end: Connection, file: Path, folder: Path, device: str, threads: int) -> None:
    """Do steps by name until the first process ends."""
    torch.set_num_threads(threads)

    def progress(*report: Any) -> None:
        end.send(("progress", *report))

    try:
        ground: Ground = read(file)
        study = at_work(ground, folder, device, Scoreboard(folder / "none"), progress)
        while True:
            study.do(end.recv())
            end.send(("made", *study.give()))
    except (EOFError, BrokenPipeError):
        return  # the first process is gone
    except InputError as error:
        end.send(("refused", str(error)))
    except Exception:
        end.send(("failed", traceback.format_exc()))
