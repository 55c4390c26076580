"""The same pictures by full precision and by several recipes: same noise, same conditions, side by side."""

from __future__ import annotations

import time
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

from lab.errors import InputError
from lab.jobs import contract
from lab.jobs.contract import Context, Seed, Table, Words, line, setting

if TYPE_CHECKING:
    import numpy as np

    from lab.jobs.models.painters import Painter

FULL = "full precision"
MOST = 4
ARCHIVE = "pictures.npz"


class Settings(contract.Settings):
    """Draw the same pictures in full precision and with up to four recipes.

    Conditions are shipped stimuli, or of the recording's evaluation subset: no recipe was calibrated on them.
    """

    model: str = setting(
        "dit-64", "shipped denoiser (brainlab zoo list), or a local folder with --recording", argument=True
    )
    recording: Path | None = setting(
        None, "folder of brainlab record (or quant.record); shipped denoisers make theirs"
    )
    recipes: Words = setting(("svdquant-w4a4",), "recipes with commas between", short="-r")
    n: int = setting(4, "number of pictures", ge=1, le=32)
    steps: int = setting(20, "sampling steps; with a recording as it was made", ge=2, le=100)
    guidance: float = setting(
        2.0, "classifier-free guidance; 1 is none; with a recording as it was made", ge=0, le=20
    )
    seed: Seed = setting(0, "fixes the noise")
    native: bool = setting(False, "recipes run through the GPU's low-bit kernels, not simulated")
    out: Path = setting(Path("runs/variants"), "folder for the pictures", short="-o")


class Result(contract.Result):
    """One row per recipe, and where its pictures lie (PNG sheets; ``pictures.npz`` holds all of them).

    ``intervals`` has the 95 % bootstrap interval over pictures of each paired measure; ``along`` each
    recipe's distance from full precision before every sampling step and at the end (noise over signal power
    of the latents). ``pictures_of`` says what each picture was drawn for, in the order of the sheets.
    """

    rows: list[dict[str, Any]]
    intervals: dict[str, dict[str, tuple[float, float]]]
    along: dict[str, list[float]]
    timesteps: list[float]
    pictures_are: str
    pictures_of: list[str]
    pictures: dict[str, str]
    archive: str

    def shown(self) -> list[dict[str, Any]]:
        """Return the rows with intervals beside the means, for a person."""
        return [
            {name: self._with_interval(row["recipe"], name, value) for name, value in row.items()}
            for row in self.rows
        ]

    def _with_interval(self, recipe: str, name: str, value: Any) -> Any:
        bounds = self.intervals.get(recipe, {}).get(name)
        return value if bounds is None else f"{value:.3g} [{bounds[0]:.3g}, {bounds[1]:.3g}]"

    def tables(self) -> list[Table]:
        """Return the rows, then what each picture was drawn for."""
        return [Table(self.shown()), line(f"pictures, row by row: {'; '.join(self.pictures_of)}")]

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

    from lab.compare.networks import Networks
    from lab.files import write_npz
    from lab.images import sheet, write_picture
    from lab.jobs.models import painters

    s, device = check(settings), "cuda" if settings.native else "cpu"
    if s.recording is None:
        painter = painters.shipped(s.model, s.n, s.steps, s.guidance, s.seed, device, context.progress)
        networks = Networks.load(torch.device("cpu"))
    else:
        painter = painters.recorded(s.model, s.recording, s.n, s.steps, s.guidance, s.seed)
        networks = Networks()  # those judge pictures
    drawn: dict[str, np.ndarray] = {}
    rows: list[dict[str, Any]] = []
    intervals: dict[str, Any] = {}
    ways: dict[str, list[Any]] = {}
    timesteps: list[float] = []
    for name in (FULL, *settings.recipes):
        context.progress(len(rows), 1 + len(settings.recipes), name)
        model, ledger = (
            (painter.model, None) if name == FULL else quantized(settings, name, painter.model, context)
        )
        began = time.perf_counter()
        latents, ways[name], timesteps = _draw(painter, model, name, context)
        seconds = time.perf_counter() - began
        with torch.inference_mode():
            drawn[name] = painter.decode(latents).permute(0, 2, 3, 1).numpy()
        found = {} if name == FULL else _scores(drawn[name], drawn[FULL], networks)
        if s.n > 1:  # of one picture there is none
            intervals[name] = {measure: (score.low, score.high) for measure, score in found.items()}
        means = {measure: round(score.mean, 4) for measure, score in found.items()}
        facts = _full(model) if ledger is None else _facts(ledger)
        timed = None if facts["arithmetic"] == "simulated" else round(seconds / settings.n, 3)
        rows.append({"recipe": name, **means, **facts, "seconds per picture": timed})
    rows[0] = {name: rows[0].get(name) for name in rows[-1]}  # columns of all
    _sweep(settings.out)
    files = {}
    for name, pictures in drawn.items():
        files[name] = str(settings.out / f"{plain_name(name)}.png")
        laid = sheet(pictures, int(np.ceil(np.sqrt(settings.n))), gap=2)
        about = f"{name}; pictures, row by row: {'; '.join(painter.pictures_of)}"
        write_picture(laid, Path(files[name]), about=about)
    archive = settings.out / ARCHIVE
    write_npz(archive, {plain_name(name): pictures for name, pictures in drawn.items()})
    along = {name: _apart(way, ways[FULL]) for name, way in ways.items() if name != FULL}
    return Result(
        rows=rows, intervals=intervals, along=along, timesteps=timesteps,
        pictures_are=painter.pictures_are, pictures_of=painter.pictures_of, pictures=files,
        archive=str(archive),
    )  # fmt: skip


