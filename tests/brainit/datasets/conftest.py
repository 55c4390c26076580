"""Tiny files of every form that the adapters read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest
import scipy.io

AFFINE = np.diag([-3.0, 3.0, 3.0, 1.0])
CATEGORIES = ("face", "house", "cat")


def mat_parts(n_train: int = 12, n_test: int = 4, n_voxels: int = 9, side: int = 7) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "fmriTrn": rng.normal(size=(n_train, n_voxels)),
        "fmriTest": rng.normal(size=(n_test, n_voxels)),
        "stimTrn": rng.integers(0, 256, (n_train, side * side)).astype(np.uint8),
        "stimTest": rng.integers(0, 256, (n_test, side * side)).astype(np.uint8),
        "labelTrn": np.arange(n_train)[:, None] % 2 + 1.0,
        "labelTest": np.arange(n_test)[:, None] % 2 + 1.0,
    }


def write_mat(path: Path, **changes: Any) -> Path:
    parts = {**mat_parts(), **changes}
    scipy.io.savemat(path, {k: v for k, v in parts.items() if v is not None}, do_compression=True)
    return path


def write_hdf5(path: Path, parts: dict[str, Any]) -> Path:
    """A file of version 7.3, as MATLAB stores matrices: columns first, with their class."""
    with h5py.File(path, "w") as file:
        for key, value in parts.items():
            stored = file.create_dataset(key, data=value.T)
            stored.attrs["MATLAB_class"] = np.bytes_(
                {"float64": "double"}.get(value.dtype.name, value.dtype.name)
            )
    return path


def events_text(rows: list[tuple[float, float, str]]) -> str:
    return "onset\tduration\ttrial_type\n" + "".join(f"{a}\t{b}\t{c}\n" for a, b, c in rows)


def bold(
    rng: np.random.Generator, order: list[str], n: int = 60, shape: tuple[int, ...] = (4, 3, 2)
) -> np.ndarray:
    """BOLD in which every category lights up its own voxel, five seconds late."""
    data = 1000 + rng.normal(0, 3, (*shape, n))
    for k, name in enumerate(order):
        start = 4 + 16 * k + 2
        data[CATEGORIES.index(name), 0, 0, start : start + 8] += 30
    return data.astype(np.float32)


def write_haxby(root: Path, n_runs: int = 4) -> Path:
    rng = np.random.default_rng(1)
    folder = root / "sub001"
    masks = folder / "masks" / "25mm"
    masks.mkdir(parents=True)
    inside = np.ones((4, 3, 2), np.uint8)
    inside[3, 2, 1] = 0
    nibabel.save(nibabel.Nifti1Image(inside, AFFINE), masks / "brain.nii.gz")
    for run in range(1, n_runs + 1):
        order = list(rng.permutation(CATEGORIES))
        inner = folder / f"task001_run{run:03d}"
        inner.mkdir()
        image = nibabel.Nifti1Image(bold(rng, order), AFFINE)
        image.header.set_zooms((3, 3, 3, 2.5))
        image.header.set_xyzt_units("mm", "sec")
        nibabel.save(image, inner / "bold_25mm.nii.gz")
        rows = [((4 + 16 * k) * 2.5, 20.0, name) for k, name in enumerate(order)]
        (inner / "bold_events.tsv").write_text(events_text(rows))
    return root


def write_haxby_nilearn(root: Path, n_runs: int = 3) -> Path:
    rng = np.random.default_rng(2)
    folder = root / "haxby2001" / "subj2"
    folder.mkdir(parents=True)
    series, lines = [], ["labels chunks"]
    for run in range(n_runs):
        order = list(rng.permutation(CATEGORIES))
        series.append(bold(rng, order))
        names = ["rest"] * 60
        for k, name in enumerate(order):
            names[4 + 16 * k : 12 + 16 * k] = [name] * 8
        lines += [f"{name} {run}" for name in names]
    nibabel.save(nibabel.Nifti1Image(np.concatenate(series, -1), AFFINE), folder / "bold.nii.gz")
    (folder / "labels.txt").write_text("\n".join(lines) + "\n")
    inside = np.zeros((4, 3, 2), np.uint8)
    inside[:3, :2] = 1
    nibabel.save(nibabel.Nifti1Image(inside, AFFINE), folder / "mask4_vt.nii.gz")
    return root


def kay_arrays() -> dict[str, np.ndarray]:
    """Arrays of ``kay_images.npz`` as it circulates, but small: pictures around 0, codes 0 to 7."""
    rng = np.random.default_rng(3)
    pictures = rng.normal(scale=0.17, size=(22, 8, 8)).clip(-0.5, 0.6)
    betas = rng.normal(size=(22, 30))
    names = ["Other", "V1", "V2", "V3", "V3A", "V3B", "V4", "LatOcc"]
    return {
        "stimuli": pictures[:16], "stimuli_test": pictures[16:], "responses": betas[:16],
        "responses_test": betas[16:], "roi": np.arange(30) % 8 * (np.arange(30) != 9),
        "roi_names": np.array(names),
    }  # fmt: skip


def write_kay(root: Path, **changes: Any) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    arrays = {**kay_arrays(), **changes}
    np.savez(root / "kay_images.npz", **{k: v for k, v in arrays.items() if v is not None})
    for name, n in (("kay_labels.npy", 16), ("kay_labels_val.npy", 6)):
        rows = [[f"l{level}-{k}" for k in range(n)] for level in (1, 2, 3, 4)]
        rows[0][1] = "nan"
        np.save(root / name, np.array(rows))
    return root


TINY = {
    "n_subjects": 2,
    "n_voxels": 60,
    "n_train": 24,
    "n_shared": 12,
    "n_test": 5,
    "n_repeats": 2,
    "n_sessions": 2,
    "side": 32,
    "resolution": 4,
}


@pytest.fixture(scope="session")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished tiny simulation; tests must not change it."""
    from brainit.datasets import simulated

    return simulated.generate(
        tmp_path_factory.mktemp("data") / "simulated", simulated.preset("small", **TINY)
    )


