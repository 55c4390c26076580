"""Foreign LoRAs on a quantized model, without quantizing again.

A LoRA adds ``strength alpha / r  B A x`` to a layer's output, with x the input as the *model* has it: before
smoothing, rotation or rounding, which is where a forward hook of the layer stands. So factors are used as
they come, the codes stay as they are, and at strength 0 nothing is computed: outputs are those without LoRA,
bit for bit. Attached LoRAs are no part of the model's state: `quant.export` writes the model without them.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from quant.errors import InputError
from quant.interop.lora_files import Factors, LoraFile, read_lora
from quant.interop.lora_places import FUSED, hint, layer_name, refuse_bypassed
from quant.layers.install import refuse_adapters
from quant.modes import ordinary_mode

_LORAS = "_quant_loras"


class LoraLayer:
    """What a LoRA adds to one layer; a forward hook.

    Parameters
    ----------
    down : tensor of shape (r, in) or (r, in, *kernel)
    up : tensor of shape (out, r) or (out, r, 1, 1)
    scale : float
        alpha / r.
    lora : Lora
        Whose strength counts.
    """

    def __init__(self, down: Tensor, up: Tensor, scale: float, lora: Lora) -> None:
        self.down, self.up, self.scale, self.lora = down, up, scale, lora
        self._cast = down, up

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Any:
        """Add to the output; at strength 0 leave it alone."""
        factor = self.lora.strength * self.scale
        if factor == 0:
            return None
        x = args[0] if args else kwargs["input"]
        if (self._cast[0].device, self._cast[0].dtype) != (x.device, x.dtype):
            with ordinary_mode():  # a later backward may save them
                self._cast = self.down.to(x), self.up.to(x)  # a move to half and back costs nothing
        down, up = self._cast
        if isinstance(module, nn.Conv2d):
            hidden = nn.functional.conv2d(_padded(module, x), down, None, module.stride, 0, module.dilation)
            return out + factor * nn.functional.conv2d(hidden, up)
        return out + factor * nn.functional.linear(nn.functional.linear(x, down), up)


def _padded(module: nn.Conv2d, x: Tensor) -> Tensor:
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    return nn.functional.pad(x, module._reversed_padding_repeated_twice, mode=mode)


class Lora:
    """An attached LoRA.

    Attributes
    ----------
    name : str
    strength : float
        May be changed at any time; 0 turns it off exactly.
    layers : tuple of str
    ignored : tuple of str
        Entries of the file for text encoders, which are not in this model.
    """

    def __init__(self, name: str, strength: float, ignored: list[str]) -> None:
        self.name, self.layers, self.ignored = name, (), tuple(ignored)
        self._handles: list[Any] = []
        self.strength = strength

    layers: tuple[str, ...]

    @property
    def strength(self) -> float:
        """Factor before the LoRA's contribution."""
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise InputError(f"strength = {value!r} must be a finite number; 0 is off, 1 as trained")
        self._strength = float(value)

    def __repr__(self) -> str:
        return f"Lora({self.name!r}, strength={self.strength:g}, {len(self.layers)} layers)"


def attach_lora(
    model: nn.Module,
    source: Mapping[str, Tensor] | str | Path,
    strength: float = 1.0,
    *,
    name: str | None = None,
    alpha: float | None = None,
) -> Lora:
    """Attach a LoRA to a model, quantized or not, beside those that are there.

    Parameters
    ----------
    model : torch.nn.Module
    source : state dict, safetensors file, or folder that peft wrote
        Names of peft (``lora_A``, ``lora_B``), diffusers (also ``lora.down``, ``lora.up`` and attention
        processors), or kohya (``lora_unet_...`` with underscores, SDXL's of the original U-Net too).
    strength : float
    name : str, optional
        For `detach_lora`; the file's name or "lora-<number>" if left out.
    alpha : float, optional
        Where the source does not say it: the product counts alpha / rank times, once where neither does.

    Returns
    -------
    Lora

    Raises
    ------
    MissingDataError
        No such file.
    InputError
        A layer that the model lacks, that does not fit, or that a fused projection bypasses; an incomplete
        pair, a name taken, a peft adapter in the model. The model is unchanged then.

    Examples
    --------
    >>> import torch, quant
    >>> model = torch.nn.Sequential(torch.nn.Linear(64, 64))
    >>> ledger = quant.quantize_(model, "rtn-w8a8")
    >>> pair = {"0.lora_A.weight": torch.randn(4, 64), "0.lora_B.weight": torch.randn(64, 4)}
    >>> lora = quant.attach_lora(model, pair, strength=0.5)
    >>> lora.strength = 0.8
    >>> quant.detach_lora(model)
    """
    attached = attached_loras(model)
    if name is None:
        stem = None if isinstance(source, Mapping) else Path(source).stem
        name = stem if stem and stem not in attached else f"lora-{len(attached) + 1}"
    if name in attached:
        raise InputError(f"a LoRA {name!r} is attached already: detach it, or give another name")
    file = read_lora(source, alpha)
    lora = Lora(name, strength, file.ignored)
    fitted = _fit(model, file, lora)
    for layer, addition in fitted.items():
        module = model.get_submodule(layer)
        lora._handles.append(module.register_forward_hook(addition, with_kwargs=True))
        parent, _, leaf = layer.rpartition(".")
        if any(leaf in stood for stood in FUSED.values()):
            watch = _NotFused(leaf, f"LoRA {name!r}")
            lora._handles.append(model.get_submodule(parent).register_forward_pre_hook(watch))
    lora.layers = tuple(fitted)
    model.__dict__.setdefault(_LORAS, {})[name] = lora
    return lora


