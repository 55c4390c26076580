from __future__ import annotations

import hashlib
import json
import time

import nibabel
import numpy as np
import pytest

from brainit import datasets
from brainit.datasets import simulated
from brainit.datasets.files.ceiling import noise_ceiling
from brainit.datasets.simulated import anatomy, design, features, make, tuning
from brainit.errors import InputError
from tests.brainit.datasets.conftest import TINY


def digest(root):
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_same_seed_same_files_and_another_seed_others(simulation, tmp_path):
    same = simulated.generate(tmp_path / "same", simulated.preset("small", **TINY))
    other = simulated.generate(tmp_path / "other", simulated.preset("small", **TINY, seed=1))
    npz = "stimuli/stimuli.npz"  # a zip holds the time of writing
    one, two, three = digest(simulation), digest(same), digest(other)
    assert {k: v for k, v in one.items() if k != npz} == {k: v for k, v in two.items() if k != npz}
    assert not {v for k, v in one.items() if "betas" in k} & {v for k, v in three.items() if "betas" in k}


def test_a_killed_run_goes_on_where_it_stopped(simulation, tmp_path, monkeypatch):
    config = simulated.preset("small", **TINY)
    write = make.write.subject

    def dies(root, number, *rest):
        if number == 1:
            (root / ".tmp-sub-02-x").mkdir()
            raise KeyboardInterrupt
        write(root, number, *rest)

    monkeypatch.setattr(make.write, "subject", dies)
    with pytest.raises(KeyboardInterrupt):
        simulated.generate(tmp_path / "s", config)
    assert not (tmp_path / "s" / "dataset_description.json").exists()
    first = (tmp_path / "s" / "sub-01").stat().st_mtime_ns
    monkeypatch.setattr(make.write, "subject", write)
    simulated.generate(tmp_path / "s", config)
    assert (tmp_path / "s" / "sub-01").stat().st_mtime_ns == first
    assert not list((tmp_path / "s").glob(".tmp*"))
    ours, theirs = digest(tmp_path / "s"), digest(simulation)
    assert {k: v for k, v in ours.items() if "npz" not in k} == {
        k: v for k, v in theirs.items() if "npz" not in k
    }


def test_a_finished_simulation_is_left_alone(simulation):
    before = digest(simulation)
    simulated.generate(simulation, simulated.preset("small", **TINY))
    assert digest(simulation) == before


def test_the_folder_is_made_on_first_use(tmp_path, monkeypatch):
    monkeypatch.setitem(simulated.PRESETS, "small", simulated.preset("small", **TINY))
    subject = datasets.open("simulated", tmp_path / "new")
    assert subject.simulated and subject.info["stimuli"] == "procedural pictures"
    with pytest.raises(InputError, match="holds seed 0, not 4"):
        datasets.open("simulated", tmp_path / "new", seed=4)


def test_achieved_noise_ceiling_is_the_stated_one(tmp_path):
    config = simulated.preset(
        "small", **{**TINY, "n_subjects": 1, "n_voxels": 300, "n_train": 200, "resolution": 3}
    )
    config = simulated.preset("small", **{**config.plain(), "n_test": 100, "n_repeats": 3, "n_sessions": 1})
    subject = datasets.open("simulated", simulated.generate(tmp_path / "s", config))
    found = noise_ceiling(subject.betas, subject.stimulus_id)
    assert abs(found.mean() - subject.noise_ceiling.mean()) < 0.02
    assert np.corrcoef(found, subject.noise_ceiling)[0, 1] > 0.85
    silent = subject.noise_ceiling == 0
    assert 0.05 < silent.mean() < 0.2 and found[silent].mean() < 0.06
    assert abs(subject.noise_ceiling[~silent].mean() - config.ceiling) < 0.03


