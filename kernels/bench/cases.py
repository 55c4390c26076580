"""What is timed: for each shape the 16-bit product, our kernels, and the peers that install here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from kernels import packing
from kernels.attention.log_attention import log_attention, reference
from kernels.bench.format_cases import formats
from kernels.bench.timed import ROWS, Timed
from kernels.images.conv2d import conv2d
from kernels.images.group_norm import group_norm, sample_scale
from kernels.products.few_rows import few_rows
from kernels.products.gemm import gemm
from kernels.products.lowrank_linear import LowRankWeight, decoded, lowrank_linear, operand_of, prepare
from kernels.rows.quantize import quantize

LARGE = [
    (4096, 3072, 12288), (4096, 12288, 3072), (4096, 3072, 3072), (4608, 3072, 9216),
    (8192, 640, 2560), (2048, 1280, 5120), (2048, 1280, 1280),
]  # fmt: skip
"""(M, K, N): FLUX and SDXL layers."""
SMALL = [(16, 3072, 12288), (1, 3072, 12288), (16, 12288, 3072), (1, 3072, 18432)]
OTHER_FORMATS = 2**35
"""Products of a linear from which the other weight formats are timed, too."""
ROTATED = 8
RANK = 32
GROUP = 64


IMAGES = [
    (2, 128, 320, 320, 3),
    (2, 64, 640, 640, 3),
    (2, 32, 1280, 1280, 3),
    (2, 32, 2560, 1280, 3),
    (2, 128, 320, 320, -3),
]
"""(batch, side, channels in, channels out, kernel) of SDXL; a negative kernel has stride 2."""
ATTENTION = [(2, 10, 4096, 4096, 64), (2, 20, 1024, 1024, 64), (2, 20, 1024, 77, 64)]
"""(batch, heads, queries, keys, channels) of SDXL."""


def large(m: int, k: int, n: int, device: str = "cuda") -> list[Timed]:
    """Products at many rows: 16 bit, 8 bit, and whole 4-bit linears with a branch."""
    random = torch.Generator(device).manual_seed(m + k + n)
    x = torch.randn(m, k, generator=random, device=device).bfloat16()
    w = (torch.randn(n, k, generator=random, device=device) * 0.05).bfloat16()
    bias = torch.randn(n, generator=random, device=device).bfloat16()
    row, column = (torch.rand(size, generator=random, device=device) * 1e-2 for size in (m, n))
    a8, b8 = (gaussian_codes(s, k, random) for s in (m, n))
    af, bf = (torch.randn(s, k, generator=random, device=device).to(torch.float8_e4m3fn) for s in (m, n))
    operations, bytes8 = 2.0 * m * n * k, m * k + n * k + 2 * m * n
    bytes16 = 2 * (m * k + n * k + m * n)
    out = [
        Timed("bf16", [lambda: torch.nn.functional.linear(x, w, bias)], None, bytes16, operations, "bf16"),
        *products(a8, b8, row, column, bias, bytes8, operations),
        *products(af, bf, row, column, bias, bytes8, operations),
    ]
    out += whole(x, n, bias, random)
    return out + (formats(x, n, bias, random) if m * n * k >= OTHER_FORMATS else [])


def gaussian_codes(rows: int, columns: int, random: torch.Generator) -> Tensor:
    """Draw int8 codes of Gaussian rows, whose largest of some thousand values is 127, as a layer's are.

    Codes that are spread evenly flip more bits, and the chip lowers its clock.
    """
    drawn = torch.randn(rows, columns, generator=random, device=random.device) * 34
    return drawn.round().clamp(-127, 127).to(torch.int8)


def products(
    a: Tensor, b: Tensor, row: Tensor, column: Tensor, bias: Tensor, bytes8: float, operations: float
) -> list[Timed]:
    """Our 8-bit product, with and without a branch in its epilogue, and torch's."""
    m, n, device, fp8 = a.shape[0], b.shape[0], a.device, a.dtype != torch.int8
    low, up = (torch.randn(size, RANK, device=device).bfloat16() for size in (m, n))
    name = "fp8" if fp8 else "int8"

    def exact() -> Tensor:
        return (a[:ROWS].double() @ b.double().T) * row[
            :ROWS, None
        ].double() * column.double() + bias.double()

    ours = [
        Timed(f"gemm {name}", [lambda: gemm(a, row, b, column, bias).value], exact, bytes8, operations, name),
        Timed(
            f"gemm {name} + rank {RANK} in the epilogue", [lambda: gemm(a, row, b, column, bias, low,
            up).value],
            lambda: exact() + low[:ROWS].double() @ up.double().T, bytes8, operations + 2.0 * m * n * RANK,
            name,
        ),
    ]  # fmt: skip
    if fp8:
        scaled = lambda: torch._scaled_mm(  # noqa: E731
            a, b.T, scale_a=row[:, None], scale_b=column[None, :], bias=bias, out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )  # fmt: skip
        return [*ours, Timed("torch._scaled_mm", [scaled], exact, bytes8, operations, name, True)]

    def plain() -> Tensor:
        return a[:ROWS].double() @ b.double().T

    return [
        *ours,
        Timed("torch._int_mm", [lambda: torch._int_mm(a, b.T)], plain, bytes8, operations, name, True),
    ]


