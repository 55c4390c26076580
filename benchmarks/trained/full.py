"""Presets that train, at full budgets: ``brainlab quantize`` each, its file judged; and what training cost.

    python -m benchmarks.trained.full --device cuda --jobs 6 --seeds 0,1,2 --out runs/full

Each recipe is quantized by the job behind ``brainlab quantize`` into a folder of ``--out`` (which goes on
after a stop), its file is loaded into a bare model, and that is judged on trajectories kept apart, as in
`benchmarks.trained.orderings`. Rows are written as they finish, to ``--publish`` as full.jsonl, .csv and .md;
those that are there are not measured again, so the same command goes on. Recipes are compared picture by
picture and seed by seed; the last table says what low-rank factors save against training whole weights.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.files import write_csv
from benchmarks.trained.arguments import arguments
from benchmarks.trained.full_tables import FINE_TUNED, LOW_RANK, START, WHOLE, markdown
from benchmarks.trained.judging import judge
from benchmarks.trained.parallel import processes
from lab.files import write_text
from quant.recipes import parse

KEPT = "qvgen-w4a4+policy=common+helper=kept+group=64+rank=16+rate_weight=0.0001"
POST_TRAINING = (
    "eda-dm-w4a8-common", "dgq-w4a6-common", "svdquant-nvfp4-common", "svdquant-w4a4-common",
    "lrq-dit-w4a4-common", "mixdq-w4a8-common", "rtn-w4a8", "rtn-w8a8",
)  # fmt: skip
"""Of each method that calibrates one preset that leaves the usual layers alone, to stand beside."""
RECIPES = {  # what takes longest first
    "binarydm-w1a4": "dit-64", "efficientdm-w4a4": "dit-64", "qvgen-w3a3": "video-dit",
    START: "dit-64", FINE_TUNED: "dit-64", f"{FINE_TUNED}+rank=32": "dit-64",
    f"{FINE_TUNED}+rank=32+train_steps=1000": "dit-64", "quest-w4a4": "dit-64",
    f"{KEPT}+train_steps=1200+unshrunk=true": "dit-64", f"{KEPT}+train_steps=1200": "dit-64",
    **dict.fromkeys((*LOW_RANK, *WHOLE), "dit-64"),
    "svdquant-gptq-w4a4": "dit-64", "svdquant-gptq-w4a4-common": "dit-64",
    f"{KEPT}+train_steps=0": "dit-64", "rtn-w4a4": "dit-64", **dict.fromkeys(POST_TRAINING, "dit-64"),
}  # fmt: skip
DEFAULTS = {"samples": 320, "pictures": 32, "budget": ""}
"""What rows were measured with that do not say it."""
LONGEST = 1e6
"""Seconds: a call is ended from outside."""
Job = Mapping[str, Any]


def measure(jobs: Sequence[Job], line: Connection) -> None:
    """Measure recipes that begin from the same start, one after another, in a process of its own."""
    import torch

    torch.set_num_threads(1)
    solved: dict[str, Any] = {}
    for job in jobs:
        line.send(measured(job, solved))


def measured(job: Job, solved: dict[str, Any]) -> dict[str, Any]:
    """Measure a row; where it fails, the others keep theirs and the table names it."""
    try:
        return quantized(job, solved)
    except Exception as error:
        traceback.print_exc()
        fault = f"{type(error).__name__}: {error}".splitlines()[0]
        return {"recipe": job["name"], "seed": job["seed"], "fault": fault}


def quantized(job: Job, solved: dict[str, Any]) -> dict[str, Any]:
    """Quantize by the job of the command line, load the file into a bare model, judge it."""
    import quant
    from lab import zoo
    from lab.jobs.contract import Context
    from lab.jobs.models.quantize import Settings, run
    from lab.progress import Lines

    name = "".join(c if c.isalnum() or c in "-=." else "_" for c in job["recipe"])
    out = job["out"] / f"seed-{job['seed']}" / name
    settings = Settings(
        model=job["model"], recipe=job["recipe"], out=out, recording=job["recording"], device=job["device"],
        seed=job["seed"],
    )  # fmt: skip
    lines = Lines(sys.stderr, every=30.0)
    which = f"{job['recipe']}, seed {job['seed']}"
    run(settings, Context(lambda done, total, what: lines(done, total, f"{which}: {what}"), solved=solved))
    ledger = quant.Ledger.from_json((out / "ledger.json").read_text(encoding="utf-8"))
    model = zoo.load(job["model"])
    quant.load(out, model)
    model.to(job["device"])
    store = quant.Trajectories.open(job["recording"])
    scores = judge(model, zoo.load(job["model"], job["device"]), store, job["pictures"])
    stages = [v for v in ledger.notes.values() if isinstance(v, dict) and "held_out" in v]
    return {
        "recipe": job["name"], "seed": job["seed"], "model": job["model"], **scores,
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


def key_of(row: Mapping[str, Any]) -> tuple[str, int]:
    """Tell rows apart by recipe and seed; rows of an earlier version are of seed 0."""
    return row["recipe"], row.get("seed", 0)


def named(words: str) -> dict[str, str]:
    """Choose recipes: a word that is a recipe's name means it alone, others all names that hold them."""
    every = words.split(",")
    return {r: m for r, m in RECIPES.items() if any(w == r or (w not in RECIPES and w in r) for w in every)}


