"""What is drawn on brain slices, of a trained run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

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


def test_a_newcomers_network_has_attention_of_tokens_and_says_that_it_has_no_other(
    trained_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of every run of the demo: the shared network, adapted."""
    from brainit.training.adapting import AdaptedSubject

    subject, _ = maps.subject_of(str(trained_run))
    looked_at = list[int]()

    def look(betas: torch.Tensor, voxels: object, token: int) -> torch.Tensor:
        looked_at.append(token)
        return torch.softmax(betas, 1)

    shared = SimpleNamespace(config={"n_tokens": 17}, attention_map=look)
    scaler = SimpleNamespace(apply=lambda betas: betas)
    nothing: Any = None
    known = AdaptedSubject(subject.name, cast(Any, shared), cast(Any, scaler), nothing, np.zeros(60))
    monkeypatch.setattr(maps, "network_of", lambda folder: known)
    what, values = maps.voxel_values(trained_run, maps.SEMANTIC, 1)
    assert what == "attention, tokens, picture 1" and values.shape == (subject.n_voxels,)
    assert np.sum(values) == pytest.approx(1, rel=1e-4)
    assert looked_at[0] == 0 and looked_at[-1] == 16 and len(looked_at) == 8
    with pytest.raises(InputError, match="predicts no structural picture"):
        maps.voxel_values(trained_run, maps.STRUCTURAL, 1)


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
