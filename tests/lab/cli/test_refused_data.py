"""Bad recordings at the command line: files of every reader, trials that cannot be used, roots, names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.brainit.datasets.bad_inputs import TABLE as FILES
from tests.brainit.datasets.conftest import mat_parts
from tests.lab.cli.refusals import Capture, Command, Row, mat, option, prepare, reconstruct, refused


def of_files(name: str) -> Row:
    """A row of the data sets' own table, at the command line; one of each reader is enough here."""
    row = FILES[name]
    return Row(lambda tmp: prepare(*row.make(tmp)), (row.says,), row.code)


def one_test_trial(tmp: Path) -> Command:
    parts = mat_parts(n_test=1)
    return mat(tmp, **{key: parts[key] for key in ("fmriTest", "stimTest", "labelTest")})


def six_pixels_a_side(tmp: Path) -> Command:
    return mat(tmp, **mat_parts(side=6))


def few_pictures(tmp: Path) -> Command:
    parts = mat_parts(n_train=24)
    parts["stimTrn"] = np.repeat(parts["stimTrn"][:6], 4, 0)
    return [*mat(tmp, **parts), "--dry-run"]


def root_is_a_picture(tmp: Path) -> Command:
    (tmp / "digits.png").write_bytes(b"\x89PNG")
    return prepare("haxby2001", tmp / "digits.png")


TABLE: dict[str, Row] = {
    # recordings: the whole table is tests/brainit/datasets/bad_inputs.py
    "mat cut short": of_files("mat cut short"),
    "mat is a pickle": of_files("mat is a pickle"),
    "mat is an LFS pointer": of_files("mat is an LFS pointer"),
    "NaN": of_files("NaN"),
    "float 0..255": of_files("float 0..255"),
    "an id twice": of_files("an id twice"),
    "events in latin-1": of_files("events in latin-1"),
    "a stimulus n/a": of_files("a stimulus n/a"),
    "a session in another orientation": of_files("a session in another orientation"),
    "betas NaN": of_files("betas NaN"),
    "mean removed": of_files("mean removed"),
    "NaN in one run": of_files("NaN in one run"),
    "root missing": of_files("root missing"),
    "root empty": of_files("root empty"),
    # recordings that can be read but not used
    "one test trial": Row(one_test_trial, ("1 test picture", "at least 2")),
    "pictures of six pixels a side": Row(six_pixels_a_side, ("6x6 pixels", "need 7 a side")),
    "six different pictures": Row(few_pictures, ("6 distinct training pictures", "needs 8 or more")),
    # roots and names
    "root is a file": Row(root_is_a_picture, ("digits.png",), 4),
    "unknown subject": Row(option("--subject", "sub-99"), ("sub-99", "sub")),
    "unknown dataset": Row(lambda tmp: prepare("digit69", tmp), ("'digit69'", "did you mean 'digits69'?")),
    "unknown option of a dataset": Row(option("--set", "options.colour=red"), ("'colour'", "data info mat")),
    "option of a dataset out of range": Row(option("--set", "options.nan=ignore"), ("'ignore'", "allowed: ")),
    "unknown Brain-IT preset": Row(
        reconstruct("--preset", "huge"), ("preset: 'huge'", "one of small, few, large, nsd")
    ),
    "unknown recipe": Row(reconstruct("--recipe", "rtn-w8a9"), ("'rtn-w8a9'", "did you mean 'rtn-w")),
    "unknown denoiser": Row(reconstruct("--set", "denoiser=unet-46"), ("did you mean 'unet-64'?",)),
}


@pytest.mark.parametrize("case", TABLE)
def test_one_line_and_nothing_half_written(case: str, tmp_path: Path, capsys: Capture) -> None:
    refused(TABLE[case], tmp_path, capsys)
