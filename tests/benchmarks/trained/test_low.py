"""Variants at two bits: recipes exist and differ, smaller budgets, what the table says."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.trained import low
from quant import recipes
from quant.methods.qvgen import core, started


def test_every_variant_is_a_recipe_of_its_own() -> None:
    found = {name: recipes.parse(recipe).config() for name, recipe in low.VARIANTS.items()}
    assert len(set(map(repr, found.values()))) == len(found)
    for name, config in found.items():
        stated = {"W4": 4, "W3": 3, "W2": 2}[name[:2]]
        assert config.model_dump().get("weight_bits", stated) == stated, name
        assert "four steps" not in name or config.unroll == 4


def test_a_smaller_budget_takes_the_place_of_a_recipes_own() -> None:
    config = recipes.parse(low.shortened(low.BEST, "train_steps=3+look_every=1")).config()
    assert (config.train_steps, config.look_every, config.rank, config.masters) == (3, 1, 16, "weights")
    for fixed in (f"{low.BASE}+train_steps=0", "rtn-w4a4"):
        assert low.shortened(fixed, "train_steps=3") == fixed


def test_variants_are_chosen_by_words_and_the_preset_is_one() -> None:
    preset = recipes.parse("qvgen-w2a4-branch").config()
    assert preset == recipes.parse(low.BEST).config()
    assert list(low.chosen("start;plain")) == ["W2, start", "W2, plain groups, one prediction"]
    assert low.chosen("") == low.VARIANTS and not low.chosen("nothing of that name")


def test_a_start_is_solved_once_and_never_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    solved: list[int] = []
    monkeypatch.setattr(started, "solve", lambda *given: solved.append(1) or len(solved))
    monkeypatch.setitem(core.__dict__, "solve", None)
    low.solved_once(tmp_path)
    config = recipes.parse(low.BEST).config()
    given = (None, None, config, SimpleNamespace(seed=0, recording=SimpleNamespace(hash="h")))

    def killed(found: object, file: Path) -> None:
        Path(file).write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            core.solve(*given)
    assert [core.solve(*given) for _ in range(3)] == [2, 2, 2] and len(solved) == 2


def test_final_latents_are_read_from_the_ledger() -> None:
    assert math.isclose(low.snr_db({"qat": {"held_out": 0.01}}) or 0, 20.0)
    assert low.snr_db({}) is None


def test_the_table_has_runs_and_their_means() -> None:
    def row(run: str, variant: str, below: float) -> dict[str, object]:
        scores = {"two_way_feature": 0.9, "two_way_feature_minus_fp": -below, "two_way_pix": 0.93}
        facts = {"weight_bits": 5.9, "bytes": 3.9e6, "train_steps": 400, "train_seconds": 60.0}
        return {"run": run, "variant": variant, "recipe": low.BEST, "snr_db": 9.5, "paired_psnr_to_fp": 20.0,
                **scores, **facts}  # fmt: skip

    name = "W2, four steps"
    page = low.markdown([row("a", name, 0.02), row("b", name, 0.04)], ["W2, start on b"], "about")
    assert page.count(f"| {name} | 0.900 ") == 3 and "| 0.020, 0.040 |" in page
    assert "## Means of 2 runs" in page and "Not measured: W2, start on b." in page
    assert "Means" not in low.markdown([row("a", name, 0.02)], [], "about")
