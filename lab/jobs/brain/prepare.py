"""Job behind ``brainlab brain prepare``."""

from __future__ import annotations

from lab.jobs.brain.scores import warnings_of
from lab.jobs.brain.settings import RunSettings, StepResult, dry_run, names, steps
from lab.jobs.contract import Context

__all__ = ["Result", "Settings", "dry_run", "names", "run"]


class Settings(RunSettings):
    """Read and check the data, look for leaks."""


class Result(StepResult):
    """How many trials and voxels there are, and whether test pictures leak into training."""


def run(settings: Settings, context: Context) -> Result:
    """Read and check the data.

    Raises
    ------
    InputError
        Unknown names, data that cannot be used, or a folder with other settings.
    """
    found = steps(settings, context, until="prepare")
    return Result(found=found, out=str(settings.out), warnings=warnings_of(settings.out))
