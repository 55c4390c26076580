"""Training of the watermark through its job: stopped, gone on with, refused, extended."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lab import zoo
from lab.cli.main import run as command
from lab.errors import InputError, MissingDataError
from lab.jobs import registry
from lab.jobs.contract import Context
from lab.runs.lock import FolderLock
from lab.zoo.io import save_weights
from lab.zoo.models.autoencoder import LatentAutoencoder
from lab.zoo.watermark.files import EXTRACTOR
from quant.adapters.watermark import course
from tests.lab.zoo.conftest import data  # noqa: F401 - a tiny folder of pictures

TOY = "watermark-48+extractor_steps=4+key_steps=4+extractor_batch=4+key_batch=4+mapper_rank=4"
FILES = ("extractor.safetensors", "key-0.safetensors", "key-1.safetensors")


class Killed(BaseException):
    pass


@pytest.fixture(scope="module", autouse=True)
def small_autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The shipped autoencoder's layers with few channels, so that steps are quick."""
    torch.manual_seed(0)
    home = tmp_path_factory.mktemp("zoo")
    save_weights(LatentAutoencoder(width=16), home / "weights" / "autoencoder-64.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zoo, "HOME", home)
        patch.setattr(course, "EVERY", 0.0)  # a checkpoint and a report at every step
        patch.setattr(course, "LOOK", 1)
        yield


def train(data: Path, out: Path, report: Any = None, **given: Any) -> Any:  # noqa: F811
    given = {"data": data, "out": out, "recipe": TOY, "keys": "0", "limit": 64, "device": "cpu", **given}
    settings = registry.settings("watermark train", given)
    return registry.run("watermark train", settings, Context(report=report or (lambda *_: None)))


def stop_at(words: str) -> Any:
    def report(done: int, total: int, what: str) -> None:
        if f"{what} {done}".startswith(words) or f"{what.split(' ')[0]} {done}" == words:
            raise Killed

    return report


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name not in ("log.jsonl", ".lock")
    }


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """Extractor and two keys, trained without a stop."""
    out = tmp_path_factory.mktemp("whole") / "w"
    train(data, out, keys="0,1")
    return out


def test_it_goes_on_wherever_it_was_killed(data: Path, whole: Path, tmp_path: Path) -> None:  # noqa: F811
    out = tmp_path / "w"
    for words in ("extractor 2", "key-0 0", "key-1 3"):  # within the extractor, before a key, within another
        with pytest.raises(Killed):
            train(data, out, stop_at(words), keys="0,1")
        if words == "key-0 0":
            assert json.loads((out / "training.json").read_text())["keys"] == []
            assert (out / "extractor.safetensors").is_file() and not (out / "done.json").exists()
    stamps = {name: (out / name).stat().st_mtime_ns for name in FILES[:2]}
    seen: list[str] = []
    result = train(data, out, lambda done, total, what: seen.append(f"{what.split()[0]} {done}"), keys="0,1")
    assert [words for words in seen if words.startswith(("extractor", "key"))] == ["key-1 3"]
    assert all((out / name).stat().st_mtime_ns == stamp for name, stamp in stamps.items())
    for name in FILES:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    known = json.loads((whole / "training.json").read_text())
    for one, two in zip(result.record["keys"], known["keys"], strict=True):
        assert {**one, "seconds": 0} == {**two, "seconds": 0} and one["steps"] == 4
    left = {"config.yaml", "done.json", "log.jsonl", "training.json", ".lock", *FILES}
    assert {p.name for p in out.iterdir()} == left  # no checkpoints


def test_a_finished_folder_does_nothing_and_takes_more_keys(
    data: Path,  # noqa: F811
    whole: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "w"
    shutil.copytree(whole, out)
    before, seen = contents(out), []
    train(data, out, lambda *said: seen.append(said))
    assert contents(out) == before and not seen
    (out / "key-0.safetensors").unlink()  # lost: that one is trained again, and no other
    result = train(data, out, lambda done, total, what: seen.append(what.split()[0]), keys="0,1,2")
    assert sorted(key["seed"] for key in result.record["keys"]) == [0, 1, 2]
    assert {"key-0", "key-2"} <= set(seen) and not {"extractor", "key-1"} & set(seen)
    after = contents(out)
    assert all(after[name] == before[name] for name in FILES) and "done.json" in after


def test_another_training_in_the_folder_is_refused_and_loses_nothing(
    data: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, changed = tmp_path / "w", tmp_path / "changed"
    with pytest.raises(Killed):
        train(data, out, stop_at("extractor 2"))
    shutil.copytree(data, changed)
    file = changed / "tiny-imagenet-64" / "train-0.parquet"
    shutil.copy(changed / "tiny-imagenet-64" / "validation.parquet", file)
    before = contents(out)
    assert "training/extractor.safetensors" in before
    given = ["--recipe", TOY, "--limit", "64", "--device", "cpu", "-o", str(out)]
    for folder, more, says in (
        (data, ["--recipe", TOY.replace("key_steps=4", "key_steps=5")], "config.key_steps: 4 -> 5"),
        (data, ["--seed", "1"], "seed: 0 -> 1"),
        (data, ["--message", "0x123456789abc"], "message: null ->"),
        (data, ["--minutes", "3"], "minutes: null -> 3"),
        (data, ["--extractor", str(EXTRACTOR)], "made_from.extractor"),
        (changed, [], "made_from.data"),
    ):
        for dry in ([], ["--dry-run"]):
            assert command(["watermark", "train", "--data", str(folder), *given, *more, *dry]) == 2
            out_text, err = capsys.readouterr()
            assert out_text == "" and len(err.strip().splitlines()) == 1
            assert says in err and "choose another --out" in err
    with FolderLock(out):
        assert command(["watermark", "train", "--data", str(data), *given]) == 2
        assert "is in use by process" in capsys.readouterr().err
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("precious")
    with pytest.raises(InputError, match="holds other files"):
        train(data, tmp_path / "thesis")
    assert contents(out) == before


def test_what_cannot_be_trained_is_refused_before_anything_is_written(
    data: Path,  # noqa: F811
    whole: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "w"
    for given, says in (
        ({"recipe": "watermark-48+rank=64"}, "rank 64 is larger than layer"),
        ({"recipe": 'watermark-48+layers=["nowhere"]'}, "matches no convolution"),
        ({"message": "101"}, "has 3 bits"),
        ({"message": "0x123456789abc", "keys": "0,1"}, "--message is for one key"),
        ({"keys": str(2**31)}, "seeds are 0 to 2147483647"),
        ({"recipe": "watermark-48+bits=32", "extractor": whole / FILES[0]}, r"reads 48 bits.*add \+bits=48"),
        ({"extractor": whole / FILES[1]}, "not a watermark's extractor"),
    ):
        with pytest.raises(ValueError, match=says):
            train(data, out, **given)
    partly = tmp_path / "partly"
    shutil.copytree(data, partly)
    (partly / "mnist10k" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(MissingDataError, match="labels"):
        train(partly, out)
    with pytest.raises(MissingDataError, match="no extractor at"):
        train(data, out, extractor=tmp_path / "none.safetensors")
    assert not out.exists()


def test_keys_for_a_given_extractor_are_those_of_its_own_folder(
    data: Path,  # noqa: F811
    whole: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "w"
    result = train(data, out, extractor=whole / FILES[0], keys="1")
    assert (out / "key-1.safetensors").read_bytes() == (whole / "key-1.safetensors").read_bytes()
    assert not (out / FILES[0]).exists() and str(whole / FILES[0]) in result.next_step()
