"""The command on a tiny model: files, resume, shares and merging, failures, bad input."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

import quant
from lab.cli.main import run
from lab.jobs import compare as job
from lab.panel import work
from lab.panel.bench import Bench
from lab.panel.finish import finish
from lab.panel.recipes import FULL, OTHER_SEED, expand
from lab.panel.shares import Duty, duties
from lab.progress import silent
from lab.runs import Run


def everything(bench: Bench, recipes: str) -> list[Duty]:
    return duties(expand(recipes), bench.settings.seeds, None)


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
            made = work.Work(bench, opened, everything(bench, recipes), False, silent)
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
        made = work.Work(bench, opened, everything(bench, "rtn-w8a8,rtn-w4a4"), False, silent)
        made.all()
    gate = {"name": "planted", "expected": "nothing", "found": "something", "passed": False}
    about = {
        "model": "unet-64", "command": "brainlab compare", "n": 12, "seeds": 2, "steps": 2, "guidance": 2.0,
        "conditions": "random", "recording": "0" * 64, "hardware": "CPU", "date": "2026-01-01",
        "commit": "none", "versions": {}, "missing": [], "bit_ops_rule": "rule", "settings": {},
    }  # fmt: skip
    result = finish(tmp_path / "r", about, made.parts, [gate], [], tmp_path / "results")
    page = (tmp_path / "r" / "report.html").read_text()
    assert "1 of 1 gates failed: planted" in page and 'class="verdict bad"' in page
    assert (tmp_path / "r" / "grid.webp").stat().st_size > 100
    assert {p.name for p in (tmp_path / "r" / "figures").iterdir()} == {
        "quality-bytes.png", "error-timesteps.png", "error-growth.png",
    }  # fmt: skip
    assert "**failed**" in (tmp_path / "results" / "unet-64-ptq.md").read_text()
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
        made = work.Work(bench, opened, everything(bench, "rtn-w6a6,rtn-w8a8"), False, silent)
        failed = made.all()
    assert [(f["recipe"], f["seed"]) for f in failed] == [("rtn-w6a6", 0), ("rtn-w6a6", 1)]
    assert "planted" in failed[0]["reason"]
    assert {p.recipe for p in made.parts} == {FULL, OTHER_SEED, "rtn-w8a8"}


@pytest.mark.parametrize(
    ("recipes", "seeds", "k"), [(7, 3, 4), (2, 1, 2), (5, 2, 16), (64, 3, 16), (3, 3, 1)]
)
def test_shares_are_the_whole_work_once(recipes: int, seeds: int, k: int) -> None:
    names = [f"r{i}" for i in range(recipes)]
    shares = [duties(names, seeds, f"{i}/{k}") for i in range(1, k + 1)]  # type: ignore[arg-type]
    found = [(d.seed, r) for share in shares for d in share for r in d.recipes]
    assert sorted(found) == sorted((s, r) for s in range(seeds) for r in names)
    assert sorted(d.seed for share in shares for d in share if d.leads) == list(range(seeds))
    sizes = [sum(len(d.recipes) for d in share) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    if k >= seeds:
        assert max(len(share) for share in shares) <= 2


def test_shares_merge_into_what_one_run_gives(command: list[str], tmp_path: Path, capsys: Capture) -> None:
    assert run([*command, "--seeds", "1", "--out", str(tmp_path / "whole")]) == 0
    whole = json.loads(capsys.readouterr().out)
    for i in (1, 2):
        assert run([*command, "--seeds", "1", "--out", str(tmp_path / f"s{i}"), "--share", f"{i}/2"]) == 0
        assert len(json.loads(capsys.readouterr().out)["rows"]) == (3 if i == 1 else 1)
    merged = ["compare", "--merge", str(tmp_path / "s1"), "--merge", str(tmp_path / "s2"), "--json"]
    assert run([*merged, "--out", str(tmp_path / "m")]) == 0
    together = json.loads(capsys.readouterr().out)

    def scores(result: dict) -> list[dict]:
        return [{k: v for k, v in row.items() if not k.startswith("calibrate")} for row in result["rows"]]

    assert scores(together) == scores(whole)
    (tmp_path / "s2" / "results.json").unlink()  # as if it had been stopped before the end
    assert run([*merged, "--out", str(tmp_path / "again")]) == 0
    assert scores(json.loads(capsys.readouterr().out)) == scores(whole)
    assert run(["compare", "--merge", str(tmp_path), "--out", str(tmp_path / "n")]) == 4
    capsys.readouterr()


def test_bad_input_is_one_line(
    command: list[str], tmp_path: Path, capsys: Capture, model_folder: Path
) -> None:
    out = ["--out", str(tmp_path / "c")]
    cases = (
        (["compare", str(model_folder), "--recipes", "rtn-w8a8", *out], 4, "give --recording FOLDER"),
        (["compare", *out], 2, "needs a model"),
        (["compare", "unet-64", "--recipes", "rtn-w8a9", *out], 2, "did you mean"),
        (["compare", "unet-64", "--n", "1", *out], 2, "at least"),
        (["compare", "unet-64", "--recipes", "rtn", "--share", "3/2", *out], 2, "1 <= i <= k"),
        ([*command, "--n", "200", *out], 2, "evaluation subset has"),
        ([*command, "--steps", "7", *out], 2, "give --steps and --guidance the same"),
    )
    for arguments, code, says in cases:
        assert run(arguments) == code, arguments
        error = capsys.readouterr().err
        assert says in error and error.strip().count("\n") == 0, error


def test_progress_never_goes_back(bench: Bench, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    with Run.open(tmp_path / "r", bench.settings.to_dict()) as opened:
        todo = everything(bench, "rtn-w8a8")
        made = work.Work(bench, opened, todo, True, lambda done, total, what: seen.append((done, total)))
        made.all()
    assert len({total for _, total in seen}) == 1
    done = [d for d, _ in seen]
    assert done == sorted(done) and done[-1] == seen[-1][1]


def test_gates_are_in_the_job(bench: Bench) -> None:
    assert job.FAILED == 1
    assert torch.equal(bench.noise(3)[:2], bench.noise(3, 2))
