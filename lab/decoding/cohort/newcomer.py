"""The newcomer of a study after so many minutes of scanning, read by every method."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from brainit.training.adapting import TRIALS_A_MINUTE, train_embeddings
from lab.decoding.cohort.scoreboard import BAYES, NEWCOMER, READ_OUT, RIVAL, SHIPPED, SINGLE
from lab.decoding.cohort.steps import FUNCTIONAL, Step
from lab.decoding.cohort.subjects import begin, know

if TYPE_CHECKING:
    from lab.decoding.cohort.table import Study

SHARED, EMBEDDED = "shared network", "shared network, embeddings trained"
EMBEDDING_EPOCHS = 20
_SHARE = 0.5
"""Of the effort of other trainings: few trials are learned soon."""


def group(study: Study, minutes: int) -> tuple[str, int]:
    """Return the group of a newcomer's rows, and its number of trials."""
    n = min(len(study.new.index), round(TRIALS_A_MINUTE * minutes))
    return f"{NEWCOMER}, {minutes} min, {n} trials", n


def steps(study: Study) -> list[Step]:
    """Return three steps for each number of minutes: without a network, with the shared one, with its own."""
    out = []
    for minutes in study.size.minutes:
        name, _ = group(study, minutes)
        for what, work, makes, needs, long in (
            ("", _read, (RIVAL, BAYES, READ_OUT, SHIPPED), "", 1.5),
            ("-shared", _shared, (SHARED, EMBEDDED), FUNCTIONAL, 2.0),
            ("-alone", _alone, (SINGLE,), "", 3.0),
        ):
            made = tuple((name, method, study.new.name) for method in makes)
            out.append(Step(f"newcomer-{minutes}{what}", made, partial(work, study, minutes), needs, long))
    return out


def _read(study: Study, minutes: int) -> None:
    name, n = group(study, minutes)
    member = study.new.first(n)
    (one,) = know(study.blank, [member], study.cohort.seen.tokens, study.seed)
    study.ridge(name, member)
    study.bayes(name, one, study.blank)
    study.network(name, READ_OUT, one, study.blank)
    study.shipped(name, [member])


def _shared(study: Study, minutes: int) -> None:
    name, n = group(study, minutes)
    member, tokens, shared = study.new.first(n), study.cohort.seen.tokens, study.shared
    (one,) = know(shared, [member], tokens, study.seed)
    study.network(name, SHARED, one, shared)
    voxels, _ = train_embeddings(
        shared, one.voxels, one.reading, member.trials, tokens[member.index], EMBEDDING_EPOCHS, 1e-3,
        study.seed, study.trainer.progress,
    )  # fmt: skip
    study.network(name, EMBEDDED, replace(one, voxels=voxels), shared)


def _alone(study: Study, minutes: int) -> None:
    name, n = group(study, minutes)
    member = study.new.first(n)
    network = begin([member], study.cohort, study.seed, alone=True, **study.ground.sizes)
    (one,) = know(network, [member], study.cohort.seen.tokens, study.seed)
    network = study.trainer.tokens(f"newcomer-alone-{minutes}", network, [one], share=_SHARE)
    study.network(name, SINGLE, one, network)
