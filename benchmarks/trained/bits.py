"""Reconstruction against bits, from 16 down to 1: the best method at each width, after training and trained.

    python -m benchmarks.trained.bits runs/d69 runs/simulated --device cuda --steps 400 --out runs/bits

The runs are what ``brain reconstruct`` or ``brain train`` wrote; each is measured by ``brainlab brain
bits`` in ``--out/NAME``, which goes on after a stop. Results go to ``--publish`` as NAME.csv, NAME.webp
(pictures), NAME.png (quality over bits) and bits.md, which has a section for every NAME.csv there. With
``--measured`` the same command measures nothing and writes tables and charts of what the CSV files hold.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.files import read_csv, write_csv
from benchmarks.markdown import table
from benchmarks.trained.bits_figure import over_bits
from benchmarks.trained.parallel import side_by_side
from kernels.checkout import commit
from lab.compare.about import hardware
from lab.decoding.bits import COLUMNS as MEASURED
from lab.decoding.bits import FULL_PRECISION, MEAN, OTHER_NOISE, RIDGE
from lab.files import replacing, write_text
from lab.images import write_picture
from lab.jobs.brain.bits import Result, Settings, run
from lab.jobs.contract import Context
from lab.progress import reporting
from lab.report.compare_pictures import grid

RESULTS = Path(__file__).parents[1] / "results" / "bits"
SHOWN, SCALE = 10, 2
"""Test pictures of the figure, the first ones, and how much larger they are drawn."""
POST_TRAINING = {
    8: ("rtn-w8a8", "svdquant-w8a8"),
    6: ("rtn-w6a6",),
    4: ("svdquant-gptq-w4a4", "svdquant-nvfp4", "rtn-w4a4"),
    3: ("lrq-dit-w3a4-common", "rtn-w3a4"),
}
KEPT = "qvgen-w4a4+policy=common+helper=kept+group=64+rank=16+unshrunk=true"
"""With a 16-bit branch that stays: its true bits are far above the nominal ones, as SVDQuant's are."""
TRAINED = {
    4: (KEPT, "qvgen-w4a4+policy=common", "efficientdm-w4a4", "quest-w4a4"),
    3: (f"{KEPT}+weight_bits=3", "qvgen-w3a3+policy=common", "qvgen-w3a3+policy=common+activation_bits=4"),
    2: (
        f"{KEPT}+weight_bits=2",
        "efficientdm-w2a8",
        "qvgen-w4a4+policy=common+weight_bits=2+activation_bits=8",
        "qvgen-w4a4+policy=common+weight_bits=2",
    ),
    1: ("binarydm-w1a8", "binarydm-w1a4", "binarydm-w1a4-small"),
}
RATES = {
    KEPT: "+rate_weight=0.0001",
    "efficientdm": "+rate_factors=0.02", "quest": "+rate_weight=0.0005",
}  # fmt: skip
"""Of recipes that do not take ``--rate``. Methods: five times the presets', for a tenth of their steps, as
in `benchmarks.trained.orderings`. 4-bit weights beside a branch start near the goal: a third is enough."""
CHOSEN_BY = "paired_psnr_to_fp"
"""Least noisy: pictures from the same fMRI and noise."""
COLUMNS = (
    ("weight_bits", "bits a weight, true", 2), ("activation_bits", "of an input", 1),
    ("pixcorr", "PixCorr", 3),
    ("ssim", "SSIM", 3), ("two_way_pix", "two-way, pixels", 3), ("two_way_feature", "two-way, features", 3),
    ("paired_psnr_to_fp", "PSNR to full precision, dB", 1),
)  # fmt: skip


def recipes(steps: int, rate: float) -> dict[int, dict[str, str]]:
    """Recipes by their nominal width: what they are called in tables, and in full."""
    shared = f"+train_steps={steps}+look_every={max(1, steps // 4)}"
    given = f"+rate_weight={rate:g}"
    rates = {"qvgen": given, "binarydm": given, **RATES}
    found: dict[int, dict[str, str]] = {}
    for width in (8, 6, 4, 3, 2, 1):
        found[width] = {name: name for name in POST_TRAINING.get(width, ())}
        for name in TRAINED.get(width, ()):
            found[width][name] = name + shared + (rates.get(name) or rates[name.split("-")[0]])
    return found


