"""Leak check: look for test stimuli, or nearly the same pictures, in training.

A decoder that has seen a test picture scores by recall. In one circulating copy of a public dataset all 12
test stimuli also occur in training, and scores published on it read 98 %. So this runs before any score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from brainit.subject import Subject

_SIDE = 16


@dataclass(frozen=True)
class LeakReport:
    """What the leak check found.

    Parameters
    ----------
    leak_test_in_train : int
        Distinct test stimuli that occur in training, exactly or nearly.
    exact, near : int
        The two shares of it.
    n_test, n_train : int
        Distinct stimuli compared.
    pairs : tuple of (str, str, float)
        Test stimulus, most similar training stimulus, similarity (1 for exact), for every leak.
    closest : float
        Largest similarity between any test and any training picture; NaN without pictures.
    checked : {"pictures", "names"}
        Whether pictures could be compared, or only the names of stimuli.
    threshold : float
        Similarity from which two pictures count as nearly the same.
    """

    leak_test_in_train: int
    exact: int
    near: int
    n_test: int
    n_train: int
    pairs: tuple[tuple[str, str, float], ...]
    closest: float
    checked: str
    threshold: float

    def line(self) -> str:
        """Say the result in one line."""
        if self.checked == "names":
            return (
                f"leak check by stimulus name only (no pictures known): {self.leak_test_in_train} of "
                f"{self.n_test} test stimuli in training"
            )
        return (
            f"leak check: {self.leak_test_in_train} of {self.n_test} test pictures in training ("
            f"{self.exact} exact, {self.near} near from {self.threshold:g}{self._closest()})"
        )

    def _closest(self) -> str:
        return "" if np.isnan(self.closest) else f"; closest other {self.closest:.2f}"


def find_leaks(subject: Subject, threshold: float = 0.85, others: Sequence[Subject] = ()) -> LeakReport:
    """Compare every test stimulus of a subject with every training stimulus.

    Parameters
    ----------
    subject : Subject
    threshold : float
        Two pictures are nearly the same where both the correlation of their 16x16 versions and that of the
        16x16 versions' horizontal and vertical differences reach this value, as they are or mirrored. The
        default was set on natural 64x64 pictures: unrelated ones stay below 0.73 among 4 million pairs, while
        JPEG at quality 30, blur, noise, half size, 20 % brighter and most shifts of one pixel are found.
    others : sequence of Subject
        Subjects that a network is trained on too: their training stimuli count as well.

    Returns
    -------
    LeakReport
    """
    ids = subject.stimulus_id.astype(str)
    test, train = (list(dict.fromkeys(ids[subject.split == s].tolist())) for s in ("test", "train"))
    shown = {i: subject for i in train}
    for other in others:
        for i in other.stimulus_id[other.split == "train"].astype(str).tolist():
            shown.setdefault(i, other)
    train, known = list(shown), set(shown)
    pairs = [(i, i, 1.0) for i in test if i in known]
    exact, near, closest = len(pairs), 0, float("nan")
    if subject.stimuli is not None and test and train:
        rest = [i for i in test if i not in known]
        if rest:
            seen = {i: who.stimuli[i] for i, who in shown.items() if who.stimuli is not None}
            train = list(seen)
            equal = {content(picture): i for i, picture in seen.items()}
            twins = [equal.get(content(subject.stimuli[i])) for i in rest]
            score = similarity([subject.stimuli[i] for i in rest], list(seen.values()))
            best, top = score.argmax(1), score.max(1)
            for k, twin in enumerate(twins):
                if twin is not None:
                    pairs.append((rest[k], twin, 1.0))
                elif top[k] >= threshold:
                    pairs.append((rest[k], train[best[k]], float(top[k])))
            same = np.array([twin is not None for twin in twins])
            clean = ~same & (top < threshold)
            exact += int(same.sum())
            near = int((~same & ~clean).sum())
            closest = float(top[clean].max()) if clean.any() else float("nan")
    return LeakReport(
        leak_test_in_train=len(pairs),
        exact=exact,
        near=near,
        n_test=len(test),
        n_train=len(train),
        pairs=tuple(pairs),
        closest=closest,
        checked="names" if subject.stimuli is None else "pictures",
        threshold=threshold,
    )


def learned_from(other: Subject, tested: Subject) -> Subject:
    """Return the trials of another subject that a network may learn from where ``tested`` is decoded.

    Training trials, less those of a picture that ``tested`` is tested on, by name.
    """
    names = np.unique(tested.stimulus_id[tested.split == "test"])
    return other.select((other.split == "train") & ~np.isin(other.stimulus_id, names))


def leaks_by_others(subjects: Sequence[Subject]) -> list[str]:
    """Say whose test pictures another subject learns from under another name, one line a subject.

    Networks are trained on all subjects of a dataset unless that is switched off.
    """
    lines = []
    for subject in subjects:
        if subject.stimuli is None:
            continue
        others = [learned_from(one, subject) for one in subjects if one.name != subject.name]
        known = {pair[0] for pair in find_leaks(subject).pairs}
        more = [pair for pair in find_leaks(subject, others=others).pairs if pair[0] not in known]
        if more:
            who = next(one.name for one in others if more[0][1] in one.stimulus_id)
            lines.append(
                f"{subject.dataset} {subject.name}: {len(more)} of its test pictures are training pictures "
                f"of other subjects, by another name (first: {more[0][0]} is {more[0][1]} of {who}): "
                "networks that learn from all subjects see them; give a picture one stimulus_id, or train "
                "on this subject alone (train_on=one)"
            )
    return lines


def similarity(one: list[np.ndarray], other: list[np.ndarray]) -> np.ndarray:
    """Similarity of pictures by their 16x16 versions and those versions' differences, mirrored or not.

    Parameters
    ----------
    one, other : lists of array of shape (H, W) or (H, W, 3)
        Pictures in 0..1, of any sizes.

    Returns
    -------
    array of shape (len(one), len(other))
        Minimum of the two correlations, maximum over mirroring; -1..1. A picture of one flat colour has 0.
    """
    small_one, small_other = _small(one), _small(other)
    direct = _both(small_one, small_other)
    return np.maximum(direct, _both(small_one[:, :, ::-1], small_other))


def content(picture: np.ndarray) -> bytes:
    """Key that equal pictures share, in 8 bits and colour: a grey picture equals its colour copy."""
    codes = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    colour = codes if codes.ndim == 3 else np.repeat(codes[..., None], 3, -1)
    return str(colour.shape).encode() + colour.tobytes()


def _both(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    colour = _rows(a) @ _rows(b).T
    edges = _rows(_edges(a)) @ _rows(_edges(b)).T
    return np.minimum(colour, edges)


def _small(images: list[np.ndarray]) -> np.ndarray:
    from PIL import Image

    out = np.empty((len(images), _SIDE, _SIDE, 3), np.float32)
    for k, image in enumerate(images):
        codes = Image.fromarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)).convert("RGB")
        out[k] = np.asarray(codes.resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float32) / 255
    return out


def _edges(small: np.ndarray) -> np.ndarray:
    grey = small.mean(-1)
    across, down = np.diff(grey, axis=2), np.diff(grey, axis=1)
    return np.concatenate([across.reshape(len(grey), -1), down.reshape(len(grey), -1)], 1)


def _rows(a: np.ndarray) -> np.ndarray:
    flat = a.reshape(len(a), -1)
    flat = flat - flat.mean(1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
