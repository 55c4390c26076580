"""Scores of a study: kept on disk, averaged over subjects, compared where both methods were tried."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lab.decoding.cohort.scoreboard import CONTRASTS, RIVAL, SINGLE, STAGE_1, Scoreboard

N = 40


def board(file: Path) -> Scoreboard:
    """Two subjects; the single network was tried on the second alone, where it is .3 below."""
    rng = np.random.default_rng(0)
    made = Scoreboard(file)
    for subject, shift in (("sub-01", 0.0), ("sub-02", 0.2)):
        base = rng.random(N)
        for what, above in ((RIVAL, 0.0), (STAGE_1, 0.1), (SINGLE, -0.2)):
            if what == SINGLE and subject == "sub-01":
                continue
            values = base + shift + above
            made.scores["cohort", what, subject] = {k: values for k in ("two_way", "top1", "pixcorr")}
    made.pictures["cohort", RIVAL] = np.zeros((2, 4, 4, 3), np.uint8)
    return made


def test_means_and_differences(tmp_path: Path) -> None:
    found = board(tmp_path / "scores.safetensors")
    rows = {row["what"]: row for row in found.rows()}
    assert rows[STAGE_1]["subjects"] == 2 and rows[SINGLE]["subjects"] == 1
    mean, low, high = rows[STAGE_1]["two_way"]
    assert low < mean < high
    assert mean == pytest.approx(rows[RIVAL]["two_way"][0] + 0.1, abs=1e-3)
    # the same pictures and subjects: a constant difference has no spread
    assert rows[STAGE_1]["pixcorr above ridge"] == pytest.approx([0.1] * 3, abs=1e-3)
    assert rows[SINGLE]["top1 above ridge"] == pytest.approx([-0.2] * 3, abs=1e-3)
    assert "two_way above ridge" not in rows[RIVAL]
    contrasts = {row["contrast"]: row for row in found.contrasts()}
    both = contrasts["shared above single, stage 1"]
    assert both["subjects"] == 1 and both["two_way"] == pytest.approx([0.3] * 3, abs=1e-3)
    assert "functional above random clusters" not in contrasts  # never tried


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    file = tmp_path / "scores.safetensors"
    before = board(file)
    before.save()
    after = Scoreboard.open(file)
    assert after.rows() == before.rows() and after.contrasts() == before.contrasts()
    assert after.has("cohort", SINGLE, "sub-02") and not after.has("cohort", SINGLE, "sub-01", "sub-02")
    assert after.pictures["cohort", RIVAL].dtype == np.uint8
    assert not Scoreboard.open(tmp_path / "none.safetensors").scores
    before.pictures["cohort", RIVAL] = np.full((2, 4, 4, 3), 9, np.uint8)
    before.save()  # a picture in another's place is written as it is now
    assert (Scoreboard.open(file).pictures["cohort", RIVAL] == 9).all()


def test_a_contrast_is_its_first_word_less_its_second() -> None:
    for label, ours, theirs in CONTRASTS:
        first, second = label.split(" above ")
        word = theirs[1].split(" (")[0].split(", ")[-1].replace("no external pictures", "none")
        assert word in second and word not in first and ours != theirs, label
