"""Scores against scikit-image, numpy and cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.color import rgb2gray
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from brainit.errors import InputError
from brainit.metrics import (
    average_scores,
    compare,
    constant_images,
    correlation_block,
    grey,
    mse,
    pixcorr,
    psnr,
    score,
    ssim,
    ssim_gauss,
    top1,
    two_way,
    two_way_pix,
)


@pytest.fixture(params=["grey", "colour"])
def pair(request):
    shape = (5, 20, 24) if request.param == "grey" else (5, 20, 24, 3)
    generator = np.random.default_rng(3)
    truth = generator.random(shape)
    return np.clip(truth + 0.2 * generator.standard_normal(shape), 0, 1), truth


def test_pixcorr_is_numpys_correlation(pair):
    expected = [np.corrcoef(r.ravel(), t.ravel())[0, 1] for r, t in zip(*pair, strict=True)]
    np.testing.assert_allclose(pixcorr(*pair), expected, atol=1e-12)


def test_ssim_is_scikit_images_default_window(pair):
    rec, truth = pair
    axis = -1 if truth.ndim == 4 else None
    expected = [
        structural_similarity(t, r, win_size=7, data_range=1, channel_axis=axis)
        for r, t in zip(rec, truth, strict=True)
    ]
    np.testing.assert_allclose(ssim(rec, truth), expected, atol=1e-12)


def test_gaussian_ssim_is_on_grey(pair):
    rec, truth = pair
    to_grey = rgb2gray if truth.ndim == 4 else (lambda x: x)
    expected = [
        structural_similarity(
            to_grey(t),
            to_grey(r),
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for r, t in zip(rec, truth, strict=True)
    ]
    np.testing.assert_allclose(ssim_gauss(rec, truth), expected, atol=1e-12)
    assert abs(ssim_gauss(rec, truth) - ssim(rec, truth)).max() > 1e-3  # two different numbers


def test_mse_and_psnr_are_scikit_images(pair):
    for i, (r, t) in enumerate(zip(*pair, strict=True)):
        assert mse(*pair)[i] == pytest.approx(mean_squared_error(t, r))
        assert psnr(*pair)[i] == pytest.approx(peak_signal_noise_ratio(t, r, data_range=1))
    assert np.isinf(psnr(pair[0], pair[0])).all()
    assert (psnr(pair[0], pair[0], cap=100) == 100).all()


def test_constant_picture_counts_as_zero_and_is_counted():
    rec = np.stack([np.full((12, 12), 0.3), np.eye(12)])
    truth = np.stack([np.eye(12), np.eye(12)])
    np.testing.assert_allclose(pixcorr(rec, truth), [0, 1], atol=1e-12)
    assert constant_images(rec).tolist() == [True, False]
    assert score(rec, truth).constant == 1


def test_grey_has_no_channels():
    assert grey(np.ones((1, 4, 4, 3))).shape == (1, 4, 4)


def test_correlation_block_layout():
    generator = np.random.default_rng(0)
    rec, truth = generator.random((3, 50)), generator.random((3, 50))
    block = correlation_block(rec, truth)
    assert block[0, 2] == pytest.approx(np.corrcoef(truth[0], rec[2])[0, 1])
    np.testing.assert_allclose(block, np.corrcoef(truth, rec)[:3, 3:], atol=1e-12)


def _with_correlations(wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features whose correlation block is `wanted`: orthonormal truths, one spare axis a reconstruction."""
    n = len(wanted)
    basis = np.linalg.svd(np.eye(2 * n + 1) - 1 / (2 * n + 1))[0][:, : 2 * n].T  # centred and orthonormal
    truth, spare = basis[:n], basis[n:]
    rest = np.sqrt(1 - (wanted**2).sum(0))
    return wanted.T @ truth + rest[:, None] * spare, truth


def test_two_way_directions_by_hand():
    # columns are reconstructions: rec 0 fits truth 0 best; rec 1 fits truth 0 better than its own.
    wanted = np.array([[0.5, 0.6, 0.1], [0.1, 0.3, 0.2], [0.2, 0.1, 0.4]])
    rec, truth = _with_correlations(wanted)
    np.testing.assert_allclose(correlation_block(rec, truth), wanted, atol=1e-10)
    np.testing.assert_allclose(two_way(rec, truth), [1.0, 0.5, 1.0])  # vary the truth: columns
    np.testing.assert_allclose(two_way(rec, truth, vary="reconstruction"), [0.5, 1.0, 1.0])  # rows
    assert top1(rec, truth).tolist() == [True, False, True]


def test_two_way_as_the_released_evaluators_write_it():
    generator = np.random.default_rng(1)
    truth = generator.random((30, 40))
    rec = truth + generator.standard_normal(truth.shape)
    r = np.corrcoef(truth, rec)[:30, 30:]
    success = r < np.diag(r)  # the evaluators' line: row vector, so the reconstruction is fixed
    assert two_way(rec, truth).mean() == pytest.approx(np.mean(success.sum(0)) / 29)


