"""The page of a voxel encoder: scores beside the linear one, voxels against their ceiling, clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from brainit.subject import Subject
from brainit.voxels.clusters import Clusters
from lab.decoding.encoder.measure import Measured
from lab.figures import Plate, Provenance, brain_slices, response_profile, training_curve, voxel_scores
from lab.figures.plate import Theme
from lab.files import replacing
from lab.report.block import Block, figure, sentence, table
from lab.report.document import HTMLDocument
from lab.report.page import render_block, render_page

HEADS = (
    ("r", "mean r ↑"),
    ("r_linear", "linear encoder"),
    ("r_minus_linear", "difference"),
    ("share", "share of ceiling ↑"),
)
NOTES = (
    "r is Pearson's correlation of a voxel's predicted and measured responses over test pictures, repeats "
    "averaged; the mean is over all voxels, also those that do not respond at all.",
    "The linear encoder is a ridge regression on principal components of the same pictures' tokens, with one "
    "embedding space for all subjects; chance is 0.",
    "The share of the ceiling sums signed squares of r over voxels and divides by the sum of their ceilings, "
    "so voxels without signal add nothing.",
)


@dataclass(frozen=True)
class EncoderData:
    """What the page shows.

    Parameters
    ----------
    about : mapping
        The job's result, with settings and training.
    subjects : sequence of Subject
    scores, groups : mapping
        By subject; by kind of cluster.
    """

    about: Mapping[str, Any]
    subjects: Sequence[Subject]
    scores: Mapping[str, Measured]
    groups: Mapping[str, Clusters]


def write_page(data: EncoderData, out: Path) -> Path:
    """Write ``report.html`` and ``figures/voxels.png``; return the page's path."""
    with replacing(out / "figures" / "voxels.png") as temporary:
        temporary.write_bytes(_voxels(data, "light").png(foot=True))
    return encoder_document(data).save_as_html(out / "report.html")


def encoder_document(data: EncoderData) -> HTMLDocument:
    """Return the page, without writing it."""
    about = data.about
    sections = [
        _section("Scores", [_table(about["rows"]), Block("notes", {"notes": list(NOTES)})]),
        _section("Voxels", [figure(lambda theme: _voxels(data, theme)), *_first_brain(data)]),
        _section("Clusters", _clusters(data)),
        _section("Training", [_training(data)]),
        _section("How it was made", _made(about)),
    ]
    who = f"{about['dataset']}, {len(data.subjects)} subject{'s' if len(data.subjects) > 1 else ''}"
    simulated = bool(about["simulated"])
    leak = about["leak_line"]
    return render_page(
        title=f"{who}: voxel encoder",
        eyebrow="Simulated subjects" if simulated else "Measured fMRI",
        heading=f"{who}: what voxels answer to",
        summary=[*_summary(about["rows"]), f"{leak[0].upper()}{leak[1:]}."],
        banner="Simulated subjects. No brain was measured: responses come from a forward model of visual "
        "cortex with added noise. Scores show that the program works."
        if simulated
        else "",
        sections=sections,
        problems=list(about.get("warnings", ())),
        warnings="Warnings about the data",
    )


def _summary(rows: list[dict[str, Any]]) -> list[str]:
    mean = {key: sum(row[key] for row in rows) / len(rows) for key in ("r", "r_linear")}
    better = sum(row["r_minus_linear_low"] > 0 for row in rows)
    return [
        f"Responses to test pictures are predicted with a mean correlation of {mean['r']:.3f} over voxels; "
        f"the linear encoder reaches {mean['r_linear']:.3f}. The difference excludes 0 upwards in {better} "
        f"of {len(rows)} subjects."
    ]


def _table(rows: list[dict[str, Any]]) -> Block:
    lines = []
    for row in rows:
        cells = []
        for key, _ in HEADS:
            low, high = row.get(f"{key}_low"), row.get(f"{key}_high")
            bounds = "" if low is None else f"{low:.3f} to {high:.3f}"
            cells.append({"value": "–" if row[key] is None else f"{row[key]:.3f}", "bounds": bounds})
        shown = f"{row['training pictures']} training and {row['test pictures']} test pictures"
        name = f"{row['voxels']:,} voxels, {shown}"
        lines.append({"name": row["subject"], "about": name, "cells": cells, "baseline": False})
    return Block("bits_table", {"heads": [head for _, head in HEADS], "rows": lines, "first": "subject"})


