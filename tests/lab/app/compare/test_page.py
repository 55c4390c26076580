"""Recipes that were applied come into the comparison; the sensitivity fold's settings."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("gradio")

from lab.app.compare import page, sensitivity
from lab.errors import InputError


def test_an_applied_recipe_joins_the_comparison() -> None:
    assert page.joined("", ["a"]) == ["a"] and page.joined("a", ["a"]) == ["a"]
    assert page.joined("e", ["a", "b", "c", "d"]) == ["b", "c", "d", "e"]


def test_differences_are_drawn_as_large_as_the_worst_recipe_allows() -> None:
    full = np.full((2, 8, 8, 3), 0.5)
    pictures = {"full_precision": full, "good": full + 0.01, "bad": full + 0.15}
    assert page.enlarged(pictures) == 5
    assert page.enlarged({"full_precision": full, "good": full + 0.01}) == 20
    assert page.enlarged({"full_precision": full, "awful": full + 0.45}) == 2


def test_the_same_question_goes_on_in_the_same_file() -> None:
    one, again = (sensitivity.asked("dit-64", "rtn-w4a4", "*attn2*", "one-on") for _ in range(2))
    other = sensitivity.asked("dit-64", "rtn-w4a4", "", "one-off")
    assert one.out == again.out != other.out and other.layers == "*"
    with pytest.raises(InputError, match="mode"):
        sensitivity.asked("dit-64", "rtn-w4a4", "*", "both")
