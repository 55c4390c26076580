"""Scores of a study picture by picture, kept on disk; what they say with intervals, alone and paired."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from brainit import metrics
from lab.files import replacing
from lab.zoo.shared.painting import Scores

RIVAL, BAYES, READ_OUT = "ridge to tokens", "shared prior, Bayes", "read-out (both, stacked)"
PAIRED = ("two_way", "top1", "pixcorr")
SINGLE, STAGE_1 = "single, stage 1", "shared, stage 1"
SHIPPED = "shipped network, adapted"
NEWCOMER = "new subject"
_SPLIT = "|"

Method = tuple[str, str]
"""Group and name of a method: a row of the table."""
_STAGE_2 = "shared, stage 2, denoiser"
CONTRASTS: tuple[tuple[str, Method, Method], ...] = (
    ("shared above single, stage 1", ("cohort", STAGE_1), ("cohort", SINGLE)),
    ("shared above single, read-out", ("cohort", READ_OUT), ("cohort", "single, read-out")),
    ("network above its read-out", ("cohort", STAGE_1), ("cohort", READ_OUT)),
    *(
        (f"stage 2 above stage 1, denoiser {how}", ("cohort", f"{_STAGE_2} {how}"), ("cohort", STAGE_1))
        for how in ("frozen", "by LoRA", "whole")
    ),
    ("functional above anatomical clusters", ("cohort", STAGE_1), ("clusters", "anatomical")),
    ("functional above random clusters", ("cohort", STAGE_1), ("clusters", "random")),
    ("anatomical above random clusters", ("clusters", "anatomical"), ("clusters", "random")),
    ("external pictures above none", ("cohort", STAGE_1), ("external", "no external pictures")),
    ("both branches above tokens alone", ("branches", "both"), ("branches", "tokens alone")),
    ("both branches above structure alone", ("branches", "both"), ("branches", "structure alone")),
)
_OF_NEWCOMERS = (
    ("shared network", RIVAL),
    ("shared network", BAYES),
    ("shared network", SINGLE),
    (SHIPPED, RIVAL),
    (SHIPPED, BAYES),
)


@dataclass
class Scoreboard:
    """What was scored, as it comes.

    Parameters
    ----------
    file : Path
        Where it is kept.
    scores : dict
        By group, method and subject.
    pictures : dict
        By group and method: uint8 (n, 64, 64, 3) of the last subject that it was tried on.
    """

    file: Path
    scores: dict[tuple[str, str, str], Scores] = field(default_factory=dict)
    pictures: dict[Method, np.ndarray] = field(default_factory=dict)
    _known: dict[tuple[Any, ...], dict[str, Any]] = field(default_factory=dict)
    _files: dict[Method, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    @classmethod
    def open(cls, file: Path) -> Scoreboard:
        """Return what ``file`` holds, or an empty board."""
        from safetensors.numpy import load_file

        board = cls(file)
        held = load_file(file) if file.is_file() else {}
        for key in sorted(held):  # rows stay in their order
            _, group, what, *rest = key.split(_SPLIT)
            if rest:
                board.scores.setdefault((group, what, rest[0]), {})[rest[1]] = held[key]
            else:
                board.pictures[group, what] = _opened(held[key])
        return board

    def save(self) -> None:
        """Write everything."""
        from safetensors.numpy import save_file

        values: dict[str, np.ndarray] = {}
        for place, (method, picture) in enumerate(self.pictures.items()):
            if method not in self._files or self._files[method][0] is not picture:
                self._files[method] = picture, _packed(picture)  # not again at each save
            values[_SPLIT.join([f"{place:04d}", *method])] = self._files[method][1]
        for place, (key, scores) in enumerate(self.scores.items()):
            for name, value in scores.items():
                values[_SPLIT.join([f"{place:04d}", *key, name])] = np.ascontiguousarray(value)
        with replacing(self.file) as temporary:
            save_file(values, temporary)

    def sort(self, methods: list[Method]) -> None:
        """Put rows into the order of these methods, and each one's subjects into that of their names."""
        place = {method: k for k, method in reversed(list(enumerate(methods)))}

        def rank(item: tuple[tuple[str, ...], Any]) -> tuple[Any, ...]:
            group, what, *subject = item[0]
            return place.get((group, what), len(methods)), *subject

        self.scores = dict(sorted(self.scores.items(), key=rank))
        self.pictures = dict(sorted(self.pictures.items(), key=rank))

    def has(self, group: str, what: str, *subjects: str) -> bool:
        """Return whether all of these subjects have been scored."""
        return all((group, what, name) in self.scores for name in subjects)

    def rows(self) -> list[dict[str, Any]]:
        """Return one record for each method: means with 95 % intervals over pictures, and paired to ridge."""
        return [self._row(*method) for method in dict.fromkeys((g, w) for g, w, _ in self.scores)]

    def _row(self, group: str, what: str) -> dict[str, Any]:
        names = self._subjects(group, what)
        ours = self._mean(group, what, names)
        row: dict[str, Any] = {"group": group, "what": what, "subjects": len(names)}
        guided = ours.pop("guidance", None)
        row["guidance"] = "" if guided is None else round(float(guided.mean()), 1)
        row |= self._once((group, what, *names), lambda: {k: _interval(v) for k, v in ours.items()})
        home = group if self.has(group, RIVAL, names[0]) else "cohort"
        if what != RIVAL and self.has(home, RIVAL, *names):
            found = self._paired((group, what), (home, RIVAL), tuple(names))
            row |= {f"{k} above ridge": v for k, v in found.items() if k in PAIRED}
        return row

    def contrasts(self) -> list[dict[str, Any]]:
        """Return one record for each comparison whose two sides are there, on the subjects of both."""
        groups = dict.fromkeys(g for g, _, _ in self.scores if g.startswith(NEWCOMER))
        moving = tuple(
            (f"{g}: {ours} above {theirs}", (g, ours), (g, theirs))
            for g in groups
            for ours, theirs in _OF_NEWCOMERS
        )
        out = []
        for label, ours, theirs in CONTRASTS + moving:
            both = [n for n in self._subjects(*ours) if self.has(*theirs, n)]
            if both:
                paired = self._paired(ours, theirs, tuple(both))
                out.append({"contrast": label, "subjects": len(both), **paired})
        return out

    def _subjects(self, group: str, what: str) -> list[str]:
        return [n for g, w, n in self.scores if (g, w) == (group, what)]

    def _mean(self, group: str, what: str, names: list[str] | tuple[str, ...]) -> Scores:
        """Average over subjects, picture by picture."""
        found = [self.scores[group, what, n] for n in names]
        keys = set.intersection(*(set(one) for one in found))
        return {k: np.mean([one[k] for one in found], 0) for k in found[0] if k in keys}

    def _paired(self, ours: Method, theirs: Method, names: tuple[str, ...]) -> dict[str, Any]:
        def found() -> dict[str, Any]:
            a, b = self._mean(*ours, names), self._mean(*theirs, names)
            both = [k for k in a if k in b and k != "guidance"]
            return {k: _rounded(metrics.paired_interval(a[k], b[k])) for k in both}

        return self._once((ours, theirs, names), found)

    def _once(self, key: tuple[Any, ...], find: Any) -> dict[str, Any]:
        """Resampling is not done again for what has not changed."""
        if key not in self._known:
            self._known[key] = find()
        return self._known[key]


def _packed(pictures: np.ndarray) -> np.ndarray:
    """Return pictures (n, H, W, 3) as the bytes of one file without loss."""
    from PIL import Image

    n, height, width, _ = pictures.shape
    out = io.BytesIO()
    Image.fromarray(pictures.reshape(n * height, width, 3)).save(out, format="WEBP", lossless=True)
    return np.frombuffer(out.getvalue() + bytes([n]), np.uint8)


def _opened(packed: np.ndarray) -> np.ndarray:
    from PIL import Image

    flat = np.asarray(Image.open(io.BytesIO(packed[:-1].tobytes())).convert("RGB"))
    return flat.reshape(int(packed[-1]), -1, *flat.shape[1:])


def _interval(values: np.ndarray) -> list[float]:
    return _rounded(metrics.bootstrap_interval(values))


def _rounded(found: tuple[float, float, float]) -> list[float]:
    return [round(float(v), 4) for v in found]
