"""One product's shape timed on a CPU: float32 first, then what the simulation costs, and its error."""

from __future__ import annotations

import pytest
import torch

from lab.errors import InputError
from lab.jobs import registry
from lab.jobs.bench import kernels, shape
from lab.jobs.contract import Context


@pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a GPU")
def test_a_shape_is_timed_beside_full_precision() -> None:
    found = shape.run(shape.Settings(rows=32, inner=64, outer=48), Context())
    assert found.arithmetic == "simulated" and "CPU" in found.device
    assert [row["what"] for row in found.rows] == ["float32", "W8A8, simulated", "W4A4, simulated"]
    full, eight, four = (float(row["error"]) for row in found.rows)
    assert full < 1e-5 < eight < four / 8 and found.rows[0]["ratio"] == "1.000"


def test_a_kernel_that_is_wrong_or_was_not_timed_ends_with_1() -> None:
    ours, theirs = {"peer": "0", "us": "10.0"}, {"peer": "1", "us": ""}
    for rows, code in (([ours, theirs], 0), ([ours, {**ours, "us": ""}], 1)):
        assert kernels.Result(rows=rows, csv="kernels.csv", table=None, plots=[]).exit_code() == code


@pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a GPU")
def test_what_would_take_minutes_is_refused() -> None:
    with pytest.raises(InputError, match="too large to time on a CPU"):
        shape.run(shape.Settings(rows=65536, inner=65536, outer=65536), Context())
    with pytest.raises(InputError, match="inner"):
        registry.settings("bench shape", {"inner": 3})
