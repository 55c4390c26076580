"""What a brain decodes to, drawn through the kernels beside the same job simulated.

    python -m benchmarks.native_brain --out benchmarks/results/native-brain-h200

``brainlab brain reconstruct`` runs twice on the simulated subject, with and without ``--native``: the
shipped network adapted to the subject, pictures drawn from its tokens and a ridge picture by a quantized
denoiser. The exit code is 1 if the pictures of both ways are further apart than quantizing moves them, or if
their scores differ by more than `SCORE`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.files import write_csv
from benchmarks.markdown import table
from benchmarks.native_pictures import SHORT, psnr
from benchmarks.whole_models import environment, place
from lab import zoo
from lab.decoding.settings import ReconstructConfig
from lab.errors import show
from lab.files import read_npz, write_text
from lab.jobs.reconstruct import reconstruct
from quant.errors import HardwareError
from quant.layers.native.ways import refuse_device

SCORE = 0.01
"""Difference of the mean PixCorr, at most."""
RECIPE = f"svdquant-w4a4-native{SHORT}"
TITLES = {
    "denoiser": "denoiser", "recipe": "recipe", "n": "pictures", "arithmetic": "arithmetic",
    "psnr_native_simulated": "native to simulated, dB", "psnr_least": "least",
    "psnr_full": "both runs in full precision, dB", "psnr_quantized_full": "simulated to full precision, dB",
    "pixcorr_simulated": "PixCorr, simulated", "pixcorr_native": "PixCorr, native",
}  # fmt: skip


def settings(denoiser: str, native: bool, device: str, **more: Any) -> ReconstructConfig:
    """Return the settings of the two runs, which differ in `native` only."""
    return ReconstructConfig.model_validate({
        "dataset": "simulated", "network": "shared", "structure": "ridge", "denoiser": denoiser,
        "recipe": RECIPE, "native": native, "device": device, "strength": 0.8, "steps": 10, "noise_seeds": 1,
        "bootstrap": 200, **more,
    })  # fmt: skip


def run(denoiser: str, native: bool, device: str, out: Path) -> dict[str, Any]:
    """Run the job one way, into a folder; its metrics."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return reconstruct(settings(denoiser, native, device), out)


def compared(denoiser: str, folders: list[Path], metrics: dict[str, Any]) -> dict[str, Any]:
    """Compare pictures of the simulated and the native run; a row. `metrics` are those of the native one."""
    runs = [read_npz(folder / "arrays.npz") for folder in folders]
    full = [_pictures(run, "fp") for run in runs]
    quantized = [_pictures(run, "quantized") for run in runs]
    apart = psnr(*quantized)
    return {
        "denoiser": denoiser, "recipe": RECIPE.removesuffix(SHORT), "n": len(apart),
        "arithmetic": metrics["arithmetic"], "psnr_native_simulated": f"{apart.mean():.2f}",
        "psnr_least": f"{apart.min():.2f}", "psnr_full": f"{psnr(*full).mean():.2f}",
        "psnr_quantized_full": f"{psnr(quantized[0], full[0]).mean():.2f}",
        "pixcorr_simulated": f"{runs[0]['score_pixcorr'].mean():.4f}",
        "pixcorr_native": f"{runs[1]['score_pixcorr'].mean():.4f}",
    }  # fmt: skip


def _pictures(run: dict[str, np.ndarray], name: str) -> torch.Tensor:
    return torch.from_numpy(run[name]).clamp(0, 1).mul(255).round().div(255)


def markdown(rows: list[dict[str, Any]]) -> str:
    """Rows for reading."""
    head = (
        f"{place(rows[0])} `brainlab brain reconstruct` on the simulated subject, twice: the same settings "
        "without and with `--native`. Tolerance: pictures no further from the simulated ones than those are "
        f"from full precision, PixCorr within {SCORE:g}. The recipe with less calibration than its preset."
    )
    cells = [[str(row[key]) for key in TITLES] for row in rows]
    return "\n".join([head, "", *table(list(TITLES.values()), cells)]) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Parse arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.native_brain", description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(zoo.DECODERS), choices=zoo.DECODERS)
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, each a process")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, required=True, help="NAME of NAME.csv and NAME.md")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error(f"--jobs must be 1 or more, got {options.jobs}")
    try:
        refuse_device(options.device)
    except HardwareError as error:
        return show(error)
    rows: list[dict[str, Any]] = []
    shared = environment(torch.device(options.device))
    with tempfile.TemporaryDirectory() as folder, _pool(options.jobs) as pool:
        ways = {
            (name, native): Path(folder) / f"{name}-{'native' if native else 'simulated'}"
            for name in options.models
            for native in (False, True)
        }
        found = {way: pool.submit(run, *way, options.device, out) for way, out in ways.items()}
        for name in options.models:
            if any(found[name, native].exception() for native in (False, True)):
                continue  # the other denoisers' rows are written first
            metrics = found[name, True].result()
            row = compared(name, [ways[name, native] for native in (False, True)], metrics)
            rows.append({**row, **shared})
            write_csv(options.out.with_suffix(".csv"), rows)
            write_text(options.out.with_suffix(".md"), markdown(rows))
            sys.stdout.write(f"{rows[-1]}\n")
            sys.stdout.flush()
        for run_of_one in found.values():
            run_of_one.result()  # what failed is raised
    return 0 if all(agrees(row) for row in rows) else 1


def _pool(jobs: int) -> Executor:
    """One process after the other, or several; each starts afresh, as CUDA wants it."""
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))


def agrees(row: dict[str, Any]) -> bool:
    """Whether a row is within the tolerance."""
    near = float(row["psnr_native_simulated"]) >= float(row["psnr_quantized_full"])
    return near and abs(float(row["pixcorr_native"]) - float(row["pixcorr_simulated"])) <= SCORE


if __name__ == "__main__":
    sys.exit(main())
