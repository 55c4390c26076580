"""What every adapter must yield, whichever dataset it is."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from brainit import datasets
from brainit.errors import InputError

CASES = ["simulated", "nifti", "arrays", "digits69", "kay2008", "mat", "haxby2001", "haxby2001:nilearn"]
REAL = {
    "digits69": "digits69",
    "mat": "digits69/digit69_28x28.mat",
    "haxby2001": "haxby2001",
}


def test_every_dataset_is_under_contract():
    assert {case.split(":")[0] for case in CASES} == set(datasets.list_datasets())


@pytest.fixture(params=CASES)
def subject(request, roots):
    return datasets.open(request.param.split(":")[0], roots[request.param])


@pytest.fixture(params=REAL)
def real(request, shared_data):
    return datasets.open(request.param, shared_data / REAL[request.param])


def contract(s):
    n, v = s.betas.shape
    assert n > 3 and v > 0 and (s.n_trials, s.n_voxels) == (n, v)
    assert s.betas.dtype == np.float32 and np.isfinite(s.betas).all()
    assert (s.betas.std(0) > 0).all()
    assert s.xyz.shape == (v, 3) and s.xyz.dtype == np.float32
    assert s.has_places or np.isnan(s.xyz).all()
    for key in ("stimulus_id", "session", "run", "repeat", "split"):
        assert getattr(s, key).shape == (n,), key
    for key in ("session", "run", "repeat"):
        assert getattr(s, key).dtype.kind == "i" and (getattr(s, key) >= 0).all(), key
    assert s.stimulus_id.dtype.kind == "U" and (np.char.str_len(s.stimulus_id) > 0).all()
    assert set(s.split.tolist()) == {"train", "test"}
    assert s.labels is None or (s.labels.shape == (n,) and s.labels.dtype.kind == "U")
    assert {"source", "terms", "units", "warnings"} <= set(s.info) or s.dataset == "mat"
    for name, flags in s.roi.items():
        assert flags.shape == (v,) and flags.dtype == bool, name
    if s.noise_ceiling is not None:
        assert s.noise_ceiling.shape == (v,) and (0 <= s.noise_ceiling).all() and (s.noise_ceiling <= 1).all()


def pictures(s):
    if s.stimuli is None:
        with pytest.raises(InputError, match="categories only"):
            s.images()
        return
    images = s.images()
    assert images.dtype == np.float32 and images.shape[0] == s.n_trials
    assert images.shape[1] == images.shape[2] and images.min() >= 0 and images.max() <= 1
    assert images.max() > 0.5, "pictures are not black"
    assert set(s.stimuli) == set(s.stimulus_id.tolist())


def places(s):
    if s.mask is None:
        with pytest.raises(InputError, match="no mask"):
            s.to_image(np.zeros(s.n_voxels))
        return
    inside = np.asarray(s.mask.dataobj) != 0
    assert inside.sum() == s.n_voxels
    volume = s.to_image(s.betas[0])
    np.testing.assert_array_equal(np.asarray(volume.dataobj)[inside], s.betas[0])
    assert s.to_image(s.betas[:3]).shape == (*inside.shape, 3)
    where = nibabel.affines.apply_affine(s.mask.affine, np.argwhere(inside))
    np.testing.assert_allclose(s.xyz, where, atol=1e-3)
    few = s.keep_voxels(np.arange(s.n_voxels) % 2 == 0)
    kept = np.asarray(few.mask.dataobj) != 0
    np.testing.assert_array_equal(np.asarray(few.to_image(few.betas[0]).dataobj)[kept], s.betas[0][::2])
    assert s.keep_voxels(np.arange(s.n_voxels)[::-1]).mask is None


def parts(s):
    train, test = s.part("train"), s.part("test")
    assert train.n_trials + test.n_trials == s.n_trials and train.n_trials >= 2 and test.n_trials >= 1
    mean = s.mean_over_repeats()
    keys = list(dict.fromkeys(zip(s.split.tolist(), s.stimulus_id.tolist(), strict=True)))
    assert list(zip(mean.split.tolist(), mean.stimulus_id.tolist(), strict=True)) == keys
    split, key = keys[-1]
    same = (s.split == split) & (s.stimulus_id == key)
    np.testing.assert_allclose(mean.betas[-1], s.betas[same].mean(0), rtol=1e-4, atol=1e-5)
    for key in np.unique(s.stimulus_id):  # repeats are counted 0, 1, 2 ... in trial order
        assert s.repeat[s.stimulus_id == key].tolist() == list(range((s.stimulus_id == key).sum()))


@pytest.mark.parametrize("check", [contract, pictures, places, parts])
def test_adapter(subject, check):
    check(subject)


@pytest.mark.shared_data
@pytest.mark.parametrize("check", [contract, pictures, places, parts])
def test_adapter_on_real_files(real, check):
    check(real)


@pytest.mark.parametrize("case", CASES)
def test_reading_twice_gives_the_same(case, roots):
    one, two = (datasets.open(case.split(":")[0], roots[case]) for _ in range(2))
    np.testing.assert_array_equal(one.betas, two.betas)
    assert one.stimulus_id.tolist() == two.stimulus_id.tolist()


@pytest.mark.parametrize("case", CASES)
def test_check_finds_no_error_in_good_files(case, roots):
    findings = datasets.check(case.split(":")[0], roots[case])
    assert not [f for f in findings if f.severity == "error"], findings
    assert any("leak check" in f.message for f in findings)
    assert all("\n" not in f.message for f in findings)
