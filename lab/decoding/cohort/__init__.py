"""A cohort of simulated subjects for the study of the shared network: sizes of the presets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """How large a study is.

    Parameters
    ----------
    n_subjects, n_voxels, n_trials, n_test : int
        The last subject is the newcomer. Training pictures are shown once, test pictures three times.
    n_pool, n_external : int
        Pictures that subjects may be scanned with; pictures that nobody saw, natural ones twice (mirrored).
    steps, painted_steps, batch : int
        Of stage 1 and stage 2, most.
    seconds : float
        Budget of every training; 0 for none.
    sampling : int
        Steps of the sampler.
    shown : int
        How many subjects are scored, from the lowest noise ceiling to the highest.
    minutes : tuple of int
        Of scanning, at which the newcomer is read.
    held : int
        Pictures that all subjects saw and no network learns from: guidance is chosen on them.
    crops : int
        Enlarged parts of training pictures, as further external ones.
    sizes : tuple of (str, int)
        Of the network, where they are not its defaults.
    ceilings : (float, float)
        One-trial noise ceiling of the first and the last subject.
    """

    n_subjects: int
    n_voxels: int
    n_trials: int
    n_test: int
    n_pool: int
    n_external: int
    steps: int
    painted_steps: int
    batch: int
    seconds: float
    sampling: int
    shown: int
    minutes: tuple[int, ...]
    held: int
    crops: int = 0
    sizes: tuple[tuple[str, int], ...] = ()
    ceilings: tuple[float, float] = (0.1, 0.3)


SIZES = {
    "cohort-small": Size(
        4,
        1000,
        500,
        32,
        640,
        0,
        80,
        12,
        64,
        0,
        6,
        2,
        (15, 40),
        32,
        0,
        (("n_components", 128), ("width", 64)),
    ),
    "cohort": Size(8, 4000, 4000, 300, 6000, 3000, 2500, 500, 512, 0, 20, 4, (15, 30, 60, 320), 200, 18_000),
}