def planned(chosen: Mapping[str, str], seeds: Sequence[int], rows: Sequence[Mapping[str, Any]],
            shared: Job, recordings: Mapping[str, Path]) -> list[list[Job]]:  # fmt: skip
    """List what is left, seed after seed; recipes that begin from the same start are one piece."""
    known = set(map(key_of, rows))
    groups: dict[Any, list[Job]] = {}
    for seed in seeds:
        for recipe, model in chosen.items():
            if (recipe, seed) in known:
                continue
            config: Any = parse(recipe).config()
            begins = getattr(config, "start", "") == "svdquant"
            key = (seed, model, config.weight_bits, config.rank) if begins else (seed, recipe)
            trains = parse(recipe).trains and "train_steps" not in recipe
            full = f"{recipe}+{shared['budget']}" if shared["budget"] and trains else recipe
            groups.setdefault(key, []).append({
                **shared, "name": recipe, "recipe": full, "model": model, "seed": seed,
                "recording": recordings[model],
            })  # fmt: skip
    return list(groups.values())


def write(rows: Sequence[Mapping[str, Any]], faults: Mapping[str, str], folder: Path, about: str) -> None:
    """Write what is there so far: full.jsonl, .csv and .md."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "full.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    plain = [{k: v for k, v in row.items() if k not in ("by_step", "by_picture")} for row in rows]
    write_csv(folder / "full.csv", plain)
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
    from kernels.checkout import commit
    from lab.compare.about import hardware
    from lab.zoo.recordings import zoo_recording

    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0", help="of calibration and training, as '0,1,2'")
    parser.add_argument("--samples", type=int, default=DEFAULTS["samples"], help="trajectories to record")
    parser.add_argument("--pictures", type=int, default=DEFAULTS["pictures"], help="trajectories to judge on")
    parser.add_argument("--recipes", default="", help="only these: names, or what they hold, as 'kept,quest'")
    parser.add_argument(
        "--budget", default=DEFAULTS["budget"], help="field=value+... for every preset that trains"
    )
    given = parser.parse_args()
    chosen = named(given.recipes)
    if not chosen:
        parser.error(f"--recipes {given.recipes!r} is in no recipe's name: {', '.join(RECIPES)}")
    if not all(word.isdigit() for word in given.seeds.split(",")):
        parser.error(f"--seeds {given.seeds!r}: whole numbers with commas between, as 0,1,2")
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
    pieces = planned(chosen, [int(seed) for seed in given.seeds.split(",")], rows, shared, recordings)
    command = shlex.join(["python", "-m", "benchmarks.trained.full", *sys.argv[1:]])
    about = (
        f"`{command}` on {name}, commit {{commits}}. {given.samples} recorded trajectories, "
        f"{given.pictures} of those kept apart judge: squared error of guided predictions over their power, "
        "and final samples against the full-precision model's from the same noise. The recipes share one "
        "device, so seconds are an upper bound. All formats are simulated."
    )
    faults: dict[str, str] = {}
    for piece, row in processes(measure, pieces, given.jobs, time.monotonic() + LONGEST):
        if isinstance(row, str):
            faults |= {f"{job['name']}, seed {job['seed']}": row for job in piece}
        elif "fault" in row:
            faults[f"{row['recipe']}, seed {row['seed']}"] = row["fault"]
        else:
            rows.append(row)
        write(rows, faults, given.publish, about)
    write(rows, faults, given.publish, about)
    if faults:
        parser.exit(1, "".join(f"{name}: {why}\n" for name, why in faults.items()))


if __name__ == "__main__":
    main()
