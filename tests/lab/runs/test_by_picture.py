"""Two runs are compared picture by picture, whatever their order; nothing is said of other pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from brainit.metrics import paired_interval
from lab.runs.by_picture import differences, write_by_picture


def test_pictures_are_paired_by_content(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth, first = rng.random((6, 8, 8)), rng.random(6)
    second, turned = first + 0.1 + 0.01 * rng.random(6), np.array([3, 1, 0, 5, 2, 4])
    for name in ("one", "two", "three", "old"):
        (tmp_path / name).mkdir()
    write_by_picture(tmp_path / "one", truth, {"fp": {"ssim": first}})
    write_by_picture(tmp_path / "two", truth[turned], {"fp": {"ssim": second[turned]}})
    write_by_picture(tmp_path / "three", truth + 0.1, {"fp": {"ssim": second}})
    found = differences(tmp_path / "one", tmp_path / "two")["fp", "ssim"]
    assert found == pytest.approx(paired_interval(second, first), abs=1e-6) and 0.1 < found.low < found.high
    for other in ("three", "old"):
        assert differences(tmp_path / "one", tmp_path / other) == {}


def test_trials_of_categories_are_paired(tmp_path: Path) -> None:
    label, run = np.tile([0, 1], 6), np.repeat(["a", "b"], 6)
    for name, wrong in (("one", 4), ("two", 1)):
        (tmp_path / name).mkdir()
        said = {f"{arm}category_predicted": label for arm in ("network_", "ridge_")}
        mine = np.concatenate([1 - label[:wrong], label[wrong:]])
        np.savez(tmp_path / name / "arrays.npz", label=label, run=run, category_predicted=mine, **said)
    found = differences(tmp_path / "one", tmp_path / "two")
    assert found["", "category.accuracy"].mean == pytest.approx(3 / 12)
    assert found["", "category.accuracy"].low >= 0 == found["ridge.", "category.accuracy"].high
