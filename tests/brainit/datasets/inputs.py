"""Makers of small recordings with one thing wrong: each returns ``make(folder) -> (dataset, root)``."""

from __future__ import annotations

import gzip
import io
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

from brainit.subject import Subject
from tests.brainit.datasets.conftest import (
    AFFINE,
    events_text,
    mat_parts,
    write_haxby,
    write_hdf5,
    write_mat,
)

Made = tuple[str, Path]
Make = Callable[[Path], Made]
Edit = Callable[[np.ndarray, Any], Any]
SHAPE = (4, 4, 2)
N = 10  # trials a session


def cut(path: Path, share: float = 0.5) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def mat(share: float = 1.0, **changes: Any) -> Make:
    """A .mat file with other variables, cut to a share of its bytes."""
    return lambda tmp: ("mat", cut(write_mat(tmp / "a.mat", **changes), share))


def content(name: str, raw: bytes, dataset: str = "mat") -> Make:
    """A file of these bytes."""

    def make(tmp: Path) -> Made:
        (tmp / name).write_bytes(raw)
        return dataset, tmp / name

    return make


def write_folder(root: Path, sessions: tuple[str, ...] = ("01", "02")) -> Path:
    """The smallest folder that the nifti adapter reads: 32 voxels, 10 trials a session, pictures of 8x8."""
    rng, names = np.random.default_rng(0), []
    subject = root / "sub-01"
    subject.mkdir(parents=True)
    nibabel.save(nibabel.Nifti1Image(np.ones(SHAPE, np.uint8), AFFINE), subject / "sub-01_mask.nii.gz")
    for session in sessions:
        place = subject / f"ses-{session}"
        place.mkdir()
        values = rng.normal(size=(*SHAPE, N)).astype(np.float32)
        stem = place / f"sub-01_ses-{session}"
        nibabel.save(nibabel.Nifti1Image(values, AFFINE), f"{stem}_desc-betas_statmap.nii.gz")
        here = [f"p{len(names) + i}" for i in range(N)]
        rows = "".join(f"{name}\t{'test' if i > 7 else 'train'}\tcat\n" for i, name in enumerate(here))
        Path(f"{stem}_events.tsv").write_text("stimulus_id\tsplit\ttrial_type\n" + rows)
        names += here
    (root / "stimuli").mkdir()
    images = rng.integers(0, 256, (len(names), 8, 8), dtype=np.uint8)
    np.savez(root / "stimuli" / "stimuli.npz", ids=names, images=images)
    return root


def folder(change: Callable[[Path], object] = lambda root: None, **how: Any) -> Make:
    """A nifti folder in which ``change(root)`` spoils something."""

    def make(tmp: Path) -> Made:
        root = write_folder(tmp / "n", **how)
        change(root)
        return "nifti", root

    return make


def first(root: Path, pattern: str) -> Path:
    return sorted(root.rglob(pattern))[0]


def events(edit: Callable[[str], str | bytes]) -> Make:
    """The first events file of a nifti folder, its text edited."""

    def change(root: Path) -> None:
        path = first(root, "*_events.tsv")
        text = edit(path.read_text())
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    return folder(change)


def image(pattern: str, edit: Edit) -> Make:
    """An image of a nifti folder replaced by ``edit(data, header)``: one, or data for the same affine."""
    return folder(lambda root: edit_image(first(root, pattern), edit))


def edit_image(path: Path, edit: Edit) -> None:
    old = nibabel.load(path)
    new = edit(np.asanyarray(old.dataobj).copy(), old.header.copy())
    nibabel.save(new if hasattr(new, "affine") else nibabel.Nifti1Image(new, old.affine), path)


def beside(name: str, data: np.ndarray, affine: np.ndarray = AFFINE) -> Make:
    """One more image in the subject's folder."""
    return folder(lambda root: nibabel.save(nibabel.Nifti1Image(data, affine), root / "sub-01" / name))


