"""The command line: results on stdout, everything else on stderr, exit codes, JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.cli.main import run
from lab.errors import MissingDataError

Capture = pytest.CaptureFixture[str]
COMMANDS = [
    [],
    ["doctor"],
    ["list"],
    ["data"],
    ["data", "list"],
    ["data", "info"],
    ["data", "fetch"],
    ["data", "check"],
    ["zoo"],
    ["zoo", "list"],
    ["zoo", "info"],
    ["zoo", "train"],
    ["zoo", "sample"],
    ["zoo", "refine"],
    ["zoo", "evaluate"],
    ["zoo", "stimuli"],
    ["demo"],
    ["plan"],
    ["quantize"],
    ["brain"],
    ["brain", "prepare"],
    ["brain", "train"],
    ["brain", "reconstruct"],
    ["brain", "bits"],
    ["brain", "evaluate"],
    ["brain", "report"],
]
USAGE = {
    "no such command": (["encode"], "No such command 'encode'"),
    "no such verb": (["data", "chek"], "Did you mean 'check'?"),
    "no such option": (["brain", "reconstruct", "--sed", "1"], "No such option"),
    "not a number": (["brain", "reconstruct", "--seed", "x"], "--seed"),
    "missing argument": (["data", "info"], "Missing argument"),
    "out of range": (["zoo", "sample", "unet-64", "--n", "0"], "--n"),
    "extra argument": (["doctor", "please"], "unexpected extra argument"),
    "unknown list": (["list", "kernel"], "did you mean 'kernels'?"),
    "unknown dataset": (["data", "info", "digit69"], "did you mean 'digits69'?"),
    "unknown model": (["zoo", "info", "unet"], "unknown zoo model 'unet'"),
    "no pictures": (["zoo", "train", "unet-64", "--data", "nowhere"], "no such folder"),
    "draws nothing": (["zoo", "sample", "encoder-64"], "draws no pictures"),
    "negative seed": (["brain", "reconstruct", "--seed", "-1"], "seed: -1 is not allowed"),
    "strength": (["brain", "reconstruct", "--strength", "2"], "at most 1"),
}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(command: list[str], capsys: Capture) -> None:
    assert run([*command, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: {' '.join(['brainlab', *command])}")
    assert not [line for line in text.splitlines()[1:] if line.endswith("...")], "help cut short"


@pytest.mark.parametrize(("arguments", "says"), USAGE.values(), ids=USAGE)
def test_usage_errors_are_one_line_and_exit_2(arguments: list[str], says: str, capsys: Capture) -> None:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1 and says in captured.err


@pytest.mark.parametrize("arguments", [[], ["data"], ["zoo"], ["brain"]], ids=str)
def test_a_bare_noun_shows_its_help(arguments: list[str], capsys: Capture) -> None:
    assert run(arguments) == 0
    assert capsys.readouterr().out.startswith("Usage: brainlab")


@pytest.mark.parametrize(
    ("given", "found"),
    [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "passive"}, "None")],
    ids=str,
)
def test_waiting_threads_rest_unless_the_user_has_chosen(given: dict[str, str], found: str) -> None:
    code = (
        "import os, sys\nfrom lab.cli.main import run\n"
        "class Torch:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'torch': print('loaded with', os.environ.get('GOMP_SPINCOUNT')); os._exit(0)\n"
        "sys.stdout.reconfigure(line_buffering=True)\n"
        "sys.meta_path.insert(0, Torch())\n"
        "run(['doctor'])\n"
    )
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    env = {key: value for key, value in os.environ.items() if key not in names} | given
    result = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert result.stdout == f"loaded with {found}\n", result.stderr


def test_make_sets_it_too(repo: Path) -> None:
    assert "export GOMP_SPINCOUNT ?= 3000" in (repo / "Makefile").read_text()


def test_version(capsys: Capture) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("brainlab 0.")


@pytest.mark.parametrize("what", ["methods", "presets", "models", "datasets", "kernels", "settings"])
def test_lists_are_json_and_tables(what: str, capsys: Capture) -> None:
    assert run(["list", what, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert all(row["name"] for row in rows)
    assert all(row.get("triton", True) for row in rows)  # each operation has a kernel, perhaps another's
    assert run(["list", what]) == 0
    table = capsys.readouterr().out
    assert all(row["name"] in table for row in rows)
    assert run(["list", what, "no*such", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_lists_import_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom lab.cli.main import run\n"
        "kinds = ['methods', 'presets', 'models', 'datasets', 'kernels', 'settings']\n"
        "assert all(run(['list', kind]) == 0 for kind in kinds)\n"
        "assert run(['data', 'list']) == 0\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules\n"
    )
    result = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


REFUSED = {
    "quantize unet-65": 2, "quantize unet-64 --recipe rtn-w4a5": 2, "quantize gone/model.safetensors": 4,
    "plan unet-65": 2, "inspect unet-65": 2, "whatif unet-65": 2, "compare unet-65 --recipes rtn-w4a4": 2,
    "compare unet-64 --recipes svdquant-w4a4+rnk=8": 2, "sensitivity unet-65 --out t.json": 2,
    "allocate unet-65 --out o": 2, "brain decode gone": 2, "brain bits gone": 2,
    "brain reconstruct --dataset nope": 2, "brain train --set recipe=rtn-w4a5": 2,
    "brain tune --dataset nope": 2, "watermark verify gone.png": 4,
}  # fmt: skip
"""Commands with a name that nothing has, and their exit codes."""


def test_names_that_nothing_has_are_refused_before_torch_is_loaded(tmp_path: Path) -> None:
    """As all help is: every job's settings are known without it."""
    code = (
        "import json, sys\nfrom lab.cli.main import run\nfrom lab.jobs import registry\n"
        "for job in registry.JOBS:\n    registry.module(job)\n    assert 'torch' not in sys.modules, job\n"
        "codes = {line: (run(line.split()), 'torch' in sys.modules) for line in sys.argv[1:]}\n"
        "print(json.dumps(codes))\n"
    )
    result = subprocess.run(
        [sys.executable, "-P", "-c", code, *REFUSED], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert json.loads(result.stdout) == {line: [code, False] for line, code in REFUSED.items()}
    assert len(result.stderr.splitlines()) == len(REFUSED)  # one line each
    assert not list(tmp_path.iterdir())


def test_doctor_says_what_runs_natively_and_what_is_simulated(capsys: Capture) -> None:
    assert run(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {"python", "torch", "memory", "disk", "gpu", "triton"} <= {
        check["what"] for check in report["checks"]
    }
    assert {row["here"] for row in report["recipes"]} <= {"native", "simulated"}
    assert all(check["advice"] for check in report["checks"] if check["state"] == "bad")
    assert run(["doctor"]) == 0
    assert "simulated" in capsys.readouterr().out or report["recipes"][0]["here"] == "native"


def test_recipes_that_doctor_names_have_the_kernels_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    import quant
    from lab.jobs import doctor
    from quant.layers.native import ways

    monkeypatch.setattr(ways.paths, "obstacle", lambda device, needs=(8, 0): "")
    linears = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(3)))
    images = torch.nn.Sequential(*(torch.nn.Conv2d(64, 64, 3) for _ in range(3)))
    for op, text in doctor._NATIVE.items():
        model = images if op.startswith("conv") else linears
        for recipe in text.partition("(")[2].removesuffix(")").split(", "):
            found = {ways.way_of_line(line, "cpu").split()[-1] for line in quant.plan(model, recipe).layers}
            assert op.split()[-1] in found, (op, recipe, found)


