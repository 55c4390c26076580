"""Two-bit weights on a decoder of brains: what training has to look at, and on how much.

    python -m benchmarks.trained.low runs/simulated --device cuda --jobs 14 --minutes 5.5 --out runs/low

The runs are what ``brain train`` wrote; each variant is a recipe that ``brainlab brain bits`` measures on
each of them. Beside its pictures stands the error of final latents on held-out trajectories, which choose
the step kept. Tables go to ``--publish`` as low.csv and low.md.
"""

from __future__ import annotations

import json
import math
import shlex
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.files import write_csv
from benchmarks.markdown import table
from benchmarks.trained.arguments import arguments
from benchmarks.trained.parallel import measure, processes
from lab.decoding.bits import FULL_PRECISION
from lab.files import replacing, write_text
from lab.jobs.brain.bits import Settings, array_name, run
from lab.jobs.contract import Context
from lab.runs.folder import config_hash
from lab.runs.steps import StepCache
from quant.recipes import parse


def changed(recipe: str, changes: str) -> str:
    """Put fields in the place of a recipe's own, or beside them."""
    name, *words = f"{recipe}+{changes}".split("+")
    fields = dict(word.split("=", 1) for word in words)
    return "+".join([name, *(f"{field}={value}" for field, value in fields.items())])


BASE = "qvgen-w4a4-branch+weight_bits=2+rank=16"
BEST = f"{BASE}+masters=weights+rate_weight=0.0001"
PLAIN = "qvgen-w4a4+policy=common+helper=kept+group=64+rank=16+unshrunk=true+weight_bits=2"
VARIANTS = {  # the first is alone, the others begin from the last: what takes longest
    "W2, start": f"{BASE}+train_steps=0",
    "W4, rounded": "rtn-w4a4",
    "W2, plain groups, one prediction": f"{PLAIN}+train_steps=400+look_every=100+rate_weight=0.0003",
    "W2, one prediction": f"{BEST}+unroll=0",
    "W4, four steps, rank 48": "qvgen-w4a4-branch",
    "W2, four steps": "qvgen-w2a4-branch",
    "W2, four steps, detail": "qvgen-w2a4-branch+detail=4",
    "W2, four steps, detail, rank 32": "qvgen-w2a4-branch+rank=32+detail=4+train_steps=600",
}
SCORES = (
    ("two_way_feature", "two-way, features", 3), ("two_way_feature_minus_fp", "less full precision's", 3),
    ("two_way_pix", "two-way, pixels", 3), ("paired_psnr_to_fp", "PSNR to full precision, dB", 1),
)  # fmt: skip
ALLOWED = 0.03
"""By how much two-way identification may be below full precision's: the aim."""


def shortened(recipe: str, budget: str) -> str:
    """Put a smaller budget in the place of a recipe's own; what does not train stays."""
    if not budget or not recipe.startswith("qvgen") or "train_steps=0" in recipe:
        return recipe
    return changed(recipe, budget)


def chosen(only: str) -> dict[str, str]:
    """Variants by what their names hold: all without a word."""
    words = only.split(";")
    return {name: recipe for name, recipe in VARIANTS.items() if any(word in name for word in words)}


def snr_db(notes: Mapping[str, Any]) -> float | None:
    """Read the error of final latents of what was trained along the way; None of what was not."""
    error = notes.get("qat", {}).get("held_out")
    return None if not error else -10 * math.log10(error)


def measured(
    folder: Path, recipes: Mapping[str, str], out: Path, device: str, jobs: int, minutes: float
) -> Iterator[tuple[list[dict[str, Any]], str]]:
    """Measure recipes on one run, several at once: yield rows as they are done, and faults."""
    where: Any = device
    whole = Settings(
        folder=folder, recipes=tuple(recipes.values()), out=out / folder.name, device=where,
        training_minutes=1e6,
    )  # fmt: skip
    ends = time.monotonic() + 60 * minutes
    names = {FULL_PRECISION: FULL_PRECISION} | {recipe: name for name, recipe in recipes.items()}
    first, *others = whole.recipes
    one = whole.model_copy(update={"recipes": (first,)})
    solved_once(out / "starts")
    yield _rows(one, run(one, Context()).rows, names), ""
    waiting = []
    for recipe in reversed(others):
        path = whole.out.with_name(f"{whole.out.name}.recipes") / array_name(recipe)
        if not path.exists():
            shutil.copytree(whole.out, path, ignore=shutil.ignore_patterns(".lock", "*.html"))
        waiting.append(whole.model_copy(update={"recipes": (recipe,), "out": path}))
    for one, fault in processes(_measure, waiting, jobs, ends):
        if fault:
            yield [], f"{names[one.recipes[0]]} on {folder.name}: {fault}"
        else:
            rows = json.loads((one.out / "bits.json").read_text(encoding="utf-8"))["rows"]
            yield [row for row in _rows(one, rows, names) if row["recipe"] in one.recipes], ""


