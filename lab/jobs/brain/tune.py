"""How strong should diffusion be? Answered on left-out training trials, never on test trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import field_validator

from lab.decoding.settings import ReconstructConfig
from lab.errors import InputError
from lab.jobs import contract
from lab.jobs.brain.scores import warned
from lab.jobs.contract import Context, Numbers, Shares, Table, setting
from lab.models.devices import choose_device
from lab.progress import Progress, silent

if TYPE_CHECKING:
    from brainit.subject import Subject
    from lab.decoding.data import BrainData

_FEWEST = 4
"""Pictures among which one can be found by its features."""
_BOUNDS = ("", "_low", "_high")


@dataclass(frozen=True)
class LeftOut:
    """Left-out training pictures and what decoders that had not seen them make of them.

    Parameters
    ----------
    truth, seen : float32 arrays of shape (n, H, W[, 3])
        Pictures shown, and their structural pictures.
    conditions : dict of str to float32 array of shape (n, 17, 192)
        Tokens by source: ``brainit``, ``picture``.
    ridge : float32 array like ``truth``, optional
        Ridge from voxels to pixels, for comparison.
    """

    truth: np.ndarray
    seen: np.ndarray
    conditions: dict[str, np.ndarray]
    ridge: np.ndarray | None = None

    def every(self, step: int) -> LeftOut:
        """Return each ``step``-th picture."""
        tokens = {name: own[::step] for name, own in self.conditions.items()}
        ridge = None if self.ridge is None else self.ridge[::step]
        return LeftOut(self.truth[::step], self.seen[::step], tokens, ridge)


class Settings(ReconstructConfig, contract.Settings):
    """Score diffusion strengths on left-out training trials.

    Test trials are not looked at.
    """

    strengths: Shares = setting((0.1, 0.2, 0.3, 0.45), "strengths to try, 0 to 1", min_length=1)
    averaged: Numbers = setting((1, 4), "numbers of averaged samples to try, from 1", min_length=1)
    every: int = setting(2, "take every so many left-out trials", ge=1)
    checkpoints: Path | None = setting(
        None,
        "training of another run (RUN/checkpoints/brainit), not done again; a new folder keeps this one's "
        "(structure posterior keeps none); without it a stop loses the training",
    )

    @field_validator("averaged")
    @classmethod
    def _at_least_one(cls, numbers: tuple[int, ...]) -> tuple[int, ...]:
        if min(numbers, default=1) < 1:
            raise ValueError(f"{min(numbers)} samples; allowed: 1 or more")
        return numbers

    def config(self) -> ReconstructConfig:
        """Return the settings of the run that is tuned."""
        return ReconstructConfig(**{name: getattr(self, name) for name in ReconstructConfig.model_fields})


class Result(contract.Result):
    """Ridge where it is known and the structural picture itself, then a row for each setting with its scores.

    What is scored comes from decoders that had not seen the trial.
    """

    rows: list[dict[str, Any]]
    tuned: dict[str, Any]
    judged: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    def plain(self) -> Any:
        """Return the rows."""
        return self.rows

    def tables(self) -> list[Table]:
        """Return the rows; what a score lacks to the best row's stands beside it, with its interval."""
        judged = " and ".join(self.judged)
        said = contract.line(
            f"-best: less the best row's ({judged} together), picture by picture, with its 95 % bootstrap "
            "interval; one that holds 0 does not tell two rows apart"
        )
        return [Table([self._shown(row) for row in self.rows]), said, *warned(self.warnings)]

    def _shown(self, row: Mapping[str, Any]) -> dict[str, Any]:
        rest = {key: value for key, value in row.items() if key != "best" and "_minus_best" not in key}
        first = {key: rest.pop(key) for key in ("tokens", "strength", "n_samples", *self.judged)}
        for key in self.judged:
            mean, low, high = (row[f"{key}_minus_best{bound}"] for bound in _BOUNDS)
            first[f"{key}-best"] = "best" if row["best"] else f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
        return first | rest

    def next_step(self) -> str:
        """Return the run that was tuned, at its best by feature two-way and PixCorr together."""
        from lab.report.parts import as_command

        tried = [row for row in self.rows if row["n_samples"]]
        if not tried:
            return ""
        best = max(tried, key=lambda row: sum(row[key] for key in self.judged))
        chosen = {key: best[key] for key in ("tokens", "strength", "n_samples")}
        return as_command(self.tuned | chosen, out="runs/tuned")


