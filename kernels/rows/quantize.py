"""Quantization of rows to 8-bit operands, with what comes before, smoothing and the low-rank down-projection.

    y = (before(x) + shift) / smooth,      row scale s_m from max_k |y_mk|,      low = before(x) down^T

==============  ===================================================================  ================
kind            operand                                                             row scale
==============  ===================================================================  ================
``int_token``   round(y / s), int8, codes of `bits` bits                            max / q
``int_group``   4-bit code times m = 1..15 (nearest) of its group, int8             max / 7 / 15
``pow2_group``  4-bit code times 2^k (nearest), k = -9..6, of its group, e4m3       max / 7 / 64
``e4m3_token``  y / s rounded to float8 e4m3                                        max / 448
==============  ===================================================================  ================

Unsigned 4-bit codes 0..15 (for values with a lower bound, lifted by `shift`) leave m <= 8 and k <= 4. A row
of zeros gets scale 1. A row that holds a NaN or an infinity gets NaN as its scale, so its products are NaN.

For e4m3 kinds the branch is appended to the codes (`kernels.rows.operands`), in units of the row; a row whose
branch would leave e4m3 gets a unit 2^j coarser, which changes no code.

Reads M K elements once from memory (again from the cache), writes M K bytes.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from kernels import paths
from kernels.registered import on_its_device, operation
from kernels.rows.before import Before
from kernels.rows.operands import padded_columns, padded_rank
from kernels.rows.quantize_reference import APPENDED, low_type, reference
from kernels.tuned.configs import Config
from kernels.tuned.table import lookup

Kind = Literal["int_token", "int_group", "pow2_group", "e4m3_token"]
NOTHING = Before()
MANY_ROWS = 128
"""Rows from which the columns of a row are shared among programs (`kernels.rows.many_kernels`)."""
HELD_COLUMNS = 2048
"""Columns up to which sixteen rows stay in registers between the three walks of a layer norm."""


class Rows(NamedTuple):
    """An 8-bit operand.

    Attributes
    ----------
    codes : int8 or float8_e4m3fn tensor of shape (M, K_pad) or (M, K_pad + 4 R)
    scale : float32 tensor of shape (M,)
    low : tensor of shape (M, R) or None
        The branch after its down-projection, where it was not appended to `codes`.
    path : str
    """

    codes: Tensor
    scale: Tensor
    low: Tensor | None
    path: str


def quantize(
    x: Tensor,
    kind: Kind,
    bits: int = 4,
    group: int = 64,
    inverse_smooth: Tensor | None = None,
    shift: float = 0.0,
    unsigned: bool = False,
    down: Tensor | None = None,
    path: paths.Path = "auto",
    before: Before = NOTHING,
    scale: Tensor | None = None,
    config: Config | None = None,
    balance: Tensor | None = None,
) -> Rows:
    """Quantize each row.

    Parameters
    ----------
    x : bfloat16, float16 or float32 tensor of shape (M, K), (M, 2 K) before GEGLU
        Rows may lie further apart than their values.
    kind : str
        See the table above.
    bits : int
        Of ``int_token``: 2 to 8. Group kinds are of 4 bits.
    group : int
        Columns that share a fine scale: 16, 32, 64 or 128.
    inverse_smooth : float32 tensor of shape (K,), optional
        One over the smoothing factors.
    shift : float
    unsigned : bool
        Codes 0..15; group kinds only.
    down : tensor of shape (R, K), optional
        Down-projection of the branch, of the type of `x`; R a power of two from 16. For e4m3 kinds the
        branch is appended to the codes, and `down` must come from `branch_columns`, or its powers of two be
        given as `balance`.
    path : str in {"auto", "reference", "triton"}
    before : Before
    scale : float32 tensor of shape (ceil(M / before.rows),), optional
        Scales to use, one a sample, instead of one a row from the data; token kinds only. An int8 code cannot
        hold a NaN, so its scale must come from the same data (`kernels.images.group_norm.sample_scale`).
    config : Config, optional
    balance : float32 tensor of shape (R,), optional
        Powers of two that the branch of e4m3 kinds is multiplied by (`kernels.rows.operands.balance_of`).
    """
    before.check(x) if x.ndim == 2 else None
    _check(x, kind, bits, group, inverse_smooth, unsigned, down, before, scale)
    _check_balance(balance, kind, down, x)
    if paths.choose(path, x, paths.FLOAT8 if kind in APPENDED else (8, 0)) == "reference":
        found = reference(
            before.reference(x), kind, _limits(kind, bits, unsigned), group, inverse_smooth, shift, down,
            scale,
            before.rows,
            balance,
        )  # fmt: skip
        return Rows(*found, "reference")
    arguments = (
        x, kind, bits, group, inverse_smooth, shift, unsigned, down,
        before.kind, before.gain, before.offset, before.rows, before.eps, before.matrix, before.factor, scale,
        balance,
    )  # fmt: skip
    codes, found_scale, low = (
        _quantize_op(*arguments) if config is None else on_its_device(_run)(*arguments, config=config)
    )
    return Rows(codes, found_scale, None if down is None or kind in APPENDED else low, "triton")


def _limits(kind: str, bits: int, unsigned: bool) -> tuple[int, int, int]:
    """Largest code, least code, largest fine scale (or its logarithm)."""
    top = {"e4m3_token": 448, "int_token": 2 ** (bits - 1) - 1}.get(kind, 15 if unsigned else 7)
    fine = {"int_group": 8 if unsigned else 15, "pow2_group": 4 if unsigned else 6}.get(kind, 0)
    return top, 0 if unsigned else -top, fine


def _empty(
    x: Tensor, kind: str, bits: int, group: int, inverse_smooth: Tensor | None, shift: float, unsigned: bool,
    down: Tensor | None, before: str, gain: Tensor | None, offset: Tensor | None, rows: int, eps: float,
    matrix: Tensor | None, factor: float, scale: Tensor | None, balance: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    columns = padded_columns(Before(before).columns(x.shape[1]))
    rank = 0 if down is None else down.shape[0]
    operand = torch.float8_e4m3fn if kind in APPENDED else torch.int8
    codes = x.new_empty(x.shape[0], columns + 4 * rank * (kind in APPENDED), dtype=operand)
    low = x.new_empty(x.shape[0], rank * (kind not in APPENDED), dtype=low_type(x))
    return codes, x.new_empty(x.shape[0], dtype=torch.float32), low


@operation(
    "quantize",
    "(Tensor x, str kind, int bits, int group, Tensor? inverse_smooth, float shift, bool unsigned, "
    "Tensor? down, str before, Tensor? gain, Tensor? offset, int rows, float eps, Tensor? matrix, "
    "float factor, Tensor? scale, Tensor? balance) "
    "-> (Tensor, Tensor, Tensor)",
    _empty,
)
def _quantize_op(
    x: Tensor, kind: str, bits: int, group: int, inverse_smooth: Tensor | None, shift: float, unsigned: bool,
    down: Tensor | None, before: str, gain: Tensor | None, offset: Tensor | None, rows: int, eps: float,
    matrix: Tensor | None, factor: float, scale: Tensor | None, balance: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return _run(
        x, kind, bits, group, inverse_smooth, shift, unsigned, down, before, gain, offset, rows, eps, matrix,
        factor, scale, balance, None,
    )  # fmt: skip


def _run(
    x: Tensor, kind: str, bits: int, group: int, inverse_smooth: Tensor | None, shift: float, unsigned: bool,
    down: Tensor | None, before: str, gain: Tensor | None, offset: Tensor | None, rows: int, eps: float,
    matrix: Tensor | None, factor: float, scale: Tensor | None, balance: Tensor | None,
    config: Config | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    from kernels.rows.many_kernels import fits, quantize_many
    from kernels.rows.quantize_kernels import launch

    first = Before(before, gain, offset, rows, eps, matrix, factor)
    codes, found, low = _empty(
        x, kind, bits, group, inverse_smooth, shift, unsigned, down, before, gain, offset, rows, eps,
        matrix, factor, scale, balance,
    )  # fmt: skip
    m, k = x.shape[0], first.columns(x.shape[1])
    limits, rank = _limits(kind, bits, unsigned), 0 if down is None else down.shape[0]
    many = lookup("quantize_many", (m, k, rank), x.device)
    if down is not None and config is None and m >= MANY_ROWS and fits(x, down, first):
        quantize_many(
            x, inverse_smooth, down, codes, found, low if low.shape[1] else None, balance, kind, limits,
            group, shift, k, padded_columns(k), many, first,
        )  # fmt: skip
    elif m:
        held = "quantize_norm" if before == "layer_norm" and k <= HELD_COLUMNS else "quantize"
        config = config or lookup(held if rank else "quantize_plain", (m, k, rank), x.device)
        launch(
            x, inverse_smooth, down, codes, found, low if low.shape[1] else None, scale, balance, first,
            kind, limits, group, shift, k, padded_columns(k), config,
        )  # fmt: skip
    return codes, found, low


def _check(
    x: Tensor, kind: Kind, bits: int, group: int, inverse_smooth: Tensor | None, unsigned: bool,
    down: Tensor | None, before: Before, scale: Tensor | None,
) -> None:  # fmt: skip
    if kind not in get_args(Kind):
        raise ValueError(f"quantize: kind must be one of {', '.join(get_args(Kind))}, got {kind!r}")
    if x.ndim != 2 or x.dtype not in (torch.bfloat16, torch.float16, torch.float32):
        raise ValueError(
            "quantize: x must be (rows, columns) in bfloat16, float16 or float32, "
            f"got {tuple(x.shape)} {x.dtype}"
        )
    if x.shape[1] > 1 and x.stride(1) != 1:
        raise ValueError(f"quantize: values of a row must be neighbours, got strides {x.stride()}")
    if kind == "int_token" and not 2 <= bits <= 8:
        raise ValueError(f"quantize: bits must be 2..8, got {bits}")
    if kind.endswith("group") and (bits != 4 or group not in (16, 32, 64, 128)):
        raise ValueError(
            f"quantize: {kind} takes 4 bits in groups of 16, 32, 64, 128, got {bits} and {group}"
        )
    if unsigned and not kind.endswith("group"):
        raise ValueError(f"quantize: unsigned codes are for group kinds, got {kind}")
    k = before.columns(x.shape[1])
    _check_vector("inverse_smooth", inverse_smooth, k, x)
    _check_vector("scale", scale, -(-x.shape[0] // before.rows), x)
    if scale is not None and (kind not in ("e4m3_token", "int_token") or down is not None):
        raise ValueError(f"quantize: given scales are for token kinds without a branch, got {kind}")
    if down is None:
        return
    if down.ndim != 2 or down.shape[1] != k or down.dtype != x.dtype or not down.is_contiguous():
        raise ValueError(
            f"quantize: down must be a contiguous (R, {k}) of {x.dtype}, got {tuple(down.shape)} {down.dtype}"
        )
    if down.shape[0] != padded_rank(down.shape[0]):
        raise ValueError(
            f"quantize: the branch's rank must be a power of two from 16, got {down.shape[0]}; pad with zeros"
        )
    paths.check_device("quantize", x, down)


def _check_balance(balance: Tensor | None, kind: str, down: Tensor | None, x: Tensor) -> None:
    if balance is not None and (down is None or kind not in APPENDED):
        raise ValueError(f"quantize: balance is for a branch of {' and '.join(APPENDED)}, got {kind}")
    _check_vector("balance", balance, 0 if down is None else down.shape[0], x)


def _check_vector(name: str, vector: Tensor | None, size: int, x: Tensor) -> None:
    if vector is None:
        return
    if tuple(vector.shape) != (size,) or vector.dtype != torch.float32 or vector.device != x.device:
        raise ValueError(
            f"quantize: {name} must be float32 of shape ({size},) on {x.device}, "
            f"got {tuple(vector.shape)} {vector.dtype} on {vector.device}"
        )
    paths.check_contiguous("quantize", **{name: vector})
