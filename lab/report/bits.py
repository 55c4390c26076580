"""The page of reconstruction against bits: result, table, figure, pictures, how it was made."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lab.decoding.bits import BASELINES, FULL_PRECISION, OTHER_NOISE, RIDGE, RIDGE_TOKENS
from lab.decoding.scores import SMALLEST
from lab.figures.brain.bits import Level, quality_over_bytes
from lab.figures.brain.pictures import choose, picture_png
from lab.figures.plate import Plate, Provenance, Theme
from lab.figures.tradeoff import Point
from lab.files import replacing
from lab.report.block import Block, figure, sentence, table
from lab.report.document import HTMLDocument
from lab.report.page import render_block, render_page
from lab.report.parts import CLAIMS

EACH = 2
"""Pictures of a group (best, median, worst, random)."""
NEAR = 0.02
"""Loss in PixCorr and SSIM that the summary calls near."""
HEADS = (
    ("pixcorr", "PixCorr ↑", 3),
    ("pixcorr_minus_fp", "PixCorr − full precision", 4),
    ("ssim", "SSIM ↑", 3),
    ("ssim_minus_fp", "SSIM − full precision", 4),
    ("two_way_pix", "two-way, pixels ↑", 3),
    ("two_way_feature", "two-way, features ↑", 3),
    ("two_way_feature_minus_fp", "two-way, features − full precision", 4),
    ("top1_feature", "top-1 of all, features ↑", 3),
    ("st_lpips", "ST-LPIPS ↓", 3),
    ("brain_correlation", "brain correlation ↑", 3),
    ("paired_psnr_to_fp", "PSNR to full precision, dB ↑", 1),
)
NOTES = (
    "PSNR to full precision compares pictures drawn from the same fMRI and noise: it measures the quantizer. "
    "The other scores compare with the picture that was shown: they measure the decoder.",
    "“Full precision, other noise” is how far two full-precision decodings of the same fMRI lie apart: a "
    "recipe above it changes a picture less than another draw of the noise does.",
    "Bits a weight count everything that is stored: codes, scales, side branches, and layers left in full "
    "precision; bits of an input are averaged over multiply-accumulates.",
)


@dataclass(frozen=True)
class BitsData:
    """What the page shows.

    Parameters
    ----------
    about : mapping
        Dataset, subject, run, sampler and leak check, as in ``bits.json``.
    rows : list of dict
        As `lab.decoding.bits.score_rows` gives them.
    pictures : mapping of name to array of shape (n, H, W[, 3])
        ``stimulus`` and a set for each row, of the first noise seed.
    """

    about: Mapping[str, Any]
    rows: list[dict[str, Any]]
    pictures: Mapping[str, np.ndarray]


def write_page(data: BitsData, out: Path) -> Path:
    """Write ``report.html`` and ``figures/quality-bytes.png``; return the page's path."""
    with replacing(out / "figures" / "quality-bytes.png") as temporary:
        temporary.write_bytes(_quality(data, "light").png(foot=True))
    return bits_document(data).save_as_html(out / "report.html")


def bits_document(data: BitsData) -> HTMLDocument:
    """Return the page, without writing it."""
    about = data.about
    leaks = about["leak"]["leak_test_in_train"]
    sections = [
        _section(
            "Scores",
            "95 % intervals below each score are over test pictures; every low bit-width is "
            f"{_arithmetic(data)}.",
            [_table(data), Block("notes", {"notes": _notes(data)}), _leak(about)],
        ),
        _section("Quality over bytes", "", [figure(lambda theme: _quality(data, theme))]),
        _section("Pictures", "", [_pictures(data)]),
        _section("How it was made", "", _made(about, data.pictures["stimulus"].shape[1])),
    ]
    who = f"{about['dataset']} {about['subject']}"
    return render_page(
        title=f"{who}: reconstruction against bits",
        eyebrow=("Simulated subject" if about["simulated"] else "Measured fMRI")
        + f", {_arithmetic(data)} low-bit arithmetic",
        heading=f"{who}: reconstruction against bits",
        summary=_summary(data),
        banner=_banner(about, leaks),
        sections=sections,
        problems=[],
    )


