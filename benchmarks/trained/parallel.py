"""Recipes of one ``brain bits``, several at once: each in a folder beside the run's, gathered at the end."""

from __future__ import annotations

import multiprocessing
import shutil
import time
from pathlib import Path

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
    with multiprocessing.get_context("spawn").Pool(min(jobs, max(1, len(others)))) as pool:
        results = pool.imap_unordered(_measure, waiting)
        for _ in others:
            try:
                recipe, folder, fault = results.next(max(0.0, ends - time.monotonic()))
            except multiprocessing.TimeoutError:
                break
            if fault:
                missing[recipe] = fault
                continue
            del missing[recipe]
            _gather(folder, settings.out / "steps")
    return missing


def _measure(settings: Settings) -> tuple[str, Path, str]:
    import torch

    torch.set_num_threads(1)
    (recipe,) = settings.recipes
    try:
        run(settings, Context())
    except Exception as error:  # one recipe's fault leaves the others their table, which names it
        return recipe, settings.out, f"{type(error).__name__}: {error}".splitlines()[0]
    return recipe, settings.out, ""


def _gather(folder: Path, steps: Path) -> None:
    # the JSON file says that a step is whole, so it comes last
    for file in sorted((folder / "steps").iterdir(), key=lambda f: f.suffix == ".json"):
        if not (steps / file.name).exists():
            with replacing(steps / file.name) as temporary:
                shutil.copyfile(file, temporary)
