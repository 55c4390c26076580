"""DGQ: which axis is clustered, what its ranges hold, tables by timestep, and the method from end to end."""

from __future__ import annotations

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import nn

import quant
from quant.formats.clusters import CHANNEL, POSITION, as_matrix
from quant.formats.granularity import Granularity
from quant.formats.grids import IntGrid
from quant.formats.quantizer import Quantizer
from quant.formats.schedule import Clock, Schedule
from quant.layers.activation import ActivationQuantizer
from quant.methods.dgq import DgqConfig
from quant.methods.dgq.core import formats
from quant.methods.dgq.ranges import AxisRanges, cluster, spread, table

INPUT = formats(
    quant.denoisers.inventory.LayerInfo("x", "Linear", (4, 4), 1, 0, True), DgqConfig()
).activation
LAYOUTS = ["linear_input", "conv_input"]


def rand(layout: str, seed: int = 0, side: int = 6) -> torch.Tensor:
    shape = (3, side * side, 20) if layout == "linear_input" else (3, 20, side, side)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def calibrated(inputs: dict[float, torch.Tensor], layout: str, groups: int, axis: str = "auto"):
    """An input quantizer calibrated on one batch at each timestep, and what the ledger says."""
    ranges = AxisRanges(layout)
    for timestep, x in inputs.items():
        for part in x.split(1):
            ranges.update(part, timestep)
    stored, times, notes = table(ranges, INPUT, groups, axis, 0, 20)
    clock = Clock()
    clock.timestep = torch.tensor([next(iter(inputs))])
    return ActivationQuantizer(INPUT, layout, stored, times, clock), notes


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_hot_index_chooses_its_axis(layout: str) -> None:
    x = rand(layout)
    matrix = as_matrix(x, layout)  # a view of x, so x changes with it
    hot = x.clone()
    as_matrix(hot, layout)[..., 7] += 40
    quantizer, notes = calibrated({1.0: hot}, layout, 4)
    assert quantizer.axis.tolist() == [CHANNEL] and notes["channel_share"] == 1
    assert notes["spread_channel"] > 30 > notes["spread_position"]
    hot = x.clone()
    if layout == "linear_input":
        hot[:, 11] += 40
    else:
        hot[:, :, 1, 5] += 40
    assert calibrated({1.0: hot}, layout, 4)[0].axis.tolist() == [POSITION]
    assert calibrated({1.0: hot}, layout, 4, "channel")[0].axis.tolist() == [CHANNEL]
    assert matrix.shape == (3, 36, 20)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_cluster_is_one_range_for_the_tensor(layout: str) -> None:
    x = rand(layout)
    plain = Quantizer(grid=IntGrid(bits=6, mode="asymmetric"), granularity=Granularity(kind="tensor"))
    torch.testing.assert_close(calibrated({1.0: x}, layout, 1)[0](x), plain.fake(x, layout), rtol=0, atol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_as_many_clusters_as_channels_is_one_range_a_channel(layout: str) -> None:
    x = rand(layout)
    each = Quantizer(grid=IntGrid(bits=6, mode="asymmetric"), granularity=Granularity(kind="input_channel"))
    found = calibrated({1.0: x}, layout, 20, "channel")[0](x)
    torch.testing.assert_close(found, each.fake(x, layout), rtol=0, atol=0)


@pytest.mark.parametrize("axis", ["channel", "position"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_calibration_data_are_not_clipped(layout: str, axis: str) -> None:
    x = rand(layout) * torch.linspace(0.1, 9, x_size(layout))
    quantizer, _ = calibrated({1.0: x}, layout, 5, axis)
    error, scale = (quantizer(x) - x).abs(), quantizer.params(x)["scale"]
    # half a step of rounding and half a step by which the rounded zero point may move the range
    assert (error <= scale.expand_as(x) * 1.0001).all()
    assert (error > 0).any()


def x_size(layout: str) -> int:
    return 20 if layout == "linear_input" else 6


def test_zero_is_exact_so_padding_is() -> None:
    x = rand("conv_input") + 5
    x[:, :, 0] = 0.0
    quantizer, _ = calibrated({1.0: x}, "conv_input", 4)
    assert (quantizer(x)[:, :, 0] == 0).all()


def test_order_of_indices_changes_labels_only() -> None:
    x = rand("linear_input") * torch.linspace(0.1, 9, 20)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    one, two = (calibrated({1.0: v}, "linear_input", 5, "channel")[0] for v in (x, x[..., order]))
    torch.testing.assert_close(two(x[..., order]), one(x)[..., order], rtol=0, atol=0)
    assert torch.equal(one.scale.sort().values, two.scale.sort().values)


def test_spread_and_clusters_by_hand() -> None:
    low, high = torch.tensor([-1.0, -1.0, -9.0]), torch.tensor([1.0, 2.0, 9.0])
    assert spread(low, high) == 8.0 + 8.0
    assert cluster(low, high, 2, 0).tolist() == [0, 0, 1]
    flat = torch.zeros(3)
    assert cluster(low, flat, 2, 0).tolist() == cluster(flat, high, 2, 0).tolist() == [0, 0, 1]  # both count
    crowd = torch.tensor([0.9] * 12 + [1.9, 2.0, 2.8, 3.1])  # equal points count as often as they are
    assert cluster(torch.zeros(16), crowd, 2, 0).tolist() == [0] * 12 + [1] * 4
    many = torch.rand(2, 200, generator=torch.Generator().manual_seed(0))
    one, same, other = (cluster(-many[0], many[1], 16, seed) for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert cluster(low, high, 7, 0).tolist() == [0, 1, 2]  # no empty clusters where there are fewer points


def test_vectors_have_one_range() -> None:
    """As time embeddings have it in the released code: two axes are no tokens."""
    x = rand("linear_input")[:, 0] * torch.linspace(0.1, 9, 20)
    quantizer, _ = calibrated({1.0: x}, "linear_input", 4)
    assert set(quantizer.labels.flatten().tolist()) <= {0, 255}
    plain = Quantizer(grid=IntGrid(bits=6, mode="asymmetric"), granularity=Granularity(kind="tensor"))
    torch.testing.assert_close(quantizer(x), plain.fake(x, "linear_input"), rtol=0, atol=0)


def test_more_clusters_are_better() -> None:
    x = rand("linear_input") * torch.logspace(-2, 1, 20)
    errors = [(calibrated({1.0: x}, "linear_input", k, "channel")[0](x) - x).norm() for k in (1, 2, 8, 20)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.5 * errors[0]


def test_tables_are_read_by_timestep_value() -> None:
    a, b = rand("linear_input"), rand("linear_input", 1) * 30
    b[:, 4] += 90
    quantizer, notes = calibrated({900.0: a, 100.0: b}, "linear_input", 4)
    assert quantizer.timesteps.tolist() == [100.0, 900.0] and 0 <= notes["channel_share"] <= 1
    alone = [calibrated({t: x}, "linear_input", 4)[0](x) for t, x in ((900.0, a), (100.0, b))]
    for _ in range(2):  # a second call changes nothing: no counter
        for timestep, x, expected in ((100.0, b, alone[1]), (900.0, a, alone[0])):
            quantizer.clock.timestep = torch.tensor([timestep])
            assert torch.equal(quantizer(x), expected)
    quantizer.clock.timestep = torch.tensor([900.0, 100.0, 900.0])  # one for each sample, axes may differ
    mixed = torch.stack([a[0], b[1], a[2]])
    expected = torch.stack([alone[0][0], alone[1][1], alone[0][2]])
    torch.testing.assert_close(quantizer(mixed), expected, rtol=0, atol=0)
    quantizer.clock.timestep = torch.tensor([500.0])
    with pytest.raises(quant.InputError, match="timestep 500 is not in the calibrated table"):
        quantizer(a)


def test_frames_taken_for_pictures_have_their_clips_timestep() -> None:
    """A layer that sees (clips x frames) of two clips at two timesteps: they do not alternate."""
    a, b = rand("conv_input"), rand("conv_input", 1) * 30
    quantizer, _ = calibrated({900.0: a, 100.0: b}, "conv_input", 4)
    frames = torch.cat([a, b])  # two clips of three frames
    expected = []
    for timestep, x in ((900.0, a), (100.0, b)):
        quantizer.clock.timestep = torch.tensor([timestep])
        expected.append(quantizer(x))
    quantizer.clock.hook(
        nn.Identity(), (frames.unflatten(0, (2, 3)),), {"timestep": torch.tensor([900.0, 100.0])}
    )
    assert torch.equal(quantizer(frames), torch.cat(expected))
    quantizer.clock.hook(
        nn.Identity(), (), {"timestep": torch.tensor([900.0, 100.0]), "hidden_states": a[:2]}
    )
    assert torch.equal(quantizer(frames[2:4]), torch.cat([expected[0][2:], expected[1][:1]]))
    with pytest.raises(quant.InputError, match="3 rows for 2 samples at 2 timesteps"):
        quantizer(a)


def test_layers_on_one_clock_look_their_row_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x, asked = rand("linear_input"), []
    one, other = (calibrated({900.0: x, 100.0: 2 * x}, "linear_input", 4)[0] for _ in range(2))
    other.clock = one.clock
    real = Schedule.rows
    monkeypatch.setattr(Schedule, "rows", lambda *given: asked.append(1) or real(*given))
    for timestep in (900.0, 100.0):
        one.clock.timestep = torch.tensor([timestep])
        assert torch.equal(one(x), other(x)) and torch.equal(one(x), one(x))
    assert len(asked) == 2
    one.clock.timestep = torch.tensor([900.0])
    before = one(x)
    one.scale.mul_(2)  # a table written to is read again
    assert not torch.equal(one(x), before)


def test_a_backward_works_after_a_forward_in_inference_mode() -> None:
    x = rand("linear_input")
    quantizer = calibrated({900.0: x}, "linear_input", 4)[0]
    quantizer.clock.timestep = torch.tensor([900.0])
    with torch.inference_mode():
        quantizer(x)
    y = x.clone().requires_grad_()
    quantizer(y).sum().backward()
    assert y.grad is not None and y.grad.any()


def test_another_number_of_positions_is_refused() -> None:
    x = rand("linear_input")
    x[:, 3] += 50
    quantizer, _ = calibrated({1.0: x}, "linear_input", 4)
    with pytest.raises(quant.InputError, match="calibrated for 36 positions, this input has 20"):
        quantizer(x[:, :20])
    channels, _ = calibrated({1.0: x}, "linear_input", 4, "channel")
    assert channels(x[:, :20]).shape == (3, 20, 20)


# the method


@pytest.fixture(scope="module")
def store(tiny, tmp_path_factory):
    conditions = torch.randn(8, 7, 24, generator=torch.Generator().manual_seed(2))
    scheduler, folder = FlowMatchEulerDiscreteScheduler(), tmp_path_factory.mktemp("level")
    return quant.record(tiny.build("level"), scheduler, conditions, folder, n_steps=3, batch_size=4)


def at_recorded(model: nn.Module, store) -> torch.Tensor:
    sample = store.sample(0)
    with torch.no_grad():
        weight = next(model.parameters())
        condition = sample["condition"][None].to(weight)
        times = [torch.tensor([t]) for t in store.timesteps]
        return torch.cat([
            model(x[None].to(weight), t, encoder_hidden_states=condition).sample
            for x, t in zip(sample["x"], times, strict=True)
        ])  # fmt: skip


def test_round_trip(tiny, store, tmp_path) -> None:
    files = []
    for index in range(2):
        model = tiny.build("level")
        before = at_recorded(model, store)
        guess = quant.plan(model, "dgq-w4a6")
        plan = quant.plan(model, "dgq-w4a6", trajectories=store)
        ledger = quant.quantize_(model, "dgq-w4a6", trajectories=store, seed=3)
        files.append(quant.export(model, tmp_path / f"{index}.safetensors"))
    for record, line, early in zip(ledger.layers, plan.layers, guess.layers, strict=True):
        tables = record.bytes_by.get("activation", 0)
        assert record.as_plan() == line and (tables > 0) == (line.activation is not None)
        if line.activation is None:
            assert early == line
        else:  # without the recording its length is a guess, and the line says so; all else is the same
            steps = len(store.timesteps)
            assert line.reason == f"input ranges for {steps} timesteps"
            assert early.reason.startswith("input ranges for 20 timesteps (assumed")
            assert early.bytes_after - (line.bytes_after - tables) == tables // steps * 20
    after = at_recorded(model, store)
    assert files[0].read_bytes() == files[1].read_bytes()
    with torch.device("meta"):
        bare = tiny.build("level")
    quant.load(files[0], bare)
    assert torch.equal(at_recorded(bare, store), after) and not torch.equal(after, before)
    size = files[0].stat().st_size
    assert abs(size - ledger.bytes_file) <= 0.01 * size
    quant.restore_(model)
    assert torch.equal(at_recorded(model, store), before)


def test_kernels_equal_simulation(tiny, store) -> None:
    model = tiny.build("level").double()
    quant.quantize_(model, DgqConfig(groups=4), trajectories=store)
    simulated = at_recorded(model, store)
    with quant.use_backend(model, "kernels"):
        torch.testing.assert_close(at_recorded(model, store), simulated, rtol=1e-4, atol=1e-5)


def test_off_table_timestep_and_nearest(tiny, store) -> None:
    model = tiny.build("level")
    quant.quantize_(model, DgqConfig(groups=2), trajectories=store)
    x, condition = store.sample(0)["x"][:1], store.sample(0)["condition"][None]
    with (
        torch.no_grad(),
        pytest.raises(quant.InputError, match="timestep 300 is not in the calibrated table"),
    ):
        model(x, 300.0, encoder_hidden_states=condition)
    quant.restore_(model)
    quant.quantize_(model, DgqConfig(groups=2, match="nearest"), trajectories=store)
    with torch.no_grad():
        assert torch.isfinite(model(x, 300.0, encoder_hidden_states=condition).sample).all()


def test_needs_trajectories(tiny) -> None:
    model = tiny.build("level")
    with pytest.raises(quant.MissingDataError, match="recorded trajectories"):
        quant.quantize_(model, "dgq-w8a8")
    assert not quant.layers.install.quant_layers(model)
