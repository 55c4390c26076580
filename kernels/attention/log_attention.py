"""Attention whose probabilities are rounded to powers of two, the sink's column apart (DGQ).

    A = softmax(q k^T factor),   s_b = max of A over an image's heads, queries and keys (without the sink)
    A'_qk = s_b 2^(-n step),     n = round(-log2(A_qk / s_b) / step) in 0 .. last
    out = A_q,sink v_sink + sum over the other keys of A'_qk v_k

`last` is 2^bits - 1 and `step` the octaves over it. With a step of 1 every 2^-n is exact in 16 bit, so the
product runs on tensor cores without a second rounding; other steps round 2^(-n step) to the type of the
values. With `keep_sums` each query's rounded probabilities are scaled back to the sum they had.

With `float8` both products are of float8 e4m3: queries and keys have a scale a token, values one a channel of
a head, and 2^(8 - n) is exact for n = 0 .. 15. What leaves the sink's column apart is as above.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kernels import paths
from kernels.registered import on_its_device, operation
from kernels.tuned.configs import Config
from kernels.tuned.table import lookup

MOST_HEADS = 65535
"""Heads of all images of a launch: programs along the second axis of a grid. An image is one launch."""
LAST_FLOAT8 = 15
"""Largest code whose probability is exact in float8 e4m3."""


def log_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bits: int = 4,
    octaves: float | None = None,
    sink: int | None = None,
    keep_sums: bool = False,
    scale: float | None = None,
    path: paths.Path = "auto",
    config: Config | None = None,
    float8: bool = False,
) -> paths.Result:
    """Attend with logarithmic probabilities.

    Parameters
    ----------
    q, k, v : tensors of shape (B, H, Q, D), (B, H, K, D), (B, H, K, DV)
        bfloat16, float16 or float32; the channels of a token must be neighbours. No mask.
    bits : int
        Of a probability: 2 to 8.
    octaves : float, optional
        Powers of two between the largest and the smallest code; 2^bits - 1 (steps of one) unless given.
    sink : int, optional
        Key whose probabilities stay as they are.
    keep_sums : bool
    scale : float, optional
        Factor of the logits; 1 / sqrt(D) unless given.
    path : str in {"auto", "reference", "triton"}
    config : Config, optional
    float8 : bool
        Multiply in float8 e4m3; takes a step of 1 and codes of 2 to 4 bits.

    Returns
    -------
    paths.Result
        ``value`` (B, H, Q, DV).
    """
    _check(q, k, v, bits, octaves, sink)
    last = 2**bits - 1
    if float8 and (last > LAST_FLOAT8 or octaves not in (None, last)):
        raise ValueError(
            f"log_attention: float8 takes 2 to 4 bits in steps of one octave, got {bits} bits over {octaves}"
        )
    step = (last if octaves is None else octaves) / last
    factor = 1 / math.sqrt(q.shape[3]) if scale is None else scale
    if paths.choose(path, q, paths.FLOAT8 if float8 else (8, 0)) == "reference":
        near = float8_values(q, k, v) if float8 else (q, k, v)
        out = reference(*near, factor, step, last, sink, keep_sums)
        return paths.Result(out.to(q.dtype), "reference")
    arguments = (q, k, v, factor, step, last, sink, keep_sums, float8)
    return paths.Result(
        _log_attention_op(*arguments) if config is None else on_its_device(_run)(*arguments, config), "triton"
    )


def float8_values(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Nearest tensors that float8 codes and their scales hold, in float64."""
    rounded = []
    for x, axis in ((q, 3), (k, 3), (v, 2)):
        codes, unit = float8_codes(x, axis)
        rounded.append(codes.double() * unit.double())
    return rounded[0], rounded[1], rounded[2]


