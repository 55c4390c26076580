"""Quantized Linear and Conv2d: drop-in subclasses that hold codes and simulate them.

Codes and parameters are what is stored. `decoded` is what they stand for, kept so that a simulated forward
costs the float layer plus the rounding of its input; it is decoded again when the tensors it came from were
replaced or written to. (Writes through ``.data`` leave no trace: write to the tensors themselves.) `weight`
is the effective weight of the whole layer, for tools that read it. The original module stays reachable (and
follows device moves) unless the layer came from a checkpoint.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from quant.errors import InputError
from quant.formats.granularity import Layout
from quant.formats.schedule import Clock
from quant.layers.activation import ActivationQuantizer, ExactBuffers
from quant.layers.effective import WRITTEN, weight_of
from quant.layers.encoded import EncodedWeight, LayerResult
from quant.layers.execute import run_codes
from quant.layers.native.prepared import Native
from quant.layers.states import KEY, check_encoded, check_state, describe
from quant.modes import make_ordinary_, ordinary_mode


class QuantLayer(ExactBuffers):
    """What QuantLinear and QuantConv2d share.

    Attributes
    ----------
    active : bool
        False runs the original layer (A/B).
    backend : str in {"simulated", "kernels"}
        "simulated": fake-quantized input, cached decoded weight. "kernels": integer codes through `kernels`.
    alone : int
        Axes of an input without a batch, which Linear and Conv2d take, too: here it is a batch of one.
    decoded : tensor
        The cache; `current` brings it up to date.
    stand_in : tensor, optional
        Weight to compute with in place of the decoded one, to look at one side of the rounding.
    native, native_key
        What kernels take of this layer, and the tensors that it was made from (`quant.layers.native`).
    producer
        What the layer does to its input first in place of the module before it
        (`quant.layers.native.producers`); None: nothing.
    """

    alone: int
    decoded: Tensor
    stand_in: Tensor | None
    native: Native | None
    producer: Any
    native_key: tuple[Any, ...]

    def adopt(self, original: nn.Module, result: LayerResult, clock: Clock, keep_original: bool) -> None:
        """Take over shape attributes, bias and codes; called once by `make`."""
        self._original = (original,) if keep_original else ()
        self.active, self.backend = True, "simulated"
        self.last_path: str | None = None
        self.native, self.native_key, self.producer = None, (), None
        encoded = result.weight
        self.weight_quantizer, self.weight_layout = encoded.quantizer, encoded.layout
        self.weight_shape, self.weight_params = encoded.shape, tuple(encoded.params)
        bias: Any = original.bias
        if result.bias is not None:
            bias = nn.Parameter(result.bias.detach(), requires_grad=False)
        self.register_parameter("bias", bias)
        self.register_buffer("codes", encoded.packed)
        for name, tensor in encoded.params.items():
            self.register_buffer(f"weight_{name}", tensor)
        self.transform, self.branch, self.input_quantizer = result.transform, result.branch, None
        if result.activation is not None:
            layout: Layout = "linear_input" if encoded.layout == "linear_weight" else "conv_input"
            self.input_quantizer = ActivationQuantizer(
                result.activation, layout, result.activation_params, result.timesteps, clock
            )
        self.training = original.training
        self.stand_in = None
        make_ordinary_(self)
        dtype = getattr(original, "weight").dtype  # noqa: B009 - a Tensor attribute mypy cannot see
        self.register_buffer("decoded", torch.empty(0, dtype=dtype), persistent=False)
        self.refresh()

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """Effective weight, (out, in, ...), to be read; see `quant.layers.effective`."""
        return weight_of(self, self.decoded.dtype)

    @weight.setter
    def weight(self, value: Tensor) -> None:
        raise InputError(WRITTEN)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Refuse a weight beside the codes."""
        if name == "weight":
            raise InputError(WRITTEN)
        super().register_parameter(name, param)

    @property
    def original(self) -> nn.Module | None:
        """The full-precision layer this one stands for; None after `load`."""
        return self._original[0] if self._original else None

    def register_forward_hook(self, *args: Any, **options: Any) -> Any:
        """Add a hook, which sees the layer's own input: what the layer did to it first goes back."""
        self._see_input()
        return super().register_forward_hook(*args, **options)

    def register_forward_pre_hook(self, *args: Any, **options: Any) -> Any:
        """Add a hook, as `register_forward_hook`."""
        self._see_input()
        return super().register_forward_pre_hook(*args, **options)

    def _see_input(self) -> None:
        if self.producer is not None:
            self.producer.give_back()

    def encoded(self) -> EncodedWeight:
        """Codes and parameters of the weight."""
        params = {name: getattr(self, f"weight_{name}") for name in self.weight_params}
        return EncodedWeight(self.weight_quantizer, self.weight_layout, self.weight_shape, self.codes, params)

    def current(self) -> Tensor:
        """Get the decoded weight, decoded again if a tensor it came from is another one or was written to.

        A compiled forward takes the cache as it is, which loading and moving keep up to date.
        """
        if not torch.compiler.is_compiling() or self.decoded.shape != self.weight_shape:
            now = self._stored()
            seen = self._seen
            if len(now) != len(seen) or not all(map(_unchanged, now, seen)):
                self.refresh()
        return self.decoded

    def refresh(self) -> None:
        """Decode codes and parameters as they are now.

        Raises
        ------
        InputError
            They are not those of a weight of this format and shape.
        """
        encoded = self.encoded()
        check_encoded(encoded)
        with ordinary_mode(), torch.no_grad():
            self.decoded = encoded.decode(self.decoded.dtype)
        self._seen = tuple((weakref.ref(t), _version(t), t.data_ptr()) for t in self._stored())

    def forget_decoded(self) -> None:
        """Free the decoded weight; it is made again when it is asked for."""
        self.decoded, self._seen = self.decoded.new_empty(0), ()

    def _stored(self) -> list[Tensor]:
        buffers: Any = self._buffers
        return [buffers["codes"], *(buffers[f"weight_{name}"] for name in self.weight_params)]

    def __getstate__(self) -> dict[str, Any]:
        # a copy has other tensors: it decodes and prepares them once
        return {**self.__dict__, "_seen": (), "native": None, "native_key": ()}

    def exact_buffers(self) -> list[str]:
        """Scales keep their dtype; the cached weight follows the model's."""
        return [name for name in self._buffers if name != "decoded"]

    def _apply(self, fn: Callable, recurse: bool = True) -> nn.Module:
        for module in self._original:
            module._apply(fn, recurse)
        before = self.decoded.dtype
        super()._apply(fn, recurse)
        if self.decoded.dtype != before and self.decoded.numel() and not self.decoded.is_meta:
            self.refresh()  # a cast cache has lost what the codes still hold
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if hasattr(destination, "_metadata"):
            destination._metadata.setdefault(prefix[:-1], {})[KEY] = describe(self)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: Any, *rest: Any) -> None:
        check_state(self, state_dict, prefix, local_metadata)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)
        if not self.codes.is_meta:
            self.refresh()

    def forward(self, x: Tensor) -> Tensor:
        """Run the layer on codes, simulated or through the kernels."""
        if x.ndim == self.alone:
            return self.forward(x[None])[0]
        if self.producer is not None and (not self.active or self.backend == "simulated"):
            x = self.producer.plain(x)
        if not self.active:
            original = self.original
            if original is None:
                raise RuntimeError(
                    "this layer was loaded from codes: there is no full-precision layer to switch to"
                )
            return original(x)
        if self.backend != "simulated":
            out, path = run_codes(self, x)
            if not torch.compiler.is_compiling():
                self.last_path = path
            return out
        hidden = x if self.transform is None else self.transform(x)
        if self.input_quantizer is not None:
            hidden = self.input_quantizer(hidden)
        weight = self.current() if self.stand_in is None else self.stand_in
        out = self.float_op(hidden, weight, self.bias)
        return out if self.branch is None else out + self.branch(x)

    def float_op(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Do the layer's own arithmetic on given values."""
        raise TypeError(f"{type(self).__name__} is abstract")


def _unchanged(tensor: Tensor, seen: tuple[Any, int | None, int]) -> bool:
    ref, version, data = seen
    return (
        ref() is tensor and version is not None and version == _version(tensor) and data == tensor.data_ptr()
    )


def _version(tensor: Tensor) -> int | None:
    """Count of in-place writes; None for inference tensors, which keep none."""
    return None if tensor.is_inference() else tensor._version


class QuantLinear(QuantLayer, nn.Linear):
    """A Linear on codes; see QuantLayer."""

    alone = 1

    def __init__(
        self, original: nn.Linear, result: LayerResult, clock: Clock, keep_original: bool = True
    ) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = original.in_features, original.out_features
        self.adopt(original, result, clock, keep_original)

    def float_op(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Multiply by the transposed weight and add the bias."""
        return nn.functional.linear(x, weight, bias)


class QuantConv2d(QuantLayer, nn.Conv2d):
    """A Conv2d on codes; see QuantLayer. Padding is exact: every integer grid has 0."""

    alone = 3
    COPIED = (
        "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "transposed",
        "output_padding", "groups", "padding_mode", "_reversed_padding_repeated_twice",
    )  # fmt: skip

    def __init__(
        self, original: nn.Conv2d, result: LayerResult, clock: Clock, keep_original: bool = True
    ) -> None:
        nn.Module.__init__(self)
        for name in self.COPIED:
            setattr(self, name, getattr(original, name))
        self.adopt(original, result, clock, keep_original)

    def float_op(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve with this layer's stride, padding and groups."""
        return self._conv_forward(x, weight, bias)


def make(original: nn.Module, result: LayerResult, clock: Clock, keep_original: bool = True) -> QuantLayer:
    """Build the quantized layer that stands for `original`."""
    if isinstance(original, nn.Linear):
        return QuantLinear(original, result, clock, keep_original)
    if isinstance(original, nn.Conv2d):
        return QuantConv2d(original, result, clock, keep_original)
    raise TypeError(f"only Linear and Conv2d can be quantized, got {type(original).__name__}")


def weight_sqnr_db(original: Tensor, result: LayerResult) -> float | None:
    """Signal to quantization noise of the effective weight in dB; None where it is exact (no noise)."""
    if result.sqnr_db is not None:
        return result.sqnr_db
    effective = result.weight.decode(torch.float32)
    branch, transform = result.branch, result.transform
    if transform is not None and hasattr(transform, "from_weight"):
        effective = transform.from_weight(effective)
    if branch is not None and hasattr(branch, "weight"):
        effective = effective + branch.weight().reshape(effective.shape)
    reference = original.detach().float()
    noise = (reference - effective).double().square().sum().item()
    signal = reference.double().square().sum().item()
    return None if noise == 0 or signal == 0 else 10 * float(torch.log10(torch.tensor(signal / noise)))
