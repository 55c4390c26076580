"""MixDQ: sink tokens, static ranges, split shortcuts, the integer identities of its kernels."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

import quant
from quant.denoisers.skips import halves, split_points
from quant.formats.grids import IntGrid
from quant.methods.mixdq import MixdqConfig
from quant.methods.mixdq.ranges import RunningRange
from quant.methods.mixdq.search import (
    byte_costs,
    decoupled,
    is_content,
    measure,
    scores,
    with_weights,
)  # fmt: skip
from quant.methods.mixdq.search import (
    errors as errors_of,
)
from quant.sensitivity.probes import NoisePrediction

KEY = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
SINK = 2  # not the first, so that nothing can rely on the position
CONFIG = MixdqConfig(points=12, momentum=None)


def conditions(n: int = 6, size: float = 300.0, constant: bool = True) -> torch.Tensor:
    """Conditions (n, 5, 24) with a huge token, the same for all or not."""
    draw = torch.Generator().manual_seed(0)
    c = torch.randn(n, 5, 24, generator=draw)
    token = torch.randn(1 if constant else n, 24, generator=draw)
    c[:, SINK] = token / token.abs().amax(-1, keepdim=True) * size
    return c


def record(tiny, path, c: torch.Tensor):
    return quant.record(tiny.build("unet"), FlowMatchEulerDiscreteScheduler(), c, path, n_steps=3, seed=5)


@pytest.fixture(scope="module")
def store(tiny, tmp_path_factory):
    return record(tiny, tmp_path_factory.mktemp("s"), conditions())


@pytest.fixture(scope="module")
def quantized(tiny, store):
    model = tiny.build("unet")
    return model, quant.quantize_(model, CONFIG, trajectories=store)


def outputs(model, c: torch.Tensor, name: str = KEY) -> torch.Tensor:
    """Output of one layer for conditions `c`, full precision and quantized on the same input."""
    with torch.no_grad():
        return model.get_submodule(name)(c)


def test_sink_row_is_full_precision_bit_for_bit(quantized) -> None:
    model, ledger = quantized
    c = conditions()
    layer = model.get_submodule(KEY)
    full = layer.original(c[:3])
    out = outputs(model, c[:3])
    assert torch.equal(out[:, SINK], full[:, SINK])
    others = [i for i in range(5) if i != SINK]
    assert not torch.equal(out[:, others], full[:, others])
    torch.testing.assert_close(out[:, others], full[:, others], rtol=0.05, atol=0.05)
    notes = {record.name: record.notes for record in ledger.layers}[KEY]
    assert notes["sink"] == "stored row" and notes["position"] == SINK and notes["ratio"] > 50


def test_stored_row_equals_the_recomputed_row_for_any_prompt(quantized) -> None:
    model, _ = quantized
    c = torch.randn(4, 5, 24, generator=torch.Generator().manual_seed(9))
    c[:, SINK] = conditions()[0, SINK]
    layer = model.get_submodule(KEY)
    assert torch.equal(outputs(model, c)[:, SINK], layer.branch.row.expand(4, -1))
    torch.testing.assert_close(outputs(model, c)[:, SINK], layer.original(c)[:, SINK], rtol=1e-5, atol=1e-4)


def test_scale_of_the_others_does_not_depend_on_the_sink(tiny, quantized, tmp_path) -> None:
    twice = tiny.build("unet")
    c = conditions()
    c[:, SINK] *= 2
    quant.quantize_(twice, CONFIG, trajectories=record(tiny, tmp_path / "a", c))
    one, two = (m.get_submodule(KEY).input_quantizer for m in (quantized[0], twice))
    assert torch.equal(one.scale, two.scale) and torch.equal(one.zero_point, two.zero_point)
    plain = tiny.build("unet")
    quant.quantize_(
        plain, CONFIG.model_copy(update={"sinks": False}), trajectories=record(tiny, tmp_path / "a", c)
    )
    assert plain.get_submodule(KEY).input_quantizer.scale > 20 * two.scale


def test_other_tokens_at_the_sinks_place_go_the_quantized_way(quantized) -> None:
    """The null condition of guidance need not have the sink; one image never decides for another."""
    model, _ = quantized
    c = conditions()[:2].clone()
    c[1, SINK] = torch.randn(24, generator=torch.Generator().manual_seed(1))
    out = outputs(model, c)
    assert torch.equal(out[0], outputs(model, c[:1])[0]) and torch.equal(out[1], outputs(model, c[1:])[0])
    full = model.get_submodule(KEY).original(c)
    torch.testing.assert_close(out[1, SINK], full[1, SINK], rtol=0.05, atol=0.05)
    assert not torch.equal(out[1, SINK], full[1, SINK])


def test_bias_and_fewer_tokens(tiny) -> None:
    """A bias is given back exactly; a condition too short to hold the sink is quantized as it is."""
    from torch import nn

    from quant.formats.quantizer import int_quantizer
    from quant.formats.schedule import Clock
    from quant.layers.encoded import EncodedWeight
    from quant.layers.quantized import make
    from quant.methods.mixdq.sinks import Sink, slot

    torch.manual_seed(0)
    layer, x = nn.Linear(24, 7), conditions(3)
    with torch.no_grad():
        row = layer(x)[0, SINK]
    sink = Sink(SINK, 100.0, True, x[0, SINK].clone(), row.clone())
    transform, branch = slot(layer, sink)
    encoded = EncodedWeight.from_weight(layer.weight, int_quantizer(8, "channel"), "linear_weight")
    result = quant.layers.encoded.LayerResult(
        encoded, None, transform=transform, branch=branch, bias=torch.zeros_like(layer.bias)
    )
    made = make(layer, result, Clock())
    with torch.no_grad():
        out, full = made(x), layer(x)
        assert torch.equal(out[:, SINK], full[:, SINK])
        torch.testing.assert_close(out, full, rtol=0.02, atol=0.02)
        torch.testing.assert_close(made(x[:, :2]), layer(x[:, :2]), rtol=0.02, atol=0.02)


def test_what_is_no_sink(tiny, tmp_path) -> None:
    """No outlier, or one that moves with the condition: the slot stays empty, and the ledger says why."""
    found = {}
    for name, c in (("none", conditions(size=1.0)), ("moves", conditions(constant=False))):
        model = tiny.build("unet")
        ledger = quant.quantize_(model, CONFIG, trajectories=record(tiny, tmp_path / name, c))
        found[name] = {record.name: record.notes for record in ledger.layers}[KEY]["sink"]
        layer = model.get_submodule(KEY)
        assert int(layer.branch.position) == -1
        out = outputs(model, c)
        assert torch.isfinite(out).all() and not torch.equal(out[:, SINK], layer.original(c)[:, SINK])
    assert found["none"] == "none found" and found["moves"].startswith("moves with the condition")


def test_naive_is_much_worse_than_sink_aware(tiny, store) -> None:
    """The card's ordering: with a constant huge token naive W8A8 loses the condition."""
    errors = {}
    probe = NoisePrediction(store, subset="evaluate")
    for name in ("sinks", "naive"):
        model = tiny.build("unet")
        reference = probe.run(model)
        config = CONFIG.model_copy(update={"sinks": name == "sinks"})
        quant.quantize_(model, config, trajectories=store, include=["*attn2.to_k", "*attn2.to_v"])
        errors[name] = probe.compare(reference, probe.run(model))[0]["nmse"]
    assert errors["naive"] > 10 * errors["sinks"]


