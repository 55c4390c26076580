"""Load: a quantized model into the bare architecture, without its full-precision weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from quant.checkpoint.architecture import check_architecture
from quant.checkpoint.header import Header, digest
from quant.checkpoint.rebuilding import check_format, rebuild
from quant.checkpoint.writing import dtype_of
from quant.denoisers.inventory import LayerInfo, find_layers
from quant.errors import InputError, MissingDataError
from quant.layers.attention import find_attention, install_attention_, remove_attention_
from quant.layers.encoded import LayerResult
from quant.layers.install import install_, refuse_quantized, state_of, unguard_
from quant.plans.ledger import Ledger

IN_FOLDER = "model.safetensors"
"""The file's name in a folder of ``brainlab quantize``."""


def read_header(path: str | Path) -> Header:
    """Header of a checkpoint: ledger and layer parts, without reading tensors and so without the digest.

    Raises
    ------
    MissingDataError
        No such file.
    InputError
        Truncated, damaged, or not written by `quant.export`.
    """
    path = _file(path)
    with _opened(path) as file:
        return Header.from_metadata(file.metadata(), path)


def load(path: str | Path, model: nn.Module, *, device: str = "cpu", verify: bool = True) -> Ledger:
    """Put an exported model into a bare one of the same architecture, in place.

    Everything is checked before anything is replaced, and whatever fails then is undone.

    Parameters
    ----------
    path : str or Path
        The file, or the folder that ``brainlab quantize`` wrote it into.
    model : torch.nn.Module
        Built from its config: random weights or the meta device; its values are never read.
    device : str
        Where the tensors go.
    verify : bool
        Check the digest of header and tensors (one pass over the file).

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
    if isinstance(path, nn.Module):
        raise InputError("the file comes first, then the model: quant.load(path, model)")
    refuse_quantized(model)
    path = _file(path)
    with _opened(path) as file:
        header = Header.from_metadata(file.metadata(), path)
        ledger = header.read_ledger(path)
        check_architecture(model, header.architecture, path)
        layers = _check_layers(model, ledger, path)
        # copied, since in the file they lie at any byte: products of unaligned weights differ in the last bit
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
    if verify and digest(header, tensors) != header.digest:
        raise InputError(
            f"{path}: header and tensors do not match the digest: damaged or edited, export again"
        )
    _check_finite(tensors, path)
    _check_attention(model, ledger, path)
    tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    used: set[str] = set()
    results = _rebuild(header, ledger, layers, tensors, used, path)
    rest = {name: tensor for name, tensor in tensors.items() if name not in used}
    _check_rest(model, set(results), rest, used, path)
    ledger.bytes_header = Path(path).stat().st_size - sum(
        t.numel() * t.element_size() for t in tensors.values()
    )
    with _undone_on_failure(model):
        _assign(model, rest)
        modules = dict(model.named_modules())
        for name in results:  # the bare weight only says which dtype and device the decoded one shall have
            blank = torch.empty(0, dtype=dtype_of(header.parts[name].dtype), device=device)
            modules[name].weight = nn.Parameter(blank, requires_grad=False)  # type: ignore[assignment]
        try:
            install_(model, results, keep_originals=False).ledger = ledger
        except IndexError:
            raise InputError(
                f"{path}: codes stand for no value of their format; export the model again"
            ) from None
        install_attention_(model, ledger.attention)
    return ledger


def _file(path: str | Path) -> Path:
    """Return the file itself; of a folder that ``brainlab quantize`` wrote, the one inside."""
    path = Path(path)
    return path / IN_FOLDER if path.is_dir() else path


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


@contextmanager
def _undone_on_failure(model: nn.Module) -> Iterator[None]:
    """Put parameters, buffers, children and attributes of the root back if the body raises."""
    tables = [
        (table, dict(table))
        for module in model.modules()
        for table in (module._parameters, module._buffers, module._modules)
    ]
    attributes = set(model.__dict__)
    try:
        yield
    except BaseException:
        remove_attention_(model)
        state = state_of(model)
        if state is not None and state.hook is not None:
            state.hook.remove()
        unguard_(model)
        for name in set(model.__dict__) - attributes:
            del model.__dict__[name]
        for table, before in tables:
            table.clear()
            table.update(before)  # type: ignore[arg-type]
        raise


def _check_layers(model: nn.Module, ledger: Ledger, path: object) -> dict[str, LayerInfo]:
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
    return found


def _check_finite(tensors: dict[str, Tensor], path: object) -> None:
    """Insist on numbers: one that is none makes pictures of NaN, and says nothing of why."""
    for name, tensor in tensors.items():
        # as float32, since float8 has no isfinite
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
            raise InputError(f"{path}: {name!r} holds NaN or infinite values: export the model again")


def _check_attention(model: nn.Module, ledger: Ledger, path: object) -> None:
    """Insist on attention modules of the model, and on formats for what they round."""
    known = set(find_attention(model))
    for name, fmt in ledger.attention.items():
        if name not in known:
            raise InputError(
                f"{path} is for another architecture ({ledger.model}): this {type(model).__name__} has no "
                f"attention module {name!r}"
            )
        try:
            for side, quantizer in (("scores", fmt.scores), ("values", fmt.values)):
                if quantizer is not None:
                    check_format(quantizer, "linear_input", f"rounding of its {side}")
        except InputError as error:
            raise InputError(f"{path}: damaged header, {name!r}: {error}; export the model again") from None


def _rebuild(
    header: Header, ledger: Ledger, layers: dict[str, LayerInfo], tensors: dict[str, Tensor], used: set[str],
    path: object,
) -> dict[str, LayerResult]:  # fmt: skip
    """Every quantized layer's result, marking the tensors that were used."""
    records = {record.name: record for record in ledger.layers if record.weight is not None}
    wrong = sorted(set(records) ^ set(header.parts))
    if wrong:
        what = "has no parts" if wrong[0] in records else "has parts but is not quantized"
        raise InputError(f"{path}: damaged header, layer {wrong[0]!r} {what}; export the model again")
    results = {}
    for name, record in records.items():
        try:
            results[name] = rebuild(record, layers[name], header.parts[name], tensors, used)
        except InputError as error:
            raise InputError(f"{path}: {name!r}: {error}; export the model again") from None
    return results


def _check_rest(
    model: nn.Module, quantized: set[str], rest: dict[str, Tensor], used: set[str], path: object
) -> None:
    """Insist that everything outside the quantized layers is there, with the right shape."""
    expected = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name.rpartition(".")[0] not in quantized:
            expected[name] = tensor
    missing, extra = sorted(set(expected) - set(rest)), sorted(set(rest) - set(expected))
    if missing or extra:
        what = f"lacks {missing[0]!r}" if missing else f"has {extra[0]!r} that the model lacks"
        raise InputError(f"{path} is for another architecture: it {what}")
    biased = {name for name, parameter in model.named_parameters() if name.endswith(".bias")}
    for name in sorted(quantized):
        if (f"{name}.bias" in biased) != (f"{name}.bias" in used):
            raise InputError(f"{path} is for another architecture: only one of them has a bias in {name!r}")
    for name, tensor in expected.items():
        shape = tuple(tensor.shape)
        if tuple(rest[name].shape) != shape:
            raise InputError(
                f"{path} is for another architecture: {name!r} is {tuple(rest[name].shape)} in the file, "
                f"{shape} in the model"
            )
        if rest[name].is_floating_point() != tensor.is_floating_point():
            raise InputError(
                f"{path} is for another architecture: {name!r} is {rest[name].dtype} in the file, "
                f"{tensor.dtype} in the model"
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
