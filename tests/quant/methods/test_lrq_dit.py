"""LRQ-DiT: rotations, twin-log grid, decision metric, and the method from end to end."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import nn

import quant
from quant.calibration import watch
from quant.encoded import EncodedWeight
from quant.grid import LogGrid
from quant.methods.lrq_dit import LrqDitConfig
from quant.methods.lrq_dit.core import _weight
from quant.methods.lrq_dit.rotation import InputStats, kind_of, outlier_rotation, smoothing_factor, zigzag
from quant.methods.lrq_dit.twin_log import fit, fit_as_released
from quant.observers import MinMax, MseSearch
from quant.quantizer import int_quantizer
from quant.rotations import LARGEST, Rotate, factors_of, hadamard, kronecker

PRESETS = ["lrq-dit-w3a4", "vidit-q-w4a4", "lrq-dit-w3a4-as-released"]


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def heavy(name: str, *shape: int) -> torch.Tensor:
    torch.manual_seed(0)
    if name == "gauss":
        return torch.randn(shape)
    law = torch.distributions.StudentT(4.0) if name == "t4" else torch.distributions.Laplace(0.0, 1.0)
    return law.sample(shape)


def log_quantizer(bits: int, released: bool = False):
    return _weight(LrqDitConfig(weight_bits=bits, as_released=released))


def sqnr(x: torch.Tensor, y: torch.Tensor) -> float:
    return 10 * math.log10(x.double().square().sum() / (x - y).double().square().sum())


def record(name: str, tiny, folder):
    conditions = torch.randn(8, 7, 24, generator=torch.Generator().manual_seed(2))
    model, scheduler = tiny.build(name), FlowMatchEulerDiscreteScheduler()
    return name, quant.record(model, scheduler, conditions, folder, n_steps=3, batch_size=4)


@pytest.fixture(scope="module")
def dit(tiny, tmp_path_factory):
    return record("pixart", tiny, tmp_path_factory.mktemp("dit"))


@pytest.fixture(scope="module")
def unet(tiny, tmp_path_factory):
    return record("unet", tiny, tmp_path_factory.mktemp("unet"))


@pytest.fixture(params=["unet", "dit"])
def recorded(request):
    """A tiny model's name and its recorded trajectories."""
    return request.getfixturevalue(request.param)


# rotations


@pytest.mark.parametrize("order", [1, 2, 4, 12, 20, 24, 28, 36, 44, 60, 128])
def test_hadamard_matrices_are_hadamard(order: int) -> None:
    matrix = hadamard(order)
    assert set(matrix.flatten()) <= {-1.0, 1.0}
    assert (matrix @ matrix.T == order * torch.eye(order).numpy()).all()


def test_orders_without_a_construction_are_refused() -> None:
    with pytest.raises(ValueError, match="order 6"):
        hadamard(6)
    assert factors_of(2 * 257) is None and factors_of(257 * 4) is None and LARGEST == 256
    with pytest.raises(ValueError, match="514 channels"):
        Rotate(514)


@pytest.mark.parametrize("count", [5, 64, 72, 131, 192, 288, 1152])
def test_kronecker_is_orthogonal(count: int) -> None:
    factors = factors_of(count)
    assert math.prod(points for _, points in factors) == count
    matrix = kronecker(torch.eye(count, dtype=torch.float64), factors)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(count, dtype=torch.float64), rtol=0, atol=1e-12)
    if all(kind == "hadamard" for kind, _ in factors):
        torch.testing.assert_close(matrix.abs(), torch.full_like(matrix, count**-0.5), rtol=1e-12, atol=0)
    torch.testing.assert_close(
        kronecker(kronecker(matrix, factors), factors, True), matrix, rtol=0, atol=1e-12
    )
    small = kronecker(torch.eye(count), factors)
    torch.testing.assert_close(small.T @ small, torch.eye(count), rtol=0, atol=1e-5)


def parts(count: int, axis: int = -1) -> dict[str, Rotate]:
    factor = rand(count, seed=3).abs() + 0.1
    rows = rand(40, count, seed=4, dtype=torch.float32)
    rows[:, 3] *= 50
    config = LrqDitConfig(block=16)
    return {
        "hadamard": Rotate(count, axis),
        "smooth hadamard": Rotate(count, axis, factor),
        "signed hadamard": Rotate(count, axis, factor, seed=3, signed=True),
        "outlier": outlier_rotation(rows, config, axis, None, 0),
        "smooth outlier": outlier_rotation(rows, config, axis, factor, 0),
    }


