"""Job behind ``brainlab data check``: test a folder before any long work."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from lab.jobs import contract
from lab.jobs.contract import Context, Table, line, setting


class Settings(contract.Settings):
    """Test a folder before any long work.

    Looks at shapes, NaNs, missing runs, voxel counts, and leaks between training and test. Exit code 2 if the
    dataset cannot be used.
    """

    name: str = setting(..., "name of the dataset (brainlab data list)", argument=True)
    root: Path | None = setting(None, "folder or file of the dataset; default: its place in the user's cache")


class Result(contract.Result):
    """Findings (severity, message), whether the data can be used, and a line that says so."""

    dataset: str
    usable: bool
    verdict: str
    findings: list[dict[str, Any]]

    def tables(self) -> list[Table]:
        """Return the findings, and the verdict."""
        return [Table(self.findings), line(self.verdict)]

    def next_step(self) -> str:
        """Return how it is decoded."""
        return f"brainlab brain reconstruct --dataset {self.dataset}" if self.usable else ""

    def exit_code(self) -> int:
        """Return 2 where the dataset cannot be used."""
        return 0 if self.usable else 2


def run(settings: Settings, context: Context) -> Result:
    """Test a dataset's folder.

    Raises
    ------
    MissingDataError
        If nothing is there at all.
    """
    from brainit import datasets

    context.check()
    name, root = settings.name, settings.root
    if name == "simulated":
        from lab.decoding.simulated import ensure_simulated

        root = ensure_simulated(root, progress=context.progress)
    datasets.subjects(name, root)
    context.progress(0, 1, "checking")
    findings = [asdict(finding) for finding in datasets.check(name, root)]
    context.progress(1, 1, "checking")
    count = {kind: sum(f["severity"] == kind for f in findings) for kind in ("error", "warning")}
    usable = count["error"] == 0
    word = "usable" if usable else "not usable"
    verdict = f"{name}: {word}, {count['error']} errors, {count['warning']} warnings"
    return Result(dataset=name, usable=usable, verdict=verdict, findings=findings)