def test_noise_ceiling_formula():
    rng = np.random.default_rng(0)
    signal = np.repeat(rng.normal(size=(400, 3)), 3, 0)
    betas = signal + rng.normal(size=signal.shape) * np.array([0.5, 1, 3])
    ids = np.repeat(np.arange(400), 3)
    np.testing.assert_allclose(noise_ceiling(betas, ids), [0.8, 0.5, 0.1], atol=0.05)
    np.testing.assert_allclose(noise_ceiling(betas, ids, 3), [12 / 13, 0.75, 0.25], atol=0.05)
    with pytest.raises(InputError, match="repeats are needed"):
        noise_ceiling(betas[::3], ids[::3])


def test_subjects_share_kinds_and_pictures_but_not_layout(simulation):
    one, two = (datasets.open("simulated", simulation, subject=s) for s in ("sub-01", "sub-02"))
    shared = set(one.part("train").stimulus_id) & set(two.part("train").stimulus_id)
    assert len(shared) == TINY["n_shared"]
    assert set(one.part("test").stimulus_id) == set(two.part("test").stimulus_id)
    assert {tuple(p) for p in one.xyz.tolist()} != {tuple(p) for p in two.xyz.tolist()}
    tables = [(simulation / s / f"{s}_desc-truth_voxels.tsv").read_text() for s in ("sub-01", "sub-02")]
    kinds = [{line.split("\t")[0] for line in t.splitlines()[1:]} for t in tables]
    assert kinds[0] & kinds[1] >= {"energy", "feature", "noise"} and tables[0] != tables[1]


def test_voxels_lie_in_visual_cortex_and_see_the_other_half_of_the_field():
    cortex = anatomy.grow(simulated.preset("small", n_voxels=600), np.random.default_rng(0))
    places = nibabel.affines.apply_affine(cortex.affine, np.argwhere(cortex.inside))
    assert len(places) == 600 and places[:, 1].max() < -30 and np.abs(places[:, 0]).max() < 60
    early = cortex.area < 3
    outside = np.hypot(cortex.x, cortex.y) > 1
    assert (np.sign(places[:, 0]) != np.sign(cortex.x))[early & outside].mean() > 0.85
    v1 = cortex.area == 0
    eccentricity = np.hypot(cortex.x, cortex.y)[v1]
    assert np.corrcoef(eccentricity, places[v1, 1])[0, 1] > 0.7, "the fovea is at the occipital pole"
    assert np.corrcoef(cortex.y[v1], places[v1, 2])[0, 1] < -0.2, "the lower field is above the calcarine"
    assert np.median(cortex.sigma[v1]) < np.median(cortex.sigma[cortex.area == 3])


def test_filters_answer_what_they_are_for():
    x = np.linspace(0, 1, 64, endpoint=False)
    vertical = np.broadcast_to(0.5 + 0.4 * np.sin(2 * np.pi * 8 * x), (64, 64)).astype(np.float32)
    red = np.zeros((64, 64, 3), np.float32)
    red[..., 0] = 1
    plain = np.stack([np.repeat(vertical[..., None], 3, -1), np.repeat(vertical.T[..., None], 3, -1), red])
    seen = features.maps(plain)
    energy = seen["energy"].mean(1).reshape(3, 3, 6)
    assert np.unravel_index(energy[0].argmax(), (3, 6)) == (1, 0), "8 pixels a cycle, vertical bars"
    assert np.unravel_index(energy[1].argmax(), (3, 6)) == (1, 3)
    assert energy[2].max() < 1e-3 and seen["colour"][2, :, 0].min() > 0.9
    shifted = features.maps(np.roll(plain, 2, 2))["energy"].mean(1)
    np.testing.assert_allclose(shifted[0], seen["energy"].mean(1)[0], rtol=0.1, atol=0.01)


def test_receptive_fields_are_where_they_say():
    cortex = anatomy.grow(simulated.preset("small", n_voxels=50), np.random.default_rng(0))
    field = tuning.fields(cortex)
    k = int(np.argmin(np.hypot(cortex.x - 2, cortex.y - 1)))
    row, column = np.unravel_index(field[k].argmax(), (features.GRID,) * 2)
    assert abs(((column + 0.5) / features.GRID * 2 - 1) * anatomy.FIELD - cortex.x[k]) < 0.3
    assert abs(-((row + 0.5) / features.GRID * 2 - 1) * anatomy.FIELD - cortex.y[k]) < 0.3