def text_beside(name: str, text: str | bytes, more: str = "") -> Make:
    """One more text file under the root (and a segmentation of two regions where ``more`` says so)."""

    def change(root: Path) -> None:
        (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        if more:
            codes = np.repeat([1, 2], 16).reshape(SHAPE).astype(np.uint8)
            nibabel.save(nibabel.Nifti1Image(codes, AFFINE), root / more)

    return folder(change)


def stimuli(edit: Callable[[dict[str, np.ndarray]], dict[str, Any]]) -> Make:
    """The stimuli of a nifti folder with other arrays."""

    def change(root: Path) -> None:
        path = root / "stimuli" / "stimuli.npz"
        np.savez(path, **edit(dict(np.load(path))))

    return folder(change)


def files(write: Callable[[Path, str, np.ndarray], object]) -> Make:
    """The stimuli of a nifti folder as picture files, written by ``write(folder, id, picture)``."""

    def change(root: Path) -> None:
        place = root / "stimuli"
        with np.load(place / "stimuli.npz") as found:
            pairs = list(zip(found["ids"].tolist(), found["images"], strict=True))
        (place / "stimuli.npz").unlink()
        for name, picture in pairs:
            write(place, name, picture)

    return folder(change)


def png(place: Path, name: str, picture: np.ndarray, **how: Any) -> None:
    (place / f"{name}.png").parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(place / f"{name}.png", **how)


def one_odd(odd: Callable[[np.ndarray], Image.Image], ending: str = "png", **how: Any) -> Make:
    """Picture files of which ``p3`` is odd."""

    def write(place: Path, name: str, picture: np.ndarray) -> None:
        if name == "p3":
            odd(picture).save(place / f"p3.{ending}", **how)
        else:
            png(place, name, picture)

    return files(write)


def jpeg(picture: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG")
    return stream.getvalue()


def haxby(change: Callable[[Path], object] = lambda subject: None) -> Make:
    """The small copy of haxby2001, three runs, in which ``change(sub001)`` spoils something."""

    def make(tmp: Path) -> Made:
        root = write_haxby(tmp / "h", n_runs=3)
        change(root / "sub001")
        return "haxby2001", root

    return make


def run_events(text: str) -> Make:
    """Run 2 of haxby2001 with other events."""
    return haxby(lambda subject: (subject / "task001_run002" / "bold_events.tsv").write_text(text))


def blocks(*rows: tuple[float, float, str]) -> Make:
    return run_events(events_text(list(rows)))


def bold(edit: Edit, runs: tuple[int, ...] = (2,)) -> Make:
    """BOLD of some runs of haxby2001 edited: ``edit(data, header)`` gives an image, or its data."""

    def change(subject: Path) -> None:
        for n in runs:
            path = subject / f"task001_run{n:03d}" / "bold_25mm.nii.gz"
            old = nibabel.load(path)
            new = edit(np.asanyarray(old.dataobj).copy(), old.header.copy())
            kept = new if hasattr(new, "affine") else nibabel.Nifti1Image(new, old.affine, old.header)
            nibabel.save(kept, path)

    return haxby(change)


def brain_mask(data: np.ndarray, affine: np.ndarray = AFFINE) -> Make:
    return haxby(
        lambda subject: nibabel.save(
            nibabel.Nifti1Image(data, affine), subject / "masks" / "25mm" / "brain.nii.gz"
        )
    )


def shifted(mm: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[0, 3] += mm
    return affine


def hdf5_cut(tmp: Path) -> tuple[str, Path]:
    return "mat", cut(write_hdf5(tmp / "a.mat", mat_parts(n_voxels=900)))


def hdf5(name: str, **marks: Any) -> Make:
    """A version 7.3 file in which one variable has other marks of MATLAB; None takes the class away."""

    def make(tmp: Path) -> Made:
        path = write_hdf5(tmp / "a.mat", mat_parts())
        with h5py.File(path, "r+") as file:
            del file[name].attrs["MATLAB_class"]
            file[name].attrs.update({key: value for key, value in marks.items() if value is not None})
        return "mat", path

    return make


def two_mat_files(tmp: Path) -> tuple[str, Path]:
    write_mat(tmp / "a.mat")
    write_mat(tmp / "b.mat")
    return "mat", tmp


def beside_macos(tmp: Path) -> tuple[str, Path]:
    (tmp / "._a.mat").write_bytes(b"\0\5\x16\7" + bytes(99))
    write_mat(tmp / "a.mat")
    return "mat", tmp


def link_to_nothing(tmp: Path) -> tuple[str, Path]:
    (tmp / "a.mat").symlink_to("../.git/annex/objects/X/Y/MD5E-s1--z.mat")
    return "mat", tmp / "a.mat"


def parquet(**columns: Any) -> Make:
    def make(tmp: Path) -> tuple[str, Any]:
        pyarrow.parquet.write_table(pyarrow.table(columns), tmp / "p.parquet")
        return "draw", tmp / "p.parquet"

    return make


def array(images: np.ndarray) -> Make:
    return lambda tmp: ("draw", images)


def without(part: Mapping[str, Any], key: str, at: Any, value: Any) -> dict[str, np.ndarray]:
    changed = np.array(part[key], float)
    changed[at] = value
    return {key: changed}


def in_whole_numbers(data: np.ndarray, header: Any) -> np.ndarray:
    """Hundredths as int16, without a slope that says so."""
    return np.rint(data * 100).astype(np.int16)


def in_scaled_numbers(data: np.ndarray, header: Any) -> Any:
    """int16 with the slope that nibabel chooses and states."""
    header.set_data_dtype(np.int16)
    return nibabel.Nifti1Image(data, AFFINE, header)


def headed(**fields: Any) -> Edit:
    """The same data under another header: zooms, units, offset, sform."""

    def edit(data: np.ndarray, header: Any) -> Any:
        made = nibabel.Nifti1Image(data, fields.get("affine", AFFINE), header)
        if "zooms" in fields:
            made.header.set_zooms(fields["zooms"])
        if "units" in fields:
            made.header.set_xyzt_units(*fields["units"])
        if "toffset" in fields:
            made.header["toffset"] = fields["toffset"]
        if fields.get("unstated"):
            made.set_sform(None, 0)
            made.set_qform(None, 0)
        return made

    return edit


def stored(values: Callable[[np.ndarray], np.ndarray]) -> Make:
    """Pictures of the npz in another type or range."""
    return stimuli(lambda found: {"ids": found["ids"], "images": values(found["images"])})


def holes(data: np.ndarray, header: Any) -> np.ndarray:
    data = data.astype(np.float32)
    data[1, 1, 0] = np.nan
    return data


def demeaned(data: np.ndarray, header: Any) -> np.ndarray:
    return data - data.mean(-1, keepdims=True)


def bright(subject: Subject) -> bool:
    return bool(0.9 < subject.images().max() <= 1)


def codes_equal(subject: Subject) -> bool:
    """The pictures are those that ``write_folder`` makes."""
    rng = np.random.default_rng(0)
    for _ in range(2):
        rng.normal(size=(*SHAPE, 10))
    return np.array_equal(np.rint(subject.images() * 255), rng.integers(0, 256, (20, 8, 8), dtype=np.uint8))


def stimuli_renamed(root: Path, old: str, new: str) -> None:
    path = root / "stimuli" / "stimuli.npz"
    found = dict(np.load(path))
    np.savez(
        path, ids=[new if name == old else name for name in found["ids"].tolist()], images=found["images"]
    )


def rewrite(path: Path, edit: Edit) -> None:
    edit_image(path, edit)


def rename(path: Path, ending: str) -> None:
    path.rename(str(path).removesuffix(".nii.gz") + ending)


def unzip(path: Path) -> Path:
    path.write_bytes(gzip.decompress(path.read_bytes()))
    return path


def damage(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2 :] = bytes(len(raw) - len(raw) // 2)
    path.write_bytes(raw)


def outside(data: np.ndarray) -> np.ndarray:
    """NaN where the mask of the small copy is not."""
    data[3, 2, 1] = np.nan
    return data


def darkened(data: np.ndarray) -> np.ndarray:
    data[1, 1, 0] -= data[1, 1, 0].mean()
    return data


def damaged_pictures(tmp: Path) -> tuple[str, Path]:
    for k in range(4):
        (tmp / f"{k}.png").write_bytes(b"no picture")
    return "draw", tmp


def copied_session(root: Path) -> None:
    """The first session once more, under another number."""
    shutil.copytree(first(root, "ses-01"), root / "sub-01" / "ses-03")
    for path in list((root / "sub-01" / "ses-03").iterdir()):
        path.rename(path.with_name(path.name.replace("ses-01", "ses-03")))
