"""Kernels are built for Hopper without a GPU: the interpreter takes programs that the compiler refuses."""

from __future__ import annotations

from typing import Any

import pytest

from kernels import paths

pytestmark = pytest.mark.skipif(
    not paths.HAS_TRITON or paths.INTERPRETED, reason="Triton's compiler is not there, or interprets"
)

TYPES = {
    "x": "*bf16", "smooth": "*fp32", "down": "*bf16", "low": "*fp32", "peak": "*i32",
    "inverse": "*fp32", "lift": "*i32", "code": "*fp8e4nv", "scale": "*fp32", "out": "*bf16",
    "balance": "*fp32", "count": "*i32", "packed": "*u8", "fine": "*i8", "tail": "*bf16", "column": "*fp32",
}  # fmt: skip
ROWS: dict[str, Any] = {
    "KIND": 2, "TOP": 7.0, "LEAST": -7.0, "FINE_TOP": 6, "GROUP": 64, "RANK": 32, "SPLIT": 2, "BM": 64,
    "BK": 64, "PIECE": 32, "APPEND": True, "BALANCED": True, "HAS_SMOOTH": True,
    "HAS_SHIFT": False, "EVEN": True, "WIDE": False,
}  # fmt: skip


def build(kernel: Any, constants: dict[str, Any], **types: str) -> None:
    """Compile for compute capability 9.0; every argument that is not named is an int32."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    known = {f"{name}_ptr": kind for name, kind in {**TYPES, **types}.items()}
    chosen = {name: value for name, value in constants.items() if name in kernel.arg_names}
    signature = {
        name: "constexpr" if name in chosen else "fp32" if name == "shift" else known.get(name, "i32")
        for name in kernel.arg_names
    }
    places = {(kernel.arg_names.index(name),): value for name, value in chosen.items()}
    made = triton.compile(ASTSource(kernel, signature, places), target=GPUTarget("cuda", 90, 32))
    assert made.asm["cubin"]


@pytest.mark.parametrize("words", [True, False])
@pytest.mark.parametrize("rank", [32, 0])
def test_expand(words: bool, rank: int) -> None:
    from kernels.products.expand_kernels import _expand

    constants = {
        "GROUP": 64,
        "SIGNED": True,
        "POW2": True,
        "BN": 8,
        "BYTES": 128,
        "WORDS": words,
        "WIDE": False,
    }
    build(_expand, {**constants, "RANK": rank, "TAIL": 4 * rank}, out="*fp8e4nv")


@pytest.mark.parametrize("scale", ["*i8", "*fp16"])
def test_expand_half(scale: str) -> None:
    from kernels.products.expand_kernels import _expand_half

    constants = {"GROUP": 64, "POW2": scale == "*i8", "COARSE": True, "BN": 8, "BYTES": 128}
    build(_expand_half, constants, scale=scale)


@pytest.mark.parametrize("first", ["none", "geglu"])
def test_many_rows(first: str) -> None:
    from kernels.rows import many_kernels
    from kernels.rows.before import BEFORE

    for kernel in (many_kernels._look, many_kernels._write):
        build(kernel, {**ROWS, "FIRST": BEFORE[first]})


def test_images() -> None:
    from kernels.images import conv2d_kernels as conv
    from kernels.images import group_norm_kernels as norm

    constants = {"KH": 3, "KW": 3, "TH": 8, "TW": 16, "BM": 128, "BN": 128, "BK": 64, "HAS_BIAS": True}
    for kernel in (conv._conv_copied, conv._conv):
        build(kernel, constants, x="*i8", w="*i8", sample="*fp32", bias="*bf16")
    types = {
        "mean": "*fp32",
        "spread": "*fp32",
        "gain": "*fp32",
        "offset": "*fp32",
        "x": "*bf16",
        "bias": "*bf16",
    }
    blocks = {"BP": 128, "BC": 16, "BB": 64, "HAS_WEIGHT": True, "SILU": True}
    for kernel in (norm._boxes, norm._merge, norm._largest):
        build(kernel, blocks, weight="*bf16", **types)


def test_attention() -> None:
    from kernels.attention import log_attention_kernels as attention

    constants = {"BQ": 64, "BK": 64, "BD": 64, "BV": 64, "WIDE": False, "FLOAT8": False, "LAST": 15.0,
                 "KEEP_SUMS": False, "HAS_SINK": True, "factor": 0.125, "step": 1.0}  # fmt: skip
    types = {"q": "*bf16", "k": "*bf16", "v": "*bf16", "most": "*fp32", "sum": "*fp32", "q_unit": "*fp32",
             "k_unit": "*fp32", "v_unit": "*fp32"}  # fmt: skip
    build(attention._scan, constants, peak="*i32", **types)
    build(attention._attend, constants, peak="*fp32", **types)


@pytest.mark.parametrize("pieces", [1, 2])
def test_few_rows(pieces: int) -> None:
    from kernels.products.few_rows_scaled_kernels import few_rows_scaled

    constants = {"GROUP": 64, "KIND": 0, "HAS_COLUMN": True, "HAS_BIAS": False, "SPLIT": 4, "BM": 16,
                 "BN": 64, "AT_ONCE": 4, "PIECES": pieces, "WIDE": False}  # fmt: skip
    build(few_rows_scaled, constants, scale="*i8", part="*fp32", bias="*bf16")


@pytest.mark.parametrize(
    ("tile", "stages", "warps", "rank", "residual"),
    [
        ((128, 256, 64), 6, 8, 0, False),
        ((256, 128, 64), 6, 8, 0, True),
        ((128, 256, 64), 5, 8, 32, False),
        ((128, 128, 128), 4, 4, 64, True),
    ],
)
def test_int8_products_are_queued(
    tile: tuple[int, int, int], stages: int, warps: int, rank: int, residual: bool
) -> None:
    """A step waits for the product before its own, not for its own; tiles fit the shared memory."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import compile as compiled
    from triton.experimental.gluon._runtime import GluonASTSource

    from kernels.products.gemm_queued_kernels import _gemm_queued as kernel

    constants = {**dict(zip(("BM", "BN", "BK"), tile, strict=True)), "STAGES": stages, "GROUP_M": 8,
                 "PROGRAMS": 132, "HAS_BIAS": True, "RANK": rank, "HAS_RESIDUAL": residual,
                 "num_warps": warps}  # fmt: skip
    halves = {f"{name}_ptr": "*bf16" for name in ("out", "low", "up", "bias", "residual")}
    kinds = {"a_ptr": "*i8", "b_ptr": "*i8", "row_ptr": "*fp32", "column_ptr": "*fp32", **halves}
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else kinds.get(name, "i32") for name in names}
    places = {(names.index(name),): value for name, value in constants.items()}
    source = GluonASTSource(kernel, signature, places)
    made = compiled(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
    text = made.asm["ptx"]
    assert made.asm["cubin"] and "wgmma.mma_async.sync.aligned.m64n128k32.s32.s8.s8" in text
    assert made.metadata.shared <= 232_448
    assert text.count("wgmma.wait_group.sync.aligned 1") == 1
    assert text.count("wgmma.wait_group.sync.aligned 0") == 1 + (rank > 0)  # for the sum, and for the branch
