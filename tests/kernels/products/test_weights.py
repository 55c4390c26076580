"""Products that decode packed weights: expansion to an operand, few rows, the whole low-rank linear."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch

from kernels import packing
from kernels.products import lowrank_steps
from kernels.products.expand import Branch, expand
from kernels.products.expand_half import expand_half
from kernels.products.few_rows import few_rows
from kernels.products.lowrank_linear import (
    LowRankWeight,
    decoded,
    lowrank_linear,
    multiplied_by,
    prepare,
)
from kernels.rows.operands import balance_of, columns_of
from kernels.tuned.configs import Config

FEW = [
    Config(16, 32, 64, 3, 4), Config(16, 32, 128, 3, 4, split=3), Config(16, 32, 256, 5, 2, keep=True),
    Config(16, 16, 256, 3, 1, split=2, halves=2, keep=True), Config(8, 64, 256, 4, 4, split=2, keep=True),
]  # fmt: skip
SHAPES = [(64, 512), (40, 256), (5, 123), (1, 64), (17, 9)]


def packed(n: int, k: int, fine: torch.dtype, low: int = -9) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(n + k)
    codes = torch.randint(-7, 8, (n, k), generator=generator).to(torch.int8)
    range_ = (low, 7) if fine == torch.int8 else (1, 16)
    return packing.pack(codes, 4), torch.randint(*range_, (n, -(-k // 64)), generator=generator).to(fine)


def layer(k: int, n: int, fine: torch.dtype, bits: int, rank: int = 20) -> tuple[LowRankWeight, torch.Tensor]:
    """Build a layer and the float weight that it stands for, on smoothed input folded back."""
    generator = torch.Generator().manual_seed(k)
    codes, scales = packed(n, k, fine, 3)
    column = (torch.rand(n, generator=generator) + 0.5) * 1e-3
    smooth = torch.rand(k, generator=generator) + 0.5
    down = (torch.randn(rank, k, generator=generator) * 0.05).bfloat16()
    up = (torch.randn(n, rank, generator=generator) * 0.3).bfloat16()
    bias = torch.randn(n, generator=generator).bfloat16()
    values = torch.exp2(scales.float()) if fine == torch.int8 else scales.float()
    residual = (
        packing.unpack(codes, 4, k, True).float() * values.repeat_interleave(64, 1)[:, :k] * column[:, None]
    )
    weight = prepare(codes, scales, column, k, 64, bits, smooth, down, up, bias)
    return weight, residual / smooth + up.float() @ down.float()


def moved(weight: LowRankWeight, device: str) -> LowRankWeight:
    values = {name: v.to(device) if isinstance(v, torch.Tensor) else v for name, v in vars(weight).items()}
    return LowRankWeight(**values)


def distance(out: torch.Tensor, exact: torch.Tensor) -> float:
    return ((out.double() - exact.double()).norm() / exact.double().norm()).item()


def check(device: str) -> None:
    """Kernels against references."""
    for n, k in SHAPES:
        expansion(n, k, device)
        in_half(n, k, device)
        few(n, k, device)
    shapes = ((2, 5, 192), (192,), (7, 123), (0, 64), (2, 3, 2, 72))
    for (place, shape), fine, bits in itertools.product(enumerate(shapes), (torch.int8, torch.uint8), (4, 8)):
        # interpreted, by pairwise cover of shapes, types and bits
        if device != "cpu" or (place + (fine == torch.int8) + (bits == 4)) % 2:
            linear(shape, fine, bits, device)


def in_half(n: int, k: int, device: str) -> None:
    """The weight itself: bit for bit the reference, in every type of scales and of the result."""
    column = (torch.rand(n, generator=torch.Generator().manual_seed(0)) + 0.1).to(device)
    types = [torch.float16, torch.float32]  # the interpreter cuts bfloat16 numbers where a GPU rounds them
    types += [] if device == "cpu" else [torch.bfloat16]
    for place, kind in enumerate((torch.int8, torch.uint8, torch.bfloat16, torch.float16, torch.float32)):
        codes, scales = (
            t.to(device) for t in packed(n, k, torch.int8 if kind == torch.int8 else torch.uint8)
        )
        fine = scales if not kind.is_floating_point else (scales.float() * 0.3).to(kind)
        for coarse, dtype in itertools.product((None, column), types):
            # interpreted, by turns with the shapes: each kind meets both types with and without a scale
            if device == "cpu" and (place + SHAPES.index((n, k)) + (coarse is None) + types.index(dtype)) % 2:
                continue
            exact = expand_half(codes, fine, k, 64, coarse, dtype, "reference").value
            ours = expand_half(codes, fine, k, 64, coarse, dtype, "triton", Config(1, 8, 256, 1, 4)).value
            assert ours.shape == (n, k) and torch.equal(exact, ours), (n, k, kind, dtype)


def expansion(n: int, k: int, device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    for fine in (torch.int8, torch.uint8):
        codes, scales = (tensor.to(device) for tensor in packed(n, k, fine))
        tail = torch.randn(n, 64, generator=generator).to(torch.float8_e4m3fn).to(device)
        for extra in (None, tail) if fine == torch.int8 else (None,):
            exact = expand(codes, scales, k, tail=extra, path="reference").value
            ours = expand(codes, scales, k, tail=extra, path="triton", config=Config(1, 8, 256, 1, 4)).value
            assert exact.shape == ours.shape and torch.equal(exact.float(), ours.float()), (n, k, fine)
    codes, scales = (tensor.to(device) for tensor in packed(n, k, torch.int8))
    up, column = torch.randn(n, 16, generator=generator).bfloat16(), torch.rand(n, generator=generator) + 0.1
    branch = Branch(*(t.to(device) for t in (up, column, balance_of(up, column))))
    held = expand(codes, scales, k, tail=columns_of(*branch), path="reference").value
    exact = expand(codes, scales, k, path="reference", branch=branch).value
    ours = expand(codes, scales, k, path="triton", config=Config(1, 8, 256, 1, 4), branch=branch).value
    assert torch.equal(held.float(), exact.float()) and torch.equal(exact.float(), ours.float()), (n, k)


def linear(shape: tuple[int, ...], fine: torch.dtype, bits: int, device: str) -> None:
    weight = moved(layer(shape[-1], 40, fine, bits)[0], device)
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0)).bfloat16().to(device)
    exact = lowrank_linear(x, weight, "reference").value
    ours = lowrank_linear(x, weight, "triton").value
    assert exact.shape == ours.shape == (*shape[:-1], 40) and ours.dtype == x.dtype
    assert torch.equal(ours, lowrank_linear(x, decoded(weight, "triton"), "triton").value)
    assert not x.numel() or distance(ours, exact) < 1e-2, (fine, bits, shape, distance(ours, exact))


def few(n: int, k: int, device: str) -> None:
    generator = torch.Generator().manual_seed(1)
    codes, fine = (tensor.to(device) for tensor in packed(n, k, torch.int8, -3))
    real = torch.rand(n, -(-k // 64), generator=generator).bfloat16().to(device)
    column, bias = (torch.rand(n, generator=generator).to(device) for _ in range(2))
    for m in (1, 16, 19) if device == "cpu" else (1, 19):
        for dtype, tolerance in ((torch.bfloat16, 8e-3), (torch.float16, 4e-4)):
            x = torch.randn(m, k, generator=generator).to(dtype).to(device)
            scales = [(fine, column), (real, None)]
            if m == 19:  # the other types that scales may have
                whole = torch.randint(1, 16, fine.shape, generator=generator, dtype=torch.uint8).to(device)
                scales += [(whole, column), (real.half(), None), (real.float(), None)]
            for place, (scale, coarse) in enumerate(scales):
                exact = few_rows(x, codes, scale, 64, coarse, bias, path="reference").value
                # interpreted, a launch takes tenths of a second: each config meets each type, m and dtype
                start = SHAPES.index((n, k)) + place
                for config in FEW if device != "cpu" else [FEW[(start + m) % len(FEW)]]:
                    ours = few_rows(x, codes, scale, 64, coarse, bias, path="triton", config=config).value
                    assert distance(ours, exact) < tolerance, (n, k, m, dtype, config, distance(ours, exact))

    with pytest.raises(ValueError, match=r"int8, uint8, bfloat16, float16 or float32, got torch\.float64"):
        few_rows(torch.ones(1, k, device=device).bfloat16(), codes, real.double(), 64, path="triton")


def test_interpreted(interpreted: Callable[[str], None]) -> None:
    interpreted(__file__)


@pytest.mark.gpu
@pytest.mark.parametrize(("n", "k"), SHAPES)
def test_compiled(n: int, k: int) -> None:
    expansion(n, k, "cuda")
    few(n, k, "cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("fine", [torch.int8, torch.uint8])
@pytest.mark.parametrize("bits", [4, 8])
def test_compiled_linear(fine: torch.dtype, bits: int) -> None:
    for shape in ((2, 5, 192), (7, 123), (0, 64)):
        linear(shape, fine, bits, "cuda")


@pytest.mark.gpu
def test_product_by_torch() -> None:
    """Where the table gives the product to torch: as the kernel's, NaN in the same rows."""
    weight = moved(layer(192, 48, torch.int8, 4)[0], "cuda")
    x = torch.randn(3, 37, 192, generator=torch.Generator().manual_seed(0)).bfloat16().cuda()
    x[1, 2, 3] = float("nan")
    if torch.cuda.get_device_capability() < lowrank_steps.ROWWISE:
        pytest.skip("torch has no row-wise float8 product here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lowrank_steps, "lookup", lambda *_: Config(vendor=True))
        assert multiplied_by(x, weight) == "torch" and multiplied_by(x.float(), weight) == "triton"
        assert multiplied_by(x[0, :1], weight) == "triton"
        ours = lowrank_linear(x, weight, "triton").value
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lowrank_steps, "torch_multiplies", lambda *_: False)
        kernel = lowrank_linear(x, weight, "triton").value
    whole = ~ours.isnan().any(-1)
    assert (~whole).sum() == 1 and ours[1, 2].isnan().all() and torch.equal(ours.isnan(), kernel.isnan())
    assert distance(ours[whole], kernel[whole]) < 4e-3


