"""Reconstruction against bits: one line a recipe, every score with its interval over test pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from brainit.metrics import average_scores, bootstrap_interval, interval_of, psnr, score
from brainit.metrics.scores import PSNR_CAP

SCORES = (
    *("pixcorr", "ssim", "two_way_feature", "paired_psnr_to_fp", "two_way_pix"),
    *("top1_feature", "st_lpips", "brain_correlation"),
)
GAPS = ("pixcorr", "ssim", "two_way_feature")
"""Scores whose difference from full precision, picture by picture, has columns of its own."""
COLUMNS = (
    *("recipe", "weight_bits", "activation_bits", "bytes"),
    *(name + bound for name in SCORES for bound in ("", "_low", "_high")),
    *(f"{name}_minus_fp{bound}" for name in GAPS for bound in ("", "_low", "_high")),
    *("format", "arithmetic", "calibrate_seconds", "train_steps", "train_seconds"),
)
FULL_PRECISION = "full precision"
OTHER_NOISE = "full precision, other noise"
RIDGE = "ridge to pixels"
RIDGE_TOKENS = "ridge to tokens"
MEAN = "mean image"
BASELINES = (FULL_PRECISION, OTHER_NOISE, RIDGE, RIDGE_TOKENS, MEAN)

#: Best presets at 8, 6, 4 and 3 bits of weight codes, by paired PSNR in benchmarks/results/ptq.
DEFAULTS = {
    "unet-64": ("svdquant-w8a8", "rtn-w6a6", "svdquant-nvfp4", "lrq-dit-w3a4-common"),
    "dit-64": ("svdquant-w8a8", "rtn-w6a6", "svdquant-nvfp4", "lrq-dit-w3a4"),
}


def score_rows(
    truth: np.ndarray,
    sets: Mapping[str, Sequence[np.ndarray]],
    facts: Mapping[str, Mapping[str, Any]],
    networks: Mapping[str, Callable[[np.ndarray], np.ndarray]],
    n_draws: int,
    seed: int,
    more: Mapping[str, Callable[[np.ndarray], np.ndarray]] | None = None,
    each: dict[str, dict[str, list[float]]] | None = None,
) -> list[dict[str, Any]]:
    """Score sets of reconstructions of the same stimuli.

    Parameters
    ----------
    truth : array of shape (n, H, W[, 3])
    sets : mapping of name to arrays like ``truth``, one a noise seed
        With `FULL_PRECISION`. Scores are averaged over noise seeds picture by picture.
    facts : mapping of name to mapping
        What is known of a recipe (`ledger_facts`); may be missing.
    networks : mapping
        As `lab.decoding.scores.networks_for` gives it.
    n_draws, seed : int
        Of the bootstrap over pictures.
    more : mapping
        As `lab.decoding.scores.scorers_for` gives it.
    each : dict, optional
        Filled with what rows are means of: by set and score a value for each picture.

    Returns
    -------
    list of dict
        With the keys of `COLUMNS`; None where something was not measured.
    """
    known = {name: network(truth) for name, network in networks.items()}

    def values_of(pictures: Sequence[np.ndarray]) -> Mapping[str, np.ndarray]:
        every = []
        for one in pictures:
            features = {name: (network(one), known[name]) for name, network in networks.items()}
            every.append(score(one, truth, features, more))
        return average_scores(every).values

    full = sets[FULL_PRECISION]
    reference = values_of(full)
    rows = []
    for name, pictures in sets.items():
        values = dict(values_of(pictures))
        if name not in (
            FULL_PRECISION,
            RIDGE,
            RIDGE_TOKENS,
            MEAN,
        ):  # full precision is at no distance from itself
            pairs = [psnr(a, b, cap=PSNR_CAP) for a, b in zip(pictures, full, strict=True)]
            values["paired_psnr_to_fp"] = np.mean(pairs, 0)
        if name not in (FULL_PRECISION, OTHER_NOISE):
            values |= {f"{key}_minus_fp": values[key] - reference[key] for key in GAPS if key in values}
        row = dict.fromkeys(COLUMNS) | {"recipe": name} | dict(facts.get(name, {}))
        for key in values:
            if key in COLUMNS:
                how = bootstrap_interval if key.endswith("_minus_fp") else interval_of(key)
                found = how(values[key], n_draws=n_draws, seed=seed)
                if each is not None:
                    each.setdefault(name, {})[key] = [round(float(v), 6) for v in values[key]]
                row |= {key: found.mean, f"{key}_low": found.low, f"{key}_high": found.high}
        rows.append(row)
    return rows


def ledger_facts(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return bits, bytes and format of a recipe from its ledger; without one, of full precision.

    ``weight_bits`` counts scales, side branches and layers left alone; ``activation_bits`` is the mean over
    multiply-accumulates, 32 where inputs stay in floating point; ``format`` is that of most of them.
    """
    if "ledger" not in found:
        return {
            "weight_bits": 32.0,
            "activation_bits": 32.0,
            "bytes": found["decoder_bytes"],
            "format": "W32A32",
            "arithmetic": "full precision",
        }
    import quant

    ledger = quant.Ledger.from_dict(dict(found["ledger"]))
    work = [layer.macs or 0 for layer in ledger.layers]
    bits = [layer.activation.bits if layer.activation else 32 for layer in ledger.layers]
    share = ledger.macs_share()
    return {
        "weight_bits": round(ledger.mean_weight_bits, 4),
        "activation_bits": round(float(np.average(bits, weights=work if sum(work) else None)), 4),
        "bytes": int(ledger.bytes_after),
        "format": max(share, key=lambda name: share[name]),
        "arithmetic": ledger.arithmetic,
        "calibrate_seconds": found.get("seconds"),
        "train_steps": ledger.cost.get("steps"),
        "train_seconds": ledger.cost.get("seconds"),
    }


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows as CSV with the columns of `COLUMNS`; empty where something was not measured."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue()
