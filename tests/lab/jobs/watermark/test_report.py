"""The report of a mark: stopped between two sections, gone on with, refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab.cli.main import run as command
from lab.errors import InputError
from lab.jobs import registry
from lab.jobs.contract import Cancelled, Context
from lab.jobs.watermark.report import chosen_on
from lab.zoo.watermark.evaluation import Attacked
from lab.zoo.watermark.files import KEY
from tests.lab.zoo.conftest import data  # noqa: F401 - a tiny folder of pictures

SOME = "null,averaging"


def measure(data: Path, out: Path, context: Context | None = None, **given: Any) -> Any:  # noqa: F811
    given = {"data": data, "out": out, "n": 20, "sections": SOME, "device": "cpu", **given}
    settings = registry.settings("watermark report", given)
    return registry.run("watermark report", settings, context or Context())


def test_a_stopped_report_goes_on_after_its_last_section(
    data: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, measured = tmp_path / "r", list[str]()
    rows = Attacked.rows

    def counted(self: Attacked, section: str) -> Any:
        measured.append(section)
        return rows(self, section)

    def report(done: int, total: int, what: str) -> None:
        if what == "averaging":
            context.cancel()

    monkeypatch.setattr(Attacked, "rows", counted)
    context = Context(report=report)
    with pytest.raises(Cancelled):
        measure(data, out, context)
    assert not (out / "watermark.csv").exists() and not (out / "report.html").exists()  # whole or not there
    given = ["--data", str(data), "-o", str(out), "--sections", SOME, "--device", "cpu"]
    assert command(["watermark", "report", *given, "--n", "21"]) == 2
    assert "n: 20 -> 21" in capsys.readouterr().err
    found = measure(data, out)
    assert "better of two trainings on the first 1,000" in found.note
    assert found.note in (out / "report.html").read_text()  # beside the numbers
    assert measured == ["null", "averaging", "averaging"] and (out / "report.html").is_file()
    assert (out / "watermark.csv").read_text().count("\n") == len(found.rows) + 1
    assert measure(data, out).rows == found.rows  # nothing is measured twice
    assert {row["kind"] for row in measure(data, out, sections="null").rows} == {"null", "calibration"}
    assert len(measured) == 3


def test_pictures_that_had_a_say_in_the_choice_are_counted() -> None:
    own = {"data": Path(), "extractor": Path("mine.safetensors"), "n": 1000}
    settings: Any = registry.settings("watermark report", own)
    assert chosen_on(settings) == ""  # a training is judged on the last 1,000
    more = settings.model_copy(update={"n": 1200})
    assert "200 of the 1,200 measured here are among those" in chosen_on(more)
    shipped = more.model_copy(update={"extractor": None})
    assert "1,000 of the 1,200 measured here are among those" in chosen_on(shipped)


def test_what_cannot_be_measured_is_refused_before_anything_is_written(data: Path, tmp_path: Path) -> None:  # noqa: F811
    out, file = tmp_path / "r", tmp_path / "file"
    file.write_text("mine")
    partly = tmp_path / "partly"
    (partly / "tiny-imagenet-64").mkdir(parents=True)
    for given, says in (
        ({"others": (KEY,)}, "has the key's own message"),
        ({"others": (file,)}, "truncated or not a safetensors file"),
        ({"sections": "null,nothing"}, "--sections nothing"),
        ({"data": partly}, "no tiny-imagenet-64/train"),
        ({"out": file}, "is a file; --out wants a folder"),
    ):
        with pytest.raises(ValueError, match=says):
            measure(**{"data": data, "out": out, **given})
    assert not out.exists() and file.read_text() == "mine"
    with pytest.raises(InputError, match="holds other files"):
        measure(data, tmp_path)
