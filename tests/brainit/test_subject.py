"""A subject made by hand: what does not fit together is refused when it is made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from brainit.errors import InputError
from brainit.subject import Subject


def subject(**changes: Any) -> Subject:
    ones, rng = np.ones(6, int), np.random.default_rng(0)
    given: dict[str, Any] = {
        "dataset": "mine", "name": "S1", "simulated": False, "betas": rng.normal(size=(6, 4)),
        "xyz": np.zeros((4, 3)), "stimulus_id": np.array([f"p{k}" for k in range(6)]), "session": ones,
        "run": ones, "repeat": ones * 0, "split": np.array(["train"] * 4 + ["test"] * 2),
        "stimuli": {f"p{k}": rng.random((8, 8)).astype(np.float32) for k in range(6)},
    }  # fmt: skip
    return Subject(**(given | changes))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"betas": np.zeros(6)}, r"betas have shape \(6,\)"),
        ({"betas": np.zeros((4, 6))}, r"xyz has shape \(4, 3\); allowed: \(6, 3\)"),
        ({"stimulus_id": np.array(["p0"])}, "stimulus_id has 1 values for 6 trials"),
        ({"labels": np.array(["cat"] * 5)}, "labels has 5 values for 6 trials"),
        ({"roi": {"V1": np.ones(6, bool)}}, "roi V1 has 6 values for 4 voxels"),
        ({"noise_ceiling": np.ones(3)}, "noise_ceiling has 3 values for 4 voxels"),
        ({"split": np.array(["train"] * 5 + ["valid"])}, "split is 'valid'; allowed: train, test"),
        ({"stimuli": {"p0": np.full((8, 8), 255, np.uint8)}}, "type uint8 from 255 to 255; allowed: float"),
        ({"stimuli": {"p0": np.full((8, 8), 128.0)}}, "type float64 from 128 to 128; allowed: float in 0..1"),
    ],
)
def test_what_does_not_fit_is_one_line(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        subject(**changes)
    assert "\n" not in str(caught.value)


def test_repeats_are_averaged_within_a_split_in_the_order_of_their_first_trial() -> None:
    names, splits = ["b", "a", "b", "c", "b", "a"], ["train", "train", "train", "test", "test", "train"]
    whole = subject(stimulus_id=np.array(names), split=np.array(splits), stimuli=None)
    mean = whole.mean_over_repeats()
    assert mean.stimulus_id.tolist() == ["b", "a", "c", "b"]
    assert mean.split.tolist() == ["train", "train", "test", "test"]
    x = whole.betas
    expected = [(x[0] + x[2]) / 2, (x[1] + x[5]) / 2, x[3], x[4]]
    np.testing.assert_allclose(mean.betas, expected, rtol=1e-5)


def test_what_fits_stays_so_through_every_cut() -> None:
    whole = subject(labels=np.array(["cat"] * 6), roi={"V1": np.ones(4, bool)}, noise_ceiling=np.ones(4))
    assert whole.part("test").mean_over_repeats().keep_voxels(np.arange(2)).betas.shape == (2, 2)
    assert replace(whole, stimuli=None).n_trials == 6
