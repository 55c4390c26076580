"""Plots from the CSV of timings: ratio to 16 bit by shape, and the roofline."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from kernels.bench.run import MEMORY, PEAK

SHOWN = (
    "torch._int_mm", "torch._scaled_mm", "gemm int8", "gemm fp8",
    "W4A4 int g64 rank 32, operand kept", "W4A4 pow2 g64 rank 32, operand kept",
    "W4A4 pow2 g64 rank 32, decoded per call", "W4A16 pow2 g64", "conv2d fp8", "conv2d int8",
)  # fmt: skip


def draw(table: Path, folder: Path) -> list[Path]:
    """Draw both plots as PNG.

    Parameters
    ----------
    table : Path
        CSV that `kernels.bench.run.bench` wrote.
    folder : Path

    Raises
    ------
    ValueError
        The file holds no timings of the kernels that are drawn.
    """
    if not table.is_file():
        raise ValueError(f"no timings at {table}; run brainlab bench kernels first")
    with table.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["us"]]
    if not any(row["what"] in SHOWN and row["ratio"] for row in rows):
        raise ValueError(f"{table} holds no timings; run brainlab bench kernels first")
    folder.mkdir(parents=True, exist_ok=True)
    return [_ratios(rows, folder / "ratios.png"), _roofline(rows, folder / "roofline.png")]


def _ratios(rows: list[dict[str, Any]], file: Path) -> Path:
    from matplotlib.figure import Figure

    names = [name for name in SHOWN if any(row["what"] == name for row in rows)]
    shapes = list(dict.fromkeys(row["shape"] for row in rows if row["what"] in names))
    found = {
        (row["shape"], row["what"]): float(row["ratio"])
        for row in rows
        if row["what"] in names and row["ratio"]
    }
    here = {shape: [name for name in names if (shape, name) in found] for shape in shapes}
    starts, total = {}, 0.0
    for shape in shapes:
        starts[shape], total = total, total + len(here[shape]) + 1.5
    figure = Figure(figsize=(11, 0.13 * total + 1.5))
    axes = figure.add_subplot()
    for name in names:
        those = [shape for shape in shapes if name in here[shape]]
        places = [starts[shape] + here[shape].index(name) for shape in those]
        axes.barh(places, [found[shape, name] for shape in those], 1, label=name)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks([starts[shape] + (len(here[shape]) - 1) / 2 for shape in shapes], shapes)
    axes.margins(y=0.01)
    axes.set_xlim(0, 1.35 * max(found.values()))  # room for the legend
    axes.invert_yaxis()
    axes.set_xlabel(f"time of bf16 (cuBLAS, cuDNN) over time, higher is faster; {rows[0]['device']}")
    axes.legend(fontsize=7, loc="lower right")
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    return file


def _roofline(rows: list[dict[str, Any]], file: Path) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5))
    axes = figure.add_subplot()
    for peer, marker, label in (("0", "o", "here"), ("1", "x", "torch")):
        chosen = [r for r in rows if r["peer"] == peer and r["floor_us"] and float(r["floor_us"]) > 0]
        axes.scatter(
            [float(r["floor_us"]) for r in chosen],
            [float(r["us"]) for r in chosen],
            marker=marker,
            s=18,
            label=label,
        )
    ends = [0.5, 500]
    axes.plot(ends, ends, color="black", linewidth=0.8, label="floor")
    axes.set(xscale="log", yscale="log", ylabel="measured, microseconds")
    axes.set_xlabel(
        f"floor: the larger of bytes over {MEMORY / 1e12:.1f} TB/s and operations over\n"
        f"{PEAK['fp8'] / 1e12:.0f} (8 bit) or {PEAK['bf16'] / 1e12:.0f} (16 bit) TFLOP/s, microseconds"
    )
    axes.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    return file
