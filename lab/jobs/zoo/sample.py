"""Job behind ``brainlab zoo sample``: pictures of a shipped denoiser, unconditioned."""

from __future__ import annotations

from pathlib import Path

from lab.errors import InputError
from lab.jobs import contract
from lab.jobs.contract import Context, Device, Foreseen, Seed, setting
from lab.models.devices import choose_device
from lab.previews import step_previews


class Settings(contract.Settings):
    """Draw pictures with a shipped denoiser, unconditioned."""

    name: str = setting(..., "name of the denoiser (brainlab zoo list)", argument=True)
    out: Path = setting(Path("samples.png"), "PNG or WebP file of the picture sheet", short="-o")
    n: int = setting(16, "number of pictures", ge=1, le=256)
    steps: int = setting(20, "sampling steps", ge=1, le=1000)
    seed: Seed = setting(0, "fixes the noise")
    device: Device = setting("auto", "where the networks run")


class Result(contract.Result):
    """What was drawn, and the file."""

    model: str
    pictures: int
    steps: int
    seed: int
    device: str
    file: str

    def files(self) -> dict[str, str]:
        """Return the sheet."""
        return {"pictures": self.file}


def run(settings: Settings, context: Context) -> Result:
    """Draw pictures under the learned null condition and write them as one sheet.

    Raises
    ------
    InputError
        A model that draws no pictures, or a file that is neither PNG nor WebP.
    """
    import numpy as np
    import torch

    from lab import zoo
    from lab.images import sheet, write_picture
    from lab.metrics.clips import strips
    from lab.zoo import recordings
    from lab.zoo import sampling as decoder
    from quant.denoisers.families import sample_shape

    device = _check(settings)
    name, n = settings.name, settings.n
    sampler = decoder.SamplerSettings(steps=settings.steps, guidance=1.0)
    denoiser, decode = zoo.load(name, device), recordings.decoder(name, device)
    shape = sample_shape(denoiser)
    assert shape is not None  # shipped denoisers state it
    null, noise = zoo.null_tokens(name), decoder.draw_noise(n, settings.seed, shape)
    latents = decoder.sample(
        denoiser, null.expand(n, -1, -1), null, noise, sampler, progress=context.progress,
        see=step_previews(context.preview, lambda z: strips(decode(z)), name, settings.steps),
    )  # fmt: skip
    with torch.inference_mode():
        pictures = strips(decode(latents.to(device)).cpu()).permute(0, 2, 3, 1).numpy()
    columns = 1 if name in zoo.VIDEO else int(np.ceil(np.sqrt(n)))
    write_picture(sheet(pictures, columns, gap=2), settings.out)
    return Result(
        model=name, pictures=n, steps=settings.steps, seed=settings.seed, device=device,
        file=str(settings.out),
    )  # fmt: skip


def dry_run(settings: Settings) -> Foreseen:
    """Say what would be drawn."""
    device = _check(settings)
    return Foreseen(facts={"would draw": settings.n, "model": settings.name, "device": device})


def _check(settings: Settings) -> str:
    from lab import zoo
    from lab.models.preflight import check_file

    if settings.name not in zoo.DENOISERS:
        raise InputError(
            f"model {settings.name!r} draws no pictures; denoisers are {', '.join(zoo.DENOISERS)}"
        )
    check_file(settings.out, ".png", ".webp")
    return choose_device(settings.device)