def _rows(
    settings: Settings, rows: Sequence[Mapping[str, Any]], names: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Name the rows that are asked for, and find what their ledgers say of held-out trajectories."""
    found = []
    for row in rows:
        if row["recipe"] not in names:
            continue
        line = {"run": settings.folder.name, "variant": names[row["recipe"]], **row, "snr_db": None}
        unrolled = getattr(parse(row["recipe"]).config(), "unroll", 0) if row["weight_bits"] < 32 else 0
        if unrolled:
            steps = settings.out / "steps"
            (file,) = steps.glob(f"ledger-{array_name(row['recipe'])}.*.json")
            line["snr_db"] = snr_db((StepCache(steps).load(file.stem) or {})["ledger"]["notes"])
        found.append(line)
    return found


def _measure(settings: Settings, line: Connection) -> None:
    solved_once(settings.out.parents[1] / "starts")
    measure(settings, line)


def solved_once(folder: Path) -> None:
    """Let processes that begin at the same start solve it once: the later ones read what the first found."""
    import torch

    from lab.runs.lock import FolderLock
    from quant.methods.qvgen import core
    from quant.methods.qvgen.started import as_svdquant, solve

    def cached(model: Any, plan: Any, config: Any, context: Any) -> Any:
        mark = config_hash({"start": as_svdquant(config).model_dump(mode="json"), "seed": context.seed,
                            "recording": context.recording.hash})  # fmt: skip
        file = folder / mark / "start.pt"
        file.parent.mkdir(parents=True, exist_ok=True)
        with FolderLock(file.parent, wait=True):
            if file.is_file():
                return torch.load(file, weights_only=False)
            found = solve(model, plan, config, context)
            with replacing(file) as temporary:  # a process that is out of time is killed
                torch.save(found, temporary)
        return found

    core.__dict__["solve"] = cached


def markdown(rows: Sequence[Mapping[str, Any]], left: Sequence[str], about: str) -> str:
    """Write a table for each run, in the order of `VARIANTS`, and one of means over runs."""
    runs = list(dict.fromkeys(row["run"] for row in rows))
    lines = ["# Two-bit weights on a decoder of brains", "", about]
    heads = [
        "variant", *(head for _, head, _ in SCORES), "SNR of finals, dB", "bits a weight, true", "MB",
        "steps", "training, s", "recipe",
    ]  # fmt: skip
    for person in runs:
        mine = [row for row in rows if row["run"] == person]
        order = [r for name in ("full precision", *VARIANTS) for r in mine if r["variant"] == name]
        lines += ["", f"## {person} (simulated subject)", "", *table(heads, [_cells(row) for row in order])]
    if len(runs) > 1:
        cells = [cell for name in VARIANTS if (cell := _mean(name, rows, len(runs)))]
        heads = ["variant", *(head for _, head, _ in SCORES), "least and most below full precision's"]
        lines += ["", f"## Means of {len(runs)} runs", "", *table(heads, cells)]
    lines += [f"\nNot measured: {name}." for name in left]
    return "\n".join(lines) + "\n"


def _cells(row: Mapping[str, Any]) -> list[str]:
    out = [row["variant"]]
    for name, _, digits in SCORES:
        value, low, high = (row.get(key) for key in (name, f"{name}_low", f"{name}_high"))
        shown = "–" if value is None else f"{value:.{digits}f}"
        out.append(shown if low is None or high is None else f"{shown} [{low:.{digits}f}, {high:.{digits}f}]")
    trained = row["train_steps"]
    return [
        *out, "–" if row["snr_db"] is None else f"{row['snr_db']:.2f}", f"{row['weight_bits']:.2f}",
        f"{row['bytes'] / 1e6:.2f}", str(trained or "–"), f"{row['train_seconds']:.0f}" if trained else "–",
        f"`{row['recipe']}`",
    ]  # fmt: skip


def _mean(name: str, rows: Iterable[Mapping[str, Any]], count: int) -> list[str] | None:
    found = [row for row in rows if row["variant"] == name]
    if len(found) < count:
        return None
    means = [f"{sum(row[score] for row in found) / count:.{digits}f}" for score, _, digits in SCORES]
    below = [-row["two_way_feature_minus_fp"] for row in found]
    return [name, *means, f"{min(below):.3f}, {max(below):.3f}"]


def main() -> None:
    """Measure variants on runs, and write."""
    from lab.compare.about import commit, hardware

    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--only", default="", help="variants by what their names hold: 'detail;start'")
    parser.add_argument("--budget", default="", help="field=value+... for every variant that trains")
    parser.add_argument(
        "--minutes", type=float, default=1e4, help="for each run; what is not done is left out"
    )
    given = parser.parse_args()
    recipes = {name: shortened(recipe, given.budget) for name, recipe in chosen(given.only).items()}
    if not recipes:
        parser.error(f"--only {given.only!r} is in no variant's name: {', '.join(VARIANTS)}")
    command = shlex.join(["python", "-m", "benchmarks.trained.low", *sys.argv[1:]])
    about = (
        f"`{command}` on {hardware(given.device)}, commit {commit()[:7]}. The decoder (dit-64) of each run "
        "is quantized by every recipe on predictions of left-out training trials, and the test pictures are "
        f"decoded again. The aim is two-way by features at most {ALLOWED} below full precision's; intervals "
        "are over test pictures. Held-out trajectories are of left-out trials that nothing is trained on; "
        "they choose the step kept. All formats are simulated; recipes share one device, so seconds are an "
        "upper bound."
    )
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    given.publish.mkdir(parents=True, exist_ok=True)
    # of this call alone: another one may be of other code, and such files run what they hold
    shutil.rmtree(given.out / "starts", ignore_errors=True)
    for folder in given.runs:
        for found, fault in measured(folder, recipes, given.out, given.device, given.jobs, given.minutes):
            rows += found
            faults += [fault] if fault else []
            done = {(row["run"], row["variant"]) for row in rows}
            left = [
                f"{name} on {f.name}" for f in given.runs for name in recipes if (f.name, name) not in done
            ]
            write_csv(given.publish / "low.csv", rows)
            write_text(given.publish / "low.md", markdown(rows, [*left, *faults], about))
    if faults:
        parser.exit(1, "\n".join(faults) + "\n")


if __name__ == "__main__":
    main()
