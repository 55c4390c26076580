"""Job behind ``brainlab zoo refine``: the autoencoder's decoder is trained further."""

from __future__ import annotations

from lab.jobs.contract import Context, Foreseen
from lab.jobs.zoo.train import Result, Trial, check, foreseen

__all__ = ["Result", "Settings", "dry_run", "run"]


class Settings(Trial):
    """Train the autoencoder's decoder further.

    The encoder is frozen, so denoisers that were trained on its latents stay valid.
    """


def run(settings: Settings, context: Context) -> Result:
    """Train the decoder; weights and card go into the zoo.

    Raises
    ------
    InputError
        A model that cannot be refined, or no folder of pictures.
    """
    from lab.zoo import train

    device = check(settings)
    found = train.refine(
        settings.name, settings.data, settings.out, device=device, progress=context.progress,
        **settings.options(),
    )  # fmt: skip
    return Result(card=found)


def dry_run(settings: Settings) -> Foreseen:
    """Say where the weights would go."""
    return foreseen(settings, "would refine")
