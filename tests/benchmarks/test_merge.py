"""Comparisons of several machines become one folder that a comparison goes on from."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.merge import merge
from lab.compare.bench import Bench
from lab.compare.recipes import expand
from lab.compare.results import stored
from lab.compare.work import Work
from lab.errors import InputError, MissingDataError
from lab.runs.folder import Run


def test_halves_become_one_and_nothing_is_measured_again(bench: Bench, tmp_path: Path) -> None:
    for name, recipes in (("a", "rtn-w8a8"), ("b", "rtn-w4a4")):
        with Run.open(tmp_path / name, bench.settings.to_dict()) as run:
            Work(bench, run, expand(recipes)).all()
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "m")
    assert len({(one.recipe, one.seed) for one in stored(tmp_path / "m")}) == 2 * 4
    with Run.open(tmp_path / "m", bench.settings.to_dict()) as run:
        Work(bench, run, expand("rtn-w8a8,rtn-w4a4")).all()
    assert '"cached": false' not in (tmp_path / "m" / "log.jsonl").read_text()


def test_a_small_copy_goes_on_and_says_where_it_was_made(bench: Bench, tmp_path: Path) -> None:
    with Run.open(tmp_path / "a", bench.settings.to_dict()) as run:
        Work(bench, run, expand("rtn-w8a8")).all()
    whole = {(one.recipe, one.seed): one for one in stored(tmp_path / "a")}
    assert any(one.pictures is not None for one in whole.values())
    merge([tmp_path / "a"], tmp_path / "m", small=True)
    for one in stored(tmp_path / "m"):
        other = whole[one.recipe, one.seed]
        assert one.pictures is None and one.numbers == other.numbers
        assert all((one.arrays[name] == other.arrays[name]).all() for name in other.arrays)
        assert one.numbers["commit"] and one.numbers["device"].startswith("CPU")
    with Run.open(tmp_path / "m", bench.settings.to_dict()) as run:
        Work(bench, run, expand("rtn-w8a8")).all()
    assert '"cached": false' not in (tmp_path / "m" / "log.jsonl").read_text()


def test_bad_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="holds no comparison"):
        merge([tmp_path], tmp_path / "m")
    for name, settings in (("a", {"n": 4}), ("b", {"n": 5})):
        with Run.open(tmp_path / name, settings) as run:
            run.step("x", lambda: {"v": 1})
    with pytest.raises(InputError, match="was made with other settings"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "m")
    assert not (tmp_path / "m").exists()
