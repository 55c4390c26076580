"""What the diffusion decoder is given: at test, and, for training trials that were left out, to calibrate on.

The decoder meets tokens and structural pictures that were *predicted*, which are duller than true ones. A
quantizer must be calibrated on the same kind. Predictions of test trials may not be looked at, and those of
training trials by networks that have seen them are too good; so the trials are taken that each network's
training had left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from brainit.subject import Subject
from lab.decoding import structure
from lab.decoding.settings import ReconstructConfig
from lab.errors import InputError
from lab.progress import Progress

Step = Callable[[str, Callable[[], Mapping[str, Any]]], dict[str, Any]]


@dataclass(frozen=True)
class Conditions:
    """What is decoded from, and what it is compared with.

    Parameters
    ----------
    truth : float32 array of shape (n, H, W[, 3])
        Pictures shown at test.
    tokens : float32 array of shape (n, 17, 192)
    start : float32 array of shape (n, 3, 64, 64)
        Structural pictures in 0..1.
    left_out_tokens, left_out_start : float32 arrays of shape (k, 17, 192), (k, 3, 64, 64)
        The same for training trials that were left out of training.
    predicted : mapping of str to array
        Brain-IT's tokens and structural maps at test.
    ridge, mean_image : float32 arrays like ``truth``
    ridge_tokens : float32 array of shape (n, 17, 192)
        What ridge from voxels to tokens says.
    ridge_weights : float32 array of shape (n_voxels,), optional
        How much each voxel says of the pixels of ``ridge``: norms of its weights; None in an older run.
    from_start : str
        Where the structural pictures come from.
    facts : mapping
        Numbers about them.
    """

    truth: np.ndarray
    tokens: np.ndarray
    start: np.ndarray
    left_out_tokens: np.ndarray
    left_out_start: np.ndarray
    predicted: Mapping[str, np.ndarray]
    ridge: np.ndarray
    mean_image: np.ndarray
    ridge_tokens: np.ndarray
    ridge_weights: np.ndarray | None
    from_start: str
    facts: Mapping[str, Any]


def find_conditions(
    step: Step,
    config: ReconstructConfig,
    subject: Subject,
    decoder: Callable[[], structure.Decoder],
    device: str,
    progress: Progress,
) -> Conditions:
    """Predict everything that the decoder needs, or read it where the run has it already.

    Parameters
    ----------
    step : callable
        ``step(name, compute)``, as `lab.runs.folder.Run.step`.
    config : ReconstructConfig
    subject : Subject
        With pictures; both splits.
    decoder : callable
        Opens the trained decoder; called only where something is missing.
    """
    train, test = (subject.part(split).mean_over_repeats() for split in ("train", "test"))
    predicted = step("predict", lambda: structure.predictions(decoder(), test))
    blended = config.structure in ("blend", "ridge")

    def ridge() -> dict[str, np.ndarray]:
        left_out = decoder().held_out(train.name)[0].tolist() if blended else ()
        return structure.baselines(train, test, left_out, device)

    progress(0, 1, "fitting ridge to pixels and to tokens")
    simple = step("linear-left-out" if blended else "linear", ridge)
    progress(1, 1, "ridge fitted to pixels and to tokens")
    found = step(
        "structural",
        lambda: structure.structural(config, train, test, predicted, simple, decoder(), progress),
    )
    tokens, unseen = predicted["tokens"], found["left_out_tokens"]
    if config.tokens == "picture":
        tokens, unseen = (structure.tokens_of(found[k]) for k in ("start", "left_out_start"))
    return Conditions(
        truth=test.images(),
        tokens=tokens,
        start=found["start"],
        left_out_tokens=unseen,
        left_out_start=found["left_out_start"],
        predicted=predicted,
        ridge=simple["ridge"],
        mean_image=simple["mean_image"],
        ridge_tokens=simple["ridge_tokens"],
        ridge_weights=simple.get("ridge_weights"),
        from_start=found["made_by"],
        facts=found.get("posterior", {}),
    )


def refuse_without_sampling(config: ReconstructConfig, recipe: str) -> None:
    """Refuse a recipe where the denoiser never runs: its pictures would be full precision's.

    Raises
    ------
    InputError
        The strength is 0 and diffusion starts at a structural picture.
    """
    if recipe != "none" and config.strength == 0 and config.structure != "none":
        raise InputError(
            f"recipe {recipe!r} with strength 0: the denoiser never runs, so quantizing it changes nothing; "
            "set strength above 0, or recipe none"
        )
