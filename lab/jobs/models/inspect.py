"""Job behind ``brainlab inspect``: look at a denoiser on recorded sampling, write tables, figures, a page."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

from lab.jobs import contract
from lab.jobs.contract import Context, Device, Foreseen, Table, line, setting
from lab.jobs.models.plan import OfLayers, OfModel
from lab.jobs.spelling import as_command
from lab.models.devices import choose_device
from lab.progress import Progress

if TYPE_CHECKING:
    import quant

DEFAULT_STEPS = 20
PAGE = "index.html"
SHARED_SAMPLES = 32
"""Calibration samples of the recording that other commands use as well."""
_CLOSE_UPS = 2  # layers with figures of their own
_TOP = 12
_SURFACE_SAMPLES, _SURFACE_STEPS = 4, 5


class Settings(OfModel):
    """Look at a denoiser's inputs, weights and attention.

    Per layer, channel and timestep: extremes, quantiles, moments, outliers, histograms. Writes parquet and
    npz, figures, and one page; prints the first layers by a statistic.
    """

    out: Path = setting(..., "folder for tables, figures and index.html", short="-o")
    recording: Path | None = setting(
        None, "folder of brainlab record (or quant.record); shipped denoisers make theirs"
    )
    layers: str = setting("*", "wildcard over layer names, as '*attn2*'")
    sort: str = setting("absmax", "statistic to sort by; an unknown one lists all")
    samples: int = setting(8, "recorded samples to look at", ge=1, le=1024)
    steps: int = setting(
        DEFAULT_STEPS, "sampling steps; with a recording, so many of its timesteps", ge=1, le=1000
    )
    device: Device = setting("auto", "where the model runs")


class Result(contract.Result):
    """Layers sorted by a statistic, those that read different tensors, attention, and where it all lies.

    ``top`` are the first ones that read different tensors, ``also`` counting further readers.
    """

    model: str
    sort: str
    layers: list[dict[str, Any]]
    top: list[dict[str, Any]]
    attention: list[dict[str, Any]]
    rule: str
    figures: list[str]
    page: str
    out: str
    tensors: int
    part: str | None = None

    def tables(self) -> list[Table]:
        """Return the first tensors by the statistic."""
        more = ("absmax", "outlier_share", "salient_channels", "kurtosis", "rms", "axis", "drift")
        columns = ("layer", "kind", "channels", self.sort, *(c for c in more if c != self.sort), "same input")
        top = [{**row, "same input": f"+{row['also']}" if row["also"] else ""} for row in self.top]
        readers = "1 layer reads" if len(self.layers) == 1 else f"{len(self.layers)} layers read"
        return [Table(top, columns), line(f"{len(top)} of {self.tensors} tensors, which {readers}")]

    def files(self) -> dict[str, str]:
        """Return the page."""
        return {"page": self.page}

    def next_step(self) -> str:
        """Return what a recipe would do to these layers."""
        return as_command("plan", OfLayers(model=self.model, part=self.part, recipe="rtn-w4a8"))


def names(settings: Settings) -> None:
    """Refuse an unknown model; needs no torch."""
    from lab.models.opening import model_files

    model_files(settings.model, settings.part)


def run(settings: Settings, context: Context) -> Result:
    """Look at a model and write what was seen.

    ``out`` gets ``observation/`` (parquet, npz), ``figures/`` (PNG) and ``index.html``; a folder that was
    finished with the same settings is left as it is, unless a file of it was lost.

    Raises
    ------
    InputError
        Unknown model, statistic or pattern; a recording of another model.
    MissingDataError
        No weights, or no recording for a model that is not shipped.
    """
    import quant
    from lab.runs.folder import Run
    from lab.runs.older import complete
    from quant.observation import Observation, observe

    out, device, module = settings.out, *_check(settings)
    claim = settings.model_dump(mode="json", exclude={"out", "device"})
    with Run.open(out, claim, complete(Settings, {})) as run:
        # a finished folder may have lost a file since: it is made again, from what is left
        if not (run.finished and (out / PAGE).is_file() and _load(out / "observation") is not None):
            store, times = _recording(settings, device, context.progress)
            seen = _seen_before(out / "observation", store)
            if seen is None:
                try:
                    seen = observe(
                        module, store, layers=settings.layers, samples=settings.samples, timesteps=times,
                        device=device, progress=context.progress,
                    )  # fmt: skip
                except quant.InputError:  # a recording that does not fit: the folder is free again
                    run.discard()
                    raise
                seen.settings["name"] = settings.model
                seen.save(out / "observation")
            _draw(module, store, seen, out, settings.sort, run.hash, device, context.progress)
            run.finish()
        found = Observation.load(out / "observation")
        layers = found.layer_table(settings.sort)
        tensors = found.distinct(layers)
        return Result(
            model=settings.model, sort=settings.sort, layers=layers, top=tensors[:_TOP], tensors=len(tensors),
            attention=found.attention_table(), rule=found.settings["outlier_rule"],
            figures=sorted(str(p) for p in (out / "figures").glob("*.png")),
            page=str(out / PAGE), out=str(out), part=settings.part,
        )  # fmt: skip


def dry_run(settings: Settings) -> Foreseen:
    """Say which layers would be looked at."""
    from quant.observation import select_layers

    device, module = _check(settings)
    names = select_layers(module, [settings.layers])
    facts = {"would look at": f"{len(names)} layers of {settings.model}", "device": device}
    return Foreseen(facts={**facts, "out": str(settings.out)})


def _check(settings: Settings) -> tuple[str, Any]:
    """Refuse what cannot work; return the device and the model."""
    from lab.models.opening import open_model
    from lab.models.preflight import check_recording, check_run_folder, need
    from quant.observation import check_statistic, select_layers

    need("pyarrow", "matplotlib")
    check_statistic(settings.sort)
    check_run_folder(settings.out)
    check_recording(settings.model, settings.recording)
    device = choose_device(settings.device)
    module = open_model(settings.model, settings.part)
    select_layers(module, [settings.layers])
    return device, module


def _seen_before(folder: Path, store: Any) -> Any:
    """Return an observation of the same recording that a stopped run left; None if there is no whole one."""
    seen = _load(folder)
    return seen if seen is not None and seen.settings["trajectories"] == store.hash else None


def _load(folder: Path) -> Any:
    """Return an observation; None if a file of it is missing or damaged, so that it is made again."""
    from quant.errors import InputError, MissingDataError
    from quant.observation import Observation

    try:
        return Observation.load(folder)
    except (MissingDataError, InputError, OSError, ValueError, KeyError, BadZipFile):
        return None


def _recording(
    settings: Settings, device: str, progress: Progress
) -> tuple[quant.Trajectories, list[float] | None]:
    import quant

    samples, steps = settings.samples, settings.steps
    if settings.recording is None:
        from lab.zoo.recordings import zoo_recording

        # the one that other commands share where it is large enough; half of a recording is for calibration
        shared = steps == DEFAULT_STEPS and samples <= SHARED_SAMPLES
        n = 2 * (SHARED_SAMPLES if shared else max(2, samples))
        return zoo_recording(settings.model, n=n, steps=steps, device=device, progress=progress), None
    store = quant.Trajectories.open(settings.recording)
    known = store.timesteps
    count = min(steps, len(known))
    chosen = sorted({round(i * (len(known) - 1) / max(1, count - 1)) for i in range(count)})
    return store, [known[i] for i in chosen]


def _draw(
    module: Any, store: Any, seen: Any, out: Path, sort: str, config: str, device: str, progress: Progress
) -> None:
    """Write every figure as PNG and all of them, with the table, into one page."""
    from lab.figures import Provenance
    from lab.files import replacing
    from lab.report.inspection import close_ups, of_layer, overview, page, surfaces

    s = seen.settings
    looked = f"{s['samples']} samples at {len(s['timesteps'])} timesteps"
    source = Provenance(s["name"], looked, s["recording"]["seed"], config)
    shown = {"": overview(seen, source, sort)}
    why = close_ups(seen, sort, _CLOSE_UPS)
    for name, reason in why.items():
        shown[name] = of_layer(seen, name, source)
        wanted = name == next(iter(why)) or "salient" in reason
        again = _before_after(module, store, seen, name, device) if wanted else None
        if again is not None:
            few = f"{again.settings['samples']} samples at {len(again.settings['timesteps'])} timesteps"
            shown[name] |= surfaces(again, name, Provenance(s["name"], few, source.seed, config))
    # each figure is drawn for the file and for the page: once is enough
    shown = {part: {name: cache(draw) for name, draw in figures.items()} for part, figures in shown.items()}
    total, done = sum(len(figures) for figures in shown.values()) + 1, 0
    for index, figures in enumerate(shown.values()):
        for name, draw in figures.items():
            file = out / "figures" / (f"{name}.png" if not index else f"layer{index}-{name}.png")
            with replacing(file) as temporary:
                temporary.write_bytes(draw("light").png(foot=True))
            done += 1
            progress(done, total, "drawing")
    page(seen, shown, why, sort, source).save_as_html(out / PAGE)
    progress(total, total, "drawing")


def _before_after(module: Any, store: Any, seen: Any, name: str, device: str) -> Any:
    """Look at a layer again through a rotation, smoothing, and both; None where it allows neither."""
    from quant.errors import InputError
    from quant.observation import hadamard, observe

    stats, weight, times = seen.inputs[name], seen.weights[name], seen.settings["timesteps"]
    if stats.surface.shape[-1] < 2:
        return None
    try:
        steps = [hadamard(stats), seen.smoothing(name), hadamard(stats, weight)]
    except InputError:  # a grouped convolution, or a channel count without rotation
        return None
    return observe(
        module, store, layers=name, transforms={name: steps}, samples=_SURFACE_SAMPLES,
        timesteps=times[:: -(-len(times) // _SURFACE_STEPS)], attention=False, device=device,
    )  # fmt: skip
