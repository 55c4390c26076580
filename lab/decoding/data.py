"""First steps of a reconstruction: subjects, leak check, and what the networks should predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from brainit import datasets
from brainit.datasets.findings import odd_betas, odd_names
from brainit.datasets.leaks import find_leaks, learned_from
from brainit.io import fingerprint
from brainit.subject import Subject
from brainit.training.targets import Targets, TargetTable
from lab.decoding import same_data
from lab.decoding.needs import check_needs
from lab.decoding.settings import ReconstructConfig
from lab.errors import InputError
from lab.images import SIDE
from lab.progress import Progress

_BATCH = 64
_SCREENED = 2000  # external pictures compared with the test pictures at once
_LIKE = 0.85  # from this similarity on, a picture is taken for a test picture (as in the leak check)


@dataclass(frozen=True)
class BrainData:
    """Who is decoded, whom the networks learn from, what a report should know of them, and their hashes."""

    subject: Subject
    others: list[Subject]
    about: dict[str, Any]
    marks: dict[str, str]

    @property
    def learners(self) -> list[Subject]:
        """Subjects that the networks are trained on, by name."""
        return sorted([self.subject, *self.others], key=lambda s: s.name)


def open_subjects(config: ReconstructConfig, progress: Progress) -> BrainData:
    """Read the subject to decode and, with ``train_on: all``, the dataset's other subjects.

    Trials in which another subject saw a test picture of this one are left out of training.
    """
    options: dict[str, Any] = dict(config.options)
    if config.dataset == "simulated":
        from lab.decoding.simulated import asked_for, ensure_simulated

        root: str | None = str(ensure_simulated(config.root, progress=progress, **asked_for(options)))
    else:
        root = config.root
    names = datasets.subjects(config.dataset, root)
    subject = datasets.open(config.dataset, root, config.subject, **options)
    check_needs(config, subject)
    rest = [n for n in names if n != subject.name] if config.train_on == "all" else []
    others, marks = [], same_data.marks([subject])
    if subject.stimuli is not None:
        for index, name in enumerate(rest):
            progress(index, len(rest), f"reading {name}")
            other = datasets.open(config.dataset, root, name, **options)
            marks |= same_data.marks([other])
            others.append(learned_from(other, subject))
    leaks = find_leaks(subject, others=others)
    about = {
        "dataset": subject.dataset,
        "subject": subject.name,
        "simulated": subject.simulated,
        "n_voxels": subject.n_voxels,
        "n_trials": subject.n_trials,
        "roi": {name: int(inside.sum()) for name, inside in subject.roi.items()},
        "trained_on": [subject.name, *(o.name for o in others)],
        "leak": {k: None if v != v else v for k, v in asdict(leaks).items()},  # NaN: nothing to compare
        "leak_line": leaks.line(),
        "info": {k: v for k, v in subject.info.items() if _plain(v)},
        "warnings": [*subject.info.get("warnings", []), *odd_betas(subject), *odd_names(subject)],
        "terms": subject.info.get("terms"),
        "space": subject.info.get("space"),
    }
    return BrainData(subject, others, {k: v for k, v in about.items() if v is not None}, marks)


def zoo_targets(
    learners: Sequence[Subject],
    progress: Progress,
    device: str = "cpu",
    encoded: dict[str, TargetTable] | None = None,
) -> TargetTable:
    """Encode every training stimulus: semantic tokens and structural maps of the zoo's encoders.

    ``encoded`` keeps the last set for a caller who asks for the same pictures again.
    """
    pictures: dict[str, np.ndarray] = {}
    for subject in learners:
        train = subject.part("train")
        for key in train.stimulus_id:
            if key not in pictures:
                pictures[str(key)] = train.stimuli[key]  # type: ignore[index]
    key = fingerprint(list(pictures), list(pictures.values()))
    if encoded is not None and key in encoded:
        return encoded[key]
    table = TargetTable(list(pictures), _encode(list(pictures.values()), progress, device))
    if encoded is not None:
        encoded.clear()
        encoded[key] = table
    return table


def _encode(pictures: Sequence[np.ndarray], progress: Progress, device: str = "cpu") -> Targets:
    import torch

    from lab import zoo
    from lab.images import to_model

    encoder, structure = zoo.load("encoder-64", device), zoo.load("structure-64", device)
    tokens, maps = [], []
    with torch.no_grad():
        for start in range(0, len(pictures), _BATCH):
            progress(start, len(pictures), "encoding pictures")
            images = to_model(np.stack(pictures[start : start + _BATCH])).to(device)
            tokens.append(encoder(images).cpu())
            maps.append([scale.cpu() for scale in structure.features(images)])
    return Targets(torch.cat(tokens), [torch.cat(parts) for parts in zip(*maps, strict=True)])


def external_targets(
    config: ReconstructConfig, subject: Subject, progress: Progress, device: str = "cpu"
) -> Targets | None:
    """Encode ``config.external`` pictures that nobody was shown, for synthetic fMRI (0: None).

    From the glyph prior, or from ``external_stimuli``; less what resembles a test picture of the subject.

    Raises
    ------
    InputError
        All of them do.
    """
    if config.external == 0:
        return None
    if config.external_stimuli is None:
        from brainit.structure import GlyphPrior
        from lab.decoding.structure import glyph_weights

        found = GlyphPrior(glyph_weights()).draw(config.external, 28, config.seed)
    else:
        from brainit.datasets.files import pictures

        codes, _ = pictures.draw(config.external_stimuli, config.external, config.seed, SIDE)
        found = codes.astype(np.float32) / 255
    fresh = _unlike(found, subject.part("test"))
    if not fresh:
        raise InputError(
            f"all {len(found)} external pictures resemble test pictures, so none may be learned from: give "
            "others (external_stimuli), or --external 0"
        )
    if len(fresh) < len(found):
        words = (
            f"{len(found) - len(fresh)} of {len(found)} external pictures resemble test pictures: left out"
        )
        progress(1, 1, words)
    return _encode(fresh, progress, device)


def _unlike(found: np.ndarray, tested: Subject) -> list[np.ndarray]:
    """Return the pictures that resemble none of a subject's test pictures."""
    from brainit.datasets.leaks import similarity

    shown = [np.asarray(tested.stimuli[k]) for k in np.unique(tested.stimulus_id)]  # type: ignore[index]
    fresh: list[np.ndarray] = []
    for start in range(0, len(found), _SCREENED):
        some = list(found[start : start + _SCREENED])
        near = similarity(shown, some).max(0) >= _LIKE
        fresh += [picture for picture, same in zip(some, near, strict=True) if not same]
    return fresh


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool | list | tuple | dict)
