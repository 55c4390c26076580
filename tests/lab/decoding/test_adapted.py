"""The shipped network adapted to a simulated subject: a file that is read again, a run decoded with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

import brainit.errors
from brainit import datasets
from brainit.datasets import simulated
from lab.decoding.cohort.adapted import adapted
from lab.decoding.settings import ReconstructConfig
from lab.decoding.trained import TrainedRun
from lab.errors import InputError
from lab.progress import silent


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two simulated subjects, as small as can be adapted to."""
    root = tmp_path_factory.mktemp("simulated") / "data"
    sizes = {"n_subjects": 2, "n_voxels": 60, "n_train": 40, "n_shared": 40, "n_test": 4, "n_repeats": 2}
    simulated.generate(root, simulated.preset("small", **sizes, n_sessions=1))
    return root


def test_a_folder_gives_its_subject_again_and_refuses_others(root: Path, tmp_path: Path) -> None:
    one, two = (datasets.open("simulated", root, f"sub-0{k}") for k in (1, 2))
    encoded: dict = {}
    found = adapted(one, tmp_path, silent, encoded=encoded)
    again = adapted(one, tmp_path, silent, encoded=encoded)
    test = one.part("test").mean_over_repeats()
    assert np.array_equal(found.predict(test).tokens, again.predict(test).tokens)
    assert (tmp_path / "adapted.safetensors").stat().st_size < 1_000_000
    with pytest.raises(InputError, match="other data or settings"):
        adapted(two, tmp_path, silent, encoded=encoded)
    few = one.select(np.r_[np.flatnonzero(one.split == "train")[:12], np.flatnonzero(one.split == "test")])
    with pytest.raises(brainit.errors.InputError, match="12 trials are too few"):
        adapted(few, None, silent, encoded=encoded)


@pytest.mark.usefixtures("undrawn")
def test_a_run_decodes_with_the_shared_network_and_is_opened_again(root: Path, tmp_path: Path) -> None:
    from lab.jobs.reconstruct import reconstruct

    config = ReconstructConfig(
        dataset="simulated", root=str(root), subject="sub-02", network="shared", structure="ridge",
        strength=1.0, steps=1, guidance=1.0, noise_seeds=1, recipe="none", denoiser="dit-64",
        train_on="one", bootstrap=100, device="cpu",
    )  # fmt: skip
    found = reconstruct(config, tmp_path / "run")
    assert {"pixcorr", "ridge_tokens.pixcorr", "minus_ridge_tokens.pixcorr.low"} <= set(found)
    assert {"clusters_dseg.nii.gz", "attention_statmap.nii.gz", "structure_statmap.nii.gz"} == {
        p.name for p in (tmp_path / "run" / "maps").iterdir()
    }
    network = TrainedRun.open(tmp_path / "run").network()
    assert network.subjects == ["sub-02"]
    assert set(network.held_out("sub-02")[0]) <= set(datasets.open("simulated", root, "sub-02").stimulus_id)


def test_structure_that_needs_a_network_trained_on_the_data_is_refused() -> None:
    with pytest.raises(ValidationError, match="structure 'blend' cannot be had"):
        ReconstructConfig(network="shared", structure="blend")
