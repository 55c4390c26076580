"""Job behind ``brainlab bench shape``: one product's shape, timed on this machine beside the full product."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lab.errors import InputError
from lab.jobs import contract
from lab.jobs.contract import Context, Seed, Table, line, setting

MOST = 2**33
"""Multiplications of a product that a CPU is asked for: some seconds."""
REPEATS = 5


class Settings(contract.Settings):
    """Time one product X (rows x inner) by W (inner x outer) on this machine.

    With a GPU: the kernels beside the 16-bit product. Without one: what the simulation costs beside the same
    product in float32.
    """

    rows: int = setting(1024, "rows of the input: tokens times batch", ge=1, le=65536)
    inner: int = setting(1024, "channels that are summed over", ge=32, le=65536)
    outer: int = setting(1024, "channels of the output", ge=16, le=65536)
    seed: Seed = setting(0, "fixes the random operands")


class Result(contract.Result):
    """Timings: microseconds, full-precision time over it, error relative to float64, least time."""

    rows: list[dict[str, Any]]
    device: str
    arithmetic: str

    def tables(self) -> list[Table]:
        """Return the rows, then where they were measured."""
        return [Table(self.rows), line(f"{self.arithmetic}, on {self.device}")]


def run(settings: Settings, context: Context) -> Result:
    """Time the shape.

    Raises
    ------
    InputError
        Too large for a CPU, or a shape that the kernels do not take.
    """
    import torch

    if torch.cuda.is_available():
        return _native(settings, context)
    if settings.rows * settings.inner * settings.outer > MOST:
        raise InputError(
            f"{settings.rows} x {settings.inner} x {settings.outer}: too large to time on a CPU; their "
            f"product may be at most {MOST}"
        )
    return _simulated(settings, context)


def _native(settings: Settings, context: Context) -> Result:
    import quant.layers.lowbit  # noqa: F401 - makes our kernels found beside the other package of that name
    from kernels.bench.cases import GROUP, large
    from kernels.bench.run import environment, measure

    if settings.inner % GROUP or settings.outer % 16:
        raise InputError(
            f"inner {settings.inner}, outer {settings.outer}: the kernels take multiples of {GROUP} and of 16"
        )
    context.progress(0, 1, "timing the kernels")
    found = measure("mine", large(settings.rows, settings.inner, settings.outer), 48)
    context.progress(1, 1, "timing the kernels")
    rows = [
        {"what": row["what"], "us": row.get("us", ""), "ratio": row.get("ratio", ""),
         "error": row.get("error", ""), "floor_us": row.get("floor_us", ""), "note": row["note"]}
        for row in found
    ]  # fmt: skip
    return Result(rows=rows, device=environment()["device"], arithmetic="native")


def _simulated(settings: Settings, context: Context) -> Result:
    """Time float32, and what fake quantization adds to it, on the CPU."""
    import torch
    from torch.nn.functional import linear

    random = torch.Generator().manual_seed(settings.seed)
    x = torch.randn(settings.rows, settings.inner, generator=random)
    w = torch.randn(settings.outer, settings.inner, generator=random) * 0.05
    exact = x.double() @ w.double().T
    cases: list[tuple[str, Callable[[], Any]]] = [("float32", lambda: linear(x, w))]
    for bits in (8, 4):
        weight = _rounded(w, bits)
        cases.append(
            (f"W{bits}A{bits}, simulated", lambda b=bits, c=weight: linear(_rounded(x, b), c))  # type: ignore[misc]
        )
    rows: list[dict[str, Any]] = []
    for done, (what, call) in enumerate(cases):
        context.progress(done, len(cases), what)
        out, us = call(), _microseconds(call, context)
        base = us if not rows else float(rows[0]["us"])
        error = float((out.double() - exact).norm() / exact.norm())
        rows.append({"what": what, "us": f"{us:.0f}", "ratio": f"{base / us:.3f}", "error": f"{error:.2e}",
                     "floor_us": "", "note": ""})  # fmt: skip
    import platform

    name = platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    device = f"the CPU ({name}, {threads} thread{'s' * (threads != 1)})"
    return Result(rows=rows, device=device, arithmetic="simulated")


def _rounded(values: Any, bits: int) -> Any:
    """Round rows to symmetric integers of so many bits, a scale for each row, as the simulation does."""
    top = 2 ** (bits - 1) - 1
    scale = values.abs().amax(-1, keepdim=True).clamp_min(1e-12) / top
    return (values / scale).round() * scale


def _microseconds(call: Callable[[], Any], context: Context) -> float:
    """Median of a few calls."""
    times = []
    for _ in range(REPEATS):
        context.check()
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return sorted(times)[REPEATS // 2] * 1e6
