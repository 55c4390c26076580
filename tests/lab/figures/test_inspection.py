"""Figures of the inspector: what they count, what they say, and that both themes draw."""

from __future__ import annotations

import io
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lab.errors import InputError
from lab.figures.activations import _join, _ratio, activation_surfaces, channel_timestep_map
from lab.figures.attention import score_histogram, sink_mass
from lab.figures.distributions import drift_bands, level_histogram, shorten
from lab.figures.layers import sorted_layers, statistic_bars
from lab.figures.plate import Plate, Provenance, Theme
from lab.figures.ranges import axis_ranges, skip_ranges
from lab.report.inspection import _scores
from quant.observation import bins

SOURCE = Provenance("unet-64", "8 samples at 5 timesteps", 0, "abc123")
R = np.random.default_rng(0)
TIMES = [1000.0, 700.0, 400.0, 100.0]
ROWS = [
    {"layer": "a", "kind": "Linear", "absmax": 3.0, "skip_ratio": None},
    {"layer": "b", "kind": "Conv2d", "absmax": 9.0, "skip_ratio": 2.0, "also": 2},
    {"layer": "c", "kind": "Linear", "absmax": 1.0, "skip_ratio": None},
]
HALVES = {
    "up.shortcut": {
        "hidden": {"min": np.full(4, -2.0), "max": np.full(4, 1.0), "rms": np.full(4, 0.5)},
        "skip": {"min": np.full(4, -8.0), "max": np.full(4, 6.0), "rms": np.full(4, 2.0)},
    }
}


def bands() -> dict[str, np.ndarray]:
    steps, signs = np.array([1.0, 2, 3, 4]), {"min": -2, "p1": -1, "p50": 0, "p99": 1, "max": 2}
    return {name: steps * sign for name, sign in signs.items()}


def plates(theme: Theme) -> Iterator[Plate]:
    heat = R.random((4, 60))
    heat[:, 7] = 40
    yield channel_timestep_map(heat, TIMES, SOURCE, marked=[7], theme=theme)
    surface = R.random((130, 200))
    yield activation_surfaces({"input": surface, "input after rotation": surface / 2}, SOURCE, theme=theme)
    yield activation_surfaces({"input": surface}, SOURCE, units={"input": 0.5}, theme=theme)
    edges = np.linspace(-1, 1, 41)
    yield level_histogram(R.integers(1, 99, 40), edges, {"int4": np.linspace(-1, 1, 15)}, SOURCE, theme=theme)
    grids = {"int8": np.linspace(-1, 1, 255), "one": np.array([0.5])}
    yield level_histogram(R.integers(1, 99, 40), edges, grids, SOURCE, "weight", theme)
    yield drift_bands(TIMES, {f"layer{i}": bands() for i in range(4)}, SOURCE, theme=theme)
    yield sink_mass({"m1": np.full((4, 9), 1 / 9), "m2": np.eye(4, 9)}, SOURCE, theme)
    positive = np.exp2(np.linspace(-10, 0, 41))
    yield score_histogram(positive, R.integers(1, 9, 40), R.integers(1, 99, 40), SOURCE, theme=theme)
    yield score_histogram(positive, np.zeros(40), R.integers(1, 99, 40), SOURCE, theme=theme)
    yield statistic_bars(ROWS, "absmax", "largest magnitude", SOURCE, theme=theme)
    yield skip_ranges(HALVES, SOURCE, theme)
    low, high = -R.random(30), R.random(30)
    yield axis_ranges((low, high), (low[:9], high[:9]), (4.0, 1.0), SOURCE, theme=theme)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_plate_says_where_it_comes_from_and_draws(theme: Theme) -> None:
    for plate in plates(theme):
        assert plate.caption.endswith(SOURCE.sentence()) and len(plate.alt) > 20
        if theme == "light":
            assert plate.svg() == plate.svg()
        assert np.asarray(Image.open(io.BytesIO(plate.png(40)))).std() > 1


