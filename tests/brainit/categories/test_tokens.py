"""One fold of category decoding by tokens: what it may see, what it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from brainit.categories.tokens import predict_held_out, run_names
from brainit.config import parse_config
from brainit.errors import InputError
from brainit.subject import Subject
from tests.brainit.categories.test_decoding import toy

TINY = parse_config(
    {
        "model": {"width": 16, "heads": 2, "depth": 0},
        "clusters": {"n_clusters": 4},
        "train": {"epochs": 2, "steps_per_epoch": 4, "patience": 2},
    },
    preset="few",
)


def subject(signal: float = 2.0) -> Subject:
    betas, labels, runs = toy(signal)
    n = len(labels)
    return Subject(
        dataset="toy", name="one", simulated=True, betas=betas.astype(np.float32),
        xyz=np.full((betas.shape[1], 3), np.nan, np.float32), stimulus_id=np.arange(n).astype(str),
        session=np.ones(n, int), run=runs, repeat=np.zeros(n, int),
        split=np.where(runs == 5, "test", "train"), labels=labels,
    )  # fmt: skip


def test_a_clear_signal_is_named():
    fold = predict_held_out(subject(4.0), "run-2", TINY)
    assert (fold.category == subject(4.0).labels[fold.trials]).mean() >= 0.75
    assert fold.trials.tolist() == [8, 9, 10, 11] and fold.n_train == 20
    assert fold.scores.shape == (4, 4) and len(fold.cluster) == 30


def test_held_out_run_takes_no_part_in_training():
    plain, other = subject(), subject()
    held = plain.run == 2
    labels = np.where(held, np.roll(plain.labels, 1), plain.labels)
    # other labels for the held-out run, and the subject's own split turned round: nothing may change
    changed = replace(other, labels=labels, split=np.where(held, "train", "test"))
    one, two = (predict_held_out(s, "run-2", TINY) for s in (plain, changed))
    np.testing.assert_array_equal(one.scores, two.scores)
    assert one.category.tolist() == two.category.tolist() and one.network.tolist() == two.network.tolist()


def test_the_same_fold_twice_is_the_same():
    one, two = (predict_held_out(subject(), "run-0", TINY) for _ in range(2))
    np.testing.assert_array_equal(one.scores, two.scores)


def test_runs_are_named_with_their_session_where_there_are_several():
    plain = subject()
    assert run_names(plain)[-1] == "run-5"
    two = replace(plain, session=np.where(plain.run < 3, 1, 2))
    assert run_names(two)[[0, -1]].tolist() == ["ses-1-run-0", "ses-2-run-5"]


def test_bad_input():
    with pytest.raises(InputError, match="no run 'run-9'"):
        predict_held_out(subject(), "run-9", TINY)
    with pytest.raises(InputError, match="no category labels"):
        predict_held_out(replace(subject(), labels=None), "run-0", TINY)
