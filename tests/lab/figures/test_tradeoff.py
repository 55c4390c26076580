"""Trade-off and error figures: what is drawn, the front, bad input."""

from __future__ import annotations

import pytest

from lab.errors import InputError
from lab.figures.brain.bits import Level, quality_over_bytes
from lab.figures.plate import Provenance
from lab.figures.tradeoff import Point, errors_over_time, pareto, quality_against_bytes

SOURCE = Provenance("tiny", "8 pictures")


def test_front_has_only_what_nothing_beats() -> None:
    points = [Point(n, "m", x, y) for n, x, y in (("a", 1, 5), ("b", 1, 6), ("c", 2, 6), ("d", 3, 7))]
    assert [p.label for p in pareto(points)] == ["b", "d"]


def test_every_recipe_is_in_the_picture_and_its_words() -> None:
    points = [Point(f"r{i}", f"m{i % 9}", 1 + i, 20 + i, 19 + i, 21 + i) for i in range(20)]
    plate = quality_against_bytes(points, "paired PSNR, dB", 30.0, SOURCE)
    drawn = sum(len(line.get_xdata()) for line in plate.figure.axes[0].lines if line.get_marker() != "None")
    assert drawn == len(points)
    assert all(p.label in plate.alt for p in points) and "30.0 MB" in plate.caption
    ax = plate.figure.axes[0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("size of all tensors, MB", "paired PSNR, dB")
    bars = [line for line in ax.lines if line.get_marker() == "None" and len(set(line.get_xdata())) == 1]
    assert sorted(tuple(bar.get_ydata()) for bar in bars) == [(19 + i, 21 + i) for i in range(20)]
    markers = {line.get_marker() for line in plate.figure.axes[0].lines} - {"None"}
    assert len(markers) == 7  # methods are told apart without colour


def test_errors_run_from_noise_to_picture_and_zeros_are_gaps() -> None:
    curves = {
        "exact": ("a", [1000.0, 500.0], [0.0, 0.0]),
        "rough": ("b", [1000.0, 500.0], [0.1, 0.2]),
        "start": ("b", [1000.0, 500.0], [0.0, 0.3]),
    }
    plate = errors_over_time(curves, "Error", SOURCE)
    ax = plate.figure.axes[0]
    assert ax.get_xlim()[0] > ax.get_xlim()[1] and ax.get_yscale() == "log"
    assert [len(line.get_xdata()) for line in ax.lines] == [2, 1]


def test_few_recipes_are_told_apart_though_of_one_method() -> None:
    curves = {f"r{i}": ("m", [1000.0, 500.0], [0.1, 0.2 + i]) for i in range(3)}
    points = [Point(label, "m", 1 + i, i) for i, label in enumerate(curves)]
    for plate in (
        errors_over_time(curves, "Error", SOURCE),
        quality_against_bytes(points, "PSNR", 9.0, SOURCE),
    ):
        legend = plate.figure.axes[0].get_legend()
        assert [text.get_text() for text in legend.get_texts()] == list(curves)
        assert len({line.get_color() for line in legend.get_lines()}) == 3


def test_many_recipes_share_their_methods_style_and_the_named_are_written() -> None:
    curves = {f"r{i}": (f"m_{i % 2}", [1000.0, 500.0], [0.1, 0.2 * 2**i]) for i in range(9)}
    ax = errors_over_time(curves, "Error", SOURCE, ["r0", "r8"]).figure.axes[0]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["m-0", "m-1"]
    assert [text.get_text() for text in ax.texts] == ["r0", "r8"]


LONG = (
    "qvgen-w4a4+policy=common+helper=kept+group=64+rank=16+unshrunk=true+weight_bits=3+train_steps=400"
    "+look_every=100"
)


@pytest.mark.parametrize("count", [3, 9])
def test_long_names_of_recipes_leave_room_for_the_axes(count: int) -> None:
    """A layout that collapses is an error of every test (pyproject.toml)."""
    names = [f"{LONG}+rate_weight={i}" for i in range(count)]
    curves = {name: ("qvgen", [1000.0, 500.0], [0.1, 0.2 * 2**i]) for i, name in enumerate(names)}
    points = [Point(name, "qvgen", 1 + i, i) for i, name in enumerate(names)]
    levels = [Level(f"full precision, {LONG}", 1.0)]
    for plate in (
        errors_over_time(curves, "Error", SOURCE, [names[0], names[-1]]),
        quality_against_bytes(points, "PSNR", 9.0, SOURCE),
        quality_over_bytes(points, levels, "PixCorr", SOURCE),
    ):
        ax, (width, height) = plate.figure.axes[0], plate.figure.get_size_inches()
        box = ax.get_position()
        assert box.width * width > 4.5 and 2.4 < box.height * height < 5
        ends = ax.get_legend().get_window_extent().transformed(plate.figure.dpi_scale_trans.inverted())
        assert ends.y0 > 0 and ends.x1 < width
        assert names[-1] in plate.alt


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(InputError):
        quality_against_bytes([], "PSNR", 1.0, SOURCE)
    with pytest.raises(InputError):
        errors_over_time({}, "Error", SOURCE)
