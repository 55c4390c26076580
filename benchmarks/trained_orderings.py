"""Do the parts of the four methods that train add up as published? Each ordering at equal steps and seeds.

    python -m benchmarks.trained_orderings dit-64 --device cuda --jobs 14 --steps 500 --out results/trained

Every row is trained from the same recording and judged on trajectories that no training and no calibration
saw: squared error of the guided prediction relative to its power, and the paired signal to noise of final
latents against the full-precision model's from the same noise, dB. Rows are written as they finish.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

COLUMNS = ("method", "row", "recipe", "seed", "error", "snr_db", "bits_a_weight", "train_steps", "seconds",
           "peak_mb", "device")  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One recipe of an ordering."""

    method: str
    name: str
    preset: str
    changes: dict[str, Any] = field(default_factory=dict)


ROWS = (
    Row("efficientdm W4A4", "1 nearest", "efficientdm-w4a4", {"train_steps": 0, "temporal": False}),
    Row("efficientdm W4A4", "2 low-rank, one rate", "efficientdm-w4a4",
        {"scale_aware": "none", "rate_factors": 1e-4, "temporal": False}),
    Row("efficientdm W4A4", "3 + scale-aware", "efficientdm-w4a4", {"temporal": False}),
    Row("efficientdm W4A4", "4 + steps by timestep", "efficientdm-w4a4"),
    Row("quest W4A4", "1 none", "quest-w4a4", {"stages": "none"}),
    Row("quest W4A4", "2 time layers", "quest-w4a4", {"stages": "time"}),
    Row("quest W4A4", "3 + sensitive layers", "quest-w4a4"),
    Row("binarydm W1A4", "0 naive, not trained", "binarydm-w1a4",
        {"train_steps": 0, "outer": 0.0, "mimicking": 0.0}),
    Row("binarydm W1A4", "1 one basis", "binarydm-w1a4", {"outer": 0.0, "mimicking": 0.0}),
    Row("binarydm W1A4", "2 two bases, greedy", "binarydm-w1a4", {"learned": False, "mimicking": 0.0}),
    Row("binarydm W1A4", "3 two bases, learned", "binarydm-w1a4", {"mimicking": 0.0}),
    Row("binarydm W1A4", "4 + mimicking", "binarydm-w1a4"),
    Row("qvgen W3A3", "1 no helper", "qvgen-w3a3", {"helper": "none"}),
    Row("qvgen W3A3", "2 dropped at once", "qvgen-w3a3", {"helper": "at-once"}),
    Row("qvgen W3A3", "3 rank decay", "qvgen-w3a3"),
    Row("after training", "rtn W4A4", "rtn-w4a4"),
    Row("after training", "svdquant-gptq W4A4", "svdquant-gptq-w4a4"),
)  # fmt: skip


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Train one row with one seed and judge it."""
    import torch

    import quant
    from lab import zoo
    from lab.zoo.recordings import zoo_scheduler
    from quant import recipes, registry
    from quant.recordings.repeat import Sampler
    from quant.training.source import Source

    torch.set_num_threads(1)
    store = quant.Trajectories.open(job["recording"])
    model = zoo.load(job["model"], job["device"])
    config: Any
    _, method, config = recipes.resolve(job["preset"])
    changes = dict(job["changes"])
    if method.info.trains:
        changes = {"train_steps": job["steps"], "look_every": max(1, job["steps"] // 2), **changes}
        # stages share the steps: every row has as many
        if method.name == "quest" and config.stages == "time+sensitive" and "stages" not in changes:
            changes["train_steps"] = job["steps"] // 2
        for rate in ("rate_weight", "rate_factors"):
            if rate in method.config.model_fields:
                changes[rate] = changes.get(rate, getattr(config, rate)) * job["rates"]
    config = registry.validate(method, {**config.model_dump(), **changes})
    ledger = quant.quantize_(model, config, trajectories=store, seed=job["seed"])
    keys = store.keys("evaluate")[: job["pictures"]]
    source = Source(store, 32, hold=False)
    pairs = [(key, step) for key in keys for step in range(0, len(store.timesteps), 3)]
    error = power = 0.0
    with torch.no_grad():
        for start in range(0, len(pairs), 32):
            batch = store.read(pairs[start : start + 32])
            found = source.predict(model, batch).float()
            with quant.enabled(model, False):
                wanted = source.predict(model, batch).float()
            error += float((found - wanted).square().sum())
            power += float(wanted.square().sum())
    finals = Sampler(store, zoo_scheduler(), store.null_condition).run(model, keys)[1].cpu()
    exact = torch.stack([store.sample(key)["final"] for key in keys])
    snr = 10 * torch.log10(exact.square().sum() / (finals - exact).square().sum())
    return {
        "method": job["method"], "row": job["name"], "recipe": job["preset"], "seed": job["seed"],
        "error": error / power, "snr_db": float(snr), "bits_a_weight": ledger.mean_weight_bits,
        "train_steps": ledger.cost.get("steps", 0), "seconds": ledger.seconds_taken,
        "peak_mb": ledger.cost.get("peak_bytes", 0) / 1e6, "device": job["device_name"],
        "notes": ledger.notes,
    }  # fmt: skip


def table(found: list[dict[str, Any]], about: str) -> str:
    """Markdown: means over seeds, and the range of the signal to noise."""
    lines = [f"# Methods that train, part by part\n\n{about}\n"]
    for method in dict.fromkeys(row.method for row in ROWS):
        mine = [f for f in found if f["method"] == method]
        if not mine:
            continue
        lines.append(f"\n## {method}\n\n| row | seeds | error | SNR of final latents, dB | bits a weight | "
                     "steps | seconds |\n| --- | --- | --- | --- | --- | --- | --- |")  # fmt: skip
        for name in sorted({f["row"] for f in mine}):
            rows = [f for f in mine if f["row"] == name]
            snr = [f["snr_db"] for f in rows]
            lines.append(
                f"| {name} | {len(rows)} | {mean(f['error'] for f in rows):.5f} | {mean(snr):.2f} "
                f"[{min(snr):.2f}, {max(snr):.2f}] | {rows[0]['bits_a_weight']:.2f} | "
                f"{rows[0]['train_steps']} | {mean(f['seconds'] for f in rows):.0f} |"
            )
    return "\n".join(lines) + "\n"


def write(found: list[dict[str, Any]], out: Path, about: str) -> None:
    """Write everything that is there so far."""
    import csv

    with (out / "trained.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(sorted(found, key=lambda f: (f["method"], f["row"], f["seed"])))
    (out / "trained.md").write_text(table(found, about), encoding="utf-8")
    notes = [{k: f[k] for k in ("method", "row", "seed", "notes")} for f in found]
    (out / "notes.json").write_text(json.dumps(notes, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Run the rows, seed after seed, several at once."""
    import torch

    from lab.zoo.recordings import zoo_recording

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=("dit-64", "unet-64"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="rows at once")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rates", type=float, default=1.0, help="times the presets' rates of weights")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--pictures", type=int, default=32, help="trajectories to judge on")
    parser.add_argument("--samples", type=int, default=256, help="trajectories to record")
    parser.add_argument("--rows", default="", help="only rows whose method or name has this text")
    parser.add_argument("--recording", type=Path, help="use this one")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    recording = given.recording
    if recording is None:
        recording = zoo_recording(given.model, n=given.samples, device=given.device).path
    name = torch.cuda.get_device_name() if given.device.startswith("cuda") else "CPU"
    shared = {"model": given.model, "device": given.device, "device_name": name, "steps": given.steps,
              "recording": str(recording), "pictures": given.pictures, "rates": given.rates}  # fmt: skip
    chosen = [row for row in ROWS if given.rows in f"{row.method} {row.name}"]
    jobs = [{**asdict(row), **shared, "seed": int(seed)} for seed in given.seeds.split(",") for row in chosen]
    about = (
        f"{given.model}, {name}, {given.steps} steps at {given.rates:g} times the presets' rates, seeds "
        f"{given.seeds}; guided predictions of "
        f"{given.pictures} trajectories kept apart. All formats are simulated."
    )
    found: list[dict[str, Any]] = []
    with multiprocessing.get_context("spawn").Pool(given.jobs, maxtasksperchild=None) as pool:
        for result in pool.imap_unordered(measure, jobs):
            found.append(result)
            write(found, given.out, about)
            judged = f"{result['error']:.5f}, {result['snr_db']:.2f} dB, {result['seconds']:.0f} s"
            which = f"{result['method']} {result['row']} seed {result['seed']}"
            print(f"{len(found)}/{len(jobs)} {which}: {judged}", flush=True)


if __name__ == "__main__":
    main()
