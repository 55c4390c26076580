from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.cache import VARIABLE, cache_folder
from lab.cli.main import run


def test_one_folder_wherever_one_stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("BRAINLAB_CACHE", raising=False)
    usual = cache_folder("recordings")
    monkeypatch.chdir(tmp_path)
    assert cache_folder("recordings") == usual and usual.is_absolute() and "brainlab" in usual.parts
    monkeypatch.setenv("BRAINLAB_CACHE", str(tmp_path / "c"))
    assert cache_folder("recordings") == tmp_path / "c" / "recordings"
    assert not (tmp_path / "c").exists()


def test_doctor_shows_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BRAINLAB_CACHE", str(tmp_path))
    (tmp_path / "file").write_bytes(bytes(2_000_000))
    assert run(["doctor", "--json"]) == 0
    text = capsys.readouterr().out
    assert f"{tmp_path}, 2.0 MB" in text and "BRAINLAB_CACHE" in text


def test_a_cache_that_cannot_be_used_is_said_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    assert run(["brain", "prepare", "--dataset", "simulated", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "not a directory" in said[0] and f"let {VARIABLE} name a folder" in said[0]
    assert not (tmp_path / "out").exists()
    assert run(["doctor", "--json"]) == 0
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert next(row["state"] for row in checks if row["what"] == "cache") == "bad"