@pytest.mark.parametrize("fine", [torch.int8, torch.uint8])
@pytest.mark.parametrize(("bits", "most"), [(4, 0.15), (8, 0.035)])
def test_layer_stands_for_its_float_weight(fine: torch.dtype, bits: int, most: float) -> None:
    weight, dense = layer(192, 40, fine, bits)
    x = torch.randn(30, 192, generator=torch.Generator().manual_seed(5))
    weight = LowRankWeight(**{**vars(weight), "down": weight.down.float()})
    exact = x @ dense.T + weight.bias.float()
    assert distance(lowrank_linear(x, weight).value, exact) < most


def test_branch_columns_carry_the_branch() -> None:
    """Codes of zero: what is left is the branch, to 8 significant bits."""
    weight, _ = layer(192, 40, torch.int8, 4)
    weight = LowRankWeight(**{**vars(weight), "packed": torch.zeros_like(weight.packed), "bias": None})
    generator = torch.Generator().manual_seed(192)
    x = torch.randn(16, 192, generator=torch.Generator().manual_seed(6)).bfloat16()
    torch.rand(40, generator=generator), torch.rand(192, generator=generator)
    down = (torch.randn(20, 192, generator=generator) * 0.05).bfloat16()
    up = (torch.randn(40, 20, generator=generator) * 0.3).bfloat16()
    exact = x.double() @ down.double().T @ up.double().T
    out = lowrank_linear(x.float(), LowRankWeight(**{**vars(weight), "down": weight.down.float()})).value
    assert distance(out, exact) < 3e-3