def test_ties_and_constants_fail():
    truth = np.stack([np.eye(8), np.eye(8), np.eye(8)[::-1]])
    assert two_way_pix(truth, truth).tolist() == [0.5, 0.5, 1.0]  # the twin ties and so wins
    flat = np.full((3, 8, 8), 0.5)
    assert two_way_pix(flat, truth).tolist() == [0, 0, 0]


def test_two_way_of_noise_is_chance():
    generator = np.random.default_rng(2)
    values = two_way(generator.random((300, 64)), generator.random((300, 64)))
    assert values.mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("rec", "truth", "says"),
    [
        (np.zeros((2, 8, 8)), np.zeros((2, 9, 9)), "resize"),
        (np.full((2, 8, 8), 2.0), np.zeros((2, 8, 8)), "expected 0..1"),
        (np.full((2, 8, 8), np.nan), np.zeros((2, 8, 8)), "not finite"),
        (np.zeros((2, 8)), np.zeros((2, 8)), "expected"),
        (np.zeros((0, 8, 8)), np.zeros((0, 8, 8)), "n >= 1"),
    ],
)
def test_bad_pictures_are_refused_in_one_line(rec, truth, says):
    with pytest.raises(InputError, match=says) as caught:
        pixcorr(rec, truth)
    assert "\n" not in str(caught.value)


def test_other_refusals():
    small = np.zeros((2, 5, 5))
    with pytest.raises(InputError, match="5x5"):
        ssim(small, small)
    with pytest.raises(InputError, match="at least 2"):
        two_way_pix(np.zeros((1, 8, 8)), np.zeros((1, 8, 8)))
    with pytest.raises(InputError, match="vary="):
        two_way_pix(np.zeros((2, 8, 8)), np.zeros((2, 8, 8)), vary="both")


def test_average_over_seeds_is_picture_by_picture(pair):
    rec, truth = pair
    both = average_scores([score(rec, truth), score(truth, truth)])
    np.testing.assert_allclose(both.values["mse"], mse(rec, truth) / 2)


def test_compare_gives_the_flat_numbers(pair):
    rec, truth = pair
    noise = np.random.default_rng(5).random(truth.shape)
    mean = np.broadcast_to(truth.mean(0), truth.shape)
    arms = {"quantized": [rec, noise], "fp": [truth, noise], "ridge": noise, "mean_image": mean}
    flat = compare(truth, arms, n_draws=500)
    assert flat["pixcorr"] == pytest.approx((pixcorr(rec, truth).mean() + pixcorr(noise, truth).mean()) / 2)
    assert flat["pixcorr.low"] < flat["pixcorr"] < flat["pixcorr.high"]
    assert flat["minus_ridge.pixcorr"] == pytest.approx(flat["pixcorr"] - flat["ridge.pixcorr"])
    assert flat["paired_psnr_to_fp"] == pytest.approx(
        (psnr(rec, truth).mean() + 100) / 2
    )  # equal pictures: the cap
    assert flat["chance.two_way_pix"] == 0.5
    assert abs(flat["chance.pixcorr"]) < flat["pixcorr"]
    assert all(np.isfinite(v) for v in flat.values())
    assert compare(truth, arms, n_draws=500) == flat
    with pytest.raises(InputError, match="no set"):
        compare(truth, {"fp": rec})


def test_features_give_top1_and_scorers_their_own_score_each_with_a_paired_test() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((12, 16, 16))
    near, far = np.clip(truth + 0.05 * rng.standard_normal(truth.shape), 0, 1), rng.random(truth.shape)
    more = {"distance": lambda pictures: np.abs(pictures - truth).mean((1, 2))}
    flat = compare(
        truth,
        {"quantized": near, "other": far, "same": near},
        n_draws=500,
        networks={"net": lambda pictures: pictures.reshape(len(pictures), -1)},
        more=more,
    )
    assert flat["top1_net"] == 1 and flat["chance.top1_net"] == pytest.approx(1 / 12)
    assert flat["top1_net.low"] == pytest.approx(0.025 ** (1 / 12)), "exact: all of 12 are not all"
    assert flat["other.top1_net"] < 0.4
    block = [[np.corrcoef(a.ravel(), b.ravel())[0, 1] for b in far] for a in truth]
    assert sum(np.argmax(block, 0) == np.arange(12)) / 12 == pytest.approx(flat["other.top1_net"])
    assert flat["distance"] == pytest.approx(np.abs(near - truth).mean())
    assert flat["minus_other.distance.high"] < 0 and flat["minus_other.distance.p"] < 0.01
    assert flat["minus_same.distance.p"] == 1
