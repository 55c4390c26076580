"""Job behind ``brainlab compare``: recipes side by side on one model, with gates that prove the meter."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import InputError
from lab.jobs.contract import Context
from lab.models.devices import choose_device
from lab.progress import Progress, silent

if TYPE_CHECKING:
    from lab.compare.work import Calibrator

MIXED = "mixed"
FAILED = 1
"""Exit code of a comparison in which a recipe could not be measured."""


def compare(
    model: str,
    recipes: str | Sequence[str],
    out: Path,
    settings: Any = None,
    *,
    device: str = "auto",
    recording: Path | None = None,
    part: str | None = None,
    claims: Path | None = None,
    calibrate_on: str | None = None,
    gates: bool = True,
    command: str = "",
    publish: Path | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Quantize copies of a model by recipes and measure them at the same seeds and conditions.

    Finished (recipe, seed) parts lie in ``out/steps`` and are used again, also by a call with more recipes.

    Parameters
    ----------
    model : str
        Shipped denoiser, or any model with a ``recording`` of it.
    recipes : str
        ``A,B,…``, wildcards, groups (`lab.compare.recipes.groups`).
    settings : lab.compare.bench.PanelSettings
    claims : Path, optional
        Where several processes say which part is whose (`in_processes`); the report is then left to `merge`.
    calibrate_on : {"cpu", "cuda", "mixed"}, optional
        Device that quantizes, if not ``device``. Where many processes share a GPU, ``mixed`` is quickest:
        methods that train on the GPU, all others on the CPU.
    gates : bool
        Run the gates (at seed 0).
    publish : Path, optional
        Folder for ``MODEL-ptq.md``, ``.json`` and ``.png``, as committed; or the ``.md`` file's name.

    Returns
    -------
    dict
        ``about``, ``rows``, ``by_seed``, ``gates``, ``orderings``, ``neighbours``, ``curves``, ``failed``.

    Raises
    ------
    InputError
        Unknown recipe, more pictures than conditions, a folder with other settings.
    MissingDataError
        No recording of a model that is not shipped.
    """
    from lab.compare import recipes as names
    from lab.compare.about import about, exact_arithmetic
    from lab.compare.bench import PanelSettings, open_bench
    from lab.compare.claims import Claims
    from lab.compare.finish import ABOUT, finish
    from lab.compare.work import Work
    from lab.files import write_json
    from lab.models.preflight import check_run_folder
    from lab.runs.folder import Run

    settings = settings or PanelSettings()
    chosen = names.expand(recipes, model)
    where = choose_device(device)
    calibrate = calibrator(calibrate_on, where)
    exact_arithmetic(where)
    check_run_folder(out)  # before a recording is made, which takes minutes
    bench = open_bench(model, settings, where, recording, part, progress)
    config = {"model": model, "part": part, "recording": bench.recording.hash, "scored_by": bench.fingerprint}
    config |= settings.to_dict()
    with Run.open(out, config) as run:
        work = Work(bench, run, chosen, gates, progress, calibrate, Claims(claims))
        made = about(bench, command, where)
        write_json(run.path / ABOUT, made)
        failed = work.all()
        return finish(run.path, made, work.parts, work.gates, failed, publish, report=claims is None)


def calibrator(choice: str | None, device: str) -> Calibrator | None:
    """Say where each recipe is calibrated; None: on the comparison's own device.

    Raises
    ------
    InputError
        An unknown choice.
    """
    import torch

    if choice is None:
        return None
    if choice not in ("cpu", "cuda", MIXED):
        raise InputError(f"--calibrate-on {choice!r}: must be cpu, cuda or {MIXED}")
    if choice != MIXED:
        chosen = torch.device(choose_device(choice))
        return lambda recipe: chosen
    return lambda recipe: torch.device(device if recipe.trains else "cpu")


def merge(folders: Sequence[Path], out: Path, publish: Path | None = None) -> dict[str, Any]:
    """Put the parts of several comparisons with equal settings together and write the report again.

    Raises
    ------
    InputError
        The folders' settings differ.
    MissingDataError
        A folder is no comparison. One that was stopped gives the parts that it finished.
    """
    from lab.compare.finish import collect, finish
    from lab.models.preflight import check_folder

    check_folder(out)
    about, parts, gates, failed = collect(folders)
    out.mkdir(parents=True, exist_ok=True)
    return finish(out, about, parts, gates, failed, publish)


def in_processes(jobs: int, arguments: Sequence[str], out: Path, context: Context) -> list[Path]:
    """Run ``brainlab compare`` in several processes; each takes the next part that nobody has.

    Parameters
    ----------
    jobs : int
        Processes; they share one device.
    arguments : sequence of str
        What follows ``brainlab compare``, without ``--out`` and ``--jobs``.
    context : lab.jobs.contract.Context
        Cancelling ends all of them.

    Returns
    -------
    list of Path
        Their folders, ``out/process-i``; of an earlier call with more processes, these too.

    Raises
    ------
    InputError
        A process ended with an error; its own lines say which.
    """
    import subprocess
    import sys

    from lab.compare.claims import Claims, finished
    from lab.models.preflight import check_folder
    from lab.runs.lock import FolderLock

    if jobs < 1:
        raise InputError(f"--jobs is {jobs}; it must be at least 1")
    check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    with FolderLock(out):
        folders = [out / f"process-{i}" for i in range(1, jobs + 1)]
        earlier = [f for f in sorted(out.glob("process-*")) if f not in folders]
        Claims(out / "claims").begin(finished([*folders, *earlier], "--no-gates" not in arguments))
        running = []
        for folder in folders:
            words = [*arguments, "--out", str(folder), "--claims", str(out / "claims")]
            # results of one process are not shown: the merged ones are
            command = [sys.executable, "-m", "lab.cli.main", "compare", *words]
            running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        try:
            while any(process.poll() is None for process in running):
                context.check()
                time.sleep(0.1)
            codes = [process.returncode for process in running]
        except BaseException:
            for process in running:
                process.terminate()
            raise
    # an internal error exits with the code of a recipe that failed, but leaves no results
    ended = zip(codes, folders, strict=True)
    complete = [code in (0, FAILED) and (folder / "results.json").is_file() for code, folder in ended]
    bad = [f"process {i}: exit code {codes[i - 1]}" for i, fine in enumerate(complete, 1) if not fine]
    if bad:
        raise InputError(f"{'; '.join(bad)}; the same command goes on with what is missing")
    return [*folders, *earlier]