def test_titles_name_the_tensor_and_captions_count() -> None:
    heat = np.ones((4, 60))
    heat[2, 7] = 50
    plate = channel_timestep_map(heat, TIMES, SOURCE, tensor="input after smoothing", marked=[7])
    assert "input after smoothing" in plate.figure.axes[0].get_title(loc="left")
    assert "in channel 7 at timestep 400" in plate.alt and "mark 1 salient" in plate.caption
    ax, bar = plate.figure.axes
    assert (ax.get_xlabel(), ax.get_ylabel(), bar.get_ylabel()) == (
        "channel",
        "timestep",
        "largest magnitude, log",
    )
    assert (ax.collections[0].get_array() == heat).all() and ax.get_ylim()[0] > ax.get_ylim()[1]
    assert dict(zip(ax.get_yticks(), (t.get_text() for t in ax.get_yticklabels()), strict=True))[2.5] == "400"
    assert [line.get_xdata()[0] for line in ax.lines] == [7.5]
    surfaces = {"input": np.ones((5, 6)), "input after smoothing": np.full((5, 6), 0.25)}
    plain, relative = activation_surfaces(surfaces, SOURCE), activation_surfaces(
        surfaces, SOURCE, units={"input": 0.5, "input after smoothing": 0.25}
    )  # fmt: skip
    assert len({ax.get_zlim() for ax in plain.figure.axes}) == 1 and "0.25" in plain.caption
    assert {ax.get_zlim() for ax in relative.figure.axes} == {(0.0, 2.0)}
    assert {ax.collections[0].norm.vmax for ax in relative.figure.axes} == {2.0}, "one colour scale"
    front = plain.figure.axes[0]
    assert (front.get_xlabel(), front.get_ylabel()) == ("token", "channel")
    assert front.get_xlim()[1] > front.get_ylim()[1], "6 tokens, 5 channels"
    high = np.zeros((200, 3))
    high[[10, 150], 1] = 3, 9
    assert _ratio(np.array([[1, 1, 1], [4, 4, 4], [1, 1, 2]])) == 2, "of channels, not positions"
    joined = _join(high)
    assert (
        joined.shape == (96, 3) and joined.max() == 9 and (joined.argmax() % 3, joined[:50].max()) == (1, 3)
    )
    assert "units of each tensor's rms" in relative.caption


def test_levels_say_what_becomes_zero() -> None:
    edges = np.array([-4.0, -2.0, -0.5, 0.5, 2.0, 4.0])
    counts = np.array([1, 2, 4, 2, 1])
    plate = level_histogram(counts, edges, {"three": np.array([-2.0, 0.0, 2.0])}, SOURCE)
    assert "three: 3 levels, 40.0% of the values round to 0, 20.00% lie outside" in plate.caption
    (bars,) = plate.figure.axes[0].patches
    assert (bars.get_data().values * np.diff(edges)).sum() == pytest.approx(1), (
        "a density: bins differ in width"
    )


