"""Which layers a recipe leaves alone by default, and why; include, exclude and overrides by wildcard."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

from quant.denoisers.inventory import LayerInfo
from quant.errors import InputError

Role = Literal["first", "last", "time", "modulation", "condition", "body"]

# diffusers names; the first match wins
ROLES: tuple[tuple[str, Role], ...] = (
    ("patch_embed.text_proj", "condition"), ("condition_embedder.text_embedder.*", "condition"),
    ("condition_embedder.time_embedder.*", "time"), ("condition_embedder.time_proj", "modulation"),
    ("conv_in", "first"), ("pos_embed.proj", "first"), ("x_embedder", "first"), ("patch_embed*", "first"),
    ("conv_out", "last"), ("proj_out", "last"), ("proj_out_[12]", "last"), ("norm_out.linear", "last"),
    ("time_embedding.*", "time"), ("add_embedding.*", "time"), ("*timestep_embedder.*", "time"),
    ("*guidance_embedder.*", "time"), ("*text_embedder.*", "time"), ("class_embedding*", "time"),
    ("*time_emb_proj", "modulation"), ("adaln_single.linear", "modulation"), ("*norm.linear", "modulation"),
    ("*norm1.linear", "modulation"), ("*norm2.linear", "modulation"),
    ("*norm1_context.linear", "modulation"),
    ("encoder_hid_proj*", "condition"), ("caption_projection.*", "condition"),
    ("context_embedder", "condition"),
)  # fmt: skip

REASONS: dict[str, str] = {
    "first": "first layer: it sees the noisy sample itself and costs little",
    "last": "last layer: its rounding error goes straight into the prediction",
    "time": "time embedding: one vector an image, its error shifts every pixel",
    "modulation": "time modulation: one vector an image, the weight is all there is to save",
    "condition": "condition embedding: a few tokens an image, used by every block",
}


def role_of(name: str) -> Role:
    """Tell what part of a denoiser a layer is by its diffusers name; "body" for everything else."""
    return next((role for pattern, role in ROLES if fnmatchcase(name, pattern)), "body")


def selection(
    layers: Sequence[LayerInfo], include: Iterable[str], exclude: Iterable[str], overrides: dict[str, Any]
) -> dict[str, tuple[str | None, dict[str, Any]]]:
    """For each layer the reason why it is deselected (or None) and its override settings.

    Raises
    ------
    InputError
        A pattern matches no layer: almost always a typo; or the patterns are no list, the overrides no dict.
    """
    include, exclude = _patterns("include", include), _patterns("exclude", exclude)
    _check_overrides(overrides)
    names = [layer.name for layer in layers]
    for pattern in (*include, *exclude, *overrides):
        if not any(fnmatchcase(name, pattern) for name in names):
            close = difflib.get_close_matches(pattern, names, 1, 0.4) or names[:1]
            raise InputError(
                f"pattern {pattern!r} matches none of the {len(names)} Linear and Conv2d layers"
                + (f"; closest name: {close[0]!r}" if close else "")
            )
    chosen: dict[str, tuple[str | None, dict[str, Any]]] = {}
    for name in names:
        reason: str | None = None
        settings: dict[str, Any] = {}
        if include and not any(fnmatchcase(name, pattern) for pattern in include):
            reason = "not included"
        hit = next((pattern for pattern in exclude if fnmatchcase(name, pattern)), None)
        if reason is None and hit is not None:
            reason = f"excluded by {hit!r}"
        for pattern, value in overrides.items():
            if fnmatchcase(name, pattern):
                if value == "skip":
                    reason = reason or f"skipped by override {pattern!r}"
                else:
                    settings = {**settings, **value}
        chosen[name] = (reason, settings)
    return chosen


def refuse_idle(overrides: Mapping[str, Any], left: Mapping[str, str | None]) -> None:
    """Refuse settings for layers that are all left alone: the model would not be what was asked for.

    Parameters
    ----------
    overrides : mapping
        As for `selection`.
    left : mapping of str to str or None
        Why each layer is left alone; None: it is quantized.

    Raises
    ------
    InputError
        With the first layer's reason.
    """
    for pattern, value in overrides.items():
        reasons = [reason for name, reason in left.items() if fnmatchcase(name, pattern)]
        if value != "skip" and value and None not in reasons:
            raise InputError(
                f"override {pattern!r} changes nothing: every layer that it matches ({len(reasons)}) is left "
                f"alone ({reasons[0]}); leave the override away, or change what leaves them alone"
            )


def _patterns(name: str, patterns: Any) -> tuple[str, ...]:
    example = f"write {name}=[{patterns!r:.60}]" if isinstance(patterns, str) else f"as {name}=['*attn*']"
    if isinstance(patterns, str) or not isinstance(patterns, Iterable):
        raise InputError(f"{name} = {patterns!r:.60} must be a list of wildcards over layer names: {example}")
    found = tuple(patterns)
    for pattern in found:
        if not isinstance(pattern, str):
            raise InputError(
                f"{name} holds {pattern!r:.60}, which is no wildcard over layer names: {example}"
            )
    return found


def _check_overrides(overrides: Any) -> None:
    if not isinstance(overrides, dict):
        raise InputError(
            f"overrides must be a dict of wildcard to settings, got {type(overrides).__name__}: as "
            "overrides={'*attn*': {'weight_bits': 8}}"
        )
    for pattern, value in overrides.items():
        settings = isinstance(value, dict) and all(isinstance(key, str) for key in value)
        if not isinstance(pattern, str) or not (settings or value == "skip"):
            raise InputError(
                f"overrides[{pattern!r:.60}] = {value!r:.60}: give a dict of the method's settings, or 'skip'"
            )
