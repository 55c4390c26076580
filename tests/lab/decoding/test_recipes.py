"""Every method through the decoder: recorded on left-out predictions, calibrated, decoded."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import quant
from lab import zoo
from lab.cache import cache_folder
from lab.decoding import recipes
from lab.decoding.bits import ledger_facts
from lab.decoding.conditions import Conditions, find_conditions, refuse_without_sampling
from lab.decoding.data import open_subjects
from lab.decoding.drawing import settings_of
from lab.decoding.recipes import DecoderRecipe, decoded
from lab.decoding.recording import decoder_recording
from lab.decoding.settings import ReconstructConfig
from lab.decoding.trained import TrainedRun
from lab.errors import InputError
from lab.jobs.checks import check_recipe
from lab.progress import silent
from quant.layers.install import state_of
from quant.recordings.shards import hash_tensor

TRAINED = "train_steps=1+train_rows=1+calibration_rows=2+held_out_rows=0"
#: One preset of every method, with budgets that a test can afford.
RECIPES = {
    "rtn": "rtn-w4a4",
    "mixdq": "mixdq-w8a8+points=8",
    "eda_dm": "eda-dm-w4a8+points=2+iterations=1+batch_size=2+feature_samples=2",
    "svdquant": "svdquant-w4a4+samples=2+steps=1+rows=16+smooth=none+iterations=1",
    "lowbit_fp": "fp8-fp8+samples=2+steps=1+rows=16+clips=3",
    "lrq_dit": "lrq-dit-w4a4+samples=1+greedy_steps=2",
    "dgq": "dgq-w4a6+samples=2",
    "efficientdm": f"efficientdm-w4a8+{TRAINED}",
    "quest": f"quest-w4a8+{TRAINED}+probe_rows=1+stages=time",
    "binarydm": f"binarydm-w1a8+{TRAINED}+outer_bases=4+outer=0.5",
    "qvgen": f"qvgen-w4a4+{TRAINED}",
}
TWICE = ("rtn", "mixdq")
"""Methods that are tried on both denoisers; the U-Net has twice as many layers."""


class Memory:
    """Steps that are kept in memory, and the names of those that were computed."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    def __call__(self, name: str, compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        if name not in self.kept:
            self.kept[name] = dict(compute())
        return self.kept[name]


@pytest.fixture(scope="module")
def config(trained_run: Path, shallow: None) -> ReconstructConfig:
    return TrainedRun.open(trained_run).config.model_copy(update={"noise_seeds": 1})


@pytest.fixture(scope="module")
def given(trained_run: Path, config: ReconstructConfig) -> Conditions:
    run, data = TrainedRun.open(trained_run), open_subjects(config, silent)
    return find_conditions(Memory(), config, data.subject, run.network, "cpu", silent)


@pytest.fixture(scope="module")
def full(config: ReconstructConfig, given: Conditions) -> dict[str, np.ndarray]:
    """Full precision's pictures by denoiser."""
    shown = {}
    for denoiser in zoo.DECODERS:
        one = config.model_copy(update={"denoiser": denoiser})
        shown[denoiser] = decoded(Memory(), "full", one, DecoderRecipe("none"), given, "cpu", silent)[0][0]
    return shown


def cases() -> list[Any]:
    both = [(method, "dit-64") for method in RECIPES] + [(method, "unet-64") for method in TWICE]
    return [pytest.param(*case, id="-".join(case)) for case in both]


def test_every_method_has_a_case() -> None:
    assert set(RECIPES) == set(quant.list_methods())


@pytest.mark.parametrize(("method", "denoiser"), cases())
def test_a_recipe_decodes(
    method: str, denoiser: str, config: ReconstructConfig, given: Conditions, full: dict[str, np.ndarray]
) -> None:
    one = config.model_copy(update={"denoiser": denoiser})
    recipe = check_recipe(RECIPES[method], denoiser)
    pictures, facts = decoded(Memory(), "x", one, recipe, given, "cpu", silent)
    assert pictures[0].shape == given.truth.shape and np.isfinite(pictures[0]).all()
    assert facts["ledger"]["method"] == method
    assert facts["decoder_bytes"] < facts["decoder_bytes_before"]
    gap = np.abs(pictures[0] - full[denoiser]).mean()
    assert 0 < gap < 0.2  # the decoder changed, and draws what it drew
    if recipe.calibrates:
        assert facts["ledger"]["trajectories"] == decoder_recording(one, given).hash


