"""What the comparison of drawing both ways refuses."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks import native_brain, native_pictures
from benchmarks.files import read_csv
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


def test_a_denoiser_that_fails_does_not_take_the_others_row_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = {"device": "a GPU", "torch": "2", "triton": "3", "commit": "abc"}
    row = dict.fromkeys(native_brain.TITLES, "1")

    def run(denoiser: str, native: bool, device: str, out: Path) -> dict[str, str]:
        if denoiser == "unet-64" and native:
            raise RuntimeError("out of resource: shared memory")
        return {}

    monkeypatch.setattr(native_brain, "run", run)
    monkeypatch.setattr(native_brain, "refuse_device", lambda _: None)
    monkeypatch.setattr(native_brain, "environment", lambda _: place)
    monkeypatch.setattr(native_brain, "_pool", ThreadPoolExecutor)
    monkeypatch.setattr(native_brain, "compared", lambda name, *_: {**row, "denoiser": name})
    with pytest.raises(RuntimeError, match="shared memory"):
        main(["--out", str(tmp_path / "out"), "--jobs", "2", "--device", "cpu"])
    assert [r["denoiser"] for r in read_csv(tmp_path / "out.csv")] == ["dit-64"]
