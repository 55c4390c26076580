"""Simulated subjects: a forward model of visual cortex, written as files and read back like anybody's.

Nothing here was measured. The model has retinotopic areas at MNI positions, a few functional kinds of voxel
shared by all subjects, a known noise ceiling for every voxel, session drift, and noise shared by neighbours.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from brainit.datasets import nifti
from brainit.datasets.files import clean
from brainit.datasets.simulated import config
from brainit.datasets.simulated.config import PRESETS, SimulationConfig, preset
from brainit.errors import InputError
from brainit.subject import Subject

__all__ = ["MAKES_ITSELF", "PRESETS", "SimulationConfig", "fetch", "generate", "load", "preset", "subjects"]

MAKES_ITSELF = True
"""The folder is made on first use."""


def generate(root: Path | str, config: SimulationConfig | None = None, **arguments: Any) -> Path:
    """Make simulated subjects in ``root``; arguments as for ``make.generate``."""
    from brainit.datasets.simulated import make

    return make.generate(root, config, **arguments)


def subjects(root: Path) -> list[str]:
    """Return the subjects of a finished simulation, or those that the small preset would make."""
    from brainit.datasets.simulated.write import DESCRIPTION, subject_name

    if (root / DESCRIPTION).is_file():
        return nifti.subjects(root)
    return [subject_name(k) for k in range(PRESETS["small"].n_subjects)]


def load(
    root: Path,
    subject: str | None = None,
    *,
    preset: str | None = None,
    seed: int | None = None,
    stimuli: Any = None,
    test_stimuli: Any = None,
    **options: Any,
) -> Subject:
    """Read one simulated subject; where ``root`` holds none yet, the subjects are made first.

    Parameters
    ----------
    root : Path
    subject : str, optional
        Default the first.
    preset, seed : optional
        What to make (default small, 0). Where ``root`` already holds subjects, they must agree.
    stimuli, test_stimuli : path or array, optional
        Pictures to show when the subjects have to be made.
    **options
        ``nan`` and ``zscore``, as for the ``nifti`` dataset.

    Raises
    ------
    InputError
        ``root`` holds subjects of another preset or seed.
    """
    from brainit.datasets.simulated.write import DESCRIPTION

    described = root / DESCRIPTION
    if not described.is_file():
        generate(
            root, config.preset(preset or "small", seed=seed or 0), stimuli=stimuli, test_stimuli=test_stimuli
        )
    there = json.loads(described.read_text(encoding="utf-8")).get("config", {})
    for key, wanted in (("preset", preset), ("seed", seed)):
        if wanted is not None and there.get(key) != wanted:
            raise InputError(
                f"{root} holds {key} {there.get(key)!r}, not {wanted!r}; give another folder or remove it"
            )
    name = clean.pick_subject(subject, nifti.subjects(root), root)
    return nifti.load_folder(root, name, dataset="simulated", **options)


def fetch(root: Path, progress: Any) -> Path:
    """Make the small preset in ``root``."""
    return generate(root, PRESETS["small"], progress=progress)
