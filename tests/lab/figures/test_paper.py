"""Figures for print: text as large as was asked for, no title of the whole, legends below, the same bytes."""

from __future__ import annotations

import re

import numpy as np
import pytest

from lab.figures.activations import channel_timestep_map
from lab.figures.distributions import drift_bands
from lab.figures.paper import for_paper
from lab.figures.plate import Plate, Provenance, ink
from lab.figures.tradeoff import errors_over_time
from tests.lab.figures.test_inspection import SOURCE, TIMES, bands


def heat() -> Plate:
    return channel_timestep_map(np.arange(1.0, 25).reshape(4, 6), TIMES, SOURCE, marked=[1])


def texts(svg: str) -> list[str]:
    return [re.sub(r"\s+", " ", found) for found in re.findall(r">([^<>]+)</(?:text|tspan)>", svg)]


def test_a_pdf_of_a_columns_width_with_its_caption_and_no_title() -> None:
    plate = heat()
    before = plate.png()
    pdf = for_paper(plate)
    assert pdf.startswith(b"%PDF") and b"/MediaBox [ 0 0 244.8 " in pdf and b"/FontFile2" in pdf
    assert b"CreationDate" not in pdf and pdf == for_paper(plate) and plate.png() == before
    svg = for_paper(plate, "svg", points=6).decode()
    assert "timestep" in texts(svg) and not any("of each channel" in text for text in texts(svg))
    assert set(re.findall(r"font(?:-size)?: ([\d.]+)px", svg)) == {"6"}


def test_panels_keep_their_titles_and_legends_stand_below() -> None:
    svg = for_paper(drift_bands(TIMES, {f"layer{i}": bands() for i in range(4)}, SOURCE), "svg").decode()
    assert {f"layer{i}" for i in range(4)} < set(texts(svg)) and "median" in texts(svg)
    assert 'width="489.6pt"' in svg  # three panels side by side: both columns
    curves = {name: (name, [1000.0, 500.0], [0.01, 0.2]) for name in ("first", "second")}
    svg = for_paper(errors_over_time(curves, "Error over signal " * 6, SOURCE), "svg").decode()
    assert {"first", "second"} < set(texts(svg))


@pytest.mark.parametrize("which", ["get_major_ticks", "get_minor_ticks"])
def test_labels_of_a_logarithmic_axis_can_be_read_in_the_dark(which: str) -> None:
    plate = errors_over_time(
        {"a": ("m", [1000.0, 500.0], [0.02, 0.2])}, "Error", Provenance("m"), theme="dark"
    )
    ticks = getattr(plate.figure.axes[0].yaxis, which)()
    assert ticks and {tick.label1.get_color() for tick in ticks} == {ink("dark")[0]}


def test_long_names_are_folded_to_the_width() -> None:
    name = "qvgen-w4a4+policy=common+helper=kept+group=64+rank=16+unshrunk=true+weight_bits=3+train_steps=400"
    plate = errors_over_time({name: ("qvgen", [900.0, 500.0], [0.1, 0.2])}, "Error", SOURCE)
    lines = [text for text in texts(for_paper(plate, "svg").decode()) if "=" in text]
    assert "".join(lines) == name and max(map(len, lines)) <= 3.4 * 72 / (0.55 * 8)
