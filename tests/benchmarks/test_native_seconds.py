"""What the timing of drawing refuses, and what its ratios are to."""

from __future__ import annotations

import pytest

from benchmarks import native_seconds

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize("option", ["--n", "--steps", "--repeats"])
def test_nothing_to_draw_is_refused(option: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as end:
        native_seconds.main(["--out", "unused", option, "0"])
    assert end.value.code == 2 and f"{option} must be 1 or more, got 0" in capsys.readouterr().err


def test_an_unknown_recipe_is_refused_before_anything_is_drawn(capsys: Capture) -> None:
    assert native_seconds.main(["--out", "unused", "--device", "cpu", "--recipes", "rtn-w9a9"]) == 2
    assert "rtn-w9a9" in capsys.readouterr().err


def test_rows_are_beside_full_precision_in_the_same_run() -> None:
    shared = {
        "n": 64,
        "steps": 20,
        "repeats": 5,
        "device": "a GPU",
        "torch": "2",
        "triton": "3",
        "commit": "abc",
    }
    rows = [
        {"model": model, "numbers": numbers, "what": what, "how": how, "s": s, "s_first": 9, **shared}
        for model, numbers, what, how, s in (
            ("dit-64", "float32", "full precision", "launched", 3.0),
            ("dit-64", "bf16", "full precision", "launched", 1.0),
            ("dit-64", "bf16", "full precision", "graph", 0.5),
            ("dit-64", "float32", "rtn-w8a8", "graph", 0.25),
            ("unet-64", "bf16", "full precision", "launched", 8.0),
        )
    ]
    found = native_seconds.with_ratios(rows)
    assert [r["ratio_launched"] for r in found] == [0.333, 1, 2, 4, 1]
    assert [r.get("ratio_graph") for r in found] == [0.167, 0.5, 1, 2, None]
    assert "| dit-64 | rtn-w8a8 | float32 | graph | 0.25 | 9 | 4.0 | 2.0 |" in native_seconds.markdown(found)
