"""What comes before quantization, on a tile; see `kernels.rows.before`."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.tuned.dots import half_dot


@triton.jit
def merged(x, k, K, seen, mean, spread, BK: tl.constexpr):
    """Mean and summed squared distance from it, with one more tile of columns (Chan's rule)."""
    inside = (k < K)[None, :]
    before = tl.cast(seen, tl.float32)
    count = tl.minimum(K - seen, BK).to(tl.float32)
    x = x.to(tl.float32)
    ours = tl.sum(x, 1) / count
    away = tl.where(inside, x - ours[:, None], 0.0)
    apart = ours - mean
    spread += tl.sum(away * away, 1) + apart * apart * (before * count / (before + count))
    return mean + apart * (count / (before + count)), spread


@triton.jit
def gelu(x, TANH: tl.constexpr):
    """Gelu of float32 numbers, with tanh for the distribution function or exactly."""
    if TANH:
        inner = 1.5957691216057308 * (x + 0.044715 * x * x * x)  # 2 sqrt(2 / pi)
        return x * tl.sigmoid(inner)
    else:
        return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def produced(
    x,
    x_rows,
    k,
    K,
    inside,
    sample,
    mean,
    spread,
    gain_ptr,
    offset_ptr,
    matrix_ptr,
    factor,
    FIRST: tl.constexpr,
    EVEN: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Value that a layer would have handed on, rounded to the type of `x` as it would have been."""
    if FIRST == 0:
        return x
    else:
        mask = inside[:, None] & (k < K)[None, :]
        y = x.to(tl.float32)
        if FIRST == 1:
            y = gelu(y, False)
        elif FIRST == 2:
            y = gelu(y, True)
        elif FIRST == 3:
            y = y * tl.sigmoid(y)
        elif FIRST == 4:
            gate = tl.load(x_rows + K + k[None, :], mask=mask, other=0.0).to(tl.float32)
            # the gate is rounded on its way, as a module that returns it would do
            y = y * gelu(gate, False).to(x.dtype).to(tl.float32)
        elif FIRST == 8:
            PIECES: tl.constexpr = x.shape[0] * x.shape[1] // BLOCK
            at = tl.arange(0, BLOCK)
            matrix = tl.load(matrix_ptr + at[:, None] * BLOCK + at[None, :])
            mixed = half_dot(
                tl.reshape(x, (PIECES, BLOCK)), matrix.T, tl.zeros((PIECES, BLOCK), tl.float32), WIDE
            )
            y = factor * tl.reshape(mixed, (x.shape[0], x.shape[1]))
        else:
            if FIRST == 5:
                y = (y - mean[:, None]) * spread[:, None]
            at = sample.to(tl.int64)[:, None] * K + k[None, :]
            y = y * tl.load(gain_ptr + at, mask=mask, other=0.0).to(tl.float32)
            y = y + tl.load(offset_ptr + at, mask=mask, other=0.0).to(tl.float32)
            if FIRST == 7:
                y = y * tl.sigmoid(y)
        return tl.where(mask, y, 0.0).to(x.dtype)