@pytest.mark.parametrize("kind", list(parts(48)))
def test_product_is_unchanged(kind: str) -> None:
    part, x, weight = parts(48)[kind], rand(20, 48), rand(30, 48, seed=1)
    torch.testing.assert_close(part(x) @ part.to_weight(weight).T, x @ weight.T, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(part.from_weight(part.to_weight(weight)), weight, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(part(x), x)


@pytest.mark.parametrize("kind", list(parts(48)))
def test_convolution_is_unchanged(kind: str) -> None:
    part, x, weight = parts(48, 1)[kind], rand(2, 48, 6, 6), rand(8, 48, 3, 3, seed=1)
    plain = nn.functional.conv2d(x, weight, padding=1, stride=2)
    turned = nn.functional.conv2d(part(x), part.to_weight(weight), padding=1, stride=2)
    torch.testing.assert_close(turned, plain, rtol=1e-12, atol=1e-12)


def test_greedy_rotation_spreads_a_planted_channel() -> None:
    part = parts(48)["outlier"]
    rows = rand(40, 48, seed=4, dtype=torch.float32)
    rows[:, 3] *= 50
    assert part.moves[0][0] == 3 and len(part.moves[0]) >= 1
    assert part(rows).abs().max() < rows.abs().max() / 2
    assert sorted(part.order.tolist()) == list(range(48))


def test_zigzag_deals_the_widest_channels_to_different_blocks() -> None:
    spread = torch.zeros(64)
    spread[torch.arange(4)] = torch.tensor([9.0, 8.0, 7.0, 6.0])
    order = zigzag(spread, 16)
    blocks = [order.tolist().index(channel) // 16 for channel in range(4)]
    assert sorted(blocks) == [0, 1, 2, 3]


# the decision metric


def test_j_is_the_root_mean_square() -> None:
    x = rand(6, 9, 48)
    whole, split, turned = InputStats(-1), InputStats(-1), InputStats(-1)
    whole.update(x)
    for chunk in x[torch.randperm(6)].split([1, 2, 3]):
        split.update(chunk)
    turned.update(Rotate(48)(x))
    assert whole.j == pytest.approx(float(x.square().mean().sqrt()), rel=1e-12)
    assert split.j == pytest.approx(whole.j, rel=1e-12) and turned.j == pytest.approx(whole.j, rel=1e-12)
    assert torch.equal(whole.absmax, split.absmax)


def test_rule() -> None:
    config = LrqDitConfig()
    assert kind_of(0.99, 64, config) == "hadamard" and kind_of(1.0, 64, config) == "outlier"
    assert kind_of(5.0, 33, config) == "hadamard"  # no block of at least 8 channels
    assert kind_of(5.0, 64, LrqDitConfig(rotation="hadamard")) == "hadamard"


# the twin-log grid


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_twin_log_codebook(bits: int) -> None:
    weight, q = heavy("t4", 24, 200), log_quantizer(bits)
    encoded = EncodedWeight.from_weight(weight, q, "linear_weight", fit(weight, q))
    values = encoded.decode()
    for row, source in zip(values, weight, strict=True):
        for sign in (1, -1):
            levels = (sign * row[sign * row > 0]).unique()
            assert len(levels) <= 2 ** (bits - 1)
            steps = levels.log2().diff()  # neighbours are a whole number of equal steps apart
            if len(steps):
                torch.testing.assert_close(
                    steps / steps.min(), (steps / steps.min()).round(), rtol=0, atol=1e-3
                )
        assert len(row.unique()) <= 2**bits
        order = source.argsort()
        assert (row[order].diff() >= 0).all()
    assert torch.equal(values.sign(), weight.sign())
    codes = encoded.codes()
    assert torch.equal(q.encode(values, "linear_weight", encoded.params)[0], codes)


@pytest.mark.parametrize("factor", [2.0**-9, 0.5, 64.0])
def test_twin_log_is_scale_equivariant(factor: float) -> None:
    weight, q = heavy("laplace", 16, 100), log_quantizer(3)
    one = q.fake(weight, "linear_weight", fit(weight, q))
    two = q.fake(weight * factor, "linear_weight", fit(weight * factor, q))
    assert torch.equal(two, one * factor)
    odd = q.fake(weight * 0.3, "linear_weight", fit(weight * 0.3, q))
    assert abs(sqnr(weight, one) - sqnr(weight * 0.3, odd)) < 0.15


def test_released_grid_is_not_scale_equivariant() -> None:
    quality = {}
    for std in (0.01, 0.2, 1.0):
        weight, q = heavy("gauss", 32, 256) * std, log_quantizer(3, released=True)
        fake = q.fake(weight, "linear_weight", fit_as_released(weight, q))
        assert all(len(row.unique()) <= 8 for row in fake)
        clean = log_quantizer(3)
        quality[std] = (
            sqnr(weight, fake),
            sqnr(weight, clean.fake(weight, "linear_weight", fit(weight, clean))),
        )
    assert quality[0.01][0] < quality[0.01][1] - 5  # small weights meet a range that reaches up to 1
    assert quality[0.2][0] > quality[0.01][0] + 4


def test_zero_has_a_documented_code() -> None:
    weight, q = heavy("gauss", 4, 32), log_quantizer(3)
    weight[0, 5], weight[1] = 0.0, 0.0
    weight[2] = weight[2].abs()
    encoded = EncodedWeight.from_weight(weight, q, "linear_weight", fit(weight, q))
    assert encoded.codes()[0, 5] == 3  # the smallest positive magnitude
    assert encoded.decode()[1].abs().max() < 1e-37
    assert torch.isfinite(encoded.decode()).all() and (encoded.decode()[2] > 0).all()


@pytest.mark.parametrize("bits", [3, 4])
@pytest.mark.parametrize("law", ["t4", "laplace"])
def test_heavy_tails_favour_the_log_grid(law: str, bits: int) -> None:
    weight, q = heavy(law, 64, 512), log_quantizer(bits)
    options = {"schedule": q.schedule}
    clipped = int_quantizer(bits, "channel", observer=MseSearch(), **options)
    widest = int_quantizer(bits, "channel", observer=MinMax(), **options)
    quality = [sqnr(weight, u.fake(weight, "linear_weight")) for u in (widest, clipped)]
    log = sqnr(weight, q.fake(weight, "linear_weight", fit(weight, q)))
    assert quality[0] < quality[1] < log


@pytest.mark.parametrize("bits", [3, 4])
def test_rotation_takes_the_log_grids_reason_away(bits: int) -> None:
    """A Hadamard matrix makes heavy-tailed rows Gaussian, where a clipped uniform grid does as well."""
    weight, q = Rotate(512).to_weight(heavy("t4", 64, 512)), log_quantizer(bits)
    clipped = _weight(LrqDitConfig(weight_bits=bits, weight_grid="uniform-clipped"))
    uniform = sqnr(weight, clipped.fake(weight, "linear_weight"))
    log = sqnr(weight, q.fake(weight, "linear_weight", fit(weight, q)))
    assert uniform > log - 0.5


# activations


def test_smoothing_first_rotation_second() -> None:
    """Planted channels: smoothing does most, a Hadamard after it adds, both rotations are near each other."""
    x, weight = rand(256, 256, dtype=torch.float32), rand(64, 256, seed=1, dtype=torch.float32) / 16
    x[:, [3, 77, 200]] *= 245.0
    weight[:, [3, 77, 200]] /= 40.0
    factor = smoothing_factor(x.abs().amax(0), weight, 0.5)
    quantizer, exact = int_quantizer(4, "token"), x @ weight.T

    def error(part: nn.Module | None, w: torch.Tensor) -> float:
        turned = quantizer.fake(x if part is None else part(x), "linear_input")
        return float((turned @ w.T - exact).norm() / exact.norm())

    smooth = quant.parts.Smooth(factor)
    had = Rotate(256, -1, factor)
    duquant = outlier_rotation(x / factor, LrqDitConfig(), -1, factor, 0)
    raw, smoothed = error(None, weight), error(smooth, smooth.to_weight(weight))
    rotated = error(Rotate(256), Rotate(256).to_weight(weight))
    both, greedy = error(had, had.to_weight(weight)), error(duquant, duquant.to_weight(weight))
    assert both < smoothed < min(raw, rotated) and raw > 0.5
    assert greedy < smoothed


# the method


@pytest.mark.parametrize("preset", PRESETS)
def test_round_trip(preset: str, recorded, tiny, tmp_path) -> None:
    name, store = recorded
    if name == "unet" and preset != "lrq-dit-w3a4":
        pytest.skip("one preset of a method is enough for the second family")
    files = []
    for index in range(2):
        model = tiny.build(name)
        before = tiny.run(model, name)
        plan = quant.plan(model, preset)
        ledger = quant.quantize_(model, preset, trajectories=store, seed=3)
        assert [record.as_plan() for record in ledger.layers] == plan.layers
        assert ledger.trajectories == store.hash
        files.append(quant.export(model, tmp_path / f"{index}.safetensors"))
    after = tiny.run(model, name)
    assert after.shape == before.shape and not torch.equal(after, before)
    assert files[0].read_bytes() == files[1].read_bytes()
    bare = tiny.build(name, seed=99)
    quant.load(files[0], bare)
    assert torch.equal(tiny.run(bare, name), after)
    size = files[0].stat().st_size
    assert abs(size - ledger.bytes_file) <= 0.01 * size
    quant.restore_(model)
    assert torch.equal(tiny.run(model, name), before)


@pytest.mark.parametrize("changes", [{}, {"rotation": "outlier", "block": 8}, {"rotation": "none"}])
def test_transforms_are_exact_without_quantization(changes: dict, recorded, tiny) -> None:
    """With exact weights behind the transforms the model gives the original output in float64."""
    name, store = recorded
    model = tiny.build(name).double()
    before = tiny.run(model, name)
    quant.quantize_(model, LrqDitConfig(activation_bits=None, **changes), trajectories=store)
    for layer in quant.install.quant_layers(model).values():
        weight = layer.original.weight
        layer.weight = weight if layer.transform is None else layer.transform.to_weight(weight)
    torch.testing.assert_close(tiny.run(model, name), before, rtol=1e-10, atol=1e-11)


def test_kernels_equal_simulation(dit, tiny) -> None:
    name, store = dit
    model = tiny.build(name).double()
    quant.quantize_(model, "lrq-dit-w3a4", trajectories=store)
    simulated = tiny.run(model, name)
    with quant.use_backend(model, "kernels"):
        torch.testing.assert_close(tiny.run(model, name), simulated, rtol=1e-4, atol=1e-5)


def test_j_is_measured_and_rules(dit, tiny) -> None:
    name, store = dit
    model = tiny.build(name)
    names = [line.name for line in quant.plan(model, "lrq-dit-w4a4").quantized]
    stats = {n: [0.0, 0] for n in names}

    def see(layer: str, x: torch.Tensor, timestep: float) -> None:
        stats[layer][0] += float(x.double().square().sum())
        stats[layer][1] += x.numel()

    watch(model, store, names, see, samples=8)
    ledger = quant.quantize_(model, LrqDitConfig(threshold=0.5, modulation="skip"), trajectories=store)
    kinds = set()
    for record in ledger.quantized:
        j = (stats[record.name][0] / stats[record.name][1]) ** 0.5
        assert record.notes["j"] == pytest.approx(j, rel=1e-4)
        if record.shape[1] % 8 == 0:
            assert record.notes["rotation"] == ("outlier" if j >= 0.5 else "hadamard")
            kinds.add(record.notes["rotation"])
    assert kinds == {"outlier", "hadamard"}


def test_needs_trajectories(tiny) -> None:
    model = tiny.build("unet")
    with pytest.raises(quant.MissingDataError, match="recorded trajectories"):
        quant.quantize_(model, "lrq-dit-w4a4")
    assert not quant.install.quant_layers(model)


def test_more_weight_bits_are_never_worse(dit, tiny) -> None:
    name, store = dit
    before: dict[str, float] = {}
    for bits in (2, 3, 4, 8):
        ledger = quant.quantize_(tiny.build(name), LrqDitConfig(weight_bits=bits), trajectories=store)
        for record in ledger.quantized:
            assert record.weight_sqnr_db >= before.get(record.name, -99.0)
            before[record.name] = record.weight_sqnr_db


@pytest.mark.parametrize("value", [0.0, 0.25])
def test_zero_and_constant_weights(value: float, dit, tiny) -> None:
    name, store = dit
    model = tiny.build(name)
    for layer in quant.layers.find_layers(model):
        nn.init.constant_(model.get_submodule(layer.name).weight, value)
    before = tiny.run(model, name)
    config = LrqDitConfig(weight_bits=3, activation_bits=None, smoothing=None, rotation="none")
    ledger = quant.quantize_(model, config, trajectories=store)
    torch.testing.assert_close(tiny.run(model, name), before, rtol=2e-2, atol=1e-6)
    assert all(record.weight_sqnr_db is None or record.weight_sqnr_db > 30 for record in ledger.quantized)
    # signs and a Hadamard matrix make any row bell-shaped: 3 bits then cost what they cost on Gaussian rows
    quant.restore_(model)
    turned = quant.quantize_(
        model, config.model_copy(update={"rotation": "hadamard"}), trajectories=store
    ).quantized
    assert all(record.weight_sqnr_db is None or record.weight_sqnr_db > 8 for record in turned)


def test_grid_label_and_json() -> None:
    grid = LogGrid(bits=3, octaves=None, offset=True)
    assert LogGrid.model_validate_json(grid.model_dump_json()) == grid and grid.label == "log3"


def test_signs_keep_a_common_mean_from_becoming_an_outlier() -> None:
    """The first row of a Hadamard matrix is constant: without signs it adds up what all channels share."""
    x = torch.randn(256, 192, generator=torch.Generator().manual_seed(0)).abs()
    plain, signed = Rotate(192), Rotate(192, seed=1, signed=True)
    assert float(plain(x).abs().amax()) > 2 * float(signed(x).abs().amax())
    again = Rotate.blank(signed.spec())
    assert torch.equal(again(x), signed(x))
    assert torch.equal(Rotate.blank({k: v for k, v in plain.spec().items() if k != "signed"})(x), plain(x))
