"""Which tiles are worth trying for each kernel."""

from __future__ import annotations

from itertools import product

from kernels.tuned.configs import Config

_GEMM = [
    Config(128, 256, 128, 3, 8),
    Config(128, 256, 128, 3, 8, early=True),
    Config(128, 256, 128, 3, 8, group_m=16, early=True),
    Config(128, 256, 128, 3, 8, group_m=16),
    Config(128, 256, 128, 3, 8, halves=2),
    Config(128, 256, 128, 4, 8, halves=2),
    Config(128, 256, 64, 6, 8, halves=2),
    Config(256, 128, 128, 3, 8),
    Config(256, 128, 128, 4, 8, halves=2),
    Config(128, 128, 128, 4, 8),
    Config(128, 128, 128, 4, 4),
    Config(128, 128, 128, 5, 8, halves=2),
    Config(64, 256, 128, 4, 4),
    Config(64, 128, 128, 5, 4),
    Config(64, 64, 128, 6, 4),
    Config(128, 256, 128, 3, 4, special=True),
    Config(128, 256, 128, 3, 4, group_m=16, special=True),
    Config(128, 256, 128, 4, 4, halves=2, special=True),
    Config(256, 128, 128, 3, 4, special=True),
    Config(128, 128, 128, 4, 4, special=True),
]
_QUEUED = [
    *(
        Config(*tile, stages, warps, group_m=tall, queued=True)
        for (tile, stages, warps), tall in product(
            (
                ((128, 256, 128), 3, 8), ((128, 256, 64), 6, 8),
                ((256, 128, 128), 3, 8), ((256, 128, 64), 6, 8),
            ),
            (8, 16),
        )
    ),
    Config(128, 128, 128, 5, 8, queued=True),
    Config(128, 128, 128, 5, 4, queued=True),
    Config(64, 256, 128, 4, 4, queued=True),
]  # fmt: skip
_QUEUED_RANK = [
    *(
        Config(*tile, stages, warps, group_m=tall, queued=True)
        for (tile, stages, warps), tall in product(
            (((128, 256, 64), 5, 8), ((256, 128, 64), 5, 8), ((128, 128, 128), 4, 4)), (8, 16)
        )
    ),
]  # fmt: skip
_QUANTIZE = [
    *(Config(rows, 1, deep, stages, warps)
      for rows, deep, stages, warps in (
          (16, 256, 3, 4), (16, 128, 5, 4), (16, 512, 3, 8), (16, 256, 4, 8), (16, 128, 4, 2),
          (32, 256, 3, 8), (32, 128, 4, 4), (32, 256, 3, 4), (64, 128, 3, 8), (64, 64, 4, 4),
      )),
    *(Config(16, 1, deep, 1, warps, keep=True) for deep, warps in ((256, 4), (256, 8), (512, 8), (512, 16))),
]  # fmt: skip
_MANY = [
    *(
        Config(rows, broad, deep, stages, warps, group_m=tall, split=split)
        for (rows, deep, stages, warps, split), (tall, broad) in product(
            (
                (64, 128, 4, 4, 4), (64, 128, 4, 4, 2), (64, 64, 6, 4, 8), (64, 64, 5, 4, 6),
                (128, 64, 4, 8, 8),
            ),
            ((4, 512), (32, 256)),
        )
    ),
]  # fmt: skip
_PLAIN_ROWS = [
    *(Config(rows, 1, deep, 1, warps, keep=True)
      for rows, deep, warps in ((1, 1024, 4), (1, 1024, 8), (2, 1024, 8), (4, 1024, 8), (4, 512, 4), (1,
      4096, 8), (1, 4096, 16))),
    *(Config(rows, 1, deep, 3, warps) for rows, deep, warps in ((4, 512, 4), (16, 256, 4))),
]  # fmt: skip
_EXPAND = [
    Config(1, rows, codes, 1, warps)
    for rows, codes, warps in (
        (8, 1024, 4), (16, 512, 4), (8, 1024, 16), (4, 1024, 8), (2, 1024, 4), (8, 512, 8), (16, 512, 16),
        (4, 512, 4),
        (4, 1024, 4), (16, 1024, 16), (8, 2048, 8), (32, 512, 8), (16, 1024, 8), (4, 2048, 4),
    )
]  # fmt: skip
_FEW = [
    # scales on the finished sum of a group
    *(Config(16, 32, 128, 3, 2, split=split) for split in (2, 8)),
    # scales into the codes, everything several steps ahead
    *(
        Config(16, columns, 256, stages, 2, split=split, halves=pieces, keep=True)
        for (columns, stages, pieces), split in product(
            (
                (32, 3, 2), (32, 4, 2), (64, 2, 2), (64, 3, 2), (64, 4, 2), (64, 4, 1),
            ),
            (1, 2, 4, 8),
        )
    ),
]  # fmt: skip

KEPT_REGISTERS = 104
"""Registers of a thread that may hold the input of a row kernel."""

_CONV = [
    Config(128, 256, 128, 3, 8),
    Config(128, 128, 128, 4, 8),
    Config(128, 128, 128, 4, 4),
    Config(128, 128, 64, 5, 4),
    Config(256, 128, 128, 3, 8),
    Config(128, 64, 128, 4, 4),
    Config(64, 128, 128, 4, 4),
    Config(128, 128, 128, 3, 8, keep=True),
    Config(128, 128, 64, 4, 8, keep=True),
    Config(64, 128, 64, 4, 4, keep=True),
]
_ATTENTION = [
    Config(queries, keys, 64, stages, warps)
    for queries, keys, stages, warps in (
        (128, 64, 3, 4),
        (128, 64, 3, 8),
        (64, 64, 3, 4),
        (128, 128, 2, 8),
        (64, 32, 4, 4),
        (64, 128, 2, 4),
    )
]

SPACES: dict[str, list[Config]] = {
    "gemm_int8": [*_GEMM, *_QUEUED],
    "gemm_fp8": _GEMM,
    "gemm_int8_rank": [*(c for c in _GEMM if not c.special), *_QUEUED_RANK],
    "gemm_fp8_rank": [c for c in _GEMM if not c.special and (c.halves == 2 or c.block_n == 128)],
    "product_fp8": [Config(), Config(vendor=True)],
    "quantize": _QUANTIZE,
    "quantize_many": _MANY,
    "quantize_plain": _PLAIN_ROWS,
    "expand": _EXPAND,
    "few_rows": _FEW,
    "conv2d": _CONV,
    "log_attention": _ATTENTION,
}


def candidates(kind: str, shape: tuple[int, ...]) -> list[Config]:
    """Configs of a kernel that can be any good at a shape: what is kept must fit the registers."""
    found = SPACES[kind]
    if kind not in ("quantize", "quantize_plain"):
        return found
    return [c for c in found if not c.keep or c.block_m * shape[1] * 2 <= c.warps * 32 * 4 * KEPT_REGISTERS]
