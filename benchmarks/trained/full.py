"""Presets that train, at full budgets: ``brainlab quantize`` each, its file judged; and what training cost.

    python -m benchmarks.trained.full --device cuda --jobs 6 --out runs/full

Each recipe is quantized by the job behind ``brainlab quantize`` into ``--out/NAME`` (which goes on after a
stop), its file is loaded into a bare model, and that is judged on trajectories kept apart, as in
`benchmarks.trained.orderings`. Rows are written as they finish, to ``--publish`` as full.csv and full.md. The
last table says what low-rank factors save against training whole weights (EfficientDM's claim).
"""

from __future__ import annotations

import json
import multiprocessing
import shlex
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.files import write_csv
from benchmarks.markdown import table
from benchmarks.trained.arguments import arguments
from benchmarks.trained.judging import judge
from lab.files import write_text

FINE_TUNED = "qvgen-w4a4-branch"
KEPT = "qvgen-w4a4+policy=common+helper=kept+group=64+rank=16+rate_weight=0.0001"
COMPARED = "efficientdm-w4a4+train_steps=600+look_every=50"
LOW_RANK = tuple(f"{COMPARED}+rate_factors={rate}" for rate in (0.02, 0.005))
WHOLE = tuple(f"{recipe}+rank=0" for recipe in LOW_RANK)
"""A rate that suits factors need not suit weights: each has the better of two."""
POST_TRAINING = (
    "eda-dm-w4a8-common", "dgq-w4a6-common", "svdquant-nvfp4-common", "svdquant-w4a4-common",
    "lrq-dit-w4a4-common", "mixdq-w4a8-common", "rtn-w4a8", "rtn-w8a8",
)  # fmt: skip
"""Of each method that calibrates one preset that leaves the usual layers alone, to stand beside."""
RECIPES = {  # what takes longest first
    "binarydm-w1a4": "dit-64", "efficientdm-w4a4": "dit-64", "qvgen-w3a3": "video-dit",
    FINE_TUNED: "dit-64", f"{FINE_TUNED}+rank=32": "dit-64",
    f"{FINE_TUNED}+rank=32+train_steps=1000": "dit-64", "quest-w4a4": "dit-64",
    f"{KEPT}+train_steps=1200+unshrunk=true": "dit-64", f"{KEPT}+train_steps=1200": "dit-64",
    **dict.fromkeys((*LOW_RANK, *WHOLE), "dit-64"),
    "svdquant-gptq-w4a4": "dit-64", "svdquant-gptq-w4a4-common": "dit-64",
    "svdquant-gptq-w4a4-common+rank=48": "dit-64",
    f"{KEPT}+train_steps=0": "dit-64", "rtn-w4a4": "dit-64", **dict.fromkeys(POST_TRAINING, "dit-64"),
}  # fmt: skip


DEFAULTS = {"samples": 320, "pictures": 32, "budget": ""}
"""What rows were measured with that do not say it."""


def measured(job: Mapping[str, Any]) -> dict[str, Any]:
    """Measure a row; where it fails, the others keep theirs and the table names it."""
    try:
        return quantized(job)
    except Exception as error:
        traceback.print_exc()
        return {"recipe": job["name"], "fault": f"{type(error).__name__}: {error}".splitlines()[0]}