def best(rows: Sequence[Mapping[str, Any]], known: Mapping[int, Mapping[str, str]]) -> dict[int, str]:
    """Name the recipe of each width whose pictures are nearest to full precision's."""
    score = {row["recipe"]: row[CHOSEN_BY] for row in rows if row[CHOSEN_BY] is not None}
    out = {}
    for width, names in known.items():
        there = {short: score[full] for short, full in names.items() if full in score}
        if there:
            out[width] = max(there, key=lambda name: there[name])
    return out


def read_result(file: Path) -> Result:
    """Read a published table back.

    Raises
    ------
    ValueError
        The file does not say whose pictures these are.
    """
    rows = [dict.fromkeys(MEASURED) | row for row in read_csv(file)]
    if not rows or any(row.get(name) is None for row in rows for name in ("subject", "leaks")):
        raise ValueError(f"{file} has rows without subject or leaks: an older table; measure it again")
    return Result(
        rows=rows, leak_line=str(rows[0]["leaks"]), simulated_subject=rows[0]["subject"] == "simulated",
        table=str(file), report="", done_before=True,
    )  # fmt: skip


def section(title: str, result: Result, known: Mapping[int, Mapping[str, str]], figure: str) -> list[str]:
    """Write one subject: the best of each width between its baselines, then every recipe."""
    rows = {row["recipe"]: row for row in result.rows}
    chosen = best(result.rows, known)
    subject = "simulated subject" if result.simulated_subject else "measured subject"
    lines = [
        "",
        f"## {title} ({subject})",
        "",
        f"{result.leak_line}",
        "",
        f"![{title}, quality over bits]({Path(figure).stem}.png)",
        "",
        f"![{title}]({figure})",
        "",
    ]
    top = [("32", FULL_PRECISION, rows[FULL_PRECISION])]
    top += [(str(w), name, rows[known[w][name]]) for w, name in chosen.items()]
    top += [("–", name, rows[name]) for name in (OTHER_NOISE, RIDGE, MEAN) if name in rows]
    heads = ["bits", "best recipe", *(head for _, head, _ in COLUMNS)]
    lines += table(heads, [[bits, name, *_cells(row)] for bits, name, row in top])
    lines += ["", "Every recipe:", ""]
    every = [
        (w, short, rows[full]) for w, names in known.items() for short, full in names.items() if full in rows
    ]
    heads = ["bits", "recipe", *(head for _, head, _ in COLUMNS), "MB", "trained, steps", "trained, s"]
    lines += table(
        heads,
        [
            [str(w), f"`{name}`", *_cells(row), f"{row['bytes'] / 1e6:.2f}", str(row["train_steps"] or "–"),
             f"{row['train_seconds']:.0f}" if row["train_seconds"] else "–"]
            for w, name, row in every
        ],
    )  # fmt: skip
    if absent := [short for names in known.values() for short, full in names.items() if full not in rows]:
        lines += ["", "Not measured: " + ", ".join(f"`{name}`" for name in absent) + "."]
    return lines + sources(result.rows)


