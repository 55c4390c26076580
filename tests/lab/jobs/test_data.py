"""``data check`` looks at a folder as a run with the same settings would, and at what that will need."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from lab.cli.main import run
from lab.decoding.needs import check_needs, unmet
from lab.decoding.settings import ReconstructConfig
from lab.errors import InputError, MissingDataError
from lab.jobs import registry
from lab.jobs.contract import Context
from tests.brainit.datasets.conftest import mat_parts, write_haxby, write_mat
from tests.brainit.datasets.inputs import write_folder

Capture = pytest.CaptureFixture[str]


def few(n: int) -> dict:
    parts = mat_parts(n_train=4 * n)
    parts["stimTrn"] = np.repeat(parts["stimTrn"][:n], 4, 0)
    return parts


def check(name: str, root: Path, subject: str | None = None, **more: object) -> dict:
    settings = registry.settings("data check", {"name": name, "root": root, "subject": subject, **more})
    return registry.run("data check", settings, Context()).model_dump()


def messages(found: dict, severity: str = "error") -> str:
    return " | ".join(f["message"] for f in found["findings"] if f["severity"] == severity)


def test_check_finds_what_the_default_settings_need_and_what_others_do_not(tmp_path: Path) -> None:
    root = write_mat(tmp_path / "a.mat", **few(6))
    found = check("mat", root)
    assert not found["usable"]
    assert "6 distinct training pictures; structure=posterior needs 8 or more" in messages(found)
    assert check("mat", root, structure="ridge")["usable"]
    assert "Brain-IT needs 4 or more" in messages(check("mat", write_mat(tmp_path / "b.mat", **few(3))))


def test_check_takes_the_dataset_s_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = mat_parts()
    parts["fmriTrn"][2, 5] = np.nan
    root = str(write_mat(tmp_path / "a.mat", **parts))
    assert run(["data", "check", "mat", "--root", root, "--json"]) == 2
    assert "1 of 9 voxels" in messages(json.loads(capsys.readouterr().out))
    assert run(["data", "check", "mat", "--root", root, "--set", "options.nan=drop", "--json"]) == 0
    assert "dropped 1 of 9" in messages(json.loads(capsys.readouterr().out), "warning")
    assert run(["data", "check", "mat", "--root", root, "--set", "options.nam=drop"]) == 2
    assert "did you mean 'nan'?" in capsys.readouterr().err


def test_the_next_step_of_a_check_decodes_what_was_checked(tmp_path: Path, capsys: Capture) -> None:
    """Subject, structure and options were left out, and a path with a space was two words."""
    parts = mat_parts()
    parts["fmriTrn"][2, 5] = np.nan
    root = tmp_path / "a b.mat"
    write_mat(root, **parts)
    asked = ["--root", str(root), "--set", "options.nan=drop", "--structure", "ridge"]
    assert run(["data", "check", "mat", *asked]) == 0
    step = capsys.readouterr().out.splitlines()[-1].removeprefix("next: brainlab ")
    assert run([*shlex.split(step), "--dry-run"]) == 0
    assert "ridge" in capsys.readouterr().out
    assert run([w for w in shlex.split(step) if "nan" not in w and w != "--set"] + ["--dry-run"]) == 2


def test_check_of_one_subject_looks_at_no_other(tmp_path: Path) -> None:
    write_folder(tmp_path / "n")
    (tmp_path / "n" / "sub-02").mkdir()
    assert "sub-02" in messages(check("nifti", tmp_path / "n"))
    assert check("nifti", tmp_path / "n", "sub-01")["usable"]
    assert check("nifti", tmp_path / "n", "1")["usable"]
    settings = registry.settings("data check", {"name": "nifti", "root": tmp_path / "n", "subject": "1"})
    assert str(tmp_path / "n") in registry.run("data check", settings, Context()).next_step()


@pytest.mark.parametrize(
    ("shape", "says"),
    [((6, 6), "6x6 pixels; the scores (SSIM) need 7"), ((8, 9), "8x9 pixels; the decoder draws squares")],
)
def test_pictures_of_the_wrong_form(tmp_path: Path, shape: tuple[int, int], says: str) -> None:
    root = write_folder(tmp_path / "n")
    with np.load(root / "stimuli" / "stimuli.npz") as found:
        ids = found["ids"]
    images = np.random.default_rng(0).integers(0, 256, (20, *shape), dtype=np.uint8)
    np.savez(root / "stimuli" / "stimuli.npz", ids=ids, images=images)
    assert says in messages(check("nifti", root))


def test_categories_need_runs_and_labels(tmp_path: Path) -> None:
    from brainit import datasets

    subject = datasets.open("haxby2001", write_haxby(tmp_path / "h"))
    config = ReconstructConfig(dataset="haxby2001")
    assert not list(unmet(config, subject))
    one_run = subject.select(subject.run == 1)
    assert "1 run; leaving one run out" in next(unmet(config, one_run))


def test_missing_external_pictures_are_found_first(tmp_path: Path) -> None:
    from brainit import datasets

    subject = datasets.open("mat", write_mat(tmp_path / "a.mat"))
    config = ReconstructConfig(dataset="mat", external=5, external_stimuli=str(tmp_path / "none"))
    with pytest.raises(MissingDataError, match="none does not exist"):
        check_needs(config, subject)
    np.savez(tmp_path / "few.npz", images=np.zeros((3, 8, 8), np.uint8))
    few = config.model_copy(update={"external_stimuli": str(tmp_path / "few.npz")})
    with pytest.raises(InputError, match="holds 3 pictures; give --external 3 or less"):
        check_needs(few, subject)
    with pytest.raises(InputError, match="external is 0, so none is learned from"):
        check_needs(few.model_copy(update={"external": 0}), subject)
    text = config.model_copy(update={"external_stimuli": str(write_mat(tmp_path / "b.mat"))})
    with pytest.raises(ValueError, match=r"b.mat is neither; give a folder of pictures"):
        check_needs(text, subject)


def test_odd_betas_are_named(tmp_path: Path) -> None:
    parts = mat_parts()
    parts["fmriTest"][:2] = parts["fmriTrn"][:2]
    assert "2 of 4 test trials have exactly the betas" in messages(
        check("mat", write_mat(tmp_path / "a.mat", **parts)), "warning"
    )
    parts = mat_parts()
    parts["fmriTrn"] += 1000
    assert "looks like BOLD" in messages(check("mat", write_mat(tmp_path / "b.mat", **parts)), "warning")


def test_clusters_that_the_data_do_not_allow_are_found_first(tmp_path: Path) -> None:
    from brainit import datasets

    subject = datasets.open("mat", write_mat(tmp_path / "a.mat"))
    for method, says in (("roi", "no regions are named"), ("anatomical", "voxel positions are not known")):
        config = ReconstructConfig(dataset="mat", brain={"clusters": {"method": method}})
        assert any(line.startswith(says) for line in unmet(config, subject))


def test_what_cannot_be_fetched_is_not_offered_to_be() -> None:
    for name, word in (("mat", "check mat --root"), ("kay2008", "fetch kay2008")):
        settings = registry.settings("data info", {"name": name})
        assert registry.run("data info", settings, Context()).next_step().startswith(f"brainlab data {word}")
