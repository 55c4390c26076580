"""Two-bit weights on a decoder of brains: what training has to look at, on how much, and over seeds.

    python -m benchmarks.trained.low runs/seed-0 runs/seed-1 --device cuda --jobs 14 --out runs/low

The runs are what ``brain train`` wrote; each variant is a recipe that ``brainlab brain bits`` measures on
each of them. Beside its pictures stands the error of final latents on held-out trajectories, which choose
the step kept. Rows are written as they are done, to ``--publish`` as NAME.jsonl, .csv and .md; the same
command goes on from there. Over several runs of one subject, intervals are over runs and pictures, and
differences are taken picture by picture.
"""

from __future__ import annotations

import json
import math
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.files import write_csv
from benchmarks.trained.arguments import arguments
from benchmarks.trained.low_tables import markdown
from benchmarks.trained.parallel import processes
from lab.decoding.bits import FULL_PRECISION
from lab.files import write_text
from lab.jobs.brain.bits import Settings, array_name, run
from lab.jobs.contract import Context
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
VARIANTS = {
    "W4, rounded": "rtn-w4a4",
    "W2, start": f"{BASE}+train_steps=0",
    "W2, four steps": "qvgen-w2a4-branch",
    "W2, plain groups, one prediction": f"{PLAIN}+train_steps=400+look_every=100+rate_weight=0.0003",
    "W2, one prediction": f"{BEST}+unroll=0",
    "W4, four steps, rank 48": "qvgen-w4a4-branch",
    "W2, four steps, rank 32": "qvgen-w2a4-branch+rank=32+train_steps=600",
}
ALLOWED = 0.03
"""By how much two-way identification may be below full precision's: the aim."""


@dataclass(frozen=True)
class Piece:
    """Recipes that one process measures on one run, one after another: they begin from the same.

    Parameters
    ----------
    folder, out : Path
    names : dict
        Variants by their recipes.
    device : str
    origin : dict
        What every row says of where it was made.
    """

    folder: Path
    out: Path
    names: Mapping[str, str]
    device: str
    origin: Mapping[str, Any]


def shortened(recipe: str, budget: str) -> str:
    """Put a smaller budget in the place of a recipe's own; what does not train stays."""
    if not budget or not recipe.startswith("qvgen") or "train_steps=0" in recipe:
        return recipe
    return changed(recipe, budget)


def chosen(only: str) -> dict[str, str]:
    """Choose variants: a word that is a name means it alone, others all names that hold them."""
    words = only.split(";")
    return {
        name: recipe
        for name, recipe in VARIANTS.items()
        if any(word == name or (word not in VARIANTS and word in name) for word in words)
    }


def snr_db(notes: Mapping[str, Any]) -> float | None:
    """Read the error of final latents of what was trained along the way; None of what was not."""
    error = notes.get("qat", {}).get("held_out")
    return None if not error else -10 * math.log10(error)


def together(recipes: Mapping[str, str]) -> list[dict[str, str]]:
    """Put variants that begin from the same start together; those that do not train go with the first."""
    groups: dict[Any, dict[str, str]] = {}
    quick = {}
    for name, recipe in recipes.items():
        config: Any = parse(recipe).config()
        if getattr(config, "start", "") == "svdquant":
            groups.setdefault((config.weight_bits, config.rank), {})[name] = recipe
        elif parse(recipe).trains:
            groups[recipe] = {name: recipe}
        else:
            quick[name] = recipe
    if not groups:
        return [quick]
    first = next(iter(groups))
    return [{**quick, **groups.pop(first)}, *groups.values()]


def pieces(
    folders: Sequence[Path], recipes: Mapping[str, str], rows: Sequence[Mapping[str, Any]], out: Path,
    device: str, origin: Mapping[str, Any],
) -> list[Piece]:  # fmt: skip
    """List what is left to do, the first group of every run before the next of any."""
    done = {(row["run"], row["recipe"]) for row in rows}
    found = []
    for number, group in enumerate(together(recipes)):
        for folder in folders:
            left = {recipe: name for name, recipe in group.items() if (folder.name, recipe) not in done}
            if left:
                found.append(Piece(folder, out / folder.name / str(number), left, device, origin))
    return found


def measured(
    waiting: Sequence[Piece], jobs: int, minutes: float
) -> Iterator[tuple[list[dict[str, Any]], str]]:
    """Measure several pieces at once: yield rows as they are done, and faults."""
    ends = time.monotonic() + 60 * minutes
    for piece, found in processes(measure, waiting, jobs, ends):
        if isinstance(found, str):
            yield [], f"{', '.join(piece.names.values())} on {piece.folder.name}: {found}"
        else:
            yield found, ""


def measure(piece: Piece, line: Connection) -> None:
    """Measure recipes in a process of its own; send the rows of each, and what went wrong."""
    import torch

    torch.set_num_threads(1)
    solved: dict[str, Any] = {}
    try:
        for recipe in piece.names:
            settings = Settings(
                folder=piece.folder, recipes=(recipe,), out=piece.out, device=piece.device,  # type: ignore[arg-type]
                training_minutes=1e6,
            )  # fmt: skip
            run(settings, Context(solved=solved))
            line.send(_rows(settings, piece))
    except Exception as error:  # one piece's fault leaves the others their table, which names it
        line.send(f"{type(error).__name__}: {error}".splitlines()[0])


