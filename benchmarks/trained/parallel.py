"""Recipes of one ``brain bits``, several at once: each in a folder beside the run's, gathered at the end."""

from __future__ import annotations

import multiprocessing
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from lab.files import replacing
from lab.jobs.brain.bits import Settings, array_name, run
from lab.jobs.contract import Context


def side_by_side(settings: Settings, jobs: int, minutes: float) -> dict[str, str]:
    """Measure each recipe in its process, and put what was found where ``run(settings)`` finds it.

    Parameters
    ----------
    settings : Settings
        The first recipe is measured alone: the others share its predictions and its full-precision pictures.
    jobs : int
        Processes.
    minutes : float
        Recipes that are not done by then are left out.

    Returns
    -------
    dict
        Why a recipe is missing, by its name.
    """
    ends = time.monotonic() + 60 * minutes
    first, *others = settings.recipes
    run(settings.model_copy(update={"recipes": (first,)}), Context())
    missing = dict.fromkeys(others, f"not done in {minutes:g} minutes")
    waiting = []
    for recipe in reversed(others):  # the fewest bits first: those train
        out = settings.out.with_name(f"{settings.out.name}.recipes") / array_name(recipe)
        if not out.exists():
            shutil.copytree(settings.out, out, ignore=shutil.ignore_patterns(".lock", "*.html"))
        waiting.append(settings.model_copy(update={"recipes": (recipe,), "out": out}))
    for one, fault in processes(measure, waiting, jobs, ends):
        missing[one.recipes[0]] = fault
        if not fault:
            del missing[one.recipes[0]]
            _gather(one.out, settings.out / "steps")
    return missing


def processes(
    work: Callable[[Any, Connection], None], waiting: Sequence[Any], jobs: int, ends: float
) -> Iterator[tuple[Any, Any]]:
    """Give each piece of work a process; yield it with what that sends, and with why it died if it did.

    Parameters
    ----------
    work : callable
        ``work(piece, line)`` sends something down the line for each thing that it is through with.
    waiting : sequence
        Pieces in the order in which they begin.
    jobs : int
        Processes at a time.
    ends : float
        Of `time.monotonic`, seconds: what is at work then is stopped, and not yielded.
    """
    new, left = multiprocessing.get_context("spawn"), list(waiting)
    working: dict[Any, tuple[Any, Any]] = {}
    try:
        while left or working:
            while left and len(working) < jobs:
                ours, theirs = new.Pipe(duplex=False)
                process = new.Process(target=work, args=(left[0], theirs), daemon=True)
                process.start()
                theirs.close()
                working[ours] = process, left.pop(0)
            ready: list[Any] = wait(list(working), max(0.0, ends - time.monotonic()))
            if not ready:
                return
            for line in ready:
                process, piece = working[line]
                try:
                    yield piece, line.recv()
                except EOFError:  # it has ended
                    del working[line]
                    process.join()
                    if code := process.exitcode:
                        yield piece, f"its process died (exit code {code}; -9: killed, or out of memory)"
    finally:
        for process, _ in working.values():
            process.kill()
            process.join()


def measure(settings: Settings, line: Connection) -> None:
    """Measure one recipe in a process of its own, and send what went wrong."""
    import torch

    torch.set_num_threads(1)
    try:
        run(settings, Context())
    except Exception as error:  # one recipe's fault leaves the others their table, which names it
        line.send(f"{type(error).__name__}: {error}".splitlines()[0])
    else:
        line.send("")


def _gather(folder: Path, steps: Path) -> None:
    # the JSON file says that a step is whole, so it comes last
    for file in sorted((folder / "steps").iterdir(), key=lambda f: f.suffix == ".json"):
        if not (steps / file.name).exists():
            with replacing(steps / file.name) as temporary:
                shutil.copyfile(file, temporary)