def sources(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say where rows were made, if not all of them at one commit on one device."""
    places = Counter((row.get("commit", "unknown"), row.get("device", "unknown")) for row in rows)
    if len(places) < 2:
        return []
    each = "; ".join(f"{count} at commit {commit} on {device}" for (commit, device), count in places.items())
    return ["", f"Of {len(rows)} rows with those of baselines (`commit` in the CSV): {each}."]


def write_tables(folder: Path, command: str, steps: int, known: Mapping[int, Mapping[str, str]]) -> None:
    """Write bits.md and a chart for each table of a folder."""
    results = {file.stem: read_result(file) for file in sorted(folder.glob("*.csv"))}
    rows = [row for result in results.values() for row in result.rows]
    devices, commits = (
        " and ".join(dict.fromkeys(str(row.get(name, "unknown")) for row in rows))
        for name in ("device", "commit")
    )
    lines = ["# Reconstruction against bits", "", f"`{command}` on {devices}, commit {commits}.", ""]
    lines += [NOTES.format(steps=steps)]
    for name, result in results.items():
        chart = over_bits(result, known, best(result.rows, known), name).png(foot=True)
        with replacing(folder / f"{name}.png") as temporary:
            temporary.write_bytes(chart)
        lines += section(name, result, known, f"{name}.webp")
    write_text(folder / "bits.md", "\n".join(lines) + "\n")


def _cells(row: Mapping[str, Any]) -> list[str]:
    out = []
    for name, _, digits in COLUMNS:
        value, low, high = (row.get(key) for key in (name, f"{name}_low", f"{name}_high"))
        text = "–" if value is None else f"{value:.{digits}f}"
        out.append(text if low is None or high is None else f"{text} [{low:.{digits}f}, {high:.{digits}f}]")
    return out


def picture(
    folder: Path, rows: Sequence[Mapping[str, Any]], known: Mapping[int, Mapping[str, str]]
) -> np.ndarray:
    """Lay the first test pictures out: shown, full precision, best of each width, ridge; uint8 (h, w, 3)."""
    from lab.jobs.brain.bits import array_name

    chosen = best(rows, known)
    wanted = {"what was shown": "stimulus", "full precision": FULL_PRECISION}
    wanted |= {f"{w} bits: {name}": known[w][name] for w, name in chosen.items()}
    wanted |= {"ridge to pixels": RIDGE}
    with np.load(folder / "arrays.npz") as arrays:
        sets = {label: arrays[array_name(name)][:SHOWN] for label, name in wanted.items()}
    return grid({label: _large(one) for label, one in sets.items()})


def _large(pictures: np.ndarray) -> np.ndarray:
    colour = pictures if pictures.ndim == 4 else np.repeat(pictures[..., None], 3, -1)
    eight = np.rint(np.clip(colour, 0, 1) * 255).astype(np.uint8)
    return eight.repeat(SCALE, 1).repeat(SCALE, 2)


def main() -> None:
    """Measure each run, choose, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--steps", type=int, default=400, help="of training")
    parser.add_argument("--rate", type=float, default=3e-4, help="of weights in QVGen and BinaryDM")
    parser.add_argument("--widths", default="8,6,4,3,2,1")
    parser.add_argument("--jobs", type=int, default=1, help="recipes at once")
    parser.add_argument(
        "--minutes", type=float, default=1e4, help="recipes not done by then are left out; see --jobs"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--publish", type=Path, default=RESULTS)
    parser.add_argument("--measured", action="store_true", help="tables of what --publish holds")
    given = parser.parse_args()
    every = recipes(given.steps, given.rate)
    known = {w: names for w, names in every.items() if str(w) in given.widths.split(",")}
    command = shlex.join(["python", "-m", "benchmarks.trained.bits", *sys.argv[1:]])
    try:
        for file in given.publish.glob("*.csv"):  # before long work
            read_result(file)
    except ValueError as error:
        parser.error(str(error))
    for folder in () if given.measured else given.runs:
        measure(folder, given, known)
        write_tables(given.publish, command, given.steps, every)
    if given.measured:
        write_tables(given.publish, command, given.steps, every)


def measure(folder: Path, given: argparse.Namespace, known: Mapping[int, Mapping[str, str]]) -> None:
    """Measure one run, and write its rows and pictures."""
    settings = Settings(
        folder=folder, recipes=tuple(full for names in known.values() for full in names.values()),
        out=given.out / folder.name, device=given.device, training_minutes=1e6,
    )  # fmt: skip
    missing = side_by_side(settings, given.jobs, given.minutes) if given.jobs > 1 else {}
    for name, why in missing.items():
        print(f"left out: {name} ({why})", file=sys.stderr)
    settings = settings.model_copy(update={"recipes": tuple(r for r in settings.recipes if r not in missing)})
    with reporting() as progress:
        result = run(settings, Context(report=progress))
    origin = {
        "commit": commit()[:7], "device": hardware(given.device), "leaks": result.leak_line,
        "subject": "simulated" if result.simulated_subject else "measured",
    }  # fmt: skip
    rows = [row | origin for row in result.rows]
    write_csv(given.publish / f"{folder.name}.csv", rows)
    write_picture(picture(settings.out, rows, known), given.publish / f"{folder.name}.webp")


NOTES = (
    "The decoder of each run is quantized by every recipe, calibrated or trained ({steps} steps) on "
    "predictions of left-out training trials, and the test pictures are decoded again "
    "([the runs](../../README.md#the-runs-of-bits)). The best recipe of a "
    "width is the one whose pictures are nearest to full precision's (paired PSNR, from the same fMRI and "
    "noise); intervals are over test pictures, at one seed of calibration and training. Bits are simulated; "
    "true bits a weight count scales, side "
    "branches and layers left alone. Shipped weights are stored in 16 bits and computed with in 32."
)

if __name__ == "__main__":
    main()
