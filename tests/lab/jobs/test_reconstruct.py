"""The main job on a tiny planted recording: outputs, kill and resume, what a finished run does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from lab.cli.main import run
from lab.runs.metrics import equal_metrics

Capture = pytest.CaptureFixture[str]

SETS = """denoiser=dit-64 structure=brainit external=0 noise_seeds=2 n_samples=1 steps=2 strength=0.5
bootstrap=100 brain.train.epochs=1 brain.train.steps_per_epoch=2 brain.care.folds=1
brain.model.width=16""".split()
NEEDED = """leaks dataset subject simulated n_train n_test seed recipe pixcorr ssim ssim_gauss mse two_way_pix
leak_test_in_train decoder_bytes decoder_mean_weight_bits ridge.pixcorr ridge.ssim ridge.mse ridge.two_way_pix
ridge_tokens.pixcorr minus_ridge_tokens.pixcorr.low minus_ridge_tokens.pixcorr.p brain_correlation
brain_correlation.stimuli
mean_image.pixcorr fp.pixcorr fp.ssim paired_psnr_to_fp seconds_total""".split()


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory, shallow: None) -> Path:
    """A .mat recording whose voxels are linear in the pictures: 24 training and 4 test trials."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:12, :12]
    centres = rng.uniform(2, 10, (28, 2))
    pictures = np.exp(-((y - centres[:, :1, None]) ** 2 + (x - centres[:, 1:, None]) ** 2) / 6)
    stimuli = (pictures.transpose(0, 2, 1).reshape(28, -1) * 255).round().astype(np.uint8)
    voxels = stimuli / 255 @ rng.normal(size=(144, 60)) + 0.1 * rng.normal(size=(28, 60))
    labels = np.arange(28)[:, None] % 2 + 1
    path = tmp_path_factory.mktemp("mat") / "planted.mat"
    parts = {"fmri": voxels, "stim": stimuli, "label": labels}
    savemat(
        path,
        {
            f"{k}{s}": v[cut]
            for k, v in parts.items()
            for s, cut in (("Trn", slice(24)), ("Test", slice(24, 28)))
        },
    )
    return path


def words(recording: Path, out: Path, recipe: str = "rtn-w8a8") -> list[str]:
    base = ["brain", "reconstruct", "--dataset", "mat", "--root", str(recording), "--recipe", recipe]
    return [*base, "--seed", "3", "--out", str(out), *(a for s in SETS for a in ("--set", s))]


