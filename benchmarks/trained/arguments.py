"""What commands of this folder that write to ``benchmarks/results/trained`` are all asked."""

from __future__ import annotations

import argparse
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "results" / "trained"


def arguments(description: str) -> argparse.ArgumentParser:
    """Begin a parser: where to work and to publish, on what device, and how many at once."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--publish", type=Path, default=RESULTS)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--jobs", type=int, default=1)
    return parser
