"""LRQ-DiT: the twin-log grid of a weight, ours and the released one."""

from __future__ import annotations

import math

import pytest
import torch

import quant
from quant.denoisers.inventory import LayerInfo
from quant.formats.logs import LogGrid
from quant.formats.quantizer import int_quantizer
from quant.layers.encoded import EncodedWeight
from quant.layers.rotations import Rotate
from quant.methods.lrq_dit import LrqDitConfig
from quant.methods.lrq_dit.core import _weight, formats
from quant.methods.lrq_dit.twin_log import ETAS, PERCENTILES, fit, fit_as_released
from quant.observers.ranges import MinMax, MseSearch


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


def released(weight: torch.Tensor, count: int) -> torch.Tensor:
    """Evaluate the released arithmetic in float64 at its full precision, cut to `count` codes a sign."""
    best, found = math.inf, weight
    for eta in (0, 0.001, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5):
        total, out = 0.0, torch.zeros_like(weight)
        for sign in (1, -1):
            mine = sign * weight > 0
            octave = torch.where(mine, torch.log2(weight.abs() + eta), 0.0)
            options = []
            for percentile in (0.98, 0.99, 0.999, 0.9999, 0.99999):
                high = torch.quantile(octave, percentile, dim=1, keepdim=True, interpolation="nearest")
                low = octave.amin(1, keepdim=True)
                delta = (high - low) / count
                zero = (low / delta).round()
                q = ((octave / delta).round() - zero).clamp(0, count - 1)
                value = torch.where(mine, sign * (2 ** (delta * (q + zero)) - eta), 0.0)
                options.append((float(torch.where(mine, value - weight, 0.0).square().sum()), value))
            error, value = min(options, key=lambda option: option[0])
            total, out = total + error, out + value
        if total < best:
            best, found = total, out
    return found


@pytest.mark.parametrize(
    ("std", "expected"), [(0.01, 6.0), (0.03, 6.9), (0.1, 10.7), (0.2, 13.4), (1.0, 13.4)]
)
def test_released_grid_computes_what_the_released_code_does(std: float, expected: float) -> None:
    """3-bit Gaussian rows: the card's numbers, less what the cut to 8 levels costs from 0.2 up."""
    weight, q = heavy("gauss", 24, 1152) * std, log_quantizer(3, released=True)
    fake = q.fake(weight, "linear_weight", fit_as_released(weight, q))
    assert sqnr(weight, fake) == pytest.approx(expected, abs=0.3)
    assert sqnr(weight, fake) == pytest.approx(sqnr(weight, released(weight.double(), 4)), abs=0.05)
    assert sqnr(weight, released(weight.double(), 5)) >= sqnr(weight, fake) - 0.05


def test_released_grid_cuts_outliers_by_percentile() -> None:
    """One far outlier a row: dropping it costs less than reaching up to it."""
    weight, q = heavy("gauss", 8, 1000), log_quantizer(3, released=True)
    weight[:, 0] = 6.0
    top = fit_as_released(weight, q)["scale"]
    largest = (top - fit_as_released(weight, q)["offset"].float()).amax()
    assert float(largest) < 3
    assert len(ETAS) * len(PERCENTILES) ** 2 == 325


def test_released_grid_keeps_zeros_of_rows_without_that_sign() -> None:
    """By their mask, in the released code; a pruned row became one of 0.5 to 1."""
    weight, q = heavy("gauss", 6, 64) * 0.03, log_quantizer(3, released=True)
    weight[1] = 0.0
    weight[2] = -weight[2].abs()
    weight[2, 5] = 0.0
    fake = q.fake(weight, "linear_weight", fit_as_released(weight, q))
    assert float(fake[1].abs().max()) < 1e-30 and float(fake[2, 5].abs()) < 1e-30
    others = [0, 3, 4, 5]
    alone = q.fake(weight[others], "linear_weight", fit_as_released(weight[others], q))
    assert sqnr(weight[others], fake[others]) == pytest.approx(sqnr(weight[others], alone), abs=0.5)


@pytest.mark.parametrize(("bits", "expected"), [(3, 13.6), (4, 18.6)])
def test_clean_grid_has_the_cards_quality_at_any_scale(bits: int, expected: float) -> None:
    weight, q = heavy("gauss", 64, 1152), log_quantizer(bits)
    assert sqnr(weight, q.fake(weight, "linear_weight", fit(weight, q))) == pytest.approx(expected, abs=0.15)


def test_zero_has_a_documented_code() -> None:
    weight, q = heavy("gauss", 4, 32), log_quantizer(3)
    weight[0, 5], weight[1] = 0.0, 0.0
    weight[2] = weight[2].abs()
    encoded = EncodedWeight.from_weight(weight, q, "linear_weight", fit(weight, q))
    assert encoded.codes()[0, 5] == 3  # the smallest positive magnitude
    assert encoded.decode()[1].abs().max() < 1e-37
    assert torch.isfinite(encoded.decode()).all() and (encoded.decode()[2] > 0).all()


def test_zeros_count_among_the_positive_weights() -> None:
    """A pruned row: the positive codes reach far down, since the last of them stands for zero."""
    weight, q = torch.tensor([[1.0, 1.0, 0.0, 0.0, -1.0, -0.5]]), log_quantizer(3)
    fake = q.fake(weight, "linear_weight", fit(weight, q))[0]
    assert fake[0] == 1 and fake[2] < 1e-6 and fake[5] == pytest.approx(-0.5, rel=0.02)


def test_presets_are_the_publications() -> None:
    linear = LayerInfo("blocks.0.attn1.to_q", "Linear", (64, 64), 1, 0, True)
    kernel = LayerInfo("blocks.0.conv1", "Conv2d", (64, 64, 3, 3), 1, 0, True)
    weights = {
        "lrq-dit-w3a4": "log3/channel", "lrq-dit-w4a4": "log4/channel",
        "vidit-q-w4a4": "int4 asym/channel", "vidit-q-w3a4": "int3 asym/channel",
    }  # fmt: skip
    for preset, label in weights.items():
        config = LrqDitConfig(**quant.get_preset(preset).config)
        made = formats(linear, config)
        assert made.weight.label == label and made.weight.observer == MinMax()
        by_image = formats(kernel, config)
        assert (made.activation.label, by_image.activation.label) == ("int4/token", "int4/sample")
        assert (config.smoothing, config.threshold, config.samples, config.block) == (0.5, 1.0, 8, 128)
        assert config.rotation == ("hadamard" if "vidit" in preset else "adaptive")
        assert isinstance(formats(linear._replace(name="adaln_single.linear"), config), str)
    clipped = formats(linear, LrqDitConfig(weight_grid="uniform-clipped"))
    assert clipped.weight.observer == MseSearch()


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


def test_grid_label_and_json() -> None:
    grid = LogGrid(bits=3, octaves=None, offset=True)
    assert LogGrid.model_validate_json(grid.model_dump_json()) == grid and grid.label == "log3"
