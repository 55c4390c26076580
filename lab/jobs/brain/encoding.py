"""The run behind ``brainlab brain encode``: fit, scores, clusters, maps, page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from brainit.subject import Subject
from brainit.voxels.clusters import Clusters, assign_nearest
from brainit.voxels.maps import write_clusters, write_map
from brainit.voxels.universal import EncoderConfig, Fitted, collect, fit_universal
from lab.decoding import same_data
from lab.decoding.encoder.measure import (
    N_DRAWS,
    Measured,
    Shown,
    find_backbone,
    group_everybody,
    linear_rival,
    measure,
)
from lab.decoding.encoder.people import People
from lab.errors import InputError
from lab.files import read_npz, write_json, write_npz
from lab.images import SIDE
from lab.progress import Progress
from lab.runs.folder import Run


class Wanted(Protocol):
    """What the run is asked for (`lab.jobs.brain.encode.Settings`)."""

    @property
    def backbone(self) -> str: ...

    @property
    def encoder(self) -> EncoderConfig: ...

    @property
    def start(self) -> Path | None: ...

    @property
    def clusters(self) -> int: ...

    @property
    def covariance(self) -> str: ...

    @property
    def seed(self) -> int: ...

    @property
    def dataset(self) -> str: ...


def fit(settings: Wanted, people: People, out: Path, device: str, progress: Progress) -> Fitted:
    """Fit the encoder, or go on with it, in ``out``."""
    backbone = find_backbone(settings.backbone)
    trials, ids = collect(people.subjects)
    start = None
    if settings.start is not None:
        known = Fitted.load(settings.start / "encoder.safetensors", backbone)
        again = [name for name in trials if name in known.encoder.names]
        if again:
            raise InputError(
                f"{settings.start} already knows subject {again[0]!r}; start is for subjects new to it"
            )
        start = known.encoder
    return fit_universal(
        backbone,
        Shown(people.subjects, ids, backbone.side),
        trials,
        settings.encoder,
        start=start,
        folder=out / "checkpoints" / "encoder",
        progress=progress,
        device=device,
    )


def encode(settings: Wanted, people: People, folder: Run, device: str, progress: Progress) -> dict[str, Any]:
    """Do it all in an open run folder; return what the job's result holds."""
    out = folder.path
    same_data.claim(out, dict(people.marks))
    if folder.finished:
        import json

        stored = json.loads((out / "result.json").read_text(encoding="utf-8"))
        return stored | {"note": "done before"}
    fitted = fit(settings, people, out, device, progress)
    for epoch, loss in enumerate(fitted.history.loss):
        score = fitted.history.score[epoch] if fitted.history.score else None
        folder.log("trained", epoch=epoch + 1, train_loss=loss, validation_r=score)
    fitted.save(out / "encoder.safetensors")
    trials, ids = collect(people.subjects)
    progress(0, 1, "measuring")
    rival, _ = linear_rival(Shown(people.subjects, ids, SIDE), trials, progress)
    scores = {
        own.name: measure(own, trials[own.name], fitted, rival, device, progress, settings.seed)
        for own in people.subjects
    }
    progress(0, 1, "grouping voxels")
    embeddings = fitted.encoder.embeddings()
    if settings.start is None:
        groups = group_everybody(
            people.subjects, embeddings, settings.clusters, settings.covariance, settings.seed, device
        )
    else:
        groups = {"functional": _joined(settings.start, embeddings)}
    write_npz(out / "embeddings.npz", _tables(embeddings, groups, scores))
    maps = _maps(out, people.subjects, scores, groups)
    rows = [scores[own.name].row for own in people.subjects]
    result = {
        "rows": rows,
        "clusters": {name: found.occupancy() for name, found in groups.items()},
        "leak_line": people.leak_line,
        "warnings": list(people.warnings),
        "simulated": people.subjects[0].simulated,
        "out": str(out),
        "report": str(out / "report.html"),
        "maps": maps,
        "note": "" if maps else "the data have no mask image, so no NIfTI maps were written",
    }
    from lab.report.brain.encoder import EncoderData, write_page

    about = {
        "dataset": settings.dataset,
        "hash": folder.hash,
        "seed": settings.seed,
        "backbone": fitted.backbone.name,
        "started": None if settings.start is None else str(settings.start),
        "config": settings.encoder.model_dump(mode="json"),
        "seconds": round(fitted.history.seconds, 1),
        "n_draws": N_DRAWS,
        "validation": fitted.history.score,
        "training": fitted.history.loss,
    }
    folder.write_metrics(_flat(rows))
    write_page(EncoderData(about | result, people.subjects, scores, groups), out)
    write_json(out / "result.json", result)
    folder.finish()
    return result


def _joined(start: Path, embeddings: Mapping[str, np.ndarray]) -> Clusters:
    """Give voxels of new subjects the clusters of their nearest voxels in the run started from."""
    tables = read_npz(start / "embeddings.npz")
    known = {k.removeprefix("embedding/"): v for k, v in tables.items() if k.startswith("embedding/")}
    mark = "cluster/functional/"
    labels = {k.removeprefix(mark): v for k, v in tables.items() if k.startswith(mark)}
    clusters = Clusters(labels, int(tables["n_clusters"]), "as in the run started from")
    found = {name: assign_nearest(own, known, clusters).labels for name, own in embeddings.items()}
    return Clusters(found, clusters.n_clusters, "nearest voxels' clusters")


def _tables(
    embeddings: Mapping[str, np.ndarray], groups: Mapping[str, Clusters], scores: Mapping[str, Measured]
) -> dict[str, np.ndarray]:
    found: dict[str, Any] = {f"embedding/{name}": own for name, own in embeddings.items()}
    for kind, clusters in groups.items():
        found |= {f"cluster/{kind}/{name}": labels for name, labels in clusters.labels.items()}
    found |= {f"correlation/{name}": own.score.correlation for name, own in scores.items()}
    return found | {"n_clusters": np.asarray(groups["functional"].n_clusters)}


def _maps(
    out: Path, subjects: list[Subject], scores: Mapping[str, Measured], groups: Mapping[str, Clusters]
) -> list[str]:
    """Write NIfTI maps of subjects whose voxels have a place; return their paths within the run."""
    written: list[Path] = []
    for own in subjects:
        if own.mask is None:
            continue
        score, stem = scores[own.name].score, out / "maps" / own.name
        values = {"encodercorrelation": score.correlation, "ceilingshare": score.share}
        for name, one in values.items():
            if one is not None:
                written.append(write_map(own, one, Path(f"{stem}_desc-{name}_statmap.nii.gz")))
        for kind, clusters in groups.items():
            path = Path(f"{stem}_desc-{kind}clusters_dseg.nii.gz")
            written.append(write_clusters(own, clusters.labels[own.name], path))
    return [str(path.relative_to(out)) for path in written]


def _flat(rows: list[dict[str, Any]]) -> dict[str, Any]:
    keys = ("r", "r_linear", "r_minus_linear", "share", "ceiling")
    flat: dict[str, Any] = {}
    for row in rows:
        for key in keys:
            if row[key] is not None:
                stem = f"{row['subject']}.{key}"
                flat[stem] = row[key]
                flat |= {f"{stem}.{b}": row[f"{key}_{b}"] for b in ("low", "high") if f"{key}_{b}" in row}
    return flat