def quantized(job: Mapping[str, Any]) -> dict[str, Any]:
    """Quantize by the job of the command line, load the file into a bare model, judge it."""
    import torch

    import quant
    from lab import zoo
    from lab.jobs.contract import Context
    from lab.jobs.models.quantize import Settings, run
    from lab.progress import Lines

    torch.set_num_threads(1)
    out = job["out"] / "".join(c if c.isalnum() or c in "-=." else "_" for c in job["recipe"])
    settings = Settings(
        model=job["model"], recipe=job["recipe"], out=out, recording=job["recording"], device=job["device"]
    )
    lines = Lines(sys.stderr, every=30.0)
    run(settings, Context(report=lambda done, total, what: lines(done, total, f"{job['recipe']}: {what}")))
    ledger = quant.Ledger.from_json((out / "ledger.json").read_text(encoding="utf-8"))
    model = zoo.load(job["model"])
    quant.load(out, model)
    model.to(job["device"])
    store = quant.Trajectories.open(job["recording"])
    scores = judge(model, zoo.load(job["model"], job["device"]), store, job["pictures"])
    stages = [v for v in ledger.notes.values() if isinstance(v, dict) and "held_out" in v]
    return {
        "recipe": job["name"], "model": job["model"], **scores,
        **course(stages),
        "by_step": {k: v for stage in stages[-1:] for k, v in stage.get("held_out_by_step", {}).items()},
        "graphed_steps": sum(stage.get("graphed_steps", 0) for stage in stages),
        "no_graph": "; ".join(stage["no_graph"] for stage in stages if "no_graph" in stage),
        "bits_a_weight": ledger.mean_weight_bits, "file_bytes": (out / "model.safetensors").stat().st_size,
        "train_steps": ledger.cost.get("steps", 0), "train_seconds": ledger.cost.get("seconds", 0.0),
        "seconds": ledger.seconds_taken, "peak_mb": ledger.cost.get("peak_bytes", 0) / 1e6,
        "device": job["device_name"], "commit": job["commit"], "jobs": job["jobs"],
        **{key: job[key] for key in DEFAULTS},
    }  # fmt: skip


