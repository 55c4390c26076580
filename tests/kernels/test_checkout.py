"""Which commit is said: the code's, and never that of a project that it is installed in."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from kernels.checkout import commit


def test_the_commit_is_the_code_s_or_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.delenv("BRAINLAB_COMMIT", raising=False)
    ours, theirs = tmp_path / "ours.py", tmp_path / "venv" / "about.py"
    theirs.parent.mkdir()
    for file in (ours, theirs):
        file.write_text("x = 1\n")
    assert commit(ours) == "unknown"
    git("init")
    git("add", ours.name)
    git("commit", "-m", "x")
    assert len(commit(ours)) >= 7 and commit(theirs) == "unknown"
    clean = commit(ours)
    ours.write_text("x = 2\n")
    assert commit(ours) == f"{clean}-dirty"
    monkeypatch.setenv("BRAINLAB_COMMIT", "stated")
    assert commit(ours) == commit(theirs) == "stated"
