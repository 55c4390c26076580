"""Folders of NIfTI betas: sessions scaled by what, ceilings of what, and in which space maps are written."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from brainit import datasets
from brainit.errors import InputError
from brainit.voxels.scaling import VoxelScaler
from tests.brainit.datasets.conftest import AFFINE
from tests.brainit.datasets.inputs import SHAPE, N, edit_image, first, write_folder


def warned(root: Path) -> str:
    return " ".join(f.message for f in datasets.check("nifti", root) if f.severity == "warning")


def table(root: Path, names: list[str], splits: list[str], kinds: list[str] | None = None) -> None:
    """Write the events of both sessions."""
    rows = [f"{n}\t{s}\t{k}\n" for n, s, k in zip(names, splits, kinds or ["cat"] * len(names), strict=True)]
    for k, path in enumerate(sorted(root.rglob("*_events.tsv"))):
        path.write_text("stimulus_id\tsplit\ttrial_type\n" + "".join(rows[k * N : (k + 1) * N]))


def test_a_session_of_test_trials_alone_is_scaled_by_itself_and_that_is_said(tmp_path):
    root = write_folder(tmp_path / "n")
    assert "test trials among them" not in warned(root)
    table(root, [f"p{k}" for k in range(2 * N)], ["train"] * N + ["test"] * N)
    assert "session 2 has no training trials, so its voxels are scaled by all its 10 trials" in warned(root)
    assert "see the warnings" in datasets.open("nifti", root).info["units"]
    raw = datasets.open("nifti", root, zscore="none")
    assert not raw.info["warnings"] and raw.info["units"] == "as in the files"


def test_a_session_of_few_training_trials_is_warned_of(tmp_path):
    root = write_folder(tmp_path / "n")
    table(root, [f"p{k}" for k in range(2 * N)], ["train"] * N + ["train"] * 2 + ["test"] * (N - 2))
    said = warned(root)
    assert "session 2 has 2 training trials, so few" in said and "session 1" not in said
    assert "zscore=none" in said and "see the warnings" in datasets.open("nifti", root).info["units"]
    assert not datasets.open("nifti", root, zscore="none").info["warnings"]


def test_check_looks_for_test_pictures_in_the_training_of_other_subjects(tmp_path):
    root = write_folder(tmp_path / "n")
    shutil.copytree(root / "sub-01", root / "sub-02")
    assert not [f for f in datasets.check("nifti", root) if f.severity == "error"]
    packed = dict(np.load(root / "stimuli" / "stimuli.npz"))
    tested = next(i for i in datasets.open("nifti", root).part("test").stimulus_id)
    place = packed["ids"].tolist().index(tested)
    packed["ids"] = np.append(packed["ids"], "copy")
    packed["images"] = np.concatenate([packed["images"], packed["images"][place : place + 1]])
    np.savez(root / "stimuli" / "stimuli.npz", **packed)
    path = sorted((root / "sub-02").rglob("*_events.tsv"))[0]
    lines = path.read_text().splitlines(keepends=True)
    row = next(k for k, line in enumerate(lines) if "\ttrain" in line)
    lines[row] = "copy\t" + lines[row].split("\t", 1)[1]
    path.write_text("".join(lines))
    (found,) = [f for f in datasets.check("nifti", root) if f.severity == "error" and "sub-01" in f.message]
    assert "sub-01: 1 of its test pictures are training pictures of other subjects" in found.message
    assert f"(first: {tested} is copy of sub-02)" in found.message


def test_a_session_of_one_trial_is_refused_because_nothing_of_it_would_be_left(tmp_path):
    root = write_folder(tmp_path / "n")
    edit_image(sorted(root.rglob("*betas*"))[1], lambda d, _: d[..., :1])
    path = sorted(root.rglob("*_events.tsv"))[1]
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    with pytest.raises(InputError, match="session 2 has one trial, which cannot be scaled by itself"):
        datasets.open("nifti", root)
    assert datasets.open("nifti", root, zscore="none").n_trials == N + 1


def test_each_voxel_is_scaled_by_its_sessions_training_trials_and_lies_where_it_was_read(tmp_path):
    root = write_folder(tmp_path / "n")
    subject = datasets.open("nifti", root)
    for number, path in enumerate(sorted(root.rglob("*betas*"))):
        raw = np.asarray(nibabel.load(path).dataobj, np.float64)
        scaled = (raw - raw[..., :8].mean(-1, keepdims=True)) / raw[..., :8].std(-1, keepdims=True)
        trials = slice(number * N, (number + 1) * N)
        for voxel, place in enumerate(subject.xyz):
            i, j, k = np.rint(np.linalg.inv(AFFINE) @ [*place, 1])[:3].astype(int)
            np.testing.assert_allclose(subject.betas[trials, voxel], scaled[i, j, k], atol=1e-5)
        assert subject.session[trials].tolist() == [number + 1] * N


def test_sessions_and_runs_come_in_the_order_of_their_numbers(tmp_path):
    root = write_folder(tmp_path / "n", sessions=("2", "10"))
    for path in root.rglob("sub-01_ses-2_*"):  # a tenth and a second run of session 2, of half the trials
        if path.suffix == ".tsv":
            head, *rows = path.read_text().splitlines(keepends=True)
            for run, some in ((10, rows[5:]), (2, rows[:5])):
                path.with_name(path.name.replace("ses-2", f"ses-2_run-{run}")).write_text(
                    head + "".join(some)
                )
        else:
            image = nibabel.load(path)
            for run, some in ((10, slice(5, None)), (2, slice(5))):
                half = nibabel.Nifti1Image(np.asarray(image.dataobj)[..., some], AFFINE)
                nibabel.save(half, path.with_name(path.name.replace("ses-2", f"ses-2_run-{run}")))
        path.unlink()
    subject = datasets.open("nifti", root)
    assert subject.stimulus_id.tolist() == [f"p{k}" for k in range(2 * N)]
    assert subject.session.tolist() == [2] * N + [10] * N
    assert subject.run.tolist() == [2] * 5 + [10] * 5 + [1] * N


def test_events_that_were_sorted_by_stimulus_are_warned_of(tmp_path):
    root = write_folder(tmp_path / "n")
    path = first(root, "*_events.tsv")
    _, *rows = path.read_text().splitlines()

    def write(onsets: list[float]) -> None:
        lines = [f"{t:g}\t{row}" for t, row in zip(onsets, rows, strict=True)]
        path.write_text("\n".join(["onset\tstimulus_id\tsplit\ttrial_type", *lines]) + "\n")

    write([4.0 * k for k in range(N)])
    assert "onsets go back" not in warned(root)
    write([4.0 * (k % 5) for k in range(N)])  # a second run begins
    assert "onsets go back" not in warned(root)
    write([4.0 * (k * 7 % N) for k in range(N)])
    assert "_events.tsv: onsets go back at 6 of 10 rows (first: row 3): are the rows in the order" in warned(
        root
    )


def test_trials_that_failed_and_voxels_that_a_session_lacks_are_named(tmp_path):
    root = write_folder(tmp_path / "n")
    assert warned(root) == "nifti sub-01: only 4 test pictures; scores will have wide intervals"
    second, still = sorted(root.rglob("*betas*"))[1], np.arange(4)[:, None, None, None] == 1

    def spoil(d: np.ndarray, _: object) -> np.ndarray:
        d = np.where(still, 3.0, d)  # outside the field of view in this session
        d[..., 2] *= 1e4  # an artefact
        d[..., 5] = 0  # not measured
        return d

    edit_image(second, spoil)
    said = warned(root)
    assert "8 of 32 voxels do not change within some session (first: session 2, 8 voxels)" not in said
    assert "1 of 20 trials have one value in every voxel (first: trial 16)" in said
    assert "1 of 20 trials lie more than 10 times as far out as the typical" in said
    assert "(first: session 2, run 1, stimulus p12)" in said
    edit_image(second, lambda d, _: np.where(still, 3.0, d))
    assert "8 of 32 voxels do not change within some session (first: session 2, 8 voxels)" in warned(root)
    shutil.copytree(root / "sub-01", root / "sub-02")
    assert "sub-01 and sub-02 have the same betas: is one a copy?" in warned(root)


def test_a_voxel_that_rounding_alone_moves_is_no_voxel(tmp_path):
    """Constant in training up to single precision: a test trial elsewhere would be a million wide."""
    root = write_folder(tmp_path / "n")

    def resampled(d: np.ndarray, _: object) -> np.ndarray:
        d[0, 0, 0, :8] = 3 * (1 + 1e-7 * np.arange(8))
        return d

    for path in root.rglob("*betas*"):
        edit_image(path, resampled)
    for how in ("session", "none"):
        subject = datasets.open("nifti", root, zscore=how)
        assert subject.n_voxels == 31 and np.abs(subject.betas).max() < 20
    betas = np.stack([3 * (1 + 1e-7 * np.arange(8)), np.arange(8)], 1)
    scaler = VoxelScaler.fit(betas)
    assert scaler.apply(np.array([[5.0, 3.5]])).tolist() == [[0, 0]]


def test_events_that_are_those_of_other_trials_are_noticed_by_the_repeats(tmp_path):
    root = write_folder(tmp_path / "n")
    rng, pictures = np.random.default_rng(1), np.random.default_rng(2).normal(size=(10, *SHAPE))
    orders = [rng.permutation(np.repeat(np.arange(10), 2)) for _ in range(2)]
    for path, order in zip(sorted(root.rglob("*betas*")), orders, strict=True):
        values = np.moveaxis(pictures[order] + rng.normal(size=(20, *SHAPE)), 0, -1)
        nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), AFFINE), path)
    for moved, expected in ((0, False), (1, True)):
        for path, order in zip(sorted(root.rglob("*_events.tsv")), orders, strict=True):
            rows = [f"p{k}\t{'test' if k > 7 else 'train'}\tcat\n" for k in np.roll(order, moved)]
            path.write_text("stimulus_id\tsplit\ttrial_type\n" + "".join(rows))
        said = "repeats of a picture are no more alike than trials of different ones" in warned(root)
        assert said == expected


def test_sessions_that_lie_apart_are_no_signal(tmp_path):
    """Noise alone, repeats within a session, sessions of other means: the ceiling is about 0, not 1."""
    root = write_folder(tmp_path / "n")
    edit_image(sorted(root.rglob("*betas*"))[1], lambda d, _: d + 50)
    names = [f"p{k // 2 + session * 5}" for session in (0, 1) for k in range(N)]
    table(root, names, (["train"] * 8 + ["test"] * 2) * 2)
    ceiling = datasets.open("nifti", root).noise_ceiling
    assert ceiling.mean() < 0.35
    assert datasets.open("nifti", root, zscore="none").noise_ceiling.mean() > 0.95


def test_the_ceiling_comes_from_repeated_test_pictures_where_training_has_none(tmp_path):
    root = write_folder(tmp_path / "n")
    names = [f"p{k}" for k in range(6)] + ["p20", "p20", "p21", "p21"]
    names += [f"p{k}" for k in range(6, 12)] + ["p20", "p20", "p21", "p21"]
    ids = [f"p{k}" for k in range(22)]
    images = np.arange(22, dtype=np.uint8)[:, None, None] * np.ones((8, 8), np.uint8)
    np.savez(root / "stimuli" / "stimuli.npz", ids=np.array(ids), images=images * 10)
    table(root, names, (["train"] * 6 + ["test"] * 4) * 2)
    noise = datasets.open("nifti", root)
    assert noise.info["noise_ceiling"] == "estimated from repeated test pictures"
    for k, path in enumerate(sorted(root.rglob("*betas*"))):
        numbers = np.array([int(n[1:]) for n in names[k * N : (k + 1) * N]])
        edit_image(path, lambda d, _, numbers=numbers: d + 30 * (numbers % 2))
    clear = datasets.open("nifti", root, zscore="none")
    assert clear.noise_ceiling.mean() > 0.9 > 0.5 > noise.noise_ceiling.mean()
    # one training picture that was shown twice does not take the place of two test pictures, four times each
    table(root, names[:1] * 2 + names[2:], (["train"] * 6 + ["test"] * 4) * 2)
    assert datasets.open("nifti", root).info["noise_ceiling"] == "estimated from repeated test pictures"
    assert "noise ceilings come from 6 repeats of test pictures: with fewer than 10" in warned(root)
    often = ["p0"] * 6 + names[6:10] + ["p1"] * 6 + names[16:]
    table(root, often, (["train"] * 6 + ["test"] * 4) * 2)
    assert datasets.open("nifti", root).info["noise_ceiling"] == "estimated from repeated training pictures"
    assert "noise ceilings come from" not in warned(root)
    table(root, [f"p{k}" for k in range(20)], (["train"] * 6 + ["test"] * 4) * 2)
    alone = datasets.open("nifti", root)
    assert alone.noise_ceiling is None and "noise_ceiling" not in alone.info


def test_maps_stay_in_the_space_that_the_mask_names(tmp_path):
    root = write_folder(tmp_path / "n")
    assert datasets.open("nifti", root).info.get("space") is None
    mask = first(root, "*_mask*")
    image = nibabel.Nifti1Image(np.ones(SHAPE, np.uint8), AFFINE)
    image.set_sform(AFFINE, 4)
    nibabel.save(image, mask)
    subject = datasets.open("nifti", root)
    assert subject.info["space"] == "MNI"
    few = subject.keep_voxels(np.arange(subject.n_voxels) > 3)
    for one in (subject, few):
        written = one.to_image(one.betas[0])
        assert int(written.header["sform_code"]) == 4
        np.testing.assert_array_equal(written.affine, AFFINE)
    mask.rename(mask.with_name("sub-01_space-T1w_mask.nii.gz"))
    assert datasets.open("nifti", root).info["space"] == "T1w"


def test_pictures_of_two_names_and_stimuli_of_two_categories_are_warned_of(tmp_path):
    root = write_folder(tmp_path / "n")
    assert "another name" not in warned(root) and "categories" not in warned(root)
    path = root / "stimuli" / "stimuli.npz"
    images = np.load(path)["images"]
    images[9], images[3] = images[8], images[2]
    np.savez(path, ids=[f"p{k}" for k in range(2 * N)], images=images)
    said = warned(root)
    assert "1 of 4 test pictures are there under another name too (first: p8 and p9)" in said
    assert "1 of 16 train pictures are there under another name too (first: p2 and p3)" in said
    names = [f"p{k % N}" for k in range(2 * N)]
    kinds = ["cat"] * (N + 3) + ["dog"] * (N - 3)
    table(root, names, (["train"] * 8 + ["test"] * 2) * 2, kinds)
    assert "7 of 10 stimuli are of several categories (first: p3, cat and dog)" in warned(root)


def test_few_test_pictures_are_counted_as_pictures_and_flat_ones_named(tmp_path):
    root = write_folder(tmp_path / "n")
    path = root / "stimuli" / "stimuli.npz"
    images = np.load(path)["images"]
    images[9] = 128
    np.savez(path, ids=[f"p{k}" for k in range(2 * N)], images=images)
    table(root, [f"p{k if k < N else 9}" for k in range(2 * N)], ["train"] * 9 + ["test"] * 11)
    said = warned(root)
    assert "only 1 test pictures" in said
    assert "1 of 1 test pictures have one value everywhere (first: p9)" in said