def write_arrays(root: Path, sessions: tuple[str, ...] = ("01", "02")) -> Path:
    """The smallest folder that the arrays adapter reads: 32 voxels, 10 trials a session, pictures of 8x8."""
    rng, names = np.random.default_rng(0), []
    root.mkdir()
    for session in sessions:
        np.save(root / f"ses-{session}_betas.npy", rng.normal(size=(10, 32)).astype(np.float32))
        here = [f"p{len(names) + i}" for i in range(10)]
        rows = "".join(f"{name}\t{'test' if i > 7 else 'train'}\n" for i, name in enumerate(here))
        (root / f"ses-{session}_events.tsv").write_text("stimulus_id\tsplit\n" + rows)
        names += here
    (root / "stimuli").mkdir()
    images = rng.integers(0, 256, (len(names), 8, 8), dtype=np.uint8)
    np.savez(root / "stimuli" / "stimuli.npz", ids=names, images=images)
    return root


@pytest.fixture(scope="session")
def roots(simulation: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Root of a tiny copy of every dataset, by case name ``dataset`` or ``dataset:variant``."""
    base = tmp_path_factory.mktemp("roots")
    digits = base / "digits69"
    digits.mkdir()
    write_mat(digits / "digit69_28x28.mat")
    return {
        "simulated": simulation,
        "nifti": simulation,
        "arrays": write_arrays(base / "arrays"),
        "digits69": digits,
        "mat": write_mat(base / "any.mat"),
        "kay2008": write_kay(base / "kay"),
        "haxby2001": write_haxby(base / "haxby"),
        "haxby2001:nilearn": write_haxby_nilearn(base / "nilearn"),
    }
