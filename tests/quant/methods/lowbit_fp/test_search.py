"""Low-bit floats: format and clip of a tensor, from a part of its values."""

from __future__ import annotations

import math

import pytest
import torch

from quant.formats.floats import FloatGrid
from quant.formats.granularity import Granularity
from quant.formats.grids import IntGrid
from quant.formats.quantizer import Quantizer
from quant.methods.lowbit_fp import LowbitFpConfig
from quant.methods.lowbit_fp.core import _layer, _quantizer
from quant.methods.lowbit_fp.search import sample, search
from quant.plans.plan import LayerPlan
from quant.recordings.rows import LayerRows
from quant.registry import Context


def drawn(law: str, count: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(count, generator=generator)
    if law == "gauss":
        return normal
    if law == "laplace":
        return normal.sign() * -torch.rand(count, generator=generator).clamp(min=1e-12).log()
    freedom = int(law[1:])  # Student's t
    return normal / torch.randn(count, freedom, generator=generator).square().mean(1).sqrt()


def even(law: str, count: int) -> torch.Tensor:
    """Quantiles in random order: a draw's largest values, which INT8 feels, differ from seed to seed."""
    share = (torch.randperm(count, generator=torch.Generator().manual_seed(0)).double() + 0.5) / count
    if law == "laplace":
        return (-(share - 0.5).sign() * torch.log(1 - 2 * (share - 0.5).abs())).float()
    normal = torch.special.ndtri(share).float()
    return torch.nn.functional.silu(2 * normal) if law == "silu" else normal


def sqnr(x: torch.Tensor, y: torch.Tensor) -> float:
    return 10 * math.log10(x.double().square().sum() / (x - y).double().square().sum())


def part(x: torch.Tensor, count: int = 16384):
    return sample(x, count, torch.Generator().manual_seed(0))


def test_search_picks_the_format_for_the_tails() -> None:
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(40000, generator=generator)
    heavy = normal / (torch.randn(40000, 3, generator=generator).square().mean(1)).sqrt()  # Student t(3)
    eight = _quantizer(8, LowbitFpConfig())

    def found(x: torch.Tensor, quantizer: Quantizer) -> tuple[str, float]:
        params, notes = search(sample(x, 16384, torch.Generator().manual_seed(0)), quantizer, 111)
        noise = (x - quantizer.fake(x, "linear_input", params)).square().sum() / x.square().sum()
        return notes["format"], -10 * float(torch.log10(noise))

    label, decibel = found(normal, eight)
    assert label == "fp8-e2m5" and decibel == pytest.approx(42.7, abs=0.5)
    label, decibel = found(heavy, eight)
    assert label == "fp8-e3m4" and decibel == pytest.approx(37.3, abs=0.7)
    hardware = _quantizer(8, LowbitFpConfig(formats="hardware"))
    for x in (normal, heavy):
        assert found(x, hardware)[1] == pytest.approx(31.6, abs=0.3)  # floats are flat in the data
    four = _quantizer(4, LowbitFpConfig())
    assert found(normal, four)[1] == pytest.approx(19.0, abs=0.3)
    assert found(heavy, four)[0] == "fp4-e3m0"
    assert found(torch.zeros(10), four)[1] != found(normal, four)[1]


@pytest.mark.parametrize(
    ("law", "expected"),
    [
        ("gauss", (42.7, 37.6, 31.6, 25.6, 40.7, 18.9, 19.0, 14.2)),
        ("laplace", (39.2, 37.6, 31.6, 25.6, 35.2, 15.6, 17.3, 14.2)),
        ("silu", (41.1, 37.6, 31.6, 25.6, 37.7, 15.8, 17.0, 14.3)),
    ],
)
def test_formats_have_the_cards_quality(law: str, expected: tuple[float, ...]) -> None:
    """E2M5, E3M4, E4M3, E5M2, INT8, E1M2, E2M1, E3M0; the card's INT4 has a code more than ours."""
    x, found = even(law, 400_000), []
    for exponent, mantissa in ((2, 5), (3, 4), (4, 3), (5, 2), (0, 0), (1, 2), (2, 1), (3, 0)):
        grid = FloatGrid(exponent=exponent, mantissa=mantissa) if exponent else IntGrid(bits=8)
        quantizer = Quantizer(grid=grid, granularity=Granularity(kind="tensor"))
        found.append(sqnr(x, quantizer.fake(x, "linear_input", search(part(x), quantizer, 111)[0])))
    fine = [index in (0, 4) for index in range(8)]  # fine steps: the far end, a matter of the draw, counts
    for value, wanted, loose in zip(found, expected, fine, strict=True):
        assert value == pytest.approx(wanted, abs=0.5 if loose else 0.2)


@pytest.mark.parametrize("law", ["gauss", "laplace", "t6", "t4"])
def test_a_part_finds_what_the_whole_would(law: str) -> None:
    """The largest value counts once, not once in 16,384: INT8 on Laplace lost 4 dB and more by that."""
    x = drawn(law, 400_000)
    for bits, formats in ((8, "integer"), (8, "searched"), (8, "hardware"), (4, "searched"), (4, "integer")):
        quantizer = _quantizer(bits, LowbitFpConfig(weight_bits=bits, formats=formats))
        params, notes = search(part(x), quantizer, 56)
        whole, best = search(part(x, x.numel()), quantizer, 56)
        quality = [sqnr(x, quantizer.fake(x, "linear_weight", p)) for p in (params, whole)]
        assert quality[0] > quality[1] - 0.1, (bits, formats)
        assert notes["format"] == best["format"]


def test_a_part_stands_for_the_whole() -> None:
    x = torch.randn(1000, 70, generator=torch.Generator().manual_seed(0))
    x[3, 5], x[700, 6] = -9.0, 8.5
    seen = part(x, 2048)
    assert len(seen.values) == len(seen.weights) == 2048 and seen.absmax == 9.0
    assert float(seen.weights.sum()) == pytest.approx(70000, rel=1e-6)
    for value in (-9.0, 8.5):
        assert float(seen.weights[seen.values == value].sum()) == 1.0
    assert float(seen.values.square() @ seen.weights) == pytest.approx(float(x.square().sum()), rel=0.03)
    whole = part(x[:2], 2048)
    assert torch.equal(whole.values, x[:2].flatten()) and bool((whole.weights == 1).all())


def test_clips_reach_from_a_tenth_of_absmax_to_a_fifth_above_it() -> None:
    four = _quantizer(4, LowbitFpConfig(formats="integer"))
    spread = 2 * torch.rand(100_000, generator=torch.Generator().manual_seed(0)) - 1
    assert search(part(torch.cat([spread, torch.tensor([10.0])])), four, 111)[1]["clip"] == 0.1
    # seven steps and values on the first six only: the clip that fits lies above the largest of them
    assert search(part(torch.arange(-6.0, 7.0)), four, 111)[1]["clip"] == pytest.approx(7 / 6, abs=0.006)
    # seven steps and no value beyond the last of them by more than the search can reach
    assert search(part(torch.arange(-5.0, 6.0)), four, 111)[1]["clip"] <= 1.2
    clips = [search(part(torch.arange(-6.0, 7.0)), four, n)[1]["clip"] for n in (2, 3)]
    assert clips == [1.2, 1.2]


def test_inputs_are_clipped_relative_to_everything_seen() -> None:
    """Rows are a sample: the largest input ever seen need not be among them."""
    generator = torch.Generator().manual_seed(0)
    module = torch.nn.Linear(32, 8)
    config = LowbitFpConfig(formats="integer")
    line = LayerPlan(
        name="layer", kind="Linear", shape=(8, 32), weight=_quantizer(8, config),
        activation=_quantizer(8, config), bytes_before=1, bytes_after=1,
    )  # fmt: skip
    rows = 2 * torch.rand(512, 32, generator=generator) - 1
    high = torch.full((32,), 1.0)
    high[4] = 4.0
    result = _layer(module, line, LayerRows(rows, -torch.ones(32), high), config, Context())
    assert result.notes["input_clip"] == pytest.approx(0.25, abs=0.011)
    assert float(result.activation_params["scale"]) * 127 == pytest.approx(1, abs=0.05)
    low = -high
    assert _layer(module, line, LayerRows(rows, low, torch.ones(32)), config, Context()).notes == result.notes
