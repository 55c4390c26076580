"""Options made from settings: names, kinds, help; and what four of them mean for every command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import click
import pytest
from pydantic import BaseModel

from lab.cli.commands import JobCommand
from lab.cli.main import run
from lab.cli.options import options, spelling
from lab.jobs import registry
from lab.jobs.contract import Numbers, Settings, Words, setting

Capture = pytest.CaptureFixture[str]


class Section(BaseModel):
    depth: int = 1


class Asked(Settings):
    """What is asked."""

    name: str = setting(..., "who", argument=True)
    files: tuple[Path, ...] = setting((), "which", argument=True)
    n_each: int = setting(3, "how many", unit="pictures", ge=1, le=9, short="-n")
    kind: Literal["a", "b"] | None = setting(None, "which kind")
    bits: Numbers = setting((2, 4), "bits")
    words: Words = setting((), "words")
    skip: tuple[str, ...] = setting((), "what to skip", repeat=True)
    gates: bool = setting(True, "check")
    further: bool = setting(False, "go on")
    out: Path = setting(Path("x"), "where")
    secret: str | None = setting(None, "for processes", hidden=True)
    section: Section = Section()


def test_every_kind_of_field_becomes_an_option() -> None:
    made = {parameter.name: parameter for parameter in options(Asked)}
    assert "section" not in made and {"config", "set", "dry_run", "json"} < set(made)
    assert isinstance(made["name"], click.Argument) and made["files"].nargs == -1
    text = click.Command("ask", params=list(made.values())).get_help(click.Context(click.Command("ask")))
    for words in (
        "-n, --n-each N", "[pictures; default 3; 1 to 9]", "--kind a|b", "--bits A,B,...", "[default 2,4]",
        "--skip TEXT", "may be repeated", "--gates / --no-gates", "--further ", "--out PATH",
        "--set NAME=VALUE",
    ):  # fmt: skip
        assert " ".join(words.split()) in " ".join(text.split()), words
    assert "secret" not in text
    usage = JobCommand("list", registry.JOBS["list"]).get_help(click.Context(click.Command("list")))
    assert "[WHAT] [PATTERN]" in usage and "PATTERN  only names that match" in usage
    assert spelling(Asked)["n_each"] == "--n-each" and spelling(Asked)["name"] == "NAME"


@pytest.mark.parametrize("name", registry.JOBS)
def test_every_command_takes_the_four_options_of_all(name: str, capsys: Capture) -> None:
    assert run([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"--{option}" in text for option in ("config FILE", "set NAME=VALUE", "dry-run", "json"))


def test_help_says_which_options_must_be_given(capsys: Capture) -> None:
    for command, required in (
        (["inspect"], 1),
        (["sensitivity"], 1),
        (["bench", "kernels"], 1),
        (["plan"], 0),
    ):
        assert run([*command, "--help"]) == 0
        assert capsys.readouterr().out.count("required]") == required, command


def test_a_file_flags_and_set_give_one_setting(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("name: unet-64\nn: 5\nsteps: 7\nmade_from: {hash: abc}\n")
    command = ["zoo", "sample", "--config", str(file), "--n", "6", "--set", "seed=3", "--dry-run", "--json"]
    assert run(command) == 0
    assert json.loads(capsys.readouterr().out) == {"would draw": 6, "model": "unet-64", "device": "cpu"}
    file.write_text("name: unet-64\nstps: 7\n")
    assert run(command) == 2
    assert "unknown setting 'stps'; did you mean 'steps'?" in capsys.readouterr().err
    assert run(["zoo", "sample", "unet-64", "--device", "gpu"]) == 2
    assert "--device: 'gpu' is not allowed; must be one of auto, cpu, cuda" in capsys.readouterr().err


def test_a_dry_run_of_a_job_without_its_own_says_its_settings(tmp_path: Path, capsys: Capture) -> None:
    assert run(["demo", "--out", str(tmp_path / "d"), "--dry-run", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (
        said["would run"] == "brainlab demo" and said["out"] == str(tmp_path / "d") and "min" in said["time"]
    )
    assert not (tmp_path / "d").exists()


def test_many_recipes_are_counted_before_they_are_run(tmp_path: Path, capsys: Capture) -> None:
    command = ["compare", "unet-64", "--recipes", "rtn,svdquant", "--out", str(tmp_path / "c"), "--dry-run"]
    assert run(command) == 0
    text = capsys.readouterr().out
    assert "svdquant-w4a4 " in text and " h " in text and not (tmp_path / "c").exists()
    assert max(map(len, text.splitlines())) <= 100


def test_wildcards_and_overrides_as_in_python(capsys: Capture) -> None:
    import quant
    from lab import zoo

    words = ["--include", "mid_block*", "--exclude", "*attn2*", "--override", "*ff*:weight_bits=6"]
    assert run(["plan", "unet-64", "--recipe", "rtn-w4a8", *words, "--json"]) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    planned = quant.plan(
        zoo.load("unet-64"), "rtn-w4a8", include=["mid_block*"], exclude=["*attn2*"],
        overrides={"*ff*": {"weight_bits": 6}},
    )  # fmt: skip
    assert [row["bits"] for row in layers] == [line.bits for line in planned.layers]
    assert {row["bits"] for row in layers if "mid_block" in row["layer"] and ".ff." in row["layer"]} == {
        "W6A8"
    }
    assert run(["plan", "unet-64", "--override", "ff"]) == 2
    assert "write WILDCARD:field=value" in capsys.readouterr().err


def test_lists_are_given_with_commas(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["brain", "tune", "--strengths", "0.1, 0.25", "--averaged", "2,4", "--dry-run", "--json"]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert seen["strengths"] == [0.1, 0.25] and seen["averaged"] == [2, 4]
