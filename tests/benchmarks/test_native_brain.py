"""What the comparison of drawing both ways refuses."""

from __future__ import annotations

import pytest

from benchmarks import native_pictures
from benchmarks.native_brain import main


@pytest.mark.parametrize("jobs", ["0", "-1"])
def test_no_jobs_are_refused(jobs: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--out", "unused", "--jobs", jobs])
    assert end.value.code == 2 and f"--jobs must be 1 or more, got {jobs}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--n 0", "--n must be 1 or more, got 0"),
        ("--steps -2", "--steps must be 1 or more, got -2"),
        ("--models", "expected at least one argument"),
    ],
)
def test_nothing_to_draw_is_refused(arguments: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        native_pictures.main(["--out", "unused", *arguments.split()])
    assert end.value.code == 2 and words in capsys.readouterr().err


def test_an_unknown_recipe_is_refused_before_anything_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    assert native_pictures.main(["--out", "unused", "--recipes", "rtn-w8a8", "rtn-w9a9"]) == 2
    assert "rtn-w9a9" in capsys.readouterr().err
