"""The weight that a quantized layer stands for, as other tools find it under `.weight`.

Codes hold the weight after smoothing or rotation and without the side branch. A tool that fuses projections,
merges a LoRA or takes norms wants the weight of the whole layer, so `.weight` is that. It is worked out when
its values are asked for; shape, type and device cost nothing. It can be read and not written: codes are what
is stored, and a sum that is written elsewhere would be lost without a word.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from quant.errors import InputError
from quant.layers.attachments import Smooth
from quant.layers.encoded import Encoded

WRITTEN = (
    "the weight of a quantized layer follows from its codes and cannot be written: call "
    "quant.restore_(model), change it and quantize again; a LoRA goes on with quant.attach_lora"
)
_SET = {Tensor.data.__set__, Tensor.set_, Tensor.__setstate__}  # type: ignore[attr-defined]
_PLAIN = {
    Tensor.numpy, Tensor.tolist, Tensor.__array__, Tensor.__deepcopy__, Tensor.__reduce_ex__, Tensor.data_ptr,
    Tensor.storage, Tensor.untyped_storage, Tensor.__repr__,
}  # fmt: skip
"""Of Python's side of a tensor, what wants memory."""


class EffectiveWeight(Tensor):
    """A tensor of which every reading operation sees ``read()``, and that refuses every writing one."""

    read: Callable[[], Tensor]

    @staticmethod
    def __new__(
        cls, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, read: Callable[[], Tensor]
    ) -> EffectiveWeight:
        """Wrap; nothing is worked out."""
        weight = Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=device)  # type: ignore[attr-defined]
        weight.read = read
        return weight

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Handle what never reaches the dispatcher."""
        if func in _SET and isinstance(args[0], cls):
            raise InputError(WRITTEN)
        if func in _PLAIN:
            args = tree_map(_values, args)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation on the values; views of the weight refuse to be written like the weight."""
        kwargs, schema = kwargs or {}, func._schema
        for place, argument in enumerate(schema.arguments):
            given = args[place] if place < len(args) else kwargs.get(argument.name)
            if argument.alias_info is not None and argument.alias_info.is_write and _has(given, cls):
                raise InputError(WRITTEN)
        result = func(*tree_map(_values, args), **tree_map(_values, kwargs))
        is_view = any(value.alias_info is not None for value in schema.returns)
        return tree_map(_view, result) if is_view and not schema.is_mutable else result


def _has(given: Any, cls: type) -> bool:
    return any(isinstance(value, cls) for value in (given if isinstance(given, (list, tuple)) else [given]))


def _values(value: Any) -> Any:
    return value.read() if isinstance(value, EffectiveWeight) else value


def _view(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return EffectiveWeight(tuple(value.shape), value.dtype, value.device, lambda: value)


def effective_weight(layer: Encoded) -> Tensor:
    """Weight that a quantized layer stands for, float32: branch added, transform undone."""
    weight = layer.encoded().decode(torch.float32)
    transform, branch = layer.transform, layer.branch
    if transform is not None and hasattr(transform, "from_weight"):
        weight = transform.from_weight(weight)
    if branch is not None and hasattr(branch, "weight"):
        weight = weight + branch.weight().reshape(weight.shape)
    return weight


def folded(layer: Encoded) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of the float layer that a quantized one stands for, float32.

    Raises
    ------
    InputError
        The layer is no weight and bias: it takes sink tokens out of its input.
    """
    reason = not_linear(layer)
    if reason:
        raise InputError(f"this layer has no weight of one piece: {reason}")
    weight, bias = effective_weight(layer), layer.bias
    if shift := shift_of(layer):  # y = W (x + c) + b; the branch sees x itself
        quantized = layer.transform.from_weight(layer.encoded().decode(torch.float32))  # type: ignore[union-attr,operator]
        moved = shift * quantized.flatten(1).sum(1)
        return weight, moved if bias is None else bias.detach().float() + moved
    return weight, None if bias is None else bias.detach().float()


def not_linear(layer: Encoded) -> str | None:
    """Say why no weight and bias give what the layer does; None where they do."""
    for name, module in (("input", layer.transform), ("output", layer.branch)):
        if module is not None and not hasattr(module, "from_weight" if name == "input" else "weight"):
            return f"its {name} goes through {type(module).__name__}"
    return None


def shift_of(layer: Encoded) -> float:
    """Get what is added to the layer's input before it is rounded; its bias takes it back."""
    return layer.transform.shift if isinstance(layer.transform, Smooth) else 0.0


def weight_of(layer: Encoded, dtype: torch.dtype) -> EffectiveWeight:
    """Stand for a layer's weight, in the type that the layer computes in."""

    def read() -> Tensor:
        reason = not_linear(layer)
        if reason is None and shift_of(layer):
            reason = f"its bias takes back a shift of the input by {shift_of(layer):g}"
        if reason:
            raise InputError(
                f"the weight of this quantized layer alone does not say what it does ({reason}): call "
                "quant.restore_(model) first, or use quant.layers.effective"
            )
        with torch.no_grad():
            if layer.transform is None and layer.branch is None:
                return layer.current()
            return effective_weight(layer).to(dtype)

    return EffectiveWeight(layer.weight_shape, dtype, layer.codes.device, read)
