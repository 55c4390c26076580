"""Job behind ``brainlab data list``."""

from __future__ import annotations

from typing import Any

from lab.jobs import contract
from lab.jobs.contract import Context, Table


class Settings(contract.Settings):
    """List the datasets."""


class Result(contract.Result):
    """Every dataset's description."""

    rows: list[dict[str, Any]]

    def plain(self) -> Any:
        """Return the rows."""
        return self.rows

    def tables(self) -> list[Table]:
        """Return name, size and title."""
        return [Table(self.rows, ("name", "simulated", "size", "title"))]

    def next_step(self) -> str:
        """Return how one is described."""
        return "brainlab data info NAME"


def run(settings: Settings, context: Context) -> Result:
    """Describe every dataset."""
    from brainit import datasets

    context.check()
    return Result(rows=[datasets.describe(name) for name in datasets.list_datasets()])