def whole(x: Tensor, n: int, bias: Tensor, random: torch.Generator) -> list[Timed]:
    """Whole SVDQuant linears, and their steps."""
    (m, k), device = x.shape, x.device
    packed, smooth, down, up, column = layer(n, k, random)
    bytes_ = 2 * m * k + n * k / 2 + 2 * m * n + 2 * RANK * (n + k)
    operations = 2.0 * m * n * k + 2.0 * m * RANK * (n + k)
    timed = []
    for name, dtype in (("pow2", torch.int8), ("int", torch.uint8)):
        low, high = (1, 7) if dtype == torch.int8 else (4, 16)
        fine = torch.randint(low, high, (n, k // GROUP), generator=random, device=device).to(dtype)
        unit = "fp8" if dtype == torch.int8 else "int8"
        branch = 4 * RANK if dtype == torch.int8 else 2 * RANK  # bytes a row: columns, or 16-bit numbers
        for bits in (4, 8):
            weight = prepare(packed, fine, column, k, GROUP, bits, smooth, down, up, bias)
            kept = decoded(weight)

            def exact(weight: LowRankWeight = weight) -> Tensor:
                return exact_linear(x[:ROWS], weight)

            label = f"W4A{bits} {name} g{GROUP} rank {RANK}"
            timed.append(
                Timed(
                    f"{label}, decoded per call",
                    [lambda w=weight: lowrank_linear(x, w).value],
                    exact,
                    bytes_,
                    operations,
                    unit,
                )
            )
            timed.append(
                Timed(
                    f"{label}, operand kept",
                    [lambda w=kept: lowrank_linear(x, w).value],
                    exact,
                    bytes_,
                    operations,
                    unit,
                )
            )
            if bits == 4:
                timed.append(
                    Timed(
                        f"{label}: quantize + down",
                        [lambda w=weight: _quantized(x, w)],
                        None,
                        3 * m * k + 2 * RANK * k + branch * m,
                        0,
                        unit,
                    )
                )
            if bits == 4:
                timed.append(
                    Timed(
                        f"{label}: expand",
                        [lambda w=weight: operand_of(w)],
                        None,
                        1.5 * n * k + n * k / GROUP + (2 * RANK + branch) * n * (dtype == torch.int8),
                        0,
                        unit,
                    )
                )
    fine = torch.randint(1, 7, (n, k // GROUP), generator=random, device=device).to(torch.int8)
    bare = prepare(packed, fine, column, k, GROUP, 4, smooth, None, None, bias)
    timed.append(
        Timed(
            f"W4A4 pow2 g{GROUP} without a branch, decoded per call", [lambda: lowrank_linear(x, bare).value],
            lambda: exact_linear(x[:ROWS], bare), bytes_, 2.0 * m * n * k,
        )
    )  # fmt: skip
    plain = lambda: quantize(x, "e4m3_token").codes  # noqa: E731
    timed.append(Timed("quantize e4m3 per token", [plain], None, 3 * m * k, 0))
    return timed


def exact_linear(x: Tensor, weight: LowRankWeight) -> Tensor:
    """Product of the codes and the branch of a linear in float64: nothing is rounded but to codes."""
    bare = replace(weight, down=None, up=None, balance=None, operand=None)
    rows = quantize(x, bare.kind, bare.bits, bare.group, bare.inverse_smooth, path="reference")
    out = gemm(
        rows.codes, rows.scale, operand_of(bare, "reference"), bare.column_scale, bare.bias,
        dtype=torch.float64, path="reference",
    ).value  # fmt: skip
    if weight.down is None or weight.up is None:
        return out
    return out + x.double() @ weight.down.double().T @ weight.up.double().T


def _quantized(x: Tensor, weight: LowRankWeight) -> Tensor:
    return quantize(
        x, weight.kind, 4, GROUP, weight.inverse_smooth, 0.0, False, weight.down, balance=weight.balance
    ).codes


def layer(n: int, k: int, random: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Random 4-bit codes, smoothing, branch and coarse scales of a layer."""
    device = random.device
    codes = torch.randint(-7, 8, (n, k), generator=random, device=device).to(torch.int8)
    smooth = torch.rand(k, generator=random, device=device) + 0.5
    down = (torch.randn(RANK, k, generator=random, device=device) * 0.02).bfloat16()
    up = (torch.randn(n, RANK, generator=random, device=device) * 0.02).bfloat16()
    column = (torch.rand(n, generator=random, device=device) + 0.5) * 2e-4
    return packing.pack(codes, 4), smooth, down, up, column


def small(m: int, k: int, n: int, device: str = "cuda") -> list[Timed]:
    """Products at few rows: reading the weight is all there is."""
    random = torch.Generator(device).manual_seed(m + k + n)
    x = torch.randn(m, k, generator=random, device=device).bfloat16()
    halves = [(torch.randn(n, k, generator=random, device=device) * 0.05).bfloat16() for _ in range(ROTATED)]
    layers = [layer(n, k, random) for _ in range(ROTATED)]
    fine = torch.randint(-3, 6, (n, k // GROUP), generator=random, device=device).to(torch.int8)
    fines = [fine.clone() for _ in range(ROTATED)]
    real = (torch.rand(n, k // GROUP, generator=random, device=device) * 1e-2).bfloat16()
    reals = [real.clone() for _ in range(ROTATED)]

    def two_level(index: int) -> Callable[[], Tensor]:
        return lambda: few_rows(x, layers[index][0], fines[index], GROUP, layers[index][4]).value

    def one_level(index: int) -> Callable[[], Tensor]:
        return lambda: few_rows(x, layers[index][0], reals[index], GROUP).value

    def exact(scale: Tensor, column: Tensor | None) -> Callable[[], Tensor]:
        return lambda: few_rows(x.double(), layers[0][0], scale, GROUP, column, path="reference").value

    around, operations = 2 * m * (n + k), 2.0 * m * n * k
    bytes4 = n * k / 2 + n * k / GROUP + around
    return [
        Timed(
            "bf16",
            [lambda w=w: torch.nn.functional.linear(x, w) for w in halves],
            None,
            2 * n * k + around,
            operations,
            "bf16",
        ),
        Timed(
            "W4A16 pow2 g64",
            [two_level(i) for i in range(ROTATED)],
            exact(fine, layers[0][4]),
            bytes4 + 4 * n,
            operations,
            "bf16",
        ),
        Timed(
            "W4A16 real g64",
            [one_level(i) for i in range(ROTATED)],
            exact(real, None),
            bytes4 + n * k / GROUP,
            operations,
            "bf16",
        ),
    ]


def image(b: int, side: int, c: int, n: int, kernel: int, device: str = "cuda") -> list[Timed]:
    """Convolutions, and the norm before them, beside cuDNN and torch's steps."""
    random = torch.Generator(device).manual_seed(side + c)
    size, stride = abs(kernel), 1 if kernel > 0 else 2
    x = (
        torch.randn(b, c, side, side, generator=random, device=device)
        .bfloat16()
        .to(memory_format=torch.channels_last)
    )
    w = (torch.randn(n, c, size, size, generator=random, device=device) * 0.02).bfloat16()
    w = w.to(memory_format=torch.channels_last)
    bias, gamma, beta = (torch.randn(s, generator=random, device=device).bfloat16() for s in (n, c, c))
    column, unit = (
        torch.rand(n, generator=random, device=device) * 1e-2,
        torch.full((b,), 0.03, device=device),
    )
    pixels = x.permute(0, 2, 3, 1).reshape(b, side * side, c)
    operations = 2.0 * b * (side // stride) ** 2 * n * c * size * size
    read, written = b * side * side * c + n * c * size * size, b * (side // stride) ** 2 * n
    bytes8 = read + 2 * written
    timed = [
        Timed(
            "bf16",
            [lambda: torch.nn.functional.conv2d(x, w, bias, stride, size // 2)],
            None,
            2 * (read + written),
            operations,
            "bf16",
        )
    ]
    shape = (b, side, side, c)
    for name, dtype in (("fp8", torch.float8_e4m3fn), ("int8", torch.int8)):
        if dtype == torch.int8:
            x8 = torch.randint(-127, 128, shape, generator=random, device=device, dtype=dtype)
            w8 = torch.randint(-127, 128, (n, size, size, c), generator=random, device=device, dtype=dtype)
        else:
            x8 = torch.randn(*shape, generator=random, device=device).to(dtype)
            w8 = torch.randn(n, size, size, c, generator=random, device=device).to(dtype)

        def exact(x8: Tensor = x8, w8: Tensor = w8) -> Tensor:
            arguments = (x8[:1], unit[:1], w8, column, bias, (stride, stride), (size // 2, size // 2))
            return conv2d(*arguments, dtype=torch.float64, path="reference").value

        def ours(x8: Tensor = x8, w8: Tensor = w8) -> Tensor:
            return conv2d(x8, unit, w8, column, bias, (stride, stride), (size // 2, size // 2)).value

        timed.append(Timed(f"conv2d {name}", [ours], exact, bytes8, operations, name))
    if kernel < 0:
        return timed

    def three() -> Tensor:
        y = torch.nn.functional.silu(torch.nn.functional.group_norm(x, 32, gamma, beta))
        scale = y.abs().amax((1, 2, 3), keepdim=True).float() / 448
        return (y / scale).to(torch.float8_e4m3fn)

    def fused() -> Tensor:
        before = group_norm(pixels, 32, gamma, beta)
        return quantize(
            pixels.flatten(0, 1), "e4m3_token", before=before, scale=sample_scale(pixels, before, 448)
        ).codes

    def given() -> Tensor:
        return quantize(
            pixels.flatten(0, 1), "e4m3_token", before=group_norm(pixels, 32, gamma, beta), scale=unit
        ).codes

    elements = float(pixels.numel())
    timed.append(Timed("GroupNorm, SiLU, quantize: torch", [three], None, 5 * elements, 0, peer=True))
    timed.append(Timed("GroupNorm + SiLU + quantize, scale from the image", [fused], None, 5 * elements, 0))
    timed.append(Timed("GroupNorm + SiLU + quantize, given scale", [given], None, 5 * elements, 0))
    return timed


def attention(b: int, heads: int, queries: int, keys: int, d: int, device: str = "cuda") -> list[Timed]:
    """Attention with logarithmic probabilities beside torch's fused attention in 16 bit."""
    random = torch.Generator(device).manual_seed(queries + keys)
    q, k, v = (
        torch.randn(b, heads, size, d, generator=random, device=device).bfloat16()
        for size in (queries, keys, keys)
    )
    operations = 4.0 * b * heads * queries * keys * d
    bytes_ = 2.0 * b * heads * d * (2 * queries + 2 * keys)
    sdpa = lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v)  # noqa: E731

    def eager() -> Tensor:
        a = (q @ k.transpose(-1, -2) * d**-0.5).float().softmax(-1)
        s = a.amax((1, 2, 3), keepdim=True)
        return (s * torch.exp2(torch.round(torch.log2(a / s)).clamp(min=-15))).to(v.dtype) @ v

    def exact() -> Tensor:
        one = (t[:1].double() for t in (q, k, v))
        return reference(*one, d**-0.5, 1.0, 15, None, False)

    return [
        Timed("bf16", [sdpa], None, bytes_, operations, "bf16"),
        Timed("the same formula in torch", [eager], exact, bytes_, operations, "bf16", True),
        Timed(
            "log2 probabilities, 4 bits",
            [lambda: log_attention(q, k, v).value],
            exact,
            bytes_,
            1.5 * operations,
            "bf16",
        ),
        Timed(
            "log2 probabilities, sink apart",
            [lambda: log_attention(q, k, v, sink=0).value],
            None,
            bytes_,
            1.5 * operations,
            "bf16",
        ),
    ]
