"""Say whether a run of ``brainlab bench kernels`` repeats another one: ratios to 16 bit, row by row.

    python -m benchmarks.kernel_repeat RUN/kernels.csv

compares with the committed timings (``--against`` names others), prints the largest relative differences of
ratios and ends with 1 where one is beyond the noise: 5 % (``--noise``) where the row takes 50 us or more in
both runs, twice that below, where a microsecond is a fiftieth and more.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.files import read_csv
from benchmarks.markdown import table
from lab.errors import InputError, show

RESULTS = Path(__file__).resolve().parent / "results"
NOISE = 0.05
"""Relative difference of two ratios of the same kernel in two runs that is not called one."""
SHORT_US = 50.0
SHOWN = 8
SAME = ("device", "torch", "triton")


class Difference(NamedTuple):
    """One row of both runs.

    Attributes
    ----------
    shape, what : str
    before, now : float
        Ratios to 16 bit.
    apart : float
        Relative difference, now / before - 1.
    allowed : float
    """

    shape: str
    what: str
    before: float
    now: float
    apart: float
    allowed: float

    @property
    def beyond(self) -> bool:
        """Whether it is more than noise."""
        return not abs(self.apart) <= self.allowed  # what is not a number is not within it


def differences(
    now: list[dict[str, Any]], before: list[dict[str, Any]], noise: float = NOISE
) -> list[Difference]:
    """Compare the rows that both runs have, largest share of what is allowed first.

    Parameters
    ----------
    now, before : list of dict
        Rows of ``kernels.csv``.
    noise : float
        Allowed relative difference of ratios.

    Raises
    ------
    InputError
        Another device or version, or no row in common.
    """
    for key in SAME:
        places = {str(row.get(key)) for rows in (now, before) for row in rows}
        if len(places) > 1:
            raise InputError(
                f"runs with {key} {' and '.join(sorted(places))} cannot repeat each other: time both on one"
            )
    known = {(row["shape"], row["what"]): row for row in before if "ratio" in row}
    found = []
    for row in now:
        other = known.get((row["shape"], row["what"]))
        if other is None or "ratio" not in row or row["what"] == "bf16":
            continue
        allowed = noise if min(row["us"], other["us"]) >= SHORT_US else 2 * noise
        apart = row["ratio"] / other["ratio"] - 1
        found.append(Difference(row["shape"], row["what"], other["ratio"], row["ratio"], apart, allowed))
    if not found:
        raise InputError("the two files have no timed row in common: give two kernels.csv of the bench")
    return sorted(found, key=lambda d: (d.apart == d.apart, -abs(d.apart) / d.allowed))


def report(found: list[Difference], missing: int) -> str:
    """Say how many rows repeat, and show those that are furthest apart."""
    beyond = sum(one.beyond for one in found)
    rows = [
        [one.shape, one.what, f"{one.before:.3f}", f"{one.now:.3f}", f"{100 * one.apart:+.1f} %",
         f"{100 * one.allowed:.0f} %"]
        for one in found[: max(SHOWN, beyond)]
    ]  # fmt: skip
    words = f"{len(found) - beyond} of {len(found)} rows repeat within noise"
    if missing:
        words += f"; {missing} rows were timed in one of the runs only"
    return "\n".join([words, "", *table(["shape", "what", "before", "now", "apart", "noise"], rows)])


def main(arguments: list[str] | None = None) -> int:
    """Parse arguments and compare."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernel_repeat", description=__doc__)
    parser.add_argument("run", type=Path, help="kernels.csv of a run")
    parser.add_argument("--against", type=Path, default=RESULTS / "kernels-h200.csv", help="of another run")
    parser.add_argument("--noise", type=float, default=NOISE, help="allowed relative difference of ratios")
    options = parser.parse_args(arguments)
    if not 0 < options.noise < 1:
        parser.error(f"--noise must lie between 0 and 1, got {options.noise}")
    try:
        now, before = (_rows(file) for file in (options.run, options.against))
        found = differences(now, before, options.noise)
    except (InputError, OSError) as error:
        return show(error)
    keys = [{(row["shape"], row["what"]) for row in rows if "ratio" in row} for rows in (now, before)]
    sys.stdout.write(report(found, len(keys[0] ^ keys[1])) + "\n")
    return int(any(one.beyond for one in found))


def _rows(file: Path) -> list[dict[str, Any]]:
    rows = read_csv(file)
    if not rows or not {"shape", "what", "device"} <= set(rows[0]):
        raise InputError(f"{file} holds no timings of kernels: give a kernels.csv of brainlab bench kernels")
    return rows


if __name__ == "__main__":
    sys.exit(main())
