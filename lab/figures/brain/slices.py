"""Where voxels and their clusters lie; or, where places are unknown, what the responses look like."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator

from lab.errors import InputError
from lab.figures.plate import BLUE, ORANGE, Plate, Provenance, Theme, axes, canvas, ink, shade

_PLANES = ((0, "sagittal", "x", (1, 2)), (1, "coronal", "y", (0, 2)), (2, "axial", "z", (0, 1)))
_AXES = ("left – right", "back – front", "low – high")
_SLAB = 5.0  # mm on either side of a cut
_ALONE = 3.0  # mm, the side of a voxel without neighbours


def brain_slices(
    xyz: np.ndarray,
    values: np.ndarray,
    what: str,
    provenance: Provenance,
    space: str = "MNI",
    categorical: bool = False,
    theme: Theme = "light",
) -> Plate:
    """Draw voxels on one sagittal, coronal and axial cut, each where most voxels are.

    Parameters
    ----------
    xyz : array of shape (n_voxels, 3)
        Voxel centres in mm.
    values : array of shape (n_voxels,)
        What the colour shows: an amount, or a cluster's number.
    what : str
        Name of `values`, for the colour bar.
    space : str
        Voxels in a space whose name starts with "MNI" are drawn on nilearn's bundled MNI152 template; any
        other subject's without one, since a template in the wrong space would mislead. Empty: not known.
    categorical : bool
        `values` are cluster numbers; they are renumbered from back to front of the brain, so that the
        colour has a direction.
    """
    xyz, values = np.asarray(xyz, float), np.asarray(values, float)
    if xyz.ndim != 2 or xyz.shape[1] != 3 or values.shape != (len(xyz),) or not np.isfinite(xyz).all():
        raise InputError(f"xyz {xyz.shape} and values {values.shape}; need finite (n, 3) and (n,)")
    template = _template() if space.upper().startswith("MNI") else None
    shades = _by_depth(values, xyz) if categorical else values
    low, high = float(np.nanmin(shades)), float(np.nanmax(shades))
    text, quiet, _, _ = ink(theme)
    planes, side = _planes(xyz), _spacing(xyz)
    figure = canvas(10.4 if len(planes) > 1 else 5.2, 3.3, theme)
    said, drawn = [], np.zeros(len(xyz), bool)
    for k, (axis, name, letter, (across, up)) in enumerate(planes):
        ax = figure.add_subplot(1, len(planes), k + 1)
        cut = _busiest(xyz[:, axis])
        if template is not None:
            _anatomy(ax, template, axis, cut, theme)
        near = np.abs(xyz[:, axis] - cut) <= _SLAB
        drawn |= near
        marks = PolyCollection(
            list(_squares(xyz[near][:, [across, up]], side)),
            array=shades[near],
            cmap="viridis" if categorical else "cividis",
            norm=Normalize(low, high if high > low else low + 1),
            edgecolors="face",  # no seams between neighbours
            linewidths=0.2,
            rasterized=True,
        )
        ax.add_collection(marks)
        ax.autoscale_view()
        ax.set_title(f"{name}, {letter} = {cut:.0f} mm", fontsize=9, color=text)
        ax.set_aspect("equal")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        ax.set_facecolor("none")
        ax.set_xlabel(_AXES[across], fontsize=8, color=quiet)
        said.append(f"{int(near.sum())} on the {name} cut")
    bar = figure.colorbar(marks, ax=figure.axes, pad=0.01, shrink=0.85)
    bar.set_label(f"{what}, back to front" if categorical else what, color=text, fontsize=9)
    bar.ax.tick_params(colors=quiet, labelcolor=text, labelsize=8)
    bar.outline.set_visible(False)
    if categorical:
        bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ground = "the MNI152 template" if template is not None else f"no template ({_words(space)})"
    caption = (
        f"{what.capitalize()} of the {drawn.sum()} voxels within {_SLAB:g} mm of three cuts (of {len(xyz)} "
        f"in all), on {ground}; each cut goes where most voxels are. {provenance.sentence()}"
        if len(planes) > 1
        else f"{what.capitalize()} of {len(xyz)} voxels, all in one slice, on {ground}. "
        f"{provenance.sentence()}"
    )
    slices = "Three brain slices" if len(planes) > 1 else "One brain slice"
    return Plate(figure, caption, f"{slices} with {len(xyz)} voxels: {', '.join(said)}.")


def response_profile(
    cluster: np.ndarray | None,
    noise_ceiling: np.ndarray | None,
    provenance: Provenance,
    theme: Theme = "light",
) -> Plate:
    """Draw cluster sizes and the spread of noise ceilings, for subjects whose voxels have no known place."""
    if cluster is None and noise_ceiling is None:
        raise InputError("neither clusters nor noise ceilings are known; nothing to draw")
    parts = [p for p in (cluster, noise_ceiling) if p is not None]
    figure = canvas(4.3 * len(parts), 2.5, theme)
    said = []
    if cluster is not None:
        sizes = np.sort(np.unique(np.asarray(cluster), return_counts=True)[1])[::-1]
        ax = axes(figure, 1, len(parts), 1, theme=theme, grid="y")
        ax.bar(np.arange(1, len(sizes) + 1), sizes, width=0.9, color=shade(BLUE, theme))
        ax.set(xlabel="cluster, largest first", ylabel="voxels")
        said.append(f"{len(sizes)} clusters of {sizes.min()} to {sizes.max()} voxels")
    if noise_ceiling is not None:
        ceiling = np.asarray(noise_ceiling, float)
        ceiling = ceiling[np.isfinite(ceiling)]
        ax = axes(figure, 1, len(parts), len(parts), theme=theme, grid="y")
        ax.hist(ceiling, bins=30, range=(0, 1), color=ORANGE)
        ax.set(xlabel="noise ceiling (share of variance)", ylabel="voxels", xlim=(0, 1))
        said.append(f"median noise ceiling {np.median(ceiling):.2f}")
    said_all = "; ".join(said)
    caption = (
        f"The voxels' places are not in the file, so no brain is drawn: {said_all}. {provenance.sentence()}"
    )
    return Plate(figure, caption, f"Bar charts: {said_all}.")


def _words(space: str) -> str:
    return f"coordinates are {space}" if space else "the files do not say which space they are in"


def _spacing(xyz: np.ndarray) -> float:
    """Return the mm from a voxel to its nearest neighbour, the median: a square of this side is one voxel."""
    from scipy.spatial import cKDTree

    places = np.unique(xyz, axis=0)
    if len(places) < 2:
        return _ALONE
    return float(np.median(cKDTree(places).query(places, k=2)[0][:, 1]))


def _squares(centres: np.ndarray, side: float) -> np.ndarray:
    """Return corners (n, 4, 2) of squares around centres (n, 2)."""
    half = side / 2
    return centres[:, None] + half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])


def _planes(xyz: np.ndarray) -> tuple[tuple[int, str, str, tuple[int, int]], ...]:
    """Return the planes to draw: of a single measured slice only that one, since the others are lines."""
    flat = np.ptp(xyz, axis=0) <= _SLAB
    return tuple(plane for plane in _PLANES if flat[plane[0]]) if flat.sum() == 1 else _PLANES


def _busiest(coordinate: np.ndarray) -> float:
    """Return the middle of the 2 mm step around which most voxels lie within the slab."""
    steps = np.arange(np.floor(coordinate.min()), np.ceil(coordinate.max()) + 1, 2.0)
    inside = [int((np.abs(coordinate - s) <= _SLAB).sum()) for s in steps]
    return float(steps[int(np.argmax(inside))])


def _by_depth(cluster: np.ndarray, xyz: np.ndarray) -> np.ndarray:
    names, inverse = np.unique(cluster, return_inverse=True)
    depth = np.array([xyz[inverse == k, 1].mean() for k in range(len(names))])
    rank = np.empty(len(names))
    rank[np.argsort(depth, kind="stable")] = np.arange(1, len(names) + 1)
    return rank[inverse]


@lru_cache(maxsize=1)
def _template() -> tuple[np.ndarray, np.ndarray]:
    from nilearn.datasets import load_mni152_template  # slow to import, and only needed here

    image = load_mni152_template(resolution=2)
    return np.asarray(image.dataobj, np.float32), image.affine


def _anatomy(ax: Axes, template: tuple[np.ndarray, np.ndarray], axis: int, cut: float, theme: Theme) -> None:
    data, affine = template
    scale, origin = np.diag(affine)[:3], affine[:3, 3]
    index = int(np.clip(round((cut - origin[axis]) / scale[axis]), 0, data.shape[axis] - 1))
    plane = np.take(data, index, axis)
    across, up = [a for a in range(3) if a != axis]
    edges = [(origin[a] - scale[a] / 2, origin[a] + scale[a] * (data.shape[a] - 0.5)) for a in (across, up)]
    shown = np.ma.masked_less(plane.T, 0.05)  # outside the head nothing is drawn: the page shows through
    ax.imshow(
        shown,
        cmap="gray",
        vmin=0,
        vmax=1.35 if theme == "dark" else 1.0,
        alpha=0.75,
        origin="lower",
        extent=(*edges[0], *edges[1]),
        interpolation="bilinear",
    )
