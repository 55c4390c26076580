"""Job behind ``brainlab zoo list``."""

from __future__ import annotations

from lab.jobs import contract, listing
from lab.jobs.contract import Context


class Settings(contract.Settings):
    """List the shipped models."""


class Result(listing.Result):
    """A row for each model whose weights are here."""

    def next_step(self) -> str:
        """Return how one is described."""
        return "brainlab zoo info NAME"


def run(settings: Settings, context: Context) -> Result:
    """List the models and their sizes."""
    context.check()
    return Result(rows=listing.models())
