"""SVDQuant linears in and out of the file layout of their authors' engine, byte for byte.

Per linear: ``qweight`` (N, K/2) int8, ``wscales`` (K/64, N), ``bias`` (N,), ``smooth_factor`` (K,),
``proj_down`` (K, R) with the smoothing divided out, ``proj_up`` (N, R); 16-bit types, N and K padded to 128,
R to 16; orders in `quant.checkpoint.fragments`. Older files say ``smooth``, ``lora_down``, ``lora_up``: both
are read.

Covered: INT4 in groups of 64 (unsigned inputs after a GELU included). *Assumed*, since no document says it:
padding is zero (scales and smoothing 1), a layer without a branch has 16 zero ranks. Not covered: NVFP4, and
the engine's fused modules (q, k, v in one linear, adaLN rows interleaved), which are a matter of its model
classes. ``unsigned_layers`` in the header is ours: the tensors do not say which inputs have no sign.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from quant.checkpoint import fragments as order
from quant.encoded import EncodedWeight, LayerResult
from quant.errors import InputError, MissingDataError
from quant.granularity import Granularity
from quant.grid import IntGrid
from quant.install import quant_layers
from quant.modules import QuantLayer
from quant.parts import LowRank, Smooth
from quant.quantizer import Quantizer
from quant.schedule import Schedule

SHIFT = 0.171875
"""What the engine adds to the output of a GELU before it codes it without sign."""

OLD_NAMES = {"smooth": "smooth_factor", "lora_down": "proj_down", "lora_up": "proj_up"}
NAMES = ("qweight", "wscales", "bias", "smooth_factor", "proj_down", "proj_up")
_DTYPES = {torch.bfloat16: "bfloat16", torch.float16: "float16"}


def to_nunchaku(layer: QuantLayer, dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    """Tensors of one SVDQuant linear in the engine's layout.

    Parameters
    ----------
    layer : quant.modules.QuantLinear
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
        The layer has another format, transform or branch.
    """
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
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


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
    tensors: dict[str, Tensor], shape: tuple[int, int], *, unsigned: bool = False, rank: int | None = None
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
        A tensor is missing, has another size, or has something in its padding.
    """
    found = {OLD_NAMES.get(name, name): tensor for name, tensor in tensors.items()}
    missing = [name for name in NAMES if name not in found and name != "bias"]
    if missing:
        raise InputError(f"the linear has no {missing[0]!r}: is it INT4 SVDQuant in Nunchaku's layout?")
    (n, k), dtype = shape, found["wscales"].dtype
    rows, columns = _up(n, order.ROWS), _up(k, order.COLUMNS)
    ranks = found["proj_down"].shape[-1]
    wanted = {
        "qweight": (rows, columns // 2), "wscales": (columns // order.GROUP, rows), "bias": (rows,),
        "smooth_factor": (columns,), "proj_down": (columns, ranks), "proj_up": (rows, ranks),
    }  # fmt: skip
    for name, size in wanted.items():
        if name in found and tuple(found[name].shape) != size:
            raise InputError(f"{name} is {tuple(found[name].shape)}, a linear of {n} x {k} has {size}")
    if dtype not in _DTYPES:
        raise InputError(f"wscales are {dtype}: only INT4 files with 16-bit scales are read, NVFP4 is not")
    codes = order.unpack_codes(found["qweight"])
    down, up = order.unpack_branch(found["proj_down"], True), order.unpack_branch(found["proj_up"], False)
    for name, table in {"qweight": codes[n:], "qweight ": codes[:, k:], "proj_down": down[k:]}.items():
        if bool(table.any()):
            raise InputError(f"{name.strip()} has values beyond {n} x {k}: the linear is larger than that")
    scale = order.unpack_scales(found["wscales"])[:n, : -(-k // order.GROUP)].unsqueeze(-1)
    group = Granularity(kind="group", group_size=order.GROUP)
    weight = Quantizer(
        grid=IntGrid(bits=4), granularity=group, schedule=Schedule(kind="static"), scale_dtype=_DTYPES[dtype]  # type: ignore
    )  # fmt: skip
    mode: Any = "unsigned" if unsigned else "symmetric"
    activation = Quantizer(
        grid=IntGrid(bits=4, mode=mode), granularity=group, scale_dtype=_DTYPES[dtype]  # type: ignore
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


def export_nunchaku(
    model: nn.Module, path: str | Path, dtype: torch.dtype = torch.bfloat16
) -> dict[str, str]:
    """Write every SVDQuant linear of a quantized model in the engine's layout, all else as it is.

    Parameters
    ----------
    model : torch.nn.Module
    path : str or Path
        Ends in ``.safetensors``; written beside and renamed.
    dtype : torch.dtype

    Returns
    -------
    dict of str to str
        Quantized layers that have no place in the layout, decoded to `dtype`, and why.

    Raises
    ------
    InputError
        No layer has a place, or the folder does not exist.
    """
    target = Path(path)
    if target.suffix != ".safetensors" or not target.parent.is_dir():
        raise InputError(f"{target} must end in .safetensors and lie in an existing folder")
    layers = quant_layers(model)
    reasons = {name: why_not(layer) for name, layer in layers.items()}
    fitting = [name for name, reason in reasons.items() if reason is None]
    if not fitting:
        first = next(iter(reasons.items()), ("none", "the model is not quantized"))
        raise InputError(f"no layer has a place in Nunchaku's layout; {first[0]!r}: {first[1]}")
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        if reasons[name] is None:
            tensors.update({f"{name}.{key}": t for key, t in to_nunchaku(layer, dtype).items()})
    for name, tensor in model.state_dict().items():
        owner = next((layer for layer in layers if name.startswith(f"{layer}.")), None)
        if owner is None:
            tensors[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    left = {name: reason for name, reason in reasons.items() if reason is not None}
    for name in left:
        tensors[f"{name}.weight"] = effective_weight(layers[name]).to(dtype)
        bias = layers[name].bias
        if bias is not None:
            tensors[f"{name}.bias"] = bias.detach().to(dtype)
    metadata = {
        "model_class": type(model).__name__,
        "quantization_config": json.dumps(_config(layers, fitting)),
    }
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        save_file({k: v.cpu().contiguous() for k, v in tensors.items()}, temporary, metadata=metadata)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return left


def read_nunchaku(path: str | Path, shapes: dict[str, tuple[int, int]]) -> dict[str, LayerResult]:
    """Read the SVDQuant linears of a file.

    Parameters
    ----------
    path : str or Path
    shapes : dict of str to (N, K)
        Linears that the model has; a file's padding hides their sizes.

    Returns
    -------
    dict of str to LayerResult
        By layer name; `quant.install.install_` puts them into a model.

    Raises
    ------
    MissingDataError
        No such file.
    InputError
        Damaged, without such linears, or with a linear that the model lacks.
    """
    if not Path(path).is_file():
        raise MissingDataError(f"no file {path}: give a safetensors file in Nunchaku's layout")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            config = json.loads((file.metadata() or {}).get("quantization_config", "{}"))
    except (SafetensorError, ValueError) as error:
        raise InputError(f"{path} is truncated or not a safetensors file ({error})") from None
    names = [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]
    if not names:
        raise InputError(f"{path} has no linear in Nunchaku's layout (no name ends in .qweight)")
    unsigned = set(config.get("unsigned_layers", ())) if isinstance(config, dict) else set()
    results = {}
    for name in names:
        if name not in shapes:
            raise InputError(f"{path} is for another architecture: there is no linear {name!r}")
        own = {k.removeprefix(f"{name}."): t for k, t in tensors.items() if k.rpartition(".")[0] == name}
        try:
            results[name] = from_nunchaku(own, shapes[name], unsigned=name in unsigned)
        except InputError as error:
            raise InputError(f"{path}: {name}: {error}") from None
    return results


def effective_weight(layer: QuantLayer) -> Tensor:
    """Weight that a quantized layer stands for, float32: branch added, transform undone."""
    weight = layer.encoded().decode(torch.float32)
    transform, branch = layer.transform, layer.branch
    if transform is not None and hasattr(transform, "from_weight"):
        weight = transform.from_weight(weight)
    if branch is not None and hasattr(branch, "weight"):
        weight = weight + branch.weight().reshape(weight.shape)
    return weight


def _config(layers: dict[str, QuantLayer], names: list[str]) -> dict[str, Any]:
    number = {"dtype": "int4", "scale_dtype": None, "group_size": order.GROUP}
    branches = [layers[name].branch for name in names]
    ranks = [branch.down.shape[0] for branch in branches if isinstance(branch, LowRank)]
    unsigned = [n for n in names if getattr(layers[n].transform, "shift", 0.0)]
    return {
        "method": "svdquant", "weight": number, "activation": number, "rank": _up(max(ranks, default=0), 16),
        "unsigned_layers": unsigned,
    }  # fmt: skip


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _pad(table: Tensor, rows: int, columns: int, value: float = 0) -> Tensor:
    return nn.functional.pad(
        table, (0, columns - table.shape[1], 0, rows - table.shape[0]), value=value
    ).contiguous()
