"""The gate holds for a sampler that repeats itself, and falls for a difference nobody would see."""

from __future__ import annotations

import torch

from lab.compare.bench import Bench
from lab.compare.measuring import measure, reference
from lab.compare.recipes import FULL
from lab.compare.results import same_seed


def test_a_sampler_that_is_not_repeatable_falls(bench: Bench) -> None:
    ref, model = reference(bench, 0), bench.fresh()
    sound = measure(bench, bench.model, FULL, ref, {})
    with torch.no_grad():
        model.last.bias += 1e-3  # a difference far below what anyone would see
    shaken = measure(bench, model, FULL, ref, {})
    assert same_seed([sound]).passed and "prediction, seeds 0" in same_seed([sound]).found
    gate = same_seed([sound, shaken])
    assert not gate.passed and "seed 0: latent_rel_l2" in gate.found
    assert not same_seed([]).passed  # nothing was measured: nothing was shown
