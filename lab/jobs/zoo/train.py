"""Job behind ``brainlab zoo train``: a shipped model is trained again, or further."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from lab.errors import InputError
from lab.jobs import contract
from lab.jobs.contract import Context, Device, Foreseen, Seed, setting
from lab.models.devices import choose_device
from lab.models.preflight import check_folder as check_place
from lab.models.preflight import need


class Trial(contract.Settings):
    """What every training of a shipped model is asked for."""

    name: str = setting(..., "name of the model (brainlab zoo list)", argument=True)
    data: Path = setting(..., "folder with the training and held-out pictures")
    out: Path = setting(Path("runs/zoo"), "folder of the training state; a stopped run goes on", short="-o")
    steps: int | None = setting(None, "optimiser steps instead of the recipe's", ge=1)
    batch: int | None = setting(None, "pictures a step instead of the recipe's", ge=1)
    minutes: float | None = setting(None, "time budget", unit="minutes", ge=0.01)
    limit: int | None = setting(None, "only the first pictures, for a trial", ge=1)
    seed: Seed = setting(0, "fixes data order, initial weights and noise")
    device: Device = setting("auto", "where the networks run")

    def options(self) -> dict[str, Any]:
        """Return what the training itself takes."""
        return self.model_dump(exclude={"name", "data", "out", "device"})


SHARED = "shared-64"
Tokens = Literal["true", "predicted"]
SIZES = ("voxels", "scanned", "external", "simple")


class Settings(Trial):
    """Train a shipped model again.

    The same command goes on after a stop. With --on predicted a denoiser is trained further on what ridge
    regression reads out of simulated people, so that it paints pictures from predicted tokens, too. The
    network that all subjects share (shared-64) always learns from simulated people.
    """

    further: bool = setting(False, "start from the weights there")
    on: Tokens = setting("true", "tokens that a denoiser learns from; predicted: from simulated fMRI")
    voxels: int | None = setting(None, "voxels of the largest simulated person (--on predicted)", ge=20)
    scanned: int | None = setting(None, "pictures that people are scanned with (--on predicted)", ge=16)
    external: int | None = setting(None, "pictures nobody was scanned with (--on predicted)", ge=0)
    simple: int | None = setting(None, "digits and patterns, each (--on predicted)", ge=0)

    def options(self) -> dict[str, Any]:
        """Return what the training itself takes.

        Raises
        ------
        InputError
            A setting does not go with the kind of tokens.
        """
        given = super().options()
        kind = given.pop("on")
        if self.name == SHARED:
            for key in ("limit", "simple", "further"):
                if given.pop(key):
                    raise InputError(f"--{key} does not go with {SHARED}; leave it out")
            return given
        if kind == "true":
            for key in SIZES:
                if given.pop(key) is not None:
                    raise InputError(f"--{key} is for training on predicted tokens; add --on predicted")
            return given
        if given.pop("limit") is not None:
            raise InputError("--limit is for training on true tokens; give --scanned and --external instead")
        if given.pop("further"):
            raise InputError("--on predicted always trains further; leave --further out")
        return given


class Result(contract.Result):
    """The training part of the model's card."""

    card: dict[str, Any]

    def plain(self) -> Any:
        """Return that part of the card."""
        return self.card

    def files(self) -> dict[str, str]:
        """Return the weights."""
        from lab import zoo

        return {"weights": str(zoo.weight_file(self.card["name"]))}

    def next_step(self) -> str:
        """Return how the new weights are measured."""
        return f"brainlab zoo evaluate {self.card['name']} --data DATA"


def run(settings: Settings, context: Context) -> Result:
    """Train; weights and card go into the zoo.

    Raises
    ------
    InputError
        Unknown model, or no folder of pictures.
    """
    device, options = check(settings), settings.options()
    if settings.name == SHARED:
        from lab.zoo.shared.run import train as shared

        return Result(
            card=shared(settings.data, settings.out, device=device, progress=context.progress, **options)
        )
    from lab.zoo import train

    job = train.run_on_predicted if settings.on == "predicted" else train.run
    found = job(
        settings.name, settings.data, settings.out, device=device, progress=context.progress, **options
    )
    return Result(card=found)


def dry_run(settings: Settings) -> Foreseen:
    """Say where the weights would go."""
    return foreseen(settings, "would train")


def foreseen(settings: Trial, what: str) -> Foreseen:
    """Say what a training would do, as far as settings tell."""
    from lab import zoo

    device = check(settings)
    target = {"weights": str(zoo.weight_file(settings.name)), "state": str(settings.out)}
    about = {what: settings.name, "data": str(settings.data), "device": device}
    return Foreseen(facts={**about, **target, **settings.options()})


def check(settings: Any) -> str:
    """Refuse an unknown model and a missing folder; return the device."""
    from lab import zoo

    zoo.summary(settings.name)
    if settings.name == "watermark-64":
        raise InputError(f"{settings.name} has commands of its own: brainlab watermark train, and report")
    check_folder(settings.data)
    check_place(settings.out)
    check_home()
    return choose_device(settings.device)


def check_home() -> None:
    """Refuse an installation that cannot be written to: weights, cards and sheets go into it."""
    from lab import zoo

    for place in (zoo.HOME / "weights", zoo.HOME / "cards"):
        if not os.access(place, os.W_OK):
            raise InputError(
                f"{place} cannot be written to (read-only), and what this makes goes there: use an "
                "installation of your own (pip install -e)"
            )


def check_folder(data: Path) -> None:
    """Refuse a folder of pictures that is not there."""
    need("pyarrow")
    if not data.is_dir():
        raise InputError(f"{data}: no such folder; --data wants the folder with the training pictures")
