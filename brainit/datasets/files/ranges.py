"""Which values of a picture are black and white: by its type, by what its file says, or asked for.

The largest value of a stack says nothing: one pixel of 1.0000001 would make 0..1 pictures nearly black.

=================  ================  ==========================================================
type               read as           refused
=================  ================  ==========================================================
bool               0..1
uint8              0..255            where nothing is above 1: it may be 0..1
uint16             0..65535          where nothing is above 4095: it may be of 8, 10 or 12 bits
float              0..1              from 5 % above or below; a smaller overshoot is clipped
other whole types                    always: they do not say a range
=================  ================  ==========================================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from brainit.errors import InputError

ASK = "say which values are black and white: range=LOW..HIGH (--set options.range=0..255)"
_OVERSHOOT = 0.05  # share of the range; what sharp resizing of real pictures stays within
_DARK = 0.1  # share of white below which a whole stack is called nearly black
_BRIGHT = 0.5  # share of white that a stack in the range reaches somewhere
_LOW_BITS = 16  # code of 8 bits that 12 bits stored in 16 do not exceed
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"\s*({_NUMBER})\s*\.\.\s*({_NUMBER})\s*")


def parse(stated: str) -> tuple[float, float] | None:
    """Return (black, white) of ``"LOW..HIGH"``, None for ``"auto"``.

    Raises
    ------
    InputError
        It is neither, or LOW is not below HIGH.
    """
    if stated == "auto":
        return None
    match = _RANGE.fullmatch(str(stated))
    if not match or not float(match[1]) < float(match[2]) < np.inf:
        raise InputError(f"range is {stated!r}; allowed: auto, or LOW..HIGH such as 0..1, 0..255, -0.5..0.5")
    return float(match[1]), float(match[2])


def to_unit(
    stacks: Mapping[str, np.ndarray], where: str, stated: str = "auto", ask: str = ASK
) -> tuple[list[np.ndarray], list[str]]:
    """Scale all pictures of a dataset to 0 (black) .. 1 (white) by one rule.

    Parameters
    ----------
    stacks : mapping of str to array
        Training and test pictures, by the name that messages use. Stacks of one type are judged together.
    where : str
        Name of the file, for messages.
    stated : str
        ``"auto"`` or ``"LOW..HIGH"``.
    ask : str
        What a message says can be done.

    Returns
    -------
    images : list of float32 array
        In the order of `stacks`.
    warnings : list of str
        What was clipped, or looks odd.

    Raises
    ------
    InputError
        The type does not say a range, values lie outside it, or some are not finite.
    """
    given = parse(stated)
    kinds: dict[str, list[str]] = {}
    for name, stack in stacks.items():
        kinds.setdefault(_kind(stack, f"{where}: {name}"), []).append(name)
    found = {name: _bounds(stack, f"{where}: {name}") for name, stack in stacks.items()}
    if given and len(kinds) > 1:
        types = " and ".join(f"{name} {stack.dtype}" for name, stack in stacks.items())
        raise InputError(f"{where}: {types}; one range cannot be meant for both: save them in one type")
    limits, warnings = {}, []
    for kind, names in kinds.items():
        low, high = min(found[n][0] for n in names), max(found[n][1] for n in names)
        black, white = given or _limits(kind, low, high, f"{where}: {' and '.join(names)}", ask)
        if not given:
            _same_range({n: found[n] for n in names}, kind, white, where, ask)
        slack = _OVERSHOOT * (white - black)
        if low < black - slack or high > white + slack:
            raise InputError(
                f"{where}: {' and '.join(names)} are {kind} pictures with values from {low:.8g} to "
                f"{high:.8g}; allowed: {black:g}..{white:g}; {ask}"
            )
        limits.update(dict.fromkeys(names, (black, white)))
    if len(kinds) > 1:
        said = (f"{n} is {stacks[n].dtype}, read as {a:g}..{b:g}" for n, (a, b) in limits.items())
        warnings.append(f"{where}: {'; '.join(said)}")
    images = []
    for name, stack in stacks.items():
        black, white = limits[name]
        low, high = found[name]
        outside = int(((stack < black) | (stack > white)).sum()) if low < black or high > white else 0
        if outside:
            warnings.append(
                f"{where}: clipped {outside} of {stack.size} values of {name} to {black:g}..{white:g} (they "
                f"run from {low:.8g} to {high:.8g})"
            )
        if (high - black) / (white - black) < _DARK:
            warnings.append(_nearly_black(f"{where}: {name} is", high, white))
        unit = (stack.astype(np.float64) - black) / (white - black)
        images.append(np.clip(unit, 0, 1).astype(np.float32))
    return images, warnings


def dark_files(images: Sequence[np.ndarray], where: str) -> list[str]:
    """Return a warning where nothing in the 8-bit pictures of files is bright.

    Raises
    ------
    InputError
        Everything lies in the lowest sixteenth, as where 12 bits were stored in 16, or 0 and 1 in 8.
    """
    high = max(int(image.max()) for image in images)
    if high <= _LOW_BITS:
        raise InputError(
            f"{where}: nothing in {len(images)} pictures is brighter than {high} of 255: fewer bits stored "
            "in the low ones of more? save them over the whole range"
        )
    return [_nearly_black(f"{where}: everything is", high, 255)] if high < 255 * _DARK else []


def to_codes(images: np.ndarray) -> np.ndarray:
    """Return 8-bit pictures of pictures in 0..1."""
    return np.rint(images * 255).astype(np.uint8)


def _same_range(
    found: Mapping[str, tuple[float, float]], kind: str, white: float, where: str, ask: str
) -> None:
    """Refuse a stack that is nearly black beside one that is not: one of the two has another range."""
    dark, bright = (f([(high, name) for name, (_, high) in found.items()]) for f in (min, max))
    if dark[0] < _DARK * white and bright[0] >= _BRIGHT * white:
        raise InputError(
            f"{where}: {kind} pictures of one range? the largest value of {dark[1]} is {dark[0]:.4g}, that "
            f"of {bright[1]} {bright[0]:.4g} of {white:g}; save both in one range, or {ask}"
        )


def _nearly_black(what: str, high: float, white: float) -> str:
    return f"{what} nearly black: the largest value is {high:.3g} of {white:g}; is the range right?"


def _kind(stack: np.ndarray, where: str) -> str:
    if stack.dtype.kind not in "buif":
        raise InputError(f"{where} is {stack.dtype}; allowed: numbers")
    return "float" if stack.dtype.kind == "f" else stack.dtype.name


def _bounds(stack: np.ndarray, where: str) -> tuple[float, float]:
    if stack.size == 0:
        raise InputError(f"{where} is empty, of shape {stack.shape}; allowed: one picture or more")
    low, high = float(stack.min()), float(stack.max())
    if not np.isfinite([low, high]).all():
        bad = int((~np.isfinite(stack)).sum())
        raise InputError(f"{where}: {bad} of {stack.size} picture values are NaN or infinite; correct them")
    return low, high


def _limits(kind: str, low: float, high: float, where: str, ask: str) -> tuple[float, float]:
    if kind in ("bool", "float"):
        return 0.0, 1.0
    if kind == "uint8" and (high > 1 or high == 0):
        return 0.0, 255.0
    if kind == "uint16" and high > 4095:
        return 0.0, 65535.0
    why = "may be of several ranges" if kind in ("uint8", "uint16") else "do not say their range"
    raise InputError(f"{where}: {kind} pictures with values from {low:g} to {high:g} {why}; {ask}")
