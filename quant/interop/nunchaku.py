"""SVDQuant linears in and out of the file layout of their authors' engine, byte for byte.

Per linear: ``qweight`` (N, K/2) int8, ``wscales`` (K/64, N), ``bias`` (N,), ``smooth_factor`` (K,),
``proj_down`` (K, R) with the smoothing divided out, ``proj_up`` (N, R), ``smooth_factor_orig`` (K,), which
the engine's Python class wants and nothing reads; 16-bit types, N and K padded to 128, R to 16; orders in
`quant.interop.fragments`. Older files say ``smooth``, ``lora_down``, ``lora_up``: both are read.

The engine's packer fills biases, scales and smoothing with 1 and codes and branches with 0; biases are filled
with 0 here, which makes no difference, since what is filled is cut off. It writes ``wcscales`` (N,) in place
of ``wscales`` where K is one group, and no branch at all for rank 0; its Python class has factors of R = 0
columns then, which is written here, and everything is read. The class makes its tensors from N and K as they
are, so only multiples of 128 load there.

Covered: INT4 in groups of 64 (unsigned inputs after a GELU included). Not covered: NVFP4, and the engine's
fused modules (q, k, v in one linear, adaLN rows interleaved), which are a matter of its model classes. Whole
files: `quant.interop.nunchaku_files`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quant.errors import InputError
from quant.formats.granularity import Granularity
from quant.formats.grids import IntGrid
from quant.formats.quantizer import Quantizer
from quant.formats.schedule import Schedule
from quant.interop import fragments as order
from quant.layers.attachments import LowRank, Smooth
from quant.layers.encoded import EncodedWeight, LayerResult
from quant.layers.quantized import QuantLayer

SHIFT = 0.171875
"""What the engine adds to the output of a GELU before it codes it without sign."""

OLD_NAMES = {"smooth": "smooth_factor", "lora_down": "proj_down", "lora_up": "proj_up"}
NAMES = ("qweight", "wscales", "bias", "smooth_factor", "proj_down", "proj_up")
CHANNEL = "wcscales"
"""Scales of output channels, which the engine's packer writes where K is one group."""
ORIG = "smooth_factor_orig"
IGNORED = (ORIG, "smooth_orig")
DTYPES = {torch.bfloat16: "bfloat16", torch.float16: "float16"}


