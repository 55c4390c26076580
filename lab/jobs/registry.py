"""Every job by the name of its command, with its title and the time that it takes. Imports nothing heavy.

::

    settings = registry.settings("quantize", {"model": "unet-64", "recipe": "rtn-w8a8"})
    result = registry.run("quantize", settings, Context())
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from lab.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from lab.jobs.contract import Context, Result, Settings


class Job(NamedTuple):
    """A job's place, title, and seconds that it takes with its defaults on two CPU cores."""

    module: str
    title: str
    seconds: float


JOBS: dict[str, Job] = {
    "doctor": Job("lab.jobs.doctor", "Show what this machine can do.", 3),
    "list": Job("lab.jobs.listing", "List methods, presets, models, kernels.", 1),
    "demo": Job("lab.jobs.demo", "Decode the shipped simulated subjects.", 240),
    "app": Job("lab.app.command", "Open the pages in a browser.", 6),
    "record": Job("lab.jobs.models.record", "Record sampling of a model of your own.", 60),
    "inspect": Job("lab.jobs.models.inspect", "Look at inputs, weights and attention.", 180),
    "whatif": Job("lab.jobs.models.whatif", "Say what rounding one layer's input would do.", 15),
    "variants": Job("lab.jobs.models.variants", "Draw the same pictures with several recipes.", 60),
    "plan": Job("lab.jobs.models.plan", "Show what quantizing would do.", 4),
    "quantize": Job("lab.jobs.models.quantize", "Quantize a model into packed codes.", 20),
    "compare": Job("lab.jobs.models.compare", "Compare recipes on one model, in one report.", 3600),
    "figures": Job("lab.jobs.models.figures", "Write a run's figures for a paper.", 4),
    "allocate": Job("lab.jobs.models.allocate", "Give bits to layers under a byte budget.", 900),
    "sensitivity": Job("lab.jobs.models.sensitivity", "Quantize one layer, or all but one, measure.", 600),
    "bench kernels": Job("lab.jobs.bench.kernels", "Time the low-bit kernels on this GPU.", 120),
    "bench shape": Job("lab.jobs.bench.shape", "Time one product's shape on this machine.", 5),
    "data list": Job("lab.jobs.data.listing", "List the datasets.", 1),
    "data info": Job("lab.jobs.data.info", "Say what a dataset is and its terms.", 1),
    "data fetch": Job("lab.jobs.data.fetch", "Download or make a dataset.", 60),
    "data check": Job("lab.jobs.data.check", "Test a folder before any long work.", 10),
    "zoo list": Job("lab.jobs.zoo.listing", "List the shipped models.", 1),
    "zoo info": Job("lab.jobs.zoo.info", "Show a model's card.", 1),
    "zoo train": Job("lab.jobs.zoo.train", "Train a shipped model again.", 36_000),
    "zoo refine": Job("lab.jobs.zoo.refine", "Train the autoencoder's decoder further.", 18_000),
    "zoo evaluate": Job("lab.jobs.zoo.evaluate", "Measure a shipped model, held out.", 600),
    "zoo stimuli": Job("lab.jobs.zoo.stimuli", "Draw pictures for simulated subjects.", 600),
    "zoo sample": Job("lab.jobs.zoo.sample", "Draw pictures with a shipped denoiser.", 15),
    "watermark embed": Job("lab.jobs.watermark.embed", "Make pictures with the marked decoder.", 6),
    "watermark verify": Job("lab.jobs.watermark.verify", "Say whether pictures carry the mark.", 6),
    "watermark report": Job("lab.jobs.watermark.report", "Attack a mark, say where it falls.", 1800),
    "watermark train": Job("lab.jobs.watermark.train", "Train a watermark's extractor and keys.", 36_000),
    "brain prepare": Job("lab.jobs.brain.prepare", "Read and check the data, look for leaks.", 10),
    "brain train": Job("lab.jobs.brain.train", "Train Brain-IT and the ridge baseline.", 200),
    "brain encode": Job("lab.jobs.brain.encode", "Predict voxels from pictures, group voxels.", 180),
    "brain reconstruct": Job("lab.jobs.brain.reconstruct", "Do it all, from data to report.", 400),
    "brain bits": Job("lab.jobs.brain.bits", "Reconstruct against bits, from one trained run.", 600),
    "brain tune": Job("lab.jobs.brain.tune", "Score strengths on left-out training trials.", 600),
    "brain adapt": Job("lab.jobs.cohort.adapt", "Adapt the shared network to a new subject.", 60),
    "brain study": Job("lab.jobs.cohort.study", "Compare shared and single networks.", 600),
    "brain decode": Job("lab.jobs.brain.decode", "Decode some trials of a run again.", 30),
    "brain evaluate": Job("lab.jobs.brain.evaluate", "Print a run's scores or compare two runs.", 1),
    "brain report": Job("lab.jobs.brain.report", "Write report.html again, or one over several.", 20),
    "brain grid": Job("lab.jobs.brain.grid", "Write a run's pictures as one PNG.", 4),
}
QUICK = 5
"""Seconds below which a job runs no model, and is not worth the wait for torch."""
LONG = 120
"""Seconds from which help and dry run of a job say how long it takes."""
GROUPS = {
    "bench": "Timings.",
    "data": "Datasets: list, describe, fetch, check.",
    "zoo": "Shipped models: list, describe, train, measure, sample.",
    "watermark": "Mark the shipped decoder's pictures, and read marks.",
    "brain": "Decode pictures from fMRI, step by step or at once.",
}


