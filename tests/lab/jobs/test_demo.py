"""The demo's own record: every subject's scores and what the call cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import lab.report
from lab.jobs import demo as job
from lab.jobs.contract import Context


def test_scores_seconds_and_peak_memory_are_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    encodings: set[int] = set()

    def reconstruct(config: Any, out: Path, progress: Any, *, encoded: Any) -> dict[str, Any]:
        assert config.network == "shared" and config.n_samples == config.noise_seeds == 1
        encodings.add(id(encoded))
        return {"pixcorr": 0.5, "recipe": config.recipe, "report": str(out / "report.html")}

    monkeypatch.setattr("lab.jobs.reconstruct.reconstruct", reconstruct)
    monkeypatch.setattr(lab.report, "build_group_report", lambda runs, page: page)
    found = job.run(job.Settings(out=tmp_path), Context())
    assert len(found.table) == 4 and len(encodings) == 1  # the subjects share their training pictures
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["sub-03.pixcorr"] == 0.5 and "sub-03.recipe" not in metrics
    assert 0.05 < metrics["peak_memory_gb"] < 64 and metrics["seconds_total"] >= 0


def test_peak_memory_grows_with_what_is_held() -> None:
    before = job.peak_memory_gb()
    if before is None:
        pytest.skip("no resource module here")
    held = bytearray(int((before + 0.3) * 1e9))
    held[::4096] = b"x" * len(held[::4096])
    after = job.peak_memory_gb()
    assert after is not None and after > before + 0.15
