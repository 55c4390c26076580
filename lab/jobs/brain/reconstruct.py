"""Job behind ``brainlab brain reconstruct``: from a recording to pictures, metrics and a report."""

from __future__ import annotations

import shlex
from typing import Any

from lab.jobs.brain.scores import score_table, warned, warnings_of
from lab.jobs.brain.settings import RunSettings, StepResult, dry_run, names, steps
from lab.jobs.checks import NO_RECIPE
from lab.jobs.contract import Context, Table, line

__all__ = ["Result", "Settings", "dry_run", "names", "run"]


class Settings(RunSettings):
    """Do it all, from data to report.

    Data, training, pictures in full and low precision, metrics, report.
    """


class Result(StepResult):
    """The run's metrics, flat, with the report's path."""

    report: str
    unused_recipe: str = ""

    def plain(self) -> Any:
        """Return the metrics with the report's path."""
        return {"report": self.report, **super().plain()}

    def tables(self) -> list[Table]:
        """Return the report's scores."""
        before = [line("done before")] if self.found.get("done before") else []
        if self.unused_recipe:
            before.append(
                line(f"{self.unused_recipe} was not used: these data allow no pictures, only categories")
            )
        return [*before, *score_table(self.found), *warned(self.warnings)]

    def files(self) -> dict[str, str]:
        """Return run folder and report."""
        return {"run": self.out, "report": self.report}

    def next_step(self) -> str:
        """Return how the scores are shown again."""
        return shlex.join(["brainlab", "brain", "evaluate", self.out])


def run(settings: Settings, context: Context) -> Result:
    """Decode the test pictures of one subject and write the run folder with metrics and report.

    A stopped run goes on; a finished one is left as it is.

    Raises
    ------
    InputError
        Unknown names, data that cannot be used, or a folder with other settings.
    """
    found = steps(settings, context)
    page = str(found.pop("report", settings.out / "report.html"))
    asked = "recipe" in settings.model_fields_set and settings.recipe != NO_RECIPE
    unused = settings.recipe if asked and found.get("pictures") == "none" else ""
    return Result(
        found=found,
        out=str(settings.out),
        report=page,
        unused_recipe=unused,
        warnings=warnings_of(settings.out),
    )
