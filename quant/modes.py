"""The mode of PyTorch that a caller is in, and tensors that must not depend on it.

A plain ``lru_cache`` keeps what the first caller's mode made: an inference tensor, which no backward may
save, or a fake tensor of an export, which has no values. So constants are computed outside inference mode
and without gradients, and what is no ordinary tensor is handed out and not kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack


def kept(size: int) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Decorate a function of hashable arguments that makes a constant: the last `size` results are kept."""

    def decorate(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        store: OrderedDict[Any, Tensor] = OrderedDict()

        @wraps(make)
        def constant(*key: Any) -> Tensor:
            if _only_fake():
                return make(*key)
            found = store.get(key)
            if found is None:
                with ordinary_mode(), torch.no_grad():
                    found = make(*key)
                if type(found) is Tensor:
                    store[key] = found
                    if len(store) > size:
                        store.popitem(last=False)
            return found

        constant.store = store  # type: ignore[attr-defined]
        return torch.compiler.assume_constant_result(constant)  # a compiled forward has the values in it

    return decorate


def _only_fake() -> bool:
    """Whether an export or a shape study is on, which mixes its tensors with no real ones."""
    return any(isinstance(mode, FakeTensorMode) for mode in _get_current_dispatch_mode_stack())


@contextmanager
def ordinary_mode() -> Iterator[None]:
    """Leave inference mode for a while; nothing where it is not on, so that gradients stay as they are."""
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False):
        yield


def make_ordinary_(module: nn.Module) -> None:
    """Copy buffers that were made in inference mode, so that a later backward may save them."""
    with ordinary_mode(), torch.no_grad():
        for child in module.modules():
            for name, buffer in child._buffers.items():
                if buffer is not None and buffer.is_inference():
                    child._buffers[name] = buffer.clone()
            for name, parameter in child._parameters.items():
                if parameter is not None and parameter.is_inference():
                    child._parameters[name] = nn.Parameter(parameter.detach().clone(), requires_grad=False)
