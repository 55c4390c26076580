"""The command on a tiny model: files, resume, several processes and merging, failures, bad input."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import quant
from lab.cli.main import run
from lab.compare import work
from lab.compare.bench import Bench
from lab.compare.claims import Claims, finished
from lab.compare.finish import finish
from lab.compare.recipes import FULL, OTHER_SEED, expand, groups, one_command
from lab.jobs import compare as job
from lab.progress import silent
from lab.report.compare import figures
from lab.runs.folder import Run
from lab.runs.steps import StepCache

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory, recording, model_folder: Path) -> list[str]:
    return [
        "compare", str(model_folder), "--recording", str(recording.path), "--recipes", "rtn-w8a8,rtn-w4a4",
        "--n", "4", "--seeds", "2", "--steps", "2", "--json", "--device", "cpu", "--no-gates",
    ]  # fmt: skip


def test_a_model_without_decoder_is_compared_by_latents(
    command: list[str], tmp_path: Path, capsys: Capture
) -> None:
    assert run([*command, "--out", str(tmp_path / "c")]) == 0
    result = json.loads(capsys.readouterr().out)
    names = [row["recipe"] for row in result["rows"]]
    assert names == [FULL, OTHER_SEED, "rtn-w8a8", "rtn-w4a4"]
    full, other, eight, four = result["rows"]
    assert (
        full["latent_rel_l2"] == 0 < eight["latent_rel_l2"] < four["latent_rel_l2"] < other["latent_rel_l2"]
    )
    assert eight["bytes"] > four["bytes"] and full["bytes"] > eight["bytes"]
    assert four["bit_ops_share"] < eight["bit_ops_share"] < 1
    assert eight["latent_sqnr_db.low"] <= eight["latent_sqnr_db"] <= eight["latent_sqnr_db.high"]
    bits = [o for o in result["orderings"] if o["id"] == "bits"]
    assert bits == []  # that claim is about the shipped models
    table = list(csv.DictReader((tmp_path / "c" / "results.csv").open()))
    assert [row["recipe"] for row in table] == names
    page = (tmp_path / "c" / "report.html").read_text()
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert "rtn-w4a4" in (tmp_path / "c" / "results.md").read_text()


def test_finished_parts_are_used_again_and_more_recipes_are_added(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real = quant.quantize_

    def counted(model, recipe, **options):
        calls.append(type(recipe).__name__)
        return real(model, recipe, **options)

    monkeypatch.setattr(quant, "quantize_", counted)

    def go(recipes: str) -> list:
        with Run.open(tmp_path / "r", bench.settings.to_dict()) as opened:
            made = work.Work(bench, opened, expand(recipes), False, silent)
            assert made.all() == []
            return made.parts

    first = go("rtn-w8a8")
    assert len(calls) == 2 and len(first) == 2 * 3
    second = go("rtn-w8a8,rtn-w6a6")
    assert len(calls) == 4 and len(second) == 2 * 4
    assert (first[2].arrays["psnr_db"] == second[2].arrays["psnr_db"]).all()
    third = go("rtn-w8a8,rtn-w6a6")
    assert len(calls) == 4 and len(third) == len(second)


def test_report_with_pictures_shows_a_failed_gate(bench: Bench, tmp_path: Path) -> None:
    with Run.open(tmp_path / "r", bench.settings.to_dict()) as opened:
        made = work.Work(bench, opened, expand("rtn-w8a8,rtn-w4a4"), False, silent)
        made.all()
    gate = {"name": "planted", "expected": "nothing", "found": "something", "passed": False}
    about = {
        "model": "unet-64", "command": "brainlab compare", "n": 12, "seeds": 2, "steps": 2, "guidance": 2.0,
        "conditions": "random", "recording": "0" * 64, "hardware": "CPU", "date": "2026-01-01",
        "commit": "none", "versions": {}, "missing": [], "bit_ops_rule": "rule", "settings": {},
    }  # fmt: skip
    result = finish(tmp_path / "r", about, made.parts, [gate], [], tmp_path / "results")
    page = (tmp_path / "r" / "report.html").read_text()
    assert "1 pair<" in page and "1 pairs" not in page
    assert "1 of 1 gates failed: planted" in page and 'class="verdict bad"' in page
    assert (tmp_path / "r" / "grid.webp").stat().st_size > 100
    assert {p.name for p in (tmp_path / "r" / "figures").iterdir()} == {
        "quality-bytes.png", "error-timesteps.png", "error-growth.png",
    }  # fmt: skip
    table = (tmp_path / "results" / "unet-64-ptq.md").read_text()
    assert "**failed**" in table and "](unet-64-ptq.png)" in table
    assert (tmp_path / "results" / "unet-64-ptq.png").stat().st_size > 1000
    assert json.loads((tmp_path / "results" / "unet-64-ptq.json").read_text())["rows"] == result["rows"]
    psnr = {row["recipe"]: row["psnr_db"] for row in result["rows"]}
    assert psnr[FULL] == 100 > psnr["rtn-w8a8"] > psnr["rtn-w4a4"] > psnr[OTHER_SEED]
    bits = [o["verdict"] for o in result["orderings"] if o["id"] == "bits"]
    assert bits == ["not run", "not run"]


def test_a_recipe_that_fails_is_listed_and_the_others_go_on(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = quant.quantize_

    def broken(model, recipe, **options):
        if recipe.weight_bits == 6:
            raise RuntimeError("planted")
        return real(model, recipe, **options)

    monkeypatch.setattr(quant, "quantize_", broken)
    with Run.open(tmp_path / "r", bench.settings.to_dict()) as opened:
        made = work.Work(bench, opened, expand("rtn-w6a6,rtn-w8a8"), False, silent)
        failed = made.all()
    assert [(f["recipe"], f["seed"]) for f in failed] == [("rtn-w6a6", 0), ("rtn-w6a6", 1)]
    assert "planted" in failed[0]["reason"]
    assert {p.recipe for p in made.parts} == {FULL, OTHER_SEED, "rtn-w8a8"}


def test_a_part_is_claimed_once_and_what_is_done_stays_claimed(tmp_path: Path) -> None:
    claims, other = Claims(tmp_path / "claims"), Claims(tmp_path / "claims")
    claims.begin(["a"])
    assert not other.take("a") and other.take("b") and not claims.take("b")
    claims.begin([])
    assert claims.take("a") and Claims().take("a") and Claims().take("a")


def test_full_precision_is_done_only_with_what_belongs_to_it(tmp_path: Path) -> None:
    folder = tmp_path / "process-1"
    cache = StepCache(folder / "steps")
    for name in ("full.seed-0", "null.seed-0", "full.seed-1", "rtn.1.seed-0", "torn.1.seed-0"):
        cache.save(name, {"made": np.ones(2)}, 0.1)
    (folder / "steps" / "torn.1.seed-0.npz").write_bytes(b"half")
    found = finished([folder, tmp_path / "none"], gates=True)
    assert found == {"null.seed-0", "rtn.1.seed-0"}  # no gates, no null at seed 1, a file that is not whole
    assert finished([folder], gates=False) == {*found, "full.seed-0"}
    cache.save("gates", {"gates": []}, 0.1)
    assert finished([folder], gates=True) == {*found, "full.seed-0", "gates"}


def test_processes_and_merged_folders_give_what_one_run_gives(
    command: list[str], tmp_path: Path, capsys: Capture
) -> None:
    def scores() -> list[dict]:
        rows = json.loads(capsys.readouterr().out)["rows"]
        return [{k: v for k, v in row.items() if not k.startswith("calibrate")} for row in rows]

    one = [*command, "--seeds", "1"]
    assert run([*one, "--out", str(tmp_path / "whole")]) == 0
    whole = scores()
    jobs = [*one, "--out", str(tmp_path / "jobs"), "--jobs", "2"]
    assert run(jobs) == 0
    assert scores() == whole
    parts = sorted((tmp_path / "jobs").glob("process-*/steps/*.json"))
    assert len(parts) == len({part.name for part in parts}) == 4  # nothing was measured twice
    next(part for part in parts if part.name.startswith("rtn-w4a4")).unlink()  # as if it had been stopped
    kept = {part: part.stat().st_mtime_ns for part in parts if part.exists()}
    assert run(jobs) == 0
    assert scores() == whole
    assert {part: part.stat().st_mtime_ns for part in kept} == kept
    assert len(list((tmp_path / "jobs").glob("process-*/steps/*.json"))) == 4  # nothing but what was missing

    first, second = tmp_path / "first", tmp_path / "second"
    assert run([*one, "--recipes", "rtn-w8a8", "--out", str(first)]) == 0
    assert run([*one, "--recipes", "rtn-w4a4", "--out", str(second)]) == 0
    capsys.readouterr()
    merged = ["compare", "--merge", str(first), "--merge", str(second), "--json"]
    assert run([*merged, "--out", str(tmp_path / "m")]) == 0
    assert scores() == whole
    made = json.loads((tmp_path / "m" / "results.json").read_text())["about"]["command"]
    assert made.count("brainlab compare") == 1 and "--recipes rtn-w8a8,rtn-w4a4" in made
    (second / "results.json").unlink()  # as if it had been stopped before the end
    assert run([*merged, "--out", str(tmp_path / "again")]) == 0
    assert scores() == whole
    assert run(["compare", "--merge", str(tmp_path), "--out", str(tmp_path / "n")]) == 4
    capsys.readouterr()


def test_long_recipes_go_first_and_what_trains_goes_to_the_gpu(tmp_path: Path) -> None:
    recipes = expand("rtn-w8a8,eda-dm-w8a8,svdquant-w8a8")
    assert [r.name for r in Claims().order(recipes)] == [r.name for r in recipes]
    shared = Claims(tmp_path).order(recipes)
    assert [r.name for r in shared] == ["eda-dm-w8a8", "svdquant-w8a8", "rtn-w8a8"]
    where = job.calibrator("mixed", "cuda")
    assert where is not None and [where(r).type for r in shared] == ["cuda", "cpu", "cpu"]
    assert job.calibrator(None, "cuda") is None
    with pytest.raises(ValueError, match="must be cpu, cuda or mixed"):
        job.calibrator("gpu", "cuda")


def test_commands_of_merged_parts_become_one() -> None:
    head, tail = "brainlab compare dit-64 --recipes ", " --n 256 --device cuda"
    every = groups("dit-64")
    for group in ("claims", "all-ptq"):
        half = every[group][::2]
        rest = [*(n for n in every[group] if n not in half), "a/b.yaml"]
        made = one_command([head + ",".join(half) + tail, head + ",".join(rest) + tail + " --x y"])
        assert made == f"{head}{group},a/b.yaml{tail}"
    assert one_command([head + "rtn" + tail] * 2) == head + "rtn" + tail


def test_bad_input_is_one_line(
    command: list[str], tmp_path: Path, capsys: Capture, model_folder: Path
) -> None:
    out = ["--out", str(tmp_path / "c")]
    cases = (
        (["compare", str(model_folder), "--recipes", "rtn-w8a8", *out], 4, "give --recording FOLDER"),
        (["compare", *out], 2, "needs a model"),
        (["compare", "unet-64", "--recipes", "rtn-w8a9", *out], 2, "did you mean"),
        (["compare", "unet-64", "--n", "1", *out], 2, "at least"),
        ([*command, "--n", "200", *out], 2, "evaluation subset has"),
        ([*command, "--calibrate-on", "gpu", *out], 2, "must be one of cpu, cuda, mixed"),
        ([*command, "--steps", "7", *out], 2, "give --steps and --guidance the same"),
    )
    for arguments, code, says in cases:
        assert run(arguments) == code, arguments
        error = capsys.readouterr().err
        assert says in error and error.strip().count("\n") == 0, error
    assert not (tmp_path / "c" / "config.yaml").exists()  # nothing was begun


def test_progress_never_goes_back(bench: Bench, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    with Run.open(tmp_path / "r", bench.settings.to_dict()) as opened:
        todo = expand("rtn-w8a8")
        made = work.Work(bench, opened, todo, True, lambda done, total, what: seen.append((done, total)))
        made.all()
    assert len({total for _, total in seen}) == 1
    done = [d for d, _ in seen]
    assert done == sorted(done) and done[-1] == seen[-1][1]


def test_gates_are_in_the_job(bench: Bench) -> None:
    assert job.FAILED == 1
    assert torch.equal(bench.noise(3)[:2], bench.noise(3, 2))


@pytest.mark.parametrize(("table", "drawn"), [("dit-64-ptq", True), ("dit-64-eda-dm", False)])
def test_trade_off_is_drawn_where_sizes_differ(table: str, drawn: bool, repo: Path) -> None:
    result = json.loads((repo / "benchmarks" / "results" / "ptq" / f"{table}.json").read_text())
    curve = {"timestep": [1.0], "noise_nmse": [0.1], "growth": [0.0, 0.1]}
    result["curves"] = {row["recipe"]: curve for row in result["rows"]}
    assert ("quality-bytes" in figures(result)) == drawn
