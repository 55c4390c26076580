"""The same test pictures at several bit-widths: settings, pictures beside each other, the table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gradio")

from lab.app.brain import bits
from lab.app.brain.pictures import by_rule, large
from lab.errors import InputError
from lab.files import write_npz
from lab.jobs.brain import decode


def test_full_precision_comes_first_and_nothing_else_differs(tmp_path: Path) -> None:
    bare = decode.Settings(folder=tmp_path, trials=(1, 2), recipe="rtn-w2a8", guidance=2, semantic=True)
    found = bits.asked(bare, ["rtn-w8a8", "none"], tmp_path)
    assert [one.recipe for one in found.values()] == ["none", "rtn-w8a8"]
    assert len({one.out for one in found.values()}) == 2 and not any(one.semantic for one in found.values())
    assert {(one.trials, one.guidance) for one in found.values()} == {((1, 2), 2)}
    for wrong, words in (([], "no recipe"), (["a", "a"], "each once"), (list("abcde"), "1 to 4")):
        with pytest.raises(InputError, match=words):
            bits.asked(bare, wrong, tmp_path)


def _result(place: Path, shade: float, arithmetic: str) -> decode.Result:
    place.mkdir()
    pictures = np.full((2, 8, 8, 3), shade, np.float32)
    names = ("stimulus", "ridge_to_pixels", "decoded")
    write_npz(place / "pictures.npz", dict.fromkeys(names, pictures))
    rows = [
        {"trial": trial, "two-way ridge": 0.5, "two-way decoded": score, "PixCorr ridge": 0.1,
         "PixCorr decoded": 0.2}
        for trial, score in ((4, 0.75), (9, 1.0))
    ]  # fmt: skip
    return decode.Result(
        rows=rows, shown=[], leak_line="none", simulated_subject=True, arithmetic=arithmetic, regions=[],
        sheet="", archive=str(place / "pictures.npz"),
    )  # fmt: skip


def test_a_row_of_pictures_for_each_trial_and_a_row_of_the_table_for_each_recipe(tmp_path: Path) -> None:
    found = {
        bits.FULL: _result(tmp_path / "0", 0.5, "full precision"),
        "rtn-w8a8": _result(tmp_path / "1", 0.6, "simulated"),
    }
    shown, rows = bits.side_by_side(found)
    words = [words for _, words in shown]
    assert words[:4] == ["4: stimulus", "4: ridge 0.50", "4: full precision 0.75", "4: rtn-w8a8 0.75"]
    assert len(shown) == 8 and words[4] == "9: stimulus"
    assert rows[0] == ["ridge", "0.500", "0.100", "-", "-"]
    assert rows[1] == ["full precision", "0.875", "0.200", "-", "full precision"]
    assert rows[2] == ["rtn-w8a8", "0.875", "0.200", "20.0", "simulated"]
    assert large(np.zeros((8, 8))).shape == (192, 192, 3)


def test_pictures_are_chosen_by_the_runs_scores(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no scores of its pictures"):
        by_rule(tmp_path, "best")
    write_npz(tmp_path / "arrays.npz", {"score_pixcorr": np.arange(20) / 20})
    assert by_rule(tmp_path, "best") == [19, 18, 17, 16] and by_rule(tmp_path, "worst")[-1] == 0
    with pytest.raises(InputError, match="not a group"):
        by_rule(tmp_path, "nicest")
    assert not set(by_rule(tmp_path, "median")) & set(by_rule(tmp_path, "random"))


def test_a_page_about_bits_needs_a_run_below_the_runs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no trained run"):
        bits.page_of(tmp_path, ["rtn-w8a8"], "", False)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("seed: 1\n")
    given, stem = bits.page_of(tmp_path, ["rtn-w8a8"], "run", False)
    assert given["folder"] == tmp_path / "run" and stem == "bits-run"