def module(name: str) -> Any:
    """Import a job's module: it has ``Settings`` and ``run``.

    Raises
    ------
    InputError
        There is none of that name.
    """
    if name not in JOBS:
        near = get_close_matches(name, JOBS, n=1)
        raise InputError(
            f"unknown job {name!r}; "
            + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(JOBS)}")
        )
    return import_module(JOBS[name].module)


def settings(
    name: str, values: Mapping[str, Any] | None = None, file: Path | None = None, sets: Iterable[str] = ()
) -> Settings:
    """Check a job's settings: defaults, then a file, then values, then ``name=value`` words.

    Raises
    ------
    InputError
        One line: the setting, its value, what is allowed.
    """
    from lab.runs.settings import resolve

    return resolve(module(name).Settings, file, values, sets)


def run(name: str, settings: Settings, context: Context) -> Result:
    """Run a job; raises what it refuses, and `lab.jobs.contract.Cancelled` where it is asked to stop.

    Whoever runs jobs goes through here: a model is stopped inside, and steps far below a job find the watcher
    of their pictures. Where a job has ``names(settings)``, what it refuses is refused in a moment: all else
    begins with libraries that take seconds to load.
    """
    context.check()
    job = module(name)
    if hasattr(job, "names"):
        job.names(settings)
    if JOBS[name].seconds < QUICK:
        return job.run(settings, context)
    from lab.jobs.stopping import stoppable
    from lab.previews import watching

    with stoppable(context), watching(context.preview):
        return job.run(settings, context)


def run_each(name: str, asked: Mapping[str, Settings], context: Context) -> dict[str, Result]:
    """Run a job once for each of several settings; results and progress have the name of each."""
    found = {}
    for which, one in asked.items():

        def report(done: int, total: int, what: str, which: str = which) -> None:
            context.report(done, total, f"{which}: {what}")

        found[which] = run(name, one, replace(context, report=report))
    return found


def dry_run(name: str, settings: Settings) -> Result:
    """Say what a job would do and refuse what cannot work; changes nothing."""
    from lab.jobs.contract import Foreseen
    from lab.models.devices import choose_device

    job = module(name)
    for place in (getattr(settings, key, None) for key in ("device", "calibrate_on")):
        if place == "cuda":  # torch is needed only to see that it is not there
            choose_device(place)
    if hasattr(job, "dry_run"):
        found = job.dry_run(settings)
        if isinstance(found, Foreseen) and JOBS[name].seconds >= LONG and "time" not in found.facts:
            found = found.model_copy(update={"facts": {**found.facts, "time": usual_time(name)}})
        return found
    if hasattr(job, "check"):
        job.check(settings)
    facts = {"would run": f"brainlab {name}", **settings.model_dump(mode="json")}
    return Foreseen(facts={**facts, "time": usual_time(name)})


def usual_time(name: str) -> str:
    """Say how long a job takes where nothing is changed."""
    from lab.progress import duration

    return f"about {duration(JOBS[name].seconds)} with its defaults on two CPU cores"