def names(settings: Settings) -> None:
    """Refuse unknown datasets, options, denoisers and recipes; needs no torch."""
    from lab.jobs.checks import check_names

    check_names(settings.config())


def run(settings: Settings, context: Context) -> Result:
    """Score strengths and numbers of averaged samples on held-out training trials, full precision.

    Raises
    ------
    InputError
        Unknown names, or a ``structure`` that gives no pictures of left-out training trials.
    """
    config, progress, checkpoints = settings.config(), context.progress, settings.checkpoints
    strengths, n_samples, every = settings.strengths, settings.averaged, settings.every
    device, shared = _check(settings), config.network == "shared"
    from brainit.metrics import score
    from lab import zoo
    from lab.decoding.data import open_subjects
    from lab.decoding.drawing import draw
    from lab.decoding.scores import networks_for
    from lab.images import to_model

    make = _of_posterior if config.structure == "posterior" else _of_shared if shared else _of_brainit
    data = open_subjects(config, progress)
    _enough(data.subject.part("train"), every)
    held = make(config, data, checkpoints, progress).every(every)
    networks = networks_for(held.truth)
    known = {name: network(held.truth) for name, network in networks.items()}

    each: list[Mapping[str, np.ndarray]] = []  # a row's scores, picture by picture

    def means(pictures: np.ndarray) -> dict[str, float]:
        features = {name: (network(pictures), known[name]) for name, network in networks.items()}
        found = score(pictures, held.truth, features)
        each.append(found.values)
        return {k: round(v, 4) for k, v in found.means().items()}

    plain = {"structure": held.seen} if held.ridge is None else {"ridge": held.ridge, "structure": held.seen}
    rows: list[dict[str, Any]] = [
        {"tokens": name, "strength": 0.0, "n_samples": 0, **means(own)} for name, own in plain.items()
    ]
    denoiser, start = zoo.load(config.denoiser, device), to_model(held.seen).numpy()
    for name, strength in product(held.conditions, strengths):
        one = config.model_copy(update={"strength": strength, "n_samples": 1})
        drawn = [
            draw(one, denoiser, held.conditions[name], start, number, held.truth.shape[1:], device, progress)
            for number in range(max(n_samples))
        ]
        for k in n_samples:
            rows.append(
                {"tokens": name, "strength": strength, "n_samples": k, **means(np.mean(drawn[:k], 0))}
            )
    judged = ("pixcorr", "two_way_feature" if "two_way_feature" in rows[0] else "two_way_pix")
    _beside_best(rows, each, judged, config)
    odd = tuple(data.about["warnings"])
    return Result(rows=rows, tuned=config.model_dump(mode="json"), judged=judged, warnings=odd)


def check(settings: Settings) -> None:
    """Refuse what `run` would refuse before it trains; simulated subjects may have to be made first."""
    from lab.decoding.data import open_subjects

    _check(settings)
    if settings.dataset != "simulated":
        data = open_subjects(settings.config(), silent)
        _enough(data.subject.part("train"), settings.every)


def _check(settings: Settings) -> str:
    """Refuse settings that no data would suit; return the device."""
    from lab.jobs.checks import check_names
    from lab.models.preflight import check_checkpoints

    config = settings.config()
    check_names(config)
    check_checkpoints(settings.checkpoints)
    if config.network != "shared" and config.structure not in ("posterior", "brainit", "blend"):
        raise InputError(
            f"tuning needs structural pictures of left-out training trials, which "
            f"structure={config.structure!r} does not give; allowed: posterior, brainit, blend"
        )
    return choose_device(config.device)


def _beside_best(
    rows: list[dict[str, Any]],
    each: Sequence[Mapping[str, np.ndarray]],
    judged: Sequence[str],
    config: ReconstructConfig,
) -> None:
    """Add to each row what its scores are above the best row's, with paired intervals over pictures."""
    from brainit.metrics import paired_interval

    best = max(
        (i for i, row in enumerate(rows) if row["n_samples"]),
        key=lambda i: sum(rows[i][key] for key in judged),
    )
    for i, (row, own) in enumerate(zip(rows, each, strict=True)):
        row["best"] = i == best
        for key in judged:
            gap = paired_interval(own[key], each[best][key], n_draws=config.bootstrap, seed=config.seed)
            row |= {f"{key}_minus_best{b}": round(v, 4) for b, v in zip(_BOUNDS, gap, strict=True)}