def test_wide_branch_leaves_the_codes_alone() -> None:
    """A branch far larger than the codes takes a coarser unit of the row, never a saturated column."""
    weight, _ = layer(192, 40, torch.int8, 4)
    x = torch.randn(4, 192, generator=torch.Generator().manual_seed(7))
    small = LowRankWeight(**{**vars(weight), "down": weight.down.float(), "bias": None})
    large = LowRankWeight(**{**vars(small), "down": small.down * 4096})
    none = LowRankWeight(**{**vars(small), "down": small.down * 0})
    codes = lowrank_linear(x, none, "reference").value
    branch = (lowrank_linear(x, small).value - codes) * 4096
    assert distance(lowrank_linear(x, large).value - codes, branch) < 2e-2


def test_exponents_whose_bytes_no_table_holds_are_known() -> None:
    for fine, lowest, least in ((torch.int8, -6, -6), (torch.int8, -7, -9), (torch.uint8, 0, -9)):
        scales = torch.full((4, 1), lowest, dtype=torch.int32).to(fine)
        assert prepare(torch.zeros(4, 32, dtype=torch.uint8), scales, torch.ones(4), 64).least == least


def test_torch_multiplies_what_its_product_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    class There:
        is_cuda, device = True, torch.device("cuda", 0)

    half, a = torch.bfloat16, There()
    monkeypatch.setattr(lowrank_steps.paths, "capability", lambda device: (9, 0))
    monkeypatch.setattr(lowrank_steps, "lookup", lambda *_: Config(vendor=True))
    takes = lowrank_steps.torch_multiplies
    assert takes(16, 32, 48, half, None, a) and takes(17, 32, 48, half, torch.ones(32, dtype=half), a)
    for m, n, k in ((15, 32, 48), (16, 40, 48), (16, 32, 40)):
        assert not takes(m, n, k, half, None, a), (m, n, k)
    assert not takes(16, 32, 48, torch.float16, None, a)
    assert not takes(16, 32, 48, half, torch.ones(32), a)
    assert not takes(16, 32, 48, half, None, torch.ones(1))
    monkeypatch.setattr(lowrank_steps.paths, "capability", lambda device: (8, 9))
    assert not takes(16, 32, 48, half, None, a)


def test_bad_input_is_named() -> None:
    codes, scales = packed(4, 64, torch.int8)
    with pytest.raises(ValueError, match="K = 66 takes uint8 codes"):
        expand(codes, scales, 66)
    with pytest.raises(ValueError, match="int8 or uint8 of shape"):
        expand(codes, scales.float(), 64)
    with pytest.raises(ValueError, match="needs 32 bytes and 2 scales"):
        few_rows(torch.ones(1, 64), codes, scales, 32)
    with pytest.raises(ValueError, match=r"x must be \(..., 192\), got \(2, 3\)"):
        lowrank_linear(torch.ones(2, 3), layer(192, 40, torch.int8, 4)[0])
    with pytest.raises(ValueError, match="4 or 8 bits, got 6"):
        prepare(codes, scales, torch.ones(4), 64, activation_bits=6)
    down, up = torch.ones(16, 64), torch.ones(4, 16)
    for factor in (down, up):
        factor[3, 5] = float("nan")
        with pytest.raises(ValueError, match="the branch holds numbers that are not finite"):
            prepare(codes, scales, torch.ones(4), 64, down=down, up=up)
        factor[3, 5] = 1
