"""Make a simulated dataset on disk: pictures, then one subject after the other."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from brainit.datasets.files import pictures
from brainit.datasets.leaks import similarity
from brainit.datasets.simulated import anatomy, design, features, noise, procedural, tuning, ventral, write
from brainit.datasets.simulated.config import PRESETS, SimulationConfig
from brainit.datasets.simulated.sight import Sight, deep_sight, flat_sight, standard
from brainit.errors import InputError
from brainit.progress import Progress, silent

_BATCH = 64
_NEAR = 0.85


def generate(
    root: Path | str,
    config: SimulationConfig | None = None,
    *,
    stimuli: Any = None,
    test_stimuli: Any = None,
    stimuli_name: str | None = None,
    features: features.Features | None = None,
    deep: ventral.Maps | None = None,
    features_name: str | None = None,
    progress: Progress = silent,
) -> Path:
    """Make simulated subjects and write them to ``root``.

    Finished subjects are kept, so a killed call goes on when repeated; each subject's folder appears whole
    or not at all. The same arguments give the same files.

    Parameters
    ----------
    root : path
        Folder to fill; new, empty, or holding the same simulation.
    config : SimulationConfig, optional
        Default the small preset.
    stimuli : path or array of shape (n, H, W) or (n, H, W, 3), optional
        Pictures to draw from, as ``pictures.draw`` takes them; default procedural pictures.
    test_stimuli : path or array, optional
        Another source for the test pictures; default the same.
    stimuli_name, features_name : str, optional
        What reports should say; default made from the arguments.
    features : callable, optional
        ``features(images) -> array (n, ...)``: high-level features for ventral voxels of the kind
        ``prototypes``. Images are float32 (n, side, side, 3) in 0..1. Default a fixed bank of random
        convolutions.
    deep : callable, optional
        Stages of a network that ventral voxels of the kind ``mixtures`` read. Default the same bank.
    progress : callable

    Returns
    -------
    Path
        ``root``.

    Raises
    ------
    InputError
        ``root`` holds something else, there are too few pictures, or what is given does not go with the
        kind of ventral voxels.
    """
    root, config = Path(root), config or PRESETS["small"]
    rich = config.ventral == "mixtures"
    if (features if rich else deep) is not None:
        raise InputError(
            f"ventral voxels of the kind {config.ventral!r} take {'deep' if rich else 'features'}, not "
            f"{'features' if rich else 'deep'}"
        )
    progress(0, config.n_subjects + 1, "pictures")
    images, labels = _pictures(config, stimuli, test_stimuli)
    about = {
        "config": config.plain(),
        "stimuli": stimuli_name or _name(stimuli),
        "features": features_name or ("given callable" if features or deep else "fixed random convolutions"),
        "pictures_sha256": hashlib.sha256(images.tobytes()).hexdigest(),
    }
    write.begin(root, about, images, labels)
    sight: Sight | None = None
    for number in range(config.n_subjects):
        name = write.subject_name(number)
        progress(number + 1, config.n_subjects + 1, name)
        if (root / name).is_dir():
            continue
        if sight is None:
            sight = deep_sight(config, images, deep) if rich else flat_sight(config, images, features)
        write.subject(root, number, _subject(config, number, images, sight), labels)
    write.finish(root, about | sources(stimuli, test_stimuli))
    progress(config.n_subjects + 1, config.n_subjects + 1, "done")
    return root


def _subject(config: SimulationConfig, number: int, images: np.ndarray, sight: Sight) -> write.Made:
    # one stream of random numbers a subject, so that subjects do not depend on the order of making
    rng = np.random.default_rng([config.seed, 1000 + number])
    cortex = anatomy.grow(config, rng)
    rich = config.ventral == "mixtures"
    shares = tuning.MIX_OF_MIXTURES if rich else tuning.MIX
    own = config.own if rich else 0.0
    tuned = tuning.assign(cortex, tuning.prototypes(config.seed), rng, shares, own)
    mixtures = None
    if rich:
        voxel = np.flatnonzero(tuned.kind == tuning.KINDS.index("feature"))
        mixtures = sight.mix(cortex, voxel, rng)
        tuned.prototype[voxel] = mixtures.kind
    trials = design.trials_of(config, number, rng)
    used = np.unique(trials.picture)
    field = tuning.fields(cortex)
    rows = []
    for part in np.array_split(used, max(1, used.size // _BATCH)):
        seen = features.maps(images[part].astype(np.float32) / 255)
        answer = tuning.respond(tuned, field, seen, sight.high(part))
        if mixtures:
            answer[:, mixtures.voxel] = ventral.drive(mixtures, sight.components(part))
        rows.append(answer)
    answers = np.concatenate(rows)
    train, _ = design.pictures_of(config, number)
    reference = np.searchsorted(used, train)
    if mixtures:
        drives = standard(answers[:, mixtures.voxel], reference)
        answers[:, mixtures.voxel] = ventral.bend(drives)
    answers = standard(answers, reference)
    responds = tuned.kind != tuning.KINDS.index("noise")
    responds &= answers.std(0) > 0
    ceiling = noise.ceilings(responds, config.ceiling_of(number), rng)
    places = np.argwhere(cortex.inside) * config.resolution
    signal = answers[np.searchsorted(used, trials.picture)]
    values = noise.betas(signal, ceiling, trials.session, places, config.noise_shared, rng)
    return write.Made(cortex, tuned, trials, ceiling, values)


def _pictures(config: SimulationConfig, stimuli: Any, test_stimuli: Any) -> tuple[np.ndarray, np.ndarray]:
    """Draw all pictures; test pictures that nearly equal a training picture are replaced."""
    n_train, spare = config.n_pictures - config.n_test, config.n_test + 10

    def draw(source: Any, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        if source is None:
            return procedural.draw(n, seed, config.side)
        return pictures.draw(source, n, seed, config.side)

    if test_stimuli is None:
        n = n_train + spare
        try:
            images, labels = draw(stimuli, n, config.seed)
        except InputError:  # a source with exactly enough pictures has none to spare
            images, labels = draw(stimuli, config.n_pictures, config.seed)
        images, labels, more, more_labels = (
            images[:n_train],
            labels[:n_train],
            images[n_train:],
            labels[n_train:],
        )
    else:
        images, labels = draw(stimuli, n_train, config.seed)
        try:
            more, more_labels = draw(test_stimuli, spare, config.seed + 1)
        except InputError:
            more, more_labels = draw(test_stimuli, config.n_test, config.seed + 1)
    fresh = similarity(list(more / 255.0), list(images / 255.0)).max(1) < _NEAR
    # a source full of near-duplicates cannot give a clean test set; the leak check then says so
    order = np.argsort(~fresh, kind="stable")[: config.n_test]
    return np.concatenate([images, more[order]]), np.concatenate([labels, more_labels[order]])


def sources(stimuli: Any, test_stimuli: Any) -> dict[str, str | None]:
    """Describe where pictures came from, to tell whether a later call names the same files."""
    return {
        "test_stimuli": None if test_stimuli is None else _name(test_stimuli),
        "stimuli_files": _files(stimuli),
        "test_stimuli_files": _files(test_stimuli),
    }


def _files(source: Any) -> str | None:
    """Digest of the names and sizes of a source's files; None where it is no path, or is not there."""
    if not isinstance(source, (str, Path)) or not Path(source).exists():
        return None
    path = Path(source)
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    listing = [(p.relative_to(path).as_posix(), p.stat().st_size) for p in files if p.is_file()]
    return hashlib.sha256(str(listing).encode()).hexdigest()[:16]


def _name(stimuli: Any) -> str:
    if stimuli is None:
        return "procedural pictures"
    return "pictures given as an array" if isinstance(stimuli, np.ndarray) else Path(stimuli).name
