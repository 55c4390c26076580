"""kay2008: real fMRI of one person looking at 1,870 natural grey pictures (Kay et al. 2008).

``kay_images.npz``, as courses pass it on, holds ``stimuli`` (1750, 128, 128), ``stimuli_test``
(120, 128, 128), ``responses`` (1750, 8428), ``responses_test`` (120, 8428; each the mean of 13
presentations), ``roi`` (8428 codes) and ``roi_names``. Beside it lie ``kay_labels.npy`` and
``kay_labels_val.npy``: four rows of words, general to special.

* The pictures are floats with a range of their own: black is the smallest value of all pictures and white the
  largest, which ``range`` overrides.
* Voxels with NaN are left out of training and test alike.
* Code 0 of ``roi`` is no region.
* Positions of voxels are not in the file: ``xyz`` is NaN, there is no mask, and no NIfTI map can be written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from brainit.datasets.cards import CARDS
from brainit.datasets.download import fetch_files
from brainit.datasets.files import clean, ranges
from brainit.datasets.files.npz import read_npy, read_npz
from brainit.datasets.files.presence import there
from brainit.datasets.findings import Finding
from brainit.datasets.sessions import one_session
from brainit.errors import InputError, MissingDataError
from brainit.io import hash_file
from brainit.progress import Progress
from brainit.subject import Subject

FILE = "kay_images.npz"
LABELS = ("kay_labels.npy", "kay_labels_val.npy")
#: Where the course (Neuromatch Academy) keeps the files.
URLS = {
    FILE: "https://osf.io/ymnjv/download",
    LABELS[0]: "https://osf.io/r638s/download",
    LABELS[1]: "https://osf.io/yqb3e/download",
}
LEVELS = 4
UNLABELLED = "unlabelled"
PLACES = "voxel positions are not in the file: no NIfTI map can be written, and clusters come from responses"
_NEEDED = ("stimuli", "stimuli_test", "responses", "responses_test", "roi", "roi_names")
_PUBLISHED = {"stimuli": 1750, "stimuli_test": 120, "roi": 8428}
_OTHER = ("other", "0ther", "none")  # code 0; the second is a misspelling that circulates
_FAR = 0.2  # share of the range that nearly all values fill when single pixels stretch it


def subjects(root: Path) -> list[str]:
    """Return the one subject."""
    _file(root)
    return ["S1"]


def load(
    root: Path,
    subject: str | None = None,
    *,
    nan: str = "drop",
    zscore: str = "none",
    range: str = "auto",
    label_level: int = 1,
) -> Subject:
    """Read ``kay_images.npz`` in folder ``root`` (or ``root`` itself) as a Subject.

    Parameters
    ----------
    root : Path
    subject : str, optional
        There is one.
    nan : {"drop", "error"}
    zscore : {"none", "train"}
        The published responses are z-scored already.
    range : str
        Values of black and white, ``"LOW..HIGH"``; ``"auto"``: smallest and largest of all pictures where
        they are floats, else by type.
    label_level : {1, 2, 3, 4}
        Row of the labels: 1 is the most general.

    Returns
    -------
    Subject

    Raises
    ------
    MissingDataError
        There is no such file.
    InputError
        It is damaged, or its arrays do not fit each other.
    """
    clean.pick_subject(subject, ["S1"], root)
    clean.choice(zscore, ("none", "train"), "zscore")
    path = _file(root)
    found = read_npz(path, _NEEDED)
    _check_shapes(path, found)
    n_train, n_test = len(found["stimuli"]), len(found["stimuli_test"])
    train = np.arange(n_train + n_test) < n_train
    images, clipped, limits = _pictures(path, found, range)
    betas = np.concatenate([found["responses"], found["responses_test"]])
    keep, dropped = clean.usable_voxels(betas, train, nan, str(path))
    regions = _regions(path, found["roi"], found["roi_names"])
    betas = betas[:, keep].astype(np.float32)
    if zscore == "train":
        betas = clean.zscore(betas, np.zeros(len(betas)), train)
    labels, notes = _labels(path, (n_train, n_test), label_level)
    return one_session(
        "kay2008",
        betas,
        images,
        train,
        labels=labels,
        roi={name: inside[keep] for name, inside in regions.items()},
        info={
            "source": _card()["source"],
            "terms": _card()["terms"],
            "file": path.name,
            "sha256": hash_file(path),
            "units": "z-scored by training trials" if zscore == "train" else "as in the file (z-scored)",
            "pictures": f"grey; {limits[0]:.4g} is black and {limits[1]:.4g} white",
            "repeats": "test responses are means of 13 presentations, training responses of fewer: less "
            "noise in test than in training",
            "places": PLACES,
            "warnings": [*dropped, *clipped, *notes],
        },
    )


def check(root: Path) -> Iterator[Finding]:
    """Yield what only this adapter can know: a cut-down copy, and that there are no places."""
    found = read_npz(_file(root), ("stimuli", "stimuli_test", "roi"))
    for key, wanted in _PUBLISHED.items():
        if len(found[key]) != wanted:
            yield Finding(
                "warning", f"kay2008: {key} has {len(found[key])} rows; the published file has {wanted}"
            )
    yield Finding("info", f"kay2008: {PLACES}")


def fetch(root: Path, progress: Progress) -> Path:
    """Download the files (about 190 MB) from OSF into ``root``; their hashes are kept at the first fetch."""

    def readable(path: Path) -> None:
        read_npz(path, _NEEDED) if path.suffix == ".npz" else read_npy(path)

    return fetch_files(URLS, root, progress, readable)


def _card() -> dict[str, Any]:
    return next(card for card in CARDS if card["name"] == "kay2008")


def _file(root: Path) -> Path:
    path = root / FILE if root.is_dir() else root
    if not there(path):
        raise MissingDataError(f"dataset 'kay2008': {root} holds no {FILE}; {_card()['how']}")
    return path


def _check_shapes(path: Path, found: Mapping[str, np.ndarray]) -> None:
    sizes = {key: found[key].shape for key in _NEEDED}
    pictures, tested = sizes["stimuli"], sizes["stimuli_test"]
    answers, asked = sizes["responses"], sizes["responses_test"]
    flat = found["roi"].size
    for good, what in (
        (
            len(pictures) == len(tested) == 3 and 0 not in pictures + tested,
            "stimuli must be (n, height, width)",
        ),
        (pictures[1:] == tested[1:], "training and test pictures must be of one size"),
        (len(answers) == len(asked) == 2 and 0 not in answers + asked, "responses must be (n, voxels)"),
        (
            answers[:1] == pictures[:1] and asked[:1] == tested[:1],
            "there must be a picture for each response",
        ),
        (answers[1:] == asked[1:] == (flat,), "training, test and roi must have the same voxels"),
        (pictures[0] >= 2, "at least 2 training trials are needed"),
    ):
        if not good:
            said = ", ".join(f"{key} {shape}" for key, shape in sizes.items() if key != "roi_names")
            raise InputError(f"{path}: {what}; found: {said}")
    for key in ("responses", "responses_test"):
        if found[key].dtype.kind not in "buif":
            raise InputError(f"{path}: {key} is {found[key].dtype}; allowed: numbers")


def _pictures(
    path: Path, found: Mapping[str, np.ndarray], stated: str
) -> tuple[np.ndarray, list[str], tuple[float, float]]:
    """Scale the pictures to 0..1; where floats state no range, all pictures together are it."""
    stacks = {key: found[key] for key in ("stimuli", "stimuli_test")}
    notes = []
    if ranges.parse(stated) is None and all(stack.dtype.kind == "f" for stack in stacks.values()):
        everything = np.concatenate([stack.ravel() for stack in stacks.values()]).astype(np.float64)
        finite = everything[np.isfinite(everything)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        if low == high:
            raise InputError(f"{path}: all pictures are {low:g} everywhere; check the file")
        few, most = np.quantile(finite[:: max(1, finite.size // 100_000)], [0.001, 0.999])
        if most - few < _FAR * (high - low):
            notes.append(
                f"{path}: nearly all picture values lie in {few:.3g}..{most:.3g} but they run from "
                f"{low:.3g} to {high:.3g}: single pixels stretch the range; say it with range=LOW..HIGH"
            )
        stated = f"{low!r}..{high!r}"
    scaled, warnings = ranges.to_unit(stacks, str(path), stated)
    limits = ranges.parse(stated) or (0.0, 255.0 if stacks["stimuli"].dtype == np.uint8 else 65535.0)
    return np.concatenate(scaled), [*notes, *warnings], limits


def _regions(path: Path, codes: np.ndarray, names: np.ndarray) -> dict[str, np.ndarray]:
    """Name the regions: ``roi_names`` begins with code 0 (other) or with code 1 (V1); code 0 is none."""
    codes = codes.ravel()
    if codes.dtype.kind not in "uif" or not np.isfinite(codes).all() or (codes % 1).any() or codes.min() < 0:
        raise InputError(f"{path}: roi holds other than codes 0, 1, 2 ...; allowed: whole numbers from 0")
    words = [clean.as_name(name) for name in names.ravel()]
    if words and words[0].lower() in _OTHER:
        words = words[1:]
    elif not words or words[0].upper() != "V1":
        raise InputError(
            f"{path}: roi_names begins with {words[:1]}; allowed: V1 (code 1), or Other (code 0)"
        )
    if codes.max() > len(words):
        raise InputError(f"{path}: roi holds code {int(codes.max())} and roi_names name {len(words)} regions")
    clean.each_once(((word, f"roi_names {k}") for k, word in enumerate(words, start=1)), f"{path}: region")
    return {word: codes == k for k, word in enumerate(words, start=1)}


def _labels(path: Path, counts: tuple[int, int], level: int) -> tuple[np.ndarray | None, list[str]]:
    if type(level) is not int or level not in (1, 2, 3, 4):
        raise InputError(f"label_level is {level!r}; allowed: 1 (general) to {LEVELS} (special)")
    files = [path.with_name(name) for name in LABELS]
    if not any(there(file) for file in files):
        return None, []
    lost = [file.name for file in files if not there(file)]
    if lost:
        return None, [f"{path.parent} holds no {lost[0]}, so labels are left out"]
    rows = []
    for file, count in zip(files, counts, strict=True):
        words = read_npy(file)
        if words.shape != (LEVELS, count) or words.dtype.kind not in "US":
            raise InputError(
                f"{file}: {words.dtype} of shape {words.shape}; allowed: words of shape ({LEVELS}, "
                f"{count}), a row a level"
            )
        rows.append(words[level - 1])
    said = np.array([_word(word) for word in np.concatenate(rows)])
    none = int((said == UNLABELLED).sum())
    return said, [
        f"{none} of {len(said)} pictures have no label and are called {UNLABELLED!r}"
    ] if none else []


def _word(value: Any) -> str:
    text = (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).strip()
    return UNLABELLED if text.lower() in ("", "nan", "n/a", "none") else text
