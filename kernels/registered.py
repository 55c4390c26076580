"""Operations as torch sees them, so that `torch.compile` keeps a Triton launch as one step of its graph."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch


def operation(name: str, schema: str, shapes: Callable[..., Any]) -> Callable[[Callable], Any]:
    """Register a function as ``brainlab::name``.

    Parameters
    ----------
    name : str
    schema : str
        Arguments and results in torch's notation; nothing is changed in place.
    shapes : callable
        The same arguments without data: empty results of the right shapes and types.

    Examples
    --------
    >>> double = operation("double_example", "(Tensor x) -> Tensor", torch.empty_like)(lambda x: x * 2)
    >>> double(torch.ones(2)).tolist()
    [2.0, 2.0]
    """

    def register(function: Callable) -> Any:
        @wraps(function)
        def named(*arguments: Any) -> Any:
            try:
                return function(*arguments)
            except torch.OutOfMemoryError as error:
                made = shapes(*(_meta(argument) for argument in arguments))
                size = sum(_bytes(tensor) for tensor in (made if isinstance(made, tuple) else (made,)))
                raise torch.OutOfMemoryError(
                    f"{name}: out of memory; its result alone takes {size / 2**20:,.1f} MiB: fewer rows at a "
                    f"time, or a GPU with more ({str(error).splitlines()[0]})"
                ) from error

        op = torch.library.custom_op(f"brainlab::{name}", named, mutates_args=(), schema=schema)
        op.register_fake(shapes)
        return op

    return register


def _meta(argument: Any) -> Any:
    return argument.to("meta") if isinstance(argument, torch.Tensor) else argument


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