def course(stages: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Return the error before all stages and the best after them.

    Each stage begins at the best of the one before; a ledger's notes are in the order of their names.
    """
    if not stages:
        return {"held_out_first": None, "held_out": None}
    return {
        "held_out_first": max(stage["held_out_first"] for stage in stages),
        "held_out": min(stage["held_out"] for stage in stages),
    }


def differing(rows: Sequence[Mapping[str, Any]], asked: Mapping[str, Any]) -> str:
    """Say what earlier rows were made with that is not asked for now; nothing if they can stand beside."""
    for row in rows:
        for key, value in asked.items():
            if (there := row.get(key, DEFAULTS.get(key))) != value:
                return f"{row['recipe']} has {key} {there!r}, asked for is {value!r}"
    return ""


def cost(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write what factors and whole weights took to reach the error that both reach."""
    sides = [[r for r in rows if r["recipe"] in names and r["by_step"]] for names in (LOW_RANK, WHOLE)]
    if not all(sides):
        return []
    level = max(min(min(row["by_step"].values()) for row in side) for side in sides)
    lines = ["", "## Low-rank factors against whole weights, W4A4", ""]
    lines += [
        f"Cost until the error on held-out trajectories is {level:.4f}, the least that both reach, "
        "each at the better of its rates.",
        "",
    ]
    cells = []
    for row in (row for side in sides for row in side):
        there = [int(step) for step, error in row["by_step"].items() if error <= level]
        each = row["train_seconds"] / max(1, row["train_steps"])
        cells.append([
            f"`{row['recipe']}`", str(min(there)) if there else "not reached", f"{1e3 * each:.0f}",
            f"{min(there) * each:.0f}" if there else "–",
            f"{row['peak_mb']:.0f}", f"{min(row['by_step'].values()):.4f}",
        ])  # fmt: skip
    return lines + table(["recipe", "steps", "ms a step", "GPU-seconds", "peak, MB", "least error"], cells)


def markdown(rows: Sequence[Mapping[str, Any]], about: str) -> str:
    """Write a table by model, then costs."""
    lines = ["# Presets that train, at their full budgets", "", about]
    for model in dict.fromkeys(row["model"] for row in rows):
        lines += ["", f"## {model}", ""]
        mine = sorted((r for r in rows if r["model"] == model), key=lambda r: r["error"])
        lines += table(
            ["recipe", "error", "SNR of finals, dB", "held out, first and best", "bits a weight", "file, MB",
             "steps", "training, s", "all, s", "peak, MB"],
            [
                [f"`{r['recipe']}`", f"{r['error']:.4f}", f"{r['snr_db']:.2f}",
                 "–" if r["held_out"] is None else f"{r['held_out_first']:.4f}, {r['held_out']:.4f}",
                 f"{r['bits_a_weight']:.2f}", f"{r['file_bytes'] / 1e6:.2f}", str(r["train_steps"]),
                 f"{r['train_seconds']:.0f}", f"{r['seconds']:.0f}", f"{r['peak_mb']:.0f}"]
                for r in mine
            ],
        )  # fmt: skip
    return "\n".join(lines + cost(rows)) + "\n"


def write(rows: Sequence[Mapping[str, Any]], faults: Mapping[str, str], folder: Path, about: str) -> None:
    """Write what is there so far: full.jsonl, .csv and .md."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "full.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    write_csv(folder / "full.csv", [{k: v for k, v in row.items() if k != "by_step"} for row in rows])
    missing = "".join(f"\nNot measured: `{name}` ({why}).\n" for name, why in faults.items())
    commits = " and ".join(dict.fromkeys(row["commit"] for row in rows))
    write_text(folder / "full.md", markdown(rows, about.format(commits=commits)) + missing)


def read(file: Path) -> list[dict[str, Any]]:
    """Read rows of an earlier call."""
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Quantize what is not there yet, several at once."""
    from lab.compare.about import commit, hardware
    from lab.zoo.recordings import zoo_recording

    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=DEFAULTS["samples"], help="trajectories to record")
    parser.add_argument("--pictures", type=int, default=DEFAULTS["pictures"], help="trajectories to judge on")
    parser.add_argument("--recipes", default="", help="only these, by what their names hold, as 'kept,quest'")
    parser.add_argument(
        "--budget", default=DEFAULTS["budget"], help="field=value+... for every preset that trains"
    )
    given = parser.parse_args()
    words = given.recipes.split(",")
    chosen = {r: m for r, m in RECIPES.items() if any(word in r for word in words)}
    if not chosen:
        parser.error(f"--recipes {given.recipes!r} is in no recipe's name: {', '.join(RECIPES)}")
    rows = read(given.publish / "full.jsonl")
    name = hardware(given.device)
    asked = {key: getattr(given, key) for key in DEFAULTS}
    if other := differing(rows, {**asked, "device": name}):
        parser.error(f"{given.publish / 'full.jsonl'}: {other}; give another --publish, or the same settings")
    shared = {
        "device": given.device, "device_name": name, "out": given.out, "commit": commit()[:7],
        "jobs": given.jobs, **asked,
    }  # fmt: skip
    recordings = {
        m: zoo_recording(m, given.out / f"recording-{m}", n=given.samples, device=given.device).path
        for m in sorted(set(chosen.values()))
    }
    jobs = []
    for recipe, model in chosen.items():
        if recipe not in {row["recipe"] for row in rows}:
            trains = (
                not recipe.startswith(("svdquant", "rtn", *POST_TRAINING)) and "train_steps" not in recipe
            )
            full = f"{recipe}+{given.budget}" if given.budget and trains else recipe
            jobs.append({
                **shared, "name": recipe, "recipe": full, "model": model, "recording": recordings[model],
            })  # fmt: skip
    command = shlex.join(["python", "-m", "benchmarks.trained.full", *sys.argv[1:]])
    about = (
        f"`{command}` on {name}, commit {{commits}}. One seed; {given.samples} recorded trajectories, "
        f"{given.pictures} of those kept apart judge: squared error of guided predictions over their power, "
        "and final samples against the full-precision model's from the same noise. The recipes share one "
        "device, so seconds are an upper bound. All formats are simulated."
    )
    faults: dict[str, str] = {}
    with multiprocessing.get_context("spawn").Pool(min(given.jobs, max(1, len(jobs)))) as pool:
        for row in pool.imap_unordered(measured, jobs):
            if "fault" in row:
                faults[row["recipe"]] = row["fault"]
            else:
                rows.append(row)
            write(rows, faults, given.publish, about)
    if faults:
        parser.exit(1, "".join(f"{name}: {why}\n" for name, why in faults.items()))


if __name__ == "__main__":
    main()
