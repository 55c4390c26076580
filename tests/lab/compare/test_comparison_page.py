"""The page and the figures of a comparison."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.cli.main import run
from lab.compare import results, work
from lab.compare.bench import Bench
from lab.compare.recipes import FULL, OTHER_SEED, expand
from lab.report.compare import document, figures, write_report
from lab.runs.folder import Run

ABOUT = {
    "model": "unet-64", "command": "brainlab compare", "n": 12, "seeds": 2, "steps": 2, "guidance": 2.0,
    "conditions": "random", "recording": "0" * 64, "hardware": "CPU", "date": "2026-01-01",
    "commit": "none", "versions": {}, "missing": [], "bit_ops_rule": "rule", "settings": {},
}  # fmt: skip


def test_report_opens_with_the_verdict_and_shows_a_failed_gate(bench: Bench, tmp_path: Path) -> None:
    with Run.open(tmp_path / "r", bench.settings.to_dict()) as opened:
        measured, failed = work.Work(bench, opened, expand("rtn-w8a8,rtn-w4a4")).all()
    result = results.conclude(ABOUT, measured, failed)
    results.write(result, tmp_path / "r")
    assert result["gates"][0]["passed"]
    write_report(result, results.pictures(measured), tmp_path / "r")
    page = (tmp_path / "r" / "report.html").read_text()
    assert "1 pair<" in page and "1 pairs" not in page
    assert page.count("Source: unet-64, 12 pictures at each of 2 seeds, simulated low-bit arithmetic.") == 3
    heads = re.findall(r"<h2 id=\"([a-z-]+)-title", page)
    assert heads == ["verdict", "pictures", "trade-off", "scores", "gate", "how-it-was-made"]
    fewer = [row | {"seeds": 1} if row["recipe"] == "rtn-w4a4" else row for row in result["rows"]]
    assert "12 pictures at 1 to 2 of 2 seeds" in document({**result, "rows": fewer}, {}, {}).html
    native = document({**result, "about": {**ABOUT, "execution": "native"}}, {}, {}).html
    assert "Native low-bit arithmetic" in native and "Simulated low-bit arithmetic" not in native
    assert "gate failed" not in page and "ten times the difference of rtn-w4a4" in page
    assert (tmp_path / "r" / "grid.webp").stat().st_size > 100
    assert {p.name for p in (tmp_path / "r" / "figures").iterdir()} == {
        "quality-bytes.png", "error-timesteps.png", "error-growth.png",
    }  # fmt: skip
    assert run(["figures", str(tmp_path / "r"), "--width", "5"]) == 0
    papers = {p.name for p in (tmp_path / "r" / "paper").iterdir()}
    assert papers == {"quality-bytes.pdf", "error-timesteps.pdf", "error-growth.pdf", "captions.txt"}
    assert (tmp_path / "r" / "paper" / "captions.txt").read_text().count("simulated low-bit arithmetic") == 3
    assert run(["figures", str(tmp_path)]) == 4
    psnr = {row["recipe"]: row["psnr_db"] for row in result["rows"]}
    assert psnr[FULL] == 100 > psnr["rtn-w8a8"] > psnr["rtn-w4a4"] > psnr[OTHER_SEED]
    measured[0].arrays["psnr_db"] = measured[0].arrays["psnr_db"] - 1e-3
    write_report(results.conclude(ABOUT, measured, []), {}, tmp_path / "bad")
    page = (tmp_path / "bad" / "report.html").read_text()
    assert "only latents were compared" in page and "whatever they look like" not in page
    assert "The gate failed: same seed, same picture" in page and 'class="verdict bad"' in page


@pytest.mark.parametrize("drawn", [True, False])
def test_trade_off_is_drawn_where_sizes_differ(drawn: bool) -> None:
    row = {"method": "rtn", "psnr_db": 20.0, "psnr_db.low": 19.0, "psnr_db.high": 21.0, "bytes_before": 9e6}
    row |= {"seeds": 1}
    rows = [{**row, "recipe": "a", "bytes": 4e6}, {**row, "recipe": "b", "bytes": 5e6 if drawn else 4e6}]
    curve = {"timestep": [1.0], "noise_nmse": [0.1], "growth": [0.0, 0.1]}
    result = {"about": ABOUT, "rows": rows, "curves": {"a": curve, "b": curve}}
    assert ("quality-bytes" in figures(result)) == drawn
