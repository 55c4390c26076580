"""The command on a tiny model: files, resume, several processes, failures, bad input."""

from __future__ import annotations

import csv
import json
import multiprocessing
import re
import runpy
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch

import quant
from lab.cli.main import run
from lab.compare import work, workers
from lab.compare.bench import Bench
from lab.compare.recipes import FULL, OTHER_SEED, expand
from lab.compare.workers import Turns
from lab.runs.folder import Run

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory, recording, model_folder: Path) -> list[str]:
    return [
        "compare", str(model_folder), "--recording", str(recording.path), "--recipes", "rtn-w8a8,rtn-w4a4",
        "--n", "4", "--seeds", "2", "--json", "--device", "cpu",  # sampled as it was recorded
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
    assert (full["weight_bits"], full["bit_ops_share"], full["layers_quantized"]) == (32, 1, 0)
    assert full["tera_bit_ops"] * eight["bit_ops_share"] == pytest.approx(eight["tera_bit_ops"], rel=1e-4)
    assert four["bit_ops_share"] < eight["bit_ops_share"] < 1
    assert eight["latent_sqnr_db.low"] <= eight["latent_sqnr_db"] <= eight["latent_sqnr_db.high"]
    assert [g["passed"] for g in result["gates"]] == [True]
    table = list(csv.DictReader((tmp_path / "c" / "results.csv").open()))
    assert [row["recipe"] for row in table] == names
    page = (tmp_path / "c" / "report.html").read_text()
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert "rtn-w4a4" in page and "quantized in 2 ways" in page and "Simulated low-bit" in page
    head = (tmp_path / "c" / "config.yaml").read_text().splitlines()[0]
    assert "--config takes this file" not in head and "the report has the command" in head
    # the next step is a command that goes on in this folder
    assert run([*command[:-3], "--out", str(tmp_path / "c")]) == 0
    step = capsys.readouterr().out.splitlines()[-1].removeprefix("next: brainlab ")
    words = shlex.split(step.removesuffix(" adds recipes").replace("MORE", "rtn-w6a6"))
    assert run([*words, "--json"]) == 0
    assert [row["recipe"] for row in json.loads(capsys.readouterr().out)["rows"]][2:] == [
        "rtn-w8a8", "rtn-w6a6", "rtn-w4a4",
    ]  # fmt: skip


def test_a_packed_folder_is_compared_as_its_recipe_is(
    command: list[str], tmp_path: Path, capsys: Capture, model_folder: Path
) -> None:
    packed = str(tmp_path / "packed")
    assert run(["quantize", str(model_folder), "--recipe", "rtn-w4a4", "--out", packed]) == 0
    capsys.readouterr()
    numbers = ["--n", "4", "--seeds", "1", "--steps", "2", "--device", "cpu"]
    command = [*command[:4], *numbers, "--out", str(tmp_path / "c")]
    asked = [*command, "--json", "--recipes", f"rtn-w8a8,rtn-w4a4,{packed}"]
    assert run(asked) == 0
    rows = {row["recipe"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    same, mine = rows["rtn-w4a4"], rows[packed]
    assert mine["method"] == "rtn" and mine["policy"] == "packed"
    for name in ("latent_sqnr_db", "noise_nmse", "bytes", "bit_ops_share", "layers_quantized"):
        assert mine[name] == same[name], name
    assert run([*command, "--recipes", "rtn-w8a8"]) == 0
    said = capsys.readouterr().out
    assert f"measured before, not asked for and so not in this report: {packed}, rtn-w4a4" in said
    config = tmp_path / "packed" / "config.yaml"
    config.write_text(re.sub("model_hash: .*", "model_hash: 0123456789ab", config.read_text()))
    for word, says in (
        (packed, "was made from other weights"),
        (f"{packed}+weight_bits=3", "has no settings to change"),
        (f"{packed}/model.safetensors,{packed}/../packed/model.safetensors", "is given twice"),
    ):
        assert run([*command, "--recipes", word]) == 2 and says in capsys.readouterr().err


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
            found, failed = work.Work(bench, opened, expand(recipes)).all()
            assert failed == []
            return found

    first = go("rtn-w8a8")
    assert len(calls) == 2 and len(first) == 2 * 3
    second = go("rtn-w8a8,rtn-w6a6")
    assert len(calls) == 4 and len(second) == 2 * 4
    assert (first[2].arrays["psnr_db"] == second[2].arrays["psnr_db"]).all()
    third = go("rtn-w8a8,rtn-w6a6")
    assert len(calls) == 4 and len(third) == len(second)


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
        measured, failed = work.Work(bench, opened, expand("rtn-w6a6,rtn-w8a8")).all()
    assert [(f["recipe"], f["seed"]) for f in failed] == [("rtn-w6a6", 0), ("rtn-w6a6", 1)]
    assert "planted" in failed[0]["reason"]
    assert {one.recipe for one in measured} == {FULL, OTHER_SEED, "rtn-w8a8"}


def test_a_turn_is_given_once_and_a_failure_is_remembered(tmp_path: Path) -> None:
    turns, other = Turns(tmp_path / "turns"), Turns(tmp_path / "turns")
    turns.begin()
    assert turns.take("a") and not other.take("a") and other.take("b") and not turns.take("b")
    turns.fail("a", "planted")
    assert other.reason("a") == "planted" and other.reason("b") == other.reason("c") == ""
    turns.begin()
    assert other.take("a") and other.reason("a") == ""
    turns.end()
    assert not (tmp_path / "turns").exists()
    alone = Turns()
    alone.begin()
    assert alone.take("a") and alone.take("a") and alone.reason("a") == ""


class Forked(multiprocessing.get_context("fork").Process):
    """A helper that has what a new process imports for seconds; it gets its command alone, as one would."""

    def __init__(self, command: list[str], stdout: int) -> None:
        assert command[:-1] == [sys.executable, "-m", "lab.compare.helper"]
        super().__init__(target=self._alone, args=command[-1:])
        self.start()

    @staticmethod
    def _alone(folder: str) -> None:
        with mock.patch.object(sys, "argv", ["helper", folder]):
            runpy.run_module("lab.compare.helper", run_name="__main__", alter_sys=True)

    def poll(self) -> int | None:
        return self.exitcode

    def wait(self) -> None:
        self.join()
        assert self.exitcode == 0


@pytest.mark.usefixtures("undrawn")
def test_processes_give_what_one_gives(
    command: list[str], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Forked] = []
    if not torch.cuda.is_available():  # CUDA cannot be forked
        popen = SimpleNamespace(
            Popen=lambda *a, **k: started.append(Forked(*a, **k)) or started[-1], DEVNULL=0
        )
        monkeypatch.setattr(workers, "subprocess", popen)

    def scores() -> list[dict]:
        rows = json.loads(capsys.readouterr().out)["rows"]
        return [{k: v for k, v in row.items() if not k.startswith("calibrate")} for row in rows]

    one = [*command, "--seeds", "1"]
    assert run([*one, "--out", str(tmp_path / "whole")]) == 0
    whole = scores()
    jobs = [*one, "--out", str(tmp_path / "jobs"), "--jobs", "2"]
    assert run(jobs) == 0
    assert scores() == whole and (len(started) == 1 or torch.cuda.is_available())
    steps = sorted((tmp_path / "jobs" / "steps").glob("*.json"))
    assert len(steps) == 4 and not (tmp_path / "jobs" / "turns").exists()
    next(step for step in steps if step.name.startswith("rtn-w4a4")).unlink()  # as if it had been stopped
    kept = {step: step.stat().st_mtime_ns for step in steps if step.exists()}
    monkeypatch.setattr(workers, "subprocess", None)  # for one measurement nobody else is started
    assert run(jobs) == 0
    assert scores() == whole
    assert {step: step.stat().st_mtime_ns for step in kept} == kept


def test_what_others_left_is_measured_and_what_failed_there_is_not_tried_again(
    bench: Bench, tmp_path: Path
) -> None:
    turns = Turns(tmp_path / "turns")
    turns.begin()
    recipes = expand("rtn-w8a8,rtn-w6a6")
    left, bad = (work.step_name(r, 0) for r in recipes)
    assert turns.take(left) and turns.take(bad)  # by a process that died, and by one that could not
    turns.fail(bad, "RuntimeError: planted")
    with Run.open(tmp_path / "r", bench.settings.to_dict()) as opened:
        made = work.Work(bench, opened, recipes, turns=turns)
        made.share()
        measured, failed = made.all()
    assert [(f["recipe"], f["seed"], f["reason"]) for f in failed] == [
        ("rtn-w6a6", 0, "RuntimeError: planted")
    ]
    assert sorted((one.seed, one.recipe) for one in measured if one.recipe.startswith("rtn")) == [
        (0, "rtn-w8a8"), (1, "rtn-w6a6"), (1, "rtn-w8a8"),
    ]  # fmt: skip


def test_what_trains_goes_to_the_gpu() -> None:
    recipes = expand("rtn-w8a8,eda-dm-w8a8,svdquant-w8a8")
    where = work.calibrator("mixed", "cuda")
    assert where is not None and [where(r).type for r in recipes] == ["cpu", "cuda", "cpu"]
    assert work.calibrator(None, "cuda") is None
    with pytest.raises(ValueError, match="must be cpu, cuda or mixed"):
        work.calibrator("gpu", "cuda")


def test_measurements_of_other_weights_are_not_used_again(
    command: list[str], tmp_path: Path, capsys: Capture, model_folder: Path
) -> None:
    from diffusers import UNet2DConditionModel

    model, out = UNet2DConditionModel.from_pretrained(model_folder), tmp_path / "c"
    model.save_pretrained(tmp_path / "model")
    words = ["compare", str(tmp_path / "model"), *command[2:], "--recipes", "rtn-w8a8", "--seeds", "1"]
    words += ["--out", str(out)]
    assert run(words) == 0
    settings = (out / "config.yaml").read_text()
    (out / "config.yaml").write_text(re.sub(r"^weights: .*\n", "", settings, flags=re.M))
    assert run(words) == 0  # a folder of before this was noted goes on
    (out / "config.yaml").write_text(settings)
    with torch.no_grad():
        model.conv_in.weight.mul_(1.01)
    model.save_pretrained(tmp_path / "model")
    capsys.readouterr()
    assert run(words) == 2
    assert "was made with other settings (weights: " in capsys.readouterr().err


def test_bad_input_is_one_line(
    command: list[str], tmp_path: Path, capsys: Capture, model_folder: Path
) -> None:
    out = ["--out", str(tmp_path / "c")]
    cases = (
        (["compare", str(model_folder), "--recipes", "rtn-w8a8", *out], 4, "(--recording FOLDER)"),
        (["compare", *out], 2, "needs a model"),
        (["compare", "unet-64", "--recipes", "rtn-w8a9", *out], 2, "did you mean"),
        (["compare", "unet-64", "--n", "1", *out], 2, "at least"),
        ([*command, "--n", "200", *out], 2, "evaluation subset has"),
        ([*command, "--n", "200", *out, "--dry-run"], 2, "evaluation subset has"),
        ([*command, "--calibrate-on", "gpu", *out], 2, "must be one of cpu, cuda, mixed"),
        ([*command, "--steps", "7", *out], 2, "give --steps and --guidance the same"),
    )
    from diffusers import FlowMatchEulerDiscreteScheduler, UNet2DConditionModel

    tokens = torch.randn(8, 7, 24, generator=torch.Generator().manual_seed(0))
    few = quant.record(
        UNet2DConditionModel.from_pretrained(model_folder), FlowMatchEulerDiscreteScheduler(), tokens,
        tmp_path / "few", n_steps=2,
    )  # fmt: skip
    words = ["compare", str(model_folder), "--recording", str(few.path), "--recipes", "rtn-w8a8"]
    few_case = [*words, "--n", "4", *out]
    for arguments, code, says in (*cases, (few_case, 2, "record more: it takes 4")):
        assert run(arguments) == code, arguments
        error = capsys.readouterr().err
        assert says in error and error.strip().count("\n") == 0, error
    assert not (tmp_path / "c" / "config.yaml").exists()  # nothing was begun


def test_a_folder_of_other_settings_is_refused_before_anything_is_recorded(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lab.jobs.models import compare
    from lab.zoo import recordings

    out = tmp_path / "c"
    monkeypatch.setattr(recordings, "zoo_recording", lambda *given, **options: pytest.fail("recorded"))
    there = compare._known(compare.Settings(model="unet-64", n=8, seeds=1))
    Run.open(out, there | {"recording": "a", "scored_by": "b"}).close()
    words = [
        "compare",
        "unet-64",
        "--recipes",
        "rtn-w8a8",
        "--seeds",
        "1",
        "--out",
        str(out),
        "--device",
        "cpu",
    ]
    for more in ([], ["--dry-run"]):
        assert run([*words, "--n", "4", *more]) == 2
        assert "was made with other settings (n: 8 -> 4)" in capsys.readouterr().err
    assert run([*words, "--n", "8", "--dry-run"]) == 0


def test_progress_never_goes_back(bench: Bench, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    with Run.open(tmp_path / "r", bench.settings.to_dict()) as opened:
        todo = expand("rtn-w8a8")
        work.Work(bench, opened, todo, lambda done, total, what: seen.append((done, total))).all()
    assert len({total for _, total in seen}) == 1
    done = [d for d, _ in seen]
    assert done == sorted(done) and done[-1] == seen[-1][1]


def test_noise_of_few_is_the_beginning_of_the_noise_of_many(bench: Bench) -> None:
    assert torch.equal(bench.noise(3)[:2], bench.noise(3, 2))


def test_a_recipe_that_trains_takes_what_its_plan_says() -> None:
    from lab.jobs.models import compare
    from quant.recipes import parse

    settings = compare.Settings(model="dit-64", n=4, seeds=1, steps=2)
    times = [
        sum(compare._seconds(settings, parse(name))) for name in ("qvgen-w3a3", "qvgen-w3a3+train_steps=40")
    ]
    assert times[0] > 1000 and times[1] < 200
    for recipes, shorter in ((("qvgen-w3a3",), 0.95), (("rtn-w8a8", "rtn-w4a4"), 0.5)):
        one, two = (
            compare.estimate(settings.model_copy(update={"recipes": recipes, "jobs": jobs}))
            for jobs in (1, 2)
        )
        # training uses all cores as it is; the rest goes side by side
        assert one is not None and two is not None and shorter * one <= two < one


def test_a_plan_says_how_a_recorded_model_is_sampled(command: list[str], capsys: Capture) -> None:
    assert run([*command, "--dry-run"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["sampling"] == "2 steps, guidance 2, RectifiedFlowScheduler: as it was recorded"
    assert facts["time"].startswith("16 passes through the model for each recipe and seed")
    assert "time" not in facts["rows"][0]  # that of a shipped denoiser
