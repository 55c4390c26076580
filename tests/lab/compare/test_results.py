"""The gate holds for a sampler that repeats itself, and falls for a difference nobody would see."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from lab.compare.bench import Bench
from lab.compare.measuring import measure, reference
from lab.compare.networks import DOMAIN
from lab.compare.recipes import FULL
from lab.compare.results import same_seed
from lab.errors import InputError


def test_a_sampler_that_is_not_repeatable_falls(bench: Bench) -> None:
    ref, model = reference(bench, 0), bench.fresh()
    sound = measure(bench, bench.model, FULL, ref, {})
    with torch.no_grad():
        model.last.bias += 1e-3  # a difference far below what anyone would see
    shaken = measure(bench, model, FULL, ref, {})
    assert same_seed([sound]).passed and "prediction, seeds 0" in same_seed([sound]).found
    gate = same_seed([sound, shaken])
    assert not gate.passed and "seed 0: latent_rel_l2" in gate.found
    sound.arrays["ssim"][5] -= 1e-9  # one picture is enough, or one step
    assert not same_seed([sound]).passed
    for wrong in (np.nan, 1.0 + 1e-9):
        sound.arrays["ssim"][5] = wrong
        assert not same_seed([sound]).passed
    sound.arrays["ssim"][5] = 1.0
    assert same_seed([sound]).passed
    for wrong in (np.nan, 1e-4):
        sound.numbers[f"FD({DOMAIN})"] = wrong
        assert f"FD({DOMAIN}) = " in same_seed([sound]).found
    sound.numbers[f"FD({DOMAIN})"] = 0.0
    sound.curves["growth"][1] = 1e-9
    assert "growth up to 1e-09" in same_seed([sound]).found
    assert not same_seed([]).passed  # nothing was measured: nothing was shown


def test_samples_that_are_no_numbers_have_no_scores(bench: Bench) -> None:
    """They would be NaN in every column, and a table cannot be sorted by that."""
    ref, broken = reference(bench, 0), bench.fresh()
    with torch.no_grad():
        broken.last.bias[0] = torch.inf
    with pytest.raises(InputError, match="latents of w2a2 are not finite in 12 of 12 samples"):
        measure(bench, broken, "w2a2", ref, {})
    with pytest.raises(InputError, match="latents of full precision"):
        reference(dataclasses.replace(bench, model=broken), 0)

    def spotted(latents: torch.Tensor) -> torch.Tensor:
        pictures = torch.zeros(len(latents), 3, 32, 32)
        pictures[7, 2, 5, 5] = torch.nan
        return pictures

    dark = dataclasses.replace(bench, decode=spotted)
    with pytest.raises(InputError, match="pictures of full-precision are not finite in 1 of 12"):
        measure(dark, bench.model, FULL, ref, {})
