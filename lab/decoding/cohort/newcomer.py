"""The newcomer of a study after so many minutes of scanning, read by every method."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from brainit.training.adapting import TRIALS_A_MINUTE, train_embeddings
from lab.decoding.cohort.methods import Methods
from lab.decoding.cohort.scoreboard import BAYES, NEWCOMER, READ_OUT, RIVAL, SHIPPED, SINGLE
from lab.decoding.cohort.steps import FUNCTIONAL, Step
from lab.decoding.cohort.subjects import begin, know

SHARED, EMBEDDED = "shared network", "shared network, embeddings trained"
EMBEDDING_EPOCHS = 20
_SHARE = 0.5
"""Of the effort of other trainings: few trials are learned soon."""


def group(study: Methods, minutes: int) -> tuple[str, int]:
    """Return the group of a newcomer's rows, and its number of trials."""
    n = min(len(study.new.index), round(TRIALS_A_MINUTE * minutes))
    return f"{NEWCOMER}, {minutes} min, {n} trials", n


def steps(study: Methods) -> list[Step]:
    """Return three steps for each number of minutes: without a network, with the shared one, with its own."""
    out = []
    for minutes in study.size.minutes:
        name, _ = group(study, minutes)
        for what, work, makes, needs, long in (
            ("", _read, (RIVAL, BAYES, READ_OUT, SHIPPED), "", 4.5),
            ("-shared", _shared, (SHARED, EMBEDDED), FUNCTIONAL, 6.0),
            ("-alone", _alone, (SINGLE,), "", 3.0),
        ):
            made = tuple((name, method, study.new.name) for method in makes)
            out.append(Step(f"newcomer-{minutes}{what}", made, partial(work, study, minutes), needs, long))
    return out


def _read(study: Methods, minutes: int) -> None:
    name, n = group(study, minutes)
    member = study.new.first(n)
    (one,) = know(study.blank, [member], study.cohort.seen.tokens, study.seed)
    study.add(name, RIVAL, [study.ridge(one)])
    study.add(name, BAYES, [study.bayes(one, study.blank)])
    study.add(name, READ_OUT, [study.network(one, study.blank)])
    study.shipped(name, [member])


def _shared(study: Methods, minutes: int) -> None:
    name, n = group(study, minutes)
    member, tokens, shared = study.new.first(n), study.cohort.seen.tokens, study.shared
    (one,) = know(shared, [member], tokens, study.seed)
    guidance = study.add(name, SHARED, [study.network(one, shared)])
    voxels, _ = train_embeddings(
        shared, one.voxels, one.reading, member.trials, tokens[member.index], EMBEDDING_EPOCHS, 1e-3,
        study.seed, study.trainer.progress,
    )  # fmt: skip
    # embeddings learned from these trials: nothing is left out of them to choose by
    study.add(name, EMBEDDED, [study.network(replace(one, voxels=voxels), shared)], guidance=guidance)


def _alone(study: Methods, minutes: int) -> None:
    name, n = group(study, minutes)
    member = study.new.first(n)
    network = begin([member], study.cohort, study.seed, alone=True, **study.ground.sizes)
    (one,) = know(network, [member], study.cohort.seen.tokens, study.seed)
    # guidance by its read-out: the network itself learns from these trials, from all as its rivals do
    left = study.network(one, network).left
    network = study.trainer.tokens(f"newcomer-alone-{minutes}", network, [one], share=_SHARE, held=0)
    study.add(name, SINGLE, [study.network(one, network)._replace(left=left)])
