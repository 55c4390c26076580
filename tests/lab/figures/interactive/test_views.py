"""Figures that answer a slider: plotly finds them valid, and what is drawn is what was given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

go = pytest.importorskip("plotly.graph_objects")

from lab.errors import InputError  # noqa: E402
from lab.figures.interactive import views as draw  # noqa: E402

STEPS = [900.0, 500.0]
BANDS = {name: np.array([k, k + 1.0]) for k, name in enumerate(("min", "p1", "p50", "p99", "max"))}


def _all() -> dict[str, Any]:
    counts = np.arange(1, 41)
    return {
        "heat": draw.channel_timestep_heat(np.ones((2, 300)), STEPS, "a map", [3]),
        "levels": draw.level_bars(counts, np.linspace(-1, 1, 41), np.linspace(-1, 1, 16), -1, 1, "a grid"),
        "bands": draw.range_bands(STEPS, BANDS, "ranges"),
        "lines": draw.error_lines(STEPS, {"rtn": [0, 0.1], "svd": [0.1, 0.2]}, "errors"),
        "dots": draw.sorted_dots([("a", 1.0), ("b", 2.0)], "dB", "layers"),
        "roof": draw.roofline([("bf16", 1, 2, "bf16"), ("int4", 0.5, 1, "low-bit")], "times"),
    }


@pytest.mark.parametrize("name", list(_all()))
def test_plotly_finds_nothing_wrong_and_every_axis_has_its_name(name: str) -> None:
    """They are made without plotly's own check, which would be most of the time that a slider waits."""
    figure = _all()[name]
    checked = go.Figure(figure.to_plotly_json())  # raises where a name or a value is none
    assert checked.layout.title.text and checked.layout.xaxis.title.text and checked.layout.yaxis.title.text
    assert len(checked.data) == len(figure.data) and all(trace.type for trace in checked.data)


def test_what_is_drawn_is_what_was_given() -> None:
    values = np.array([[1.0, 2.0, 3.0], [4.0, 50.0, 6.0]])
    heat, marks = (figure := draw.channel_timestep_heat(values, STEPS, "a map", [1])).data
    assert (
        heat.y == ("900", "500") and np.array_equal(heat.customdata, values) and heat.z[1][1] == np.log10(50)
    )
    assert figure.layout.yaxis.autorange == "reversed" and (marks.x, marks.y) == ((1,), ("900",))
    assert [float(t) for t in heat.colorbar.ticktext] == pytest.approx(
        10 ** np.array(heat.colorbar.tickvals), rel=0.01
    )
    counts, edges = np.arange(1, 41), np.geomspace(1, 3, 41)
    bars, grid, cuts = draw.level_bars(counts, edges, np.array([1.0, 2.0]), 1.25, 2.5, "a grid").data
    heights, sides = np.array(bars.y)[1:-1:2], np.array(bars.x)[::2]
    assert heights @ np.diff(sides) == pytest.approx(1), "a density"
    assert [x for x in grid.x if x == x] == [1, 1, 2, 2] and [x for x in cuts.x if x == x] == [
        1.25,
        1.25,
        2.5,
        2.5,
    ]
    traces = draw.range_bands(STEPS, BANDS, "ranges").data
    spans = [(list(low.y), list(high.y), high.name) for low, high in (traces[:2], traces[2:4])]
    assert spans == [([0, 1], [4, 5], "all values"), ([1, 2], [3, 4], "central 98 %")]
    assert list(traces[4].y) == [2, 3]
    (line,) = draw.error_lines(STEPS, {"rtn": [0, 0.1]}, "errors").data
    assert line.x == ("900", "500") and line.y == (None, 0.1)
    limit, point = (figure := draw.roofline([("bf16", 1.0, 2.0, "bf16")], "times")).data
    assert (list(point.x), list(point.y)) == ([1], [2]) and limit.x == limit.y
    assert figure.layout.xaxis.title.text.startswith("least") and figure.layout.yaxis.title.text.startswith(
        "measured"
    )


def test_many_channels_are_joined_and_keep_their_largest() -> None:
    values = np.ones((2, 1000))
    values[0, 777] = 50.0
    (trace,) = draw.channel_timestep_heat(values, STEPS, "a map").data
    assert np.asarray(trace["customdata"]).max() == 50 and np.asarray(trace["z"]).shape[1] <= 240


def test_an_axis_of_powers_has_no_crowd_of_ticks_between_them() -> None:
    wide = draw.error_lines(STEPS, {"rtn": [0, 0.1], "svd": [0.001, 0.2]}, "errors")
    narrow = draw.error_lines(STEPS, {"rtn": [0, 0.1], "svd": [0.1, 0.2]}, "errors")
    assert wide.layout.yaxis.dtick == 1 and narrow.layout.yaxis.dtick is None  # else not one tick


def test_many_names_stand_below_the_axis_where_they_do_not_meet_the_title() -> None:
    few, many = (
        draw.error_lines(STEPS, {f"recipe {k}": [0.1, 0.2] for k in range(n)}, "errors").layout
        for n in (3, 4)
    )
    assert few.legend.y > 1 and many.legend.y == 0 and many.legend.yref == "container"
    assert many.margin.b - few.margin.b == many.height - few.height > 60


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="one row for each of 2 timesteps"):
        draw.channel_timestep_heat(np.ones((3, 4)), STEPS, "a map")
    with pytest.raises(InputError, match="histogram is empty"):
        draw.level_bars(np.zeros(4), np.linspace(0, 1, 5), np.ones(2), 0, 1, "a grid")
