"""Kernels are built for Hopper without a GPU: the interpreter takes programs that the compiler refuses."""

from __future__ import annotations

from typing import Any

import pytest

from kernels import paths

pytestmark = pytest.mark.skipif(
    not paths.HAS_TRITON or paths.INTERPRETED, reason="Triton's compiler is not there, or interprets"
)

TYPES = {
    "x": "*bf16", "second": "*bf16", "smooth": "*fp32", "down": "*bf16", "low": "*fp32", "peak": "*i32",
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


@pytest.mark.parametrize("first", ["geglu", "join_gelu"])
def test_many_rows(first: str) -> None:
    from kernels.rows import many_kernels
    from kernels.rows.before import BEFORE

    for kernel in (many_kernels._look, many_kernels._write):
        build(kernel, {**ROWS, "FIRST": BEFORE[first]})
