"""Job behind ``brainlab compare``: recipes side by side on one model, in one report."""

from __future__ import annotations

import shlex
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lab.errors import InputError
from lab.jobs import contract
from lab.jobs.contract import Context, Device, Foreseen, Table, Words, line, setting
from lab.models.devices import choose_device
from lab.models.preflight import as_recorded, check_recording
from lab.previews import step_previews
from lab.progress import duration

FAILED = 1
"""Exit code of a comparison in which a recipe could not be measured."""
_NUMBERS = ("n", "seeds", "steps", "guidance", "calibrate", "batch")
LONG = 1200
"""Seconds from which a comparison says how long it will take before it begins."""


class Settings(contract.Settings):
    """Compare recipes on one model, in one report.

    Same noise and conditions for all, intervals, a gate that proves the meter. The same command goes on after
    a stop, and with more recipes it adds them.
    """

    model: str | None = setting(None, "shipped denoiser, or a model with a recording", argument=True)
    recipes: Words = setting(
        ("all-ptq",),
        "A,B,...; wildcards; PRESET+field=value; groups such as all-ptq; folders of brainlab quantize",
        short="-r",
    )
    out: Path = setting(Path("runs/compare"), "folder; what is finished in it is used again", short="-o")
    n: int = setting(256, "pictures per seed", ge=4)
    seeds: int = setting(3, "seeds of noise and calibration", ge=1)
    steps: int = setting(20, "sampling steps; with a recording as it was made", ge=1, le=1000)
    guidance: float | None = setting(
        None, "classifier-free guidance, 1 is none; default 2, 1 for clips, a recording's own", ge=0, le=30
    )
    calibrate: int = setting(64, "samples of a shipped model's recording", ge=4)
    batch: int = setting(256, "pictures at a time", ge=1)
    recording: Path | None = setting(
        None, "folder of brainlab record (or quant.record), for a model of your own"
    )
    part: str | None = setting(None, "component of a pipeline, such as unet or transformer")
    native: bool = setting(
        False,
        "recipes run through the GPU's low-bit kernels, not simulated; one without kernels is not measured",
    )
    jobs: int = setting(1, "processes that share the recipes and the device", ge=1)
    calibrate_on: Literal["cpu", "cuda", "mixed"] | None = setting(
        None, "device that quantizes; mixed: what trains on the GPU, the rest on the CPU"
    )
    device: Device = setting("auto", "where the networks run")

    def command(self) -> str:
        """Return the command that gives these numbers, whatever the folder and the number of processes."""
        words = ["brainlab", "compare", str(self.model), "--recipes", ",".join(self.recipes)]
        for name in (*_NUMBERS, "recording", "part", "device", "calibrate_on"):
            value = getattr(self, name)
            if value is not None and (name, value) != ("device", "auto"):
                shown = f"{value:g}" if isinstance(value, float) else str(value)
                words += [f"--{name.replace('_', '-')}", shown]
        words += ["--native"] if self.native else []
        return shlex.join(words)


class Result(contract.Result):
    """Rows with intervals, the gate, and what could not be measured; ``curves`` are for figures."""

    about: dict[str, Any]
    rows: list[dict[str, Any]]
    gates: list[dict[str, Any]]
    neighbours: list[dict[str, Any]]
    failed: list[dict[str, Any]]
    curves: dict[str, Any]
    out: str
    others: tuple[str, ...] = ()
    """Recipes that lie measured in the folder and were not asked for this time."""

    def plain(self) -> Any:
        """Return everything but the curves."""
        return self.model_dump(mode="json", exclude={"curves"})

    def tables(self) -> list[Table]:
        """Return the scores, the gate, and what failed."""
        from lab.compare.tables import cell, shown_columns

        columns = shown_columns(self.rows)
        scores = [
            {"recipe": row["recipe"], **{c[1]: cell(row, c[0], c[2], c[3]) for c in columns}}
            for row in self.rows
        ]
        words = {True: "passed", False: "FAILED"}
        gates = [{"gate": g["name"], "": words[g["passed"]], "found": g["found"]} for g in self.gates]
        failed = [line(f"not measured: {f['recipe']}, seed {f['seed']}: {f['reason']}") for f in self.failed]
        if self.others:
            names = ", ".join(self.others)
            failed.append(line(f"measured before, not asked for and so not in this report: {names}"))
        a, way = self.about, self.about.get("execution", "simulated")
        how = line(
            f"{way} arithmetic; {a['n']} pictures a seed, {a['steps']} steps, guidance "
            f"{a['guidance']:g}; each recipe beside full precision at the same noise"
        )
        return [Table(scores), how, Table(gates), *failed]

    def files(self) -> dict[str, str]:
        """Return the report and the tables."""
        return {"report": f"{self.out}/report.html", "scores": f"{self.out}/results.csv"}

    def next_step(self) -> str:
        """Return how more recipes are added."""
        words = shlex.split(self.about["command"])
        words[words.index("--recipes") + 1] += ",MORE"
        return f"{shlex.join([*words, '--out', self.out])} adds recipes"

    def exit_code(self) -> int:
        """Return 1 where a recipe could not be measured."""
        return FAILED if self.failed else 0


