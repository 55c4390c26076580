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
