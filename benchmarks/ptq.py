"""Every recipe on a shipped denoiser: CSV, Markdown and chart, with claims judged and the meter's gates.

    python -m benchmarks.ptq dit-64 --device cuda --calibrate-on mixed --jobs 16 --out runs/dit-64

The comparison itself is ``brainlab compare`` in the folder ``--out``, which goes on after a stop; the results
go to ``--publish`` as MODEL-ptq.csv, .md and .png. ``--recipes`` takes what compare takes, and ``claim:ID``
for the recipes of one claim in ``orderings.yaml``; by default every preset, what claims name, and the model's
bit allocations. With ``--measured`` the same command measures nothing and publishes what the folder holds: a
run that a time limit ended needs no device to become a table.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.files import read_csv, write_csv
from benchmarks.gates import all_gates
from benchmarks.markdown import to_markdown
from benchmarks.orderings import claimed, everything, judge
from lab.compare.bench import PanelSettings
from lab.compare.results import ABOUT, conclude, pictures, rounded, stored
from lab.compare.statistics import Scores
from lab.errors import InputError, MissingDataError
from lab.files import write_text
from lab.jobs.contract import Context
from lab.jobs.models.compare import Settings, run
from lab.progress import reporting
from lab.report.compare import write_report

RESULTS = Path(__file__).parent / "results" / "ptq"
CLAIM = "claim:"


def words(recipes: str, model: str) -> str:
    """Return recipes for `compare`, with claims written out and everything where nothing is named."""
    if not recipes:
        return ",".join(everything(model))
    named = (
        claimed(model, w.removeprefix(CLAIM)) if w.startswith(CLAIM) else [w] for w in recipes.split(",")
    )
    return ",".join(dict.fromkeys(recipe for row in named for recipe in row))


def publish(result: dict[str, Any], chart: Path, folder: Path, name: str) -> None:
    """Write NAME.csv, NAME.md and, where recipes differ in size, NAME.png."""
    figure = f"{name}.png" if chart.is_file() else None
    folder.mkdir(parents=True, exist_ok=True)
    if figure:
        shutil.copyfile(chart, folder / figure)
    else:  # not the one of an earlier table under this name
        (folder / f"{name}.png").unlink(missing_ok=True)
    write_csv(folder / f"{name}.csv", result["rows"])
    write_text(folder / f"{name}.md", to_markdown(result, figure))


def measured(folder: Path, asked: Mapping[str, int]) -> dict[str, Any]:
    """Conclude from the measurements that a folder holds, and draw its report.

    Raises
    ------
    MissingDataError
        The folder holds no measurement, or does not say what it is.
    InputError
        It was made with another number of pictures, seeds or steps than asked for.
    """
    found = stored(folder)
    if not (folder / ABOUT).is_file():
        raise MissingDataError(f"{folder} has no {ABOUT}: an older comparison; run it again to go on with it")
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    for name, value in asked.items():
        if about[name] != value:
            raise InputError(f"{folder} has {name} {about[name]}, asked for is {value!r}: give the same")
    result = conclude(about, found, [])
    write_report(result, pictures(found), folder)
    return result


def gates_of(file: Path, model: str) -> list[dict[str, Any]]:
    """Read what `benchmarks.gates` wrote of a model.

    Raises
    ------
    InputError
        The file is of another model, or of none.
    """
    rows = read_csv(file)
    if models := {str(row.get("model", "no model")) for row in rows or [{}]} - {model}:
        raise InputError(
            f"{file} holds gates of {', '.join(sorted(models))}, asked for is {model}: give that model's"
        )
    return [{**row, "passed": row["passed"] == "True"} for row in rows]


def main() -> None:
    """Compare, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="dit-64 or unet-64")
    parser.add_argument("--recipes", default="")
    parser.add_argument("--n", type=int, default=256, help="pictures a seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--calibrate-on", choices=("cpu", "cuda", "mixed"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--no-gates", action="store_true")
    parser.add_argument("--gates", type=Path, help="file of benchmarks.gates, in place of running them")
    parser.add_argument("--measured", action="store_true", help="publish what --out holds, measure nothing")
    parser.add_argument("--out", type=Path, required=True, help="folder of the comparison")
    parser.add_argument("--publish", type=Path, default=RESULTS)
    parser.add_argument("--name", help="of the published files; MODEL-ptq by default")
    given = parser.parse_args()
    gates = gates_of(given.gates, given.model) if given.gates else []  # before an hour of the others
    if given.measured:
        asked = {name: getattr(given, name) for name in ("model", "n", "seeds", "steps")}
        result = measured(given.out, asked)
    else:
        result = compared(given)
    result["about"]["command"] = shlex.join(["python", "-m", "benchmarks.ptq", *sys.argv[1:]])
    result["gates"] += gates
    result["orderings"] = rounded(judge(Scores(stored(given.out)), given.model))
    chart = given.out / "figures" / "quality-bytes.png"
    publish(result, chart, given.publish, given.name or f"{given.model}-ptq")


def compared(given: argparse.Namespace) -> dict[str, Any]:
    """Run the comparison, and the gates where no file has them."""
    recipes = tuple(words(given.recipes, given.model).split(","))
    settings = Settings(
        model=given.model, recipes=recipes, out=given.out, n=given.n, seeds=given.seeds,
        steps=given.steps, device=given.device, calibrate_on=given.calibrate_on, jobs=given.jobs,
    )  # fmt: skip
    with reporting() as progress:
        result = run(settings, Context(report=progress)).model_dump()
        if not (given.no_gates or given.gates):
            panel = PanelSettings(**result["about"]["settings"])
            gates = all_gates(given.model, panel, given.device, lambda what: progress(0, 1, what))
            result["gates"] += [gate.to_dict() for gate in gates]
    return result


if __name__ == "__main__":
    main()