def names(settings: Settings) -> None:
    """Refuse unknown recipes, settings and models; needs no torch."""
    from lab.models.opening import model_files

    _recipes(settings)
    model_files(str(settings.model), settings.part)


def run(settings: Settings, context: Context) -> Result:
    """Quantize copies of a model by recipes and measure them at the same seeds and conditions.

    Finished work lies in ``out/steps`` and is used again, also by a call with more recipes.

    Raises
    ------
    InputError
        Unknown recipe, more pictures than conditions, a folder with other settings.
    MissingDataError
        No recording of a model that is not shipped.
    """
    from lab.compare import results, workers
    from lab.compare.about import about
    from lab.compare.work import Work, open_work
    from lab.files import write_json
    from lab.report.compare import write_report
    from lab.runs.folder import NOT_TAKEN, Run
    from lab.zoo.exact import exact_arithmetic

    settings = as_recorded(settings, _recording(settings))
    out, device = settings.out, choose_device(settings.device)
    if settings.calibrate_on in ("cpu", "cuda"):
        choose_device(settings.calibrate_on)
    _check(settings, device)
    if (seconds := estimate(settings) or 0) > LONG and device == "cpu":
        context = _announcing(context, f"comparing takes about {duration(seconds)}; --dry-run lists what")
    request = settings.model_dump(
        mode="json", include={"model", "recipes", "recording", "part", "calibrate_on"}
    )
    native = {"native": True} if settings.native else {}
    request |= {"settings": _numbers(settings), "device": device}
    with exact_arithmetic(device):
        bench, chosen, where = open_work(**request, progress=context.progress)
        bench.native = settings.native
        config = _known(settings) | {"recording": bench.recording.hash, "scored_by": bench.fingerprint}
        of = {"weights": bench.weights} if bench.weights else {}  # older folders do not say
        with Run.open(out, config | of, of, note=NOT_TAKEN) as run:
            described = about(bench, settings.command(), device)
            write_json(run.path / results.ABOUT, described)
            turns = workers.Turns(run.path / "turns" if settings.jobs > 1 else None)
            turns.begin()
            work = Work(bench, run, chosen, context.progress, where, turns)
            if work.left():
                run.reopen()
            if bench.decode is not None:
                bench.watch = step_previews(
                    context.preview, partial(_previewed, bench.decode), lambda: work.what, settings.steps
                )
            if settings.jobs > 1:
                count = max(0, min(settings.jobs, work.left()) - 1)  # none that would find nothing to do
                with workers.helpers(count, run.path, {**request, **native}) as others:
                    work.share()
                    while any(process.poll() is None for process in others):
                        context.check()
                        time.sleep(0.1)
            measured, failed = work.all()
            turns.end()
            result = results.conclude(described, measured, failed)
            results.write(result, run.path)
            write_report(result, results.pictures(measured), run.path)
            run.finish()
            before = work.others()
    return Result(**result, out=str(out), others=before)


def _numbers(settings: Settings) -> dict[str, Any]:
    return settings.model_dump(include=set(_NUMBERS)) | {"guidance": _guidance(settings)}


def _known(settings: Settings) -> dict[str, Any]:
    """Return what a folder's settings are before anything is opened."""
    from lab.compare.bench import PanelSettings

    native = {"native": True} if settings.native else {}
    panel = PanelSettings(**_numbers(settings)).to_dict()
    return {"model": settings.model, "part": settings.part, **panel, **native}


def _recording(settings: Settings) -> Any:
    """Open a recording that was given; None where there is none."""
    return None if settings.recording is None else check_recording(str(settings.model), settings.recording)


def _check(settings: Settings, device: str) -> None:
    """Refuse what would be found late: a recording is made first, which takes minutes."""
    from lab import zoo
    from lab.compare.bench import check_pictures
    from lab.models.preflight import check_run_folder
    from lab.runs.folder import Run
    from lab.runs.settings import read_settings

    if settings.native:
        from quant.layers.native.ways import refuse_device

        refuse_device(device)
    known, late = _known(settings), ("recording", "scored_by", "weights")
    check_run_folder(settings.out, (*known, *late))
    if (settings.out / "config.yaml").is_file():
        there = read_settings(settings.out / "config.yaml")
        Run.check(settings.out, known | {name: there[name] for name in late if name in there})
    if settings.model in zoo.DENOISERS and settings.recording is None:
        check_pictures(settings.n, settings.calibrate)


