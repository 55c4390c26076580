"""Job behind ``brainlab zoo evaluate``: a shipped model is measured on held-out pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab.errors import InputError
from lab.jobs import contract
from lab.jobs.contract import Context, Device, Foreseen, Seed, setting
from lab.jobs.zoo.train import SHARED, Tokens, check

PREDICTED = ("before", "voxels", "scanned", "external")


class Settings(contract.Settings):
    """Measure a shipped model on held-out pictures.

    The numbers go into the model's card, with a sheet of pictures beside it that shows only what was made by
    this project. With --on predicted a denoiser is measured on tokens predicted from simulated people that
    nothing was trained on.
    """

    name: str = setting(..., "name of the model (brainlab zoo list)", argument=True)
    data: Path = setting(..., "folder with the training and held-out pictures")
    out: Path = setting(
        Path("runs/zoo"), "folder of the sheet that shows the held-out pictures too", short="-o"
    )
    n: int | None = setting(None, "natural pictures to measure on; default 1000, 300 if predicted", ge=2)
    n_simple: int | None = setting(None, "digits and patterns, each; default: as many as natural ones", ge=2)
    on: Tokens = setting("true", "tokens to paint from; predicted: from simulated fMRI (denoisers)")
    before: Path | None = setting(None, "weights to compare with, as training kept them (--on predicted)")
    voxels: int | None = setting(None, "voxels of a simulated person (--on predicted)", ge=20)
    scanned: int | None = setting(None, "pictures scanned, as in training (--on predicted)", ge=16)
    external: int | None = setting(None, "pictures not scanned, as in training (--on predicted)", ge=0)
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
    from lab import zoo

    device, options = check(settings), _options(settings)
    if settings.name in zoo.VIDEO:
        from lab.zoo.video.evaluate import evaluate_into_card as measure_clips

        found = measure_clips(
            settings.data, settings.out, device=device, progress=context.progress, **options
        )
        return Result(card=found, folder=str(settings.out))
    if settings.name == SHARED:
        from lab.zoo.shared.evaluate import evaluate as newcomers

        found = newcomers(settings.data, settings.out, device=device, progress=context.progress, **options)
        return Result(card=found, folder=str(settings.out))
    if settings.on == "predicted":
        from lab.zoo.evaluate_predicted import evaluate_into_card as measure
    else:
        from lab.zoo.evaluate import evaluate_into_card as measure
    found = measure(
        settings.name, settings.data, settings.out, device=device, progress=context.progress, **options
    )
    return Result(card=found, folder=str(settings.out))


def dry_run(settings: Settings) -> Foreseen:
    """Say what would be measured."""
    device, options = check(settings), _options(settings)
    return Foreseen(facts={"would measure": settings.name, "on": settings.on, "device": device, **options})


def _options(settings: Settings) -> dict[str, Any]:
    """Return what the measuring itself takes; refuse what does not go with the kind of tokens."""
    from lab import zoo

    given = settings.model_dump(include={"n", "n_simple", "seed", *PREDICTED})
    if settings.name in zoo.VIDEO:
        for key in ("n_simple", *PREDICTED):
            if given.pop(key) is not None:
                raise InputError(f"--{key.replace('_', '-')} is for models of pictures; leave it out")
        if settings.on == "predicted":
            raise InputError(f"{settings.name} takes a clip's tokens; leave --on predicted out")
        return given | {"n": settings.n or 256}
    if settings.on == "predicted" or settings.name == SHARED:
        if given.pop("n_simple") is not None:
            raise InputError("--n-simple is for true tokens; leave it out with --on predicted")
        return given | {"n": settings.n or 300}
    for key in PREDICTED:
        if given.pop(key) is not None:
            raise InputError(f"--{key} is for measuring on predicted tokens; add --on predicted")
    return given | {"n": settings.n or 1000}