def test_a_native_recipe_says_how_its_kernels_were_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Known once something is drawn, and kept with it for a run that goes on."""

    def native_(model: Any) -> None:
        for line in state_of(model).ledger.quantized:
            line.path = "native: int8"

    def drawn(config: Any, model: Any, *_: Any) -> np.ndarray:
        state_of(model).ledger.launches = "CUDA graph"
        return np.zeros((1, 2, 2), np.float32)

    monkeypatch.setattr(quant, "native_", native_)
    monkeypatch.setattr(recipes, "draw", drawn)
    config: Any = SimpleNamespace(denoiser="dit-64", noise_seeds=2, seed=0)
    given: Any = SimpleNamespace(
        truth=np.zeros((1, 2, 2)), start=np.zeros(1), tokens=None, predicted={"tokens": np.zeros(1)}
    )  # fmt: skip
    recipe, step = DecoderRecipe("rtn-w8a8", "rtn-w8a8", native=True), Memory()
    for _ in range(2):
        pictures, facts = decoded(step, "x", config, recipe, given, "cpu", silent)
        assert len(pictures) == 2
        assert re.fullmatch(r"native in (\d+) of \1 layers, CUDA graph", ledger_facts(facts)["arithmetic"])
        monkeypatch.setattr(recipes, "draw", None)
    assert "launches" not in step.kept["ledger-x"] and step.kept["ledger-x"]["ledger"]["launches"] == ""


def test_who_waited_for_the_same_training_takes_what_was_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Checkpoints stay while somebody waits for them, and are gone after the last."""
    found = list[bool]()

    def trained(*words: Any) -> Any:
        state = words[5]
        found.append(state.is_dir())
        state.mkdir(parents=True, exist_ok=True)
        if len(found) == 1:
            second.start()
            assert waits.wait(20)
        return None, Plain(), Plain()

    class Plain:
        training, to_dict = True, staticmethod(dict)

    monkeypatch.setenv("BRAINLAB_CACHE", str(tmp_path))
    monkeypatch.setattr(recipes, "quantized_denoiser", trained)
    monkeypatch.setattr(recipes, "decoder_recording", lambda *_: SimpleNamespace(hash="a"))
    monkeypatch.setattr(recipes, "sizes_of", lambda *_: {})
    waits, plan = threading.Event(), Plain()
    config = SimpleNamespace(denoiser="dit-64", noise_seeds=0, seed=0)
    given = SimpleNamespace(start=np.zeros(1), predicted={"tokens": np.zeros(1)})
    recipe = DecoderRecipe("x", "x", calibrates=True, plan=plan)  # type: ignore[arg-type]

    def once(heard: Any) -> None:
        decoded(Memory(), "x", config, recipe, given, "cpu", heard)  # type: ignore[arg-type]

    second = threading.Thread(target=once, args=(lambda *_: waits.set(),))
    once(silent)
    second.join(20)
    assert found == [False, True] and not list((tmp_path / "training").iterdir())