def float8_codes(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Codes in float8 e4m3 and float32 scales, one along `axis`."""
    unit = x.float().abs().amax(axis, keepdim=True) / torch.tensor(448.0, device=x.device)
    unit = torch.where(unit < torch.finfo(torch.float32).tiny, torch.ones_like(unit), unit)
    return (x.float() / unit).to(torch.float8_e4m3fn), unit


def reference(
    q: Tensor, k: Tensor, v: Tensor, factor: float, step: float, last: int, sink: int | None, keep_sums: bool
) -> Tensor:
    """Plain torch, in float64."""
    exact = (q.double() @ k.double().transpose(-1, -2) * factor).softmax(-1)
    rest = exact.clone()
    if sink is not None:
        rest[..., sink] = 0
    unit = rest.amax((1, 2, 3), keepdim=True)
    unit = torch.where(unit < torch.finfo(torch.float32).tiny, torch.ones_like(unit), unit)
    code = torch.round((-torch.log2(rest / unit) / step).clamp(0, last))
    rounded = unit * torch.exp2(-code * step)
    if sink is not None:
        rounded[..., sink] = 0
    if keep_sums:
        rounded = rounded * rest.sum(-1, keepdim=True) / rounded.sum(-1, keepdim=True).clamp(min=1e-300)
    if sink is not None:
        rounded[..., sink] = exact[..., sink]
    return (rounded @ v.double()).to(q.dtype)


def _empty(
    q: Tensor, k: Tensor, v: Tensor, factor: float, step: float, last: int, sink: int | None, keep_sums: bool,
    float8: bool,
) -> Tensor:  # fmt: skip
    return q.new_empty(*q.shape[:3], v.shape[3])


@operation(
    "log_attention",
    "(Tensor q, Tensor k, Tensor v, float factor, float step, int last, int? sink, bool keep_sums, "
    "bool float8) -> Tensor",
    _empty,
)
def _log_attention_op(
    q: Tensor, k: Tensor, v: Tensor, factor: float, step: float, last: int, sink: int | None, keep_sums: bool,
    float8: bool,
) -> Tensor:  # fmt: skip
    return _run(q, k, v, factor, step, last, sink, keep_sums, float8, None)


def _run(
    q: Tensor, k: Tensor, v: Tensor, factor: float, step: float, last: int, sink: int | None, keep_sums: bool,
    float8: bool, config: Config | None,
) -> Tensor:  # fmt: skip
    from kernels.attention.log_attention_kernels import launch

    out = _empty(q, k, v, factor, step, last, sink, keep_sums, float8)
    if out.numel():
        config = config or lookup("log_attention", (q.shape[2], k.shape[2], q.shape[3]), q.device)
        units: tuple[Tensor, ...] = ()
        if float8:
            (q, q_unit), (k, k_unit), (v, v_unit) = (
                float8_codes(x, axis) for x, axis in ((q, 3), (k, 3), (v, 2))
            )
            units = (q_unit, k_unit, v_unit)
            # the second operand of a float8 product has its sum's axis in memory order
            v = v.view(torch.uint8).transpose(2, 3).contiguous().transpose(2, 3).view(torch.float8_e4m3fn)
        at_once = max(1, MOST_HEADS // q.shape[1])
        for first in range(0, q.shape[0], at_once):
            some = slice(first, first + at_once)
            few = tuple(unit[some] for unit in units)
            launch(q[some], k[some], v[some], out[some], factor, step, last, sink, keep_sums, config, few)
    return out


def _check(q: Tensor, k: Tensor, v: Tensor, bits: int, octaves: float | None, sink: int | None) -> None:
    if q.ndim != 4 or k.ndim != 4 or v.ndim != 4 or q.shape[:2] != k.shape[:2] or k.shape[:3] != v.shape[:3]:
        raise ValueError(
            "log_attention: q, k, v must be (B, H, Q, D), (B, H, K, D), (B, H, K, DV), "
            f"got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
        )
    if q.shape[3] != k.shape[3] or not k.shape[2]:
        raise ValueError(f"log_attention: no keys, or {q.shape[3]} and {k.shape[3]} channels")
    if q.dtype not in (torch.bfloat16, torch.float16, torch.float32) or {k.dtype, v.dtype} != {q.dtype}:
        raise ValueError(f"log_attention: one float type for all, got {q.dtype}, {k.dtype}, {v.dtype}")
    if max(q.shape[3], v.shape[3]) > 256:
        raise ValueError(f"log_attention: heads of at most 256 channels, got {q.shape[3]} and {v.shape[3]}")
    if q.shape[1] > MOST_HEADS:
        raise ValueError(f"log_attention: at most {MOST_HEADS} heads, got {q.shape[1]}")
    if any(t.stride(3) != 1 and t.shape[3] > 1 for t in (q, k, v)):
        raise ValueError("log_attention: the channels of a token must be neighbours")
    if not 2 <= bits <= 8:
        raise ValueError(f"log_attention: bits must be 2..8, got {bits}")
    if octaves is not None and not 0 < octaves <= 255:
        raise ValueError(f"log_attention: octaves must be in (0, 255], got {octaves}")
    if sink is not None and not 0 <= sink < k.shape[2]:
        raise ValueError(f"log_attention: the sink must be one of {k.shape[2]} keys, got {sink}")
    paths.check_device("log_attention", q, k, v)
