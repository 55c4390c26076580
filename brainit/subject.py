"""A subject is betas with places: the one structure every dataset adapter yields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from brainit.errors import InputError


@dataclass(frozen=True)
class Subject:
    """Responses of one person, with where they were measured and what was shown.

    Parameters
    ----------
    dataset, name : str
        Name of the dataset and of the subject within it.
    simulated : bool
        True where the voxels are not a real brain's.
    betas : float32 array of shape (n_trials, n_voxels)
        One response amplitude a trial and voxel.
    xyz : float32 array of shape (n_voxels, 3)
        Voxel centres in mm. All NaN where the file does not say (``has_places`` is then False).
    stimulus_id : str array of shape (n_trials,)
        Key into ``stimuli``.
    session, run, repeat : int arrays of shape (n_trials,)
        ``repeat`` counts from 0 the times this stimulus was shown before.
    split : str array of shape (n_trials,)
        "train" or "test".
    stimuli : mapping of str to float32 array of shape (H, W) or (H, W, 3), or None
        Pictures in 0..1 at the stimulus' own size; None where only categories are known.
    labels : str array of shape (n_trials,), optional
        Category of each trial.
    roi : mapping of str to bool array of shape (n_voxels,)
        Named regions of interest.
    noise_ceiling : float32 array of shape (n_voxels,), optional
        Share of a voxel's variance that the stimulus can explain, 0..1.
    mask : nibabel image, optional
        Maps voxel values back into the brain (``to_image``).
    info : mapping
        Source, terms, file hashes and whatever a report should print.
    """

    dataset: str
    name: str
    simulated: bool
    betas: np.ndarray
    xyz: np.ndarray
    stimulus_id: np.ndarray
    session: np.ndarray
    run: np.ndarray
    repeat: np.ndarray
    split: np.ndarray
    stimuli: Mapping[str, np.ndarray] | None = None
    labels: np.ndarray | None = None
    roi: Mapping[str, np.ndarray] = field(default_factory=dict)
    noise_ceiling: np.ndarray | None = None
    mask: Any = None
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        who, shape = f"subject {self.name!r}", np.shape(self.betas)
        if len(shape) != 2:
            raise InputError(
                f"subject {self.name!r}: betas have shape {shape}; allowed: (n_trials, n_voxels)"
            )
        places = np.shape(self.xyz)
        if places != (shape[1], 3):
            raise InputError(
                f"subject {self.name!r}: xyz has shape {places}; allowed: {(shape[1], 3)}, in mm"
            )
        each = {name: getattr(self, name) for name in _PER_TRIAL[1:]}
        sizes = {name: (len(own), shape[0], "trials") for name, own in each.items() if own is not None}
        sizes |= {f"roi {name}": (len(own), shape[1], "voxels") for name, own in self.roi.items()}
        if self.noise_ceiling is not None:
            sizes["noise_ceiling"] = (len(self.noise_ceiling), shape[1], "voxels")
        for name, (count, wanted, what) in sizes.items():
            if count != wanted:
                raise InputError(f"{who}: {name} has {count} values for {wanted} {what}; they must be equal")
        strange = sorted({str(s) for s in np.unique(self.split)} - {"train", "test"})
        if strange:
            raise InputError(f"{who}: split is {strange[0]!r}; allowed: train, test")
        if self.stimuli:
            _check_picture(np.asarray(next(iter(self.stimuli.values()))), who)

    @property
    def n_trials(self) -> int:
        return self.betas.shape[0]

    @property
    def n_voxels(self) -> int:
        return self.betas.shape[1]

    @property
    def has_places(self) -> bool:
        """Whether the voxels' positions are known."""
        return bool(np.isfinite(self.xyz).all())

    def __repr__(self) -> str:
        who = f"{self.dataset}, {self.name}{' (simulated)' if self.simulated else ''}"
        return f"Subject({who}: {self.n_trials} trials, {self.n_voxels} voxels)"

    def _repr_html_(self) -> str:
        from html import escape

        counts = {split: int((self.split == split).sum()) for split in ("train", "test")}
        facts = {
            "dataset": self.dataset, "subject": self.name + (" (simulated)" if self.simulated else ""),
            "voxels": self.n_voxels, "trials": f"{counts['train']} training, {counts['test']} test",
            "pictures": len(self.stimuli or ()), "regions": ", ".join(self.roi) or "none",
            "places": "known" if self.has_places else "unknown",
        }  # fmt: skip
        rows = "".join(f"<tr><th>{k}</th><td>{escape(str(v))}</td></tr>" for k, v in facts.items())
        return f"<table>{rows}</table>"

    def select(self, trials: np.ndarray) -> Subject:
        """Return the subject with only these trials (bool mask or indices)."""
        cut = {k: getattr(self, k)[trials] for k in _PER_TRIAL if getattr(self, k) is not None}
        return replace(self, **cut)

    def part(self, split: str) -> Subject:
        """Return the trials of one split, ``"train"`` or ``"test"``."""
        return self.select(self.split == split)

    def keep_voxels(self, voxels: np.ndarray) -> Subject:
        """Return the subject with only these voxels (bool mask or indices).

        The mask image shrinks with them; it is dropped where the voxels' order changes, because a mask cannot
        say an order.
        """
        ceiling = None if self.noise_ceiling is None else self.noise_ceiling[voxels]
        roi = {k: v[voxels] for k, v in self.roi.items()}
        kept = np.arange(self.n_voxels)[voxels]
        mask = None
        if self.mask is not None and (np.diff(kept) > 0).all():
            chosen = np.zeros(self.n_voxels, np.uint8)
            chosen[kept] = 1
            mask = self.to_image(chosen)
        return replace(
            self, betas=self.betas[:, voxels], xyz=self.xyz[voxels], noise_ceiling=ceiling, roi=roi, mask=mask
        )

    def to_image(self, values: np.ndarray) -> Any:
        """Put one value a voxel, (n_voxels,), or several, (n, n_voxels), back into the brain.

        Returns
        -------
        nibabel.Nifti1Image
            On the grid of ``mask``, 0 outside it; 4D where several values were given.
        """
        if self.mask is None:
            raise InputError(
                f"dataset {self.dataset!r}, subject {self.name!r}: no mask image, so values have no "
                "place in the brain and no NIfTI map can be written"
            )
        import nibabel

        values = np.asarray(values)
        inside = np.asarray(self.mask.dataobj) != 0
        grid = np.zeros((*inside.shape, *values.shape[:-1]), values.dtype)
        grid[inside] = np.moveaxis(values, -1, 0)
        image = nibabel.Nifti1Image(grid, self.mask.affine)
        if "sform_code" in self.mask.header:  # the space that the mask's header names
            image.set_sform(self.mask.affine, int(self.mask.header["sform_code"]))
        return image

    def mean_over_repeats(self) -> Subject:
        """Average the betas of all trials of the same stimulus and split (order of first appearance)."""
        keys = np.char.add(np.char.add(self.split.astype(str), "/"), self.stimulus_id.astype(str))
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        order = np.argsort(first)
        rank = np.empty_like(order)
        rank[order] = np.arange(order.size)
        group = rank[inverse]
        total = np.zeros((order.size, self.n_voxels), np.float64)
        np.add.at(total, group, self.betas)
        betas = (total / np.bincount(group)[:, None]).astype(np.float32)
        return replace(self.select(np.sort(first)), betas=betas)

    def images(self) -> np.ndarray:
        """Stack the picture of every trial: float32 (n_trials, H, W) or (n_trials, H, W, 3) in 0..1."""
        if self.stimuli is None:
            raise InputError(
                f"dataset {self.dataset!r} does not say which picture was shown when: categories only"
            )
        return np.stack([self.stimuli[s] for s in self.stimulus_id])


def _check_picture(picture: np.ndarray, who: str) -> None:
    """Refuse pictures of another range: everything after would take them for white."""
    if picture.dtype.kind != "f" or not picture.size or picture.min() < -_SLACK or picture.max() > 1 + _SLACK:
        says = f" from {picture.min():g} to {picture.max():g}" if picture.size else ""
        raise InputError(
            f"{who}: a picture of type {picture.dtype}{says}; allowed: float in 0..1 (divide 8 bits by 255)"
        )


_SLACK = 1e-3
_PER_TRIAL = ("betas", "stimulus_id", "session", "run", "repeat", "split", "labels")
