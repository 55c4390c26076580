"""Variants of fine-tuning: recipes exist and differ, the table has them in order."""

from __future__ import annotations

from benchmarks.trained import along
from quant import recipes


def test_every_variant_is_a_recipe_of_its_own() -> None:
    found = {name: recipes.parse(f"{along.START}+{text}").config() for name, text in along.VARIANTS.items()}
    assert len(set(map(repr, found.values()))) == len(found)
    assert all(config.start == "svdquant" and config.weight_bits == 4 for config in found.values())


def test_the_table_has_variants_in_order() -> None:
    rows = [
        {"variant": name, "recipe": f"{along.START}+{text}", "snr_db": 18.0, "error": 0.05, "layers_mb": 6.0,
         "train_steps": 300, "train_seconds": 60.0}
        for name, text in reversed(along.VARIANTS.items())
    ]  # fmt: skip
    page = along.markdown(rows, "about")
    places = [page.index(f"| {name} |") for name in along.VARIANTS]
    assert places == sorted(places) and f"`+{along.VARIANTS['four steps, own states']}`" in page