def _sweep(out: Path) -> None:
    """Remove the sheets of an earlier call: of other noise or numbers, they would stand beside these."""
    import numpy as np

    try:
        with np.load(out / ARCHIVE, allow_pickle=False) as before:
            for name in before.files:
                (out / f"{name}.png").unlink(missing_ok=True)
    except (OSError, ValueError, EOFError, BadZipFile):  # there is none, or it is damaged
        return


def check(settings: Settings) -> Settings:
    """Refuse what cannot be drawn, before anything long; return the settings, sampling as a recording's."""
    import torch

    from lab import zoo
    from lab.compare.bench import PanelSettings
    from lab.models.preflight import (
        as_recorded,
        check_evaluation,
        check_loose_folder,
        check_recording,
        check_sampling,
    )
    from quant import recipes

    check_loose_folder(settings.out)
    if settings.recording is not None:
        if settings.native:
            raise InputError("native, with a recording of one's own: run brainlab compare, or leave one out")
        store = check_recording(settings.model, settings.recording)
        settings = as_recorded(settings, store)
        PanelSettings(n=settings.n, seeds=1, steps=settings.steps, guidance=settings.guidance)
        check_sampling(store, settings.steps, settings.guidance)
        if settings.model not in zoo.DENOISERS:
            check_evaluation(store, settings.n)
    elif settings.model not in zoo.DECODERS:
        raise InputError(
            f"model {settings.model[:60]!r} draws no pictures; denoisers: {', '.join(zoo.DECODERS)}; for "
            "others give a recording"
        )
    if not 1 <= len(settings.recipes) <= MOST:
        raise InputError(f"{len(settings.recipes)} recipes; give 1 to {MOST}")
    if len(set(settings.recipes)) < len(settings.recipes):
        raise InputError(f"recipes {', '.join(settings.recipes)}: one is given twice; leave one out")
    for recipe in settings.recipes:
        recipes.resolve(recipe)
    if settings.native:
        from quant.layers.native.ways import refuse_device

        refuse_device("cuda" if torch.cuda.is_available() else "cpu")
    return settings


def quantized(settings: Settings, recipe: str, denoiser: Any, context: Context) -> tuple[Any, Any]:
    """Return a quantized copy of a denoiser and its ledger."""
    import quant
    from lab.models.preflight import open_recording
    from quant import recipes

    model = deepcopy(denoiser)
    wanted = recipes.parse(recipe)
    needs = wanted.calibrates or wanted.trains
    store = open_recording(settings.model, settings.recording, progress=context.progress) if needs else None
    ledger = quant.quantize_(
        model, recipe, trajectories=store, keep_originals=False, progress=context.progress
    )
    if settings.native:
        quant.native_(model)
    return model, ledger


def _facts(ledger: Any) -> dict[str, Any]:
    """Return the size and the bits of a quantized model, and how it ran."""
    size, bits = ledger.bytes_after / 1e6, ledger.mean_weight_bits
    return {"weight bits": round(bits, 2), "model MB": round(size, 2), "arithmetic": ledger.arithmetic}


def _full(model: Any) -> dict[str, Any]:
    """Return the size and the bits of a model as it is."""
    sizes = [(p.numel(), p.element_size()) for p in (*model.parameters(), *model.buffers())]
    size = sum(count * each for count, each in sizes)
    bits = 8 * size / sum(count for count, _ in sizes)
    return {"weight bits": round(bits, 2), "model MB": round(size / 1e6, 2), "arithmetic": FULL}


def _draw(painter: Painter, model: Any, name: str, context: Context) -> Any:
    """Latents, the latents before each step, and the timesteps."""
    way: list[Any] = []
    timesteps: list[float] = []
    show = painter.show(name, context.preview)

    def see(step: Any) -> None:
        way.append(step.x.detach().float().cpu().clone())
        timesteps.append(float(step.timestep))
        if show is not None:
            show(step)

    latents = painter.draw(model, see)
    return latents, [*way, latents], [*timesteps, 0.0]


def _apart(way: list[Any], reference: list[Any]) -> list[float]:
    """Noise over signal power of the latents at each step."""
    return [
        float((one - other).square().sum() / other.square().sum())
        for one, other in zip(way, reference, strict=True)
    ]


def _scores(pictures: np.ndarray, reference: np.ndarray, networks: Any) -> dict[str, Any]:
    """Paired measures against full precision, with intervals over the pictures (PSNR capped at 60 dB)."""
    import torch

    from brainit.metrics import bootstrap_interval, psnr, ssim

    pair = [torch.from_numpy(p).permute(0, 3, 1, 2).float() for p in (pictures, reference)]
    distance = networks.perceptual(*pair)
    found = {"PSNR to full (dB)": psnr(pictures, reference, 60.0), "SSIM to full": ssim(pictures, reference)}
    if distance is not None:
        found["ST-LPIPS to full"] = distance.numpy()
    return {name: bootstrap_interval(values) for name, values in found.items()}


def plain_name(name: str) -> str:
    """Return a recipe's name as a file may be called."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
