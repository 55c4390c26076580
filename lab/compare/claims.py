"""Who measures what, where several processes work on one comparison: whoever claims a part first.

Parts differ in length by a factor of a hundred, so a fixed division would leave most processes idle.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from lab.runs.steps import StepCache
from quant.recipes import Recipe


class Claims:
    """Names of parts, each given once.

    Parameters
    ----------
    folder : Path, optional
        Holds an empty file for each part that is taken; without it there is one process, which gets all.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    def order(self, recipes: Sequence[Recipe]) -> list[Recipe]:
        """Long ones first, where there are others to share with: nobody waits for a long one at the end."""
        if self._folder is None:
            return list(recipes)
        return sorted(recipes, key=lambda recipe: -recipe.info.seconds_per_million_weights)

    def begin(self, done: Iterable[str]) -> None:
        """Forget all claims but those on parts that are done; before any process starts."""
        if self._folder is None:
            return
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        for name in done:
            (self._folder / name).touch()

    def take(self, name: str) -> bool:
        """Whether the part is the caller's: nobody took it before."""
        if self._folder is None:
            return True
        try:
            os.close(os.open(self._folder / name, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True


def finished(folders: Iterable[Path], gates: bool) -> set[str]:
    """Names of the whole parts that processes which were stopped have left in their folders.

    Full precision counts as one part with what is measured beside it: its null, at the first seed the gates
    if they are asked for.
    """
    done: set[str] = set()
    for folder in folders:
        cache = StepCache(folder / "steps")
        names = (file.stem for file in (folder / "steps").glob("*.json"))
        mine = {name for name in names if cache.load(name) is not None}  # a torn part is measured again
        for name in mine:
            seed = name.removeprefix("full.") if name.startswith("full.seed-") else None
            needs = set() if seed is None else {f"null.{seed}"}
            needs |= {"gates"} if gates and seed == "seed-0" else set()
            done |= {name} if needs <= mine else set()
    return done
