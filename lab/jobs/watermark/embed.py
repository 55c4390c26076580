"""Job behind ``brainlab watermark embed``: pictures as the marked decoder makes them."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from lab.errors import InputError
from lab.jobs.contract import Context, Device, Foreseen, Seed, Table, setting
from lab.jobs.contract import Result as BaseResult
from lab.jobs.watermark.settings import OfKey, files, open_key, refuse_same_names
from lab.jobs.watermark.verify import RATE, reading
from lab.models.devices import choose_device
from lab.models.preflight import check_folder


class Settings(OfKey):
    """Make pictures with the marked decoder, as 64x64 PNG.

    From files, which go through the autoencoder (their middle square, resized), or drawn by a denoiser. Each
    file is read back as it was stored. Without the decoder nothing is marked.
    """

    pictures: tuple[Path, ...] = setting((), "PNG or JPEG files", argument=True)
    out: Path = setting(Path("marked"), "folder of the marked pictures", short="-o")
    samples: int = setting(0, "pictures to draw with a denoiser instead", ge=0, le=1024)
    model: str = setting("dit-64", "the denoiser that draws them")
    seed: Seed = setting(0, "fixes the noise of drawn pictures")
    device: Device = setting("auto", "where the networks run")


class Result(BaseResult):
    """A row for each picture; ``with_key`` are the words of the command line that name key and extractor."""

    rows: list[dict[str, Any]]
    folder: str
    with_key: tuple[str, ...] = ()

    def tables(self) -> list[Table]:
        """Return what the mark costs each picture, and how it reads."""
        return [Table([
            {"picture": r["picture"], "PSNR to unmarked, dB": f"{r['psnr_db']:.1f}",
             "matches": r["matches"], "p-value": f"{r['p_value']:.2g}", "verdict": r["verdict"]}
            for r in self.rows
        ])]  # fmt: skip

    def files(self) -> dict[str, str]:
        """Return the folder."""
        return {"pictures": self.folder}

    def next_step(self) -> str:
        """Return how one is verified."""
        return shlex.join(["brainlab", "watermark", "verify", self.rows[0]["picture"], *self.with_key])


def run(settings: Settings, context: Context) -> Result:
    """Decode, write, and read back.

    Raises
    ------
    InputError
        No pictures, files that are none, a damaged key or one of other weights.
    """
    import torch

    from lab import zoo
    from lab.images import write_picture
    from lab.zoo.watermark.files import AUTOENCODER, marked_autoencoder
    from lab.zoo.watermark.pictures import read_picture
    from quant.adapters.watermark.distortions import stored
    from quant.adapters.watermark.extractor import SMALLEST
    from quant.adapters.watermark.losses import psnr

    device, given = _check(settings)
    reader, key = open_key(settings)
    marked, plain = marked_autoencoder(files(settings)[0], device), zoo.load(AUTOENCODER, device)
    names, latents = _names(settings), _latents(settings, context, given, plain, device)
    rows = []
    for index, (name, latent) in enumerate(zip(names, latents, strict=True)):
        context.progress(index, len(names), name)
        with torch.inference_mode():
            made, without = (stored(m.decode(latent[None].to(device))).cpu() for m in (marked, plain))
        file = settings.out / f"{name}.png"
        write_picture((made[0] * 255).round().byte().permute(1, 2, 0).numpy(), file)
        row = reading(reader, key.message, read_picture(file, SMALLEST), RATE, str(file))
        rows.append({**row, "psnr_db": float(psnr(made, without))})
    context.progress(len(names), len(names), "done")
    flags = {"--key": settings.key, "--extractor": settings.extractor}
    with_key = tuple(word for flag, file in flags.items() if file for word in (flag, str(file)))
    return Result(rows=rows, folder=str(settings.out), with_key=with_key)


def _names(settings: Settings) -> list[str]:
    """Return the names of the files that are written, without their ending."""
    drawn = [f"sample-{settings.seed}-{index:03d}" for index in range(settings.samples)]
    return [path.stem for path in settings.pictures] or drawn


def _latents(settings: Settings, context: Context, given: list[Any], plain: Any, device: str) -> Any:
    """Return latents (n, 8, 16, 16): of the pictures that were given, or drawn."""
    import torch

    from lab import zoo
    from lab.zoo import sampling

    if given:
        with torch.inference_mode():
            return plain.encode(torch.cat(given).to(device))
    n, null = settings.samples, zoo.null_tokens(settings.model)
    noise, sampler = sampling.draw_noise(n, settings.seed), sampling.SamplerSettings(guidance=1.0)
    denoiser = zoo.load(settings.model, device)
    return sampling.sample(denoiser, null.expand(n, -1, -1), null, noise, sampler, progress=context.progress)


def dry_run(settings: Settings) -> Foreseen:
    """Say what would be made."""
    device, _ = _check(settings)
    open_key(settings)
    count = len(settings.pictures) or settings.samples
    return Foreseen(facts={"would mark": count, "device": device, "out": str(settings.out)})


def _check(settings: Settings) -> tuple[str, list[Any]]:
    """Refuse what cannot be marked; return the device and the pictures, each (1, 3, 64, 64)."""
    from lab import zoo
    from lab.images import SIDE
    from lab.zoo.watermark.pictures import read_picture, to_model_size

    if bool(settings.pictures) == bool(settings.samples):
        raise InputError("give pictures, or --samples N to draw some, and not both")
    if settings.samples and settings.model not in zoo.DECODERS:
        raise InputError(
            f"model {settings.model!r} draws no pictures; denoisers are {', '.join(zoo.DECODERS)}"
        )
    refuse_same_names(settings.pictures)
    check_folder(settings.out)
    for name in _names(settings):
        _refuse_overwriting(settings.out / f"{name}.png", settings.pictures)
    return choose_device(settings.device), [
        to_model_size(read_picture(path, SIDE)) for path in settings.pictures
    ]


def _refuse_overwriting(file: Path, given: tuple[Path, ...]) -> None:
    """Refuse to write over a picture that was given, or over one that is not of the size that this writes."""
    from lab.images import SIDE
    from lab.zoo.watermark.pictures import size_of

    if not file.exists():
        return
    if any(picture.exists() and file.samefile(picture) for picture in given):
        raise InputError(f"{file} is one of the pictures and would be written over; choose another --out")
    if size_of(file) != (SIDE, SIDE):
        raise InputError(f"{file} is there already, and not from here; choose another --out")
