"""The rows about volumes in the table of bad input: NIfTI betas and 4D BOLD."""

from __future__ import annotations

import gzip
import shutil

import nibabel
import numpy as np

from tests.brainit.datasets.bad_rows import Row, read
from tests.brainit.datasets.conftest import AFFINE
from tests.brainit.datasets.inputs import (
    SHAPE,
    beside,
    blocks,
    bold,
    brain_mask,
    codes_equal,
    copied_session,
    cut,
    damage,
    darkened,
    demeaned,
    first,
    folder,
    haxby,
    headed,
    holes,
    image,
    in_scaled_numbers,
    in_whole_numbers,
    outside,
    rename,
    rewrite,
    run_events,
    shifted,
    unzip,
)

BLOCKS = [(10, 20, "face"), (50, 20, "cat"), (90, 20, "house")]

# fmt: off
VOLUMES: dict[str, Row] = {
    # NIfTI betas: files, names, geometry
    "no subject": Row(lambda t: ("nifti", t), "holds no sub-* folder", 4),
    "mask gone": Row(folder(lambda r: first(r, "*_mask.nii.gz").unlink()),
        "says which voxels were measured", 4),
    "two masks": Row(beside("sub-01_b_mask.nii.gz", np.ones(SHAPE, "u1")), "holds 2 files *_mask.nii.gz"),
    "a mask with both endings": Row(beside("sub-01_mask.nii", np.ones(SHAPE, "u1")), "is there twice"),
    "mask on another grid": Row(image("*_mask.nii.gz", lambda d, h: np.ones((3, 3, 3), "u1")),
        "must lie on the grid"),
    "mask of shares": read(
        image("*_mask.nii.gz", lambda d, h: np.linspace(0.1, 1, 32).reshape(SHAPE)),
            lambda s: s.n_voxels == 32, "32 values beside 0"),
    "mask with NaN": read(image("*_mask.nii.gz", lambda d, h: holes(d, h)), lambda s: s.n_voxels == 31,
        "1 of 32 voxels are NaN"),
    "betas NaN": Row(image("*betas*", holes), "1 of 32 voxels hold NaN"),
    "betas NaN dropped": read(image("*betas*", holes), lambda s: s.n_voxels == 31 and s.mask is not None,
        "dropped 1", nan="drop"),
    "a session in another orientation": Row(
        image("*betas*", lambda d, h: nibabel.as_closest_canonical(nibabel.Nifti1Image(d, AFFINE))),
            "has orientation"),
    "a session 1 mm away": Row(image("*betas*", lambda d, h: nibabel.Nifti1Image(d, shifted(1))), "apart"),
    "betas of five dimensions": Row(image("*betas*", lambda d, h: d[:, :, :, None]), "has 5 dimensions"),
    "betas in colour": Row(image("*betas*", lambda d, h: d.astype([(c, "u1") for c in "RGB"])),
        "one real number a voxel"),
    "complex betas": Row(image("*betas*", lambda d, h: d.astype("c8")), "one real number a voxel"),
    "betas in micrometres": Row(folder(lambda r: [rewrite(p, headed(units=("micron", "sec")))
        for p in r.rglob("*betas*")]),
        "gives places in micron; allowed: mm"),
    "one session scaled": Row(folder(lambda r: [rewrite(p, edit) for p, edit in zip(
        sorted(r.rglob("*betas*")), (in_whole_numbers, in_scaled_numbers), strict=True)]),
        "one scaled and the other not"),
    "all sessions scaled": read(folder(lambda r: [rewrite(p, in_scaled_numbers) for p in r.rglob("*betas*")]),
        codes_equal),
    "no orientation": read(folder(lambda r: [rewrite(p,
        headed(unstated=True)) for p in r.rglob("*.nii.gz")]),
        lambda s: True, "states no orientation"),
    "not gzipped": Row(folder(lambda r: unzip(first(r, "*betas*"))), "is a NIfTI file that is not gzipped"),
    "gzipped under .nii": Row(folder(lambda r: rename(first(r, "*betas*"), ".nii")),
        "is gzipped although its name ends in .nii"),
    "betas as .nii": read(folder(lambda r: rename(unzip(first(r, "*betas*")), ".nii")), codes_equal),
    "macOS files beside images": read(folder(lambda r: [
        p.with_name("._" + p.name).write_bytes(b"\0\5\x16\7") for p in list(r.rglob("*.*")) if p.is_file()]),
        codes_equal),
    "sessions 1 and 01": Row(folder(sessions=("1", "01")), "session '1' is there twice"),
    "a session copied under its name": Row(folder(lambda r: shutil.copytree(
        first(r, "ses-01"), r / "sub-01" / "ses-03")), "its name says session '01' and its folder '03'"),
    "a session copied": Row(folder(copied_session), "hold the same values: one is a copy"),
    "sessions with names": read(folder(sessions=("pre", "post")), lambda s: sorted(set(s.session)) == [1,
        2]),
    "ceilings in percent": Row(beside("a_desc-noiseceiling_statmap.nii.gz", np.full(SHAPE, 40.0)),
        "divide percent by 100"),
    "ceilings NaN": Row(beside("a_desc-noiseceiling_statmap.nii.gz", holes(np.full(SHAPE, 0.4), None)),
        "1 of 32 voxels hold NaN"),
    "ceilings below 0": read(
        beside("a_desc-noiseceiling_statmap.nii.gz", np.full(SHAPE, -0.1)),
            lambda s: s.noise_ceiling.max() == 0, "below 0"),
    "ceilings elsewhere": Row(beside("a_desc-noiseceiling_statmap.nii.gz", np.ones(SHAPE), shifted(6)),
        "6 mm apart"),
    "two maps of ceilings": Row(folder(lambda r: [nibabel.save(nibabel.Nifti1Image(np.ones(SHAPE), AFFINE),
        r / "sub-01" / f"{k}_desc-noiseceiling_statmap.nii.gz") for k in "ab"]), "holds 2 files"),
    "regions of halves": Row(beside("a_dseg.nii.gz", np.full(SHAPE, 1.5)), "one whole number a voxel"),
    # 4D BOLD
    "root missing": Row(lambda t: ("haxby2001", t / "nowhere"), "does not exist; download it with", 4),
    "root empty": Row(lambda t: ("haxby2001", t), "holds no haxby2001 subject", 4),
    "BOLD mask of another grid": Row(brain_mask(np.ones((5, 3, 2), "u1")),
        "must lie on the grid of its data"),
    "BOLD mask shifted": Row(brain_mask(np.ones((4, 3, 2), "u1"), shifted(12)), "12 mm apart"),
    "BOLD mask empty": Row(brain_mask(np.zeros((4, 3, 2), "u1")), "none of its 24 voxels is set"),
    "no events": Row(blocks(), "holds no events"),
    "no events file": Row(haxby(lambda s: first(s, "*run002/bold_events.tsv").unlink()),
        "every run needs its events", 4),
    "event after the end": Row(blocks((10, 20, "face"), (145, 20, "cat")),
        "'cat' at 145 s ends at 165 s, after the run's end at 150 s"),
    "unknown trial type": Row(blocks((10, 20, "face"), (50, 20, "giraffe")),
        "unknown trial_type 'giraffe'; allowed: bottle, cat"),
    "trial type n/a": Row(blocks((10, 20, "face"), (50, 20, "n/a")), "line 3: trial_type is missing (n/a)"),
    "onset no number": Row(run_events("onset\tduration\ttrial_type\nsoon\t20\tface\n"), "onset 'soon'"),
    "duration n/a": Row(run_events("onset\tduration\ttrial_type\n1\tn/a\tface\n"), "duration 'n/a'"),
    "negative onset": Row(blocks((-5, 20, "face")), "allowed: seconds from the run's start, not negative"),
    "no trial types": Row(run_events("onset\tduration\n10\t20\n"), "column trial_type is missing"),
    "two events at once": read(blocks(*BLOCKS, (90, 20, "cat")), lambda s: s.n_trials == 10,
        "run 2: the design is near-singular"),
    "BOLD damaged": Row(haxby(lambda s: damage(s / "task001_run002" / "bold_25mm.nii.gz")),
        "damaged or cut short"),
    "BOLD cut short": Row(haxby(lambda s: cut(s / "task001_run002" / "bold_25mm.nii.gz")),
        "damaged or cut short"),
    "BOLD of no NIfTI": Row(
        haxby(lambda s: (s / "task001_run001" / "bold_25mm.nii.gz").write_bytes(gzip.compress(b"hello"))),
            "cannot be read as NIfTI"),
    "BOLD missing": Row(haxby(lambda s: (s / "task001_run003" / "bold_25mm.nii.gz").unlink()),
        "bold_25mm.nii.gz does not exist", 4),
    "a run twice": Row(haxby(lambda s: (s / "task001_run002").rename(s / "task002_run003")),
        "run '3' is there twice"),
    "a run copied": Row(haxby(lambda s: shutil.copy(s / "task001_run002" / "bold_25mm.nii.gz",
        s / "task001_run003" / "bold_25mm.nii.gz")), "hold the same values: one is a copy"),
    "onsets in volumes": read(blocks((4, 8, "face"), (20, 8, "cat"), (36, 8, "house")),
        lambda s: s.n_trials == 9,
        "run 2: the last event ends at 44 s of 150 s: are onsets in seconds"),
    "another repetition time stated": read(bold(lambda d, h: d), lambda s: s.n_trials == 9,
        "its header states a repetition time of 2.5 s; the 2.4 s", repetition_time=2.4),
    "a repetition time in a list": Row(bold(lambda d, h: d), "repetition_time is [2.5]",
        options={"repetition_time": [2.5]}),
    "a test run of words": Row(bold(lambda d, h: d), "test_run 'last' of runs", options={"test_run": "last"}),
    "half a test run": Row(bold(lambda d, h: d), "test_run 1.5 of runs", options={"test_run": 1.5}),
    "a run in another orientation": Row(
        bold(lambda d, h: nibabel.as_closest_canonical(nibabel.Nifti1Image(d, AFFINE, h))),
            "orientation LAS and"),
    "a run 10 mm away": Row(bold(lambda d, h: nibabel.Nifti1Image(d, shifted(10), h)), "10 mm apart"),
    "a run of another repetition time": Row(bold(headed(zooms=(3, 3, 3, 2.0))),
        "repetition times 2.5 and 2 sec"),
    "a run in milliseconds": Row(bold(headed(units=("mm", "msec"))), "differ in time"),
    "all runs in milliseconds": read(
        bold(headed(zooms=(3, 3, 3, 2500), units=("mm", "msec")), (1, 2, 3)), lambda s: s.n_trials == 9),
    "no unit of time": Row(bold(headed(units=("mm", "unknown")), (1, 2, 3)),
        "without a unit of time; say it in seconds"),
    "no unit of time, stated": read(
        bold(headed(units=("mm", "unknown")), (1, 2, 3)), lambda s: s.n_trials == 9, repetition_time=2.5),
    "a run that starts late": Row(bold(headed(toffset=4.0)), "differ in time"),
    "NaN in one run": Row(bold(holes), "1 of 23 voxels hold NaN"),
    "NaN in one run, dropped": read(bold(holes), lambda s: s.n_voxels == 22,
        "dropped 1 of 23 voxels with NaN", nan="drop"),
    "NaN outside the brain": read(bold(lambda d, h: outside(d), (1, 2, 3)), lambda s: s.n_voxels == 23),
    "NaN outside, mask of the BOLD": read(
        bold(lambda d, h: outside(d), (1, 2, 3)), lambda s: s.n_voxels == 23,
            "1 of 24 voxels are NaN throughout", mask="bold"),
    "mean removed": Row(bold(demeaned, (1, 2, 3)), "its mean seems removed"),
    "mean removed in one run": Row(bold(demeaned), "sub001 run 2: the typical voxel's mean is"),
    "mean removed, stated": read(bold(demeaned, (1, 2, 3)), lambda s: s.n_voxels == 23, baseline="none"),
    "one dark voxel": read(bold(lambda d, h: darkened(d)), lambda s: s.n_voxels == 22,
        "dropped 1 of 23 voxels whose mean"),
}
# fmt: on
