"""Bad input is refused before anything is recorded, in one line, and nothing is begun."""

from __future__ import annotations

from pathlib import Path

import pytest

import quant
from lab.cli.main import run
from lab.compare.bench import PanelSettings
from lab.errors import InputError
from lab.models.preflight import check_recording, check_run_folder
from lab.zoo import recordings
from quant.recipes import parse

RTN = ["--recipes", "rtn-w8a8", "--device", "cpu", "--n", "4", "--seeds", "1"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("r") / "u"
    recordings.zoo_recording("unet-64", folder, n=4, steps=2)
    return folder


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    assert run(arguments) == code, arguments
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and "internal error" not in lines[0], lines
    return lines[0]


def test_a_recording_of_another_shipped_model_is_refused_everywhere(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--recording", str(store)]
    for arguments in (
        ["compare", "dit-64", *given, *RTN, "--steps", "2", "--out", str(tmp_path / "c")],
        ["sensitivity", "dit-64", *given, "--out", str(tmp_path / "s.json")],
        ["inspect", "dit-64", *given, "--out", str(tmp_path / "i")],
        ["allocate", "dit-64", *given, "--out", str(tmp_path / "a")],
    ):
        assert "was not made with dit-64's null condition" in refused(arguments, capsys)
    assert not list(tmp_path.iterdir())
    found = check_recording("unet-64", store)
    assert found is not None and len(found) == 4 and check_recording("unet-64", None) is None


def test_a_recording_of_other_sampling_is_refused(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["compare", "unet-64", "--recording", str(store), *RTN, "--out", str(tmp_path / "c")]
    for more in (["--steps", "3"], ["--steps", "2", "--guidance", "3"], ["--steps", "3", "--dry-run"]):
        said = refused([*given, *more], capsys)
        assert "has 2 steps and guidance 2" in said and said.endswith("give --steps and --guidance the same")
    assert not list(tmp_path.iterdir())


def test_places_and_numbers_are_checked_before_recording(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recordings, "zoo_recording", lambda *a, **k: pytest.fail("recorded first"))
    file, other = tmp_path / "a.txt", tmp_path / "other"
    file.write_text("thesis")
    other.mkdir()
    (other / "thesis.txt").write_text("chapter 1")
    run_of = tmp_path / "run"
    run_of.mkdir()
    (run_of / "config.yaml").write_text("seed: 1\nrecipe: rtn-w8a8\n")
    compare, new = ["compare", "dit-64", *RTN, "--out"], str(tmp_path / "new")
    sensitivity = ["sensitivity", "dit-64", "--out"]
    for arguments, said in (
        ([*compare, str(file)], "is a file; --out wants a folder"),
        ([*compare, str(file / "in" / "it")], "a.txt is a file, no folder"),
        ([*compare, str(other)], "holds other files (thesis.txt)"),
        ([*compare, str(file), "--jobs", "2"], "is a file; --out wants a folder"),
        ([*compare, new, "--n", "99999"], "give at most 736"),
        ([*compare, new, "--n", "99999", "--dry-run"], "give at most 736"),
        ([*compare, str(run_of)], "is a folder of another command"),
        (["variants", "dit-64", "--out", str(file)], "is a file; --out wants a folder"),
        (["variants", "dit-64", "--out", str(run_of)], "is a run's folder"),
        (["brain", "study", "--out", str(other)], "holds other files (thesis.txt) and no study"),
        (["brain", "reconstruct", "--out", str(run_of), "--dry-run"], "choose another --out"),
        (["zoo", "sample", "dit-64", "--out", str(file / "x.png")], "a.txt is a file, no folder"),
        (["brain", "train", "--checkpoints", str(run_of), "--out", new], "its training lies in "),
        (["brain", "tune", "--checkpoints", str(file)], "a.txt is a file; give the folder RUN/"),
        (
            ["brain", "train", "--set", "options.seed=nan", "--dry-run"],
            "options.seed: 'nan'; allowed: a whole",
        ),
        (["brain", "train", "--set", "options.preset=x", "--dry-run"], "unknown preset 'x' of simulated"),
        ([*compare, new, "--part", "unet"], "the shipped model 'dit-64' is not a pipeline"),
        ([*sensitivity, str(file / "s.json")], "a.txt is a file, no folder"),
        ([*sensitivity, str(tmp_path / "s.json"), "--layers", "proj_out"], "proj_out (last layer"),
        (["inspect", "dit-64", "--out", str(file)], "is a file; --out wants a folder"),
    ):
        assert said in refused(arguments, capsys)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "other", "run"]
    check_run_folder(tmp_path / "new")
    monkeypatch.setattr("os.access", lambda place, how: False)
    said = "cannot be written to"
    assert said in refused(["variants", "dit-64", "--out", new], capsys)
    assert said in refused(["brain", "grid", "nowhere", "--out", f"{new}.png"], capsys)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"guidance": float("nan")}, "--guidance is nan"), ({"guidance": float("inf")}, "--guidance is inf"),
     ({"guidance": -1.0}, "--guidance is -1"), ({"steps": 2000}, "--steps is 2000; it must be 1 to 1000")],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(settings: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        PanelSettings(**settings)


def test_a_value_that_is_no_yaml_is_refused() -> None:
    with pytest.raises(quant.InputError, match=r"'\[' is no value for weight_bits"):
        parse("rtn-w8a8+weight_bits=[")
