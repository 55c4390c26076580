"""Reconstruction against bits: the table, going on after a stop, and what is refused."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import pytest

import quant
from lab.cli.main import run as command
from lab.decoding.bits import BASELINES, COLUMNS, DEFAULTS
from lab.errors import InputError, MissingDataError
from lab.jobs.brain.bits import Settings, dry_run
from lab.jobs.brain.bits import run as bits
from lab.jobs.contract import Cancelled, Context
from quant import recipes

RECIPES = ("rtn-w8a8", "rtn-w3a4", "mixdq-w8a8+points=8")


@pytest.fixture(scope="module")
def stopped_then_finished(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose job was cancelled while it drew the second recipe, and then started again."""
    out = tmp_path_factory.mktemp("bits") / "out"
    settings = Settings(folder=trained_run, recipes=RECIPES, out=out)
    context = Context()

    def stop_in_the_second(done: int, total: int, what: str) -> None:
        if "rtn-w3a4" in what:
            context.cancel()

    with pytest.raises(Cancelled):
        bits(settings, Context(stop_in_the_second, stop=context.stop))
    assert not (out / "bits.csv").exists() and not list(out.rglob("*.part*"))
    first = {p: p.stat().st_mtime_ns for p in (out / "steps").glob("*rtn-w8a8*")}
    assert first
    result = bits(settings, Context())
    assert not result.done_before
    assert {p: p.stat().st_mtime_ns for p in first} == first  # what was finished was not done again
    return out


