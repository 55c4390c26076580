"""Sizes of the simulated datasets."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from brainit.errors import InputError

VENTRAL = ("mixtures", "prototypes")


@dataclass(frozen=True)
class SimulationConfig:
    """All that decides a simulated dataset, apart from the pictures and features themselves.

    Parameters
    ----------
    preset : str
        Name of the preset this started from.
    seed : int
        Decides tuning, layout, noise, trial order and which pictures are drawn.
    n_subjects, n_voxels : int
    n_train : int
        Training pictures of a subject, shown once each; ``n_shared`` of them are seen by all subjects.
    n_shared : int
    n_test, n_repeats : int
        Test pictures, seen by all subjects, and how often each is shown.
    n_sessions, n_runs : int
        Sessions, and runs in each.
    side : int
        Pictures are ``side`` pixels square.
    resolution : int
        Voxel size in mm.
    ceiling, ceiling_spread : float
        Mean noise ceiling, one trial, of the voxels that respond at all; 0..1. Subjects differ: theirs lie
        evenly from ``ceiling - ceiling_spread`` to ``ceiling + ceiling_spread``. Of NSD's subjects a voxel of
        visual cortex explains about a tenth to three tenths of one trial's variance by the picture (from its
        ``ncsnr``: ``ncsnr^2 / (ncsnr^2 + 1)``, Allen et al. 2022, Nature Neuroscience 25, Methods).
    ventral : str
        ``"mixtures"``: ventral voxels each with a mixture of their own (`ventral`). ``"prototypes"``: they
        repeat 24 prototypes over 64 projections (`tuning`).
    own : float
        Of ``mixtures``: the share that is a voxel's alone, 0..1.
    noise_shared : float
        Share of the noise variance that neighbouring voxels have in common.
    """

    preset: str = "small"
    seed: int = 0
    n_subjects: int = 4
    n_voxels: int = 600
    n_train: int = 300
    n_shared: int = 150
    n_test: int = 30
    n_repeats: int = 3
    n_sessions: int = 3
    n_runs: int = 2
    side: int = 64
    resolution: int = 3
    ceiling: float = 0.3
    ceiling_spread: float = 0.0
    ventral: str = "mixtures"
    own: float = 0.7
    noise_shared: float = 0.2

    def __post_init__(self) -> None:
        bounds = {
            "n_subjects": (1, 99),
            "n_voxels": (20, 8000),
            "n_train": (4, 50000),
            "n_shared": (0, self.n_train),
            "n_test": (1, 5000),
            "n_repeats": (1, 20),
            "n_sessions": (1, 99),
            "n_runs": (1, 20),
            "side": (16, 256),
            "resolution": (2, 4),
            "ceiling": (0.02, 0.95),
            "ceiling_spread": (0.0, 0.5),
            "own": (0.0, 1.0),
            "noise_shared": (0.0, 0.9),
        }
        if self.ventral not in VENTRAL:
            raise InputError(f"simulation: ventral is {self.ventral!r}; allowed: {', '.join(VENTRAL)}")
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"simulation: {name} is {value!r}; allowed: {low} to {high}")
        for number in (0, self.n_subjects - 1):
            if not 0.02 <= self.ceiling_of(number) <= 0.95:
                raise InputError(
                    f"simulation: ceiling {self.ceiling} with ceiling_spread {self.ceiling_spread} gives a "
                    f"subject {self.ceiling_of(number):.2f}; allowed: 0.02 to 0.95"
                )

    def ceiling_of(self, number: int) -> float:
        """Mean noise ceiling of subject ``number`` (from 0)."""
        if self.n_subjects == 1:
            return self.ceiling
        return self.ceiling + self.ceiling_spread * (2 * number / (self.n_subjects - 1) - 1)

    @property
    def n_trials(self) -> int:
        """Trials of a subject."""
        return self.n_train + self.n_test * self.n_repeats

    @property
    def n_pictures(self) -> int:
        """Different pictures of all subjects together."""
        return self.n_shared + self.n_subjects * (self.n_train - self.n_shared) + self.n_test

    def plain(self) -> dict[str, Any]:
        """Return the settings as plain data."""
        return asdict(self)


PRESETS = {
    # What ships: few enough trials for a laptop.
    "small": SimulationConfig(
        n_voxels=1200, n_train=600, n_shared=600, n_test=60, ceiling=0.25, ceiling_spread=0.05
    ),
    # What the demo adapts the shared network to: newcomers with more voxels of the same shipped pictures.
    "demo": SimulationConfig(
        preset="demo",
        seed=20,
        n_voxels=2400,
        n_train=600,
        n_shared=600,
        n_test=60,
        ceiling=0.25,
        ceiling_spread=0.05,
    ),
    # All that the shipped pictures allow, with the range of ceilings of real subjects.
    "cohort-small": SimulationConfig(
        preset="cohort-small",
        n_voxels=2000,
        n_train=700,
        n_shared=700,
        n_test=80,
        ceiling=0.2,
        ceiling_spread=0.1,
    ),
    "cohort": SimulationConfig(
        preset="cohort",
        n_subjects=8,
        n_voxels=4000,
        n_train=4000,
        n_shared=1000,
        n_test=300,
        n_sessions=10,
        n_runs=4,
        resolution=2,
        ceiling=0.2,
        ceiling_spread=0.1,
    ),
}


def preset(name: str, **changes: Any) -> SimulationConfig:
    """Return preset ``name`` with some settings changed.

    Raises
    ------
    InputError
        The preset or a setting is not known, or a value is out of bounds.
    """
    if name not in PRESETS:
        raise InputError(f"unknown preset {name!r} of simulated subjects; allowed: {', '.join(PRESETS)}")
    unknown = sorted(set(changes) - set(asdict(PRESETS[name])))
    if unknown:
        raise InputError(
            f"simulation has no setting {unknown[0]!r}; allowed: {', '.join(asdict(PRESETS[name]))}"
        )
    return replace(PRESETS[name], **changes)
