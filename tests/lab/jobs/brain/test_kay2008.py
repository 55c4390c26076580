"""``brain reconstruct --dataset kay2008`` on a generated file of that layout, with its own defaults."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lab.files import read_npz
from lab.jobs.brain.reconstruct import Settings, run
from lab.jobs.contract import Context
from tests.brainit.datasets.conftest import write_kay


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """28 training and 5 test pictures of 128 pixels in a range around 0; voxels add up their quarters."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(33, 4, 4)).repeat(32, 1).repeat(32, 2)
    pictures = (0.15 * coarse).clip(-0.5, 0.6).astype(np.float32)
    blocks = pictures[:, ::32, ::32].reshape(33, 16)
    betas = blocks @ rng.normal(size=(16, 50)) + 0.02 * rng.normal(size=(33, 50))
    betas[3, 7] = np.nan
    folder = tmp_path_factory.mktemp("kay") / "kay"
    write_kay(
        folder,
        stimuli=pictures[:28],
        stimuli_test=pictures[28:],
        responses=betas[:28],
        responses_test=betas[28:],
        roi=np.arange(50) % 8,
    )
    for name, n in (("kay_labels.npy", 28), ("kay_labels_val.npy", 5)):
        np.save(folder / name, np.full((4, n), "thing"))
    return folder


@pytest.mark.usefixtures("undrawn")
def test_its_defaults_decode_grey_pictures_without_places(root: Path, tmp_path: Path) -> None:
    quick = {"steps": 2, "bootstrap": 100, "device": "cpu", "brain": {"train": {"epochs": 1}}}
    settings = Settings.model_validate(
        {"dataset": "kay2008", "root": str(root), "out": tmp_path / "run", **quick}
    )
    assert (settings.structure, settings.noise_seeds, settings.n_samples) == ("blend", 1, 1)
    assert settings.brain.clusters.n_clusters == 64
    result = run(settings, Context())
    found = result.found
    assert (found["n_train"], found["n_test"], found["n_voxels"], found["simulated"]) == (28, 5, 49, False)
    arrays = read_npz(tmp_path / "run" / "arrays.npz")
    assert arrays["quantized"].shape == arrays["ridge_tokens"].shape == (5, 128, 128)
    assert arrays["attention"].mean() == pytest.approx(1, abs=1e-4) and "xyz" not in arrays
    assert not (tmp_path / "run" / "maps").exists()
    for name in ("pixcorr", "ridge.pixcorr", "ridge_tokens.pixcorr", "brain_correlation", "fp.ssim"):
        assert np.isfinite(found[name]), name
    # stimuli that voxels are linear in are answered as measured, better than what was decoded from them
    assert found["brain_correlation.stimuli"] > found["mean_image.brain_correlation"]
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert page.index('id="pictures"') < page.index('id="scores"') and "one sample" in page
