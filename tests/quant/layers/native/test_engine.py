"""A whole model natively: which way each layer takes, what is refused, graphs, and memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import quant
from quant.layers.install import quant_layers, state_of
from quant.layers.lowbit import paths
from quant.layers.native.graphs import graphed
from quant.layers.native.ways import (
    native_,
    natively,
    refuse_device,
    refuse_plan,
    summary,
    survey,
    way_of_line,
)


def small(recipe: str, device: str = "cpu", width: int = 64) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)).to(device)
    quant.quantize_(model, recipe, keep_originals=False)
    return model


@torch.no_grad()
def check(device: str) -> None:
    """Natively as simulated, any rank, NaN in NaN out, and back."""
    model = small("rtn-w8a8", device)
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(1)).to(device)
    simulated = model(x)
    ways = native_(model)
    assert all(way.native and way.op == "int8" for way in ways.values()), ways
    out = model(x)
    layers = quant_layers(model)
    assert {layer.last_path for layer in layers.values()} == {"int8: triton"}
    assert all(layer.decoded.numel() == 0 for layer in layers.values())
    assert ((out - simulated).norm() / simulated.norm()).item() < 1e-2
    assert {line.path for line in state_of(model).ledger.layers} == {"native: int8"}
    for given in (x[0], x[None, None], x[:0]):
        assert model(given).shape == given.shape
    torch.testing.assert_close(model(x[None])[0], out)
    bad = x.clone()
    bad[2, 3] = float("nan")
    found = model(bad)
    assert found[2].isnan().all() and torch.equal(found[[0, 1, 3, 4]], out[[0, 1, 3, 4]])
    for layer in layers.values():
        layer.backend = "simulated"
    assert torch.equal(model(x), simulated)


def test_interpreted(interpreted: Callable[[str], None]) -> None:
    interpreted(__file__)


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    check("cuda")


def test_without_a_gpu_it_is_refused_and_says_why() -> None:
    model = small("rtn-w8a8")
    assert not any(way.native for way in survey(model).values())
    assert "the tensors are on cpu" in next(iter(survey(model).values())).text
    with pytest.raises(quant.HardwareError, match="native arithmetic cannot run here"):
        native_(model)
    with pytest.raises(quant.HardwareError) as refused:
        refuse_device("cpu")
    assert refused.value.exit_code == 3
    assert {layer.backend for layer in quant_layers(model).values()} == {"simulated"}


def test_a_recipe_without_kernels_is_refused_with_those_that_have_some() -> None:
    plain = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 8))
    with pytest.raises(quant.InputError, match=r"rtn-w3a4 has no layer with a kernel here.*rtn-w8a8"):
        refuse_plan(quant.plan(plain, "rtn-w3a4"), "cpu")
    with pytest.raises(quant.InputError, match="not quantized"):
        native_(plain)


def test_convolutions_that_no_kernel_makes_are_not_called_native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "obstacle", lambda device, needs=(8, 0): "")
    odd = {"groups": 4}, {"padding": 1, "padding_mode": "circular"}, {"padding": "same"}
    plain = [nn.Conv2d(16, 16, 3, padding=1) for _ in range(2)]
    model = nn.Sequential(plain[0], *(nn.Conv2d(16, 16, 3, **options) for options in odd), plain[1])
    quant.quantize_(model, "rtn-w8a8", keep_originals=False)
    whys = {str(place): text for place, text in enumerate((
        "native: conv int8", "simulated: a convolution in 4 groups",
        "simulated: a convolution with padding circular", "simulated: a convolution with padding 'same'",
        "native: conv int8",
    ))}  # fmt: skip
    found = {name: one.text for name, one in survey(model).items()}
    assert found == {name: whys[name] for name in found} and {"1", "2", "3"} <= set(found)
    for line in state_of(model).ledger.layers:
        if line.name in found:
            assert way_of_line(line, "cpu") == whys[line.name]
    layers = quant_layers(model)
    with natively(model) as ways:
        backends = {name: "kernels" if one.native else "simulated" for name, one in ways.items()}
        assert {name: layer.backend for name, layer in layers.items()} == backends
        assert set(backends.values()) == {"kernels", "simulated"}
    assert {layer.backend for layer in layers.values()} == {"simulated"}
    assert way_of_line(line.model_copy(update={"weight": None}), "cpu") == "floating point"


def test_a_graph_needs_a_gpu() -> None:
    with pytest.raises(quant.HardwareError, match="CUDA graphs"), graphed(small("rtn-w8a8")):
        pass


def test_a_switched_model_can_be_copied_and_moved() -> None:
    import copy

    model = small("rtn-w8a8")
    layer = next(iter(quant_layers(model).values()))
    exact = layer.current().clone()
    layer.forget_decoded()
    again = next(iter(quant_layers(copy.deepcopy(model).half()).values()))
    assert again.native is None and torch.equal(again.current(), exact.half())
    assert torch.equal(layer.current(), exact)


@pytest.mark.gpu
def test_a_graph_gives_the_same_bytes() -> None:
    model = small("rtn-w8a8", "cuda")
    with torch.no_grad(), natively(model) as ways:
        assert summary(ways).startswith("native in 2 of 2 layers (int8 2)")
        x, other = torch.randn(2, 5, 64, device="cuda")
        exact = model(x), model(other)
        with graphed(model):
            assert torch.equal(model(x), exact[0]) and torch.equal(model(other), exact[1])
            assert torch.equal(model(x[:3]), exact[0][:3])
        assert torch.equal(model(x), exact[0])
    assert {line.path.split(":")[0] for line in state_of(model).ledger.layers} == {
        "simulated (reference); from codes"
    }


@pytest.mark.gpu
def test_memory_is_that_of_four_bits() -> None:
    """Codes and scales are held; a forward adds the eight-bit operand of one layer for a moment."""
    from quant.formats.granularity import Granularity
    from quant.formats.grids import IntGrid
    from quant.formats.quantizer import Quantizer
    from quant.formats.schedule import Clock, Schedule
    from quant.layers.encoded import EncodedWeight, LayerResult
    from quant.layers.quantized import make

    width, depth = 4096, 8
    group = Granularity(kind="group", group_size=64)
    stored = Quantizer(grid=IntGrid(bits=4), granularity=group, fine="pow2", schedule=Schedule(kind="static"))
    given = Quantizer(grid=IntGrid(bits=4), granularity=group, fine="pow2")
    torch.cuda.empty_cache()
    layers, before = [], torch.cuda.memory_allocated()
    for _ in range(depth):
        original = nn.Linear(width, width, device="cuda", dtype=torch.bfloat16)
        encoded = EncodedWeight.from_weight(original.weight.float(), stored, "linear_weight")
        layer = make(original, LayerResult(encoded, given), Clock(), keep_original=False)
        layer.backend = "kernels"
        layer.forget_decoded()
        layers.append(layer)
    del original, encoded
    model = nn.Sequential(*layers)
    x = torch.randn(16, width, device="cuda", dtype=torch.bfloat16)
    with torch.no_grad():
        model(x)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        held = torch.cuda.memory_allocated() - before
        torch.cuda.reset_peak_memory_stats()
        model(x)
        peak = torch.cuda.max_memory_allocated() - before
    sixteen = 2 * width * width * depth
    assert held < sixteen / 3.6, (held, sixteen)
    assert peak - held < 1.1 * width * width + 2**21, (peak - held, width * width)
