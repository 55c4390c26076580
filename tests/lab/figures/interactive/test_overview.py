"""All layers in one figure: what is flagged, and that plotly finds it valid."""

from __future__ import annotations

import numpy as np
import pytest

go = pytest.importorskip("plotly.graph_objects")

from lab.errors import InputError  # noqa: E402
from lab.figures.interactive.overview import layer_overview, standing_out  # noqa: E402

NAMES, VALUES = ["a", "b", "c<", "d"], [1.0, 2.0, 12.0, 0.0]


def test_a_layer_stands_out_from_so_many_times_the_median_one() -> None:
    out, threshold = standing_out(VALUES, 2)
    assert out.tolist() == [2] and threshold == 3.0
    assert standing_out(VALUES, 1)[0].tolist() == [1, 2] and standing_out([0, 0, 0, 5], 3)[0].tolist() == [3]
    with pytest.raises(InputError, match="no layer was seen"):
        standing_out([], 3)


def test_the_figure_marks_it_by_another_sign_and_keeps_all_on_a_logarithmic_axis() -> None:
    beside = {"median channel": [0.5, 1.0, 1.0, 0.0]}
    figure = layer_overview(NAMES, VALUES, 2, "largest magnitude", "four layers", beside)
    checked = go.Figure(figure.to_plotly_json())
    signs = {trace.name: trace.marker.symbol for trace in checked.data if trace.mode == "markers"}
    assert signs == {"largest magnitude": "circle", "stands out": "triangle-up"}
    (out,) = (trace for trace in checked.data if trace.name == "stands out")
    assert list(out.text) == ["c&lt;"] and checked.layout.yaxis.title.text == "largest magnitude, log"
    places = {t.name: (list(t.x), list(t.y)) for t in figure.data}
    assert places["stands out"] == ([3], [12.0]), "counted from 1"
    assert places["largest magnitude"] == ([1, 2, 4], [1.0, 2.0, None])
    assert places[None] == ([1, 4], [3.0, 3.0]), "twice the median"
    low, high = checked.layout.yaxis.range
    assert 10**low < 0.5 and 10**high > 12 and np.isfinite([low, high]).all()
    go.Figure(layer_overview(["a"], [0.0], 3, "drift", "nothing").to_plotly_json())