def _notes(data: BitsData) -> list[str]:
    """Say what the rows mean, of those that are there."""
    there = {row["recipe"] for row in data.rows}
    return [note for note in NOTES if OTHER_NOISE in there or "other noise" not in note]


def _arithmetic(data: BitsData) -> str:
    """How low bit-widths were computed: "native" where a recipe ran through the kernels."""
    native = any(str(row.get("arithmetic")).startswith("native") for row in data.rows)
    return "native" if native else "simulated"


def _summary(data: BitsData) -> list[str]:
    about, recipes = data.about, _recipes(data)
    who = "a simulated subject" if about["simulated"] else "measured fMRI"
    ways = "one way" if len(recipes) == 1 else f"{len(recipes)} ways"
    lines = [
        f"{about['n_test']} test pictures decoded from {who} through {about['denoiser']}, in full precision "
        f"and quantized {ways}. Trained once; only the decoder's numbers change."
    ]
    full = _row(data, FULL_PRECISION)

    def beside(row: Mapping[str, Any]) -> str:
        scores = f"PixCorr {row['pixcorr']:.3f} beside {full['pixcorr']:.3f}, SSIM {row['ssim']:.3f} beside "
        return f"{scores}{full['ssim']:.3f}, {row['bytes'] / 1e6:.1f} of {full['bytes'] / 1e6:.1f} MB."

    near = [row for row in recipes if max(_lost(row)) <= NEAR]
    if near:
        least = min(near, key=lambda row: row["bytes"])
        lines.append(
            f"{least['recipe']} is the smallest within {NEAR:g} of full precision in PixCorr and SSIM: "
            f"{beside(least)}"
        )
    else:
        best = min(recipes, key=lambda row: max(_lost(row)))
        lines.append(
            f"No recipe stays within {NEAR:g} of full precision in PixCorr and SSIM; {best['recipe']} loses "
            f"least: {beside(best)}"
        )
    return lines


def _lost(row: Mapping[str, Any]) -> tuple[float, float]:
    """Return what a recipe loses in PixCorr and in SSIM."""
    return -row["pixcorr_minus_fp"], -row["ssim_minus_fp"]


def _banner(about: Mapping[str, Any], leaks: int) -> str:
    words = []
    if leaks:
        words.append(f"{leaks} of {about['n_test']} test pictures occur in training: scores measure recall.")
    if about["simulated"]:
        words.append(
            "Simulated subject: no brain was measured; responses come from a model of visual cortex."
        )
    return " ".join(words)


def _table(data: BitsData) -> Block:
    heads = [h for h in HEADS if any(row.get(h[0]) is not None for row in data.rows)]
    lines = []
    for row in data.rows:
        cells = [
            _cell(row, "weight_bits", 2),
            _cell(row, "activation_bits", 1),
            {"value": "–" if row["bytes"] is None else f"{row['bytes'] / 1e6:.2f}", "bounds": ""},
            *(_cell(row, key, digits) for key, _, digits in heads),
        ]
        arithmetic = row.get("arithmetic") or ""
        low = arithmetic.startswith(("simulated", "native"))
        lines.append(
            {
                "name": row["recipe"],
                "about": f"mostly {row['format']}, {arithmetic}" if low else "",
                "cells": cells,
                "baseline": row["recipe"] in BASELINES,
            }
        )
    names = ["bits a weight", "bits of an input", "MB", *(head for _, head, _ in heads)]
    return Block("bits_table", {"heads": names, "rows": lines})


def _cell(row: Mapping[str, Any], key: str, digits: int) -> dict[str, str]:
    value, low, high = (row.get(name) for name in (key, f"{key}_low", f"{key}_high"))
    bounds = "" if low is None or high is None else f"{low:.{digits}f} to {high:.{digits}f}"
    return {"value": "–" if value is None else f"{value:.{digits}f}", "bounds": bounds}


def _seeds(about: Mapping[str, Any]) -> str:
    count = about["noise_seeds"]
    return f"{count} noise seed{'' if count == 1 else 's'}"