def to_nunchaku(
    layer: QuantLayer, dtype: torch.dtype = torch.bfloat16, rank: int | None = None
) -> dict[str, Tensor]:
    """Tensors of one SVDQuant linear in the engine's layout.

    Parameters
    ----------
    layer : quant.layers.quantized.QuantLinear
        With 4-bit codes in groups of 64; `Smooth` and `LowRank` are optional.
    dtype : torch.bfloat16 or torch.float16
        Of everything but the codes; a float32 bias is rounded to it.
    rank : int, optional
        To which the branch is filled up with zeros, at least its own; the class has one rank for all linears.

    Returns
    -------
    dict of str to tensor
        By `NAMES`, and `ORIG`.

    Raises
    ------
    InputError
        The layer has another format, transform or branch; `dtype` is another or cannot hold its values.
    """
    check_dtype(dtype)
    reason = why_not(layer)
    if reason:
        raise InputError(f"this layer has no place in Nunchaku's layout: {reason}")
    encoded, (n, k) = layer.encoded(), layer.weight_shape
    rows, columns = _up(n, order.ROWS), _up(k, order.COLUMNS)
    scales = encoded.params["scale"].reshape(n, -1).to(dtype)
    smooth = None if layer.transform is None else layer.transform.factor.to(dtype)
    if isinstance(layer.branch, LowRank):
        down, up = layer.branch.down.T.to(dtype), layer.branch.up.to(dtype)
    else:
        down, up = torch.zeros(k, 0, dtype=dtype), torch.zeros(n, 0, dtype=dtype)
    ranks = _up(max(down.shape[1], rank or 0), order.RANKS)
    bias = torch.zeros(n, dtype=dtype) if layer.bias is None else layer.bias.detach().to(dtype)
    tensors = {
        "qweight": order.pack_codes(_pad(encoded.codes(), rows, columns)),
        "wscales": order.pack_scales(_pad(scales, rows, columns // order.GROUP, 1)),
        "bias": order.pack_vector(_pad(bias[:, None], rows, 1)[:, 0]),
        "smooth_factor": order.pack_vector(
            torch.ones(columns, dtype=dtype) if smooth is None else _pad(smooth[:, None], columns, 1, 1)[:, 0]
        ),
        "proj_down": order.pack_branch(_pad(down, columns, ranks), True),
        "proj_up": order.pack_branch(_pad(up, rows, ranks), False),
    }
    tensors[ORIG] = tensors["smooth_factor"].clone()
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{name} of this layer is not finite in {DTYPES[dtype]}: write torch.bfloat16")
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


def check_dtype(dtype: torch.dtype) -> None:
    """Refuse a type that the engine does not read."""
    if dtype not in DTYPES:
        raise InputError(
            f"dtype {dtype} has no place in Nunchaku's layout, allowed: torch.bfloat16, torch.float16"
        )


def why_not(layer: nn.Module) -> str | None:
    """Tell why a layer cannot be written in the engine's layout; None if it can."""
    if not isinstance(layer, QuantLayer) or layer.weight_layout != "linear_weight":
        return "only quantized linears have one"
    weight = layer.weight_quantizer
    grid, shared = weight.grid, weight.granularity
    if not (isinstance(grid, IntGrid) and grid.bits == 4 and grid.mode == "symmetric"):
        return f"its weight is {weight.label}, not signed 4-bit integers"
    if shared.kind != "group" or shared.group_size != order.GROUP or weight.fine is not None:
        return (
            f"its scales are {shared.label}{' of two levels' if weight.fine else ''}, not one a group of 64"
        )
    if layer.transform is not None and not isinstance(layer.transform, Smooth):
        return f"its input goes through {type(layer.transform).__name__}, not smoothing factors"
    if layer.branch is not None and not isinstance(layer.branch, LowRank):
        return f"its branch is {type(layer.branch).__name__}, not a low-rank one"
    if isinstance(layer.transform, Smooth) and layer.transform.shift not in (0.0, SHIFT):
        return f"its input is shifted by {layer.transform.shift:g}, the engine's shift is {SHIFT:g}"
    return None


def from_nunchaku(
    tensors: dict[str, Tensor], shape: tuple[int, ...], *, unsigned: bool = False, rank: int | None = None
) -> LayerResult:
    """Undo `to_nunchaku`.

    Parameters
    ----------
    tensors : dict of str to tensor
        By `NAMES` or their older forms; ``smooth_factor_orig`` is ignored, as by the engine.
    shape : (N, K)
        Of the linear, before padding.
    unsigned : bool
        The input follows a GELU, is shifted and coded without sign (which the tensors do not say).
    rank : int, optional
        Of the branch before padding; 0 drops it.

    Returns
    -------
    LayerResult

    Raises
    ------
    InputError
        A tensor is missing, unknown, or has another size or type, values that cannot be, or something in its
        padding.
    """
    found = _named(tensors)
    n, k = _check_sizes(found, shape)
    _check_values(found, k)
    dtype, ranks = found["smooth_factor"].dtype, found["proj_down"].shape[1]
    if rank is not None and not 0 <= rank <= ranks:
        raise InputError(f"rank is {rank}, the linear's branch has 0 to {ranks}")
    codes = order.unpack_codes(found["qweight"])
    down, up = order.unpack_branch(found["proj_down"], True), order.unpack_branch(found["proj_up"], False)
    for name, table in {"qweight": codes[n:], "qweight ": codes[:, k:], "proj_down": down[k:]}.items():
        if bool(table.any()):
            raise InputError(f"{name.strip()} has values beyond {n} x {k}: the linear is larger than that")
    groups = -(-k // order.GROUP)
    if CHANNEL in found:
        scale = order.unpack_vector(found[CHANNEL])[:n].reshape(n, 1, 1).repeat(1, groups, 1)
    else:
        scale = order.unpack_scales(found["wscales"])[:n, :groups].unsqueeze(-1)
    group = Granularity(kind="group", group_size=order.GROUP)
    weight = Quantizer(
        grid=IntGrid(bits=4), granularity=group, schedule=Schedule(kind="static"), scale_dtype=DTYPES[dtype]  # type: ignore
    )  # fmt: skip
    mode: Any = "unsigned" if unsigned else "symmetric"
    activation = Quantizer(
        grid=IntGrid(bits=4, mode=mode), granularity=group, scale_dtype=DTYPES[dtype]  # type: ignore
    )  # fmt: skip
    kept = ranks if rank is None else rank
    branch = LowRank(down[:k, :kept].T, up[:n, :kept]) if kept else None
    return LayerResult(
        weight=EncodedWeight.from_codes(
            codes[:n, :k].contiguous(), weight, "linear_weight", {"scale": scale}
        ),
        activation=activation,
        transform=Smooth(order.unpack_vector(found["smooth_factor"])[:k], shift=SHIFT if unsigned else 0.0),
        branch=branch,
        bias=order.unpack_vector(found["bias"])[:n] if "bias" in found else None,
        notes={"source": "nunchaku"},
    )


def _named(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by their newer names; exactly those of one INT4 linear."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        new = OLD_NAMES.get(name, name)
        if new in found:
            raise InputError(f"the linear has {new!r} twice, under its older name too")
        if new in NAMES or (new == CHANNEL and "wscales" not in tensors):
            found[new] = tensor
        elif new not in IGNORED:
            raise InputError(
                f"the linear has {name!r}, which INT4 SVDQuant has not: NVFP4 (wtscale, wcscales beside "
                "wscales) and AWQ (wzeros) are not read"
            )
    scales = CHANNEL if CHANNEL in found else "wscales"
    missing = [name for name in ("qweight", scales, "smooth_factor") if name not in found]
    branch = [name for name in ("proj_down", "proj_up") if name not in found]
    if missing or len(branch) == 1:
        raise InputError(
            f"the linear has no {[*missing, *branch][0]!r}: is it INT4 SVDQuant in Nunchaku's layout?"
        )
    for name, side in zip(branch, ("smooth_factor", scales), strict=False):  # rank 0
        found[name] = found[side].new_empty(found[side].shape[-1], 0)
    return found


def _check_sizes(found: dict[str, Tensor], shape: tuple[int, ...]) -> tuple[int, int]:
    """Insist on the types and sizes of a linear's tensors; its (N, K)."""
    if len(shape) != 2:
        raise InputError(f"a weight of shape {tuple(shape)} is no linear's: only (N, K) is read")
    n, k = shape
    rows, columns = _up(n, order.ROWS), _up(k, order.COLUMNS)
    down = found["proj_down"]
    ranks = down.shape[1] if down.ndim == 2 else 0
    wanted = {
        "qweight": (rows, columns // 2), "wscales": (columns // order.GROUP, rows), CHANNEL: (rows,),
        "bias": (rows,),
        "smooth_factor": (columns,), "proj_down": (columns, ranks), "proj_up": (rows, ranks),
    }  # fmt: skip
    for name, size in wanted.items():
        if name in found and tuple(found[name].shape) != size:
            raise InputError(f"{name} is {tuple(found[name].shape)}, a linear of {n} x {k} has {size}")
    if down.ndim != 2 or ranks % order.RANKS:
        raise InputError(f"proj_down is {tuple(down.shape)}, its ranks are no multiple of {order.RANKS}")
    scales = found[CHANNEL if CHANNEL in found else "wscales"]
    if scales.dtype not in DTYPES:
        raise InputError(
            f"wscales are {scales.dtype}: only INT4 files with 16-bit scales are read, NVFP4 is not"
        )
    for name, tensor in found.items():
        allowed = (torch.int8,) if name == "qweight" else tuple(DTYPES)
        if tensor.dtype not in allowed:
            raise InputError(f"{name} is {tensor.dtype}, allowed: {', '.join(map(str, allowed))}")
    return n, k


def _check_values(found: dict[str, Tensor], k: int) -> None:
    """Insist on numbers that a layer can compute with."""
    for name, tensor in found.items():
        if name != "qweight" and not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{name} has values that are NaN or infinite: the file is damaged")
    for name in ("wscales", CHANNEL):
        if name in found and bool((found[name] < 0).any()):
            raise InputError(f"{name} has negative values: scales are at least 0, the file is damaged")
    if not bool((order.unpack_vector(found["smooth_factor"])[:k] > 0).all()):
        raise InputError("smooth_factor has values that are not positive: inputs are divided by it")


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _pad(table: Tensor, rows: int, columns: int, value: float = 0) -> Tensor:
    return nn.functional.pad(
        table, (0, columns - table.shape[1], 0, rows - table.shape[0]), value=value
    ).contiguous()
