"""Do two NIfTI files mean the same by their numbers: grid, places, units, timing and scaling of values."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from brainit.datasets.files.events import entity
from brainit.errors import InputError

_APART = 0.05  # mm; headers hold quaternions in float32, which moves far corners by a hundredth
_SPACES = {3: "Talairach", 4: "MNI"}
"""Of the codes of NIfTI; 1 and 2 name no space that others share."""
_SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
RESAMPLE = "a mask must lie on the grid of its data: resample it (nilearn.image.resample_to_img)"
ALIGN = "files that are stacked must lie on one grid: resample one (nilearn.image.resample_to_img)"


def same_grid(one: Any, one_path: Path, other: Any, other_path: Path, fix: str = RESAMPLE) -> None:
    """Refuse two images whose voxels are not at the same places.

    Parameters
    ----------
    one, other : nibabel image
    one_path, other_path : Path
        For messages.
    fix : str
        What the message says must hold, and what to do.

    Raises
    ------
    InputError
        Shapes, orientations, places or units of length differ.
    """
    from nibabel import aff2axcodes
    from nibabel.affines import apply_affine

    if one.shape[:3] != other.shape[:3]:
        raise InputError(f"{one_path} has grid {one.shape[:3]} and {other_path} {other.shape[:3]}; {fix}")
    axes = ["".join(c or "?" for c in aff2axcodes(image.affine)) for image in (one, other)]
    if axes[0] != axes[1]:
        raise InputError(
            f"{one_path} has orientation {axes[0]} and {other_path} {axes[1]}; {fix} or reorient it "
            "(nibabel.as_closest_canonical)"
        )
    corners = np.array(list(product(*((0, n - 1) for n in one.shape[:3]))), float)
    moved = np.linalg.norm(apply_affine(one.affine, corners) - apply_affine(other.affine, corners), axis=1)
    if not moved.max() <= _APART:  # NaN is not at most
        raise InputError(
            f"{one_path} and {other_path} have the same shape but affines that put voxels up to "
            f"{moved.max():.3g} mm apart; {fix}"
        )


def same_series(one: Any, one_path: Path, other: Any, other_path: Path) -> None:
    """Refuse two series that cannot be stacked: beside the grid, timing and scaling of values must agree.

    Raises
    ------
    InputError
        Grid, repetition time, its unit or start differ, or one file states how its whole numbers are scaled
        and the other does not.
    """
    same_grid(one, one_path, other, other_path, ALIGN)
    for image, path in ((one, one_path), (other, other_path)):
        if len(image.shape) > 4:
            raise too_many_dimensions(image, path)
    both = f"{one_path} and {other_path}"
    times = [_time(image) for image in (one, other)]
    if len(one.shape) == len(other.shape) == 4 and not np.allclose(times[0][0], times[1][0], rtol=1e-3):
        raise InputError(
            f"{both} have repetition times {times[0][0]:g} and {times[1][0]:g} {times[0][1]}; files that are "
            "stacked must have one: correct the headers"
        )
    if times[0][1:] != times[1][1:]:
        said = [f"unit {unit}, start {start:g}" for _, unit, start in times]
        raise InputError(f"{both} differ in time ({said[0]}; {said[1]}); correct the headers")
    scales = [_scaling(image) for image in (one, other)]
    whole = all(image.get_data_dtype().kind in "iu" for image in (one, other))
    if whole and (scales[0] == (1.0, 0.0)) != (scales[1] == (1.0, 0.0)):
        said = [f"scl_slope {slope:g}, scl_inter {inter:g}" for slope, inter in scales]
        raise InputError(
            f"{both} hold whole numbers, one scaled and the other not ({said[0]}; {said[1]}): their values "
            "are in different units; save them in one"
        )


def repetition_time(image: Any, path: Path, stated: float | None = None) -> float:
    """Return the seconds between volumes, as the header or the caller states them.

    Raises
    ------
    InputError
        The header states no unit and nobody else does either, or the time is outside 0.1..20 s.
    """
    value, unit, start = _time(image)
    if stated is not None:
        seconds, where = float(stated), "options.repetition_time"
    elif unit in _SECONDS:
        seconds, where = value * _SECONDS[unit], f"{path}: header"
    else:
        raise InputError(
            f"{path}: its header gives repetition time {value:g} without a unit of time; say it in seconds: "
            f"repetition_time=SECONDS (--set options.repetition_time=2.5)"
        )
    if not 0.1 <= seconds <= 20:
        raise InputError(f"{where}: repetition time {seconds:g} s; allowed: 0.1 to 20 s; correct it")
    if start:
        raise InputError(
            f"{path}: its header starts time at {start:g}, onsets at the first volume; correct the header"
        )
    return seconds


def overruled_time(image: Any, path: Path, stated: float | None) -> list[str]:
    """Return a warning where a stated repetition time is not the one that the header states."""
    value, unit, _ = _time(image)
    if stated is None or unit not in _SECONDS or abs(value * _SECONDS[unit] - stated) <= 1e-3 * stated:
        return []
    return [
        f"{path}: its header states a repetition time of {value * _SECONDS[unit]:g} s; the {stated:g} s of "
        "options.repetition_time were used"
    ]


def odd_header(image: Any, path: Path) -> list[str]:
    """Refuse or list what makes an image's places uncertain.

    Returns
    -------
    list of str
        Warnings: no orientation stated, two that differ, or voxel sizes that contradict it.

    Raises
    ------
    InputError
        The unit of length is not mm, or the affine is singular or not finite.
    """
    from nibabel.affines import voxel_sizes

    affine = image.affine
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(f"{path}: its affine is singular or not finite, so voxels have no place; correct it")
    unit = _units(image)[0]
    if unit not in ("mm", "unknown"):
        raise InputError(f"{path}: its header gives places in {unit}; allowed: mm; correct the header")
    header, warnings = image.header, []
    sform, qform = (image.get_sform(coded=True), image.get_qform(coded=True))
    if not sform[1] and not qform[1]:
        warnings.append(
            f"{path}: its header states no orientation (sform and qform code 0); places are uncertain"
        )
    elif sform[1] and qform[1] and np.abs(sform[0] - qform[0]).max() > 2 * _APART:
        apart = np.abs(sform[0] - qform[0]).max()
        warnings.append(f"{path}: its two orientations differ by up to {apart:.3g}; the sform was used")
    sizes = np.asarray(header.get_zooms()[:3], float)
    if len(sizes) == 3 and not np.allclose(sizes, voxel_sizes(affine), rtol=0.01):
        stated, used = (" x ".join(f"{v:.3g}" for v in s) for s in (sizes, voxel_sizes(affine)))
        warnings.append(
            f"{path}: its header gives voxels of {stated} mm and its affine {used} mm; the affine was used"
        )
    return warnings


def space_code(image: Any) -> int:
    """Return the NIfTI code of the space that an image's affine leads to: 0 where its header names none."""
    if "sform_code" not in image.header:
        return 0
    return int(image.header["sform_code"]) or int(image.header["qform_code"])


def stated_space(image: Any, path: Path) -> str | None:
    """Return the space of an image: as its file's name says, else as its header does; None: neither."""
    named = entity(path.name, "space")
    return named or _SPACES.get(space_code(image))


def too_many_dimensions(image: Any, path: Path) -> InputError:
    """Say that an image has more dimensions than space and time."""
    return InputError(
        f"{path} has {len(image.shape)} dimensions, {image.shape}; allowed: 3 of space and 1 of volumes; "
        "drop or split the others (nibabel.squeeze_image)"
    )


def _units(image: Any) -> tuple[str, str]:
    try:
        space, time = image.header.get_xyzt_units()
    except (KeyError, AttributeError):  # a code that the format does not know, or a format without units
        return "unknown", "unknown"
    return space, time


def _time(image: Any) -> tuple[float, str, float]:
    zooms = image.header.get_zooms()
    start = float(image.header["toffset"]) if "toffset" in image.header else 0.0
    return float(zooms[3]) if len(zooms) > 3 else 0.0, _units(image)[1], start


def _scaling(image: Any) -> tuple[float, float]:
    slope, inter = image.dataobj.slope, image.dataobj.inter
    return float(slope), float(inter)
