"""Reconstruct without pictures: categories, resumed after a kill, and a report that says why."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from brainit import datasets
from brainit.categories.tokens import run_names
from brainit.config import PRESETS
from lab.decoding.categories import record
from lab.decoding.categories import way as categories
from lab.decoding.categories.record import NO_LEAKS, leak_line
from lab.decoding.categories.way import brain_settings, run_categories
from lab.decoding.settings import ReconstructConfig
from lab.errors import InputError
from lab.files import read_npz
from lab.jobs.reconstruct import reconstruct
from lab.report import build_report
from lab.runs.folder import Run
from lab.runs.metrics import equal_metrics
from tests.brainit.datasets.conftest import write_haxby
from tests.lab.report.test_report import Page

BRAIN = {
    "model": {"width": 16, "heads": 2, "depth": 0},
    "clusters": {"n_clusters": 4},
    "train": {"epochs": 1, "steps_per_epoch": 2},
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> ReconstructConfig:
    root = write_haxby(tmp_path_factory.mktemp("haxby"), n_runs=4)
    return ReconstructConfig(dataset="haxby2001", root=str(root), preset="few", brain=BRAIN, bootstrap=200)


def go(settings: ReconstructConfig, out: Path) -> dict[str, Any]:
    subject = datasets.open(settings.dataset, settings.root)
    with Run.open(out, settings) as run:
        metrics = run_categories(run, settings, subject)
        build_report(out)
        run.finish()
    return metrics


@pytest.fixture(scope="module")
def finished(settings: ReconstructConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "whole"
    go(settings, out)
    return out


def test_metrics_are_complete_and_flat(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["pictures"] == "none" and metrics["recipe"] == "none" and not metrics["simulated"]
    assert (metrics["n_runs"], metrics["n_test"], metrics["n_train"]) == (4, 12, 9)
    assert metrics["category.chance"] == pytest.approx(1 / 3, abs=1e-6)
    for prefix in ("", "network.", "ridge."):
        name = f"{prefix}category.accuracy"
        assert 0 <= metrics[f"{name}.low"] <= metrics[name] <= metrics[f"{name}.high"] <= 1
        assert 0 < metrics[f"{name}.p"] <= 1
    assert metrics["ridge.category.accuracy"] > 0.8, "each category lights up its own voxel"


def test_predictions_are_kept_trial_by_trial(finished: Path) -> None:
    arrays, metrics = read_npz(finished / "arrays.npz"), json.loads((finished / "metrics.json").read_text())
    right = (arrays["category_predicted"] == arrays["label"]).mean()
    assert right == pytest.approx(metrics["category.accuracy"], abs=1e-6)
    assert arrays["category_confusion"].sum() == 12
    assert np.trace(arrays["ridge_category_confusion"]) / 12 == pytest.approx(
        metrics["ridge.category.accuracy"], abs=1e-6
    )
    named = arrays["category_names"][arrays["category_scores"].argmax(1)]
    assert named.tolist() == arrays["category_predicted"].tolist()


def test_a_stopped_run_goes_on_and_ends_with_the_same_metrics(
    settings: ReconstructConfig, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    real = categories.predict_held_out

    def stop_in_the_third(subject: Any, name: str, brain: Any, told: Any) -> Any:
        seen.append(name)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return real(subject, name, brain, told)

    monkeypatch.setattr(categories, "predict_held_out", stop_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        go(settings, tmp_path / "r")
    assert not (tmp_path / "r" / "metrics.json").exists()
    go(settings, tmp_path / "r")
    assert seen == ["run-1", "run-2", "run-3", "run-3", "run-4"]
    assert equal_metrics(tmp_path / "r", finished) == []


def test_training_stops_after_training_and_the_whole_job_goes_on_from_it(
    settings: ReconstructConfig, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "r"
    found = reconstruct(settings, out, until="train")
    assert (found["n_folds"], found["n_train"]) == (4, 9)
    assert not any((out / name).exists() for name in ("metrics.json", "report.html", "done.json"))

    def never(*_: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(categories, "predict_held_out", never)
    reconstruct(settings, out)
    assert equal_metrics(out, finished) == []


def test_report_says_why_there_are_no_pictures_and_shows_no_empty_sections(finished: Path) -> None:
    page = Page((finished / "report.html").read_text(encoding="utf-8"))
    for words in (
        "No pictures, because none are known", "do not record which picture was shown when",
        "labels permuted within runs against the fixed out-of-fold predictions", "ridge on betas",
        "Each run was left out once", "fMRI to categories",
    ):  # fmt: skip
        assert words in page.text, words
    for words in ("No reconstructed pictures", "No ledger", "Leak check", "Quantization", "Training"):
        assert words not in page.text, words
    assert any("Confusion matrices" in (image["alt"] or "") for image in page.images)


def test_what_was_given_by_hand_stays(settings: ReconstructConfig) -> None:
    brain = brain_settings(settings)
    assert (brain.train.epochs, brain.train.steps_per_epoch) == (1, 2)
    assert brain.train.patience == 3 and brain.care.beta_noise == 0.5
    plain = brain_settings(ReconstructConfig(dataset="haxby2001", preset="few", seed=5))
    assert plain.train.epochs == 5 < PRESETS["few"]["train"]["epochs"] and plain.train.seed == 5
    other = ReconstructConfig(dataset="haxby2001", preset="small")
    assert brain_settings(other) == other.brain


def test_neither_pictures_nor_labels_is_one_line(settings: ReconstructConfig, tmp_path: Path) -> None:
    from dataclasses import replace

    subject = replace(datasets.open(settings.dataset, settings.root), labels=None)
    with Run.open(tmp_path / "r", settings) as run, pytest.raises(InputError) as refused:
        run_categories(run, settings, subject)
    assert "neither pictures nor category labels" in str(refused.value) and "\n" not in str(refused.value)


def test_stimuli_seen_in_several_runs_are_no_clean_test_of_categories(settings: ReconstructConfig) -> None:
    subject = datasets.open(settings.dataset, settings.root)
    names = run_names(subject)
    assert leak_line(subject, names) == NO_LEAKS
    again = np.array([f"picture {k % 3}" for k in range(subject.n_trials)])
    assert "3 of 3 stimuli, by name, were shown in several runs" in leak_line(
        replace(subject, stimulus_id=again), names
    )


def test_what_is_written_has_brainit_first_and_the_fewest_trials(tmp_path: Path) -> None:
    labels = np.array(["cat", "cat", "face", "face"])
    said = {"brainit": labels, "network": labels[::-1], "ridge": np.array(["cat", "face", "face", "cat"])}
    parts = {"classes": ("cat", "face"), "chance": 0.5, "interval": (0.1, 0.9), "p": 0.2}
    shown = {"line": str, "per_category": {}, "per_run": {}, "null_mean": 0.5, "n_permutations": 9}
    scores = {
        arm: SimpleNamespace(predicted=names, accuracy=float((names == labels).mean()), **parts, **shown)
        for arm, names in said.items()
    }
    names = np.array(["run 1", "run 1", "run 2", "run 2"])
    subject = SimpleNamespace(
        dataset="toy", name="S1", simulated=True, n_trials=4, n_voxels=3, stimulus_id=np.arange(4)
    )
    folds = {"n_train": [3, 2], "weights": [[1.0, 0.25], [2.0, 0.75]], "held": ["run 1", "run 2"]}
    config = ReconstructConfig(dataset="simulated")
    found = record.metrics(config, subject, labels, names, scores, folds)
    assert (found["category.accuracy"], found["network.category.accuracy"]) == (1, 0)
    assert found["minus_ridge.category.accuracy"] == 0.5 and found["n_train"] == 2 and found["n_runs"] == 2
    (tmp_path / "subject.json").write_text("{}")
    run = SimpleNamespace(path=tmp_path)
    about = record.about(run, subject, SimpleNamespace(model_dump=lambda mode: {}), scores, folds)
    assert about["weights"] == {"ridge": 1.5, "network": 0.5} and about["cluster_of"].endswith("run 2")