def test_drift_skip_and_axis_are_said() -> None:
    drift = drift_bands([1000.0, 833.333, 666.667, 12.5], {"layer": bands()}, SOURCE)
    assert "layer 4.00x" in drift.alt
    ax = drift.figure.axes[0]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1000", "833", "667", "12"], "names do not touch"
    spans = [np.ptp(band.get_paths()[0].vertices[:, 1]) for band in ax.collections]
    assert spans == [16, 8] and sorted(line.get_ydata()[0] for line in ax.lines) == [-8, 0, 8]
    skip = skip_ranges({**HALVES, "second": HALVES["up.shortcut"]}, SOURCE)
    assert "up.shortcut: below 2, skip 8 (4.00x)" in skip.caption
    (ax,) = skip.figure.axes
    assert [t.get_text() for t in ax.get_yticklabels()] == ["up.shortcut", "second"]
    spans = [
        (bar.get_x(), bar.get_width(), round(bar.get_y() + bar.get_height() / 2, 2)) for bar in ax.patches
    ]
    assert spans == [(-2, 3, 1.17), (-8, 14, 0.83), (-2, 3, 0.17), (-8, 14, -0.17)]
    assert list(ax.lines[1].get_xdata()) == [-2, 2], "the root of the mean square"
    assert ax.get_legend_handles_labels()[1] == ["± rms", "from below", "skip"]
    wide, side = (np.array([-1.0, -3.0]), np.array([1.0, 2.0])), (np.array([-1.0]), np.array([1.0]))
    axis = axis_ranges(wide, side, (1.0, 3.0), SOURCE, position="pixel")
    assert "groups pay along pixels" in axis.caption
    one, two = axis.figure.axes
    assert (one.get_xlabel(), two.get_xlabel()) == ("channel, widest first", "pixel, widest first")
    assert (one.get_title(), two.get_title()) == ("D = 1 over channels", "D = 3 over pixels")
    assert one.get_ylim() == two.get_ylim() == (-3.25, 2.25)
    assert one.collections[0].get_paths()[0].vertices[:, 1].min() == -3
    left = one.collections[0].get_paths()[0].vertices
    assert left[left[:, 0] < 0.5, 1].min() == -3, "the widest first"
    mass = sink_mass({"m1": np.full((4, 9), 1 / 9), "m2": np.eye(1, 9)}, SOURCE)
    assert "the leading token gets 0.111 to 1 (most in m2)" in mass.alt
    heat, _, side = mass.figure.axes
    assert list(heat.lines[0].get_xdata()) == [0, 0] and heat.get_ylim() == side.get_ylim() == (2, 0)
    assert [t.get_text() for t in heat.get_yticklabels()] == ["m1", "m2"]
    means = [float(line.get_xdata()[0]) for line in side.lines if line.get_marker() == "o"]
    assert means == pytest.approx([1 / 9, 1]) and side.lines[-1].get_xdata()[0] == pytest.approx(1 / 9)


def test_probabilities_too_small_for_the_axis_are_counted_in_every_share() -> None:
    edges, none = np.array([0.0078125, 0.03125, 0.0625, 1.0]), np.zeros(3)
    plate = score_histogram(edges, np.array([0, 0, 6]), np.array([10, 30, 0]), SOURCE, below=(4, 50))
    # half a step of 4 bits is 1/30, in the second bin: of its 30 the first fifteenth
    assert "66.0% of them become 0" in plate.alt and "54.0% are below 0.0078" in plate.caption
    names = [text.get_text() for text in plate.figure.axes[0].get_legend().get_texts()]
    assert {"other keys (90.0% of all)", "leading token (10.0% of all)", "54.0% lie left of the axis"} < set(
        names
    )
    drawn = [patch.get_data().values for patch in plate.figure.axes[0].patches[::2]]
    octaves = np.log2(edges[1:] / edges[:-1])
    assert [float((shares * octaves).sum()) for shares in drawn] == pytest.approx([40 / 90, 6 / 10])
    with pytest.raises(InputError):
        score_histogram(edges, none, none, SOURCE, below=(4, 50))
    leading = bins.count(torch.tensor([[0.0], [1e-6], [0.25], [1.0]]), 1).numpy()
    rest = bins.count(torch.tensor([[0.0], [0.75], [0.01], [1e-7]]), 1).numpy()
    for kind, shares in (("cross", 4), ("self", 3)):
        said = _scores(SimpleNamespace(leading=leading, rest=rest, kind=kind, module="m"), SOURCE)("light")
        assert "62.5% of them become 0" in said.alt and "25.0% are above 1/2; 50.0% are below" in said.alt
        assert len(said.figure.axes[0].get_legend().get_texts()) == shares


