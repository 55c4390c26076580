"""Operations as torch sees them, so that `torch.compile` keeps a Triton launch as one step of its graph."""

from __future__ import annotations

from collections.abc import Callable
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
        op = torch.library.custom_op(f"brainlab::{name}", function, mutates_args=(), schema=schema)
        op.register_fake(shapes)
        return op

    return register
