"""The table of jobs: each has its parts, and nothing heavy is imported to read it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.errors import InputError
from lab.jobs import contract, registry
from lab.runs.settings import describe_settings


@pytest.mark.parametrize("name", registry.JOBS)
def test_a_job_is_settings_run_and_result(name: str) -> None:
    module = registry.module(name)
    assert issubclass(module.Settings, contract.Settings) and issubclass(module.Result, contract.Result)
    assert module.Settings.__doc__ and callable(module.run)
    assert module.Settings.model_config["frozen"] and module.Settings.model_config["extra"] == "forbid"
    rows = describe_settings(module.Settings)
    assert not [row["name"] for row in rows if not row["help"]]
    title = registry.JOBS[name].title
    assert len(title) < 50 and title.endswith(".") and registry.JOBS[name].seconds > 0


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("brain tune", {"dataset": "nosuch"}, "unknown dataset 'nosuch'"),
        ("brain tune", {"structure": "ridge"}, "structure='ridge' does not give"),
        ("brain decode", {"folder": "nosuch"}, "nosuch is not a run folder"),
        ("brain report", {"runs": ("nosuch",)}, "no run folder at nosuch"),
        ("brain evaluate", {"folder": "nosuch"}, "no run folder at nosuch"),
        ("brain grid", {"folder": "nosuch"}, "no run folder at nosuch"),
        ("data fetch", {"name": "nosuch"}, "nosuch"),
        ("data fetch", {"name": "digits69", "seed": 1}, "--seed is only for simulated"),
        ("data check", {"name": "nosuch"}, "nosuch"),
        ("data info", {"name": "nosuch"}, "nosuch"),
        ("zoo info", {"name": "nosuch"}, "nosuch"),
        ("whatif", {"model": "nosuch"}, "nosuch"),
        ("plan", {"model": "dit-64", "recipe": "rtn*"}, "is a pattern"),
        ("demo", {}, "holds other files"),
    ],
)
def test_a_dry_run_refuses_what_the_run_would(
    name: str, given: dict[str, Any], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "runs" / "demo"
    place.mkdir(parents=True)
    (place / "thesis.txt").write_text("chapter 1")
    with pytest.raises(ValueError, match=re.escape(says)):
        registry.dry_run(name, registry.settings(name, given))


def test_a_dry_run_of_a_long_job_says_how_long_it_takes(tmp_path: Path) -> None:
    found = registry.dry_run("brain study", registry.settings("brain study", {"out": tmp_path / "s"}))
    assert found.plain()["time"] == "about 10 min 00 s with its defaults on two CPU cores"


def test_the_table_is_read_without_anything_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from lab.jobs import registry; assert registry.JOBS\n"
        "print(*{'torch', 'numpy', 'pydantic', 'click', 'yaml'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == ""


def test_names_and_settings_are_refused_in_one_line() -> None:
    with pytest.raises(InputError, match="did you mean 'zoo sample'"):
        registry.module("zoo sampel")
    with pytest.raises(InputError, match="n: 0 is not allowed; must be a whole number at least 1"):
        registry.settings("zoo sample", {"name": "unet-64", "n": 0})
    with pytest.raises(InputError, match="Missing setting 'name'"):
        registry.settings("zoo sample")


def test_results_are_plain_and_say_where_and_what_next() -> None:
    result = registry.run("data list", registry.settings("data list"), contract.Context())
    assert [row["name"] for row in result.plain()] and result.tables()[0].columns
    assert result.next_step() == "brainlab data info NAME" and result.exit_code() == 0


def test_several_settings_of_a_job_run_one_after_the_other_and_stop() -> None:
    context = contract.Context()
    asked = {what: registry.settings("list", {"what": what}) for what in ("methods", "presets")}
    found = registry.run_each("list", asked, context)
    assert list(found) == ["methods", "presets"] and found["methods"] != found["presets"]
    context.cancel()
    with pytest.raises(contract.Cancelled):
        registry.run_each("list", asked, context)
