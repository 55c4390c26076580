"""Names of recipes: groups, wildcards, changes."""

from __future__ import annotations

import pytest

import quant
from lab.compare.recipes import allocations, expand


def test_recipe_names() -> None:
    names = [r.name for r in expand("rtn, rtn-w8a8, fp8-fp8*, rtn-w8a8+weight_bits=3")]
    assert names[-1] == "rtn-w8a8+weight_bits=3" and len(set(names)) == len(names)
    assert {"rtn-w4a4", "fp8-fp8", "fp8-fp8-e4m3"} <= set(names)
    every = [r.name for r in expand("all-ptq", "dit-64")]
    trained = {"efficientdm", "quest", "binarydm", "qvgen"}
    after = [name for name in quant.list_presets() if quant.get_preset(name).method not in trained]
    assert every == [*after, *allocations("dit-64")] and len(after) < len(quant.list_presets())
    assert [r.name for r in expand("all-ptq")] == after  # allocations are one model's
    for wrong, says in (
        ("rtn-w8a9", "did you mean"),
        ("x*", "no preset matches"),
        ("rtn-w8a8+bits", "no change"),
    ):
        with pytest.raises(ValueError, match=says):
            expand(wrong)
