"""Does a recording, or what is to be recorded, suit a model? Answers before any work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from quant.denoisers.families import family_of, getter, is_known, not_packed, sample_shape
from quant.denoisers.family import FAMILIES, TextUNet, Video
from quant.errors import InputError

MAX_SEED = 2**32 - 1
"""Of numpy and scikit-learn; torch would take more."""


def model_kind(model: nn.Module) -> str:
    """Class of a model as recordings keep it: the family's, or its own where there is no family."""
    return next((c.__name__ for c in type(model).__mro__ if c.__name__ in FAMILIES), type(model).__name__)


def check_whole(name: str, value: Any, low: int, high: int | None = None) -> None:
    """Refuse what is no whole number within bounds."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        bounds = f"from {low} on" if high is None else f"from {low} to {high}"
        raise InputError(f"{name} = {value!r:.60}: give a whole number {bounds}")


def refuse_autoencoder(model: nn.Module) -> None:
    """Refuse a part of a pipeline that takes no timestep."""
    if not is_known(model) and hasattr(model, "encode") and hasattr(model, "decode"):
        raise InputError(
            f"{type(model).__name__} is an autoencoder, not a denoiser, and has no recorded sampling: give "
            "the pipeline's unet or transformer, or quantize it with a recipe that does not calibrate"
        )


def misfit(
    model: nn.Module, shape: Sequence[int], condition: Tensor | None, labels: Tensor | None = None
) -> str | None:
    """Tell why samples of `shape` and one of their conditions are not this model's; or None.

    Parameters
    ----------
    model : torch.nn.Module
    shape : (C, H, W) or (C, F, H, W)
    condition : tensor of shape (T, D), () or None
    labels : tensor of shape (n,), optional
        All class labels, where conditions are labels.
    """
    if not is_known(model):
        return None
    family, get, kind = family_of(model), getter(model), type(model).__name__
    channels = family.channels(get)
    if len(shape) != family.axes:
        axes = "(channels, frames, height, width)" if family.axes == 4 else "(channels, height, width)"
        return f"its samples have shape {tuple(shape)}, {kind} takes {axes} with {channels} channels"
    if shape[0] != channels:
        return f"its samples have {shape[0]} channels, {kind} takes {channels}"
    if isinstance(family, Video) and get("out_channels") not in (None, channels):
        return (
            f"it has no picture to start from, and this {kind} takes one (of {channels} channels it predicts "
            f"{get('out_channels')})"
        )
    width, classes = family.width(get), family.labels(get)
    if isinstance(family, TextUNet) and classes is not None:
        return f"{kind} takes tokens and class labels at once, and recordings hold one of them"
    found = None if condition is None else (condition.shape[-1] if condition.ndim else 0)
    if width is not None and found != width:
        what = {None: "no condition", 0: "class labels"}.get(found, f"conditions of width {found}")
        return f"it has {what}, {kind} takes tokens of width {width}"
    if width is not None and condition is not None and (reason := not_packed(model, condition)):
        return reason
    if width is None and found:
        return f"it has conditions of width {found}, {kind} takes class labels or nothing"
    if width is None and (found is None) != (classes is None):
        return f"it has {'no class labels' if found is None else 'class labels'}, {kind} " + (
            "takes them" if found is None else "takes no condition"
        )
    if labels is not None and classes is not None and width is None:
        wrong = labels[(labels < 0) | (labels >= classes) | (labels != labels.round())]
        if len(wrong):
            return f"it has the class label {float(wrong[0]):g}, {kind} takes 0 to {classes - 1}"
    return None


def check_arguments(
    model: nn.Module, conditions: Tensor | None, null: Tensor | None, *, n_steps: int, n_samples: int | None,
    guidance: float, seed: int, batch_size: int, shape: Sequence[int] | None,
) -> None:  # fmt: skip
    """Refuse what `quant.record` cannot sample with, before anything is written.

    Raises
    ------
    InputError
        Numbers out of bounds; a shape or conditions that are not the model's.
    """
    for name, value in (("n_steps", n_steps), ("batch_size", batch_size)):
        check_whole(name, value, 1)
    check_whole("seed", seed, 0, MAX_SEED)
    for name, tensor in (("conditions", conditions), ("null_condition", null)):
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor):
            raise InputError(f"{name} must be a tensor, got {type(tensor).__name__}: use torch.as_tensor")
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{name} hold NaN or infinite values: make them again")
    if conditions is None and n_samples is not None:
        check_whole("n_samples", n_samples, 1)
    if conditions is not None and conditions.ndim and n_samples not in (None, len(conditions)):
        raise InputError(
            f"n_samples = {n_samples!r:.60}, and one sample is recorded for each of {len(conditions)} "
            "conditions: leave it out, or give as many conditions"
        )
    if not (n_samples if conditions is None else conditions.ndim and len(conditions)):
        raise InputError("nothing to record: give conditions, or n_samples for a model without conditions")
    if isinstance(guidance, bool) or not isinstance(guidance, (int, float)) or not math.isfinite(guidance):
        raise InputError(f"guidance = {guidance!r}: give a number; 1 turns it off")
    if guidance != 1.0 and (null is None or conditions is None):
        raise InputError(f"guidance {guidance:g} needs conditions and null_condition; or set guidance=1")
    refuse_autoencoder(model)
    found = sample_shape(model) if shape is None else tuple(shape)
    if found is None:
        raise InputError(
            f"{type(model).__name__} does not say its sample size: pass shape=(C, H, W), or (C, F, H, W)"
        )
    for size in found:
        check_whole("a size in shape", size, 1)
    labels = conditions if conditions is not None and conditions.ndim == 1 else None
    reason = misfit(model, found, None if conditions is None else conditions[0], labels)
    if reason is None and is_known(model):
        given = [c for c in (conditions, null) if c is not None]
        reason = next((why for c in given if (why := not_packed(model, c))), None)
    if reason is None and null is not None and conditions is not None:
        try:
            null.expand_as(conditions)
        except RuntimeError:
            reason = (
                f"its null_condition has shape {tuple(null.shape)}, conditions have {tuple(conditions.shape)}"
            )
    if reason:
        raise InputError(f"cannot record: {reason.removeprefix('it has ').removeprefix('its ')}")