def test_trials_cover_the_design():
    config = simulated.preset("small")
    trials = design.trials_of(config, 2, np.random.default_rng(0))
    train, test = design.pictures_of(config, 2)
    assert trials.picture.size == config.n_trials == 780
    assert sorted(trials.picture[~trials.test].tolist()) == sorted(train.tolist())
    for picture in test:
        assert sorted(trials.session[trials.picture == picture].tolist()) == [1, 2, 3]
    assert set(trials.run.tolist()) == {1, 2}


def test_pictures_may_be_given_and_features_too(tmp_path):
    images = np.random.default_rng(0).random((60, 16, 16)).astype(np.float32)
    seen = []

    def mean_colour(batch):
        seen.append(batch.shape)
        return batch.mean((1, 2))

    config = simulated.preset("small", **{**TINY, "n_subjects": 1, "ventral": "prototypes"})
    root = simulated.generate(
        tmp_path / "s",
        config,
        stimuli=images,
        stimuli_name="noise",
        features=mean_colour,
        features_name="colour",
    )
    about = json.loads((root / "dataset_description.json").read_text())
    assert (about["stimuli"], about["features"], about["Simulated"]) == ("noise", "colour", True)
    assert sum(s[0] for s in seen) == config.n_pictures and seen[0][1:] == (32, 32, 3)


def test_stages_of_a_network_may_be_given(tmp_path):
    seen = []

    def stages(batch):
        seen.append(len(batch))
        places = batch.reshape(len(batch), 8, 4, 8, 4, 3).mean((2, 4)).reshape(len(batch), 64, 3)
        return [places, places**2]

    config = simulated.preset("small", **{**TINY, "n_subjects": 2})
    root = simulated.generate(tmp_path / "s", config, deep=stages, features_name="places")
    assert json.loads((root / "dataset_description.json").read_text())["features"] == "places"
    learned, n_pictures = config.n_pictures - config.n_test, config.n_pictures
    assert sum(seen) == learned + n_pictures, "each picture is looked at once, whoever sees it"
    with pytest.raises(InputError, match="'mixtures' take deep, not features"):
        simulated.generate(tmp_path / "t", config, features=lambda batch: batch)
    assert not (tmp_path / "t").exists()


def test_subjects_differ_in_their_ceilings(tmp_path):
    config = simulated.preset("cohort-small")
    found = [config.ceiling_of(k) for k in range(config.n_subjects)]
    assert np.allclose(found, [0.1, 1 / 6, 0.7 / 3, 0.3])
    root = simulated.generate(
        tmp_path / "s", simulated.preset("small", **{**TINY, "ceiling": 0.3, "ceiling_spread": 0.2})
    )
    names = simulated.subjects(root)
    made = [datasets.open("simulated", root, subject=s).noise_ceiling for s in names]
    mean = [c[c > 0].mean() for c in made]
    assert mean[0] < mean[-1] - 0.2
    with pytest.raises(InputError, match="gives a subject -0"):
        simulated.preset("small", ceiling=0.3, ceiling_spread=0.4)


@pytest.mark.shared_data
def test_natural_pictures_from_parquet(tmp_path, shared_data):
    natural = shared_data / "tiny-imagenet-64" / "validation.parquet"
    config = simulated.preset("small", **{**TINY, "n_subjects": 1})
    subject = datasets.open("simulated", simulated.generate(tmp_path / "s", config, stimuli=natural))
    assert subject.info["stimuli"] == "validation.parquet" and subject.labels is not None
    assert datasets.check("simulated", tmp_path / "s")[0].severity != "error"


def test_the_small_preset_is_quick(tmp_path):
    start = time.process_time()
    simulated.generate(tmp_path / "s")
    assert time.process_time() - start < 20, "seconds of one core"
    subject = datasets.open("simulated", tmp_path / "s", subject="sub-04")
    assert subject.betas.shape == (780, 1200) and len(datasets.subjects("simulated", tmp_path / "s")) == 4
