"""Job behind ``brainlab zoo evaluate``: a shipped model is measured on held-out pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab.jobs import contract
from lab.jobs.contract import Context, Device, Foreseen, Seed, setting
from lab.jobs.zoo.train import check


class Settings(contract.Settings):
    """Measure a shipped model on held-out pictures.

    The numbers go into the model's card, with a sheet of pictures beside it that shows only what was made by
    this project.
    """

    name: str = setting(..., "name of the model (brainlab zoo list)", argument=True)
    data: Path = setting(..., "folder with the training and held-out pictures")
    out: Path = setting(
        Path("runs/zoo"), "folder of the sheet that shows the held-out pictures too", short="-o"
    )
    n: int = setting(1000, "natural pictures to measure on", ge=2)
    n_simple: int | None = setting(None, "digits and patterns, each; default: as many as natural ones", ge=2)
    seed: Seed = setting(0, "fixes the noise")
    device: Device = setting("auto", "where the networks run")


class Result(contract.Result):
    """The measured part of the model's card."""

    card: dict[str, Any]
    folder: str

    def plain(self) -> Any:
        """Return that part of the card."""
        return self.card

    def files(self) -> dict[str, str]:
        """Return the folder of the sheet."""
        return {"sheet": self.folder}


def run(settings: Settings, context: Context) -> Result:
    """Measure and write the result into the model's card.

    Raises
    ------
    InputError
        Unknown model, no folder of pictures, or too many pictures asked for.
    """
    device = check(settings)
    from lab.zoo.evaluate import evaluate_into_card

    found = evaluate_into_card(
        settings.name, settings.data, settings.out, device=device, progress=context.progress,
        n=settings.n, n_simple=settings.n_simple, seed=settings.seed,
    )  # fmt: skip
    return Result(card=found, folder=str(settings.out))


def dry_run(settings: Settings) -> Foreseen:
    """Say what would be measured."""
    device = check(settings)
    return Foreseen(facts={"would measure": settings.name, "pictures": settings.n, "device": device})
