"""Job behind ``brainlab inspect``: look at a denoiser on recorded sampling, write tables, figures, a page."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

from lab.progress import Progress, silent

if TYPE_CHECKING:
    import quant

DEFAULT_STEPS = 20
PAGE = "index.html"
SHARED_SAMPLES = 32
"""Calibration samples of the recording that other commands use as well."""
_CLOSE_UPS = 2  # layers with figures of their own
_TOP = 12
_SURFACE_SAMPLES, _SURFACE_STEPS = 4, 5


def inspect(
    model: str,
    out: Path,
    *,
    recording: Path | None = None,
    layers: str = "*",
    sort: str = "absmax",
    samples: int = 8,
    steps: int = DEFAULT_STEPS,
    part: str | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Look at a model and write what was seen.

    Parameters
    ----------
    model : str
        Shipped denoiser, diffusers folder, or hub name.
    out : Path
        Gets ``observation/`` (parquet, npz), ``figures/`` (PNG) and ``index.html``; a folder that was
        finished with the same settings is left as it is, unless a file of it was lost.
    recording : Path, optional
        Made by `quant.record` with this model; a shipped denoiser records itself.
    layers : str
        Wildcard over layer names.
    sort : str
        A name of `quant.observation.STATISTICS`; the first layers by it get figures of their own.
    samples : int
        Looked at; a shipped denoiser's recording is made large enough.
    steps : int
        Of the sampler; with ``recording``, so many of its timesteps, evenly spread.
    part : str, optional
        Part of a pipeline.
    device : {"auto", "cpu", "cuda"}

    Returns
    -------
    dict
        ``model``, ``sort``, ``layers`` (rows, sorted), ``top`` (the first ones that read different tensors,
        ``also`` counting further readers), ``attention`` (rows), ``rule``, ``figures`` (paths), ``page``,
        ``out``.

    Raises
    ------
    InputError
        Unknown model, statistic or pattern; numbers out of bounds; a recording of another model.
    MissingDataError
        No weights, or no recording for a model that is not shipped.
    """
    from lab.jobs.zoo import choose_device
    from lab.models.opening import open_model
    from lab.models.preflight import check_recording, check_run_folder
    from lab.runs.folder import Run
    from quant.observation import Observation, check_statistic, observe, select_layers

    check_statistic(sort)
    _check_numbers(samples, steps)
    check_run_folder(out)
    check_recording(model, recording)
    device = choose_device(device)
    module = open_model(model, part)
    select_layers(module, [layers])
    settings = {
        "model": model, "part": part, "layers": layers, "sort": sort, "samples": samples, "steps": steps,
        "recording": None if recording is None else str(recording),
    }  # fmt: skip
    with Run.open(out, settings) as run:
        # a finished folder may have lost a file since: it is made again, from what is left
        if not (run.finished and (out / PAGE).is_file() and _load(out / "observation") is not None):
            store, times = _recording(model, recording, samples, steps, device, progress)
            seen = _seen_before(out / "observation", store)
            if seen is None:
                seen = observe(
                    module, store, layers=layers, samples=samples, timesteps=times, device=device,
                    progress=progress,
                )  # fmt: skip
                seen.settings["name"] = model
                seen.save(out / "observation")
            _draw(module, store, seen, out, sort, run.hash, device, progress)
            run.finish()
        found = Observation.load(out / "observation")
        return {
            "model": model, "sort": sort, "layers": found.layer_table(sort),
            "top": found.distinct(found.layer_table(sort))[:_TOP],
            "attention": found.attention_table(), "rule": found.settings["outlier_rule"],
            "figures": sorted(str(p) for p in (out / "figures").glob("*.png")),
            "page": str(out / PAGE), "out": str(out),
        }  # fmt: skip


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


def _check_numbers(samples: int, steps: int) -> None:
    from lab.errors import InputError

    for name, value, low, high in (("--samples", samples, 1, 1024), ("--steps", steps, 1, 1000)):
        if not low <= value <= high:
            raise InputError(f"{name} {value}: must be {low} to {high}")


def _recording(
    model: str, folder: Path | None, samples: int, steps: int, device: str, progress: Progress
) -> tuple[quant.Trajectories, list[float] | None]:
    import quant

    if folder is None:
        from lab.zoo.recordings import zoo_recording

        # the one that other commands share where it is large enough; half of a recording is for calibration
        shared = steps == DEFAULT_STEPS and samples <= SHARED_SAMPLES
        n = 2 * (SHARED_SAMPLES if shared else max(2, samples))
        return zoo_recording(model, n=n, steps=steps, device=device, progress=progress), None
    store = quant.Trajectories.open(folder)
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
