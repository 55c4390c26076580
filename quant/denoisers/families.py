"""How each family of diffusers denoisers is called, and what its condition consists of.

Everywhere else a sample is (C, H, W), or (C, F, H, W) where it is a clip, a timestep is the scheduler's, and
a condition is one tensor: tokens (T, D), a class label, or nothing. A family says how these become its
model's own arguments. Where a model wants more than tokens (pooled text, guidance as an input, picture
sizes), the extras travel as additional rows of the same tensor: `pack` puts them there, `unpack` takes them
out, so recordings, null conditions and guidance need no second kind of condition.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from quant.denoisers.family import FAMILIES, Family
from quant.errors import InputError

Example = tuple[tuple[Any, ...], dict[str, Any]]
_BASE = Family()


def is_known(model: nn.Module) -> bool:
    """Whether the model is of one of the families."""
    return any(c.__name__ in FAMILIES for c in type(model).__mro__)


def family_of(model: nn.Module) -> Family:
    """Find the family by class (or a parent class); modules of no known family are called the base way."""
    return next((FAMILIES[c.__name__] for c in type(model).__mro__ if c.__name__ in FAMILIES), _BASE)


def call(model: nn.Module, x: Tensor, timestep: Tensor, condition: Tensor | None) -> Tensor:
    """Predict with a denoiser of any family.

    Parameters
    ----------
    model : torch.nn.Module
    x : tensor of shape (n, C, H, W), or (n, C, F, H, W) for clips
    timestep : tensor of shape (n,), (1,) or ()
        As the scheduler counts.
    condition : tensor of shape (n, T, D), (n,) for class labels, or None
        See `pack` for models that take more than tokens.

    Returns
    -------
    tensor of shape (n, C', H, W) or (n, C', F, H, W)
        In the model's dtype, on its device.
    """
    family = family_of(model)
    first = leading(model)
    x = x.to(first)
    options = arguments(model, x, timestep, None if condition is None else condition.to(first.device))
    out = model(family.enter(x), **options)
    return family.leave(out if isinstance(out, Tensor) else out.sample, x)


def leading(model: nn.Module) -> Tensor:
    """First parameter in the dtype that a model computes in.

    Some (Wan) keep a few tables, norms and embeddings in float32 when they are read in half precision.
    """
    kept = set(getattr(model, "_keep_in_fp32_modules", None) or ())
    named = ((name, p) for name, p in model.named_parameters() if p.is_floating_point())
    found = next((p for name, p in named if not kept & set(name.split("."))), None)
    return next(p for p in model.parameters() if p.is_floating_point()) if found is None else found


def arguments(model: nn.Module, x: Tensor, timestep: Tensor, condition: Tensor | None) -> dict[str, Any]:
    """Keyword arguments of one forward beside the sample."""
    family = family_of(model)
    times = timestep.to(x.device).reshape(-1).expand(len(x))
    options: dict[str, Any] = {
        "timestep": times if family.timestep_unit == 1.0 else times.float() / family.timestep_unit
    }
    if condition is not None and condition.ndim == 1:
        return {**options, "class_labels": condition.long()}
    tokens, extras = (None, {}) if condition is None else unpack(model, condition.to(x.dtype))
    return {**options, **family.keywords(x, tokens, extras), **family.places(getter(model), x)}


def pack(model: nn.Module, tokens: Tensor, **extras: Tensor | float) -> Tensor:
    """Put tokens and a model's extra inputs into one condition.

    Parameters
    ----------
    model : torch.nn.Module
    tokens : tensor of shape (n, T, D)
    **extras : tensor of shape (n, size) or number
        By the model's own argument names, as ``pooled_projections``, ``guidance``, ``text_embeds``.

    Returns
    -------
    tensor of shape (n, T + R, D)
        R rows hold the extras, one after the other, padded with zeros.

    Raises
    ------
    InputError
        An extra is missing, unknown or of another size.
    """
    sizes = _extras(model)
    if set(extras) != set(sizes):
        wanted = ", ".join(f"{name} ({size} numbers)" for name, size in sizes.items()) or "none"
        raise InputError(
            f"{type(model).__name__} takes these inputs beside tokens: {wanted}; "
            f"got {', '.join(sorted(extras)) or 'none'}"
        )
    parts = []
    for name, size in sizes.items():
        value = torch.as_tensor(extras[name]).to(tokens)
        try:
            parts.append(value.reshape(-1, size).expand(len(tokens), size))
        except RuntimeError:
            raise InputError(
                f"{name} of {type(model).__name__} must have shape ({len(tokens)}, {size}), got "
                f"{tuple(value.shape)}"
            ) from None
    if not parts:
        return tokens
    flat = torch.cat(parts, 1)
    rows = -(-flat.shape[1] // tokens.shape[2])
    padded = nn.functional.pad(flat, (0, rows * tokens.shape[2] - flat.shape[1]))
    return torch.cat([tokens, padded.view(len(tokens), rows, tokens.shape[2])], 1)


def unpack(model: nn.Module, condition: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Undo `pack`: tokens (n, T, D) and extras (n, size) by name.

    Raises
    ------
    InputError
        The condition has no rows beside those that the extras need.
    """
    sizes = _extras(model)
    if not sizes:
        return condition, {}
    rows = -(-sum(sizes.values()) // condition.shape[-1])
    if condition.ndim != 3 or condition.shape[1] <= rows:
        raise InputError(
            f"a condition of {type(model).__name__} holds tokens and {', '.join(sizes)}; got shape "
            f"{tuple(condition.shape)}: make it with quant.denoisers.families.pack"
        )
    flat = condition[:, -rows:].flatten(1)
    extras, start = {}, 0
    for name, size in sizes.items():
        extras[name] = flat[:, start : start + size]
        start += size
    return condition[:, :-rows], extras


def not_packed(model: nn.Module, conditions: Tensor) -> str | None:
    """Tell why conditions do not hold a model's extras, as tokens that were never packed; or None.

    The rows of extras end in zeros, tokens do not: taken for extras, the last ones would give a wrong
    prediction and no error. Where extras fill their rows to the end, only the count of rows tells.

    Parameters
    ----------
    model : torch.nn.Module
    conditions : tensor of shape (..., T, D)
    """
    sizes = _extras(model)
    if not sizes or conditions.ndim < 2:
        return None
    count, width = conditions.shape[-2:]
    rows = -(-sum(sizes.values()) // width)
    filled = conditions[..., -1, sum(sizes.values()) - (rows - 1) * width :]
    if count > rows and not bool(filled.any()):
        return None
    return (
        f"it has conditions of tokens alone, and {type(model).__name__} takes {', '.join(sizes)} beside "
        f"them: make conditions with quant.denoisers.families.pack(model, tokens, {'=..., '.join(sizes)}=...)"
    )


def sample_shape(model: nn.Module) -> tuple[int, ...] | None:
    """(C, H, W) or (C, F, H, W) of one sample by the model's config; None if it does not say."""
    return family_of(model).shape(getter(model))


def example(
    model: nn.Module, batch: int = 1, tokens: int = 17, device: torch.device | str = "cpu"
) -> Example | None:
    """Arguments of one forward, all zeros, from the config; None for modules that are no known denoiser.

    Raises
    ------
    InputError
        The config has a sample size that no sample can have.
    """
    if not is_known(model):
        return None
    family, get = family_of(model), getter(model)
    shape = family.shape(get) or family.usual(get)
    if shape is None:
        return None
    x, condition = torch.zeros(batch, *shape, device=device), None
    width = family.width(get)
    if width is not None:
        sizes = family.extras(get).items()
        blank = {name: torch.zeros(batch, size, device=device) for name, size in sizes}
        condition = pack(model, torch.zeros(batch, tokens, width, device=device), **blank)
    elif family.labels(get) is not None:
        condition = torch.zeros(batch, device=device)
    return forward_arguments(model, x, torch.zeros(batch, device=device), condition)


def forward_arguments(model: nn.Module, x: Tensor, timestep: Tensor, condition: Tensor | None) -> Example:
    """Positional and keyword arguments of one forward."""
    return (family_of(model).enter(x),), arguments(model, x, timestep, condition)


def _extras(model: nn.Module) -> dict[str, int]:
    return family_of(model).extras(getter(model))


def getter(model: nn.Module) -> Any:
    """Look-up in a model's config, like a dict's ``get``."""
    config = getattr(model, "config", None)
    if isinstance(config, Mapping):
        return config.get
    return lambda key, default=None: getattr(config, key, default)
