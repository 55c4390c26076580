"""Statistics recover what was planted: the published pictures, on a model where the truth is known."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import quant
from quant.observation import OUTLIER_RULE, bins, smooth
from quant.observation.attention import AttentionObserver
from quant.observation.rows import layer_row, step_rows
from quant.observation.stats import TensorStats, bimodality
from tests.quant.observation.conftest import SALIENT


def test_salient_channels_and_mild_outliers_are_told_apart(
    seen: quant.Observation, planted: SimpleNamespace
) -> None:
    rows = {row["layer"]: row for row in seen.layer_table()}
    salient, mild, plain = (seen.inputs[name] for name in ("salient", "mild", "plain"))
    assert tuple(salient.salient()) == tuple(salient.outlier_channels()) == planted.salient
    assert rows["salient"]["absmax"] > 100 and rows["salient"]["mild_max"] < 6
    # every mild outlier sits in a channel of its own that is quiet at all other tokens
    assert len(mild.salient()) == 0
    assert set(mild.outlier_channels()) == {channel for _, channel in planted.mild}
    assert rows["mild"]["mild_max"] == rows["mild"]["absmax"] > 20
    # the same tensor without anything planted has neither
    assert rows["plain"]["salient_channels"] == rows["plain"]["outlier_channels"] == 0
    assert rows["plain"]["outliers"] < 1e-6 * rows["plain"]["values"] + 1
    assert rows["plain"]["kurtosis"] == pytest.approx(3, abs=0.1) and rows["salient"]["kurtosis"] > 50
    assert "6 times the median over channels" in OUTLIER_RULE == seen.settings["outlier_rule"]
    assert plain.threshold == pytest.approx([6.0] * 4, rel=0.07)


def test_layers_that_read_one_tensor_are_joined(seen: quant.Observation) -> None:
    rows = seen.distinct(seen.layer_table())
    also = {row["layer"]: row["also"] for row in rows}
    assert also["attn.to_k"] == 1 and "attn.to_v" not in also and also["salient"] == 0
    assert len(rows) + sum(also.values()) == len(seen.inputs)


def test_outliers_by_pixel_and_by_channel(seen: quant.Observation, planted: SimpleNamespace) -> None:
    rows = {row["layer"]: row for row in seen.layer_table()}
    assert rows["by_channel"]["axis"] == "channel" and rows["by_pixel"]["axis"] == "position"
    for name, ours, other in (("by_channel", 0, 1), ("by_pixel", 1, 0)):
        spread = seen.inputs[name].spreads()
        assert spread.shape == (4, 2) and (spread[:, ours] > spread[:, other]).all()
    pixel = seen.inputs["by_pixel"]
    where = planted.hot_pixel[0] * planted.side + planted.hot_pixel[1]
    assert (pixel.position_high.argmax(1) == where).all()
    assert pixel.surface.shape == (64, 16) and (pixel.surface.argmax(1) == where).all()
    assert rows["by_pixel"]["position_ratio"] > 20 > 3 > rows["by_channel"]["position_ratio"]
    assert seen.inputs["by_channel"].salient().tolist() == [planted.hot_channel]


@pytest.mark.parametrize("sink", [0, 3])
def test_attention_sink_is_measured_where_it_is(
    store: quant.Trajectories, planted: SimpleNamespace, sink: int
) -> None:
    found = quant.observe(planted.build(sink), store, layers="attn*", samples=4).attention["attn"]
    row, keys = found.row(), planted.tokens
    assert row["kind"] == "cross" and row["keys"] == keys and row["sink"] == sink
    # half of the queries give it everything, the others their equal share
    assert row["sink_mass"] == pytest.approx(0.5 + 0.5 / keys, abs=0.01)
    leading = row["sink_mass"] if sink == 0 else 0.5 / keys
    assert row["leading_mass"] == pytest.approx(leading, abs=0.01)
    assert row["peak_share"] == pytest.approx(0.5 / keys, abs=0.005)
    assert row["leading_peak_share"] == pytest.approx(0.5 if sink == 0 else 0.0, abs=0.01)
    assert found.mass.sum(1) == pytest.approx([1.0] * 4, abs=1e-5) and found.head_mass.shape == (4, 2)
    assert row["bimodality"] > 0.6
    counted = found.leading.sum() + found.rest.sum()
    assert counted == 4 * 4 * 2 * 16 * keys and found.leading.sum() * keys == counted


def test_no_sink_is_found_where_there_is_none(store: quant.Trajectories, planted: SimpleNamespace) -> None:
    row = quant.observe(planted.build(-1), store, layers="attn*", samples=4).attention["attn"].row()
    assert row["sink_mass"] < 1.3 * row["uniform"] and row["peak_share"] == 0 and row["bimodality"] < 0.5


def test_watching_attention_changes_nothing(store: quant.Trajectories, planted: SimpleNamespace) -> None:
    model = planted.build()
    got: list[torch.Tensor] = []
    handle = model.attn.register_forward_hook(lambda m, a, out: got.append(out))
    for attention in (False, True):
        quant.observe(model, store, layers="*", samples=2, timesteps=store.timesteps[:1], attention=attention)
    handle.remove()
    assert torch.allclose(got[0], got[1], atol=1e-5)
    assert not model.attn._forward_hooks and not model.plain._forward_pre_hooks


def test_drift_over_timesteps(seen: quant.Observation, store: quant.Trajectories) -> None:
    rows = {row["layer"]: row for row in seen.layer_table("drift")}
    gain = 1 + 9 * np.array(store.timesteps) / 1000
    assert next(iter(rows)) == "drift"
    assert rows["drift"]["drift"] == pytest.approx(gain.max() / gain.min(), rel=1e-4)
    assert rows["plain"]["drift"] == pytest.approx(1, rel=1e-6)  # the noise is the same at every step
    steps = seen.steps_of("drift")
    assert [row["timestep"] for row in steps] == list(store.timesteps)
    np.testing.assert_allclose([row["std"] for row in steps] / gain, steps[0]["std"] / gain[0], rtol=1e-4)


def test_halves_of_skip_concatenations(tmp_path, tiny: SimpleNamespace) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    model = tiny.build("unet")
    store = quant.record(
        model, FlowMatchEulerDiscreteScheduler(), torch.randn(6, 7, 24), tmp_path / "r", n_steps=2
    )

    def plant(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        *others, last = kwargs["res_hidden_states_tuple"]
        return args, {**kwargs, "res_hidden_states_tuple": (*others, last * 30)}

    plain = quant.observe(model, store, layers="up_blocks.*.conv_shortcut")
    handle = model.up_blocks[0].register_forward_pre_hook(plant, with_kwargs=True)
    loud = quant.observe(model, store, layers="up_blocks.*.conv_shortcut")
    handle.remove()
    name = "up_blocks.0.resnets.0.conv_shortcut"
    before, after = plain.inputs[name].halves(), loud.inputs[name].halves()
    assert before is not None and after is not None
    np.testing.assert_allclose(after["skip"]["rms"], 30 * before["skip"]["rms"], rtol=1e-4)
    np.testing.assert_allclose(after["hidden"]["max"], before["hidden"]["max"], rtol=1e-5)
    row = next(row for row in loud.layer_table("skip_ratio") if row["layer"] == name)
    assert row["skip_ratio"] > 8 and row["split"] == 64
    assert plain.inputs[name].channels > row["split"]


def test_weights_by_both_axes(seen: quant.Observation, planted: SimpleNamespace) -> None:
    weight, model = seen.weights["plain"], planted.build()
    w = model.plain.weight.detach()
    assert weight.shape == (96, 64) and int(weight.output["max"].argmax()) == planted.weight_row
    np.testing.assert_array_equal(weight.output["max"], w.amax(1).numpy())
    np.testing.assert_array_equal(weight.input["min"], w.amin(0).numpy())
    assert weight.output["outliers"].sum() == int((w.abs() >= weight.threshold).sum()) > 0
    assert set(np.flatnonzero(weight.output["outliers"])) == {planted.weight_row}
    assert weight.histogram.sum() == w.numel()
    assert seen.weights["by_pixel"].input["count"].tolist() == [8 * 9] * 64


def test_everything_against_the_raw_tensor(store: quant.Trajectories, planted: SimpleNamespace) -> None:
    model, kept = planted.build(), []
    model.salient.register_forward_pre_hook(lambda m, args: kept.append(args[0].detach()))
    stats = quant.observe(model, store, layers="salient", samples=5, batch_size=2).inputs["salient"]
    raw = torch.stack([torch.cat(kept[i : i + 3]) for i in range(0, 12, 3)])  # (timesteps, 5, 16, 64)
    assert raw.shape == (4, 5, 16, 64)
    rows = raw.flatten(1, 2).double().numpy()
    assert stats.channel["count"].tolist() == [[80] * 64] * 4
    for field, exact in (("min", rows.min(1)), ("max", rows.max(1))):
        np.testing.assert_array_equal(stats.channel[field], exact.astype(np.float32))
    np.testing.assert_allclose(stats.channel["var"], rows.var(1), rtol=1e-4)
    centred = rows - rows.mean(1, keepdims=True)
    np.testing.assert_allclose(
        stats.channel["kurtosis"], (centred**4).mean(1) / (centred**2).mean(1) ** 2, rtol=1e-3
    )
    beyond = np.abs(rows) >= stats.threshold[:, None, None]
    np.testing.assert_array_equal(stats.channel["outliers"], beyond.sum(1))
    ordered = np.sort(rows, axis=1)
    for field, rank in (("p50", 40), ("p99", 79)):
        below, above = ordered[:, rank - 2], ordered[:, min(79, rank + 1)]
        found = stats.channel[field]  # within one bin, an eighth of the value at most
        assert (found >= below - np.abs(below) / 8).all() and (found <= above + np.abs(above) / 8).all()
    np.testing.assert_array_equal(stats.position_high, raw.amax((1, 3)).numpy())
    np.testing.assert_array_equal(stats.surface, raw.abs().amax((0, 1)).T.numpy())
    place = bins.bin_index(raw[1]).flatten().bincount(minlength=bins.BINS)
    np.testing.assert_array_equal(stats.histogram[1], place.numpy())
    np.testing.assert_array_equal(stats.channel_histogram.sum(0), stats.histogram.sum(0))
    check_rows(stats, raw.double().numpy(), beyond)


def check_rows(stats: TensorStats, x: np.ndarray, beyond: np.ndarray) -> None:
    """Both tables by their definitions, from inputs (timesteps, samples, tokens, channels)."""
    size = np.abs(x)
    by_time, by_channel, by_token = size.max((1, 2, 3)), size.max((0, 1, 2)), size.max((0, 1, 3))
    low, high = x.min((1, 2)), x.max((1, 2))
    under, over = x.min((1, 3)), x.max((1, 3))
    mean, std = x.mean((1, 2, 3)), x.std((1, 2, 3))
    rest = np.delete(by_channel, SALIENT)
    wanted = {
        "channels": 64, "positions": 16, "values": x.size, "min": x.min(), "max": x.max(),
        "absmax": size.max(), "mean": x.mean(), "std": x.std(), "rms": np.sqrt((x**2).mean()),
        "kurtosis": ((x - x.mean()) ** 4).mean() / x.var() ** 2, "outliers": beyond.sum(),
        "outlier_share": beyond.mean(), "outlier_channels": 2, "salient_channels": 2, "mild_max": rest.max(),
        "channel_ratio": by_channel.max() / np.median(by_channel),
        "position_ratio": by_token.max() / np.median(by_token),
        "spread_channel": (np.ptp(low, 1) + np.ptp(high, 1)).mean(),
        "spread_position": (np.ptp(under, 1) + np.ptp(over, 1)).mean(),
        "drift": by_time.max() / by_time.min(), "mean_drift": np.ptp(mean) / x.std(),
    }  # fmt: skip
    row = layer_row(stats, None)
    for name, value in wanted.items():
        assert row[name] == pytest.approx(value, rel=1e-3), name
    assert row["axis"] == "channel" and row["skip_ratio"] is None and row["weight_absmax"] is None
    for t, step in enumerate(step_rows(stats)):
        moved = x[t] - mean[t]
        exact = {
            "timestep": stats.timesteps[t], "min": x[t].min(), "max": x[t].max(), "mean": mean[t],
            "std": std[t], "rms": np.sqrt((x[t] ** 2).mean()), "kurtosis": (moved**4).mean() / std[t] ** 4,
            "outliers": beyond[t].sum(), "spread_channel": np.ptp(low[t]) + np.ptp(high[t]),
            "spread_position": np.ptp(under[t]) + np.ptp(over[t]),
        }  # fmt: skip
        for name, value in exact.items():
            assert step[name] == pytest.approx(value, rel=1e-3), name
        for name, share in (("p0.1", 0.001), ("p1", 0.01), ("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)):
            assert step[name] == pytest.approx(np.quantile(x[t], share), rel=0.13, abs=0.02), name


def test_probabilities_by_hand() -> None:
    """Over calls of several sizes: mass by key, the leading key by head, and both histograms' shares."""
    draw = torch.Generator().manual_seed(0)
    observer, wanted = AttentionObserver("a", nn.Identity()), []
    for timestep in (9.0, 3.0):
        scores = [(4 * torch.randn(n, 3, 7, 5, generator=draw)).softmax(-1) for n in (1, 4)]
        for some in scores:
            assert observer(some, some)[0] is some
        observer.close(timestep)
        wanted.append(torch.cat(scores).double())
    observer.close(1.0)  # it did not run there
    stats = observer.result()
    assert stats is not None and (stats.module, stats.kind) == ("a", "cross")
    assert stats.timesteps.tolist() == [9.0, 3.0]
    for step, p in enumerate(wanted):
        np.testing.assert_allclose(stats.mass[step], p.mean((0, 1, 2)), rtol=1e-5)
        np.testing.assert_allclose(stats.head_mass[step], p[..., 0].mean((0, 2)), rtol=1e-5)
        for found, some in ((stats.leading, p[..., :1]), (stats.rest, p[..., 1:])):
            place = bins.bin_index(some.float()).flatten().long()
            np.testing.assert_array_equal(found[step], place.bincount(minlength=bins.BINS))
        row = stats.row(step)
        assert (row["keys"], row["uniform"]) == (5, 0.2) and row["sink"] == int(p.mean((0, 1, 2)).argmax())
        shares = (p[..., 0] >= 0.5).double().mean(), (p >= 0.5).double().mean(), (p < 1 / 256).double().mean()
        for name, share in zip(("leading_peak_share", "peak_share", "dust_share"), shares, strict=True):
            assert row[name] == pytest.approx(float(share)) and 0 < share < 1, name
    counts = np.zeros(bins.BINS, np.int64)
    counts[bins.bin_index(torch.tensor([0.25, 1.0, 2.0])).numpy()] = 1, 2, 5
    counts[bins.HALF] = 1  # 0 counts as the smallest magnitude
    x = np.repeat([2.0**bins.LOWEST, 0.25, 1.0, 2.0], [1, 1, 2, 5]) * 17 / 16  # middles of their bins
    moved = np.log2(x) - np.log2(x).mean()
    var, third, fourth = ((moved**k).mean() for k in (2, 3, 4))
    assert bimodality(counts) == pytest.approx((third**2 / var**3 + 1) / (fourth / var**2), rel=1e-9)


