"""Job behind ``brainlab compare``: recipes side by side on one model, in one report."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from lab.errors import InputError
from lab.jobs import contract
from lab.jobs.contract import Context, Device, Foreseen, Table, Words, line, setting
from lab.progress import duration

FAILED = 1
"""Exit code of a comparison in which a recipe could not be measured."""
_NUMBERS = ("n", "seeds", "steps", "guidance", "calibrate", "batch")
LONG = 1200
"""Seconds from which a comparison says how long it will take before it begins."""


class Settings(contract.Settings):
    """Compare recipes on one model, in one report.

    Same noise and conditions for all, intervals, gates that prove the meter. The same command goes on after
    a stop, and with more recipes it adds them.
    """

    model: str | None = setting(None, "unet-64, dit-64, or a model with a recording", argument=True)
    recipes: Words = setting(
        ("all-ptq",), "A,B,...; wildcards; PRESET+field=value; groups such as all-ptq", short="-r"
    )
    out: Path = setting(Path("runs/compare"), "folder; what is finished in it is used again", short="-o")
    n: int = setting(256, "pictures a seed", ge=4)
    seeds: int = setting(3, "seeds of noise and calibration", ge=1)
    steps: int = setting(20, "sampling steps", ge=1, le=1000)
    guidance: float = setting(2.0, "classifier-free guidance; 1 is none", ge=0)
    calibrate: int = setting(64, "samples of a shipped model's recording", ge=4)
    batch: int = setting(256, "pictures at a time", ge=1)
    recording: Path | None = setting(None, "folder that quant.record wrote")
    part: str | None = setting(None, "of a pipeline, such as unet or transformer")
    jobs: int = setting(1, "processes that share the recipes and the device", ge=1)
    claims: Path | None = setting(None, "where several processes say whose work is whose", hidden=True)
    calibrate_on: Literal["cpu", "cuda", "mixed"] | None = setting(
        None, "device that quantizes; mixed: what trains on the GPU, the rest on the CPU"
    )
    merge: tuple[Path, ...] = setting((), "put finished comparisons together", repeat=True)
    publish: Path | None = setting(None, "folder for MODEL-ptq.md, .json, .png, as committed; or FILE.md")
    gates: bool = setting(True, "run the gates that prove the meter")
    device: Device = setting("auto", "where the networks run")

    def arguments(self) -> list[str]:
        """Return what follows ``brainlab compare`` for another process: without ``--out`` and ``--jobs``."""
        words = [str(self.model), "--recipes", ",".join(self.recipes), "--n", self.n, "--seeds", self.seeds]
        words += ["--steps", self.steps, "--guidance", f"{self.guidance:g}", "--calibrate", self.calibrate]
        words += ["--batch", self.batch]
        for name in ("recording", "part", "device", "calibrate_on"):
            value = getattr(self, name)
            if value is not None and (name, value) != ("device", "auto"):
                words += [f"--{name.replace('_', '-')}", value]
        return [str(word) for word in (*words, *([] if self.gates else ["--no-gates"]))]


class Result(contract.Result):
    """Rows with intervals, the gates, and what could not be measured; ``curves`` are for figures."""

    about: dict[str, Any]
    rows: list[dict[str, Any]]
    by_seed: list[dict[str, Any]]
    gates: list[dict[str, Any]]
    failed: list[dict[str, Any]]
    curves: dict[str, Any]
    more: dict[str, Any]
    out: str

    def plain(self) -> Any:
        """Return everything but the curves."""
        return {**self.model_dump(mode="json", exclude={"curves", "more"}), **self.more}

    def tables(self) -> list[Table]:
        """Return the scores, the gates, and what failed."""
        from lab.compare.tables import cell, shown_columns

        columns = shown_columns(self.rows)
        scores = [
            {"recipe": row["recipe"], **{c[1]: cell(row, c[0], c[2], c[3]) for c in columns}}
            for row in self.rows
        ]
        words = {True: "passed", False: "FAILED"}
        gates = [{"gate": g["name"], "": words[g["passed"]], "found": g["found"]} for g in self.gates]
        failed = [line(f"not measured: {f['recipe']}, seed {f['seed']}: {f['reason']}") for f in self.failed]
        return [Table(scores), *([Table(gates)] if gates else []), *failed]

    def files(self) -> dict[str, str]:
        """Return the report and the tables."""
        return {"report": f"{self.out}/report.html", "scores": f"{self.out}/results.csv"}

    def next_step(self) -> str:
        """Return how more recipes are added."""
        return f"brainlab compare {self.about['model']} --out {self.out} --recipes MORE adds recipes"

    def exit_code(self) -> int:
        """Return 1 where a recipe could not be measured."""
        return FAILED if self.failed else 0


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
    from lab.compare.bench import PanelSettings
    from lab.jobs import compare as job

    out = settings.out
    if settings.merge:
        return _result(job.merge(settings.merge, out, settings.publish), out)
    words = settings.arguments()
    if (seconds := estimate(settings)) > LONG:
        context = _announcing(context, f"comparing takes about {duration(seconds)}; --dry-run lists what")
    if settings.jobs != 1:
        folders = job.in_processes(settings.jobs, words, out, context)
        return _result(job.merge(folders, out, settings.publish), out)
    found = job.compare(
        str(settings.model), settings.recipes, out,
        PanelSettings(**settings.model_dump(include=set(_NUMBERS))),
        device=settings.device, recording=settings.recording, part=settings.part, claims=settings.claims,
        calibrate_on=settings.calibrate_on, gates=settings.gates,
        command=shlex.join(["brainlab", "compare", *words]), publish=settings.publish,
        progress=context.progress,
    )  # fmt: skip
    return _result(found, out)


def dry_run(settings: Settings) -> Foreseen:
    """List the recipes with the time that each will take."""
    if settings.merge:
        return Foreseen(facts={"would merge": [str(folder) for folder in settings.merge]})
    rows = [
        {"recipe": r.name, "method": r.method, "calibrates": r.calibrates, "trains": r.trains,
         "time": f"about {duration(_seconds(settings, r) * settings.seeds)}"}
        for r in _recipes(settings)
    ]  # fmt: skip
    facts = {"model": settings.model, "recipes": len(rows), "time": f"about {duration(estimate(settings))}"}
    return Foreseen(facts={**facts, "would write": str(settings.out)}, rows=tuple(rows))


def estimate(settings: Settings) -> float:
    """Seconds that the comparison of a shipped denoiser takes on two CPU cores; others differ widely."""
    found = [_seconds(settings, recipe) for recipe in _recipes(settings)]
    return settings.seeds * (sum(found) + 2 * _drawing(settings)) / settings.jobs


def _recipes(settings: Settings) -> list[Any]:
    from lab.compare.recipes import expand

    if settings.model is None:
        raise InputError(
            "compare needs a model (unet-64, dit-64, a folder), or --merge with folders of comparisons"
        )
    return expand(settings.recipes, settings.model)


def _drawing(settings: Settings) -> float:
    """Seconds of sampling, scoring and single predictions for one recipe and seed."""
    passes = settings.n * settings.steps * (1 if settings.guidance == 1 else 2)
    return SECONDS_A_PASS * passes


def _seconds(settings: Settings, recipe: Any) -> float:
    calibrating = TRAINING_SECONDS if recipe.trains else CALIBRATING_SECONDS if recipe.calibrates else 1.0
    return SIMULATED_SLOWDOWN * _drawing(settings) + calibrating


SECONDS_A_PASS, SIMULATED_SLOWDOWN = 0.0035, 2.0
CALIBRATING_SECONDS, TRAINING_SECONDS = 20.0, 240.0
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


def _result(found: dict[str, Any], out: Path) -> Result:
    names = set(Result.model_fields) - {"more", "out"}
    more = {key: value for key, value in found.items() if key not in names}
    return Result(**{key: found[key] for key in names}, more=more, out=str(out))
