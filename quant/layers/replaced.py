"""Parameters outside the quantized layers that a method trained: put in, and taken out again."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def exchange_(model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy values into parameters by name; returns the values that were there.

    Parameters
    ----------
    model : torch.nn.Module
    tensors : dict of str to tensor
        In the parameters' shapes; converted to their types and devices.
    """
    known = dict(model.named_parameters())
    before = {name: known[name].detach().clone() for name in tensors}
    for name, tensor in tensors.items():
        known[name].copy_(tensor)
    return before
