"""Peak memory: freed memory counts again, and only exact numbers stand in the tables."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch

from lab.compare.cost import EXACT, SAMPLED, PeakMemory, costs
from lab.compare.measuring import Measured
from lab.compare.statistics import Scores
from lab.compare.summary import rows
from lab.compare.tables import cell, peaks, shown_columns


def blocks() -> list[torch.Tensor]:
    """20 MB in pieces that the C library keeps when they are freed."""
    return [torch.ones(12_500) for _ in range(400)]


def test_memory_that_was_freed_before_counts() -> None:
    made = blocks()
    pin = torch.ones(10)  # above the pieces: the heap cannot shrink by itself
    del made
    with PeakMemory(torch.device("cpu")) as memory:
        if memory.how != SAMPLED:
            pytest.skip("no malloc_trim here")
        again = blocks()
        time.sleep(0.05)
    assert len(again) == 400 and len(pin) == 10
    assert memory.bytes is not None and memory.bytes > 15e6


def test_a_table_shows_exact_peaks_only() -> None:
    numbers = {
        "gpu": {"calibrate_peak_bytes": 7e6, "calibrate_peak_how": EXACT, "calibrate_on": "cuda:0"},
        "cpu": {"calibrate_peak_bytes": 9e6, "calibrate_peak_how": SAMPLED, "calibrate_on": "cpu"},
        "old": {"calibrate_peak_bytes": 4096, "calibrate_peak_how": "resident memory, sampled"},
    }
    found = {r["recipe"]: r for r in rows(Scores([Measured(k, 0, {}, {}, v) for k, v in numbers.items()]))}
    assert found["cpu"]["calibrate_peak_bytes"] == 9e6 and found["cpu"]["calibrate_peak_how"] == SAMPLED
    assert "calibrate_peak_bytes" not in found["old"]
    column = next(c for c in shown_columns(list(found.values())) if c[0] == "calibrate_peak_bytes")
    said = {name: cell(row, column[0], column[2], column[3]) for name, row in found.items()}
    assert said == {"gpu": "7.0", "cpu": "–", "old": "–"}
    assert peaks(list(found.values())) == f"1 x {EXACT}, 1 x {SAMPLED}"
    assert not [c for c in shown_columns([found["cpu"]]) if c[0] == "calibrate_peak_bytes"]


def test_a_committed_table_of_before_shows_what_was_exact() -> None:
    row = {"recipe": "a", "calibrate_peak_bytes": 3e6, "calibrate_on": "cuda"}
    assert cell(row, "calibrate_peak_bytes", "{:.1f}", 1e-6) == "3.0"
    assert cell({**row, "calibrate_on": "cpu"}, "calibrate_peak_bytes", "{:.1f}", 1e-6) == "–"


def test_bit_operations_by_the_rule() -> None:
    """Multiply-accumulates x bits of the weight x bits of the input, 16 for floating point; of 16 x 16."""
    bits = [(4, 8, 1000), (8, None, 10), (None, None, 1)]
    formats = [[None if b is None else SimpleNamespace(bits=b) for b in pair[:2]] for pair in bits]
    layers = [
        SimpleNamespace(weight=w, activation=a, macs=pair[2], bytes_after=5, path="x from codes: y")
        for (w, a), pair in zip(formats, bits, strict=True)
    ]
    ledger = SimpleNamespace(
        layers=layers,
        quantized=layers[:2],
        bytes_after=9,
        bytes_before=20,
        mean_weight_bits=4.5,
        arithmetic="",
    )
    found = costs(ledger)
    wanted = 1000 * 4 * 8 + 10 * 8 * 16 + 16 * 16
    assert found["tera_bit_ops"] == pytest.approx(wanted / 1e12)
    assert found["bit_ops_share"] == pytest.approx(wanted / (1011 * 256)) and found["bytes_quantized"] == 15
    layers[0].macs = None
    assert costs(ledger)["bit_ops_share"] is None
