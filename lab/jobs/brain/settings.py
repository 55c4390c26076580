"""What every step of a decoding run is asked for: the run's settings, and where it lies."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from lab.decoding.settings import ReconstructConfig
from lab.jobs import contract
from lab.jobs.brain.scores import warned
from lab.jobs.contract import Foreseen, Table, record, setting
from lab.progress import silent

OUT = Path("runs/brain")


class RunSettings(ReconstructConfig, contract.Settings):
    """A decoding run's settings and its folder."""

    out: Path = setting(OUT, "run folder; the same command goes on in it after a stop", short="-o")
    checkpoints: Path | None = setting(
        None, "training of another run (RUN/checkpoints/brainit), not done again"
    )

    def config(self) -> ReconstructConfig:
        """Return what decides what the run computes: without folders."""
        return ReconstructConfig(**{name: getattr(self, name) for name in ReconstructConfig.model_fields})


class StepResult(contract.Result):
    """What a step found; of the whole run its metrics."""

    found: dict[str, Any]
    out: str
    warnings: tuple[str, ...] = ()
    """What was odd about the data."""

    def plain(self) -> Any:
        """Return it flat."""
        return self.found | {"warnings": list(self.warnings)}

    def tables(self) -> list[Table]:
        """Return what was found, then warnings."""
        return [record(self.found), *warned(self.warnings)]

    def files(self) -> dict[str, str]:
        """Return the run folder."""
        return {"run": self.out}

    def next_step(self) -> str:
        """Return how the run goes on."""
        words = ["brainlab", "brain", "reconstruct", "--config", f"{self.out}/config.yaml"]
        return shlex.join([*words, "--out", self.out])


def dry_run(settings: RunSettings) -> Foreseen:
    """Check names and data and say what would be done."""
    from lab.jobs.checks import check_names
    from lab.jobs.reconstruct import reconstruct
    from lab.models.preflight import check_checkpoints

    check_names(settings)
    check_checkpoints(settings.checkpoints)
    return Foreseen(facts=reconstruct(settings.config(), settings.out, silent, dry_run=True))


def names(settings: RunSettings) -> None:
    """Refuse unknown datasets, options, denoisers and recipes; needs no torch."""
    from lab.jobs.checks import check_names

    check_names(settings)


def steps(settings: RunSettings, context: contract.Context, until: str | None = None) -> dict[str, Any]:
    """Do the run's steps, up to one of them.

    Raises
    ------
    InputError
        Unknown names, data that cannot be used, or a folder with other settings.
    """
    from lab.jobs.reconstruct import reconstruct
    from lab.models.preflight import check_checkpoints

    names(settings)
    check_checkpoints(settings.checkpoints)
    return reconstruct(
        settings.config(), settings.out, context.progress, until=until, checkpoints=settings.checkpoints
    )
