"""The page of an adapted subject: its curve where there is one, and what the subject is."""

from __future__ import annotations

from pathlib import Path

from lab.report.adapted import read_outs, write_adapted_page

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
    assert "Not shown" not in page
    assert page.count("above ridge 0.100 to 0.100") == 2  # the network's two scores; ridge has no rival


def test_a_leak_stands_beside_the_scores_and_read_outs_are_named(tmp_path: Path) -> None:
    weights = {"128-192": [0.2, 0.0], "0-8": [1.5, 0.25], "24-64": [0.4, 0.1]}
    leak = {"leaks": "leak check: 3 of 12 test pictures in training", "test_pictures_in_training": 3}
    facts = FACTS | {"read_out_weights": weights, **leak}
    assert [which for which, *_ in read_outs(facts)] == ["1 to 8", "25 to 64", "129 to 192"]
    rows = [row("ridge to tokens", 8, 0.7, 0.0)]
    page = write_adapted_page(facts, rows, "mine sub-01", 0, tmp_path, ["odd betas"]).read_text(
        encoding="utf-8"
    )
    assert "<h2>Warnings about the data</h2>" in page and "test_pictures" not in page
    assert "1.5 x ridge + 0.25 x the shared prior (Bayes)" in page and "read_out" not in page
    assert "Scores on these pictures measure recall" in page
    clean = write_adapted_page(facts | {"test_pictures_in_training": 0}, rows, "mine sub-01", 0, tmp_path)
    assert "measure recall" not in clean.read_text(encoding="utf-8")


def test_page_without_a_curve(tmp_path: Path) -> None:
    write_adapted_page(FACTS, [row("ridge to tokens", 8, 0.7, 0.0)], "mine sub-01", 0, tmp_path)
    page = write_adapted_page(FACTS | {"simulated": False}, [], "mine sub-01", 0, tmp_path)
    assert "No curve was asked for" in page.read_text(encoding="utf-8")
    assert not (tmp_path / "figures" / "curve.png").exists()  # that of the earlier call is gone
