"""Job behind ``brainlab data check``: test a folder before any long work."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lab.jobs import contract
from lab.jobs.contract import Context, Table, line, setting

if TYPE_CHECKING:
    from lab.decoding.settings import ReconstructConfig

#: Options of simulated subjects that say how they are made, not how they are read.
_FOR_MAKING = ("features", "stimuli", "test_stimuli")


class Settings(contract.Settings):
    """Test a folder before any long work.

    Looks at shapes, geometry, NaNs, missing runs, leaks between training and test, and at what a run with
    these settings needs. Exit code 2 if the dataset cannot be used.
    """

    name: str = setting(..., "name of the dataset (brainlab data list)", argument=True)
    root: Path | None = setting(None, "folder or file of the dataset; default: its place in the user's cache")
    subject: str | None = setting(None, "subject within the dataset; default: all of them")
    options: dict[str, str | int | float | bool] = setting(
        {}, "the dataset's own options, as for a run (brainlab data info NAME)"
    )
    structure: Literal["brainit", "blend", "posterior", "ridge", "none"] | None = setting(
        None, "structure of the run that the data are meant for; default: the dataset's own"
    )


class Result(contract.Result):
    """Findings (severity, message), whether the data can be used, and a line that says so.

    ``further`` are the words of the command line for the subject, structure and options that were asked for.
    """

    dataset: str
    root: str | None = None
    usable: bool
    verdict: str
    findings: list[dict[str, Any]]
    further: tuple[str, ...] = ()

    def tables(self) -> list[Table]:
        """Return the findings, and the verdict."""
        return [Table(self.findings), line(self.verdict)]

    def next_step(self) -> str:
        """Return how it is decoded."""
        words = ["brainlab", "brain", "reconstruct", "--dataset", self.dataset]
        words += ["--root", self.root] if self.root else []
        return shlex.join([*words, *self.further]) if self.usable else ""

    def exit_code(self) -> int:
        """Return 2 where the dataset cannot be used."""
        return 0 if self.usable else 2


def run(settings: Settings, context: Context) -> Result:
    """Test a dataset's folder as a run with these settings would use it.

    Raises
    ------
    InputError
        An option or the subject is not known.
    MissingDataError
        If nothing is there at all.
    """
    from brainit import datasets
    from brainit.datasets.files.clean import pick_subject
    from lab.decoding.needs import unmet

    context.check()
    name, root, subject = settings.name, settings.root, settings.subject
    config = check(settings)
    if name == "simulated":
        from lab.decoding.simulated import ensure_simulated

        root = ensure_simulated(root, progress=context.progress)
    pick_subject(subject, datasets.subjects(name, root), root or datasets.default_root(name))
    context.progress(0, 1, "checking")
    options = {key: value for key, value in config.options.items() if key not in _FOR_MAKING}
    found = datasets.check(name, root, subject, lambda one: unmet(config, one), **options)
    findings = [asdict(finding) for finding in found]
    context.progress(1, 1, "checking")
    count = {kind: sum(f["severity"] == kind for f in findings) for kind in ("error", "warning")}
    usable = count["error"] == 0
    word = "usable" if usable else "not usable"
    verdict = f"{name}: {word}, {count['error']} errors, {count['warning']} warnings"
    further = [f"--{name}={getattr(settings, name)}" for name in ("subject", "structure")]
    further = [word for word in further if not word.endswith("=None")]
    for option, value in settings.options.items():
        further += ["--set", f"options.{option}={json.dumps(value)}"]
    return Result(
        dataset=name, root=str(root) if root else None, usable=usable, verdict=verdict, findings=findings,
        further=tuple(further),
    )  # fmt: skip


def check(settings: Settings) -> ReconstructConfig:
    """Refuse names that are not known; return the settings of the run that the data are meant for."""
    from brainit import datasets
    from lab.decoding.settings import ReconstructConfig
    from lab.jobs.checks import check_names

    datasets.describe(settings.name)
    given: dict[str, Any] = {"dataset": settings.name, "root": settings.root, "subject": settings.subject}
    given |= {"structure": settings.structure} if settings.structure else {}
    config = ReconstructConfig(**given, options=settings.options)
    check_names(config)
    return config
