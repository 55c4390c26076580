"""Figures: what is chosen and counted, captions that say where numbers come from, refusals."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from lab.errors import InputError
from lab.figures import (
    Provenance,
    brain_slices,
    category_accuracies,
    channel_histogram,
    choose,
    confusion_matrices,
    layer_bytes,
    layer_rows,
    mac_shares,
    metric_rows,
    picture_grid,
    picture_png,
    response_profile,
    score_chart,
    share_of_macs,
    training_curve,
    voxel_scores,
)
from lab.figures.brain.scores import KNOWN
from lab.figures.distributions import _extent

SOURCE = Provenance("simulated sub-01", "12 test pictures", 3, "abc123", simulated=True)
GENERATOR = np.random.default_rng(0)
METRICS = {
    "pixcorr": 0.6, "pixcorr.low": 0.5, "pixcorr.high": 0.7, "ridge.pixcorr": 0.5, "fp.pixcorr": 0.61,
    "mse": 0.03, "two_way_pix": 0.95, "two_way_head": 0.9, "ridge.two_way_head": 0.8,
    "minus_ridge.pixcorr": 0.1, "n_test": 12, "simulated": True, "seconds_total": 3.0, "ssim": None,
    "chance.pixcorr": 0.12,
}  # fmt: skip
FORMATS = [{"grid": {"kind": "int", "bits": 8}}, {"grid": {"kind": "float", "exponent": 2, "mantissa": 1}}]
LEDGER = {
    "formats": FORMATS,
    "layers": [
        {"name": "a", "kind": "Linear", "shape": [10, 100], "weight": 0, "activation": 0, "reason": None,
         "macs": 3000, "bytes_before": 4000, "bytes_after": 1040,
         "path": "simulated (triton); from codes: int8_linear"},
        {"name": "b", "kind": "Linear", "shape": [10, 100], "weight": 1, "activation": None, "reason": None,
         "macs": 900, "bytes_before": 4000, "bytes_after": 540, "path": "w4: triton"},
        {"name": "out", "kind": "Conv2d", "shape": [1, 10, 1, 1], "weight": None, "activation": None,
         "reason": "last layer", "macs": 100, "bytes_before": 40, "bytes_after": 40, "path": "float"},
    ],
}  # fmt: skip


def test_choice_by_rule():
    score = np.array([0.5, 0.1, 0.9, 0.3, 0.7, 0.2, 0.8, 0.4, 0.6, 0.0, 0.55, 0.45])
    groups = dict(choose(score, n_each=3, seed=1))
    assert groups["best"] == [2, 6, 4]
    assert groups["worst"] == [5, 1, 9]
    assert set(groups["median"]) <= {0, 3, 7, 8, 10, 11}
    every = [i for g in groups.values() for i in g]
    assert len(every) == len(set(every)) == 12
    assert choose(score, 3, seed=1) == choose(score, 3, seed=1)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7])
def test_choice_with_few_pictures(n):
    chosen = [i for _, group in choose(np.arange(n) / 10, 3) for i in group]
    assert chosen[0] == n - 1
    assert len(chosen) == len(set(chosen)) == min(n, 4)


def test_nan_score_ranks_last():
    assert dict(choose(np.array([np.nan, 0.2, 0.1, 0.3]), 1))["worst"] == [0]


def test_picture_png_holds_the_picture():
    picture = GENERATOR.random((28, 28))
    image = Image.open(io.BytesIO(base64.b64decode(picture_png(picture, least=64).split(",")[1])))
    assert image.size == (84, 84)
    np.testing.assert_array_equal(np.asarray(image)[::3, ::3], np.rint(picture * 255))


def test_metric_rows():
    rows = {row.key: row for row in metric_rows(METRICS)}
    assert list(rows) == [
        "pixcorr",
        "mse",
        "two_way_pix",
        "two_way_head",
    ]  # not counts, times or missing ones
    assert rows["pixcorr"].cells["quantized"].low == 0.5
    assert rows["pixcorr"].cells["ridge"].value == 0.5
    assert rows["pixcorr"].cells["mean image"].value is None
    assert (
        rows["pixcorr"].chance == 0.12 and rows["two_way_head"].chance == 0.5 and rows["mse"].chance is None
    )
    assert {name for name, (_, larger, _) in KNOWN.items() if not larger} == {"mse", "st_lpips"}
    assert not rows["mse"].larger_is_better
    assert rows["pixcorr"].against_ridge.value == 0.1


def test_ledger_rows_state_bits_with_how():
    rows = layer_rows(LEDGER)
    assert [r.stated_bits for r in rows] == ["W8A8 (simulated)", "W4A32 (native)", "full precision, 32 bits"]
    assert share_of_macs(rows)[0] == ("W8A8 (simulated)", 0.75)
    assert rows[2].reason == "last layer"
    bar = mac_shares(rows, SOURCE)
    (ax,) = bar.figure.axes
    assert "75.0%" in bar.alt and [patch.get_width() for patch in ax.patches] == pytest.approx(
        [0.75, 0.225, 0.025]
    )
    assert [patch.get_x() for patch in ax.patches] == pytest.approx([0, 0.75, 0.975])
    named = [t.get_text() for t in bar.figure.legends[0].get_texts()]
    assert named == ["W8A8 (simulated) 75.0%", "W4A32 (native) 22.5%", "full precision, 32 bits 2.5%"]
    plate = layer_bytes(rows, SOURCE, most=2)
    assert "the 2 largest of 3 layers; all layers together take 0.01 MB before" in plate.caption
    (ax,) = plate.figure.axes
    before, after = ax.containers
    assert (before.get_label(), after.get_label()) == ("before", "after, with scales and side branches")
    assert [b.get_width() for b in before] == [4, 4] and [b.get_width() for b in after] == [1.04, 0.54]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"] and before[0].get_y() > before[
        1
    ].get_y()


def plates():
    pictures = {k: GENERATOR.random((12, 16, 16)) for k in ("stimulus", "fp", "quantized")}
    score = GENERATOR.random(12)
    xyz = GENERATOR.normal((0, -70, 0), 10, (200, 3))
    yield picture_grid(pictures, choose(score), score, SOURCE)
    yield score_chart(metric_rows(METRICS), SOURCE)
    yield brain_slices(xyz, np.arange(200) % 7, "cluster", SOURCE, categorical=True, theme="dark")
    yield brain_slices(xyz, np.zeros(200), "noise ceiling", SOURCE, space="scanner")
    yield response_profile(np.arange(200) % 7, GENERATOR.random(200), SOURCE)
    yield training_curve([0, 1, 2], {"training": [3, 2, 1], "validation": [3, 2.5, None]}, SOURCE)
    yield mac_shares(layer_rows(LEDGER), SOURCE)
    yield layer_bytes(layer_rows(LEDGER), SOURCE)
    yield channel_histogram(np.ones((4, 6)), np.linspace(-2, 2, 5), SOURCE, clip=(-1, 1))
    counts = {"Brain-IT": np.arange(9).reshape(3, 3), "ridge": np.eye(3, dtype=int)}
    yield confusion_matrices(counts, ["cat", "face", "house"], SOURCE, theme="dark")
    yield category_accuracies({"ridge": {"cat": 0.5, "face": 0.2}}, ["cat", "face"], 0.5, SOURCE)


def test_every_plate_says_where_it_comes_from_and_draws():
    for plate in plates():
        assert plate.caption.endswith(SOURCE.sentence())
        assert "simulated subject" in plate.caption
        assert len(plate.alt) > 20
        first, second = plate.svg(), plate.svg()
        assert first.startswith(b"<?xml")
        assert first == second, plate.alt
        assert np.asarray(Image.open(io.BytesIO(plate.png(50)))).std() > 1
        assert 'src="data:image/svg+xml;base64,' in plate._repr_html_()


def test_voxels_of_all_subjects_are_drawn_on_one_scale():
    r = {
        "sub-01": np.array([-0.5, 0.2, 0.9]),
        "sub-02": np.array([0.1, 0.2, 0.3]),
        "sub-03": np.array([0.0, 0.1]),
    }
    plate = voxel_scores(r, {"sub-01": np.array([0.25, 0.49, 0.81]), "sub-02": np.full(3, 0.04)}, SOURCE)
    one, two, three = plate.figure.axes
    places = one.collections[0].get_offsets()
    np.testing.assert_allclose(places, np.stack([[0.5, 0.7, 0.9], r["sub-01"]], 1))
    assert one.get_ylim() == two.get_ylim() == (-0.5, 1) and one.get_xlabel() == "√ noise ceiling"
    assert (
        three.get_xlim() == (-0.55, pytest.approx(0.95)) and sum(b.get_height() for b in three.patches) == 2
    )
    assert "sub-01 mean 0.20, best quarter from 0.55" in plate.caption


def test_template_only_in_its_own_space():
    xyz, values = GENERATOR.normal(0, 20, (50, 3)), np.ones(50)
    assert "MNI152 template" in brain_slices(xyz, values, "beta", SOURCE, space="MNI152NLin2009c").caption
    assert "no template" in brain_slices(xyz, values, "beta", SOURCE, space="scanner").caption


def test_voxels_are_drawn_at_their_size_and_an_unknown_space_is_said():
    """Few voxels are not a few dots far apart."""
    xyz = 2.0 * np.argwhere(np.ones((4, 5, 6))) + [0, 100, -50]
    plate = brain_slices(xyz, np.arange(len(xyz)), "cluster", SOURCE, space="")
    assert "the files do not say which space" in plate.caption
    for ax in plate.figure.axes[:3]:
        (drawn,) = ax.collections
        corners = drawn.get_paths()[0].vertices
        np.testing.assert_allclose(np.ptp(corners, axis=0), 2.0)
        assert np.ptp(ax.get_xlim()) < 16, "as large as what was measured"
    for ax, axis, (across, up) in zip(plate.figure.axes, range(3), ((1, 2), (0, 2), (0, 1)), strict=False):
        name, cut = ax.get_title().split(", ")
        assert name == ("sagittal", "coronal", "axial")[axis] and cut.split(" = ")[0] == "xyz"[axis]
        assert xyz[:, axis].min() <= float(cut.split()[2]) <= xyz[:, axis].max()
        assert ax.get_xlabel() == ("left – right", "back – front")[across]
        for limits, side in ((ax.get_xlim(), across), (ax.get_ylim(), up)):
            assert limits[0] < xyz[:, side].min() and limits[1] > xyz[:, side].max()


def test_a_single_slice_is_drawn_alone():
    xyz = np.stack([GENERATOR.normal(0, 20, 50), GENERATOR.normal(0, 20, 50), np.zeros(50)], 1)
    plate = brain_slices(xyz, np.ones(50), "beta", SOURCE, space="scanner")
    assert "all in one slice" in plate.caption and "50 on the axial cut" in plate.alt
    (ax, _), (drawn,) = plate.figure.axes, plate.figure.axes[0].collections
    centres = np.array([path.vertices[:4].mean(0) for path in drawn.get_paths()])
    np.testing.assert_allclose(centres, xyz[:, :2])
    assert ax.get_xlabel() == "left – right" and ax.get_xlim()[0] < ax.get_xlim()[1]
    assert ax.get_ylim()[0] < ax.get_ylim()[1], "the front is up"
    assert "sagittal" not in plate.alt


def test_confusions_and_category_accuracies():
    classes = ["cat", "face", "house"]
    counts = {"Brain-IT": np.diag([4, 3, 2]) + np.eye(3, k=2, dtype=int) * 2, "ridge": np.eye(3, dtype=int)}
    plate = confusion_matrices(counts, classes, SOURCE)
    assert "Brain-IT: 9 of 11 on the diagonal, most often cat taken for house (2)" in plate.alt
    ax, other = plate.figure.axes
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("seen", "decoded")
    assert [t.get_position() for t in ax.texts if t.get_text() == "2"] == [(2, 0), (2, 2)], "row 0, column 2"
    assert ax.images[0].get_clim() == other.images[0].get_clim(), "one colour scale"
    shares = {"Brain-IT": {"cat": 0.7, "face": 1.0, "house": 0.0}}
    plate = category_accuracies(shares, classes, 1 / 3, SOURCE)
    assert "best face, worst house" in plate.alt
    (ax,) = plate.figure.axes
    (points,) = (line for line in ax.lines if line.get_label() == "Brain-IT")
    assert points.get_ydata().tolist() == [0.7, 1, 0] and points.get_xdata().tolist() == [0, 1, 2]
    assert [line.get_ydata()[0] for line in ax.lines if line.get_label() == "chance"] == [1 / 3]


def test_clip_share_is_counted_and_channels_stand_by_width():
    counts = np.array([[0, 10, 0], [4, 20, 0], [4, 30, 5], [0, 40, 0]])
    plate = channel_histogram(counts, np.linspace(-2, 2, 5), SOURCE, clip=(-1, 1))
    assert "44.25% of the values lie outside" in plate.caption and "the widest reaches 2" in plate.alt
    drawn = plate.figure.axes[0].collections[0].get_array()
    assert (10 ** drawn[:, 0]).tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4]), "the widest first, by channel"
    assert drawn.mask[:, 1].tolist() == [True, False, False, True]
    assert drawn.mask[:, 2].tolist() == [True, True, False, True]
    assert _extent(np.array([[1, 0], [0, 1]]), np.array([-4.0, -1.0, 2.0])).tolist() == [4, 2], "of magnitude"


def test_networks_that_stop_at_epochs_of_their_own_are_a_line_each():
    losses = {"training": [[3, 3], [2, 2], [1, None]], "validation": [[3, 3], [2.5, 2.6], [2.4, None]]}
    plate = training_curve([1, 2, 3], losses, SOURCE)
    (ax,) = plate.figure.axes
    drawn = [line for line in ax.lines if len(line.get_xdata()) == 3]
    assert [line.get_ydata()[1] for line in drawn] == [2, 2, 2.5, 2.6]
    assert sorted(line.get_xdata()[0] for line in ax.lines if line not in drawn) == [2, 3]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [
        "training",
        "validation",
        "kept: epochs 2 to 3",
    ]
    assert "of 2 networks, each kept at the lowest of its own" in plate.caption
    assert "training ends at 1.5, validation ends at 2.5" in plate.alt


@pytest.mark.parametrize(
    "call",
    [
        lambda: choose(np.array([])),
        lambda: score_chart([], SOURCE),
        lambda: brain_slices(np.full((3, 3), np.nan), np.ones(3), "x", SOURCE),
        lambda: response_profile(None, None, SOURCE),
        lambda: training_curve([1, 2], {"training": [1]}, SOURCE),
        lambda: mac_shares([], SOURCE),
        lambda: layer_bytes([], SOURCE),
        lambda: channel_histogram(np.ones((4, 6)), np.zeros(5), SOURCE),
        lambda: picture_grid({}, [], np.ones(3), SOURCE),
        lambda: confusion_matrices({}, ["cat"], SOURCE),
        lambda: confusion_matrices({"ridge": np.ones((2, 3))}, ["cat", "face"], SOURCE),
        lambda: category_accuracies({}, ["cat"], 0.5, SOURCE),
    ],
)
def test_nothing_to_draw_is_refused(call):
    with pytest.raises(InputError):
        call()


def test_a_run_that_starts_at_pure_noise_shows_no_structural_picture() -> None:
    from lab.figures.brain.pictures import ROWS, rows_of

    assert rows_of(0.7) == rows_of(None) == ROWS
    assert [name for name, _ in rows_of(1)] == ["stimulus", "fp", "quantized"]


def test_full_precision_is_not_called_quantized_and_stands_once():
    plain = metric_rows({**METRICS, "recipe": "none"})
    for row in plain:
        assert row.label_of("quantized") == "full precision" and row.cells["full precision"].value is None
    chart = score_chart(plain, SOURCE)
    assert "quantized" not in chart.alt and chart.alt.count("full precision") == len(plain)
    assert "quantized" in score_chart(metric_rows(METRICS), SOURCE).alt