def test_asymmetric_product_identity() -> None:
    """scale (acc - z sum(w)) equals the product of dequantized values, in integers and in float64."""
    draw = torch.Generator().manual_seed(0)
    x, w = torch.rand(9, 32, generator=draw) * 3 - 1, torch.randn(5, 32, generator=draw)
    inputs, weights = IntGrid(bits=8, mode="asymmetric"), IntGrid(bits=8)
    px = inputs.fit_range(x.min(), x.max(), False, torch.float32)
    pw = weights.fit_range(w.amin(1, True), w.amax(1, True), False, torch.float32)
    cx, cw = inputs.encode(x, px).long(), weights.encode(w, pw).long()
    accumulated = cx @ cw.T - int(px["zero_point"]) * cw.sum(1)
    assert torch.equal(accumulated, (cx - int(px["zero_point"])) @ cw.T)
    scale = px["scale"].double() * pw["scale"].double().T
    exact = inputs.decode(cx, px, torch.float64) @ weights.decode(cw, pw, torch.float64).T
    torch.testing.assert_close(accumulated * scale, exact, rtol=1e-12, atol=1e-12)


def test_padding_with_the_zero_point_is_zero_padding() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(1, 3, 6, 6, generator=draw) * 5 - 1
    grid = IntGrid(bits=8, mode="asymmetric")
    params = grid.fit_range(x.min(), x.max(), False, torch.float32)
    z, codes = int(params["zero_point"]), grid.encode(x, params).double()
    w = torch.randint(-127, 128, (4, 3, 3, 3), generator=draw).double()
    padded = torch.nn.functional.pad(codes, (1, 1, 1, 1), value=z)
    one = torch.nn.functional.conv2d(padded, w) - z * w.sum((1, 2, 3)).reshape(1, -1, 1, 1)
    assert 0 < z < 255 and torch.equal(one, torch.nn.functional.conv2d(codes - z, w, padding=1))


