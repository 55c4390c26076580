"""Reconstruction against bits: the table, going on after a stop, and what is refused."""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path

import pytest

import quant
from lab import zoo
from lab.cli.main import run as command
from lab.decoding.bits import BASELINES, COLUMNS, DEFAULTS
from lab.errors import InputError, MissingDataError
from lab.jobs.brain.bits import Result, Settings, dry_run
from lab.jobs.brain.bits import run as bits
from lab.jobs.contract import Cancelled, Context
from quant import recipes

RECIPES = ("rtn-w8a8", "rtn-w3a4", "mixdq-w8a8+points=8")
SHORT = "+train_steps=2+train_rows=2+held_out_rows=2+calibration_rows=4+look_every=1"


@pytest.fixture(scope="module")
def cache(trained_run: Path, shallow: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder that no other test records into; the decoder is a shallow one."""
    folder = tmp_path_factory.mktemp("bits") / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAINLAB_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def stopped(trained_run: Path, cache: Path) -> Path:
    """A folder whose job was cancelled while it drew the second recipe."""
    out = cache.parent / "out"
    settings = Settings(folder=trained_run, recipes=RECIPES, out=out)
    context = Context()

    def stop_in_the_second(done: int, total: int, what: str) -> None:
        if "rtn-w3a4" in what:
            context.cancel()

    with pytest.raises(Cancelled):
        bits(settings, Context(stop_in_the_second, stop=context.stop))
    assert not (out / "bits.csv").exists() and not list(out.rglob("*.part*"))
    return out


@pytest.fixture(scope="module")
def stopped_then_full(stopped: Path, trained_run: Path, cache: Path) -> tuple[int, str, list[str]]:
    """Exit code, last line and files left of a job whose disk fills while it records for a recipe."""
    from safetensors import SafetensorError

    from quant.recordings import shards

    drawn = drawn_in(stopped)
    assert any("full" in p.name for p in drawn) and any("rtn-w8a8" in p.name for p in drawn)
    whole, calls = shards.save_file, []

    def full(*args: object, **options: object) -> None:
        calls.append(args)
        if len(calls) == 2:  # the null condition is first, the first shard second
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        whole(*args, **options)  # type: ignore[arg-type]

    words = ["brain", "bits", str(trained_run), "--recipes", ",".join(RECIPES), "--out", str(stopped)]
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(said):
        patch.setattr(shards, "save_file", full)
        code = command(words)
    assert {p: p.stat().st_mtime_ns for p in drawn} == drawn  # what was finished was not done again
    left = sorted(p.name for p in cache.rglob("*") if p.is_file())
    return code, said.getvalue().strip().splitlines()[-1], left


@pytest.fixture(scope="module")
def stopped_then_finished(
    stopped: Path, stopped_then_full: tuple[int, str, list[str]], trained_run: Path
) -> Path:
    """The same folder, started once more with room on the disk."""
    drawn = drawn_in(stopped)
    assert any("rtn-w3a4" in p.name for p in drawn)
    result = bits(Settings(folder=trained_run, recipes=RECIPES, out=stopped), Context())
    assert not result.done_before
    assert {p: p.stat().st_mtime_ns for p in drawn} == drawn  # nothing lost
    return stopped


def drawn_in(out: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in (out / "steps").glob("pictures-*")}


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
    assert 8 <= float(eight["weight_bits"]) < 11 and eight["format"] == "W8A8"
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


def test_disk_full_while_recording(stopped_then_full: tuple[int, str, list[str]]) -> None:
    code, said, left = stopped_then_full
    assert code == 2 and "disk full" in said and "goes on from here" in said
    assert left == [".lock", "manifest.json", "null.safetensors"]  # nothing half-written


@pytest.mark.usefixtures("undrawn")
def test_again_does_nothing_and_recipes_that_train_go_on(
    stopped_then_finished: Path, trained_run: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = stopped_then_finished
    again = bits(Settings(folder=trained_run, recipes=RECIPES, out=out), Context())
    assert again.done_before
    recipes = (f"qvgen-w3a3+policy=common{SHORT}", f"binarydm-w1a8{SHORT}")
    words = ["brain", "bits", str(trained_run), "--recipes", ",".join(("rtn-w8a8", *recipes))]
    assert command([*words, "--device", "cpu", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "qvgen-w3a3" in shown and "simulated" in shown and "leak" in shown
    steps = [line for line in (out / "log.jsonl").read_text().splitlines() if '"cached": false' in line]
    assert sum("rtn-w8a8" in line for line in steps) == 3  # ledger and two noise seeds, once
    rows = {row["recipe"]: row for row in read(out)}
    assert {"rtn-w8a8", *recipes} <= set(rows) and "rtn-w3a4" not in rows
    for name in recipes:
        assert rows[name]["train_steps"] == "2" and float(rows[name]["train_seconds"]) > 0
        assert rows[name]["arithmetic"] == "simulated"
        planned = quant.plan(zoo.load("dit-64"), name).mean_weight_bits
        assert float(rows[name]["weight_bits"]) == pytest.approx(planned, abs=0.001)
    assert not list((cache / "training").iterdir())  # checkpoints of what is done are gone


def test_no_time_to_train_is_said_before_any_work(trained_run: Path, tmp_path: Path) -> None:
    settings = Settings(
        folder=trained_run, recipes=("qvgen-w4a4",), out=tmp_path / "out", training_minutes=1, device="cpu"
    )
    with pytest.raises(InputError) as caught:
        bits(settings, Context())
    said = str(caught.value)
    assert re.search(r"trains [\d,]+ steps .*one CPU core, and 1 min are allowed", said) and "\n" not in said
    fitting = int(re.search(r"\+train_steps=(\d+)", said)[1])  # type: ignore[index]
    changed = settings.model_copy(update={"recipes": (f"qvgen-w4a4+train_steps={fitting}",)})
    assert dry_run(changed).rows[0]["trains"].startswith("trains ")
    assert not (tmp_path / "out").exists()


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


def test_the_terminal_begins_with_what_matters_most() -> None:
    """Feature two-way stands first where there is any; scores that nobody has are no columns."""
    row = {name: None for name in COLUMNS} | {"recipe": "full precision", "arithmetic": "full precision"}
    row |= {"bytes": 2_000_000, "weight_bits": 32} | {f"pixcorr{end}": 0.4 for end in ("", "_low", "_high")}
    said = {"table": "t", "report": "r", "simulated_subject": True, "leak_line": "", "done_before": False}
    alone = Result(rows=[row], **said).tables()[0].rows[0]
    assert list(alone) == ["recipe", "MB", "bits a weight", "bits of an input", "pixcorr"]
    row |= {f"two_way_feature{end}": 0.9 for end in ("", "_low", "_high")}
    both = Result(rows=[row], **said).tables()[0].rows[0]
    assert list(both)[:3] == ["recipe", "two_way_feature", "MB"]
    assert both["two_way_feature"] == "0.900 [0.900, 0.900]"
