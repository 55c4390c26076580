"""Operations as torch sees them, so that `torch.compile` keeps a Triton launch as one step of its graph.

Outside of a graph the dispatcher is passed by: it takes longer than a launch, and operations call each other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode


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
        function = on_its_device(function)

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

        @wraps(function)
        def call(*arguments: Any) -> Any:
            return named(*arguments) if _plain(arguments) else op(*arguments)

        return call

    return register


def on_its_device(function: Callable) -> Callable:
    """Run a function on the device of its first argument, a tensor.

    Triton launches on the current device and its stream, wherever the tensors lie.
    """

    @wraps(function)
    def guarded(first: torch.Tensor, *rest: Any, **named: Any) -> Any:
        if not first.is_cuda or first.get_device() == torch.cuda.current_device():
            return function(first, *rest, **named)
        with torch.cuda.device(first.get_device()):
            return function(first, *rest, **named)

    return guarded


def _plain(arguments: tuple[Any, ...]) -> bool:
    """Whether nobody but the function itself has to see a call: no graph, no gradient, no tensor subclass."""
    if torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None:
        return False
    graded = torch.is_grad_enabled()
    for one in arguments:
        if isinstance(one, torch.Tensor) and (
            type(one) not in (torch.Tensor, torch.nn.Parameter) or (graded and one.requires_grad)
        ):
            return False
    return True


def _meta(argument: Any) -> Any:
    return argument.to("meta") if isinstance(argument, torch.Tensor) else argument


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