@pytest.fixture(scope="module")
def finished(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert run(words(recording, out)) == 0
    return out


def test_folder_and_metrics(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    assert not [key for key in NEEDED if key not in metrics]
    assert metrics["dataset"] == "mat" and metrics["recipe"] == "rtn-w8a8" and metrics["n_test"] == 4
    assert metrics["ridge.pixcorr"] > 0.8  # the planted voxels are linear in the pixels
    assert 8 <= metrics["decoder_mean_weight_bits"] < 11
    assert metrics["paired_psnr_to_fp"] > 25
    for name in (
        "config.yaml",
        "plan.json",
        "ledger.json",
        "subject.json",
        "report.html",
        "log.jsonl",
        "arrays.npz",
    ):
        assert (finished / name).is_file(), name
    assert len(list((finished / "images").glob("*_quantized.png"))) == 4
    assert not list(finished.rglob("*.part*"))


def test_finished_run_does_nothing(recording: Path, finished: Path, capsys: Capture) -> None:
    before = {
        p: p.stat().st_mtime_ns
        for p in finished.rglob("*")
        if p.is_file() and p.name not in ("log.jsonl", ".lock")
    }
    capsys.readouterr()
    assert run(words(recording, finished)) == 0
    again = capsys.readouterr().out
    assert "done before" in again
    assert "of 4 test pictures in training (" in again, "beside the scores"
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_data_that_were_moved_are_the_same_data_and_a_place_with_others_is_refused(
    recording: Path, finished: Path, tmp_path: Path, capsys: Capture
) -> None:
    (moved, other, begun) = (tmp_path / name for name in ("moved.mat", "other.mat", "begun"))
    shutil.copy(recording, moved)
    savemat(other, {k: v * 2 for k, v in loadmat(recording).items() if not k.startswith("__")})
    begin = ["brain", "prepare", *words(recording, begun)[2:]]
    assert run(begin) == 0 and run(["brain", "prepare", *words(moved, begun)[2:]]) == 0
    capsys.readouterr()
    assert run(words(moved, finished)) == 0 and "done before" in capsys.readouterr().out
    for out in (finished, begun):
        assert run(words(other, out)) == 2 and "was made from other data" in capsys.readouterr().err
    assert run(words(tmp_path / "nowhere.mat", finished)) == 4


@pytest.mark.usefixtures("undrawn")
def test_killed_run_goes_on_to_the_same_metrics(
    recording: Path, finished: Path, killed: Callable[[list[str], Path], None], tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    killed(words(recording, out), out / "steps" / "pictures-full-0.json")
    assert not (out / "metrics.json").exists()
    assert run(words(recording, out)) == 0
    assert equal_metrics(finished, out) == []
    events = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert any(e.get("name") == "pictures-full-0" and e.get("cached") for e in events)


def test_other_settings_are_refused(recording: Path, finished: Path, capsys: Capture) -> None:
    capsys.readouterr()
    assert run(words(recording, finished, "rtn-w4a4")) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1 and "rtn-w4a4" in error and "--out" in error


def test_dry_run_writes_nothing(recording: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "dry"
    assert run([*words(recording, out), "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "would write" in text and "of 4 test pictures in training (" in text and not out.exists()


@pytest.fixture
def corrected(recording: Path) -> Iterator[None]:
    """The same file with its test pictures in another order, for one test."""
    before, parts = recording.read_bytes(), loadmat(recording)
    parts["stimTest"] = parts["stimTest"][::-1]
    savemat(recording, {k: v for k, v in parts.items() if not k.startswith("__")})
    yield
    recording.write_bytes(before)


@pytest.mark.usefixtures("corrected")
@pytest.mark.parametrize("command", ["finished", "stopped", "brain decode", "brain bits"])
def test_what_was_worked_out_is_not_mixed_with_other_data(
    recording: Path, finished: Path, tmp_path: Path, capsys: Capture, command: str
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(finished, mine)
    if command == "stopped":
        (mine / "done.json").unlink()
        (mine / "metrics.json").unlink()
    line = words(recording, mine)
    if command.startswith("brain"):
        line = [*command.split(), str(mine), "--out", str(tmp_path / "out")]
    capsys.readouterr()
    assert run(line) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "was made from other data: subject 'S1' has changed since; put the former data back" in error
    assert not (tmp_path / "out").exists() and not (command == "stopped" and (mine / "metrics.json").exists())


def test_a_finished_run_whose_data_are_gone_or_only_copied_is_still_finished(
    recording: Path, finished: Path, capsys: Capture
) -> None:
    recording.touch()
    assert run(words(recording, finished)) == 0
    content = recording.read_bytes()
    recording.unlink()
    capsys.readouterr()
    assert run(words(recording, finished)) == 0
    assert "done before" in capsys.readouterr().out
    recording.write_bytes(content)


@pytest.mark.usefixtures("undrawn")
def test_what_is_odd_about_the_data_stands_beside_the_scores(
    recording: Path, finished: Path, tmp_path: Path, capsys: Capture
) -> None:
    parts = loadmat(recording)
    parts["fmriTest"] = parts["fmriTest"] * 1000
    savemat(tmp_path / "units.mat", {k: v for k, v in parts.items() if not k.startswith("__")})
    capsys.readouterr()
    checkpoints = ["--checkpoints", str(finished / "checkpoints" / "brainit")]
    command = [*words(tmp_path / "units.mat", tmp_path / "out"), *checkpoints]
    assert run([*command, "--dry-run"]) == 0
    assert "betas of test trials have " in capsys.readouterr().out, "before any work"
    assert run(command) == 0
    assert "warning: betas of test trials have " in capsys.readouterr().out
    assert run(["brain", "evaluate", str(tmp_path / "out")]) == 0
    assert "warning: betas of test trials have " in capsys.readouterr().out


def test_a_trial_is_decoded_alike_alone_with_others_and_in_the_run(
    recording: Path, finished: Path, tmp_path: Path
) -> None:
    def decoded(trials: str, *more: str) -> np.ndarray:
        out = tmp_path / trials
        words = [
            "brain",
            "decode",
            str(finished),
            "--trials",
            trials,
            "--seed",
            "3",
            "--out",
            str(out),
            *more,
        ]
        assert run(words) == 0
        return np.load(out / "pictures.npz")["decoded"][-1]

    own = np.load(finished / "arrays.npz")["fp"][2]
    np.testing.assert_allclose(decoded("2"), own, atol=1e-4)
    (tmp_path / "moved").mkdir()
    elsewhere = shutil.copy(recording, tmp_path / "moved" / recording.name)
    np.testing.assert_allclose(decoded("0,2", "--root", str(elsewhere)), own, atol=1e-4)
