"""Job behind ``brainlab data info``."""

from __future__ import annotations

from typing import Any

from lab.jobs import contract
from lab.jobs.contract import Context, setting


class Settings(contract.Settings):
    """Say what a dataset is and its terms."""

    name: str = setting(..., "name of the dataset (brainlab data list)", argument=True)


class Result(contract.Result):
    """One dataset's description, and where it is looked for by default."""

    about: dict[str, Any]

    def plain(self) -> Any:
        """Return the description."""
        return self.about

    def next_step(self) -> str:
        """Return how it is got."""
        name = self.about["name"]
        if self.about.get("fetches"):
            return f"brainlab data fetch {name}"
        return f"brainlab data check {name} --root WHERE"


def run(settings: Settings, context: Context) -> Result:
    """Describe one dataset."""
    from brainit import datasets

    context.check()
    about = datasets.describe(settings.name)
    return Result(about={**about, "default_root": str(datasets.default_root(settings.name))})


def check(settings: Settings) -> None:
    """Refuse an unknown name."""
    from brainit import datasets

    datasets.describe(settings.name)
