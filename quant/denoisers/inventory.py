"""The layers a plan speaks about: every Linear and convolution of a model, once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn


class InputSize(NamedTuple):
    """What is known beforehand about the tables that calibration fills for a layer's input."""

    positions: int | None
    """Tokens or pixels of one sample's input; None: the forward does not reach the layer."""
    timesteps: int
    assumed: bool
    """There is no recording to look at: the config's sample size, and `ASSUMED_TIMESTEPS`."""


ASSUMED_TIMESTEPS = 20
"""Steps of a recording that does not exist yet; those of the shipped denoisers have so many."""


class LayerInfo(NamedTuple):
    """What a policy may know about a layer before anything is done to it."""

    name: str
    kind: str
    """"Linear", "Conv2d" or "Conv3d"."""
    shape: tuple[int, ...]
    """Of the weight: (out, in) or (out, in / groups, kernel, ...)."""
    groups: int
    bytes: int
    """Of the weight as it is now."""
    plain: bool
    """Exactly nn.Linear or nn.Conv2d: a subclass may go another way, and three dimensions have no codes."""
    after_gelu: bool = False
    """Follows a plain GELU in its container (and has a bias): its input is never below -0.17."""
    depth: float | None = None
    """0 in the first block, 1 in the last, by how a forward goes through them; None outside of blocks."""
    seen: InputSize | None = None
    """For methods that are `sized_by_recording`; None where it could not be found out."""

    @property
    def n_weights(self) -> int:
        """Number of weights."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def kernel_size(self) -> int:
        """Kernel positions; 1 for linears."""
        return self.n_weights // (self.shape[0] * self.shape[1])


LAYERS = (nn.Linear, nn.Conv2d, nn.Conv3d)
"""What a plan has a line for."""


def find_layers(model: nn.Module) -> list[LayerInfo]:
    """Every Linear and convolution of `model` in module order; a module used under two names appears once."""
    found = []
    gelu, depths = _after_gelu(model), _depths(model)
    for name, module in model.named_modules():
        if isinstance(module, LAYERS):
            weight = module.weight
            kind = next(k.__name__ for k in LAYERS if isinstance(module, k))
            groups = getattr(module, "groups", 1)
            size = weight.numel() * weight.element_size()
            plain = type(module) in (nn.Linear, nn.Conv2d)
            gelued, depth = id(module) in gelu, depths.get(_block(name))
            found.append(LayerInfo(name, kind, tuple(weight.shape), groups, size, plain, gelued, depth))
    return found


_BLOCKS = {"down_blocks": 0, "mid_block": 1, "transformer_blocks": 1, "blocks": 1,
           "single_transformer_blocks": 2, "up_blocks": 3}  # fmt: skip
"""diffusers' names of lists of blocks, in the order a forward reaches them."""


def _block(name: str) -> tuple[int, int] | None:
    """Place of a layer's block among all blocks; None outside of them."""
    first, _, rest = name.partition(".")
    number = rest.partition(".")[0]
    if first not in _BLOCKS:
        return None
    return _BLOCKS[first], int(number) if number.isdigit() else 0


def _depths(model: nn.Module) -> dict[tuple[int, int] | None, float]:
    places = sorted({place for name, _ in model.named_modules() if "." in name and (place := _block(name))})
    return {place: index / max(1, len(places) - 1) for index, place in enumerate(places)}


def _after_gelu(model: nn.Module) -> set[int]:
    """Find linears whose input is a GELU's output: the next linear of a Sequential or a FeedForward's list.

    Gated units (GEGLU) multiply the GELU by something signed and do not count.
    """
    found = set()
    for container in model.modules():
        if isinstance(container, (nn.Sequential, nn.ModuleList)):
            before = ""
            for child in container:
                if isinstance(child, nn.Linear) and before == "GELU" and child.bias is not None:
                    found.add(id(child))
                if not isinstance(child, nn.Dropout):
                    before = type(child).__name__
    return found


def tensor_bytes(tensor: torch.Tensor) -> int:
    """Bytes of the values of one tensor."""
    return tensor.numel() * tensor.element_size()


def model_bytes(model: nn.Module) -> int:
    """Bytes of every parameter and buffer, shared ones once."""
    seen = {id(t): t for t in [*model.parameters(), *model.buffers()]}
    return sum(tensor_bytes(t) for t in seen.values())
