"""Judging: what each picture has adds up to the whole's numbers."""

from __future__ import annotations

import math
from pathlib import Path

import quant
from benchmarks.trained.judging import judge
from lab import zoo
from lab.zoo.recordings import zoo_recording


def test_pictures_add_up_to_the_whole(tmp_path: Path) -> None:
    store = zoo_recording("dit-64", tmp_path / "recording", n=10, steps=3)
    model = zoo.load("dit-64")
    quant.quantize_(model, "rtn-w4a4")
    found = judge(model, zoo.load("dit-64"), store, 2)
    each = found["by_picture"]
    assert {len(values) for values in each.values()} == {2}
    assert math.isclose(sum(each["error"]) / sum(each["power"]), found["error"], rel_tol=1e-4)
    snr = 10 * math.log10(sum(each["final_power"]) / sum(each["final_error"]))
    assert math.isclose(snr, found["snr_db"], abs_tol=1e-3) and found["error"] > 1e-3