class _NotFused:
    """Forward pre-hook of an attention module: refuses to run a LoRA's layer that was fused since."""

    def __init__(self, leaf: str, label: str) -> None:
        self.leaf, self.label = leaf, label

    def __call__(self, module: nn.Module, args: Any) -> None:
        refuse_bypassed(module, self.leaf, self.label)


def detach_lora(model: nn.Module, name: str | None = None) -> None:
    """Take a LoRA away; all of them without a name.

    Raises
    ------
    InputError
        None of that name is attached.
    """
    attached = model.__dict__.get(_LORAS, {})
    if name is not None and name not in attached:
        raise InputError(f"no LoRA {name!r} is attached; attached: {', '.join(attached) or 'none'}")
    for key in [name] if name is not None else list(attached):
        for handle in attached.pop(key)._handles:
            handle.remove()
    if not attached:
        model.__dict__.pop(_LORAS, None)


def attached_loras(model: nn.Module) -> dict[str, Lora]:
    """LoRAs of a model by name, in the order they were attached."""
    return dict(model.__dict__.get(_LORAS, {}))


def _fit(model: nn.Module, file: LoraFile, lora: Lora) -> dict[str, LoraLayer]:
    refuse_adapters(model)
    layers = {n: m for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    fitted: dict[str, LoraLayer] = {}
    for given, factors in file.factors.items():
        name = layer_name(given, model, layers)
        if name not in layers:
            close = difflib.get_close_matches(name, layers, 1)
            raise InputError(
                f"{file.label}: {type(model).__name__} has no layer {given!r}{hint(given, close)}"
            )
        if name in fitted:
            raise InputError(f"{file.label}: two entries are for {name!r}, one of them {given!r}: keep one")
        refuse_bypassed(model, name, file.label)
        fitted[name] = _layer(name, layers[name], factors, file.label, lora)
    return fitted


def _layer(name: str, module: nn.Module, factors: Factors, label: str, lora: Lora) -> LoraLayer:
    down, up = factors.down, factors.up
    if down is None or up is None:
        raise InputError(f"{label}: {name!r} has only one factor of two ({'up' if down is None else 'down'})")
    weight: Any = getattr(module, "weight_shape", None) or tuple(module.weight.shape)  # type: ignore[union-attr]
    if getattr(module, "groups", 1) != 1:
        raise InputError(f"{label}: {name!r} is a convolution in groups, for which LoRA has no convention")
    down, up = _like(down, len(weight), weight[2:]), _like(up, len(weight), (1,) * (len(weight) - 2))
    rank = down.shape[0]
    if tuple(down.shape[1:]) != weight[1:] or tuple(up.shape[:2]) != (weight[0], rank):
        raise InputError(
            f"{label}: factors {tuple(down.shape)} and {tuple(up.shape)} do not fit layer {name!r} of weight "
            f"{weight}: it needs (r, {', '.join(map(str, weight[1:]))}) and ({weight[0]}, r)"
        )
    if not (bool(torch.isfinite(down).all()) and bool(torch.isfinite(up).all())):
        raise InputError(f"{label}: the factors of {name!r} have values that are NaN or infinite")
    if factors.alpha is not None and not math.isfinite(factors.alpha):
        raise InputError(f"{label}: alpha of {name!r} is {factors.alpha:g}; it must be a finite number")
    scale = 1.0 if factors.alpha is None else factors.alpha / rank
    return LoraLayer(down.detach().contiguous(), up.detach().contiguous(), scale, lora)


def _like(factor: Tensor, ndim: int, kernel: tuple[int, ...]) -> Tensor:
    """Factor with as many axes as the weight: 1 x 1 kernels appear and vanish freely."""
    if factor.ndim == 4 and ndim == 2 and factor.shape[2:] == (1, 1):
        return factor[..., 0, 0]
    if factor.ndim == 2 and ndim == 4 and tuple(kernel) == (1, 1):
        return factor[..., None, None]
    return factor
