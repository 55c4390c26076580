"""Do the pieces of the four methods that train add up as published? Each ordering at equal steps and seeds.

    python -m benchmarks.trained.orderings dit-64 --device cuda --jobs 14 --steps 300 --rates 5 --out runs/t

Every row is trained from the same recording and judged on trajectories that no training and no calibration
saw: squared error of the guided prediction relative to its power, and the paired signal to noise of final
latents against the full-precision model's from the same noise, dB. Rows are written as they finish
(``trained.jsonl``); the same command goes on after a stop, with what ``--known`` files hold besides. One
seed of all rows comes before the next seed of any, so that every claim can be judged early.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.files import write_csv
from benchmarks.markdown import table
from benchmarks.trained.judging import configured, measure
from benchmarks.trained.rows import CLAIMS, ROWS, Claim
from lab.errors import InputError
from lab.files import write_text
from lab.runs.folder import config_hash

Found = dict[str, Any]
_ASKED = ("preset", "changes", "longer", "seed", "steps", "rates", "model", "pictures", "made_from")
"""What decides a measurement, but for the code: its commit is in the row."""
UNSAID = "0f3b3c8"
"""Commit of the rows that do not say theirs."""


def key_of(job: Found) -> str:
    """Name a measurement by what was asked: the row, its seed, its steps, and what it is judged on.

    Not by the resolved config: a field that a later version adds would make every row another one.
    """
    return config_hash({name: job[name] for name in _ASKED})


def read_known(files: Sequence[Path]) -> dict[str, Found]:
    """Read finished measurements of earlier runs by key.

    Raises
    ------
    InputError
        A line is not one of `main`'s.
    """
    found = {}
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            try:
                one = json.loads(line)
                found[one["key"]] = one
            except (ValueError, KeyError, TypeError):
                raise InputError(
                    f"{file}, line {number}: not a finished row; give trained.jsonl of an earlier run"
                ) from None
    return found


def planned(shared: Found, seeds: Sequence[int], text: str = "") -> list[Found]:
    """List what is to be measured: seed after seed, in each the longest rows first."""
    rows = [row for row in ROWS if text in f"{row.method} {row.name}"]
    if not rows:
        raise InputError(f"--rows {text!r} is in no row's method or name; see benchmarks/trained/rows.py")
    jobs = [{**asdict(row), **shared, "seed": seed} for seed in seeds for row in rows]
    for job in jobs:
        job["key"] = key_of(job)
    steps = {job["key"]: getattr(configured(job), "train_steps", 0) for job in jobs}
    return sorted(jobs, key=lambda job: (job["seed"], -steps[job["key"]]))


def judged(found: Sequence[Found], claims: Sequence[Claim] = CLAIMS) -> list[Found]:
    """Judge each claim over the seeds that both rows have.

    Returns
    -------
    list of dict
        ``verdict``: held (at every seed), reversed (at every seed), mixed, or not run.
    """
    out = []
    for claim in claims:
        sign = -1 if claim.measure == "snr_db" else 1
        values = []
        for method, row in (claim.worse, claim.better):
            mine = [f for f in found if (f["method"], f["row"]) == (method, row)]
            values.append({f["seed"]: f[claim.measure] for f in mine})
        seeds = sorted(set(values[0]) & set(values[1]))
        gains = [sign * (values[0][s] - values[1][s]) for s in seeds]
        verdict = "not run" if not gains else "held" if min(gains) > 0 else "mixed"
        if gains and max(gains) < 0:
            verdict = "reversed"
        out.append({
            "method": claim.worse[0], "worse": claim.worse[1], "better": claim.better[1],
            "measure": claim.measure, "seeds": len(seeds), "verdict": verdict, "source": claim.source,
            **({"gain": mean(gains), "least": min(gains), "greatest": max(gains)} if gains else {}),
        })  # fmt: skip
    return out


def markdown(found: Sequence[Found], about: str) -> str:
    """Write rows with their means over seeds and the range of the signal to noise, then the claims."""
    commits = " and ".join(dict.fromkeys(f.get("commit", UNSAID) for f in found))
    lines = ["# Methods that train, piece by piece", "", about.format(commits=commits)]
    for method in dict.fromkeys(row.method for row in ROWS):
        mine = [f for f in found if f["method"] == method]
        if not mine:
            continue
        cells = []
        for name in sorted({f["row"] for f in mine}):
            rows = [f for f in mine if f["row"] == name]
            snr, error = ([f[k] for f in rows] for k in ("snr_db", "error"))
            cells.append([
                name, str(len(rows)), f"{mean(error):.5f} [{min(error):.5f}, {max(error):.5f}]",
                f"{mean(snr):.2f} [{min(snr):.2f}, {max(snr):.2f}]", f"{rows[0]['bits_a_weight']:.2f}",
                f"{rows[0]['bytes'] / 1e6:.2f}", str(rows[0]["train_steps"]),
                f"{mean(f['seconds'] for f in rows):.0f}", f"{mean(f['peak_mb'] for f in rows):.0f}",
            ])  # fmt: skip
        lines += ["", f"## {method}", ""]
        lines += table(
            ["row", "seeds", "error [least, greatest]", "SNR of final latents, dB", "bits a weight",
             "layers, MB", "steps", "seconds", "peak, MB"], cells,
        )  # fmt: skip
    lines += ["", "## Orderings", "", "Worse minus better, mean and range over the seeds that both have.", ""]
    lines += table(
        ["method", "worse", "better", "measure", "gain", "seeds", "verdict", "source"],
        [
            [c["method"], c["worse"], c["better"], c["measure"], _gain(c), str(c["seeds"]),
             c["verdict"] if c["verdict"] == "held" else f"**{c['verdict']}**", c["source"]]
            for c in judged(found)
        ],
    )  # fmt: skip
    return "\n".join(lines) + "\n"


def _gain(claim: Found) -> str:
    if "gain" not in claim:
        return "–"
    return f"{claim['gain']:+.4g} [{claim['least']:+.4g}, {claim['greatest']:+.4g}]"


def write(found: Sequence[Found], out: Path, about: str) -> None:
    """Write everything that is there so far: trained.jsonl, .csv and .md."""
    ordered = sorted(found, key=lambda f: (f["method"], f["row"], f["seed"]))
    write_text(out / "trained.jsonl", "".join(json.dumps(one) + "\n" for one in ordered))
    write_csv(
        out / "trained.csv",
        [{k: v for k, v in one.items() if k not in ("notes", "key", "by_picture")} for one in ordered],
    )
    write_text(out / "trained.md", markdown(ordered, about))


def main() -> None:
    """Run the rows that are not there yet, several at once."""
    import torch

    import quant
    from kernels.checkout import commit
    from lab.zoo.recordings import zoo_recording

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=("dit-64", "unet-64", "video-dit"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="rows at once")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rates", type=float, default=1.0, help="times the presets' rates of weights")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--pictures", type=int, default=32, help="trajectories to judge on")
    parser.add_argument("--samples", type=int, default=256, help="trajectories to record")
    parser.add_argument("--rows", default="", help="only rows whose method or name has this text")
    parser.add_argument("--known", type=Path, nargs="*", default=[], help="trained.jsonl of earlier runs")
    parser.add_argument("--recording", type=Path, help="use this one")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    recording = given.recording
    if recording is None:
        recording = zoo_recording(given.model, n=given.samples, device=given.device).path
    name = torch.cuda.get_device_name() if given.device.startswith("cuda") else "CPU"
    store = quant.Trajectories.open(recording)
    shared = {
        "model": given.model, "device": given.device, "device_name": name, "steps": given.steps,
        "recording": str(recording), "pictures": given.pictures, "rates": given.rates,
        "made_from": _made_from(given.model, store), "commit": commit()[:7],
    }  # fmt: skip
    jobs = planned(shared, [int(seed) for seed in given.seeds.split(",")], given.rows)
    before = given.out / "trained.jsonl"
    known = read_known([*given.known, *([before] if before.is_file() else [])])
    command = shlex.join(["python", "-m", "benchmarks.trained.orderings", *sys.argv[1:]])
    about = (
        f"`{command}` on {name}, commit {{commits}}. {given.model} (weights and recording "
        f"{shared['made_from']}), {given.steps} steps at {given.rates:g} times the presets' rates, seeds "
        f"{given.seeds}; guided predictions of {given.pictures} trajectories kept apart. Rows share a "
        "device, so seconds are an upper bound. All formats are simulated."
    )
    found = [known[job["key"]] for job in jobs if job["key"] in known]
    left = [job for job in jobs if job["key"] not in known]
    write(found, given.out, about)
    with multiprocessing.get_context("spawn").Pool(min(given.jobs, max(1, len(left)))) as pool:
        for result in pool.imap_unordered(_keyed, left):
            found.append(result)
            write(found, given.out, about)
            score = f"{result['error']:.5f}, {result['snr_db']:.2f} dB, {result['seconds']:.0f} s"
            which = f"{result['method']} {result['row']} seed {result['seed']}"
            print(f"{len(found)}/{len(jobs)} {which}: {score}", flush=True)


def _made_from(model: str, store: Any) -> str:
    """Hash of weights, stimuli and the recording's settings; its bytes differ in the last digit by device."""
    from lab.zoo.recordings import fingerprint

    return fingerprint(model, {k: store.settings[k] for k in ("n_samples", "n_steps", "guidance", "seed")})


def _keyed(job: Found) -> Found:
    return {**measure(job), "key": job["key"], "commit": job["commit"]}


if __name__ == "__main__":
    main()
