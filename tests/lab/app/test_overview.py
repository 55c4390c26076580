"""All layers at once: what is flagged goes into Plan's box, once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gradio")

from lab.app import overview


def _seen() -> Any:
    """Return five layers, the last 10 times as large as the others, and a row of a transformed input."""
    sizes = {"a": 1.0, "b": 1.1, "c": 0.9, "d": 1.0, "e.f": 10.0}
    rows = [
        {"layer": name, "tensor": "input", **dict.fromkeys(overview.STATISTICS.values(), size)}
        for name, size in sizes.items()
    ]
    return SimpleNamespace(
        settings={"samples": 2, "timesteps": [9, 5]},
        inputs={name: SimpleNamespace(absmax=np.full((2, 4), size)) for name, size in sizes.items()},
        layer_table=lambda: [*rows, {"layer": "a", "tensor": "after rotation"}],
    )


@pytest.mark.parametrize("statistic", list(overview.STATISTICS))
def test_flagged_layers_are_named_with_their_values(statistic: str) -> None:
    figure, words, chosen = overview.flagged(_seen(), statistic, 3)
    assert chosen == ["e.f"] and "`e.f`: 10" in words and "2 samples at 2 timesteps" in words
    assert "1 of 5 layers at or above 3," in figure.layout.title.text.replace("<br>", " ")
    assert ("median channel" in [trace.name for trace in figure.data]) == (statistic == overview.LARGEST)
    _, words, chosen = overview.flagged(_seen(), statistic, 20)
    assert chosen == [] and words.endswith("No layer stands out.")


def test_flagged_layers_are_handed_to_plan_once() -> None:
    box, words = overview.left_alone(["a.b", "c"], "*attn*\n\n")
    assert box == "*attn*\na.b\nc" and words.startswith("2 layers")
    assert overview.left_alone(["c"], box) == (box, "Nothing to add.")