def _rows(settings: Settings, piece: Piece) -> list[dict[str, Any]]:
    """Take the rows that are asked for, and what their ledgers say of held-out trajectories."""
    result = json.loads((settings.out / "bits.json").read_text(encoding="utf-8"))
    names = {FULL_PRECISION: FULL_PRECISION, **piece.names}
    found = []
    for row in result["rows"]:
        if row["recipe"] not in (FULL_PRECISION, *settings.recipes):
            continue
        line = {
            "run": settings.folder.name, "variant": names[row["recipe"]], **row, "snr_db": None,
            "seed": result["about"]["seed"], "run_hash": result["about"]["run_hash"],
            **piece.origin, "by_picture": result["by_picture"][row["recipe"]],
        }  # fmt: skip
        if row["weight_bits"] < 32 and getattr(parse(row["recipe"]).config(), "unroll", 0):
            steps = settings.out / "steps"
            (file,) = steps.glob(f"ledger-{array_name(row['recipe'])}.*.json")
            line["snr_db"] = snr_db((StepCache(steps).load(file.stem) or {})["ledger"]["notes"])
        found.append(line)
    return found


def read(file: Path, folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Read rows of an earlier call.

    Raises
    ------
    ValueError
        A row is of another run under the same name.
    """
    from lab.decoding.trained import TrainedRun
    from lab.runs.folder import config_hash

    if not file.is_file():
        return []
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    hashes = {folder.name: config_hash(TrainedRun.open(folder).config) for folder in folders}
    for row in rows:
        if (now := hashes.get(row["run"], row["run_hash"])) != row["run_hash"]:
            raise ValueError(
                f"{file} holds rows of a run {row['run']} with settings {row['run_hash']}, the one given has "
                f"{now}; give another --name, or name the run's folder otherwise"
            )
    return rows


def added(rows: list[dict[str, Any]], found: Sequence[dict[str, Any]]) -> None:
    """Add rows that are not there yet: full precision comes with every piece."""
    known = {(row["run"], row["recipe"]) for row in rows}
    rows += [row for row in found if (row["run"], row["recipe"]) not in known]


def write(
    rows: Sequence[Mapping[str, Any]], left: Sequence[str], folder: Path, name: str, about: str
) -> None:  # fmt: skip
    """Write what is there so far."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    plain = [{k: v for k, v in row.items() if k != "by_picture"} for row in rows]
    write_csv(folder / f"{name}.csv", plain)
    commits = " and ".join(dict.fromkeys(row["commit"] for row in rows))
    write_text(folder / f"{name}.md", markdown(rows, list(VARIANTS), left, about.format(commits=commits)))


def main() -> None:
    """Measure variants on runs, and write."""
    from kernels.checkout import commit
    from lab.compare.about import hardware

    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--only", default="", help="only these: names, or what they hold, as 'start;rounded'")
    parser.add_argument("--budget", default="", help="field=value+... for every variant that trains")
    parser.add_argument("--minutes", type=float, default=1e4, help="what is not done by then is left out")
    parser.add_argument("--name", default="low", help="of the published files")
    given = parser.parse_args()
    recipes = {name: shortened(recipe, given.budget) for name, recipe in chosen(given.only).items()}
    if not recipes:
        parser.error(f"--only {given.only!r} is in no variant's name: {', '.join(VARIANTS)}")
    if len({folder.name for folder in given.runs}) < len(given.runs):
        parser.error("two runs have folders of one name, by which tables call them: rename one")
    try:
        rows = read(given.publish / f"{given.name}.jsonl", given.runs)
    except ValueError as error:
        parser.error(str(error))
    command = shlex.join(["python", "-m", "benchmarks.trained.low", *sys.argv[1:]])
    about = (
        f"`{command}` on {hardware(given.device)}, commit {{commits}}. The decoder (dit-64) of each run "
        "is quantized by every recipe on predictions of left-out training trials, and the test pictures are "
        f"decoded again. The aim is two-way by features at most {ALLOWED} below full precision's; intervals "
        "are over test pictures. Held-out trajectories are of left-out trials that nothing is trained on; "
        "they choose the step kept. All formats are simulated; recipes share one device, so seconds are an "
        "upper bound."
    )
    origin = {"device": hardware(given.device), "commit": commit()[:7]}
    waiting = pieces(given.runs, recipes, rows, given.out, given.device, origin)
    faults: list[str] = []

    def written() -> None:
        done = {(row["run"], row["recipe"]) for row in rows}
        left = [f"{n} on {f.name}" for f in given.runs for n, r in recipes.items() if (f.name, r) not in done]
        write(rows, [*left, *faults], given.publish, given.name, about)

    for found, fault in measured(waiting, given.jobs, given.minutes):
        added(rows, found)
        faults += [fault] if fault else []
        written()
    written()
    if faults:
        parser.exit(1, "\n".join(faults) + "\n")


if __name__ == "__main__":
    main()
