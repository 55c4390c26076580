"""The page of an adapted subject: its curve where there is one, and what the subject is."""

from __future__ import annotations

from pathlib import Path

from lab.report.adapted import write_adapted_page

FACTS = {"subject": "sub-01", "simulated": True, "voxels": 90, "n_test": 12, "n_trials": 100, "leaks": "none"}


def row(method: str, minutes: float, two_way: float, above: float) -> dict[str, object]:
    scores: dict[str, object] = {"minutes": minutes, "trials": 100, "method": method}
    for key, value in (("two_way", two_way), ("pixcorr", two_way / 2)):
        scores |= {key: value, f"{key} low": value - 0.1, f"{key} high": value + 0.1}
        scores |= {f"{key} above ridge{end}": above for end in ("", " low", " high")}
    return scores


def test_page_with_a_curve(tmp_path: Path) -> None:
    rows = [row("ridge to tokens", 8, 0.7, 0.0), row("shared network", 8, 0.8, 0.1)]
    page = write_adapted_page(FACTS, rows, "simulated sub-01", 0, tmp_path).read_text(encoding="utf-8")
    assert (tmp_path / "figures" / "curve.png").stat().st_size > 10_000
    assert "Simulated subject: no brain was measured." in page and "shared network 0.800" in page
    assert page.count("above ridge 0.100 to 0.100") == 2  # the network's two scores; ridge has no rival


def test_page_without_a_curve(tmp_path: Path) -> None:
    write_adapted_page(FACTS, [row("ridge to tokens", 8, 0.7, 0.0)], "mine sub-01", 0, tmp_path)
    page = write_adapted_page(FACTS | {"simulated": False}, [], "mine sub-01", 0, tmp_path)
    assert "No curve was asked for" in page.read_text(encoding="utf-8")
    assert not (tmp_path / "figures" / "curve.png").exists()  # that of the earlier call is gone
