"""Codes that stand for numbers of a table, as an 8-bit operand: FP4, codebooks, binary bases.

    out_nk = table_n[code_nk]

=====================  ==========================================  ==================================
weights                table                                       exact
=====================  ==========================================  ==================================
FP4 (E2M1, E1M2)       one of 16 float8 numbers: `fp4_table`       yes, in e4m3
integers, zero point   code - zero point of a row, in int8          yes
codebook, twin logs    twice 2^bits int8 numbers a row, a product   to 1/64516 of the row's largest:
                       each                                        `codebook_tables`
binary                 -1, 1 in int8, one product a base           yes; the bases' scales are its columns'
=====================  ==========================================  ==================================

Layout: row-major bit stream (`kernels.packing`), unsigned codes of 1 to 8 bits. Columns are padded with
zeros to a multiple of 16. Reads N K bits / 8 bytes, writes N K.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import packing, paths
from kernels.registered import on_its_device, operation
from kernels.rows.operands import padded_columns
from kernels.tuned.configs import Config
from kernels.tuned.table import lookup

BITS = range(1, 9)
FP4 = {"e2m1": (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0), "e1m2": tuple(step / 4 for step in range(8))}
"""Magnitudes of the codes without a sign; bit 3 is the sign."""
INT8_MAX = 127


def expand_table(
    packed: Tensor,
    table: Tensor,
    bits: int,
    k: int,
    path: paths.Path = "auto",
    config: Config | None = None,
) -> paths.Result:
    """Decode a weight to an operand of `kernels.products.gemm`.

    Parameters
    ----------
    packed : uint8 tensor of shape (N, ceil(K bits / 8))
    table : int8 or float8_e4m3fn tensor of shape (N, 2^bits) or (1, 2^bits)
    bits : int
        1 to 8.
    k : int
    path : str in {"auto", "reference", "triton"}
    config : Config, optional

    Returns
    -------
    paths.Result
        ``value`` of shape (N, K_pad) and of the table's type.
    """
    _check(packed, table, bits, k)
    needs = (8, 0) if table.dtype == torch.int8 else paths.FLOAT8
    if paths.choose(path, packed, needs) == "reference":
        return paths.Result(reference(packed, table, bits, k), "reference")
    out = (
        _expand_table_op(packed, table, bits, k)
        if config is None
        else on_its_device(_run)(packed, table, bits, k, config)
    )
    return paths.Result(out, "triton")


def reference(packed: Tensor, table: Tensor, bits: int, k: int) -> Tensor:
    """Plain torch, any device."""
    codes = packing.unpack(packed, bits, k, signed=False).long()
    values = table.view(torch.uint8).expand(packed.shape[0], -1).gather(1, codes)
    return torch.nn.functional.pad(values, (0, padded_columns(k) - k)).view(table.dtype)


def fp4_table(kind: str = "e2m1", device: torch.device | str = "cpu") -> Tensor:
    """Table of a 4-bit float, (1, 16) in float8: every value of every such format is an e4m3 number."""
    if kind not in FP4:
        raise ValueError(f"fp4_table: kind must be one of {', '.join(FP4)}, got {kind!r}")
    magnitudes = torch.tensor(FP4[kind], device=device)
    return torch.cat([magnitudes, -magnitudes])[None].to(torch.float8_e4m3fn)


def codebook_tables(values: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Two tables of codebooks, a product each: the second holds what the first rounds away.

    Parameters
    ----------
    values : float tensor of shape (N, 2^bits)
        Numbers that the codes of a row stand for.

    Returns
    -------
    list of two pairs
        int8 tables of shape (N, 2^bits) and float32 scales of shape (N,). The sum of tables times scales is
        within 1/64516 (about 2^-16) of the row's largest value: half a step of the second.
    """
    scale = values.float().abs().amax(1) / INT8_MAX
    scale = torch.where(scale < torch.finfo(torch.float32).tiny, torch.ones_like(scale), scale)
    rest, found = values.float(), []
    for step in (scale, scale / (2 * INT8_MAX)):
        table = torch.round(rest / step[:, None]).clamp(-INT8_MAX, INT8_MAX)
        rest = rest - table * step[:, None]
        found.append((table.to(torch.int8), step))
    return found


def _empty(packed: Tensor, table: Tensor, bits: int, k: int) -> Tensor:
    return packed.new_empty(packed.shape[0], padded_columns(k), dtype=table.dtype)


@operation("expand_table", "(Tensor packed, Tensor table, int bits, int k) -> Tensor", _empty)
def _expand_table_op(packed: Tensor, table: Tensor, bits: int, k: int) -> Tensor:
    return _run(packed, table, bits, k, None)


def _run(packed: Tensor, table: Tensor, bits: int, k: int, config: Config | None) -> Tensor:
    from kernels.products.expand_table_kernels import launch

    out = _empty(packed, table, bits, k)
    if out.numel():
        config = config or lookup("expand_table", out.shape, packed.device)
        launch(packed, table.view(torch.uint8), out.view(torch.uint8), bits, k, config)
    return out


def _check(packed: Tensor, table: Tensor, bits: int, k: int) -> None:
    if bits not in BITS:
        raise ValueError(f"expand_table: codes of 1 to 8 bits, got {bits}")
    if packed.ndim != 2 or packed.dtype != torch.uint8 or packed.shape[1] != packing.packed_bytes(k, bits):
        raise ValueError(
            f"expand_table: K = {k} takes uint8 codes of shape (N, {packing.packed_bytes(k, bits)}), "
            f"got {tuple(packed.shape)} {packed.dtype}"
        )
    wanted = [(rows, 2**bits) for rows in (1, packed.shape[0])]
    if table.dtype not in (torch.int8, torch.float8_e4m3fn) or tuple(table.shape) not in wanted:
        raise ValueError(
            f"expand_table: table must be int8 or float8_e4m3fn of shape {wanted[0]} or {wanted[1]}, "
            f"got {tuple(table.shape)} {table.dtype}"
        )
    if not (packed.is_contiguous() and table.is_contiguous()):
        raise ValueError("expand_table: packed codes and table must be contiguous")
    paths.check_device("expand_table", packed, table)
