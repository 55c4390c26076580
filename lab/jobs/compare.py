"""Job behind ``brainlab compare``: recipes side by side on one model, with a gate that proves the meter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab.errors import InputError
from lab.progress import Progress, silent

FAILED = 1
"""Exit code of a comparison in which a recipe could not be measured."""


def compare(
    model: str,
    recipes: str,
    out: Path,
    settings: Any = None,
    *,
    device: str = "auto",
    recording: Path | None = None,
    part: str | None = None,
    jobs: int = 1,
    calibrate_on: str | None = None,
    command: str = "",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Quantize copies of a model by recipes and measure them at the same seeds and conditions.

    Finished measurements lie in ``out/steps`` and are used again, also by a call with more recipes.

    Parameters
    ----------
    model : str
        Shipped denoiser, or any model with a ``recording`` of it.
    recipes : str
        ``A,B,…``, wildcards, groups (`lab.compare.recipes.groups`).
    settings : lab.compare.bench.PanelSettings
    jobs : int
        Processes that share the recipes and the device.
    calibrate_on : {"cpu", "cuda", "mixed"}, optional
        Device that quantizes, if not ``device``. Where many processes share a GPU, ``mixed`` is quickest:
        methods that train on the GPU, all others on the CPU.

    Returns
    -------
    dict
        ``about``, ``rows``, ``gates``, ``neighbours``, ``curves``, ``failed``.

    Raises
    ------
    InputError
        Unknown recipe, more pictures than conditions, a folder with other settings.
    MissingDataError
        No recording of a model that is not shipped.
    """
    from lab.compare import results, workers
    from lab.compare.about import about
    from lab.compare.bench import PanelSettings
    from lab.compare.work import Work, open_work
    from lab.jobs.zoo import choose_device
    from lab.models.preflight import check_run_folder
    from lab.report.compare import write_report
    from lab.runs.folder import Run

    if jobs < 1:
        raise InputError(f"--jobs is {jobs}; it must be at least 1")
    if calibrate_on in ("cpu", "cuda"):
        choose_device(calibrate_on)
    settings = settings or PanelSettings()
    check_run_folder(out)  # before a recording is made, which takes minutes
    request = {
        "model": model, "recipes": recipes, "settings": settings.to_dict(), "device": choose_device(device),
        "recording": None if recording is None else str(recording), "part": part,
        "calibrate_on": calibrate_on,
    }  # fmt: skip
    bench, chosen, where = open_work(**request, progress=progress)
    config = {"model": model, "part": part, "recording": bench.recording.hash, "scored_by": bench.fingerprint}
    with Run.open(out, config | settings.to_dict()) as run:
        turns = workers.Turns(run.path / "turns" if jobs > 1 else None)
        turns.begin()
        work = Work(bench, run, chosen, progress, where, turns)
        if jobs > 1:
            with workers.helpers(jobs - 1, run.path, request):
                work.share()
        measured, failed = work.all()
        turns.end()
        result = results.conclude(about(bench, command, request["device"]), measured, failed)
        results.write(result, run.path)
        write_report(result, results.pictures(measured), run.path)
    return result