def test_missing_data_is_exit_4(tmp_path: Path, capsys: Capture) -> None:
    assert run(["data", "check", "digits69", "--root", str(tmp_path / "none")]) == MissingDataError.exit_code
    assert run(["brain", "evaluate", str(tmp_path)]) == 4
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 2


@pytest.mark.shared_data
def test_data_check_on_real_files(shared_data: Path, capsys: Capture) -> None:
    assert run(["data", "check", "digits69", "--root", str(shared_data / "digits69"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["usable"] and result["findings"]


def test_data_check_on_a_truncated_file_is_exit_2(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "digit69_28x28.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(100))
    assert run(["data", "check", "digits69", "--root", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.out + captured.err and (captured.out + captured.err).strip()


def test_compare_of_two_runs(tmp_path: Path, capsys: Capture) -> None:
    for name, ssim in (("a", 0.7), ("b", 0.7), ("c", 0.6)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(
            json.dumps({"ssim": ssim, "seconds_total": len(name) + ssim})
        )
    assert run(["brain", "evaluate", str(tmp_path / "a"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ssim"] == 0.7
    assert run(["brain", "evaluate", str(tmp_path / "a"), "--compare", str(tmp_path / "b")]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "equal"
    assert run(["brain", "evaluate", str(tmp_path / "a"), "--compare", str(tmp_path / "c")]) == 1
    text = capsys.readouterr().out
    assert "SSIM (by channel)  quantized  -0.100      0.700  0.600" in text and "1 of 2 values differ" in text
    assert run(["brain", "evaluate", str(tmp_path / "a"), "--compare", str(tmp_path / "c"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["differences"] == ["ssim: 0.7 != 0.6"]
    wide = {f"{arm}two_way_pix{end}": 0.7 for arm in ("", "fp.", "ridge.", "ridge_tokens.", "mean_image.")
            for end in ("", ".low", ".high")}  # fmt: skip
    (tmp_path / "c" / "metrics.json").write_text(json.dumps(wide | {"mse": 0.1}))
    assert run(["brain", "evaluate", str(tmp_path / "c")]) == 0
    text = capsys.readouterr().out
    assert "two-way, pixels  0.500   0.700" in text and "MSE (lower)" in text, "chance is never left out"
    for name, right in (("a", 0.5), ("b", 0.6)):
        found = {"category.accuracy": right, "category.accuracy.low": 0.4, "category.accuracy.high": 0.7}
        (tmp_path / name / "metrics.json").write_text(json.dumps(found | {"dataset": name}))
    assert run(["brain", "evaluate", str(tmp_path / "a"), "--compare", str(tmp_path / "b")]) == 1
    text = capsys.readouterr().out
    assert "category accuracy  Brain-IT  +0.100      0.500 [0.400, 0.700]  0.600 [0.400, 0.700]" in text
    assert "tested on different pictures or trials" in text
    for verb in ("evaluate", "grid", "report"):
        assert run(["brain", verb, str(tmp_path / "nowhere")]) == 4
        assert f"no run folder at {tmp_path / 'nowhere'}" in capsys.readouterr().err


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m lab.cli.main list settings --json | head -c 1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert result.stdout == "[" and result.stderr == ""
    shut = f"{sys.executable} -m lab.cli.main list settings >&- 2>&- <&-"
    assert subprocess.run(["bash", "-c", shut], check=False).returncode == 0


def test_report_of_one_run_and_of_several(tmp_path: Path, capsys: Capture) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(
            json.dumps({"dataset": "digits69", "pixcorr": 0.8, "n_test": 10})
        )
    assert run(["brain", "report", str(tmp_path / "a")]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"report: {tmp_path / 'a' / 'report.html'}"
    assert (tmp_path / "a" / "report.html").read_text().startswith("<!")
    assert (
        run(["brain", "report", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "g.html")])
        == 0
    )
    assert (tmp_path / "g.html").is_file()
    assert run(["brain", "report", str(tmp_path / "a"), "--out", "x.html"]) == 2
    assert run(["brain", "report", str(tmp_path)]) == 4


def test_a_card_shows_its_rows_as_a_table(capsys: Capture) -> None:
    """The README sends readers to these rows."""
    assert run(["zoo", "info", "shared-64"]) == 0
    text = capsys.readouterr().out
    assert "16 rows below" in text and max(map(len, text.splitlines())) < 4000
    row = next(line for line in text.splitlines() if "0.774 [" in line)
    assert "alexnet" in row and "150" in row and "network" in row and "0.348 [" in row
