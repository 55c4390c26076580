"""The decoder as a whole: nothing of the test trials, saving, attention, categories, ablation, bad input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from brainit.api import BrainDecoder, TargetTable, ablation, category_targets, fit, nearest_category, override
from brainit.errors import InputError, MissingDataError
from brainit.training.targets import Targets


def _same(a: Targets, b: Targets) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parts, b.parts, strict=True))


@pytest.mark.parametrize("method", ["profiles", "kmeans", "gmm-diag"])
def test_nothing_fitted_depends_on_test_trials(sample, tiny_config, method: str) -> None:
    """Other test betas and other targets of test stimuli change no number in the decoder."""
    config = override(tiny_config, {"clusters": {"method": method}})
    subject = sample.subjects[0]
    betas = subject.betas.copy()
    betas[subject.split == "test"] = 1e3
    flat = sample.table.targets.flat().clone()
    flat[torch.as_tensor(subject.split == "test")] = -50.0
    one = fit([subject], sample.table, config)
    two = fit(
        [replace(subject, betas=betas)],
        TargetTable(sample.table.ids, sample.table.targets.like(flat)),
        config,
    )
    assert np.array_equal(one.clusters.labels["S1"], two.clusters.labels["S1"])
    assert np.array_equal(one.scalers["S1"].mean, two.scalers["S1"].mean)
    assert torch.equal(one.target_scaler.scale, two.target_scaler.scale)
    assert one.weights == two.weights
    assert _same(one.predict(subject), two.predict(subject))


def test_targets_of_test_stimuli_are_not_needed(sample, tiny_config) -> None:
    train = sample.subjects[0].part("train")
    table = TargetTable(list(train.stimulus_id), sample.table.take(train.stimulus_id))
    assert len(fit(sample.subjects, table, tiny_config).predict(sample.subjects[0].part("test"))) == 5


def test_save_and_load_give_the_same_prediction(pair, tiny_config, tmp_path: Path) -> None:
    decoder = fit(pair.subjects, pair.table, override(tiny_config, {"care": {"folds": 2}}))
    decoder.save(tmp_path)
    again = BrainDecoder.load(tmp_path)
    for subject in pair.subjects:
        test = subject.part("test")
        assert _same(decoder.predict(test), again.predict(test))
        assert _same(decoder.predict_ridge(test), again.predict_ridge(test))
    assert again.config == decoder.config
    assert (tmp_path / "decoder.json").is_file()


def test_one_trial_equals_its_row_in_many(sample, tiny_config) -> None:
    decoder, test = fit(sample.subjects, sample.table, tiny_config), sample.subjects[0].part("test")
    one, all_rows = decoder.predict(test.select(np.array([3]))), decoder.predict(test)
    assert one.tokens.shape == (1, 3, 5)
    assert [tuple(m.shape) for m in one.structure] == [(1, 2, 4, 4), (1, 3, 2, 2)]
    torch.testing.assert_close(one.tokens[0], all_rows.tokens[3], atol=1e-5, rtol=1e-4)


def test_attention_map_is_a_share_of_voxels(sample, tiny_config) -> None:
    decoder, test = fit(sample.subjects, sample.table, tiny_config), sample.subjects[0].part("test")
    for token, scale in ((2, None), (15, 0)):
        share = decoder.attention_map(test, token, scale)
        assert share.shape == (5, 30)
        np.testing.assert_allclose(share.sum(1), 1, atol=1e-5)
        assert (share >= 0).all()
    with pytest.raises(InputError, match=r"token must be 0\.\.2"):
        decoder.attention_map(test, 3)
    with pytest.raises(InputError, match=r"scale must be 0\.\.1"):
        decoder.attention_map(test, 0, 2)


def test_beats_the_mean_picture_and_keeps_up_with_ridge(sample, tiny_config) -> None:
    decoder, test = fit(sample.subjects, sample.table, tiny_config), sample.subjects[0].part("test")
    truth = sample.table.take(test.stimulus_id).flat()
    error = {
        "brain-it": float(((decoder.predict(test).flat() - truth) ** 2).mean()),
        "ridge": float(((decoder.predict_ridge(test).flat() - truth) ** 2).mean()),
        "mean": float(((decoder.predict_mean(5).flat() - truth) ** 2).mean()),
    }
    assert error["brain-it"] < 0.5 * error["mean"]
    assert error["brain-it"] < 1.1 * error["ridge"]


def test_zero_variance_voxel_is_harmless(sample, tiny_config) -> None:
    betas = sample.subjects[0].betas.copy()
    betas[:, 7] = 3.0
    subject = replace(sample.subjects[0], betas=betas)
    assert torch.isfinite(fit([subject], sample.table, tiny_config).predict(subject).flat()).all()


def test_repeated_training_stimuli_never_straddle_the_split(sample, tiny_config) -> None:
    subject = sample.subjects[0]
    twice = replace(
        subject,
        stimulus_id=np.where(
            subject.split == "train", np.repeat(subject.stimulus_id[::2], 2)[:29], subject.stimulus_id
        ),
    )
    for average, count in ((True, 12), (False, 24)):
        decoder = fit([twice], sample.table, override(tiny_config, {"care": {"average_repeats": average}}))
        assert decoder.report["n_train"]["S1"] == count
        assert decoder.report["out_of_fold"]["n_trials"] == (3 if average else 6)


def test_categories_without_pictures(sample, tiny_config) -> None:
    subject = replace(sample.subjects[0], stimuli=None)
    table = category_targets(subject.labels, width=8)
    decoder = fit([subject], table, tiny_config, key="labels")
    names, scores = nearest_category(decoder.predict(subject.part("test")), table)
    assert scores.shape == (5, 2)
    train_names, _ = nearest_category(decoder.predict(subject.part("train")), table)
    assert (train_names == subject.part("train").labels).mean() > 0.8
    assert set(names) <= {"cat", "house"}


def test_ablation_uses_training_trials_only(sample, tiny_config) -> None:
    switches = {"as configured": {}, "direct": {"care": {"residual_on_ridge": False, "calibrate": "none"}}}
    rows = ablation(sample.subjects, sample.table, tiny_config, switches=switches, folds=2)
    assert [row["variant"] for row in rows] == list(switches)
    assert rows[0]["ridge"] == rows[1]["ridge"]
    assert rows[0]["calibrated"] < rows[1]["calibrated"]
    betas = sample.subjects[0].betas.copy()
    betas[sample.subjects[0].split == "test"] = 1e3
    changed = [replace(sample.subjects[0], betas=betas)]
    assert ablation(changed, sample.table, tiny_config, switches=switches, folds=2) == rows
    with pytest.raises(InputError, match="folds must be"):
        ablation(sample.subjects, sample.table, tiny_config, folds=20)


@pytest.mark.parametrize("method", ["roi", "random", "anatomical", "gmm"])
def test_every_cluster_method_trains(pair, tiny_config, method: str) -> None:
    config = override(tiny_config, {"clusters": {"method": method}, "train": {"epochs": 1}})
    assert fit(pair.subjects, pair.table, config).clusters.method == method


def test_bad_input_is_one_line(pair, tiny_config, tmp_path: Path) -> None:
    subject = pair.subjects[0]
    broken = subject.betas.copy()
    broken[0, 0] = np.nan
    cases = [
        (lambda: fit([], pair.table, tiny_config), "no subjects"),
        (lambda: fit([subject, subject], pair.table, tiny_config), "two subjects"),
        (
            lambda: fit(
                [replace(subject, name="a.b"), replace(subject, name="a_b")], pair.table, tiny_config
            ),
            "two subjects are called 'a_b' .a dot counts as _",
        ),
        (lambda: fit([replace(subject, betas=broken)], pair.table, tiny_config), "NaN"),
        (lambda: fit([subject.select(np.arange(3))], pair.table, tiny_config), "at least 4"),
        (lambda: fit([subject], {}, tiny_config), "no targets"),
        (
            lambda: fit([replace(subject, labels=None)], pair.table, tiny_config, key="labels"),
            "no category labels",
        ),
        (
            lambda: fit(
                [subject],
                pair.table,
                override(tiny_config, {"care": {"folds": 20}, "train": {"seed": 1}}),
                external=Targets(torch.zeros(2, 1, 1), []),
            ),
            "external targets",
        ),
        (
            lambda: fit(
                pair.subjects, pair.table, override(tiny_config, {"clusters": {"method": "profiles"}})
            ),
            "one subject only",
        ),
        (
            lambda: fit([replace(subject, betas=np.ones_like(subject.betas))], pair.table, tiny_config),
            "varies",
        ),
    ]
    for call, words in cases:
        with pytest.raises(InputError, match=words) as error:
            call()
        assert "\n" not in str(error.value)
    decoder = fit([subject], pair.table, tiny_config)
    with pytest.raises(InputError, match="does not know subject 'S2'"):
        decoder.predict(pair.subjects[1])
    with pytest.raises(InputError, match="29 voxels"):
        decoder.predict(subject.keep_voxels(np.arange(29)))
    with pytest.raises(MissingDataError, match="train the decoder first"):
        BrainDecoder.load(tmp_path / "nowhere")
    path = decoder.save(tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="not a readable safetensors file"):
        BrainDecoder.load(tmp_path)
