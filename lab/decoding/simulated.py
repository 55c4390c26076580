"""Making simulated subjects: which pictures they see, and what their high-level voxels are tuned to.

``brainit`` knows nothing of the shipped models, so they are handed to it from here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import InputError
from lab.progress import Progress, silent
from lab.runs.lock import alone_with

if TYPE_CHECKING:
    import numpy as np

#: Present once all subjects are there.
DESCRIPTION = "dataset_description.json"

#: High-level tuning of simulated voxels, and what reports say of it.
FEATURES = {
    "alexnet": "layers 2 to 5 of ST-LPIPS' AlexNet at 64 pixels, which neither decodes nor scores",
    "efficientnet": "stages of EfficientNet-Lite0, the network that also scores: a favourable cortex",
    "random": "fixed random convolutions",
    "encoder-64": "encoder-64's tokens, which the decoder also predicts: favourable to it, circular",
}


def asked_for(options: dict[str, Any]) -> dict[str, Any]:
    """Take what `ensure_simulated` makes out of a dataset's options, and check it; the others stay.

    ``preset`` and ``seed`` stay as well: who reads the subjects looks at them.

    Raises
    ------
    InputError
        A name is not known, or the seed is no whole number from 0.
    """
    known: dict[str, Any] = {name: options[name] for name in ("preset", "seed") if name in options}
    known |= {name: options.pop(name) for name in ("stimuli", "test_stimuli", "features") if name in options}
    preset, seed = known.get("preset", "small"), known.get("seed", 0)
    if not str(seed).isdecimal() or int(seed) >= 2**31:
        raise InputError(f"options.seed: {seed!r}; allowed: a whole number from 0 to {2**31 - 1}")
    _settings(str(preset), int(seed), known.get("features"))
    return known | {"preset": str(preset), "seed": int(seed)}


def _settings(preset: str, seed: int, features: str | None) -> Any:
    from brainit.datasets.simulated import config

    if features is not None and features not in FEATURES:
        raise InputError(f"simulated features {features!r} are not known; allowed: {', '.join(FEATURES)}")
    kind = {"ventral": "prototypes"} if features == "encoder-64" else {}
    return config.preset(preset, seed=seed, **kind)


def ensure_simulated(
    root: Path | str | None = None,
    preset: str = "small",
    seed: int = 0,
    stimuli: Path | str | None = None,
    progress: Progress = silent,
    *,
    test_stimuli: Path | str | None = None,
    features: str | None = None,
) -> Path:
    """Make simulated subjects where ``root`` holds none yet, or go on making them after a stop.

    Parameters
    ----------
    root : path, optional
        Folder of the subjects; default its place in the user's cache.
    preset : str
        ``"small"``, ``"demo"``, ``"cohort-small"`` or ``"cohort"``.
    seed : int
        Decides tuning, layout, noise and which pictures are drawn.
    stimuli : path, optional
        Folder, parquet file or ``.npz`` of pictures. Default where they are enough: the shipped samples of
        the zoo's own decoder; else procedural pictures.
    test_stimuli : path, optional
        Another source for the test pictures.
    features : str, optional
        What ventral voxels read. ``"alexnet"`` (default): a network that neither makes the decoder's tokens
        nor scores its pictures; it comes with the ``weights`` extra. ``"efficientnet"``: the network that
        scores, which makes a favourable cortex; reports say so. ``"random"``: fixed random convolutions.
        ``"encoder-64"``: the zoo encoder's tokens, in repeated prototypes; a decoder that predicts the same
        tokens has it too easy then, and reports say so.

    Returns
    -------
    Path
        Folder of the subjects.

    Raises
    ------
    InputError
        A name is not known, or ``root`` holds other subjects than were asked for.
    """
    from brainit import datasets
    from brainit.datasets import simulated
    from brainit.datasets.simulated import make

    wanted = _settings(preset, seed, features)
    folder = datasets.default_root("simulated") if root is None else Path(root).expanduser()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; simulated subjects are a folder: give another --root")
    asked = {
        "preset": None if preset == "small" else preset,
        "seed": seed or None,
        "stimuli": None if stimuli is None else Path(stimuli).name,
        "features": FEATURES[features] if features else None,
    }
    with _alone(folder, progress):  # a second process finds the subjects of the first
        if (folder / DESCRIPTION).is_file():
            _check_same(folder, asked | make.sources(stimuli, test_stimuli))
            return folder
        pictures, name = _pictures(stimuli, wanted.n_pictures)
        return simulated.generate(
            folder,
            wanted,
            stimuli=pictures,
            test_stimuli=test_stimuli,
            stimuli_name=name,
            features=_encoder_features() if features == "encoder-64" else None,
            deep=_cortex(features),
            features_name=FEATURES[features or "alexnet"],
            progress=progress,
        )


def _alone(folder: Path, progress: Progress) -> AbstractContextManager[Any]:
    """Wait until no other process makes subjects in ``folder``."""
    if (folder / DESCRIPTION).is_file():
        return nullcontext()
    return alone_with(folder, progress)


def _pictures(stimuli: Path | str | None, needed: int) -> tuple[Any, str | None]:
    """Return the pictures to show and what reports call them (None: as the simulation itself names them)."""
    if stimuli is not None:
        return stimuli, None
    from lab.zoo import stimuli as shipped

    if not shipped.SHEET.is_file():
        return None, None
    images, _ = shipped.load()
    return (images, shipped.NAME) if len(images) >= needed else (None, None)


def _check_same(folder: Path, wanted: dict[str, Any]) -> None:
    """Refuse a folder whose subjects are others than were asked for; a default asks for nothing."""
    there = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    there |= there.get("config", {})
    differ = [
        f"{k} {there[k]!r}, not {v!r}"
        for k, v in wanted.items()
        if v is not None and k in there and there[k] != v  # older folders do not say all of it
    ]
    if differ:
        raise InputError(f"{folder} holds subjects of {' and '.join(differ)}; give another --root")


def _encoder_features() -> Callable[[np.ndarray], np.ndarray]:
    import torch

    from lab import zoo
    from lab.images import to_model

    encoder = zoo.load("encoder-64")

    def tokens(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return encoder(to_model(images)).flatten(1).numpy()

    return tokens


def _cortex(features: str | None) -> Callable[[np.ndarray], Sequence[np.ndarray]] | None:
    from lab.zoo.cortex import cortex_maps, scorer_maps

    if features == "efficientnet":
        return scorer_maps()
    return cortex_maps(side=64) if features in (None, "alexnet") else None
