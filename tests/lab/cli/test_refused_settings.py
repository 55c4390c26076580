"""Bad settings, models, recipes and networks at the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.brainit.datasets.conftest import write_mat
from tests.lab.cli.refusals import Capture, Command, Row, adapt, mat, on_model, option, reconstruct, refused


def config_file(text: str) -> Callable[[Path], Command]:
    def command(tmp: Path) -> Command:
        (tmp / "settings.yaml").write_text(text)
        return mat(tmp, "--config", str(tmp / "settings.yaml"))

    return command


def foreign_network(raw: bytes | None) -> Callable[[Path], Command]:
    def command(tmp: Path) -> Command:
        file = tmp / "net.safetensors"
        save_file({"x": np.zeros(2)}, file) if raw is None else file.write_bytes(raw)
        return adapt("--model", str(file))(tmp)

    return command


TABLE: dict[str, Row] = {
    # settings
    "unknown setting": Row(option("--set", "sede=1"), ("'sede'", "did you mean 'seed'?")),
    "--set without a value": Row(option("--set", "seed"), ("expected name=value", "strength=0.5")),
    "seed negative": Row(option("--seed", "-1"), ("seed: -1", "at least 0")),
    "seed is a word": Row(option("--seed", "lucky"), ("--seed", "integer", "--help")),
    "strength out of range": Row(reconstruct("--strength", "1.5"), ("strength: 1.5", "at most 1")),
    "strength NaN": Row(option("--set", "strength=.nan"), ("strength: nan",)),
    "no steps": Row(reconstruct("--steps", "0"), ("steps: 0", "at least 1")),
    "no samples": Row(reconstruct("--n-samples", "0"), ("n-samples: 0", "at least 1")),
    "width and heads do not fit": Row(option("--set", "brain.model.width=97"), ("97", "multiple of heads")),
    "device unknown": Row(reconstruct("--device", "gpu"), ("'gpu'", "one of auto, cpu, cuda")),
    "settings file broken": Row(config_file("seed: [1\n"), ("settings.yaml", "not YAML or JSON at line")),
    "settings file a list": Row(config_file("- 1\n"), ("settings.yaml", "name: value")),
    "settings file that runs code": Row(
        config_file("seed: !!python/object/apply:os.system ['touch /tmp/x']\n"), ("not YAML or JSON",)
    ),
    "settings file missing": Row(option("--config", "nowhere.yaml"), ("nowhere.yaml", "no such settings")),
    "settings of another command": Row(
        config_file("model: dit-64\nlayers: '*'\n"), ("another command (layers, model)",)
    ),
    "a listening address that is another's": Row(
        on_model("app", "--host", "192.0.2.1"), ("--host 192.0.2.1",)
    ),
    # models and recipes (more: tests/quant/test_bad_input.py)
    "an unknown name in a list": Row(on_model("list", "methods", "svdqant"), ("mean 'svdquant'?",)),
    "an adapter as a recipe": Row(
        on_model("compare", "dit-64", "--recipes", "watermark"), ("is an adapter", "brainlab watermark")
    ),
    "a recipe without a name": Row(on_model("plan", "dit-64", "--recipe", ""), ("name is empty",)),
    "native without a GPU, in a dry run": Row(
        on_model("compare", "dit-64", "--recipes", "rtn-w8a8", "--native", "--dry-run", "--device", "cpu"),
        ("native arithmetic cannot run here",),
        3,
    ),
    "a folder for a picture": Row(on_model("watermark", "verify", "TMP"), ("is a folder", "/*.png")),
    "guidance below 0": Row(on_model("compare", "dit-64", "--guidance", "-1"), ("at least 0 and at most",)),
    "CUDA that is not there, in a dry run": Row(
        on_model("compare", "dit-64", "--recipes", "rtn-w4a4", "--device", "cuda", "--dry-run"),
        ("no CUDA device is visible", "--device cpu"),
        3,
    ),
    "a wildcard given twice": Row(
        on_model("plan", "dit-64", "--override", "*attn*:weight_bits=8", "--override", "*attn*:skip"),
        ("'*attn*' is given twice", "write it once"),
    ),
    "a field of an override given twice": Row(
        on_model("plan", "dit-64", "--override", "*attn*:weight_bits=8+weight_bits=4"),
        ("weight_bits is given twice", "leave one away"),
    ),
    "an override that is no YAML": Row(
        on_model("plan", "dit-64", "--override", "*attn*:weight_bits=[1"),
        ("'[1' is no value for weight_bits", "give a number"),
    ),
    "nothing to quantize": Row(
        on_model("quantize", "dit-64", "--recipe", "rtn-w8a8", "--exclude", "*", "--out", "TMP/out"),
        ("leaves all 87 layers alone", "change include, exclude"),
    ),
    "bits given twice": Row(
        on_model("sensitivity", "unet-64", "--bits", "4,8,4", "--out", "TMP/s.json"), ("4 is given twice",)
    ),
    "no share of noise": Row(on_model("brain", "tune", "--strengths", "0.1,2"), ("from 0 to 1 with commas",)),
    "no samples averaged": Row(on_model("brain", "tune", "--averaged", "1,0"), ("0 samples; allowed: 1",)),
    "every ninth of twelve trials": Row(
        lambda tmp: [
            "brain",
            "tune",
            "--dataset",
            "mat",
            "--root",
            str(write_mat(tmp / "a.mat")),
            "--every",
            "9",
        ],
        ("of 12 distinct training pictures that leaves 1", "give --every 3 or less"),
    ),
    "a grid of another ending": Row(
        on_model("brain", "grid", "TMP", "--out", "TMP/a.jpg"), ("ends in .png",)
    ),
    "a grid of another command's folder": Row(
        lambda tmp: [(tmp / "config.yaml").write_text("model: dit-64\n"), ["brain", "decode", str(tmp)]][1],
        ("is a folder of another command",),
    ),
    "pictures into a file": Row(
        lambda tmp: [(tmp / "f").write_text("x"), ["brain", "decode", str(tmp), "--out", str(tmp / "f")]][1],
        ("is a file; --out wants a folder",),
    ),
    "simulated subjects in a file": Row(
        lambda tmp: [(tmp / "f").write_text("x"), ["data", "fetch", "simulated", "--root", str(tmp / "f")]][
            1
        ],
        ("is a file; simulated subjects are a folder",),
    ),
    "a network that is cut short": Row(foreign_network(b"\x10\0\0\0\0\0\0\0{"), ("not a safetensors file",)),
    "a network of another program": Row(foreign_network(None), ("holds no model of ours; allowed: ",)),
    "minutes that were not scanned": Row(adapt("--curve", "60"), ("--curve 60: this subject",)),
    "no minutes": Row(adapt("--curve", "0"), ("--curve 0: this subject has",)),
    "more minutes than all": Row(adapt("--minutes", "99"), ("--minutes 99: this subject has",)),
    "runs of the app are a file": Row(
        lambda tmp: [(tmp / "runs").write_text("x"), ["app", "--runs", str(tmp / "runs")]][1],
        ("is a file; give a folder",),
    ),
    # training (models: tests/lab/models/test_bad_input.py)
    "training pictures missing": Row(
        on_model("zoo", "train", "unet-64", "--data", "TMP/none"), ("none", "no such folder")
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_one_line_and_nothing_half_written(case: str, tmp_path: Path, capsys: Capture) -> None:
    refused(TABLE[case], tmp_path, capsys)
