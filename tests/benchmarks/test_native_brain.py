"""What the comparison of drawing both ways refuses."""

from __future__ import annotations

import pytest

from benchmarks.native_brain import main


@pytest.mark.parametrize("jobs", ["0", "-1"])
def test_no_jobs_are_refused(jobs: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--out", "unused", "--jobs", jobs])
    assert end.value.code == 2 and f"--jobs must be 1 or more, got {jobs}" in capsys.readouterr().err