def test_pictures_of_other_weights_are_not_put_beside_these(
    config: ReconstructConfig, given: Conditions, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Memory()
    decoded(kept, "full", config, DecoderRecipe("none"), given, "cpu", silent)
    monkeypatch.setattr("lab.decoding.recipes.weights_of", lambda denoiser: "another")
    with pytest.raises(InputError, match=r"full precision were drawn with other weights of .* now another\)"):
        decoded(kept, "full", config, DecoderRecipe("none"), given, "cpu", silent)
    del kept.kept["ledger-full"]["weights"]
    with pytest.raises(InputError, match=r"by an earlier version, which did not .* --checkpoints RUN"):
        decoded(kept, "full", config, DecoderRecipe("none"), given, "cpu", silent)


def test_pictures_of_other_predictions_are_not_put_beside_these(
    config: ReconstructConfig, given: Conditions
) -> None:
    kept = Memory()
    decoded(kept, "full", config, DecoderRecipe("none"), given, "cpu", silent)
    again = Conditions(**{**vars(given), "start": given.start + 0.1})
    with pytest.raises(InputError, match="full precision were decoded from other predictions"):
        decoded(kept, "full", config, DecoderRecipe("none"), again, "cpu", silent)


def test_the_recording_is_what_the_decoder_meets(config: ReconstructConfig, given: Conditions) -> None:
    store = decoder_recording(config, given)
    sampler = settings_of(config)
    assert store.timesteps == pytest.approx([500.0, 250.0]) and len(store.timesteps) == sampler.steps
    assert store.settings["guidance"] == sampler.guidance == config.guidance
    assert store.settings["null_condition"] == hash_tensor(zoo.null_tokens(config.denoiser))
    tokens = torch.stack([store.sample(key)["condition"] for key in range(len(store))])
    assert torch.equal(tokens, torch.from_numpy(given.left_out_tokens))
    tested = torch.from_numpy(given.tokens)
    assert (tokens[:, None] - tested[None]).flatten(2).abs().amax(-1).min() > 1e-3  # no test trial
    first = store.sample(0)["x"][0]  # half noise: neither a picture's latent nor pure noise
    assert 0.2 < float(first.std()) < 2
    written = {file: file.stat().st_mtime_ns for file in store.path.iterdir() if file.name != ".lock"}
    assert store.path.parent == cache_folder("recordings") and written
    again = decoder_recording(config, given)
    assert again.hash == store.hash and again.path == store.path
    assert written == {file: file.stat().st_mtime_ns for file in written}  # found, not made a second time
    other = decoder_recording(config.model_copy(update={"guidance": 1.0}), given)
    assert other.path != store.path


def test_left_out_trials_are_training_trials(trained_run: Path, given: Conditions) -> None:
    run = TrainedRun.open(trained_run)
    stimuli = run.network().held_out("sub-01")[0]
    subject = open_subjects(run.config, silent).subject
    assert set(stimuli.tolist()) <= set(subject.part("train").stimulus_id.tolist())
    assert len(given.left_out_start) == len(given.left_out_tokens) == min(64, len(stimuli))
    fewer = run.config.model_copy(update={"left_out": 4})
    found = find_conditions(Memory(), fewer, subject, run.network, "cpu", silent)
    assert len(found.left_out_start) == len(found.left_out_tokens) == 4


def test_too_few_left_out_trials(config: ReconstructConfig, given: Conditions) -> None:
    few = Conditions(**{**vars(given), "left_out_tokens": given.left_out_tokens[:2]})
    with pytest.raises(InputError, match=r"2 left-out training trials.*brain\.care\.folds"):
        decoder_recording(config, few)


def test_strength_zero_is_refused(config: ReconstructConfig) -> None:
    still = config.model_copy(update={"strength": 0.0})
    refuse_without_sampling(still, "none")
    with pytest.raises(InputError, match="the denoiser never runs"):
        refuse_without_sampling(still, "rtn-w4a4")


@pytest.mark.parametrize(
    ("recipe", "said"),
    {
        "svdquant-w4a5": "did you mean 'svdquant-w4a4'",
        "svdquant-w4a4+rnk=8": "no setting 'rnk'; did you mean 'rank'",
        "svdquant-w4a4+rank=-1": "rank = -1",
        "svdquant-w4a4+rank": "write PRESET\\+field=value",
        "none+rank=8": "has no settings to change",
        str(zoo.HOME / "allocations" / "dit-64" / "mixdq-w4-budget.yaml"): "which unet-64 does not have",
    }.items(),
)
def test_what_cannot_work_is_refused(recipe: str, said: str) -> None:
    with pytest.raises((InputError, quant.InputError), match=said):
        check_recipe(recipe, "unet-64")
