"""SVDQuant linears in and out of the file layout of their authors' engine, byte for byte.

Per linear: ``qweight`` (N, K/2) int8, ``wscales`` (K/64, N), ``bias`` (N,), ``smooth_factor`` (K,),
``proj_down`` (K, R) with the smoothing divided out, ``proj_up`` (N, R); 16-bit types, N and K padded to 128,
R to 16; orders in `quant.interop.fragments`. Older files say ``smooth``, ``lora_down``, ``lora_up``: both
are read.

Covered: INT4 in groups of 64 (unsigned inputs after a GELU included). *Assumed*, since no document says it:
padding is zero (scales and smoothing 1), a layer without a branch has 16 zero ranks. Not covered: NVFP4, and
the engine's fused modules (q, k, v in one linear, adaLN rows interleaved), which are a matter of its model
classes. Whole files: `quant.interop.nunchaku_files`.
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
IGNORED = ("smooth_factor_orig", "smooth_orig")
DTYPES = {torch.bfloat16: "bfloat16", torch.float16: "float16"}


def to_nunchaku(layer: QuantLayer, dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    """Tensors of one SVDQuant linear in the engine's layout.

    Parameters
    ----------
    layer : quant.layers.quantized.QuantLinear
        With 4-bit codes in groups of 64; `Smooth` and `LowRank` are optional.
    dtype : torch.bfloat16 or torch.float16
        Of everything but the codes; a float32 bias is rounded to it.

    Returns
    -------
    dict of str to tensor
        By `NAMES`.

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
        down, up = torch.zeros(k, order.RANKS, dtype=dtype), torch.zeros(n, order.RANKS, dtype=dtype)
    rank = _up(down.shape[1], order.RANKS)
    bias = torch.zeros(n, dtype=dtype) if layer.bias is None else layer.bias.detach().to(dtype)
    tensors = {
        "qweight": order.pack_codes(_pad(encoded.codes(), rows, columns)),
        "wscales": order.pack_scales(_pad(scales, rows, columns // order.GROUP, 1)),
        "bias": order.pack_vector(_pad(bias[:, None], rows, 1)[:, 0]),
        "smooth_factor": order.pack_vector(
            torch.ones(columns, dtype=dtype) if smooth is None else _pad(smooth[:, None], columns, 1, 1)[:, 0]
        ),
        "proj_down": order.pack_branch(_pad(down, columns, rank), True),
        "proj_up": order.pack_branch(_pad(up, rows, rank), False),
    }
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
    dtype, ranks = found["wscales"].dtype, found["proj_down"].shape[1]
    if rank is not None and not 0 <= rank <= ranks:
        raise InputError(f"rank is {rank}, the linear's branch has 0 to {ranks}")
    codes = order.unpack_codes(found["qweight"])
    down, up = order.unpack_branch(found["proj_down"], True), order.unpack_branch(found["proj_up"], False)
    for name, table in {"qweight": codes[n:], "qweight ": codes[:, k:], "proj_down": down[k:]}.items():
        if bool(table.any()):
            raise InputError(f"{name.strip()} has values beyond {n} x {k}: the linear is larger than that")
    scale = order.unpack_scales(found["wscales"])[:n, : -(-k // order.GROUP)].unsqueeze(-1)
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
        if new in NAMES:
            found[new] = tensor
        elif new not in IGNORED:
            raise InputError(
                f"the linear has {name!r}, which INT4 SVDQuant has not: NVFP4 (wtscale, wcscales) and AWQ "
                "(wzeros) are not read"
            )
    missing = [name for name in NAMES if name not in found and name != "bias"]
    if missing:
        raise InputError(f"the linear has no {missing[0]!r}: is it INT4 SVDQuant in Nunchaku's layout?")
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
        "qweight": (rows, columns // 2), "wscales": (columns // order.GROUP, rows), "bias": (rows,),
        "smooth_factor": (columns,), "proj_down": (columns, ranks), "proj_up": (rows, ranks),
    }  # fmt: skip
    for name, size in wanted.items():
        if name in found and tuple(found[name].shape) != size:
            raise InputError(f"{name} is {tuple(found[name].shape)}, a linear of {n} x {k} has {size}")
    if not ranks or ranks % order.RANKS:
        raise InputError(f"proj_down has {ranks} ranks, not a positive multiple of {order.RANKS}")
    if found["wscales"].dtype not in DTYPES:
        raise InputError(
            f"wscales are {found['wscales'].dtype}: only INT4 files with 16-bit scales are read, NVFP4 is not"
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
    if bool((found["wscales"] < 0).any()):
        raise InputError("wscales has negative values: scales are at least 0, the file is damaged")
    if not bool((order.unpack_vector(found["smooth_factor"])[:k] > 0).all()):
        raise InputError("smooth_factor has values that are not positive: inputs are divided by it")


def effective_weight(layer: QuantLayer) -> Tensor:
    """Weight that a quantized layer stands for, float32: branch added, transform undone."""
    weight = layer.encoded().decode(torch.float32)
    transform, branch = layer.transform, layer.branch
    if transform is not None and hasattr(transform, "from_weight"):
        weight = transform.from_weight(weight)
    if branch is not None and hasattr(branch, "weight"):
        weight = weight + branch.weight().reshape(weight.shape)
    return weight


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _pad(table: Tensor, rows: int, columns: int, value: float = 0) -> Tensor:
    return nn.functional.pad(
        table, (0, columns - table.shape[1], 0, rows - table.shape[0]), value=value
    ).contiguous()
