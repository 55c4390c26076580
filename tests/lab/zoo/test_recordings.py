"""Recordings of the zoo's denoisers: same sampling as the decoder's, disjoint keys, reopened, bad input."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import quant
from lab import zoo
from lab.cli.main import run
from lab.errors import InputError
from lab.zoo import recordings, stimuli
from lab.zoo.sampling import SamplerSettings, sample


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> quant.Trajectories:
    return recordings.zoo_recording("unet-64", tmp_path_factory.mktemp("r") / "u", n=8, steps=3)


def test_recording_is_what_the_decoder_draws(store: quant.Trajectories) -> None:
    rows = [store.sample(key) for key in range(2)]
    noise, condition, final = (
        torch.stack([r["x"][0] if name == "x" else r[name] for r in rows])
        for name in ("x", "condition", "final")
    )
    null = zoo.null_tokens("unet-64")
    drawn = sample(zoo.load("unet-64"), condition, null, noise, SamplerSettings(steps=3, guidance=2.0))
    assert torch.allclose(drawn, final, atol=1e-4)
    assert store.null_condition is not None and torch.equal(store.null_condition, null.float())
    scheduler = recordings.zoo_scheduler()
    scheduler.set_timesteps(3)
    assert store.timesteps == tuple(scheduler.timesteps.tolist())
    assert scheduler.timesteps[-1] > 300  # no step of almost no length at the end


def test_subsets_are_disjoint_and_reopening_changes_nothing(store: quant.Trajectories) -> None:
    keys = [store.keys(name) for name in ("calibrate", "distill", "evaluate")]
    assert sorted(key for part in keys for key in part) == list(range(8)) and all(keys)
    before = (store.path / "shard-000000.safetensors").stat().st_mtime_ns
    again = recordings.zoo_recording("unet-64", store.path, n=8, steps=3)
    assert again.hash == store.hash
    assert (store.path / "shard-000000.safetensors").stat().st_mtime_ns == before


def test_two_at_once_record_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []
    real = quant.record

    def slow(denoiser, scheduler, conditions, path, **options):
        calls.append(path)
        time.sleep(0.3)  # the other one is at the lock by now
        return real(denoiser, scheduler, conditions, path, **options)

    monkeypatch.setattr(quant, "record", slow)
    monkeypatch.setenv("BRAINLAB_CACHE", str(tmp_path))
    recordings.stimulus_tokens(torch.arange(2))  # imports are not what is tested
    zoo.load("dit-64")
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(recordings.zoo_recording, "dit-64", n=4, steps=1) for _ in range(2)]
        made = [job.result() for job in jobs]
    assert len(calls) == 1 and made[0].hash == made[1].hash


def test_conditions_for_recording_and_evaluation_do_not_meet() -> None:
    assert not set(recordings.order(stop=64).tolist()) & set(recordings.order(64).tolist())
    assert len(set(recordings.order().tolist())) == len(recordings.order())


def test_another_weight_is_another_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the denoiser, and of whatever makes its conditions: of clips the autoencoder as well."""
    monkeypatch.setattr(zoo, "HOME", tmp_path)
    monkeypatch.setattr(stimuli, "SHEET", tmp_path / "sheet")
    (tmp_path / "weights").mkdir()

    def marks(name: str) -> set[str]:
        return {recordings.fingerprint(name, {"n": n}) for n in (4, 8)}

    weights = {
        name: zoo.weight_file(name) for name in ("autoencoder-64", "encoder-64", "dit-64", "video-dit")
    }
    for file in weights.values():
        file.write_bytes(file.name.encode())
    both = {"video-dit", "dit-64"}
    for changed, known in (
        (weights["autoencoder-64"], {"video-dit"}),
        (weights["encoder-64"], both),
        (weights["dit-64"], {"dit-64"}),
        (tmp_path / "sheet", both),
    ):
        before = {name: marks(name) for name in both}
        assert len(before["video-dit"] | before["dit-64"]) == 4
        changed.write_bytes(b"other")
        assert {name for name, found in before.items() if not found & marks(name)} == known


def test_bad_input() -> None:
    with pytest.raises(InputError, match="not a denoiser of the zoo"):
        recordings.zoo_recording("encoder-64")
    with pytest.raises(InputError, match="there are stimuli for"):
        recordings.zoo_recording("unet-64", Path("unused"), n=100_000)


def test_calibrated_recipe_takes_a_recording_or_says_that_it_lacks_one(
    store: quant.Trajectories, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    zoo.load("unet-64").save_pretrained(model)
    command = ["quantize", str(model), "--recipe", "dgq-w8a8", "--out", str(tmp_path / "q"), "--json"]
    assert run(command) == 4
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "--recording" in error and not (tmp_path / "q").exists()
    assert run([*command, "--recording", str(tmp_path / "none")]) == 4
    assert run([*command, "--recording", str(store.path)]) == 0
