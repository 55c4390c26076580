"""Scores of recipes beside their baselines, from pictures whose differences are known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from brainit.metrics import pixcorr, psnr
from lab.decoding.bits import COLUMNS, FULL_PRECISION, OTHER_NOISE, RIDGE, ledger_facts, score_rows, to_csv


@pytest.fixture
def rows() -> list[dict]:
    rng = np.random.default_rng(0)
    truth = rng.random((6, 16, 16)).astype(np.float32)
    full = [np.clip(truth + 0.1 * rng.standard_normal(truth.shape), 0, 1) for _ in range(2)]
    worse = [np.clip(one + 0.2 * rng.standard_normal(truth.shape), 0, 1) for one in full]
    sets = {FULL_PRECISION: full, OTHER_NOISE: full[::-1], "same": full, "worse": worse, RIDGE: [worse[0]]}
    facts = {"worse": {"weight_bits": 4.0, "activation_bits": 4.0, "bytes": 10}}
    found = score_rows(truth, sets, facts, {}, 200, 0)
    mean = np.mean([pixcorr(one, truth) for one in worse], 0)
    assert found[3]["pixcorr"] == pytest.approx(mean.mean())
    pairs = np.mean([psnr(a, b) for a, b in zip(worse, full, strict=True)], 0)
    assert found[3]["paired_psnr_to_fp"] == pytest.approx(pairs.mean())
    return found


def test_distances_are_to_full_precision_with_the_same_noise(rows: list[dict]) -> None:
    full, other, same, worse, ridge = rows
    assert full["paired_psnr_to_fp"] is None and ridge["paired_psnr_to_fp"] is None
    assert same["paired_psnr_to_fp"] == 100 and same["pixcorr_minus_fp"] == 0
    assert other["pixcorr"] == pytest.approx(full["pixcorr"]) and other["paired_psnr_to_fp"] < 30
    assert worse["pixcorr_minus_fp_high"] < 0 and worse["ssim_minus_fp_high"] < 0
    assert worse["pixcorr_low"] < worse["pixcorr"] < worse["pixcorr_high"]
    assert worse["two_way_feature"] is None  # no network was given


def test_two_way_lost_has_an_interval(rows: list[dict]) -> None:
    assert rows[3]["two_way_feature_minus_fp"] is None
    rng = np.random.default_rng(1)
    truth = rng.random((12, 16, 16)).astype(np.float32)
    sets = {FULL_PRECISION: [truth], "lost": [rng.random(truth.shape).astype(np.float32)]}
    network = {"feature": lambda pictures: pictures.reshape(len(pictures), -1)}
    full, lost = score_rows(truth, sets, {}, network, 200, 0)
    assert full["two_way_feature"] == 1 and full["two_way_feature_minus_fp"] is None
    assert lost["two_way_feature_minus_fp"] == pytest.approx(lost["two_way_feature"] - 1)
    assert lost["two_way_feature_minus_fp_high"] < 0


def test_facts_of_a_ledger_count_by_multiply_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    four = SimpleNamespace(bits=4)
    layers = [SimpleNamespace(macs=300, activation=four), SimpleNamespace(macs=100, activation=None)]
    ledger = SimpleNamespace(
        layers=layers, mean_weight_bits=4.5, bytes_after=10, bytes_before=99, arithmetic="simulated", cost={},
        macs_share=lambda: {"W4A4": 0.75, "W32A32": 0.25},
    )  # fmt: skip
    monkeypatch.setattr("quant.Ledger.from_dict", lambda found: ledger)
    facts = ledger_facts({"ledger": {}, "seconds": 2.0})
    assert facts["activation_bits"] == (300 * 4 + 100 * 32) / 400 and facts["weight_bits"] == 4.5
    assert (facts["bytes"], facts["format"], facts["arithmetic"]) == (10, "W4A4", "simulated")
    plain = ledger_facts({"decoder_bytes": 40})
    assert (plain["bytes"], plain["weight_bits"], plain["format"]) == (40, 32.0, "W32A32")


def test_csv(rows: list[dict]) -> None:
    head, *lines = to_csv(rows).splitlines()
    assert tuple(head.split(",")) == COLUMNS and len(lines) == len(rows)
    wanted = "recipe weight_bits activation_bits bytes pixcorr ssim two_way_feature paired_psnr_to_fp".split()
    assert [name for name in COLUMNS if name in wanted] == wanted
    assert lines[3].startswith("worse,4,4,10,") and "None" not in lines[0]
