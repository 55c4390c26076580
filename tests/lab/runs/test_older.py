"""Run folders of earlier versions: what they lack has its default, and nothing else passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, Field

from lab.decoding.settings import ReconstructConfig
from lab.errors import InputError
from lab.jobs.brain import encode
from lab.runs.folder import Run
from lab.runs.older import complete, open_settings
from lab.runs.settings import read_settings

LATER = ("left_out", "native", "network", "voxel_encoder")


def older(folder: Path, config: ReconstructConfig, *without: str) -> Path:
    """Make a run folder as a version wrote it that did not know some settings."""
    Run.open(folder, config).close()
    file = folder / "config.yaml"
    content = read_settings(file)
    for name in without:
        *sections, last = name.split(".")
        inside = content
        for section in sections:
            inside = inside[section]
        del inside[last]
    file.write_text(yaml.safe_dump(content))
    return folder


def test_a_folder_from_before_some_settings_goes_on(tmp_path: Path) -> None:
    config = ReconstructConfig(dataset="digits69", seed=3)
    folder = older(tmp_path / "r", config, *LATER, "brain.model.dropout")
    before = (folder / "config.yaml").read_bytes()
    Run.check(folder, config)
    Run.open(folder, config).close()
    assert (folder / "config.yaml").read_bytes() == before
    assert open_settings(ReconstructConfig, folder / "config.yaml") == config


@pytest.mark.parametrize(
    ("changed", "says"),
    {
        "native": ({"native": True}, "native: false -> true"),
        "voxel": ({"voxel_encoder": "/e"}, 'voxel_encoder: null -> "/e"'),
        "network": ({"network": "shared", "structure": "ridge"}, 'network: "trained" -> "shared"'),
        "deep": ({"brain": {"model": {"dropout": 0.5}}}, "brain.model.dropout: 0.0 -> 0.5"),
        "seed": ({"seed": 4}, "seed: 3 -> 4"),
        "options": ({"options": {"roi": "V1"}}, 'options.roi: (not set) -> "V1"'),
    }.values(),
)
def test_what_differs_is_refused(tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    given: dict[str, Any] = {"dataset": "haxby2001", "seed": 3}
    without = (*LATER, *(("options",) if "options" in changed else ("brain.model.dropout",)))
    folder = older(tmp_path / "r", ReconstructConfig(**given), *without)
    with pytest.raises(InputError) as refused:
        Run.open(folder, ReconstructConfig(**{**given, **changed}))
    assert says in str(refused.value)


def test_a_starting_point_does_not_speak_for_an_old_folder(tmp_path: Path) -> None:
    """digits69 starts from tokens of the picture; a run that did not know the setting had Brain-IT's."""
    config = ReconstructConfig(dataset="digits69")
    folder = older(tmp_path / "r", config, "tokens")
    assert config.tokens == "picture"
    with pytest.raises(InputError, match='tokens: "brainit" -> "picture"'):
        Run.open(folder, config)
    assert open_settings(ReconstructConfig, folder / "config.yaml").tokens == "brainit"


def test_a_setting_that_went_is_another_setting(tmp_path: Path) -> None:
    config = ReconstructConfig()
    folder = older(tmp_path / "r", config)
    with (folder / "config.yaml").open("a") as file:
        file.write("gone: 1\n")
    with pytest.raises(InputError, match=r"gone: 1 -> \(not set\)"):
        Run.open(folder, config)
    with pytest.raises(InputError, match="unknown setting 'gone'"):
        open_settings(ReconstructConfig, folder / "config.yaml")


class Inner(BaseModel):
    must: int
    may: float = 0.5


class Outer(BaseModel):
    inner: Inner
    preset: Inner = Field(default_factory=lambda: Inner(must=1, may=2.0))
    names: dict[str, int] = {"a": 1}


def test_sections_have_their_classes_defaults_and_free_names_are_left_alone() -> None:
    assert complete(Outer, {"names": {"b": 2}}) == {
        "inner": {"may": 0.5}, "preset": {"may": 0.5}, "names": {"b": 2},
    }  # fmt: skip
    assert complete(Outer, {"inner": 3, "odd": 4})["inner"] == 3  # for whoever checks it


def test_what_a_job_claims_counts_alone(tmp_path: Path) -> None:
    settings = encode.Settings(out=tmp_path / "r")
    claim = settings.claim()
    with Run.open(tmp_path / "r", {k: v for k, v in claim.items() if k != "covariance"}):
        pass
    Run.open(tmp_path / "r", claim, complete(encode.Settings, {})).close()
    with pytest.raises(InputError, match=r"covariance: \(not set\)"):
        Run.open(tmp_path / "r", claim)
