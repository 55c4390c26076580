"""Job behind ``brainlab data fetch``: download or make a dataset."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, Literal

from lab.errors import InputError
from lab.jobs import contract
from lab.jobs.contract import Context, Seed, setting

_MADE_HERE = ("preset", "seed", "stimuli", "test_stimuli", "features")


class Settings(contract.Settings):
    """Download or make a dataset.

    What is already there is kept.
    """

    name: str = setting(..., "name of the dataset (brainlab data list)", argument=True)
    root: Path | None = setting(None, "folder or file of the dataset; default: its place in the user's cache")
    preset: Literal["small", "cohort-small", "cohort"] | None = setting(
        None, "simulated: how many subjects, voxels, trials"
    )
    seed: Seed | None = setting(None, "simulated: seed of the subjects")
    stimuli: Path | None = setting(None, "simulated: folder or parquet file of pictures to show")
    test_stimuli: Path | None = setting(None, "simulated: another source for the test pictures")
    features: Literal["alexnet", "random", "encoder-64"] | None = setting(
        None, "simulated: what ventral voxels read"
    )


class Result(contract.Result):
    """Where the dataset is."""

    dataset: str
    root: str

    def files(self) -> dict[str, str]:
        """Return the dataset's folder."""
        return {"dataset": self.root}

    def next_step(self) -> str:
        """Return how it is tested."""
        return shlex.join(["brainlab", "data", "check", self.dataset, "--root", self.root])


def run(settings: Settings, context: Context) -> Result:
    """Download or make a dataset; what is there is kept.

    Raises
    ------
    InputError
        An unknown name; options of simulated subjects for a dataset that is not made here; or ``root`` holds
        other subjects than were asked for.
    """
    from brainit import datasets

    context.check()
    given, name, root = check(settings), settings.name, settings.root
    if name == "simulated":
        from lab.decoding.simulated import ensure_simulated

        return Result(dataset=name, root=str(ensure_simulated(root, progress=context.progress, **given)))
    return Result(dataset=name, root=str(datasets.fetch(name, root, context.progress)))


def check(settings: Settings) -> dict[str, Any]:
    """Refuse an unknown name, and options of simulated subjects for others; return those that are given."""
    from brainit import datasets

    datasets.describe(settings.name)
    given = {key: getattr(settings, key) for key in _MADE_HERE if getattr(settings, key) is not None}
    if given and settings.name != "simulated":
        flag = next(iter(given)).replace("_", "-")
        raise InputError(f"dataset {settings.name!r} is not made here; --{flag} is only for simulated")
    return given