def test_running_range() -> None:
    x = [torch.full((2, 3), v) for v in (1.0, 2.0, -1.0)]
    for momentum, low, high in ((None, -1.0, 2.0), (0.5, 0.25, 0.25), (0.0, -1.0, -1.0)):
        seen = RunningRange(momentum, per_channel=False)
        for batch in x:
            seen.update(batch)
        assert (float(seen.low), float(seen.high)) == (low, high)


def test_split_points_are_where_the_halves_join(tiny) -> None:
    model = tiny.build("unet")
    points = split_points(model)
    shortcuts = {n for n, _ in model.named_modules() if n.startswith("up_") and n.endswith("conv_shortcut")}
    assert set(points) == shortcuts
    seen: dict[str, list[torch.Tensor]] = {}
    skips = []
    for block in model.down_blocks:
        block.register_forward_hook(lambda m, a, out: skips.append(out[0].shape[1]))
    for name in points:
        parent = model.get_submodule(name.removesuffix(".conv_shortcut"))
        parent.register_forward_pre_hook(lambda m, args, name=name: seen.setdefault(name, []).append(args[0]))
    tiny.run(model, "unet")
    assert all(0 < points[name] < x[0].shape[1] for name, x in seen.items())
    # the first one joins the middle block's 64 channels with the last skip's 64
    first = "up_blocks.0.resnets.0.conv_shortcut"
    assert points[first] == 64 and seen[first][0].shape[1] == 64 + skips[-1]
    assert split_points(tiny.build("pixart")) == {}


def test_two_ranges_with_equal_halves_equal_one(tiny, store) -> None:
    model = tiny.build("unet")
    quant.quantize_(model, CONFIG, trajectories=store)
    layer = model.get_submodule("up_blocks.0.resnets.0.conv_shortcut")
    quantizer = layer.input_quantizer
    scales = quantizer.scale.flatten()
    assert len(scales[:64].unique()) == len(scales[64:].unique()) == 1 and scales[0] != scales[64]
    x = torch.randn(2, 128, 4, 4, generator=torch.Generator().manual_seed(0))
    # halves quantized on their own and convolved apart = one convolution of the joined dequantized halves
    grid, w = IntGrid(bits=8, mode="asymmetric"), layer.weight
    parts = [
        grid.fake(
            x[:, s], {"scale": quantizer.scale[:, s][:, :1], "zero_point": quantizer.zero_point[:, s][:, :1]}
        )
        for s in (slice(0, 64), slice(64, None))
    ]
    assert torch.equal(torch.cat(parts, 1), quantizer(x))
    apart = sum(
        torch.nn.functional.conv2d(p, w[:, s])
        for p, s in zip(parts, (slice(0, 64), slice(64, None)), strict=True)
    )
    torch.testing.assert_close(apart + layer.bias.reshape(1, -1, 1, 1), layer(x), rtol=1e-4, atol=1e-5)
    # equal halves: nothing changes against one range
    low, high = torch.full((1, 128, 1, 1), -1.5), torch.full((1, 128, 1, 1), 2.0)
    both = grid.fit_range(*halves(low, high, 64), False, torch.float32)
    one = grid.fit_range(*halves(low, high, None), False, torch.float32)
    assert torch.equal(grid.fake(x, both), grid.fake(x, one))


