"""The gates pass on a sound meter, and each one falls when its fault is planted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks import faults, gates
from brainit.metrics import tensors
from lab.compare.bench import Bench
from lab.compare.measuring import Reference, measure, measure_null, reference
from lab.compare.networks import DOMAIN
from lab.compare.recipes import OTHER_SEED


@pytest.fixture(scope="module")
def ref(bench: Bench) -> Reference:
    return reference(bench, 0)


@pytest.fixture(scope="module")
def null(bench: Bench, ref: Reference):
    return measure_null(bench, OTHER_SEED, ref)


def test_all_gates_pass_on_a_sound_meter(bench: Bench, ref: Reference, null) -> None:
    ticks: list[str] = []
    found = gates.run_gates(bench, ref, null, ticks.append)
    assert [g.name for g in found if not g.passed] == [], [g.found for g in found if not g.passed]
    assert len(found) == len({g.name for g in found}) == 6 and len(ticks) == 8


def test_a_seed_that_does_nothing_falls(bench: Bench, ref: Reference) -> None:
    part = measure(bench, bench.model, OTHER_SEED, ref, {})  # the same noise passed off as another
    assert not gates.other_seed(part).passed


def test_another_model_passed_off_as_the_null_falls(bench: Bench, ref: Reference, null) -> None:
    name = f"KID({DOMAIN})"
    bad = {**null.numbers, name: null.numbers[f"{name}.high"] * 3 + 1}
    changed = type(null)(null.recipe, 0, null.arrays, null.curves, bad)
    assert gates.other_seed(null).passed and not gates.other_seed(changed).passed


def test_a_measure_that_sees_nothing_falls(
    bench: Bench, ref: Reference, null, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensors, "ssim", lambda a, b: torch.ones(len(a)))
    failed = [g for g in gates.picture_gates(bench, ref, null) if not g.passed]
    assert [g.name for g in failed] == ["noise in pictures", "blur of pictures"]
    assert all("ssim" in g.found for g in failed)


def test_a_set_distance_that_sees_nothing_falls(
    bench: Bench, ref: Reference, null, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "set_distances", lambda a, b: {f"KID({DOMAIN})": 0.0, f"FD({DOMAIN})": 0.0})
    failed = {g.name for g in gates.picture_gates(bench, ref, null) if not g.passed}
    assert {"noise in pictures", "faults leave the null"} <= failed


def test_bits_in_the_wrong_order_fall(bench: Bench, ref: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "WEIGHT_BITS", (8, 3, 4))
    found = {g.name: g.passed for g in gates.model_gates(bench, ref, lambda what: None)}
    assert found == {"bits of weights": False, "a silenced block": True}


def test_a_block_that_is_not_silenced_falls(
    bench: Bench, ref: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "silence_block_", lambda model: "nothing")
    monkeypatch.setattr(faults, "WEIGHT_BITS", (8, 4))
    found = {g.name: g.passed for g in gates.model_gates(bench, ref, lambda what: None)}
    assert found == {"bits of weights": True, "a silenced block": False}


def test_faults_do_what_they_say() -> None:
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4
    assert np.isclose(float((faults.noisy(images, 4) - images).std() * 255), 4, rtol=0.1)
    assert torch.allclose(faults.blurred(torch.full((1, 3, 9, 9), 0.3), 1.0), torch.tensor(0.3))
    assert torch.equal(faults.swapped(faults.swapped(images)), images)
