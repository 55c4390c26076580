"""One recipe through the decoder: record, calibrate, draw every noise seed; each finished piece is kept."""

from __future__ import annotations

import hashlib
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache as once
from typing import TYPE_CHECKING, Any

import numpy as np

from lab import zoo
from lab.cache import cache_folder
from lab.decoding.conditions import Conditions, Step
from lab.decoding.drawing import draw, launches_of, quantized_denoiser, sizes_of
from lab.decoding.recording import decoder_recording
from lab.decoding.settings import ReconstructConfig
from lab.errors import InputError
from lab.progress import Progress
from lab.runs.folder import config_hash
from lab.runs.lock import alone_with
from quant.training.state import remove

if TYPE_CHECKING:
    from torch import nn

    import quant
    from quant.api import Recipe

FULL = "none"
"""The recipe that leaves the decoder in full precision."""
RIDGE_KEY = "ridge-tokens"
"""Names the steps of `ridge_through_decoder`."""


@dataclass(frozen=True)
class DecoderRecipe:
    """A recipe that was checked.

    Parameters
    ----------
    name : str
        As the user wrote it.
    content : str or config, optional
        What `quant.quantize_` takes; None for full precision.
    calibrates : bool
        Whether it needs a recording.
    plan : quant.Plan, optional
        What it would do to the run's denoiser.
    native : bool
        Whether its pictures are drawn through the kernels.
    """

    name: str
    content: Recipe | None = None
    calibrates: bool = False
    plan: quant.Plan | None = None
    native: bool = False


def decoded(
    step: Step,
    key: str,
    config: ReconstructConfig,
    recipe: DecoderRecipe,
    given: Conditions,
    device: str,
    progress: Progress,
    solved: dict[str, Any] | None = None,
) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Return a recipe's pictures, one array a noise seed, and what its ledger says.

    Parameters
    ----------
    step : callable
        ``step(name, compute)``, as `lab.runs.folder.Run.step`; nothing that it has is computed again.
    key : str
        Names the steps; unique for each recipe of a run.
    solved : dict, optional
        As `quant.quantize_` takes it, where several recipes begin from the same.

    Returns
    -------
    list of float32 array of shape (n, H, W[, 3])
    dict
        ``decoder_bytes``, ``decoder_bytes_before``, ``decoder_mean_weight_bits``, ``weights`` and
        ``predictions`` (hashes); unless in full precision also ``plan``, ``ledger`` and ``seconds`` of
        recording and calibrating.

    Raises
    ------
    InputError
        What ``step`` has is of other weights, or was decoded from other predictions.
    """
    seen = _hash_predictions(given)

    @once
    def quantized() -> tuple[nn.Module, dict[str, Any]]:
        known: dict[str, Any] = {"weights": weights_of(config.denoiser), "predictions": seen}
        if recipe.content is None:
            return zoo.load(config.denoiser, device), known | sizes_of(config.denoiser, None)
        began = time.monotonic()
        model, plan, ledger = through(config, recipe, given, device, progress, solved)
        known |= {"plan": plan.to_dict(), "ledger": ledger.to_dict(), **sizes_of(config.denoiser, ledger)}
        return model, {**known, "seconds": round(time.monotonic() - began, 2)}

    def drawn(number: int) -> dict[str, Any]:
        def heard(done: int, total: int, what: str) -> None:
            progress(number * total + done, config.noise_seeds * total, f"{what}, {recipe.name}")

        def compute() -> dict[str, Any]:
            like, start, model = given.truth.shape[1:], given.start, quantized()[0]
            pictures = draw(config, model, given.tokens, start, number, like, device, heard)
            return {"pictures": pictures} | ({"launches": launches_of(model)} if recipe.native else {})

        return step(f"pictures-{key}-{number}", compute)

    facts, now = step(f"ledger-{key}", lambda: quantized()[1]), weights_of(config.denoiser)
    which = "full precision" if recipe.content is None else repr(recipe.name)
    if not {"weights", "predictions"} <= set(facts):
        raise InputError(
            f"pictures of {which} were drawn by an earlier version, which did not write down through which "
            "weights: choose another --out; --checkpoints RUN/checkpoints/brainit keeps the run's training"
        )
    if facts["weights"] != now:  # recipes would differ in more than their bits
        raise InputError(
            f"pictures of {which} were drawn with other weights of {config.denoiser} or its "
            f"decoder ({facts['weights']}, now {now}): put those back, or choose another --out (a new run)"
        )
    if facts["predictions"] != seen:
        raise InputError(
            f"pictures of {which} were decoded from other predictions: the run was trained again since; "
            "choose another --out"
        )
    found = [drawn(number) for number in range(config.noise_seeds)]
    if recipe.native:  # known once something was drawn, in this run of the job or in one before
        facts = {**facts, "ledger": {**facts["ledger"], "launches": found[-1].get("launches", "")}}
    return [one["pictures"] for one in found], facts


def through(
    config: ReconstructConfig,
    recipe: DecoderRecipe,
    given: Conditions,
    device: str,
    progress: Progress,
    solved: dict[str, Any] | None = None,
) -> tuple[nn.Module, quant.Plan, quant.Ledger]:
    """Return the decoder by a recipe, with its plan and ledger: recorded, calibrated, trained.

    Training is kept in the cache until it is done, and who needs the same at once waits and takes it.

    Parameters
    ----------
    recipe : DecoderRecipe
        Not of full precision.
    solved : dict, optional
        As `quant.quantize_` takes it.
    """
    assert recipe.content is not None
    recording = decoder_recording(config, given, device, progress) if recipe.calibrates else None
    state = None
    if recording is not None and recipe.plan is not None and recipe.plan.training is not None:
        owner = {"plan": recipe.plan.to_dict(), "recording": recording.hash, "seed": config.seed}
        state = cache_folder("training", f"{config.denoiser}-{config_hash(owner)}")
    # two at once would write the same files
    with nullcontext() if state is None else alone_with(state, progress) as lock:
        found = quantized_denoiser(
            config, recipe.content, recording, device, progress, state, recipe.native, solved
        )
        if state is not None and state.is_dir() and not (lock and lock.awaited()):
            remove(state)  # else the last of those that wait: they find it at its last step
    return found


def ridge_through_decoder(
    step: Step, config: ReconstructConfig, given: Conditions, device: str, progress: Progress
) -> list[np.ndarray]:
    """Return the pictures of every network's rival: ridge's tokens through the same decoder.

    In full precision, from noise alone, one sample and one noise seed.
    """
    alone = config.model_copy(update={"structure": "none", "n_samples": 1, "noise_seeds": 1})
    linear = replace(given, tokens=given.ridge_tokens)
    return decoded(step, RIDGE_KEY, alone, DecoderRecipe(FULL), linear, device, progress)[0]


def weights_of(denoiser: str) -> str:
    """Short hash over the shipped models that turn tokens and a structural picture into a picture."""
    digest = hashlib.sha256()
    for name in (denoiser, "autoencoder-64"):
        digest.update(zoo.weight_file(name).read_bytes())
    return digest.hexdigest()[:12]


def _hash_predictions(given: Conditions) -> str:
    """Short hash over what a run keeps of its test trials: tokens and structural pictures."""
    digest = hashlib.sha256()
    for predicted in (given.predicted["tokens"], given.start):
        digest.update(predicted.tobytes())
    return digest.hexdigest()[:12]