def _quality(data: BitsData, theme: Theme) -> Plate:
    points = [
        Point(
            f"{row['recipe']} ({row['format']})",
            "",
            row["bytes"] / 1e6,
            row["pixcorr"],
            row["pixcorr_low"],
            row["pixcorr_high"],
        )
        for row in _recipes(data)
    ]
    levels = []
    for name in (FULL_PRECISION, RIDGE, RIDGE_TOKENS):
        row = _row(data, name)
        size = f", {row['bytes'] / 1e6:.1f} MB" if row["bytes"] else ""
        levels.append(Level(name + size, row["pixcorr"], row["pixcorr_low"], row["pixcorr_high"]))
    about = data.about
    source = Provenance(
        f"{about['dataset']} {about['subject']}",
        f"{about['n_test']} test pictures, {_seeds(about)}",
        about["seed"],
        about["run_hash"],
        bool(about["simulated"]),
        leaks=about["leak_line"],
    )
    return quality_over_bytes(points, levels, "PixCorr with the stimulus", source, theme, _arithmetic(data))


def _pictures(data: BitsData) -> Block:
    from brainit.metrics import pixcorr

    truth, full = data.pictures["stimulus"], data.pictures[FULL_PRECISION]
    score = pixcorr(full, truth)
    names = ["stimulus", FULL_PRECISION, *(row["recipe"] for row in _recipes(data)), RIDGE_TOKENS, RIDGE]
    groups = []
    for group, indices in choose(score, EACH, int(data.about["seed"])):
        columns = [
            {
                "number": int(i),
                "score": f"{score[i]:.2f}",
                "pictures": [
                    {"src": picture_png(data.pictures[name][i]), "alt": f"{name}, test picture {i}"}
                    for name in names
                ],
            }
            for i in indices
        ]
        groups.append({"name": group, "columns": columns})
    caption = (
        "Chosen by rule, from full precision alone so that no recipe is favoured: best and worst PixCorr, "
        "the middle of the ranking, and random ones of the rest. Counted from 0; the number beside a "
        "picture's number is full precision's PixCorr. First noise seed; every recipe has the same noise."
    )
    return Block("pictures", {"groups": groups, "labels": names, "caption": caption})


def _leak(about: Mapping[str, Any]) -> Block:
    found = about["leak"]
    closest, how = found.get("closest"), about["leak_line"]
    if closest is not None:
        how = (
            f"The closest other pair has similarity {closest:.2f}; from {found['threshold']:g} two are near."
        )
    context = {"count": found["leak_test_in_train"], "n_test": about["n_test"], "how": how, "pairs": []}
    return Block("leak", context)


def _made(about: Mapping[str, Any], side: int) -> list[Block]:
    pairs = [
        ("trained run", f"{about['run']} (settings {about['run_hash']}); nothing was trained again"),
        ("decoder", f"{about['denoiser']}: {about['sampler']}; {_seeds(about)}"),
        ("structural picture", about["structure"]),
        (
            "calibration",
            f"{about['left_out']} training trials that training had left out, decoded in full precision: "
            "predicted tokens, the null condition where guidance uses it, and the same timesteps as at test; "
            "half of them calibrate, no test trial does",
        ),
        ("features", about["two_way_feature"] or _no_features(side)),
        ("terms of the data", about["terms"] or "not recorded"),
    ]
    words = ["brainlab", "brain", "bits", about["run"], "--recipes", ",".join(about["recipes"])]
    command = Block("command", {"command": shlex.join([*words, "--out", "runs/bits"])})
    return [command, table(pairs), sentence(CLAIMS, quiet=False)]


def _no_features(side: int) -> str:
    if side < SMALLEST:
        return f"not measured: pictures of {side} pixels hold too little for an ImageNet network"
    return "not measured: the network is not installed (pip install 'brainit-lab[weights]')"


def _recipes(data: BitsData) -> list[dict[str, Any]]:
    return [row for row in data.rows if row["recipe"] not in BASELINES]


def _row(data: BitsData, name: str) -> dict[str, Any]:
    return next(row for row in data.rows if row["recipe"] == name)


def _section(title: str, intro: str, blocks: list[Block]) -> dict[str, Any]:
    name = title.lower().replace(" ", "-")
    return {"id": name, "title": title, "intro": intro, "blocks": [render_block(b) for b in blocks]}
