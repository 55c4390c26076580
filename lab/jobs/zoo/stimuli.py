"""Job behind ``brainlab zoo stimuli``: the pictures that ship for simulated subjects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab.jobs import contract
from lab.jobs.contract import Context, Device, Foreseen, Seed, setting
from lab.jobs.zoo.train import check_folder, check_home
from lab.models.devices import choose_device


class Settings(contract.Settings):
    """Draw the pictures that ship for simulated subjects.

    Samples of unet-64 under the tokens of held-out natural pictures. The same command goes on after a stop.
    """

    data: Path = setting(..., "folder with the training and held-out pictures")
    out: Path = setting(
        Path("runs/zoo/stimuli-64"), "folder of finished pieces; a stopped run goes on", short="-o"
    )
    n: int = setting(800, "number of pictures", ge=1)
    steps: int = setting(12, "sampling steps", ge=1, le=1000)
    guidance: float = setting(2.0, "classifier-free guidance; 1 is none", ge=0)
    seed: Seed = setting(0, "fixes the noise")
    device: Device = setting("auto", "where the networks run")


class Result(contract.Result):
    """The file, its size, and its card."""

    file: str
    megabytes: float
    card: dict[str, Any]

    def files(self) -> dict[str, str]:
        """Return the sheet."""
        return {"pictures": self.file}


def run(settings: Settings, context: Context) -> Result:
    """Draw the pictures; what is finished is kept.

    Raises
    ------
    InputError
        No folder of pictures, or more pictures than there are conditions.
    """
    check_folder(settings.data)
    check_home()
    device = choose_device(settings.device)
    from lab.zoo import stimuli

    card = stimuli.make(
        settings.data, settings.out, n=settings.n, steps=settings.steps, guidance=settings.guidance,
        seed=settings.seed, device=device, progress=context.progress,
    )  # fmt: skip
    size = round(stimuli.SHEET.stat().st_size / 1e6, 2)
    about = {k: v for k, v in card.items() if k != "labels"}
    return Result(file=str(stimuli.SHEET), megabytes=size, card=about)


def dry_run(settings: Settings) -> Foreseen:
    """Say what would be drawn."""
    check_folder(settings.data)
    check_home()
    facts = {"would draw": settings.n, "steps": settings.steps, "pieces in": str(settings.out)}
    return Foreseen(facts={**facts, "device": choose_device(settings.device)})