def test_a_channel_is_salient_from_half_of_the_timesteps_on(seen: quant.Observation) -> None:
    stats = copy.deepcopy(seen.inputs["plain"])
    stats.channel["p75_abs"][:] = 0.0
    stats.channel["p75_abs"][:2, 7] = stats.channel["p75_abs"][:1, 9] = stats.threshold.max()
    assert stats.salient().tolist() == [7]  # of four; 9 is so at one of them
    stats.channel["min"][:], stats.channel["max"][:] = 0.0, 0.0
    stats.channel["min"][1, 3] = -1e-6
    assert stats.outlier_channels().tolist() == [3]  # all others are nothing
    whole, blank = stats.spreads(), np.empty((4, 0), np.float32)
    stats.position_low = stats.position_high = blank
    assert stats.spreads()[:, 0].tolist() == whole[:, 0].tolist() and not stats.spreads()[:, 1].any()


@pytest.mark.parametrize("layer", ["drift", "by_pixel"])
def test_smoothing_leaves_the_product(layer: str, seen: quant.Observation, planted: SimpleNamespace) -> None:
    """SmoothQuant's factors; 1 for a channel that is dead on either side, and not for a quiet one."""
    stats, weights = copy.deepcopy(seen.inputs[layer]), copy.deepcopy(seen.weights[layer])
    for field in ("min", "max"):
        stats.channel[field][:, 3] = 0.0
        stats.channel[field][:, 4] *= 1e-3
        weights.input[field][6] = 0.0
    top, w = stats.absmax.max(0), np.maximum(-weights.input["min"], weights.input["max"])
    wanted = np.divide(top**0.7, w**0.3, out=np.ones_like(top), where=(top > 0) & (w > 0))
    transform = smooth(stats, weights, alpha=0.7)
    np.testing.assert_allclose(transform.transform.factor, wanted, rtol=1e-6)
    assert wanted[3] == wanted[6] == 1 != wanted[4] and top[4] < 1 and transform.label == "smoothing"
    module = planted.build().get_submodule(layer)
    x = torch.randn((2, 64, 4, 4) if layer == "by_pixel" else (2, 5, 64))
    before = module(x)
    with torch.no_grad():
        module.weight.copy_(transform.to_weight(module.weight))
        torch.testing.assert_close(module(transform(x)), before, rtol=1e-4, atol=1e-4)