def _source(data: EncoderData, who: str) -> Provenance:
    about = data.about
    count = sorted({row["test pictures"] for row in about["rows"]})
    shown = f"{count[0]} test pictures" if len(count) == 1 else f"{count[0]} to {count[-1]} test pictures"
    facts = (about["seed"], about["hash"], about["simulated"])
    return Provenance(f"{about['dataset']} {who}", shown, *facts, leaks=about["leak_line"])


def _voxels(data: EncoderData, theme: Theme) -> Plate:
    r = {name: own.score.correlation for name, own in data.scores.items()}
    ceilings = {n: own.score.ceiling for n, own in data.scores.items() if own.score.ceiling is not None}
    return voxel_scores(r, ceilings, _source(data, "all subjects"), theme)


def _space(subject: Subject) -> str:
    """Space of the coordinates; simulated subjects are laid out in MNI space."""
    return str(subject.info.get("space") or ("MNI" if subject.simulated else ""))


def _first_brain(data: EncoderData) -> list[Block]:
    first = data.subjects[0]
    if not first.has_places:
        return []
    r, space = data.scores[first.name].score.correlation, _space(first)
    source = _source(data, first.name)
    return [
        figure(lambda theme: brain_slices(first.xyz, r, "encoder's correlation", source, space, theme=theme))
    ]


def _clusters(data: EncoderData) -> list[Block]:
    first, source = data.subjects[0], _source(data, data.subjects[0].name)
    labels = data.groups["functional"].labels[first.name]
    space = _space(first)
    if first.has_places:
        blocks = [
            figure(
                lambda theme: brain_slices(
                    first.xyz, labels, "functional cluster", source, space, True, theme=theme
                )
            )
        ]
    else:
        blocks = [figure(lambda theme: response_profile(labels, None, source, theme))]
    for kind, found in data.about["clusters"].items():
        sizes = f"{found['smallest']} to {found['largest']} voxels, median {found['median']:g}"
        empty = ", ".join(f"{name} {count}" for name, count in found["empty_by_subject"].items() if count)
        pairs = [("method", found["method"]), ("clusters", found["n_clusters"]), ("size", sizes)]
        blocks.append(table([*pairs, ("empty in", empty or "no subject")], caption=kind))
    return blocks


def _training(data: EncoderData) -> Block:
    about = data.about
    epochs = [float(k + 1) for k in range(len(about["training"]))]
    curves = {"training": list(about["training"])}
    trained = sum(row["training pictures"] for row in about["rows"])
    source = replace(_source(data, "all subjects"), samples=f"{trained} training pictures of all subjects")
    return figure(lambda theme: training_curve(epochs, curves, source, theme=theme))


def _made(about: Mapping[str, Any]) -> list[Block]:
    config = about["config"]
    pairs = [
        ("backbone", about["backbone"]),
        ("taps", ", ".join(map(str, config["taps"]))),
        ("started from", about["started"] or "nothing: all of it was trained"),
        ("epochs", f"{len(about['training'])} in {about['seconds']:g} s"),
        ("validation", _validation(about)),
        ("intervals", f"95 % bootstrap over test pictures, {about['n_draws']} draws"),
    ]
    kinds = sorted({name.split("_", 1)[1] for name in about["maps"]})
    each = f"Maps of each subject: maps/SUBJECT_{', '.join(kinds)}."
    maps = sentence(each if kinds else about["note"])
    return [table(pairs), maps]


def _validation(about: Mapping[str, Any]) -> str:
    if not about["validation"]:
        return "none: the last epoch is kept"
    best = max(about["validation"])
    epoch = about["validation"].index(best) + 1
    return f"best quarter of voxels from r = {best:.3f} on left-out training pictures, epoch {epoch} kept"


def _section(title: str, blocks: list[Block]) -> dict[str, Any]:
    name = title.lower().replace(" ", "-")
    return {"id": name, "title": title, "intro": "", "blocks": [render_block(block) for block in blocks]}
