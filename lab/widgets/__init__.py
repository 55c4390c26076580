"""Widgets for notebooks: thin forms over the same jobs as the app and the command line.

::

    from lab import widgets
    widgets.inspect("dit-64")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from lab.widgets.jobs import Compare, Reconstruct
    from lab.widgets.playground import Inspect, Playground
    from lab.widgets.views import BrainSlices

__all__ = ["brain_map", "compare", "inspect", "quantizer_playground", "reconstruct"]


def inspect(model: str = "dit-64", layer: str = "", *, recording: Path | str | None = None) -> Inspect:
    """Look at a denoiser: its layers, channels by timestep, and what a grid would do.

    Parameters
    ----------
    model : str
        Of ``brainlab zoo list``, or a local folder with a recording.
    layer : str
        Shown first; empty: the one with the largest magnitude.
    recording : path, optional
        Of a model of one's own: the folder that ``brainlab record`` wrote.
    """
    from lab.widgets.playground import Inspect

    return Inspect(model, layer, recording)


def quantizer_playground(stats: Any) -> Playground:
    """Drag bits, format and clip over what was seen of one tensor.

    Parameters
    ----------
    stats : quant.observation.TensorStats
        Such as ``quant.observe(...).inputs[layer]``.
    """
    from lab.widgets.playground import Playground

    return Playground(stats)


def compare(
    model: str = "dit-64", recipes: tuple[str, ...] = ("rtn-w4a4", "svdquant-w4a4"), **given: Any
) -> Compare:
    """Draw the same pictures in full precision and with recipes (simulated).

    Parameters
    ----------
    **given
        Further settings of ``brainlab variants``; with a recording, steps and guidance are its own.
    """
    from lab.widgets.jobs import Compare

    return Compare({"model": model, "recipes": recipes, **given})


def reconstruct(folder: Path | str, **given: Any) -> Reconstruct:
    """Decode test trials of a trained run again with other settings.

    Parameters
    ----------
    folder : Path
        A run of ``brainlab brain reconstruct`` or ``brainlab demo``.
    **given
        Further settings of ``brainlab brain decode``.
    """
    from lab.widgets.jobs import Reconstruct

    return Reconstruct({"folder": folder, **given})


def brain_map(subject: Any, values: Any = None, what: str = "") -> BrainSlices:
    """Show a value of each voxel on axial slices, with a threshold; the left side is the person's left.

    Parameters
    ----------
    subject : brainit.subject.Subject
        With a mask.
    values : array of shape (n_voxels,), optional
        Not negative; by default the noise ceiling, or the spread over trials where it is not known.
    what : str
        What the values are.

    Raises
    ------
    InputError
        The subject has no mask, so that voxels have no place.
    """
    import nibabel
    import numpy as np

    from lab.widgets.views import BrainSlices

    if values is None:
        ceiling = subject.noise_ceiling is not None
        values = subject.noise_ceiling if ceiling else subject.betas.std(0)
        what = "noise ceiling" if ceiling else "spread over trials"
    view = BrainSlices()
    who = f"{subject.name}{' (simulated subject)' if subject.simulated else ''}"
    # a file's grid may run from right to left, or not up: its affine says
    upright = nibabel.as_closest_canonical(subject.to_image(np.asarray(values, np.float32)))
    view.show(np.asarray(upright.dataobj), f"{who}: {what or 'value'}; left is left, the front above")
    return view
