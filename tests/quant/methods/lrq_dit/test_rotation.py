"""LRQ-DiT: what is measured on inputs, smoothing, and the rotation that follows."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import quant
from quant.denoisers.inventory import LayerInfo
from quant.formats.quantizer import int_quantizer
from quant.layers.rotations import Rotate, blockwise, chain_matrix
from quant.methods.lrq_dit import LrqDitConfig, core, rotation
from quant.methods.lrq_dit.rotation import (
    InputStats,
    block_of,
    greedy,
    kind_of,
    outlier_rotation,
    smoothing_factor,
    zigzag,
)
from quant.methods.plumbing import Work
from quant.plans.plan import LayerPlan


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def planted(channel: int = 3, size: float = 50.0, seed: int = 4) -> torch.Tensor:
    rows = rand(40, 48, seed=seed, dtype=torch.float32)
    rows[:, channel] *= size
    return rows


def test_greedy_rotation_spreads_a_planted_channel() -> None:
    rows = planted()
    part = outlier_rotation(rows, LrqDitConfig(block=16), -1, None, 0)
    assert part.moves[0][0] == 3 and len(part.moves[0]) >= 1
    assert part(rows).abs().max() < rows.abs().max() / 2
    assert sorted(part.order.tolist()) == list(range(48))
    x, weight = rand(20, 48), rand(30, 48, seed=1)
    torch.testing.assert_close(part(x) @ part.to_weight(weight).T, x @ weight.T, rtol=1e-12, atol=1e-12)


def test_second_rotation_follows_the_permutation() -> None:
    """R1 leaves wide channels in their block, P deals that block out, R2 spreads it over the others."""
    rows = rand(40, 128, seed=4, dtype=torch.float32)
    rows[:, :8] *= 50
    part = outlier_rotation(rows, LrqDitConfig(block=16), -1, None, 0)
    first_only = Rotate(128, -1, None, part.order, block=16, moves=(part.moves[0], []), seed=part.seed)
    assert part.moves[1]
    assert part(rows).abs().max() < 0.75 * first_only(rows).abs().max()


@pytest.mark.parametrize("rows", [planted(), planted().abs()], ids=["signed", "positive"])
def test_greedy_keeps_the_best_prefix(rows: torch.Tensor) -> None:

    def peak(moves: list[int]) -> float:
        turned = blockwise(rows.double(), chain_matrix(tuple(moves), 16, 7, torch.float64, rows.device))
        return float(turned.max() - turned.min())

    kept, tried = greedy(rows, 16, 32, 7), []
    assert 0 < len(kept) < 32
    x = rows
    while len(tried) < 32:  # the whole chain, step by step
        x = blockwise(rows.double(), chain_matrix(tuple(tried), 16, 7, torch.float64, rows.device))
        tried.append(int(x.reshape(-1, 16).abs().argmax()) % 16)
    assert kept == tried[: len(kept)]
    assert peak(kept) == pytest.approx(min(peak(tried[:n]) for n in range(33)), rel=1e-9)


def test_the_chain_is_built_on_what_it_is_applied_to(monkeypatch) -> None:
    """The zigzag deals by max - min of the channels after R1; R2 is found behind both."""
    rows, config, seen = rand(24, 64, seed=2, dtype=torch.float32), LrqDitConfig(block=16), []
    rows = rows**3
    monkeypatch.setattr(rotation, "zigzag", lambda s, block: seen.append(s) or zigzag(s, block))
    part = outlier_rotation(rows, config, -1, None, 0)
    first = blockwise(rows, chain_matrix(tuple(part.moves[0]), 16, 0, rows.dtype, rows.device))
    torch.testing.assert_close(seen[0], first.amax(0) - first.amin(0))
    assert part.moves[1] == greedy(first[:, part.order.long()], 16, config.greedy_steps, 1)
    assert part.moves[1] != greedy(first[:, part.order.long()], 16, config.greedy_steps, 0)


def test_a_permutation_of_many_channels_is_planned_and_stored() -> None:
    """More than 32,768 channels do not fit into int16."""
    count, config = 40960, LrqDitConfig(greedy_steps=1)
    rows = rand(4, count, dtype=torch.float32)
    part = outlier_rotation(rows, config, -1, None, 0)
    assert part.order.dtype == torch.int32
    assert torch.equal(part.order.sort().values.long(), torch.arange(count))
    info = LayerInfo("wide", "Linear", (2, count), 1, 0, True)
    planned = core.formats(info, config).side_bytes
    assert planned == 4 * count + 4 * count  # the smoothing factor and the permutation
    small = core.formats(info._replace(shape=(2, 64)), config).side_bytes
    assert small == 4 * 64 + 2 * 64


def inside(weight: torch.Tensor, inputs: torch.Tensor, config: LrqDitConfig) -> SimpleNamespace:
    """Transform and result of one linear layer, as the method finds them."""
    info = LayerInfo("layer", "Linear", tuple(weight.shape), 1, 0, True)
    made = core.formats(info, config)
    line = LayerPlan(
        name="layer",
        kind="Linear",
        shape=tuple(weight.shape),
        weight=made.weight,
        bytes_before=1,
        bytes_after=1,
    )
    stats = InputStats(-1)
    stats.update(inputs)
    stats.keep(inputs)
    module = torch.nn.Linear(*weight.shape[::-1], bias=False, dtype=weight.dtype)
    module.weight = torch.nn.Parameter(weight)
    result = core._layer(Work(line, module, config), info, stats, 0)
    return SimpleNamespace(transform=result.transform, weight=result.weight, notes=result.notes)


def test_outlier_rotation_is_found_on_smoothed_rows() -> None:
    """Channel 3 is wide before smoothing and ordinary after it, channel 10 the other way round."""
    x, weight = rand(200, 64, dtype=torch.float32), rand(16, 64, seed=1, dtype=torch.float32)
    x[:, 3], weight[:, 3] = 50 * x[:, 3], weight[:, 3] / 50
    weight[:, 10] *= 900
    layer = inside(weight, x, LrqDitConfig(block=64))
    assert layer.notes["rotation"] == "outlier"
    assert layer.transform.moves[0][0] == 10


def test_a_bfloat16_weight_is_rotated_in_float32() -> None:
    """8 bits of rounding, none of the rotation: bfloat16 would add errors at 48 dB."""
    weight, x = rand(32, 96, dtype=torch.float32).bfloat16(), rand(64, 96, dtype=torch.float32)
    config = LrqDitConfig(weight_bits=8, weight_grid="uniform", smoothing=None)
    half, full = inside(weight, x, config), inside(weight.float(), x, config)
    assert torch.equal(half.weight.packed, full.weight.packed)
    assert all(torch.equal(half.weight.params[k], v) for k, v in full.weight.params.items())


def test_zigzag_deals_the_widest_channels_to_different_blocks() -> None:
    spread = torch.zeros(64)
    spread[torch.arange(4)] = torch.tensor([9.0, 8.0, 7.0, 6.0])
    order = zigzag(spread, 16)
    blocks = [order.tolist().index(channel) // 16 for channel in range(4)]
    assert sorted(blocks) == [0, 1, 2, 3]


def test_zigzag_goes_back_and_forth() -> None:
    assert zigzag(torch.arange(8.0, 0, -1), 4).tolist() == [0, 3, 4, 7, 1, 2, 5, 6]


def test_blocks_are_the_largest_powers_of_two_that_divide() -> None:
    sizes = [block_of(count, 128) for count in (1152, 3072, 72, 48, 20, 33)]
    assert sizes == [128, 128, 8, 16, 0, 0] and block_of(64, 16) == 16


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_j_of_half_precision_inputs(dtype: torch.dtype) -> None:
    """The square of 300 is infinite in float16."""
    x = torch.full((4, 16, 64), 0.25)
    x[0, 0, 3] = 300.0
    stats = InputStats(-1)
    stats.update(x.to(dtype))
    assert stats.j == pytest.approx(float(x.double().square().mean().sqrt()), rel=1e-6)


def test_kept_rows_are_those_with_the_largest_entries() -> None:
    x = rand(500, 8, dtype=torch.float32)
    stats = InputStats(-1)
    for chunk in x.split(170):
        stats.keep(chunk)
    largest = x.abs().amax(1).topk(128).indices
    assert torch.equal(stats.rows, x[largest.sort().values])


def test_smoothing_factor_has_the_papers_exponents() -> None:
    """a is the weight's share: max|x|^(1-a) / max|w|^a."""
    weight = torch.tensor([[81.0, -1.0, 0.0], [2.0, 0.5, 0.0]])
    factor = smoothing_factor(torch.tensor([16.0, 16.0, 5.0]), weight, 0.25)
    torch.testing.assert_close(factor, torch.tensor([8 / 3, 8.0, 1.0]))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32])
