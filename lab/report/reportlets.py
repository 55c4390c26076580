"""What a report shows of scores, pictures, leaks and voxels: functions from a run to a block."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lab.figures import (
    brain_slices,
    choose,
    metric_rows,
    picture_png,
    response_profile,
    score_chart,
)
from lab.figures.brain.pictures import RULE, rows_of
from lab.figures.brain.scores import ARMS, Cell
from lab.report.block import Block, figure, sentence, table
from lab.report.rundata import RunData

_MORE = (
    ("sample", "quantized, one sample"),
    ("ridge", "ridge to pixels"),
    ("ridge_tokens", "ridge to tokens"),
)
_CHART = (
    *("pixcorr", "two_way_feature", "top1_feature", "brain_correlation", "st_lpips", "ssim"),
    *("two_way_pix", "ssim_gauss", "mse"),
)
_GAPS = ("{} − ridge", "{} − ridge to tokens")


def metric_table(run: RunData) -> Block | None:
    """Scores with intervals, one column per set of pictures."""
    if run.categories:
        return None
    rows = metric_rows(run.metrics)
    if not rows:
        return sentence("metrics.json holds no score that this report knows.")
    arms = [label for _, label, _, _ in ARMS if any(r.cells[label].value is not None for r in rows)]
    lines: list[dict[str, Any]] = []
    for row in rows:
        lines.append(
            {
                "label": row.label,
                "arrow": "↑" if row.larger_is_better else "↓",
                "better": "higher is better" if row.larger_is_better else "lower is better",
                "cells": [_words(row.cells[arm], row.digits) for arm in arms],
                "chance": "–" if row.chance is None else f"{row.chance:.{row.digits}f}",
                "gaps": [
                    _words(gap, row.digits, signed=True) if gap.value is not None else None
                    for gap in (row.against_ridge, row.against_ridge_tokens)
                ],
            }
        )
    heads = [
        ("quantized, " + str(run.metrics.get("recipe", ""))).strip(", ")
        if rows[0].label_of(a) == "quantized"
        else rows[0].label_of(a)
        for a in arms
    ]
    gaps = [k for k in range(len(_GAPS)) if any(line["gaps"][k] for line in lines)]
    for line in lines:
        line["gaps"] = [line["gaps"][k] for k in gaps]
    return Block(
        "metric_table", {"arms": heads, "rows": lines, "gaps": [_GAPS[k].format(rows[0].main) for k in gaps]}
    )


def score_chart_block(run: RunData) -> Block | None:
    """Scores as a chart."""
    rows = [] if run.categories else metric_rows(run.metrics)
    # the least saturated first; a name that is not in the list comes last
    rank = {name: k for k, name in enumerate(_CHART)}
    rows = sorted(rows, key=lambda row: rank.get(row.key, len(_CHART)))[:6]
    return figure(lambda theme: score_chart(rows, run.provenance(), theme)) if rows else None


def score_notes(run: RunData) -> Block | None:
    """Say what the two measures of difference mean, and what is odd about these scores."""
    if run.categories:
        return None
    notes = []
    paired = run.metrics.get("paired_psnr_to_fp")
    if paired is not None and not run.plain:
        notes.append(
            f"Quantized against full precision, same fMRI and same noise: {paired:.1f} dB PSNR. This "
            "measures the quantizer; the table measures the decoder."
        )
    best = run.metrics.get("brain_correlation.stimuli")
    if best is not None:
        notes.append(
            "Brain correlation: responses that an encoder predicts from a reconstruction, correlated across "
            f"voxels with the measured ones; the stimuli themselves reach {best:.3f}. Encoder: "
            f"{run.metrics.get('brain_correlation.encoder', 'not recorded')}."
        )
    constant = run.metrics.get("constant_images")
    if constant:
        notes.append(f"{constant} pictures have one value everywhere; their PixCorr was counted as 0.")
    count = run.metrics.get("n_test")
    if isinstance(count, int) and count < 30:
        notes.append(f"With {count} test pictures the intervals are wide, and still a little too narrow.")
    if any(run.metrics.get(name) in (0, 1) for name in ("two_way_pix", "two_way_feature", "top1_feature")):
        notes.append(
            "Where every picture is found, or none, the interval is the exact binomial one: resampling "
            "would give it no width."
        )
    if network := run.metrics.get("two_way_feature.network"):
        notes.append(
            f"Features are of {network}. Published scores are of other networks (AlexNet, Inception, CLIP, "
            "EfficientNet-B1, SwAV) and of their own test pictures, which set how hard it is to be told "
            "apart: a fair comparison scores both on the same pictures with the same network."
        )
    if run.metrics.get("ssim") is not None:
        notes.append(
            "SSIM rewards blur, and PixCorr more so: read them together with identification and the pictures."
        )
    return Block("notes", {"notes": notes}) if notes else None


def picture_groups(run: RunData) -> Block | None:
    """Stimulus, structural picture and reconstructions: best, median, worst and random ones."""
    if run.categories:
        return None
    arrays = run.arrays
    main = arrays.get("quantized", arrays.get("fp"))
    every = (*rows_of(run.config.get("strength")), *_MORE)
    rows = [(key, label) for key, label in every if _is_pictures(arrays.get(key), main)]
    if main is None or not rows:
        return sentence(
            "No reconstructed pictures are stored in this run folder (arrays.npz), so none are shown."
        )
    score = arrays.get("score_pixcorr")
    if score is None or len(score) != len(main):
        score, rule = np.zeros(len(main)), "no score per picture is stored, so pictures are in file order"
    else:
        rule = RULE
    recipe = str(run.metrics.get("recipe", "")).replace("-", "\N{NON-BREAKING HYPHEN}")
    labels = {"quantized": "full precision" if run.plain else f"quantized {recipe}".strip()}
    if run.plain:  # the same pictures, and not quantized
        rows = [(key, label) for key, label in rows if key != "fp"]
    groups = []
    for name, indices in choose(score, 3, run.seed):
        columns = [
            {
                "number": int(i),
                "score": f"{score[i]:.2f}",
                "pictures": [
                    {
                        "src": picture_png(arrays[key][i]),
                        "alt": f"{labels.get(key, label)}, test picture {i}",
                    }
                    for key, label in rows
                ],
            }
            for i in indices
        ]
        groups.append({"name": name, "columns": columns})
    averaged = run.metrics.get("n_samples", 1)
    each = "Every reconstruction is one sample"
    if isinstance(averaged, int) and averaged > 1:
        each = f"Full precision and quantized are means of {averaged} samples, as scored; the rest is one"
    caption = (
        f"{each}. {rule[0].upper()}{rule[1:]}. Pictures are counted from 0, as in images/ and in "
        "brainlab brain decode --trials; the number beside is PixCorr. "
        f"{run.provenance(f'{len(main)} test pictures').sentence()}"
    )
    return Block(
        "pictures",
        {"groups": groups, "labels": [labels.get(k, label) for k, label in rows], "caption": caption},
    )


def leak_check(run: RunData) -> Block | None:
    """Show what the leak check found."""
    if run.categories:
        return None  # no pictures to compare; the notes on categories say what kept the runs apart
    found, count = run.subject.get("leak"), run.metrics.get("leak_test_in_train")
    if count is None and isinstance(found, Mapping):
        count = found.get("leak_test_in_train")
    if count is None:
        return sentence(
            "No leak check is recorded in this run folder. Treat its scores as unchecked.", quiet=False
        )
    n_test, pairs, how = run.metrics.get("n_test", "?"), [], ""
    if isinstance(found, Mapping):
        pairs = [[str(a), str(b), f"{float(c):.2f}"] for a, b, c in list(found.get("pairs") or [])[:20]]
        n_test = found.get("n_test", n_test)
        closest = found.get("closest")
        if found.get("checked") == "names":
            how = "Only the names of stimuli could be compared, no pictures."
        elif isinstance(closest, int | float) and math.isfinite(closest):
            how = (
                f"The closest other pair has similarity {closest:.2f}; from {found.get('threshold', 0):g} "
                "two pictures count as nearly the same."
            )
    elif isinstance(found, list | tuple):
        how = " ".join(str(f) for f in found)
    elif found:
        how = str(found)
    return Block("leak", {"count": int(count), "n_test": n_test, "how": how, "pairs": pairs})


def cluster_map(run: RunData) -> Block | None:
    """Clusters on the brain, or cluster sizes where places are unknown."""
    cluster = run.arrays.get("cluster")
    places = _places(run)
    if places is None:
        ceiling = run.arrays.get("noise_ceiling")
        if cluster is None and ceiling is None:
            return sentence("Neither places nor clusters of voxels are stored in this run folder.")
        return figure(lambda theme: response_profile(cluster, ceiling, run.provenance(_voxels(run)), theme))
    if cluster is None or len(cluster) != len(places):
        return figure(
            lambda theme: brain_slices(
                places, np.zeros(len(places)), "voxel", _where(run), _space(run), theme=theme
            )
        )
    return figure(
        lambda theme: brain_slices(places, cluster, "cluster", _where(run), _space(run), True, theme=theme)
    )


def ceiling_map(run: RunData) -> Block | None:
    """Noise ceilings on the brain."""
    ceiling, places = run.arrays.get("noise_ceiling"), _places(run)
    if ceiling is None or places is None or len(ceiling) != len(places) or not np.isfinite(ceiling).all():
        return None
    return figure(
        lambda theme: brain_slices(
            places, ceiling, "noise ceiling (share of variance)", _where(run), _space(run), theme=theme
        )
    )


def attention_map(run: RunData) -> Block | None:
    """Where the network looks for the tokens, on the brain."""
    attention, places = run.arrays.get("attention"), _places(run)
    if attention is None or places is None or len(attention) != len(places):
        return None
    what = "attention (even share: 1)"
    return figure(lambda theme: brain_slices(places, attention, what, _where(run), _space(run), theme=theme))


def regions(run: RunData) -> Block | None:
    """Voxels, regions and warnings of the subject."""
    subject, rows = run.subject, []
    if subject.get("n_voxels"):
        rows.append(("voxels", f"{subject['n_voxels']:,}"))
    roi = subject.get("roi") or []
    if isinstance(roi, Mapping):
        rows.append(("regions", ", ".join(f"{name} ({size:,})" for name, size in roi.items())))
    elif roi:
        rows.append(("regions", ", ".join(map(str, roi))))
    rows += [("warning", str(w)) for w in subject.get("warnings") or []]
    return table(rows) if rows else None


def _words(cell: Cell, digits: int, signed: bool = False) -> dict[str, str]:
    sign = "+" if signed else ""
    value = "–" if cell.value is None else f"{cell.value:{sign}.{digits}f}"
    bounds = (
        "" if cell.low is None or cell.high is None else f"[{cell.low:.{digits}f}, {cell.high:.{digits}f}]"
    )
    if signed and cell.p is not None:
        bounds += f" p {cell.p:.3f}" if cell.p >= 0.001 else " p < .001"
    minus = "\N{MINUS SIGN}"
    return {"value": value.replace("-", minus), "bounds": bounds.replace("-", minus)}


def _is_pictures(stack: Any, like: Any) -> bool:
    return stack is not None and like is not None and stack.ndim in (3, 4) and len(stack) == len(like)


def _places(run: RunData) -> np.ndarray | None:
    xyz = run.arrays.get("xyz")
    known = (
        xyz is not None and xyz.ndim == 2 and xyz.shape[1] == 3 and len(xyz) > 0 and np.isfinite(xyz).all()
    )
    return xyz if known else None


def _space(run: RunData) -> str:
    """Space of the coordinates: what the subject says; a simulated one is laid out in MNI space."""
    info = run.subject.get("info") or {}
    said = run.subject.get("space") or (info.get("space") if isinstance(info, Mapping) else None)
    return str(said or ("MNI" if run.simulated else ""))


def _voxels(run: RunData) -> str:
    return f"{run.subject.get('n_voxels', '?')} voxels"


def _where(run: RunData) -> Any:
    return run.provenance(_voxels(run))
