"""What the Brain page draws on slices: noise ceiling, a response, clusters, the network's attention."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from lab.errors import InputError
from lab.jobs.contract import Context

CEILING, RESPONSE, CLUSTERS = "noise ceiling, or spread", "response to a picture", "clusters of voxels"
SEMANTIC, STRUCTURAL = "attention of the semantic tokens", "attention of the structural picture"
KINDS = (CEILING, RESPONSE, CLUSTERS, SEMANTIC, STRUCTURAL)
_SHORT = {SEMANTIC: "attention, tokens", STRUCTURAL: "attention, structure"}
_MOST = 8  # outputs of the network whose attention is averaged


@lru_cache(maxsize=4)
def subject_of(folder: str) -> tuple[Any, str]:
    """Return a run's subject and what must be said wherever its scores stand."""
    from lab.decoding import same_data
    from lab.decoding.data import open_subjects
    from lab.decoding.trained import TrainedRun

    run = TrainedRun.open(Path(folder))
    data = open_subjects(run.config, Context().progress)
    same_data.check(Path(folder), data.subject)
    return data.subject, words_on(bool(data.about["simulated"]), data.about["leak_line"])


@lru_cache(maxsize=2)
def network_of(folder: str) -> Any:
    """Return a run's trained network."""
    from lab.decoding.trained import TrainedRun

    return TrainedRun.open(Path(folder)).network()


def words_on(simulated: bool, leak_line: str, arithmetic: str = "simulated") -> str:
    """Say whose voxels these are, what the leak check found, and how bit-widths are computed."""
    who = "**Simulated subject**: its voxels are made by the program." if simulated else "Measured subject."
    how = "Decoded in full precision." if arithmetic == "full precision" else f"Bit-widths are {arithmetic}."
    return f"{who} {leak_line[:1].upper()}{leak_line[1:]}. {how}"


def voxel_values(folder: Path, kind: str, trial: int) -> tuple[str, np.ndarray]:
    """Return a value for each voxel, and its name.

    Raises
    ------
    InputError
        An unknown kind, or a test picture that does not exist.
    MissingDataError
        The network's weights are not there.
    """
    subject, _ = subject_of(str(folder))
    if kind == CEILING:
        if subject.noise_ceiling is not None:
            return "noise ceiling", subject.noise_ceiling
        return "spread over training trials", subject.part("train").betas.std(0)
    if kind == CLUSTERS:
        return "cluster", network_of(str(folder)).clusters.labels[subject.name]
    if kind not in KINDS:
        raise InputError(f"{kind[:40]!r} cannot be drawn; there are: {', '.join(KINDS)}")
    test = subject.part("test").mean_over_repeats()
    if not 0 <= trial < test.n_trials:
        raise InputError(f"trial {trial}: this subject has test pictures 0 to {test.n_trials - 1}")
    one = test.select(np.arange(test.n_trials) == trial)
    if kind == RESPONSE:
        train = subject.part("train").betas
        spread = np.where(train.std(0) > 0, train.std(0), 1)
        return f"|z| for picture {trial}", np.abs((one.betas[0] - train.mean(0)) / spread)
    return f"{_SHORT[kind]}, picture {trial}", attention(folder, one, kind)


def attention(folder: Path, one: Any, kind: str) -> np.ndarray:
    """Share of every voxel in what the network says of one trial, averaged over evenly chosen outputs."""
    network = network_of(str(folder))
    tokens, places = _outputs(network)
    if kind == STRUCTURAL and not places:
        raise InputError(
            "this network predicts no structural picture, so there is no attention of one; "
            f"it has {SEMANTIC!r}"
        )
    where = {"scale": 0} if kind == STRUCTURAL else {}
    count = places if kind == STRUCTURAL else tokens
    chosen = np.unique(np.linspace(0, count - 1, min(count, _MOST)).round().astype(int))
    maps = [network.attention_map(one, int(token), **where)[0] for token in chosen]
    return np.mean(maps, axis=0)


def _outputs(network: Any) -> tuple[int, int]:
    """How many tokens a network predicts, and how many places of a structural picture."""
    from brainit.training.adapting import AdaptedSubject

    if isinstance(network, AdaptedSubject):  # the shared network has tokens alone
        return int(network.network.config["n_tokens"]), 0
    shapes = network.target_scaler.shapes
    return shapes[0][0], shapes[1][1] * shapes[1][2] if len(shapes) > 1 else 0


def slices(folder: Path, kind: str, trial: int, threshold: float) -> tuple[np.ndarray, str]:
    """Draw a value of each voxel on slices, the lowest share of them hidden: a picture and its caption.

    Raises
    ------
    InputError
        The subject has no voxel positions.
    """
    from lab.figures.brain.slices import brain_slices
    from lab.figures.plate import Provenance

    subject, _ = subject_of(str(folder))
    if not subject.has_places:
        raise InputError(
            f"subject {subject.name} of {subject.dataset} has no voxel positions: nothing to map"
        )
    what, values = voxel_values(folder, kind, trial)
    values = np.asarray(values)
    keep = np.full(len(values), True) if kind == CLUSTERS else values >= np.quantile(values, threshold)
    source = Provenance(
        f"{subject.dataset}, {subject.name}",
        f"{keep.sum()} of {len(values)} voxels",
        simulated=subject.simulated,
    )
    space = str(subject.info.get("space") or ("MNI" if subject.simulated else ""))
    plate = brain_slices(subject.xyz[keep], values[keep], what, source, space, kind == CLUSTERS)
    return plate.pixels(), plate.caption