def test_smoothing_factor_is_a_number_of_the_models_type(kind: torch.dtype) -> None:
    """Weights were multiplied by float32 factors, and a bfloat16 input divided by rounded ones."""
    absmax, weight = rand(64, dtype=torch.float32).abs() * 10, rand(8, 64, seed=1, dtype=kind)
    weight[:, 0] = 1e-7  # the factor would be infinite in float16
    factor = smoothing_factor(absmax * 1e6, weight, 0.9)
    assert torch.equal(factor, factor.to(kind).float()) and float(factor[0]) == float(factor.max()) == 2.0**15


def test_rule() -> None:
    config = LrqDitConfig()
    assert kind_of(0.99, 64, config) == "hadamard" and kind_of(1.0, 64, config) == "outlier"
    assert kind_of(5.0, 33, config) == "hadamard"  # no block of at least 8 channels
    assert kind_of(5.0, 64, LrqDitConfig(rotation="hadamard")) == "hadamard"


def salient(size: float, shrink: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs with planted channels, and a weight that is small there."""
    generator = torch.Generator().manual_seed(seed)
    x, weight = (
        torch.randn(256, 512, generator=generator),
        torch.randn(64, 512, generator=generator) / 512**0.5,
    )
    channels = torch.randperm(512, generator=generator)[:4]
    x[:, channels] *= size
    weight[:, channels] /= shrink
    return x, weight


@pytest.mark.parametrize(("size", "shrink"), [(245, 40), (245, 245), (100, 40), (5, 1)])
def test_both_rotations_are_alike_after_smoothing(size: float, shrink: float) -> None:
    """After smoothing J is about the same everywhere, and DuQuant's rotation is no better than Hadamard's."""
    quantizer, ratios = int_quantizer(4, "token"), []
    for seed in range(3):
        x, weight = salient(size, shrink, seed)
        factor = smoothing_factor(x.abs().amax(0), weight, 0.5)
        before, after = InputStats(-1), InputStats(-1)
        before.update(x)
        after.update(x / factor)
        assert before.j > 1 and after.j == pytest.approx(0.17, abs=0.03)
        before.keep(x)
        duquant = outlier_rotation(before.rows / factor, LrqDitConfig(), -1, factor, seed)
        errors = [
            (quantizer.fake(part(x), "linear_input") @ part.to_weight(weight).T - x @ weight.T).norm()
            for part in (duquant, Rotate(512, -1, factor, seed=seed, signed=True))
        ]
        ratios.append(float(errors[0] / errors[1]))
    assert sum(ratios) / 3 == pytest.approx(1, abs=0.02)


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

    smooth = quant.layers.attachments.Smooth(factor)
    had = Rotate(256, -1, factor)
    duquant = outlier_rotation(x / factor, LrqDitConfig(), -1, factor, 0)
    raw, smoothed = error(None, weight), error(smooth, smooth.to_weight(weight))
    rotated = error(Rotate(256), Rotate(256).to_weight(weight))
    both, greedy = error(had, had.to_weight(weight)), error(duquant, duquant.to_weight(weight))
    assert both < smoothed < min(raw, rotated) and raw > 0.5
    assert greedy < smoothed
