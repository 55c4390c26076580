"""Settings: what is refused, in one line; what wins over what."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.cli.main import run
from lab.decoding.settings import ReconstructConfig
from lab.errors import InputError
from lab.jobs.checks import check_names
from lab.runs.settings import describe_settings, resolve

BAD_SETS = {
    "seed=-1": "seed: -1 is not allowed; must be a whole number at least 0",
    "seed=99999999999": "at most 2147483647",
    "seed=1.5": "seed: 1.5 is not allowed; must be a whole number",
    "strength=1.7": "must be a number at least 0 and at most 1",
    "strength=.nan": "strength: nan is not allowed",
    "strength=much": "strength: 'much' is not allowed",
    "strenght=0.5": "unknown setting 'strenght'; did you mean 'strength'?",
    "steps=0": "steps: 0 is not allowed",
    "guidance=-1": "guidance: -1 is not allowed",
    "n_samples=0": "n_samples: 0 is not allowed",
    "preset=smal": "did you mean 'small'?",
    "structure=rigde": "did you mean 'ridge'?",
    "device=gpu": "must be one of auto, cpu, cuda",
    "brain.train.epoch=3": "did you mean 'brain.train.epochs'?",
    "brain.train=3": "brain.train is a section",
    "brain.model.width=97": "not a multiple of heads",
    "seed": "expected name=value",
    "=3": "expected name=value",
    "seed=[1": "the value cannot be read",
    "seed.x=1": "seed: {'x': 1} is not allowed",
    "bootstrap=1": "at least 100",
}

BAD_FILES = {
    "unknown key": ("sede: 1\n", "unknown setting 'sede'; did you mean 'seed'?"),
    "broken yaml": ("seed: 1\n  steps: [2\n", "not YAML or JSON at line"),
    "broken json": ('{"seed": 1,, }', "not YAML or JSON at line 1"),
    "a list": ("- seed\n- 1\n", "expected settings as 'name: value', found ['seed', 1]"),
    "bare text": ("seed 1", "expected settings as 'name: value'"),
    "a tag": ("seed: !!python/object/apply:os.system ['true']\n", "not YAML or JSON"),
    "wrong type": ("steps: ten\n", "steps: 'ten' is not allowed; must be a whole number"),
}

BAD_NAMES = {
    "dataset=digit69": "unknown dataset 'digit69'; did you mean 'digits69'?",
    "recipe=rtn-w8a9": "unknown recipe 'rtn-w8a9'",
    "denoiser=unet-46": "unknown denoiser 'unet-46'; did you mean 'unet-64'?",
    "options.colour=red": "unknown option of simulated 'colour'",
}


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    return captured.err


@pytest.mark.parametrize(("pair", "says"), BAD_SETS.items())
def test_a_bad_value_is_one_line_and_exit_2(
    pair: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["brain", "reconstruct", "--set", pair, "--out", str(tmp_path / "r")]) == 2
    assert says in one_line(capsys)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(("text", "says"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_one_line_and_exit_2(
    text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    assert run(["brain", "reconstruct", "--config", str(file), "--out", str(tmp_path / "r")]) == 2
    assert says in one_line(capsys)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("name", ["missing.yaml", ".", "binary.yaml"])
def test_a_file_that_is_none_is_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    assert run(["brain", "reconstruct", "--config", str(tmp_path / name), "--out", str(tmp_path / "r")]) == 2
    assert str(tmp_path) in one_line(capsys)


@pytest.mark.parametrize(("pair", "says"), BAD_NAMES.items())
def test_an_unknown_name_comes_with_the_nearest_known_one(pair: str, says: str) -> None:
    with pytest.raises(InputError) as refused:
        check_names(resolve(ReconstructConfig, sets=[pair]))
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_set_wins_over_flags_over_file_over_preset(tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    file.write_text('{"seed": 1, "steps": 5, "guidance": 1.5, "brain": {"train": {"epochs": 7}}}')
    config = resolve(
        ReconstructConfig, file, {"steps": 6, "seed": 2, "strength": None}, ["seed=3", "brain.train.lr=1e-4"]
    )
    assert (config.seed, config.steps, config.guidance, config.strength) == (3, 6, 1.5, 0.6)
    assert (config.brain.train.epochs, config.brain.train.lr, config.brain.model.width) == (7, 1e-4, 96)


def test_the_same_folder_named_two_ways_is_the_same_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve(ReconstructConfig, flags={"root": Path("x")}) == resolve(
        ReconstructConfig, sets=[f"root={tmp_path}/x"]
    )


def test_every_setting_says_what_it_means_and_what_is_allowed() -> None:
    rows = describe_settings(ReconstructConfig)
    assert len(rows) > 30
    assert not [row["name"] for row in rows if not row["help"]]
    assert not [row["name"] for row in rows if row["allowed"] == "" and not row["name"].endswith("positions")]
