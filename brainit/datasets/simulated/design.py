"""Who sees which picture when."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from brainit.datasets.simulated.config import SimulationConfig


@dataclass(frozen=True)
class Trials:
    """The trials of one subject in order: picture, session and run from 1, and whether it is a test trial."""

    picture: np.ndarray
    session: np.ndarray
    run: np.ndarray
    test: np.ndarray


def pictures_of(config: SimulationConfig, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the training and test pictures of subject ``number`` (from 0).

    All pictures are numbered: shared training pictures, then each subject's own, then the test pictures.
    """
    own = config.n_train - config.n_shared
    start = config.n_shared + number * own
    train = np.r_[np.arange(config.n_shared), np.arange(start, start + own)]
    return train, np.arange(config.n_pictures - config.n_test, config.n_pictures)


def trials_of(config: SimulationConfig, number: int, rng: np.random.Generator) -> Trials:
    """Shuffle trials into sessions and runs; repeats of a test picture fall into different sessions."""
    train, test = pictures_of(config, number)
    sessions = config.n_sessions
    piles: list[list[np.ndarray]] = [[] for _ in range(sessions)]
    for k, part in enumerate(np.array_split(rng.permutation(train), sessions)):
        piles[k].append(part)
    for k, picture in enumerate(rng.permutation(test)):
        # with more repeats than sessions a session gets a second one
        for repeat in range(config.n_repeats):
            piles[(k + repeat) % sessions].append(np.array([picture]))
    picture, session, run = [], [], []
    for k, pile in enumerate(piles):
        order = rng.permutation(np.concatenate(pile))
        picture.append(order)
        session.append(np.full(order.size, k + 1))
        run.append(np.arange(order.size) * config.n_runs // order.size + 1)
    pictures = np.concatenate(picture)
    return Trials(pictures, np.concatenate(session), np.concatenate(run), np.isin(pictures, test))
