"""Make simulated subjects: python data_scripts/simulate.py [--preset large] [--stimuli FILE] [--root DIR]."""

from __future__ import annotations

import argparse
from pathlib import Path

from _common import finish, progress

from brainit import datasets
from brainit.datasets import simulated


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--root", type=Path, default=datasets.default_root("simulated"), help="folder to fill"
    )
    parser.add_argument("--preset", default="small", help="small or large")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--stimuli", help="folder, parquet file or .npz of pictures; default procedural pictures"
    )
    parser.add_argument("--test-stimuli", help="another source for the test pictures; default the same")
    arguments = parser.parse_args()

    def prepare() -> Path:
        return simulated.generate(
            arguments.root,
            simulated.preset(arguments.preset, seed=arguments.seed),
            stimuli=arguments.stimuli,
            test_stimuli=arguments.test_stimuli,
            progress=progress,
        )

    return finish("simulated", prepare)


if __name__ == "__main__":
    raise SystemExit(main())
