"""One recipe through the decoder: record, calibrate, draw every noise seed; each finished piece is kept."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache as once
from typing import TYPE_CHECKING, Any

import numpy as np

from lab import zoo
from lab.decoding.conditions import Conditions, Step
from lab.decoding.drawing import draw, quantized_denoiser, sizes_of
from lab.decoding.recording import decoder_recording
from lab.decoding.settings import ReconstructConfig
from lab.progress import Progress

if TYPE_CHECKING:
    from torch import nn

    from quant.api import Recipe

FULL = "none"
"""The recipe that leaves the decoder in full precision."""


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
    """

    name: str
    content: Recipe | None = None
    calibrates: bool = False


def decoded(
    step: Step,
    key: str,
    config: ReconstructConfig,
    recipe: DecoderRecipe,
    given: Conditions,
    device: str,
    progress: Progress,
) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Return a recipe's pictures, one array a noise seed, and what its ledger says.

    Parameters
    ----------
    step : callable
        ``step(name, compute)``, as `lab.runs.folder.Run.step`; nothing that it has is computed again.
    key : str
        Names the steps; unique for each recipe of a run.

    Returns
    -------
    list of float32 array of shape (n, H, W[, 3])
    dict
        ``decoder_bytes``, ``decoder_bytes_before``, ``decoder_mean_weight_bits``; unless in full precision
        also ``plan``, ``ledger`` and ``seconds`` of recording and calibrating.
    """

    @once
    def quantized() -> tuple[nn.Module, dict[str, Any]]:
        if recipe.content is None:
            return zoo.load(config.denoiser, device), sizes_of(config.denoiser, None)
        began = time.monotonic()
        recording = decoder_recording(config, given, device, progress) if recipe.calibrates else None
        model, plan, ledger = quantized_denoiser(config, recipe.content, recording, device, progress)
        facts = {"plan": plan.to_dict(), "ledger": ledger.to_dict(), **sizes_of(config.denoiser, ledger)}
        return model, {**facts, "seconds": round(time.monotonic() - began, 2)}

    def pictures(number: int) -> dict[str, Any]:
        def heard(done: int, total: int, what: str) -> None:
            progress(number * total + done, config.noise_seeds * total, f"{what}, {recipe.name}")

        like = given.truth.shape[1:]
        drawn = draw(
            config,
            quantized()[0],
            given.tokens,
            given.start,
            number=number,
            like=like,
            device=device,
            progress=heard,
        )
        return {"pictures": drawn}

    facts = step(f"ledger-{key}", lambda: quantized()[1])
    seeds = range(config.noise_seeds)
    return [step(f"pictures-{key}-{n}", lambda n=n: pictures(n))["pictures"] for n in seeds], facts
