"""Load: a quantized model into the bare architecture, without its full-precision weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from quant.attention import install_attention_
from quant.checkpoint.header import Header, LayerParts, digest
from quant.checkpoint.writing import dtype_of
from quant.encoded import EncodedWeight, LayerResult, planned_bytes
from quant.errors import InputError, MissingDataError
from quant.granularity import weight_layout
from quant.install import install_, refuse_quantized
from quant.layers import find_layers
from quant.ledger import LayerRecord, Ledger
from quant.lowbit import packing
from quant.parts import build


def read_header(path: str | Path) -> Header:
    """Header of a checkpoint: ledger and layer parts, without reading tensors.

    Raises
    ------
    MissingDataError
        No such file.
    InputError
        Truncated, damaged, or not written by `quant.export`.
    """
    with _opened(path) as file:
        return Header.from_metadata(file.metadata(), path)


def load(path: str | Path, model: nn.Module, *, device: str = "cpu", verify: bool = True) -> Ledger:
    """Put an exported model into a bare one of the same architecture, in place.

    Parameters
    ----------
    path : str or Path
    model : torch.nn.Module
        Built from its config: random weights or the meta device; its values are never read.
    device : str
        Where the tensors go.
    verify : bool
        Check the digest of all tensors (one pass over the file).

    Returns
    -------
    Ledger

    Raises
    ------
    MissingDataError
        No such file.
    InputError
        Damaged or tampered file; another architecture; model already quantized. The model is unchanged then.
    """
    refuse_quantized(model)
    with _opened(path) as file:
        header = Header.from_metadata(file.metadata(), path)
        # copied, since in the file they lie at any byte: products of unaligned weights differ in the last bit
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
    if verify and digest(tensors) != header.digest:
        raise InputError(
            f"{path}: the tensors do not match the digest in the header: damaged or edited, export again"
        )
    ledger = header.read_ledger(path)
    _check_layers(model, ledger, path)
    tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    used: set[str] = set()
    results = {
        r.name: _result(r, header.parts.get(r.name), tensors, used, path) for r in ledger.layers if r.weight
    }
    rest = {name: tensor for name, tensor in tensors.items() if name not in used}
    _check_rest(model, set(results), rest, used, path)
    _assign(model, rest)
    modules = dict(model.named_modules())
    for name in results:  # the bare weight only says which dtype and device the decoded one shall have
        blank = torch.empty(0, dtype=dtype_of(header.parts[name].dtype), device=device)
        modules[name].weight = nn.Parameter(blank, requires_grad=False)  # type: ignore[assignment]
    ledger.bytes_header = Path(path).stat().st_size - sum(
        t.numel() * t.element_size() for t in tensors.values()
    )
    install_(model, results, keep_originals=False).ledger = ledger
    install_attention_(model, ledger.attention)
    return ledger


@contextmanager
def _opened(path: str | Path) -> Iterator:
    if not Path(path).is_file():
        raise MissingDataError(f"no checkpoint at {path}: make one with quant.export")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except SafetensorError as error:
        raise InputError(
            f"{path} is truncated or not a safetensors file ({error}): export it again"
        ) from None


def _check_layers(model: nn.Module, ledger: Ledger, path: object) -> None:
    """Insist on the same layers of the same kind and shape; name the first difference."""
    found = {layer.name: layer for layer in find_layers(model)}
    for record in ledger.layers:
        layer = found.get(record.name)
        if layer is None:
            raise InputError(
                f"{path} is for another architecture ({ledger.model}): layer {record.name!r} is not in this "
                f"{type(model).__name__}"
            )
        if (layer.kind, layer.shape) != (record.kind, record.shape):
            raise InputError(
                f"{path} is for another architecture ({ledger.model}): {record.name!r} is {record.kind} "
                f"{record.shape} in the file, {layer.kind} {layer.shape} in this {type(model).__name__}"
            )
    extra = sorted(set(found) - {record.name for record in ledger.layers})
    if extra:
        raise InputError(f"{path} is for another architecture ({ledger.model}): it has no layer {extra[0]!r}")


def _result(
    record: LayerRecord, parts: LayerParts | None, tensors: dict[str, Tensor], used: set[str], path: object
) -> LayerResult:
    """One layer's result from its tensors, marking them as used."""
    if parts is None or record.weight is None:
        raise InputError(
            f"{path}: damaged header, layer {record.name!r} has no parts; export the model again"
        )

    def take(key: str) -> Tensor:
        name = f"{record.name}.{key}"
        if name not in tensors:
            raise InputError(f"{path}: tensor {name!r} is missing; export the model again")
        used.add(name)
        return tensors[name]

    layout = weight_layout(record.kind)
    packed = take("codes")
    row = record.n_weights // record.shape[0]
    expected = (record.shape[0], packing.packed_bytes(row, record.weight.bits))
    if tuple(packed.shape) != expected or packed.dtype != torch.uint8:
        raise InputError(
            f"{path}: codes of {record.name!r} are {tuple(packed.shape)}, expected uint8 {expected}"
        )
    params = {name: take(f"weight_{name}") for name in parts.weight_params}
    stored = {"codes": packed, **params}
    size = sum(t.numel() * t.element_size() for t in stored.values())
    if size != sum(planned_bytes(record.weight, record.shape, layout).values()):
        raise InputError(
            f"{path}: parameters of {record.name!r} do not fit its format; export the model again"
        )
    quantizer = "input_quantizer"
    bias = f"{record.name}.bias"
    return LayerResult(
        weight=EncodedWeight(record.weight, layout, record.shape, packed, params),
        activation=record.activation,
        activation_params={name: take(f"{quantizer}.{name}") for name in parts.activation_params},
        timesteps=take(f"{quantizer}.timesteps") if parts.timesteps else None,
        transform=build(
            parts.transform, {n: take(f"transform.{n}") for n in (parts.transform or {}).get("shapes", {})}
        ),
        branch=build(parts.branch, {n: take(f"branch.{n}") for n in (parts.branch or {}).get("shapes", {})}),
        bias=take("bias") if bias in tensors else None,
    )


