"""The best recipe of each width is chosen by its pictures, among recipes that exist."""

from __future__ import annotations

import pytest

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


def test_tables_are_written_anew_from_what_is_published(tmp_path, monkeypatch) -> None:
    from benchmarks.files import write_csv

    def row(recipe: str, value: float, steps: int | None, commit: str, subject: str) -> dict[str, object]:
        return {
            "recipe": recipe, "pixcorr": value, bits.CHOSEN_BY: value, "train_steps": steps, "bytes": 12,
            "commit": commit, "device": "H", "subject": subject, "leaks": f"no leaks, {subject}",
        }  # fmt: skip

    names = ("full precision", "rtn-w8a8", "rtn-w4a4")
    for name, subject in (("a", "measured"), ("b", "simulated")):
        write_csv(tmp_path / f"{name}.csv", [row(r, 0.5, None, "3185e73", subject) for r in names])
    write_csv(
        tmp_path / "b.csv",
        [row(names[0], 0.5, None, "1", "simulated"), row(names[1], 0.25, 400, "2", "simulated")],
    )
    monkeypatch.setattr(
        "sys.argv", ["bits", "runs/a", "--measured", "--out", "x", "--publish", str(tmp_path)]
    )  # fmt: skip
    drawn: list[str] = []

    class Chart:
        def __init__(self, result: object, known: object, chosen: object, title: str) -> None:
            drawn.append(title)

        def png(self, foot: bool) -> bytes:
            return b"png" if foot else b""

    monkeypatch.setattr(bits, "over_bits", Chart)
    bits.main()
    page = (tmp_path / "bits.md").read_text()
    assert "on H, commit 3185e73 and 1 and 2." in page and "no leaks, measured" in page
    assert page.index("## a (measured subject)") < page.index("## b (simulated subject)")
    assert "1 at commit 1 on H; 1 at commit 2 on H" in page and page.count("at commit") == 2
    assert "Not measured: `svdquant-w8a8`, `rtn-w6a6`" in page
    assert drawn == ["a", "b"] and (tmp_path / "b.png").is_file()
    write_csv(tmp_path / "b.csv", [{"recipe": "rtn-w8a8"}])
    with pytest.raises(SystemExit):
        bits.main()
