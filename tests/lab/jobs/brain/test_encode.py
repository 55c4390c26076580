"""The voxel encoder as a job: what it writes, new subjects that join a run, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from brainit.errors import InputError as BrainError
from lab.cli.main import run as command
from lab.errors import InputError, MissingDataError
from lab.files import read_npz
from lab.jobs.brain.encode import Settings, dry_run
from lab.jobs.brain.encode import run as encode
from lab.jobs.contract import Context

QUICK = {"epochs": 2, "features": 8, "embedding": 8, "voxel_draws": 16, "taps": (0, 4)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three simulated subjects who saw 24 pictures, and 12 others at test."""
    from brainit.datasets import simulated

    root = tmp_path_factory.mktemp("people") / "data"
    sizes = {"n_subjects": 3, "n_voxels": 50, "n_train": 24, "n_shared": 24, "n_test": 12, "n_repeats": 2}
    return simulated.generate(root, simulated.preset("small", **sizes, n_sessions=1))


@pytest.fixture(scope="module")
def first(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two of them."""
    out = tmp_path_factory.mktemp("first") / "run"
    given = {"root": root, "subjects": "sub-01,sub-02", "encoder": QUICK, "clusters": 4, "out": out}
    result = encode(Settings.model_validate(given), Context())
    assert [row["subject"] for row in result.rows] == ["sub-01", "sub-02"]
    return out


def test_writes_embeddings_scores_clusters_and_maps(first: Path) -> None:
    tables = read_npz(first / "embeddings.npz")
    assert tables["embedding/sub-02"].shape == (50, 8) and tables["n_clusters"] == 4
    from brainit import datasets

    root = json.loads((first / "result.json").read_text())["out"]
    assert root == str(first)
    folder = first / "maps"
    names = {p.name for p in folder.iterdir()}
    assert len(names) == 10 and "sub-01_desc-functionalclusters_dseg.nii.gz" in names
    import yaml

    data = yaml.safe_load((first / "config.yaml").read_text())["root"]
    subject = datasets.open("simulated", data, "sub-01")
    inside = np.asarray(subject.mask.dataobj) != 0
    found = nibabel.load(folder / "sub-01_desc-encodercorrelation_statmap.nii.gz").get_fdata()
    np.testing.assert_allclose(found[inside], tables["correlation/sub-01"], atol=1e-6)
    labels = np.asarray(nibabel.load(folder / "sub-01_desc-functionalclusters_dseg.nii.gz").dataobj)
    assert np.array_equal(labels[inside], tables["cluster/functional/sub-01"] + 1)


def test_numbers_stand_beside_the_linear_encoder_with_intervals(first: Path) -> None:
    metrics = json.loads((first / "metrics.json").read_text())
    for name in ("r", "r_linear", "r_minus_linear"):
        low, value, high = (metrics[f"sub-01.{name}{end}"] for end in (".low", "", ".high"))
        assert low <= value <= high
    page = (first / "report.html").read_text()
    assert "linear encoder" in page and "eak check: 0 of 12" in page and "Simulated subjects" in page


def test_a_finished_run_does_nothing_and_other_settings_are_refused(first: Path, root: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in first.rglob("*.n*")}
    given = {"root": root, "subjects": "sub-01,sub-02", "encoder": QUICK, "clusters": 4, "out": first}
    assert encode(Settings.model_validate(given), Context()).note == "done before"
    assert {p: p.stat().st_mtime_ns for p in before} == before
    with pytest.raises(InputError, match="other settings"):
        encode(Settings.model_validate(given | {"clusters": 5}), Context())


@pytest.mark.usefixtures("undrawn")
def test_a_new_subject_joins(first: Path, root: Path, tmp_path: Path) -> None:
    given = {"root": root, "subjects": "sub-03", "start": first, "encoder": {**QUICK, "validation": 0}}
    result = encode(Settings.model_validate(given | {"out": tmp_path / "o"}), Context())
    assert list(result.clusters) == ["functional"]
    assert result.clusters["functional"]["method"] == "nearest voxels' clusters"
    old, new = read_npz(first / "embeddings.npz"), read_npz(tmp_path / "o" / "embeddings.npz")
    from brainit.voxels.clusters import nearest_voxels

    known = np.concatenate([old[f"embedding/sub-0{k}"] for k in (1, 2)])
    labels = np.concatenate([old[f"cluster/functional/sub-0{k}"] for k in (1, 2)])
    match = nearest_voxels(new["embedding/sub-03"], known)
    assert np.array_equal(new["cluster/functional/sub-03"], labels[match])
    with pytest.raises(InputError, match="already knows subject 'sub-01'"):
        again = {**given, "subjects": "sub-01", "out": tmp_path / "p"}
        encode(Settings.model_validate(again), Context())


@pytest.mark.usefixtures("undrawn")
def test_reads_dinov2_from_a_folder_and_trains_its_bypass(root: Path, tmp_path: Path) -> None:
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    from brainit.io import read_state

    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 56}
    Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**sizes)).save_pretrained(tmp_path / "dino")
    small = {"taps": (1, 2), "features": 8, "embedding": 8, "epochs": 1, "voxel_draws": 16, "batch": 8}
    given = {"root": root, "subjects": "sub-01", "backbone": str(tmp_path / "dino"), "clusters": 3}
    asked = Settings.model_validate(
        {**given, "preset": "published", "encoder": small, "out": tmp_path / "o", "device": "cpu"}
    )
    assert (asked.encoder.bypass_rank, asked.encoder.shift, asked.encoder.dropout) == (7, 3, 0.25)
    assert encode(asked, Context()).rows[0]["test pictures"] == 12
    tensors, header = read_state(tmp_path / "o" / "encoder.safetensors")
    assert header["shape"] == [12, 17, 2] and tensors["encoder/bypass.1.up.weight"].abs().max() > 0


def test_its_settings_are_read_without_torch() -> None:
    code = "import sys, lab.jobs.brain.encode; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_refusals(root: Path, tmp_path: Path) -> None:
    def asked(**given):
        return Settings.model_validate({"root": root, "out": tmp_path / "o", "device": "cpu", **given})

    with pytest.raises(BrainError, match="4 blocks; allowed"):
        dry_run(asked(encoder={"taps": (9,)}))
    with pytest.raises(MissingDataError, match="no folder; give encoder-64"):
        dry_run(asked(backbone="dinov2-large"))
    with pytest.raises(MissingDataError, match="give a finished run"):
        dry_run(asked(start=tmp_path))
    with pytest.raises(InputError, match=r"no subject 'sub-09'; there are: sub-01"):
        encode(asked(subjects="sub-09"), Context())
    with pytest.raises(InputError, match="'sub-01' is given twice"):
        dry_run(asked(subjects="sub-01,sub-01"))
    with pytest.raises(InputError, match=r"--clusters 4000: there are \d+ voxels; allowed: up to"):
        encode(asked(clusters=4000), Context())
    assert not (tmp_path / "o").exists()
    assert command(["brain", "encode", "--set", "encoder.lr=-1", "--dry-run"]) == 2


def test_what_the_started_from_encoder_learned_from_counts_as_training(root: Path) -> None:
    from brainit import datasets
    from lab.decoding.encoder.people import open_people
    from lab.progress import silent

    alone = open_people("simulated", str(root), ["sub-03"], {}, silent)
    assert "0 of 12 test pictures in training" in alone.leak_line and alone.warnings == ()
    other = datasets.open("simulated", root, "sub-01")
    learned = [replace(other, split=np.full(other.n_trials, "train"))]
    found = open_people("simulated", str(root), ["sub-03"], {}, silent, learned)
    assert "12 of 12 test pictures in training" in found.leak_line


def test_two_runs_of_other_scores_are_counted_together() -> None:
    from lab.jobs.brain.evaluate import Result

    found = Result(folder="a", metrics={"a": 1}, other={"b": 2}, differences=("a", "b"))
    assert "2 of 2 values differ" in str(found.tables()[-1])
