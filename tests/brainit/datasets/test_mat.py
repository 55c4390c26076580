from __future__ import annotations

import numpy as np
import pytest

from brainit import datasets
from tests.brainit.datasets.conftest import mat_parts, write_hdf5, write_mat


def test_pictures_are_upright_whichever_order_is_stored(tmp_path):
    upright = np.zeros((12, 7, 7), np.uint8)
    upright[:, 0, :3] = 255  # a bar at the top left
    columns = upright.transpose(0, 2, 1).reshape(12, 49)
    subject = datasets.open("mat", write_mat(tmp_path / "a.mat", stimTrn=columns))
    np.testing.assert_array_equal(subject.images()[0], upright[0] / 255)
    rows = datasets.open("mat", write_mat(tmp_path / "b.mat", stimTrn=upright.reshape(12, 49)), order="C")
    np.testing.assert_array_equal(rows.images()[0], upright[0] / 255)


@pytest.mark.parametrize("side", [1, 5, 28])
def test_any_side(tmp_path, side):
    parts = mat_parts(side=side)
    subject = datasets.open("mat", write_mat(tmp_path / "a.mat", **parts))
    assert subject.images().shape == (16, side, side)


def test_repeated_pictures_share_their_name_so_leaks_are_visible(tmp_path):
    parts = mat_parts()
    parts["stimTest"][:2] = parts["stimTrn"][3]
    path = write_mat(tmp_path / "a.mat", **parts)
    subject = datasets.open("mat", path)
    assert subject.stimulus_id[12] == subject.stimulus_id[13] == subject.stimulus_id[3]
    assert subject.repeat[[3, 12, 13]].tolist() == [0, 1, 2]
    errors = [f.message for f in datasets.check("mat", path) if f.severity == "error"]
    assert len(errors) == 1 and "1 of 3 test pictures in training" in errors[0]


def test_version_7_3_reads_the_same(tmp_path):
    parts = mat_parts()
    write_hdf5(tmp_path / "b.mat", parts)
    one = datasets.open("mat", write_mat(tmp_path / "a.mat", **parts))
    two = datasets.open("mat", tmp_path / "b.mat")
    np.testing.assert_array_equal(one.betas, two.betas)
    assert one.stimulus_id.tolist() == two.stimulus_id.tolist()


def test_labels_are_optional_and_named_for_digits(tmp_path):
    path = write_mat(tmp_path / "digit69_28x28.mat")
    assert datasets.open("digits69", tmp_path).labels[:2].tolist() == ["6", "9"]
    assert datasets.open("mat", path).labels[:2].tolist() == ["1", "2"]
    assert datasets.open("mat", write_mat(tmp_path / "n.mat", labelTrn=None)).labels is None


def test_zscore_uses_training_trials_only(tmp_path):
    subject = datasets.open("mat", write_mat(tmp_path / "a.mat"), zscore="train")
    np.testing.assert_allclose(subject.part("train").betas.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(subject.part("train").betas.std(0), 1, atol=1e-5)
    assert abs(subject.part("test").betas.mean(0)).max() > 0.05


def test_zero_variance_voxels_are_dropped_with_a_warning(tmp_path):
    parts = mat_parts()
    parts["fmriTrn"][:, 2] = 1.5
    path = write_mat(tmp_path / "a.mat", **parts)
    subject = datasets.open("mat", path)
    assert subject.n_voxels == 8
    assert subject.info["warnings"] == [f"{path}: dropped 1 of 9 voxels that never change in training"]
    assert any(f.severity == "warning" and "never change" in f.message for f in datasets.check("mat", path))


def test_nan_voxels_can_be_dropped_from_train_and_test_alike(tmp_path):
    parts = mat_parts()
    parts["fmriTest"][1, 4] = np.nan
    subject = datasets.open("mat", write_mat(tmp_path / "a.mat", **parts), nan="drop")
    assert subject.n_voxels == 8 and "NaN" in subject.info["warnings"][0]


def test_one_test_trial_works(tmp_path):
    subject = datasets.open("mat", write_mat(tmp_path / "a.mat", **mat_parts(n_test=1)))
    assert subject.part("test").n_trials == 1


@pytest.mark.shared_data
def test_digits69_is_what_the_paper_says(shared_data):
    subject = datasets.open("digits69", shared_data / "digits69")
    assert subject.betas.shape == (100, 3092) and subject.images().shape == (100, 28, 28)
    assert [(subject.part(s).labels == d).sum() for s in ("train", "test") for d in "69"] == [45, 45, 5, 5]
    # upright and with the right labels, a 6 has its thin tail above its middle and a 9 below
    profile = {d: subject.images()[subject.labels == d].sum((0, 2)) for d in "69"}
    skew = {d: _third_moment(p / p.sum()) for d, p in profile.items()}
    assert skew["6"] < -10 and skew["9"] > 10
    assert len(set(subject.stimulus_id)) == 100


def _third_moment(share):
    rows = np.arange(share.size)
    return ((rows - (rows * share).sum()) ** 3 * share).sum()