def _previewed(decode: Any, latents: Any) -> Any:
    from lab.metrics.clips import strips

    return strips(decode(latents))


def dry_run(settings: Settings) -> Foreseen:
    """List the recipes with the time that each will take; refuse what does not suit the recording."""
    from lab import zoo
    from lab.models.preflight import check_evaluation, check_sampling

    chosen = _recipes(settings)  # refuses no model
    store = check_recording(str(settings.model), settings.recording)
    settings = as_recorded(settings, store)
    _check(settings, choose_device(settings.device))
    if store is not None:
        check_sampling(store, settings.steps, _guidance(settings))
        if settings.model not in zoo.DENOISERS:
            check_evaluation(store, settings.n)
    shipped = settings.model in zoo.DENOISERS
    rows = [
        {"recipe": r.name, "method": r.method, "calibrates": r.calibrates, "trains": r.trains}
        | ({"time": f"about {duration(sum(_seconds(settings, r)) * settings.seeds)}"} if shipped else {})
        for r in chosen
    ]  # fmt: skip
    time = f"{_passes(settings):,} passes through the model for each recipe and seed, and calibration"
    if (seconds := estimate(settings)) is not None:
        time = f"about {duration(seconds)} on two CPU cores"
    sampling = f"{settings.steps} steps, guidance {_guidance(settings):g}"
    if store is not None:
        sampling += f", {store.settings['scheduler']}: as it was recorded"
    facts = {"model": settings.model, "recipes": len(rows), "sampling": sampling, "time": time}
    return Foreseen(facts={**facts, "would write": str(settings.out)}, rows=tuple(rows))


def estimate(settings: Settings) -> float | None:
    """Seconds that the comparison of a shipped denoiser takes on two CPU cores; of others nobody knows."""
    from lab import zoo

    recipes = _recipes(settings)  # refuses no model
    if settings.model not in zoo.DENOISERS:
        return None
    found = [_seconds(settings, recipe) for recipe in recipes]
    side_by_side = min(settings.jobs, CORES, settings.seeds * (len(found) + 2))
    # trainings are counted on all cores: side by side each has fewer of them
    rest = (sum(other for _, other in found) + 2 * _drawing(settings)) / side_by_side
    return settings.seeds * (rest + sum(training for training, _ in found))


def _recipes(settings: Settings) -> list[Any]:
    from lab.compare.recipes import expand

    if settings.model is None:
        raise InputError("compare needs a model (unet-64, dit-64, video-dit, a folder)")
    return expand(settings.recipes, settings.model, settings.part)


def _guidance(settings: Settings) -> float:
    from lab import zoo

    return zoo.usual_guidance(str(settings.model)) if settings.guidance is None else settings.guidance


def _passes(settings: Settings) -> int:
    """Count the passes of one picture through the model, for one recipe and seed."""
    return settings.n * settings.steps * (1 if _guidance(settings) == 1 else 2)


def _drawing(settings: Settings) -> float:
    """Seconds of sampling, scoring and single predictions for one recipe and seed."""
    from lab import zoo

    return SECONDS_A_PASS * _passes(settings) * (CLIP_OVER_PICTURE if settings.model in zoo.VIDEO else 1)


def _seconds(settings: Settings, recipe: Any) -> tuple[float, float]:
    """Seconds of training, and of everything else."""
    training = _training(settings, recipe)
    calibrating = CALIBRATING_SECONDS if recipe.calibrates else 1.0
    return training, SIMULATED_SLOWDOWN * _drawing(settings) + (0.0 if training else calibrating)


def _training(settings: Settings, recipe: Any) -> float:
    """Seconds that a recipe trains for on all cores, by its plan; 0 where it does not, or by no plan."""
    from lab import zoo

    if not recipe.trains or settings.model not in zoo.DENOISERS:
        return 0.0
    import quant

    planned = quant.plan(zoo.load(settings.model), recipe.config())
    macs = sum(line.macs or 0 for line in planned.layers)
    return planned.training.seconds(macs) / CORES if planned.training is not None else 0.0


SECONDS_A_PASS, SIMULATED_SLOWDOWN = 0.012, 1.6
CALIBRATING_SECONDS, CORES = 20.0, 2
CLIP_OVER_PICTURE = 4
"""Of shipped denoisers on two CPU cores: one picture through the model once, and a recipe's calibration."""


def _announcing(context: Context, words: str) -> Context:
    """Return a context that says something before the first report: when all checks have passed."""
    said: list[str] = []

    def report(done: int, total: int, what: str) -> None:
        if not said:
            said.append(words)
            context.report(0, 1, words)
        context.report(done, total, what)

    return replace(context, report=report)
