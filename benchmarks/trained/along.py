"""What fine-tuning at W4A4 should look at: one prediction, or where several sampler steps lead.

    python -m benchmarks.trained.along --device cuda --jobs 7 --out runs/along

Variants start from what SVDQuant makes with error feedback and are compared on the held-out trajectories of
the recording: neither trained on nor judged on by `benchmarks.trained.full`, so a recipe may be chosen here.
They also choose which step of a training is kept, so what a variant gains here is no measure of it elsewhere.
Rows are written as they finish, to ``--publish`` as along.csv and along.md.
"""

from __future__ import annotations

import multiprocessing
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.files import write_csv
from benchmarks.markdown import table
from benchmarks.trained.arguments import arguments
from lab.files import write_text

MODEL = "dit-64"
START = "qvgen-w4a4+policy=common+helper=kept+start=svdquant+group=64"
LONG = "train_steps=300+look_every=100+train_rows=32"
ROWS = 32
"""Inputs of one forward."""
VARIANTS = {
    "start, rank 32": "rank=32+train_steps=0",
    "one prediction, teacher's states": f"rank=32+{LONG}+unroll=0+rate_weight=0.00003",
    "one step, own states": f"rank=32+{LONG}+unroll=1+rate_weight=0.00003",
    "four steps, own states": f"rank=32+{LONG}+unroll=4+rate_weight=0.00003",
    "four steps, slower": f"rank=32+{LONG}+unroll=4+rate_weight=0.00001+rate_scale=0.0003",
    "four steps, faster": f"rank=32+{LONG}+unroll=4+rate_weight=0.0001",
    "four steps, branches alone": f"rank=32+{LONG}+unroll=4+rate_weight=0.0001+tuned=branch",
    "start, rank 16": "rank=16+train_steps=0",
    "four steps, rank 16": f"rank=16+{LONG}+unroll=4+rate_weight=0.00003",
}


def shortened(changes: str, budget: str) -> str:
    """Put a smaller budget in the place of a variant's own; what does not train stays."""
    if not budget or "train_steps=0" in changes:
        return changes
    fields = dict(word.split("=", 1) for word in f"{changes}+{budget}".split("+"))
    return "+".join(f"{name}={value}" for name, value in fields.items())


def measured(job: Mapping[str, Any]) -> dict[str, Any]:
    """Quantize, and compare with full precision on what is held out."""
    import torch

    import quant
    from lab import zoo
    from lab.zoo.recordings import zoo_scheduler
    from quant.recordings.repeat import Sampler
    from quant.training.source import Source

    torch.set_num_threads(1)
    store = quant.Trajectories.open(job["recording"])
    model, teacher = (zoo.load(MODEL, job["device"]) for _ in range(2))
    ledger = quant.quantize_(model, job["recipe"], trajectories=store, seed=0)
    source = Source(store, ROWS)
    finals = Sampler(store, zoo_scheduler(), store.null_condition).run(model, source.held)[1].cpu()
    exact = torch.stack([store.sample(key)["final"] for key in source.held])
    error = power = 0.0
    with torch.no_grad():
        for batch in source.spread(4 * ROWS, held=True):
            found, wanted = (source.predict(m, batch).float() for m in (model, teacher))
            error += float((found - wanted).square().sum())
            power += float(wanted.square().sum())
    return {
        "variant": job["variant"], "recipe": job["recipe"],
        "snr_db": float(10 * torch.log10(exact.square().sum() / (finals - exact).square().sum())),
        "error": error / power, "layers_mb": sum(layer.bytes_after for layer in ledger.layers) / 1e6,
        "train_steps": ledger.cost.get("steps", 0), "train_seconds": ledger.cost.get("seconds", 0.0),
        "device": job["device_name"], "commit": job["commit"],
    }  # fmt: skip


def markdown(rows: Sequence[Mapping[str, Any]], about: str) -> str:
    """Write the table, in the order of `VARIANTS`."""
    order = [row for name in VARIANTS for row in rows if row["variant"] == name]
    cells = [
        [row["variant"], f"{row['snr_db']:.2f}", f"{row['error']:.4f}", f"{row['layers_mb']:.2f}",
         str(row["train_steps"]), f"{row['train_seconds']:.0f}", f"`{row['recipe'].removeprefix(START)}`"]
        for row in order
    ]  # fmt: skip
    heads = ["variant", "SNR of finals, dB", "error a step", "layers, MB", "steps", "training, s", "recipe"]
    lines = ["# Fine-tuning at W4A4: what the loss looks at", "", about, "", *table(heads, cells)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure all variants, several at once."""
    from kernels.checkout import commit
    from lab.compare.about import hardware
    from lab.zoo.recordings import zoo_recording

    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=320, help="trajectories to record")
    parser.add_argument("--budget", default="", help="field=value+... for every variant that trains")
    given = parser.parse_args()
    name = hardware(given.device)
    shared = {"device": given.device, "device_name": name, "commit": commit()[:7]}
    recording = zoo_recording(MODEL, given.out / "recording", n=given.samples, device=given.device).path
    jobs = []
    for variant, changes in VARIANTS.items():
        recipe = f"{START}+{shortened(changes, given.budget)}"
        jobs.append({**shared, "variant": variant, "recipe": recipe, "recording": recording})
    command = shlex.join(["python", "-m", "benchmarks.trained.along", *sys.argv[1:]])
    about = (
        f"`{command}` on {name}, commit {shared['commit']}. {MODEL}, one seed, {given.samples} recorded "
        f"trajectories; judged on those held out from training, which also choose the step kept. "
        f"Recipes after `{START}`. All formats are "
        "simulated; the variants share one device, so seconds are an upper bound."
    )
    rows = []
    with multiprocessing.get_context("spawn").Pool(min(given.jobs, len(jobs))) as pool:
        for row in pool.imap_unordered(measured, jobs):
            rows.append(row)
            given.publish.mkdir(parents=True, exist_ok=True)
            write_csv(given.publish / "along.csv", rows)
            write_text(given.publish / "along.md", markdown(rows, about))


if __name__ == "__main__":
    main()
