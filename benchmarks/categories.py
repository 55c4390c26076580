"""Categories decoded from real fMRI (haxby2001), each run left out once, at several seeds.

python -m benchmarks.categories --root DATA/haxby2001 --out benchmarks/results/haxby2001.csv
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.files import write_csv
from brainit.progress import Progress, silent
from lab.decoding.settings import ReconstructConfig
from lab.jobs.reconstruct import reconstruct

DECODERS = {"Brain-IT": "", "networks alone": "network.", "ridge on betas": "ridge."}
_SCORE = "category.accuracy"


def rows_of(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each decoder of one run's flat metrics: accuracy, its interval and its p."""
    about = {key: metrics[key] for key in ("dataset", "subject", "seed", "n_test", "n_runs")}
    rows = []
    for decoder, prefix in DECODERS.items():
        name = f"{prefix}{_SCORE}"
        found = {"accuracy": name, "low": f"{name}.low", "high": f"{name}.high", "p": f"{name}.p"}
        row = about | {"decoder": decoder, **{column: metrics[key] for column, key in found.items()}}
        rows.append(row | {"chance": metrics["category.chance"]})
    return rows


def decode(
    root: Path, seeds: Sequence[int], folder: Path, progress: Progress = silent, **changes: Any
) -> list[dict[str, Any]]:
    """Decode at every seed with the command's defaults, a run folder each below ``folder``."""
    rows = []
    for seed in seeds:
        given = {"dataset": "haxby2001", "root": str(root), "seed": seed} | changes
        config = ReconstructConfig.model_validate(given)
        rows += rows_of(reconstruct(config, folder / f"seed-{seed}", progress))
    return rows


def main(words: Sequence[str] | None = None) -> int:
    """Decode and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of haxby2001")
    parser.add_argument("--out", type=Path, required=True, help="CSV file")
    parser.add_argument("--seeds", default="0,1,2,3", help="seeds, with commas between")
    asked = parser.parse_args(words)

    def tell(done: int, total: int, what: str) -> None:
        if done * 100 // total != (done - 1) * 100 // total:
            sys.stderr.write(f"\r{what}: {done * 100 // total} %\x1b[K")

    with tempfile.TemporaryDirectory() as folder:
        rows = decode(asked.root, [int(seed) for seed in asked.seeds.split(",")], Path(folder), tell)
    write_csv(asked.out, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
