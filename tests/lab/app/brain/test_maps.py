"""What is drawn on brain slices, of a trained run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gradio")

from lab.app.brain import maps, page
from lab.errors import InputError


def test_a_value_for_every_voxel(trained_run: Path) -> None:
    subject, _ = maps.subject_of(str(trained_run))
    found = {kind: maps.voxel_values(trained_run, kind, 1) for kind in maps.KINDS}
    for kind, (what, values) in found.items():
        assert np.shape(values) == (subject.n_voxels,) and np.isfinite(values).all() and what, kind
    for kind in (maps.SEMANTIC, maps.STRUCTURAL):  # shares of one whole
        assert np.sum(found[kind][1]) == pytest.approx(1, rel=1e-4)
    assert len(set(found[maps.CLUSTERS][1].tolist())) <= 4


@pytest.mark.parametrize(("kind", "trial"), [("<b>", 0), (maps.RESPONSE, 4), (maps.RESPONSE, -1)])
def test_what_cannot_be_drawn_is_refused(trained_run: Path, kind: str, trial: int) -> None:
    with pytest.raises(InputError, match=r"cannot be drawn|test pictures 0 to 3"):
        maps.voxel_values(trained_run, kind, trial)


def test_a_higher_threshold_leaves_fewer_voxels(trained_run: Path) -> None:
    _, low = maps.slices(trained_run, maps.RESPONSE, 0, 0.1)
    _, high = maps.slices(trained_run, maps.RESPONSE, 0, 0.9)
    count = [int(text.split(" of 60 voxels")[0].split()[-1]) for text in (low, high)]
    assert count == [54, 6]


def test_sliders_start_where_the_run_stands(trained_run: Path) -> None:
    assert page.own_settings(trained_run) == {"guidance": 2.0, "strength": 0.5, "steps": 4}