def _enough(train: Subject, every: int) -> None:
    """Refuse a choice of so few trials that none can be compared with another, before anything is trained."""
    stimuli = len(np.unique(train.stimulus_id))
    if stimuli // every < _FEWEST:
        raise InputError(
            f"--every {every}: of {stimuli} distinct training pictures that leaves {stimuli // every}; at "
            f"least {_FEWEST} are needed: give --every {max(1, stimuli // _FEWEST)} or less"
        )


def _of_brainit(
    config: ReconstructConfig, data: BrainData, checkpoints: Path | None, progress: Progress
) -> LeftOut:
    """Take the trials that Brain-IT's training held out."""
    from lab.decoding.structure import baselines, blended, inverted, maps_of, shrunk_tokens
    from lab.images import from_model
    from lab.jobs.reconstruct import train

    decoder = train(config, data, checkpoints, progress)
    own = data.subject.part("train").mean_over_repeats()
    stimuli, held = decoder.held_out(own.name)
    # the blend's weights are two for each of five bands, found on these very trials
    simple = baselines(own, own.select(np.arange(2)), stimuli)
    row = {str(key): i for i, key in enumerate(own.stimulus_id)}
    truth = own.images()[[row[str(key)] for key in stimuli]]
    maps = maps_of(held)
    if config.structure == "blend":
        few = {name: part[:2] for name, part in maps.items()}
        seen = blended(decoder, own, few, simple).left_out
    else:
        seen = from_model(inverted(maps), truth.shape[1:])
    return LeftOut(truth, seen, {"brainit": shrunk_tokens(held)}, simple["ridge_left_out"].astype(np.float32))


def _of_shared(
    config: ReconstructConfig, data: BrainData, checkpoints: Path | None, progress: Progress
) -> LeftOut:
    """Take every training trial; tokens and ridge's picture come from fits without it."""
    from lab.decoding.structure import baselines
    from lab.jobs.reconstruct import train

    found = train(config, data, checkpoints, progress)
    own = data.subject.part("train").mean_over_repeats()
    stimuli, held = found.held_out(own.name)
    seen = baselines(own, own.select(np.arange(2)), stimuli)["ridge_left_out"].astype(np.float32)
    return LeftOut(own.images(), seen, {"brainit": held.tokens.numpy()}, seen)


def _of_posterior(
    config: ReconstructConfig, data: BrainData, checkpoints: Path | None, progress: Progress
) -> LeftOut:
    """Take every training trial; Brain-IT's tokens come from a fit to the other two thirds."""
    from brainit.structure import fit_posterior
    from lab.decoding.structure import glyph_weights, tokens_of
    from lab.images import to_model

    own = data.subject.part("train").mean_over_repeats()
    pictures = own.images()
    fitted = fit_posterior(own.betas, pictures, glyph_weights(), seed=config.seed, progress=progress)
    seen = fitted.held_out().picture
    if config.network == "shared":
        said = _of_shared(config, data, checkpoints, progress).conditions["brainit"]
    else:
        said = _left_out_tokens(config, own, data.subject, progress)
    tokens = {"picture": tokens_of(to_model(seen).numpy()), "brainit": said}
    return LeftOut(pictures, seen, tokens)


def _left_out_tokens(
    config: ReconstructConfig, train: Subject, whole: Subject, progress: Progress, folds: int = 3
) -> np.ndarray:
    """Return Brain-IT's tokens (n, 17, 192) of every training trial, by networks that have not seen it."""
    from brainit.training.fitting import fit
    from lab.decoding.data import external_targets, zoo_targets
    from lab.decoding.structure import predictions

    judged = replace(whole, split=np.full_like(whole.split, "test"))  # every trial is, by one of the folds
    external = external_targets(config, judged, progress)
    fold = np.random.default_rng(config.seed).permutation(train.n_trials) % folds
    out: dict[int, np.ndarray] = {}
    for k in range(folds):
        split = np.where(fold == k, "test", "train")
        part = replace(train, split=split)
        decoder = fit([part], zoo_targets([part], progress), config.brain, None, progress, external=external)
        out |= dict(
            zip(np.flatnonzero(fold == k), predictions(decoder, part.part("test"))["tokens"], strict=True)
        )
    return np.stack([out[i] for i in range(train.n_trials)])