def test_layers_sort_with_the_missing_last() -> None:
    assert [r["layer"] for r in sorted_layers(ROWS, "absmax")] == ["b", "a", "c"]
    assert [r["layer"] for r in sorted_layers(ROWS, "skip_ratio")] == ["b", "a", "c"]
    plate = statistic_bars(ROWS, "absmax", "m", SOURCE)
    assert "b has the largest, 9; the median layer 3" in plate.caption
    (ax,) = plate.figure.axes
    named = dict(zip(ax.get_yticks(), (t.get_text() for t in ax.get_yticklabels()), strict=True))
    drawn = {named[bar.get_y() + bar.get_height() / 2]: bar for bar in ax.patches}
    assert {name: bar.get_width() for name, bar in drawn.items()} == {"a": 3, "b": 9, "c": 1}
    assert {name for name, bar in drawn.items() if bar.get_hatch()} == {"b"}, "the convolution"
    assert max(named, key=lambda place: place) == 2 and named[2] == "b", "the largest on top"
    assert [t.get_text() for t in ax.texts] == [" +2"] and ax.lines[0].get_xdata()[0] == 3
    _, labels = ax.get_legend_handles_labels()
    assert sorted(labels) == ["Conv2d", "Linear", "median layer, 3"]
    with pytest.raises(InputError, match="no column 'absmin' to sort by; there are absmax"):
        sorted_layers(ROWS, "absmin")


def test_long_names_keep_their_end() -> None:
    assert (
        shorten("up_blocks.1.attentions.0.transformer_blocks.1.ff.net.2", 99) == "up.1.attn.0.tb.1.ff.net.2"
    )
    assert shorten("x" * 50 + "end", 10) == "…" + "x" * 6 + "end"


@pytest.mark.parametrize(
    "draw",
    [
        lambda: channel_timestep_map(np.ones((3, 5)), TIMES, SOURCE),
        lambda: channel_timestep_map(np.full((4, 5), np.nan), TIMES, SOURCE),
        lambda: activation_surfaces({"a": np.ones((3, 4)), "b": np.ones((4, 4))}, SOURCE),
        lambda: level_histogram(np.zeros(3), np.arange(4), {"int4": np.ones(1)}, SOURCE),
        lambda: level_histogram(np.ones(3), np.arange(3), {"int4": np.ones(1)}, SOURCE),
        lambda: drift_bands(TIMES, {}, SOURCE),
        lambda: sink_mass({"a": np.ones((2, 3)), "b": np.ones((2, 4))}, SOURCE),
        lambda: score_histogram(np.arange(4), np.ones(3), np.ones(3), SOURCE),
        lambda: skip_ranges({}, SOURCE),
        lambda: statistic_bars([{"layer": "a", "skip_ratio": None}], "skip_ratio", "m", SOURCE),
    ],
)
def test_figures_refuse_what_they_cannot_draw(draw) -> None:
    with pytest.raises(InputError) as caught:
        draw()
    assert "\n" not in str(caught.value)


def test_the_legend_of_a_few_long_bars_lies_outside_them() -> None:
    rows = [{"layer": f"l{i}", "kind": "Linear", "absmax": 9.0 - i / 10} for i in range(2)]
    figure = statistic_bars(rows, "absmax", "m", SOURCE).figure
    (legend,) = figure.legends
    figure.draw_without_rendering()
    assert not legend.get_window_extent().overlaps(figure.axes[0].get_tightbbox())


def test_a_file_carries_its_caption() -> None:
    plate = statistic_bars(ROWS, "absmax", "largest magnitude", SOURCE)
    plain, footed = (Image.open(io.BytesIO(plate.png(foot=foot))) for foot in (False, True))
    assert plain.info["Description"] == footed.info["Description"] == plate.caption
    assert footed.width == plain.width and footed.height > plain.height
    below = np.asarray(footed.convert("RGBA"))[plain.height :, :, 3]
    assert below.any() and not below[:, -3:].any()  # written, and inside
    assert (np.asarray(footed.convert("RGBA"))[: plain.height] == np.asarray(plain.convert("RGBA"))).all()
    assert plate.png(foot=True) == plate.png(foot=True)
