"""Distances to the pictures that the conditions were made from, and what the report says is not measured."""

from __future__ import annotations

import dataclasses

import pytest

from brainit.metrics.tensors import eight_bit
from lab.compare.bench import Bench
from lab.compare.measuring import Measured, measure, reference, set_distances
from lab.compare.networks import DOMAIN
from lab.compare.recipes import FULL
from lab.compare.statistics import Scores
from lab.compare.summary import rows
from lab.compare.tables import not_measured


def test_distances_to_the_sources_stand_beside_those_to_full_precision(bench: Bench) -> None:
    assert bench.sources is not None
    ref = reference(bench, 0)
    part = measure(bench, bench.model, FULL, ref, {})
    expected = set_distances(ref.features, bench.networks.features(eight_bit(bench.sources)))
    for name, value in expected.items():
        assert part.numbers[f"data.{name}"] == pytest.approx(value) and value > part.numbers[name]
    assert 0 <= part.numbers[f"data.precision({DOMAIN})"] <= 1
    assert 0 <= part.numbers[f"data.recall({DOMAIN})"] <= 1
    (row,) = rows(Scores([part]))
    assert row[f"data.FD({DOMAIN})"] == part.numbers[f"data.FD({DOMAIN})"]


def test_without_sources_nothing_is_made_up(bench: Bench) -> None:
    bare = dataclasses.replace(bench, sources=None)
    part = measure(bare, bare.model, FULL, reference(bare, 0), {})
    assert not [name for name in part.numbers if name.startswith("data.")] and "two_way" not in part.arrays


def test_the_report_says_what_is_not_measured_and_why() -> None:
    old = rows(Scores([Measured("rtn", 0, {}, {}, {f"FD({DOMAIN})": 1.0})]))  # of before these were measured
    said = not_measured({"about": {"missing": ["a network: no weights"]}, "rows": old})
    assert said[0] == "a network: no weights" and "the measurement is older" in said[1]
    assert [line.split(" (")[0] for line in said[2:]] == ["class agreement and entropy", "latency"]
    new = not_measured({"about": {}, "rows": [{f"data.FD({DOMAIN})": 1.0}]})
    assert new == said[2:]
