"""Job behind ``brainlab zoo info``."""

from __future__ import annotations

from typing import Any

from lab.jobs import contract
from lab.jobs.contract import Context, setting


class Settings(contract.Settings):
    """Show a model's card: data, training, quality."""

    name: str = setting(..., "name of the model (brainlab zoo list)", argument=True)


class Result(contract.Result):
    """A model's name, summary, weight file, size and card."""

    card: dict[str, Any]

    def plain(self) -> Any:
        """Return the card."""
        return self.card


def run(settings: Settings, context: Context) -> Result:
    """Read a model's card.

    Raises
    ------
    InputError
        Unknown model.
    """
    from lab import zoo

    context.check()
    summary, file = zoo.summary(settings.name), zoo.weight_file(settings.name)
    size = round(file.stat().st_size / 1e6, 2) if file.is_file() else None
    about = {"name": settings.name, "what": summary, "weights": file.name if size else None}
    return Result(card={**about, "megabytes": size, **zoo.info(settings.name)})