def read(out: Path) -> list[dict[str, str]]:
    with (out / "bits.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_table(stopped_then_finished: Path) -> None:
    rows = read(stopped_then_finished)
    assert tuple(rows[0]) == COLUMNS
    assert [row["recipe"] for row in rows] == [*BASELINES[:2], *RECIPES, *BASELINES[2:]]
    by = {row["recipe"]: row for row in rows}
    full, eight, three = by["full precision"], by["rtn-w8a8"], by["rtn-w3a4"]
    assert (full["weight_bits"], full["paired_psnr_to_fp"]) == ("32", "")
    assert 8 <= float(eight["weight_bits"]) < 10 and eight["format"] == "W8A8"
    assert int(full["bytes"]) > int(eight["bytes"]) > int(three["bytes"])
    # fewer bits are further away, and 8 bits nearer than another draw of the noise
    other = float(by["full precision, other noise"]["paired_psnr_to_fp"])
    assert float(eight["paired_psnr_to_fp"]) > max(other, float(three["paired_psnr_to_fp"]))
    for row in rows:
        assert row["arithmetic"] == ("simulated" if row["recipe"] in RECIPES else row["arithmetic"])
        assert float(row["pixcorr_low"]) <= float(row["pixcorr"]) <= float(row["pixcorr_high"])
    assert by["ridge to pixels"]["bytes"] == ""


def test_page(stopped_then_finished: Path) -> None:
    page = (stopped_then_finished / "report.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!data:|#)', page)  # self-contained
    for said in (
        "Simulated subject",
        "simulated low-bit arithmetic",
        "Clean:",
        *RECIPES[:2],
        "Chosen by rule",
    ):
        assert said in page, said
    assert (stopped_then_finished / "figures" / "quality-bytes.png").is_file()


def test_again_does_nothing_and_more_recipes_go_on(
    stopped_then_finished: Path, trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = stopped_then_finished
    again = bits(Settings(folder=trained_run, recipes=RECIPES, out=out), Context())
    assert again.done_before
    words = ["brain", "bits", str(trained_run), "--recipes", "rtn-w8a8,rtn-w6a6", "--out", str(out)]
    assert command(words) == 0
    shown = capsys.readouterr().out
    assert "rtn-w6a6" in shown and "simulated" in shown and "leak" in shown
    steps = [line for line in (out / "log.jsonl").read_text().splitlines() if '"cached": false' in line]
    assert sum("rtn-w8a8" in line for line in steps) == 3  # ledger and two noise seeds, once


def test_dry_run_writes_nothing(trained_run: Path, tmp_path: Path) -> None:
    rows = dry_run(
        Settings(folder=trained_run, recipes=("rtn-w8a8", "eda-dm-w4a8"), out=tmp_path / "out")
    ).rows
    assert [row["recipe"] for row in rows] == ["rtn-w8a8", "eda-dm-w4a8"]
    assert rows[0]["seconds"] < rows[1]["seconds"] and not (tmp_path / "out").exists()


def test_never_trained(trained_run: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    shutil.copy(trained_run / "config.yaml", tmp_path / "run")
    with pytest.raises(MissingDataError, match="was never trained"):
        bits(Settings(folder=tmp_path / "run", out=tmp_path / "out"), Context())
    with pytest.raises(InputError, match="is not a run folder"):
        bits(Settings(folder=tmp_path / "nowhere", out=tmp_path / "out"), Context())
    assert not (tmp_path / "out").exists()


def test_recipes_that_cannot_be(trained_run: Path, tmp_path: Path) -> None:
    for words, said in {
        "rtn-w4a4,rtn-w8a8,rtn-w4a4": "'rtn-w4a4' is given twice",
        "rtn-w4a5": "did you mean 'rtn-w4a",
        "svdquant-w4a4+rnk=8": "did you mean 'rank'",
        "none": "always measured",
    }.items():
        with pytest.raises((InputError, quant.InputError), match=re.escape(said)):
            bits(
                Settings.model_validate({"folder": trained_run, "recipes": words, "out": tmp_path / "out"}),
                Context(),
            )
    assert not (tmp_path / "out").exists()


def test_folder_of_another_run(stopped_then_finished: Path, trained_run: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    shutil.copytree(trained_run, other)
    config = other / "config.yaml"
    config.write_text(config.read_text().replace("noise_seeds: 2", "noise_seeds: 1"))
    with pytest.raises(InputError, match=r"noise_seeds: 2 -> 1.*--out"):
        bits(Settings(folder=other, recipes=("rtn-w8a8",), out=stopped_then_finished), Context())


def test_disk_full_while_recording(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors import SafetensorError

    from quant.recordings import shards

    monkeypatch.setenv("BRAINLAB_CACHE", str(tmp_path / "cache"))
    whole, calls = shards.save_file, []

    def full(*args: object, **options: object) -> None:
        calls.append(args)
        if len(calls) == 2:  # the null condition is first, the first shard second
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        whole(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(shards, "save_file", full)
    words = ["brain", "bits", str(trained_run), "--recipes", "mixdq-w8a8+points=8"]
    assert command([*words, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "disk full" in said and "goes on from here" in said
    left = [p.name for p in (tmp_path / "cache").rglob("*") if p.is_file()]
    assert sorted(left) == [".lock", "manifest.json", "null.safetensors"]  # nothing half-written
    drawn = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "steps").glob("pictures-full-*")}
    monkeypatch.setattr(shards, "save_file", whole)
    assert command([*words, "--out", str(tmp_path / "out")]) == 0
    assert drawn and {p: p.stat().st_mtime_ns for p in drawn} == drawn  # nothing lost


def test_defaults_are_the_best_of_the_committed_table(repo: Path) -> None:
    """At each width, by the newest table that lacks none of the presets measured before."""
    folder = repo / "benchmarks" / "results" / "ptq"
    for denoiser, chosen in DEFAULTS.items():
        newest, earlier = (
            {
                n: float(v)
                for n, v in re.findall(
                    r"^\| `([^`]+)` \| \d+ \| ([\d.]+)",
                    (place / f"{denoiser}-ptq.md").read_text(encoding="utf-8"),
                    re.M,
                )
            }
            for place in (folder, folder / "earlier")
        )
        presets: dict[int, list[str]] = {}
        for name in quant.list_presets():
            config = recipes.resolve(name)[2].model_dump()
            codes = config.get("weight_bits", {"int8": 8}.get(config.get("numbers"), 4))
            presets.setdefault(codes, []).append(name)
        best = []
        for codes in (8, 6, 4, 3):
            before = [name for name in presets[codes] if name in earlier]
            table = newest if all(name in newest for name in before) else earlier
            best.append(max((name for name in presets[codes] if name in table), key=table.__getitem__))
        assert chosen == tuple(best)
