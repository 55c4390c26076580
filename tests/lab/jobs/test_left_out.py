"""External pictures, blending and tuning: nothing of a test picture gets in."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainit.structure import GlyphPrior
from lab.decoding import data as brain_data
from lab.decoding.settings import ReconstructConfig
from lab.errors import InputError
from lab.files import read_npz
from lab.jobs.brain import decode, tune
from lab.jobs.contract import Context
from lab.jobs.reconstruct import reconstruct

BRAIN: dict[str, Any] = {
    "model": {"width": 16, "heads": 2, "depth": 0},
    "clusters": {"n_clusters": 4},
    "train": {"epochs": 2, "steps_per_epoch": 4},
    "encoder_rank": 8,
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, shallow: None) -> ReconstructConfig:
    from brainit.datasets import simulated

    root = tmp_path_factory.mktemp("simulated") / "data"
    sizes = {"n_subjects": 1, "n_voxels": 60, "n_train": 40, "n_shared": 40, "n_test": 4, "n_repeats": 2}
    simulated.generate(root, simulated.preset("small", **sizes, n_sessions=1))
    return ReconstructConfig(
        dataset="simulated", root=str(root), structure="blend", steps=2, noise_seeds=1, guidance=1.0,
        bootstrap=100, train_on="one", brain=BRAIN, denoiser="dit-64",
    )  # fmt: skip


@pytest.fixture(scope="module")
def network(settings: ReconstructConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the trained network, for runs beside it: where structure comes from changes nothing of it."""
    home = tmp_path_factory.mktemp("runs")
    reconstruct(settings, home / "trained", until="train", checkpoints=home / "checkpoints")
    return home / "checkpoints"


def test_external_pictures_like_a_test_picture_are_left_out(
    settings: ReconstructConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = brain_data.open_subjects(settings, lambda *_: None)
    tested = data.subject.part("test")
    shown = np.stack([tested.stimuli[k] for k in np.unique(tested.stimulus_id)])  # type: ignore[index]
    other = np.random.default_rng(0).random((5, 64, 64, 3)).astype(np.float32)
    file = tmp_path / "pictures.npz"
    np.savez(file, images=(np.concatenate([shown, other]) * 255).round().astype(np.uint8))
    config = settings.model_copy(update={"external": 9, "external_stimuli": str(file)})
    found = brain_data.external_targets(config, data.subject, lambda *_: None)
    assert found is not None and len(found) == 5  # of 4 test pictures and 5 others
    assert brain_data.external_targets(settings, data.subject, lambda *_: None) is None
    # what the glyph prior draws, too
    said: list[str] = []
    monkeypatch.setattr(GlyphPrior, "draw", lambda *_: np.concatenate([shown, other]))
    drawn = config.model_copy(update={"external_stimuli": None})
    found = brain_data.external_targets(drawn, data.subject, lambda *words: said.append(words[2]))
    assert found is not None and len(found) == 5
    assert said[0] == "4 of 9 external pictures resemble test pictures: left out"
    monkeypatch.setattr(GlyphPrior, "draw", lambda *_: shown)
    with pytest.raises(InputError, match="all 4 external pictures resemble test pictures"):
        brain_data.external_targets(drawn, data.subject, lambda *_: None)


@pytest.mark.usefixtures("undrawn")
def test_a_blended_run_and_its_tuning(settings: ReconstructConfig, network: Path, tmp_path: Path) -> None:
    before = (network / "decoder.safetensors").stat().st_mtime_ns
    metrics = reconstruct(settings, tmp_path / "run", checkpoints=network)
    assert "ridge" in metrics["structure.made_by"] and "brainit_structural.pixcorr" in metrics
    assert all(metrics[f"structure.brainit_weight.from_{low}"] >= 0 for low in (0, 3, 6, 12, 24))
    for score in ("pixcorr", "ssim", "two_way_feature"):
        if score in metrics:  # the ImageNet network is optional
            gap = metrics[f"minus_ridge.{score}"]
            assert metrics[f"minus_ridge.{score}.low"] <= gap <= metrics[f"minus_ridge.{score}.high"]
            assert gap == pytest.approx(metrics[score] - metrics[f"ridge.{score}"], abs=1e-5)
    arrays = read_npz(tmp_path / "run" / "arrays.npz")
    assert not np.allclose(arrays["structural"], arrays["brainit_structural"])

    asked = tune.Settings(**dict(settings), strengths=(0.5,), averaged=(1, 2), every=1, checkpoints=network)
    found = tune.run(asked, Context())
    rows = found.rows
    assert (network / "decoder.safetensors").stat().st_mtime_ns == before  # not trained again
    assert [(r["tokens"], r["strength"], r["n_samples"]) for r in rows] == [
        ("ridge", 0.0, 0), ("structure", 0.0, 0), ("brainit", 0.5, 1), ("brainit", 0.5, 2),
    ]  # fmt: skip
    assert all(-1 <= row["pixcorr"] <= 1 for row in rows)
    best = max(rows[2:], key=lambda row: row["pixcorr"] + row.get("two_way_feature", row["two_way_pix"]))
    assert [row["best"] for row in rows].count(True) == 1 and best["best"]
    gap = [rows[0][f"pixcorr_minus_best{bound}"] for bound in ("_low", "", "_high")]
    assert gap == sorted(gap) and gap[1] == pytest.approx(rows[0]["pixcorr"] - best["pixcorr"], abs=2e-4)
    assert best["pixcorr_minus_best_high"] == 0 and "[" in found.tables()[0].rows[0]["pixcorr-best"]
    words = shlex.split(found.next_step())
    said = dict(pair.split("=", 1) for pair in words if "=" in pair)
    assert said["structure"] == "blend" and said["brain.model.width"] == "16", "the run that was tuned"
    assert words[words.index("--n-samples") + 1] == str(best["n_samples"])
    with pytest.raises(InputError, match="posterior, brainit, blend"):
        tune.run(asked.model_copy(update={"structure": "ridge"}), Context())


@pytest.mark.parametrize("structure", ["ridge", "picture"])
def test_masked_voxels_are_decoded_as_the_run_decodes(
    settings: ReconstructConfig,
    network: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    structure: str,
) -> None:
    """A region whose voxels stay as they are changes nothing, wherever structure and tokens come from."""
    how = {"tokens": "picture"} if structure == "picture" else {"structure": structure}
    run = network.parent / structure
    reconstruct(settings.model_copy(update=how | {"recipe": "none"}), run, until="train", checkpoints=network)

    def decoded(**changes: Any) -> dict[str, np.ndarray]:
        asked = decode.Settings(folder=run, trials=(0, 2), out=tmp_path / "decoded", **changes)
        return read_npz(Path(decode.run(asked, Context()).archive))

    plain = decoded()
    silent = decoded(mask="V1")
    assert not np.allclose(silent["ridge_to_pixels"], plain["ridge_to_pixels"], atol=1e-3)
    monkeypatch.setattr(decode, "_silenced", lambda test, whole, region: test.betas)
    for name, pictures in decoded(mask="V1").items():
        np.testing.assert_allclose(pictures, plain[name], atol=1e-3, err_msg=name)
