"""Fitting the encoder: it predicts unseen pictures, goes on after a stop, embeds a new subject alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from brainit.errors import InputError
from brainit.voxels.clusters import nearest_voxels
from brainit.voxels.universal import Fitted, collect, fit_universal, score_voxels


def _fit(world, names=(0, 1), **more):
    subjects = [world.subjects[i] for i in names]
    trials, ids = collect(subjects)
    config = more.pop("config", world.config)
    return fit_universal(world.backbone, world.pictures(ids), trials, config, **more), trials


def _correlation(world, fitted, scaler, subject) -> np.ndarray:
    test = subject.part("test").mean_over_repeats()
    predicted = fitted.predict(world.pictures(list(test.stimulus_id)), subject.name)
    return score_voxels(predicted, subject, scaler)


def test_predicts_voxels_on_unseen_pictures_and_embeds_a_new_subject_in_the_same_space(world) -> None:
    first, trials = _fit(world, (0,))
    score = _correlation(world, first, trials["S1.x"].scaler, world.subjects[0])
    assert score.correlation.mean() > 0.6
    assert 0.4 < np.mean(score.share) < 1.1
    assert first.history.best_epoch >= 0 and len(first.history.score) == world.config.epochs
    assert first.residuals["S1.x"].shape == (16, 24)

    new, trials = _fit(world, (1,), start=first.encoder)
    frozen = {k: v for k, v in first.encoder.state_dict().items() if not k.startswith("voxels.")}
    assert all(torch.equal(v, new.encoder.state_dict()[k]) for k, v in frozen.items())
    assert list(new.encoder.names) == ["S2.x"]
    assert _correlation(world, new, trials["S2.x"].scaler, world.subjects[1]).correlation.mean() > 0.6
    # voxel v looks at quarter v % 4 in both: the nearest voxel of the other subject does the same
    match = nearest_voxels(new.encoder.embeddings()["S2.x"], first.encoder.embeddings()["S1.x"])
    assert (match % 4 == np.arange(32) % 4).mean() > 0.6


def test_goes_on_after_a_stop_with_the_same_numbers(few, tmp_path: Path) -> None:
    whole, _ = _fit(few)

    class Stop(Exception):
        pass

    def stop(done: int, total: int, what: str) -> None:
        if done > total / 2:
            raise Stop

    with pytest.raises(Stop):
        _fit(few, folder=tmp_path, progress=stop)
    assert (tmp_path / "last.safetensors").is_file()
    again, _ = _fit(few, folder=tmp_path)
    for name, values in whole.encoder.state_dict().items():
        assert torch.equal(values, again.encoder.state_dict()[name]), name
    with pytest.raises(InputError, match="other data or settings"):
        _fit(few, folder=tmp_path, config=few.config.model_copy(update={"seed": 5}))


def test_does_not_go_on_from_another_start(few, tmp_path: Path) -> None:
    first, _ = _fit(few, (0,))
    _fit(few, (1,), start=first.encoder, folder=tmp_path)
    again, _ = _fit(few, (0,), config=few.config.model_copy(update={"seed": 5}))
    with pytest.raises(InputError, match="other data or settings"):
        _fit(few, (1,), start=again.encoder, folder=tmp_path)


def test_bypass_and_shift_are_trained_through_the_backbone(few) -> None:
    config = few.config.model_copy(update={"bypass_rank": 2, "bypass_scale": 1.0, "shift": 1, "dropout": 0.2})
    fitted, _ = _fit(few, config=config)
    bypass = list(fitted.encoder.bypass)
    assert bypass and all(layer.up.weight.abs().max() > 0 for layer in bypass)
    assert not any(p.requires_grad for p in fitted.backbone.parameters())


def test_saved_and_read_back(few, tmp_path: Path) -> None:
    fitted, _ = _fit(few)
    fitted.save(tmp_path / "e.safetensors")
    again = Fitted.load(tmp_path / "e.safetensors", few.backbone)
    pictures = few.pictures(["p000", "p001"])
    assert np.array_equal(again.predict(pictures, "S1.x"), fitted.predict(pictures, "S1.x"))
    assert np.array_equal(again.residuals["S2.x"], fitted.residuals["S2.x"])
    few.backbone.name = "another"
    with pytest.raises(InputError, match="fitted on backbone 'toy'"):
        Fitted.load(tmp_path / "e.safetensors", few.backbone)


def test_says_what_does_not_fit(few) -> None:
    with pytest.raises(InputError, match=r"2 blocks; allowed: 0 .* to 2"):
        _fit(few, config=few.config.model_copy(update={"taps": (3,)}))
    with pytest.raises(InputError, match="does not say which picture"):
        collect([replace(few.subjects[0], stimuli=None)])
    with pytest.raises(InputError, match="two subjects are called"):
        collect([few.subjects[0], few.subjects[0]])
    with pytest.raises(InputError, match="diverged in epoch 1"):
        _fit(few, config=few.config.model_copy(update={"lr": 1.0, "batch": 2, "cosine": float("inf")}))
