"""Time the cases and write CSV, each beside the 16-bit product of its shape in the same run."""

from __future__ import annotations

import csv
import platform
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from kernels.bench.cases import ATTENTION, IMAGES, LARGE, SMALL, attention, image, large, small
from kernels.bench.peers import peers
from kernels.bench.timed import Timed
from kernels.checkout import commit
from kernels.tuned.search import DISTANCE
from kernels.tuned.timing import Replay

COLUMNS = [
    "shape", "what", "peer", "us", "ratio", "tflops", "error", "floor_us", "bf16_us", "device", "torch",
    "triton", "commit", "note",
]  # fmt: skip
MEMORY = 4.3e12
"""Bytes a second of a device-to-device copy on an H200, read and written counted."""
PEAK = {"bf16": 0.79e15, "fp8": 1.58e15, "int8": 1.58e15}
"""Operations a second: what 16-bit products reach on an H200 with random data, and twice that."""

Progress = Callable[[int, int, str], None]


def environment() -> dict[str, str]:
    """Device, versions and commit (BRAINLAB_COMMIT, else the checkout's) that every row carries."""
    import triton

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
    return {"device": name, "torch": torch.__version__, "triton": triton.__version__, "commit": commit()}


ROUNDS = 3
"""Times that all cases of a shape are measured in turn: a clock that falls meanwhile meets all of them."""
REST_S = 0.03


def _rested(replay: Replay, rep_ms: float) -> float:
    """Time a case after a pause, so that none inherits the heat of the one before."""
    time.sleep(REST_S)
    return replay.us(rep_ms)


def measure(shape: str, cases: Iterable[Timed], rep_ms: int) -> list[dict[str, Any]]:
    """Time cases of one shape; the first is the 16-bit product that the others are compared with."""
    rows: list[dict[str, Any]] = []
    ready: list[tuple[dict[str, Any], Timed, Replay]] = []
    shared = environment()
    for case in cases:
        row: dict[str, Any] = {
            "shape": shape,
            "what": case.what,
            "peer": int(case.peer),
            **shared,
            "note": "",
        }
        rows.append(row)
        try:
            ready.append((row, case, Replay(case.calls)))
        except Exception as error:
            row["note"] = f"{type(error).__name__}: {str(error)[:160]}"
    rounds = [[_rested(replay, rep_ms // ROUNDS) for _, _, replay in ready] for _ in range(ROUNDS)]
    medians = [sorted(found)[ROUNDS // 2] for found in zip(*rounds, strict=True)]
    base: float | None = None
    for (row, case, _), us in zip(ready, medians, strict=True):
        base = us if case.what == "bf16" else base
        row["us"] = f"{us:.2f}"
        if base is not None:
            row.update(ratio=f"{base / us:.3f}", bf16_us=f"{base:.2f}")
        row["tflops"] = f"{case.operations / us / 1e6:.0f}"
        row["floor_us"] = f"{max(case.bytes / MEMORY, case.operations / PEAK[case.unit]) * 1e6:.2f}"
        if case.exact is not None:
            _judge(row, case)
    return rows


def _judge(row: dict[str, Any], case: Timed) -> None:
    """Write the error; of a kernel whose result is wrong the time says nothing, and is taken away."""
    assert case.exact is not None  # as the caller saw to
    try:
        exact = case.exact()
        out = case.calls[0]()[: exact.shape[0]].double()
        error = ((out - exact).norm() / exact.norm()).item()
    except Exception as failure:
        row["note"] = f"no exact result: {type(failure).__name__}: {str(failure)[:120]}"
        return
    row["error"] = f"{error:.2e}"
    if not case.peer and not error < DISTANCE:  # NaN is not, either
        for key in ("us", "ratio", "tflops"):
            row.pop(key, None)
        row["note"] = f"WRONG: relative distance {error:.1e} from the exact result"


def bench(
    out: Path,
    progress: Progress,
    budget_s: float = 600,
    rep_ms: int = 48,
    few: bool = False,
    others: bool = False,
) -> list[dict[str, Any]]:
    """Time everything and write `out` after every shape, so that a run that is cut keeps what it has.

    Parameters
    ----------
    out : Path
        CSV file.
    progress : callable
    budget_s : float
        Seconds after which no further shape is begun.
    rep_ms : int
        Milliseconds of each measurement, over all rounds.
    few : bool
        The largest shapes only.
    others : bool
        Only peers that compile for minutes.
    """
    until = time.monotonic() + budget_s
    rows: list[dict[str, Any]] = []
    jobs: list[tuple[tuple[int, ...], Callable]] = [(shape, large) for shape in LARGE[: 3 if few else None]]
    jobs += [(shape, small) for shape in SMALL]
    jobs += [(shape, image) for shape in IMAGES] + [(shape, attention) for shape in ATTENTION]
    if others:
        jobs = [(shape, peers) for shape in (*LARGE[:3], *SMALL[:2])]
    write(out, rows)  # what an earlier run left is not this one's
    for done, (shape, cases) in enumerate(jobs):
        if time.monotonic() > until:
            progress(done, len(jobs), f"out of time before {shape}")
            break
        found = measure("x".join(map(str, shape)), cases(*shape), rep_ms)
        rows += found
        write(out, rows)
        for row in found:
            progress(done + 1, len(jobs), line(row))
        torch.cuda.empty_cache()
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """Rows as a table for reading."""
    if not rows:
        return ""
    first = rows[0]
    head = (
        f"{first['device']}, torch {first['torch']}, Triton {first['triton']}. Medians of graph replays, "
        "all rows of a shape in turn, three times; "
        "ratio: time of the bf16 row of the same shape over the row's; error: relative, against float64; "
        "floor: the larger of least bytes over memory bandwidth and operations over the rate of the cores. "
        f"{_commits(rows)}"
    )
    lines = [
        head,
        "",
        "| shape | what | us | ratio | error | floor, us |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        what = row["what"] + (" (peer)" if str(row["peer"]) == "1" else "")
        cells = [row["shape"], what, *(row.get(key, "") or row["note"][:60] for key in ("us", "ratio"))]
        lines.append(f"| {' | '.join(cells)} | {row.get('error', '')} | {row.get('floor_us', '')} |")
    return "\n".join(lines) + "\n"


def _commits(rows: list[dict[str, Any]]) -> str:
    """Which commit was timed; of several, which shapes each."""
    shapes: dict[str, dict[str, None]] = {}
    for row in rows:
        shapes.setdefault(row.get("commit") or "unknown", {})[row["shape"]] = None
    first, *rest = shapes
    more = [f"{commit}: {', '.join(shapes[commit])}" for commit in rest]
    return f"Commit {first}" + (f"; of {'; of '.join(more)}" if more else "") + "."


def line(row: dict[str, Any]) -> str:
    """One row as text."""
    return (
        f"{row['shape']:>18} {row['what']:<52} {row.get('us', '-'):>9} us  x{row.get('ratio', '-'):>6}  "
        f"err {row.get('error', '-'):>8}  floor {row.get('floor_us', '-')} {row['note']}"
    )


def write(out: Path, rows: list[dict[str, Any]]) -> None:
    """Write the CSV under a temporary name and rename it."""
    temporary = out.with_suffix(".partial")
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(out)
    out.with_suffix(".md").write_text(markdown(rows), encoding="utf-8")
