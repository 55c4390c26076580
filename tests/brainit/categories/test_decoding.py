from __future__ import annotations

import numpy as np
import pytest

from brainit.categories.decoding import decode_category, score_predictions
from brainit.errors import InputError


def toy(signal, n_runs=6, n_classes=4, n_features=30, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([rng.permutation(n_classes) for _ in range(n_runs)])
    runs = np.repeat(np.arange(n_runs), n_classes)
    centres = rng.normal(size=(n_classes, n_features))
    return rng.normal(size=(labels.size, n_features)) + signal * centres[labels], labels.astype(str), runs


def test_signal_is_found():
    score = decode_category(*toy(1.5), n_permutations=500)
    assert score.accuracy > 0.8 and score.p < 0.01 and score.chance == 0.25
    assert score.interval[0] < score.accuracy <= score.interval[1]
    assert score.confusion.sum() == score.n_trials == 24 and np.trace(score.confusion) == round(
        24 * score.accuracy
    )


def test_noise_is_not():
    p = [decode_category(*toy(0, seed=s), n_permutations=200).p for s in range(20)]
    assert np.mean(np.array(p) < 0.05) <= 0.2 and np.mean(p) > 0.3


def test_null_lies_at_chance():
    assert abs(decode_category(*toy(0), n_permutations=500).null_mean - 0.25) < 0.05


def test_equals_sklearn_ridge_classifier():
    from sklearn.linear_model import RidgeClassifier

    features, labels, runs = toy(0.5)
    ours = decode_category(features, labels, runs, n_permutations=0)
    for run in np.unique(runs):
        train, test = runs != run, runs == run
        mean, std = features[train].mean(0), features[train].std(0)
        x = (features - mean) / std
        alpha = (x[train] ** 2).sum(1).mean()
        theirs = RidgeClassifier(alpha=alpha).fit(x[train], labels[train]).predict(x[test])
        assert theirs.tolist() == ours.predicted[test].tolist()
    assert np.isnan(ours.p)


def test_held_out_run_does_not_leak_into_its_prediction():
    features, labels, runs = toy(1.0)
    one = decode_category(features, labels, runs, n_permutations=0)
    changed, last = features.copy(), np.flatnonzero(runs == 5)
    changed[last[0]] += np.random.default_rng(1).normal(size=changed.shape[1]) * 500
    two = decode_category(changed, labels, runs, n_permutations=0)
    # nor does another trial of the run move what a trial is scaled by
    assert two.predicted[last[1:]].tolist() == one.predicted[last[1:]].tolist()
    # swapping the held-out run's labels changes no prediction for that run
    swapped = labels.copy()
    swapped[runs == 5] = labels[runs == 5][::-1]
    three = decode_category(features, swapped, runs, n_permutations=0)
    assert three.predicted[runs == 5].tolist() == one.predicted[runs == 5].tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, y, r: (f, y[:-1], r), "they must be equal"),
        (lambda f, y, r: (np.where(np.arange(f.shape[1]) == 3, np.nan, f), y, r), "NaN"),
        (lambda f, y, r: (f, y, np.zeros_like(r)), "needs at least 2"),
        (lambda f, y, r: (f, np.full_like(y, "a"), r), "needs at least 2"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(InputError, match=message):
        decode_category(*change(*toy(1)))


def test_constant_features_score_without_failing():
    features, labels, runs = toy(1)
    score = decode_category(np.ones_like(features), labels, runs, n_permutations=50)
    assert score.accuracy <= 0.5


def test_fixed_predictions_are_scored_and_tested_within_runs():
    _, labels, runs = toy(0, n_runs=10)
    rng = np.random.default_rng(0)
    predicted = np.where(rng.random(labels.size) < 0.5, labels, rng.permutation(labels))
    score = score_predictions(predicted, labels, runs, n_permutations=999)
    assert score.accuracy == (predicted == labels).mean() and score.p < 0.01
    assert abs(score.null_mean - 0.25) < 0.02 and score.interval[0] < score.accuracy < score.interval[1]
    assert score.predicted.tolist() == predicted.tolist()
    # naming one category for a whole run says nothing: every permutation of the run scores the same
    constant = np.array(["0", "1"])[runs % 2]
    assert score_predictions(constant, labels, runs, n_permutations=99).p == 1.0


def test_p_of_random_predictions_is_uniform():
    _, labels, runs = toy(0, n_runs=8)
    rng = np.random.default_rng(1)
    p = [
        score_predictions(rng.permutation(labels), labels, runs, n_permutations=199, seed=s).p
        for s in range(60)
    ]
    assert 0.35 < np.mean(p) < 0.75 and np.mean(np.array(p) < 0.1) < 0.25


def test_bad_predictions():
    _, labels, runs = toy(0)
    with pytest.raises(InputError, match="they must be equal"):
        score_predictions(labels[:-1], labels, runs)
    with pytest.raises(InputError, match="'giraffe' is none of 0, 1, 2, 3"):
        score_predictions(np.where(runs == 0, "giraffe", labels), labels, runs)


@pytest.mark.shared_data
@pytest.mark.parametrize(("image", "least"), [("1slice", 0.55), ("25mm", 0.2)])
def test_haxby_betas_carry_the_category(shared_data, image, least):
    from brainit import datasets

    subject = datasets.open("haxby2001", shared_data / "haxby2001", image=image)
    score = decode_category(subject.betas, subject.labels, subject.run)
    assert score.accuracy > least and score.p < 0.01 and score.n_trials == 96