def test_one_dead_channel_does_not_destroy_the_layer(tiny, store) -> None:
    """The released code gives every channel the floor of the dead one."""
    model = tiny.build("unet")
    name = "mid_block.resnets.0.conv1"
    model.get_submodule(name).weight.data[3] = 0
    ledger = quant.quantize_(model, CONFIG, trajectories=store, include=[name])
    record = next(x for x in ledger.layers if x.name == name)
    assert record.weight_sqnr_db > 40 and not model.get_submodule(name).weight[3].any()


def test_eight_four_eight_bits_restores_outputs(tiny, store) -> None:
    model, seen = tiny.build("unet"), []
    for bits in (8, 4, 8):
        config = CONFIG.model_copy(update={"weight_bits": bits, "activation_bits": bits})
        quant.quantize_(model, config, trajectories=store)
        seen.append(tiny.run(model, "unet"))
        quant.restore_(model)
    assert torch.equal(seen[0], seen[2]) and not torch.equal(seen[0], seen[1])


class Mini(torch.nn.Module):
    """Six layers that look like a denoiser."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_a = torch.nn.Conv2d(4, 16, 3, padding=1)
        self.conv_b = torch.nn.Conv2d(16, 16, 3, padding=1)
        self.attn2_to_q = torch.nn.Linear(16, 16)
        self.attn2_to_out = torch.nn.Linear(16, 16)
        self.conv_c = torch.nn.Conv2d(16, 16, 3, padding=1)
        self.conv_d = torch.nn.Conv2d(16, 4, 3, padding=1)

    def forward(self, x: torch.Tensor, timestep: torch.Tensor) -> SimpleNamespace:
        act = torch.nn.functional.silu
        hidden = act(self.conv_b(act(self.conv_a(x))))
        hidden = self.attn2_to_out(act(self.attn2_to_q(hidden.movedim(1, -1)))).movedim(-1, 1) + hidden
        return SimpleNamespace(sample=self.conv_d(act(self.conv_c(hidden))))


def test_from_sensitivity_to_a_better_model_at_equal_bytes(tmp_path) -> None:
    """The search end to end: a table is measured, allocated, picked, and beats uniform bits."""
    torch.manual_seed(0)
    model = Mini().eval()
    # one weight in each row of this layer is far outside the others: it needs its bits
    model.conv_a.weight.data[:, 0, 0, 0] += 2.0
    store = quant.record(
        model,
        FlowMatchEulerDiscreteScheduler(),
        None,
        tmp_path / "s",
        n_steps=2,
        n_samples=6,
        shape=(4, 8, 8),
    )
    base = MixdqConfig(weight_bits=4, activation_bits=None)
    probe = NoisePrediction(store, 3, 2)
    table = measure(model, base, store, choices=(2, 3, 4, 8), probes=[probe], path=tmp_path / "w.json")
    signal = scores(table, "sqnr_db")
    assert all(s[8] > max(s[4], s[2]) for s in signal.values())  # more bits, more signal
    errors = scores(table, "nmse")
    assert errors["conv_a"][4] == pytest.approx(-(10 ** (-signal["conv_a"][4] / 10)))
    assert table.sorted("sqnr_db")[0].setting == "2"
    costs = byte_costs(model, base, (2, 3, 4, 8))
    budget = sum(cost[4] for cost in costs.values())
    content = {n: s for n, s in errors.items() if is_content(n)}
    quality = {n: s for n, s in errors.items() if not is_content(n)}
    assert len(content) == 2
    candidates = [with_weights(base, c.choices) for c in decoupled(content, quality, costs, budget)]
    found = errors_of(model, [base, *candidates], store, probe)
    best = candidates[found.index(min(found)) - 1]
    assert best.table and min(found[1:]) < 0.9 * found[0]
    assert quant.plan(model, best).bytes_after <= quant.plan(model, base).bytes_after
    with pytest.raises(quant.InputError, match="no metric 'ssim'"):
        scores(table, "ssim")
