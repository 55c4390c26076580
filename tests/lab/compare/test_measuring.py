"""Every number of one measurement, made again by hand with numpy, scikit-image and plain sampling."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from brainit import metrics
from lab.compare.bench import NULL_OFFSET, Bench
from lab.compare.measuring import Measured, Reference, measure, measure_null, reference, source_distances
from lab.compare.networks import DOMAIN
from lab.compare.recipes import OTHER_SEED
from lab.metrics.distances import frechet_distance, kid
from lab.metrics.manifold import precision_recall


@pytest.fixture(scope="module")
def shaken(bench: Bench) -> tuple[torch.nn.Module, Reference, Measured]:
    model, ref = bench.fresh(), reference(bench, 1)
    with torch.no_grad():
        model.last.weight.mul_(1.2)
    return model, ref, measure(bench, model, "shaken", ref, {"bytes": 7})


def eight(x: torch.Tensor) -> np.ndarray:
    return np.round(x.clamp(0, 1).double().numpy() * 255) / 255


def test_pictures_and_latents(bench: Bench, shaken) -> None:
    model, ref, part = shaken
    latents = bench.draw(model, 1)
    gap, size = (x.double().flatten(1).norm(dim=1).numpy() for x in (latents - ref.latents, ref.latents))
    np.testing.assert_allclose(part.arrays["latent_rel_l2"], gap / size, rtol=1e-6)
    np.testing.assert_allclose(part.arrays["latent_sqnr_db"], 20 * np.log10(size / gap), rtol=1e-6)
    ours, theirs = (eight(bench.decode(x)) for x in (latents, bench.draw(bench.model, 1)))
    psnr = [10 * np.log10(1 / np.mean((a - b) ** 2)) for a, b in zip(ours, theirs, strict=True)]
    np.testing.assert_allclose(part.arrays["psnr_db"], psnr, rtol=1e-6)
    ssim = [
        structural_similarity(a, b, data_range=1, channel_axis=0) for a, b in zip(ours, theirs, strict=True)
    ]
    np.testing.assert_allclose(part.arrays["ssim"], ssim, rtol=1e-6)
    truth = bench.sources.double().numpy()
    correlation = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(ours, truth, strict=True)]
    np.testing.assert_allclose(part.arrays["pixcorr"], correlation, rtol=1e-5, atol=1e-7)


def test_set_distances_and_identification(bench: Bench, shaken) -> None:
    model, _, part = shaken
    features, full = (bench.networks.features(bench.pictures(bench.draw(m, 1))) for m in (model, bench.model))
    truth = bench.networks.features(torch.from_numpy(eight(bench.sources)).float())
    a, b, c = (found[DOMAIN].numpy() for found in (features, full, truth))
    n = part.numbers
    assert n[f"KID({DOMAIN})"] == pytest.approx(kid(a, b)) != n[f"FD({DOMAIN})"]
    assert n[f"FD({DOMAIN})"] == pytest.approx(frechet_distance(a, b))
    precision, recall = precision_recall(a, c)
    assert (n[f"data.precision({DOMAIN})"], n[f"data.recall({DOMAIN})"]) == (precision, recall)
    both = {DOMAIN: torch.cat([truth[DOMAIN], truth[DOMAIN] + 50])}  # right, but half of it is missing
    half = source_distances(truth, both)
    assert (half[f"data.precision({DOMAIN})"], half[f"data.recall({DOMAIN})"]) == (1.0, 0.5)
    heads = (found["head"].numpy() for found in (features, truth))
    np.testing.assert_allclose(part.arrays["two_way"], metrics.two_way(*heads))
    assert n["bytes"] == 7


def test_error_at_each_timestep_and_along_the_way(bench: Bench, shaken) -> None:
    model, ref, part = shaken
    mse, nmse, states, others = [], [], [], []
    k = bench.settings.forced
    bench.draw(bench.model, 1, see=lambda step: states.append(step.seen))
    bench.draw(model, 1, see=lambda step: others.append(step.seen))
    for t, x in zip(bench.scheduler.timesteps, states, strict=True):
        halves = [bench.conditions[:k], bench.null.expand(k, -1, -1)]  # with guidance both are asked
        with torch.no_grad():
            y, q = (torch.cat([m(x[:k], t[None], c) for c in halves]).double() for m in (bench.model, model))
        mse.append(float((q - y).square().mean()))
        nmse.append(mse[-1] / float(y.square().mean()))
    np.testing.assert_allclose(part.curves["noise_mse"], mse, rtol=1e-5)
    np.testing.assert_allclose(part.curves["noise_nmse"], nmse, rtol=1e-5)
    assert part.numbers["noise_nmse"] == pytest.approx(np.mean(nmse))
    pairs = [*zip(others, states, strict=True), (bench.draw(model, 1), ref.latents)]
    growth = [float((q - y).double().square().sum() / y.double().square().sum()) for q, y in pairs]
    np.testing.assert_allclose(part.curves["growth"], growth, rtol=1e-5, atol=1e-12)
    assert part.curves["timestep"].tolist() == [float(t) for t in bench.scheduler.timesteps]


def test_batches_change_nothing(bench: Bench, shaken) -> None:
    model, _, part = shaken
    small = dataclasses.replace(bench, settings=dataclasses.replace(bench.settings, batch=3))
    sizes = set()
    with model.register_forward_pre_hook(lambda _, given: sizes.add(len(given[0]))):
        again = measure(small, model, "shaken", reference(small, 1), {})
    assert max(sizes) == 6  # with guidance twice as many, of states that are predicted from, too
    np.testing.assert_allclose(again.curves["noise_nmse"], part.curves["noise_nmse"], rtol=1e-4)
    np.testing.assert_allclose(again.curves["growth"], part.curves["growth"], rtol=1e-4, atol=1e-12)
    np.testing.assert_allclose(again.arrays["psnr_db"], part.arrays["psnr_db"], atol=0.1)


def test_the_null_is_full_precision_with_other_noise(bench: Bench, shaken) -> None:
    ref = shaken[1]
    null = measure_null(bench, OTHER_SEED, ref)
    gap = (bench.draw(bench.model, 1 + NULL_OFFSET) - ref.latents).double().flatten(1).norm(dim=1)
    found = null.arrays["latent_rel_l2"] * ref.latents.double().flatten(1).norm(dim=1).numpy()
    np.testing.assert_allclose(found, gap.numpy(), rtol=1e-6)
    assert null.numbers[f"KID({DOMAIN}).high"] >= -1 and "noise_nmse" not in null.numbers and null.seed == 1
