"""The same pictures by full precision and by several recipes: same noise, same conditions, side by side."""

from __future__ import annotations

import time
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import InputError
from lab.jobs import contract
from lab.jobs.contract import Context, Seed, Table, Words, setting
from lab.previews import step_previews

if TYPE_CHECKING:
    import numpy as np

FULL = "full precision"
MOST = 4


class Settings(contract.Settings):
    """Draw the same pictures in full precision and with up to four recipes.

    Conditions are shipped stimuli that no recipe was calibrated on.
    """

    model: str = setting("dit-64", "shipped denoiser (brainlab zoo list)", argument=True)
    recipes: Words = setting(("svdquant-w4a4",), "recipes with commas between", short="-r")
    n: int = setting(4, "number of pictures", ge=1, le=32)
    steps: int = setting(20, "sampling steps", ge=2, le=100)
    guidance: float = setting(2.0, "classifier-free guidance; 1 is none", ge=0, le=20)
    seed: Seed = setting(0, "fixes the noise")
    native: bool = setting(False, "recipes run through the GPU's low-bit kernels, not simulated")
    out: Path = setting(Path("runs/variants"), "folder for the pictures", short="-o")


class Result(contract.Result):
    """One row per recipe, and where its pictures lie (PNG sheets; ``pictures.npz`` holds all of them)."""

    rows: list[dict[str, Any]]
    pictures: dict[str, str]
    archive: str

    def tables(self) -> list[Table]:
        """Return the rows."""
        return [Table(self.rows)]

    def files(self) -> dict[str, str]:
        """Return the sheets and the archive."""
        return {**self.pictures, "all pictures": self.archive}


def run(settings: Settings, context: Context) -> Result:
    """Quantize copies of the model, draw from the same noise, and measure against full precision.

    Raises
    ------
    InputError
        An unknown model or recipe, one given twice, or more than four.
    """
    import numpy as np
    import torch

    from lab import zoo
    from lab.files import write_npz
    from lab.images import sheet, write_picture

    check(settings)
    device = "cuda" if settings.native else "cpu"
    denoiser, autoencoder = zoo.load(settings.model, device), zoo.load("autoencoder-64", device)
    drawn: dict[str, np.ndarray] = {}
    rows: list[dict[str, Any]] = []
    for name in (FULL, *settings.recipes):
        context.progress(len(rows), 1 + len(settings.recipes), name)
        model, facts = (denoiser, {}) if name == FULL else quantized(settings, name, denoiser, context)
        began = time.perf_counter()
        latents = _draw(settings, model, autoencoder, name, context)
        seconds = time.perf_counter() - began
        with torch.inference_mode():
            pixels = autoencoder.decode(latents.to(device)).clamp(0, 1).permute(0, 2, 3, 1)
            drawn[name] = pixels.cpu().numpy()
        rows.append({"recipe": name, **_scores(drawn[name], drawn[FULL], name), **facts,
                     "seconds per picture": round(seconds / settings.n, 3)})  # fmt: skip
    files = {}
    for name, pictures in drawn.items():
        files[name] = str(settings.out / f"{plain_name(name)}.png")
        write_picture(sheet(pictures, int(np.ceil(np.sqrt(settings.n))), gap=2), Path(files[name]))
    archive = settings.out / "pictures.npz"
    write_npz(archive, {plain_name(name): pictures for name, pictures in drawn.items()})
    return Result(rows=rows, pictures=files, archive=str(archive))


def check(settings: Settings) -> None:
    """Refuse what cannot be drawn, before anything long."""
    import torch

    from lab import zoo
    from quant import recipes

    if settings.model not in zoo.DECODERS:
        raise InputError(f"model {settings.model!r} draws no pictures; denoisers: {', '.join(zoo.DECODERS)}")
    if not 1 <= len(settings.recipes) <= MOST:
        raise InputError(f"{len(settings.recipes)} recipes; give 1 to {MOST}")
    if len(set(settings.recipes)) < len(settings.recipes):
        raise InputError(f"recipes {', '.join(settings.recipes)}: one is given twice; leave one out")
    for recipe in settings.recipes:
        recipes.resolve(recipe)
    if settings.native:
        from quant.layers.native.ways import refuse_device

        refuse_device("cuda" if torch.cuda.is_available() else "cpu")


def quantized(settings: Settings, recipe: str, denoiser: Any, context: Context) -> tuple[Any, dict[str, Any]]:
    """Return a quantized copy of a denoiser and its size and bits."""
    import quant
    from lab.models.preflight import open_recording
    from quant import recipes

    model = deepcopy(denoiser)
    wanted = recipes.parse(recipe)
    needs = wanted.calibrates or wanted.trains
    store = open_recording(settings.model, progress=context.progress) if needs else None
    ledger = quant.quantize_(
        model, recipe, trajectories=store, keep_originals=False, progress=context.progress
    )
    if settings.native:
        quant.native_(model)
    size, bits = ledger.bytes_after / 1e6, ledger.mean_weight_bits
    return model, {"weight bits": round(bits, 2), "model MB": round(size, 2), "arithmetic": ledger.arithmetic}


def _draw(settings: Settings, model: Any, autoencoder: Any, name: str, context: Context) -> Any:
    from lab import zoo
    from lab.zoo import sampling
    from lab.zoo.recordings import order, stimulus_tokens

    rows = order()[-settings.n :]  # recordings take the first ones
    sampler = sampling.SamplerSettings(steps=settings.steps, guidance=settings.guidance)
    return sampling.sample(
        model, stimulus_tokens(rows, "cpu"), zoo.null_tokens(settings.model),
        sampling.draw_noise(settings.n, settings.seed), sampler, progress=context.progress,
        see=step_previews(context.preview, autoencoder.decode, f"sampling, {name}", settings.steps),
    )  # fmt: skip


def _scores(pictures: np.ndarray, reference: np.ndarray, name: str) -> dict[str, Any]:
    """Paired measures against full precision, means over the pictures (PSNR capped at 60 dB)."""
    import numpy as np

    from brainit.metrics import psnr, ssim

    if name == FULL:
        return {"PSNR to full (dB)": None, "SSIM to full": None}
    found = psnr(pictures, reference, 60.0)
    return {
        "PSNR to full (dB)": round(float(np.mean(found)), 2),
        "SSIM to full": round(float(np.mean(ssim(pictures, reference))), 4),
    }


def plain_name(name: str) -> str:
    """Return a recipe's name as a file may be called."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