def _check_rest(
    model: nn.Module, quantized: set[str], rest: dict[str, Tensor], used: set[str], path: object
) -> None:
    """Insist that everything outside the quantized layers is there, with the right shape."""
    expected = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name.rpartition(".")[0] not in quantized:
            expected[name] = tuple(tensor.shape)
    missing, extra = sorted(set(expected) - set(rest)), sorted(set(rest) - set(expected))
    if missing or extra:
        what = f"lacks {missing[0]!r}" if missing else f"has {extra[0]!r} that the model lacks"
        raise InputError(f"{path} is for another architecture: it {what}")
    biased = {name for name, parameter in model.named_parameters() if name.endswith(".bias")}
    for name in sorted(quantized):
        if (f"{name}.bias" in biased) != (f"{name}.bias" in used):
            raise InputError(f"{path} is for another architecture: only one of them has a bias in {name!r}")
    for name, shape in expected.items():
        if tuple(rest[name].shape) != shape:
            raise InputError(
                f"{path} is for another architecture: {name!r} is {tuple(rest[name].shape)} in the file, "
                f"{shape} in the model"
            )


def _assign(model: nn.Module, rest: dict[str, Tensor]) -> None:
    """Replace parameters and buffers by identity, so tied ones stay tied."""
    named = dict([*model.named_parameters(), *model.named_buffers()])
    new = {}
    for name, tensor in rest.items():
        old = named[name]
        value = (
            nn.Parameter(tensor, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else tensor
        )
        new[id(old)] = value
    for module in model.modules():
        for table in (module._parameters, module._buffers):
            for key, old_tensor in list(table.items()):
                if old_tensor is not None and id(old_tensor) in new:
                    table[key] = new[id(old_tensor)]  # type: ignore[assignment]
