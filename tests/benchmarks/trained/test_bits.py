"""The best recipe of each width is chosen by its pictures, among recipes that exist."""

from __future__ import annotations

from benchmarks.trained import bits
from quant import recipes


def test_every_recipe_exists_and_is_of_its_width() -> None:
    for width, names in bits.recipes(30, 1e-3).items():
        for short, full in names.items():
            config = recipes.parse(full).config().model_dump()
            stated = config.get("bases") or config.get("weight_bits")
            assert full.startswith(short) and stated in (width, None), full


def test_best_of_a_width() -> None:
    known = {8: {"a": "a", "b": "b+train_steps=3"}, 4: {"c": "c"}, 2: {"d": "d"}}
    rows = [
        {"recipe": r, bits.CHOSEN_BY: v} for r, v in (("a", 30.0), ("b+train_steps=3", 31.0), ("c", 20.0))
    ]
    assert bits.best([*rows, {"recipe": "d", bits.CHOSEN_BY: None}], known) == {8: "b", 4: "c"}


def test_the_figure_names_the_best_of_each_width() -> None:
    from benchmarks.trained.bits_figure import over_bits
    from lab.jobs.brain.bits import Result

    def row(recipe: str, value: float, steps: int | None) -> dict[str, object]:
        scores = {"two_way_feature": 0.8, "pixcorr": 0.4, bits.CHOSEN_BY: value}
        bounds = {f"{name}_{side}": None for name in scores for side in ("low", "high")}
        return {"recipe": recipe, **scores, **bounds, "train_steps": steps}

    rows = [row("full precision", 0.0, None), row("a", 30.0, None), row("b", 31.0, 9), row("c", 20.0, 9)]
    known = {8: {"a": "a", "b": "b"}, 1: {"c": "c"}}
    result = Result(
        rows=rows, leak_line="no leaks", simulated_subject=True, table="", report="", done_before=False
    )
    plate = over_bits(result, known, bits.best(rows, known), "somebody")
    assert "8 bits: b\n1 bits: c" in [text.get_text() for text in plate.figure.texts]
    assert "simulated subject" in plate.caption
    first = plate.figure.axes[0]
    assert [tick.get_text() for tick in first.get_xticklabels()] == ["8", "1"]


def test_rows_of_an_earlier_call_come_back_as_they_were(tmp_path) -> None:
    from benchmarks.files import write_csv

    rows = [
        {"recipe": "a", "pixcorr": 0.5, "train_steps": None, "bytes": 12, "format": "W4A4"},
        {"recipe": "b", "pixcorr": 0.25, "train_steps": 400, "bytes": 13, "format": "W2A4"},
    ]
    write_csv(tmp_path / "x.csv", rows)
    found = bits.read_rows(tmp_path / "x.csv", ["b", "c"])
    assert list(found) == ["b"] and rows[1].items() <= found["b"].items()
    assert rows[0].items() <= bits.read_rows(tmp_path / "x.csv", ["a"])["a"].items()
    assert found["b"]["ssim"] is None and bits.read_rows(None, ["a"]) == {}
    assert bits.earlier({}) == []
    assert bits.earlier(found) == ["\n1 rows are of an earlier call (commit unknown on unknown)."]
    assert "commit 3185e73 on H" in bits.earlier({"a": {"commit": "3185e73", "device": "H"}})[0]
