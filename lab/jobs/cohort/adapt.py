"""Job behind ``brainlab brain adapt``: a new subject for the shared network, from minutes of scanning."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.errors import InputError, MissingDataError
from lab.jobs import contract
from lab.jobs.contract import Context, Device, Foreseen, Numbers, Seed, Table, setting
from lab.models.devices import choose_device
from lab.models.preflight import check_loose_folder

if TYPE_CHECKING:
    from brainit.network.shared import SharedNetwork
    from brainit.subject import Subject
    from lab.decoding.data import BrainData

SHARED = "shared-64"
METHODS = ("ridge to tokens", "shared prior, Bayes", "single subject", "shared network")


class Settings(contract.Settings):
    """Adapt the shared network to a new subject.

    A linear read-out is fitted and the subject's voxel embeddings are set from what its voxels are tuned to;
    with epochs they are trained. Nothing of the network changes; it knows voxels by tuning, so the space they
    were measured in does not matter. The result is one small file, and with a curve also a table of scores
    over minutes of scanning, beside what needs no network.
    """

    model: str = setting(SHARED, "shared-64, or a weight file of such a network (brain study, zoo train)")
    dataset: str = setting("simulated", "name of the dataset (brainlab data list)")
    root: Path | None = setting(None, "folder of the dataset; default: its place in the user's cache")
    subject: str | None = setting(None, "subject within the dataset; default: the first")
    options: dict[str, str | int | float | bool] = setting({}, "the dataset's own options")
    minutes: float | None = setting(
        None,
        "use only the first so many minutes of scanning (12.5 trials each); default all",
        unit="minutes",
        ge=2,
    )
    epochs: int = setting(0, "passes in which voxel embeddings are trained, most", ge=0, le=1000)
    curve: Numbers = setting((), "also decode after so many minutes each, as 15,30,60; empty: no curve")
    denoiser: str = setting("dit-64", "shipped denoiser that draws the curve's pictures")
    steps: int = setting(20, "sampling steps", ge=1, le=1000)
    guidance: float = setting(3.0, "classifier-free guidance; 1 is none", ge=0, le=30)
    out: Path = setting(Path("runs/adapted"), "folder of the subject's file and the curve", short="-o")
    seed: Seed = setting(0, "fixes which trials are left out, noise and initial weights")
    device: Device = setting("auto", "where the decoder runs")


class Result(contract.Result):
    """What was adapted, and a row for each method and number of minutes."""

    facts: dict[str, Any]
    rows: list[dict[str, Any]]
    file: str
    report: str
    warnings: tuple[str, ...] = ()

    def tables(self) -> list[Table]:
        """Return the facts, how far each read-out is trusted, then the curve if one was asked for."""
        from lab.report.adapted import read_outs

        facts = {name: value for name, value in self.facts.items() if name != "read_out_weights"}
        trusted = [
            {"components of the tokens": which, "weight of ridge": ridge, "weight of the shared prior": prior}
            for which, ridge, prior in read_outs(self.facts)
        ]
        odd = [contract.line(f"warning: {said}") for said in self.warnings]
        return [contract.record(facts), Table(trusted), *([Table(self.rows)] if self.rows else []), *odd]

    def files(self) -> dict[str, str]:
        """Return the subject's file and the page."""
        return {"subject": self.file, "report": self.report}


def run(settings: Settings, context: Context) -> Result:
    """Adapt, then decode the curve.

    Raises
    ------
    InputError
        Unknown names, too few trials, tokens of another form than the network's, or a folder with another
        subject.
    MissingDataError
        The model is not there.
    """
    from lab.decoding import same_data
    from lab.runs.lock import FolderLock

    data, network = _open(settings, context)
    same_data.check(settings.out, data.subject)
    _check_minutes(settings, data.subject)
    settings.out.mkdir(parents=True, exist_ok=True)
    with FolderLock(settings.out):
        return _adapt(settings, data, network, context)


def _adapt(settings: Settings, data: BrainData, network: SharedNetwork, context: Context) -> Result:
    from lab.decoding import same_data
    from lab.decoding.cohort.adapted import adapted
    from lab.files import write_text
    from lab.report.adapted import write_adapted_page

    subject = _first(data.subject, settings.minutes)
    device = choose_device(settings.device)
    found = adapted(
        subject, settings.out, context.progress, device, epochs=settings.epochs, seed=settings.seed,
        own=network,
    )  # fmt: skip
    same_data.claim(settings.out, data.marks)
    facts = {
        "subject": subject.name,
        "simulated": subject.simulated,
        "voxels": subject.n_voxels,
        "n_test": len(np.unique(subject.part("test").stimulus_id)),
        **{k: v for k, v in found.report.items() if k != "fingerprint"},
        "leaks": data.about["leak_line"],
        "test_pictures_in_training": data.about["leak"]["leak_test_in_train"],
    }
    rows = _curve(settings, data.subject, network, context) if settings.curve else []
    (settings.out / "curve.csv").unlink(missing_ok=True)  # of an earlier call
    if rows:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(settings.out / "curve.csv", text.getvalue())
    source = f"{settings.dataset} {subject.name}"
    odd = (*data.about["warnings"], *_odd(settings, data.subject))
    page = write_adapted_page(facts, rows, source, settings.seed, settings.out, odd)
    return Result(
        facts=facts, rows=rows, file=str(settings.out / "adapted.safetensors"), report=str(page), warnings=odd
    )


def dry_run(settings: Settings) -> Foreseen:
    """Read the data and the model; say what would be adapted."""
    data, network = _open(settings, Context())
    subject = _first(data.subject, settings.minutes)
    _check_minutes(settings, data.subject)
    odd = [*data.about["warnings"], *_odd(settings, data.subject)]
    return Foreseen(
        facts={
            "would adapt": subject.name,
            "trials": subject.part("train").n_trials,
            "network": str(network.config),
            "out": str(settings.out),
            **({"warnings": odd} if odd else {}),
        }
    )


def _open(settings: Settings, context: Context) -> tuple[BrainData, SharedNetwork]:
    from brainit.network.shared import SharedNetwork
    from lab import zoo
    from lab.decoding.data import open_subjects
    from lab.decoding.settings import ReconstructConfig
    from lab.jobs.checks import check_names

    check_loose_folder(settings.out)
    choose_device(settings.device)
    given = settings.model_dump(include={"dataset", "subject", "options", "denoiser"})
    given |= {"root": None if settings.root is None else str(settings.root)}
    given |= {"train_on": "one", "network": "shared", "structure": "ridge"}
    config = ReconstructConfig.model_validate(given)
    check_names(config)
    path = Path(settings.model)
    if settings.model == SHARED:
        network = zoo.load(SHARED)
    elif path.suffix == ".safetensors" and path.is_file():
        network = _read(path)
    else:
        raise MissingDataError(f"--model {settings.model}: not there; give {SHARED} or a .safetensors file")
    if not isinstance(network, SharedNetwork):
        raise InputError(f"--model {settings.model} is a {type(network).__name__}; give a shared network")
    data = open_subjects(config, context.progress)
    if data.subject.stimuli is None:
        raise InputError(f"dataset {settings.dataset!r} has categories alone; the network wants pictures")
    return data, network


def _check_minutes(settings: Settings, subject: Subject) -> None:
    """Refuse minutes of the curve, or in all, that were not scanned, or that show too few pictures."""
    from brainit.training.adapting import TRIALS_A_MINUTE
    from brainit.training.newcomer import LEAST

    there = subject.part("train").n_trials / TRIALS_A_MINUTE
    most = len(np.unique(subject.part("train").stimulus_id))
    if most < LEAST:
        raise InputError(
            f"subject {subject.name!r} has {most} distinct training pictures, too few to read it; at least "
            f"{LEAST} are needed: scan more, or give ridge's defaults (brainlab brain reconstruct) a try"
        )
    for flag, minutes in (("--minutes", settings.minutes), *(("--curve", m) for m in settings.curve)):
        if minutes is not None and not 2 <= minutes <= math.ceil(there):
            raise InputError(
                f"{flag} {minutes:g}: this subject has {there:.3g} minutes of training trials "
                f"({TRIALS_A_MINUTE:g} a minute); allowed: 2 to {math.ceil(there)}"
            )
        shown = len(np.unique(_first(subject, minutes).part("train").stimulus_id))
        if shown < LEAST:
            raise InputError(
                f"{flag} {minutes or there:g}: these minutes show {shown} distinct pictures; at least "
                f"{LEAST} are needed: take more minutes"
            )


def _odd(settings: Settings, subject: Subject) -> list[str]:
    """Say what the scores of a curve, or of few minutes, hang on beside those minutes."""
    from lab.decoding.scores import SMALLEST

    found = []
    fewest = min([m for m in (settings.minutes, *settings.curve) if m is not None], default=None)
    scaled = "within session" in str(subject.info.get("units", ""))
    if fewest is not None and scaled:
        kept, every = (s.part("train").session for s in (_first(subject, fewest), subject))
        sessions = np.unique(subject.session).tolist()
        later = [s for s in sessions if (kept == s).sum() < (every == s).sum()]
        if later and len(sessions) > 1:  # one scale for all is undone when voxels are standardised again
            found.append(
                f"voxels were scaled within session before the first {fewest:g} minutes were taken, so test "
                f"trials of sessions that these do not hold whole ({', '.join(map(str, later))}) are scaled "
                "by training trials of later minutes; --set options.zscore=none leaves betas as they are"
            )
    shape = np.shape(next(iter(subject.stimuli.values())))  # type: ignore[union-attr]
    if settings.curve and min(shape[:2]) < SMALLEST:
        found.append(
            f"pictures of {shape[0]}x{shape[1]} pixels are scored enlarged: below {SMALLEST} a side features "
            "of an ImageNet network (two-way, top-1) mean little"
        )
    return found


def _read(path: Path) -> Any:
    from lab import zoo

    try:
        return zoo.load_file(path)[0]
    except InputError as error:
        raise InputError(f"--model {error}") from None
    except (KeyError, TypeError, RuntimeError) as error:  # another class, other settings, other tensors
        said = str(error).splitlines()[0]
        raise InputError(
            f"--model {path} is not a network of this version ({said}); train it again: "
            f"brainlab zoo train {SHARED}"
        ) from None


def _first(subject: Subject, minutes: float | None) -> Subject:
    """Return the subject with the training trials of the first minutes, in the order of scanning."""
    from brainit.training.adapting import TRIALS_A_MINUTE

    if minutes is None:
        return subject
    rows = np.flatnonzero(subject.split == "train")
    order = rows[np.lexsort((rows, subject.run[rows], subject.session[rows]))]
    kept = order[: max(1, round(TRIALS_A_MINUTE * minutes))]
    return subject.select(np.sort(np.concatenate([kept, np.flatnonzero(subject.split == "test")])))


def _curve(
    settings: Settings, subject: Subject, network: SharedNetwork, context: Context
) -> list[dict[str, Any]]:
    import torch

    from brainit import metrics
    from brainit.config import parse_config
    from brainit.training.adapting import adapt
    from brainit.training.fitting import fit
    from brainit.training.targets import Targets, TargetTable
    from brainit.voxels.ridge import fit_ridge
    from lab import zoo
    from lab.decoding.data import zoo_targets
    from lab.images import to_model
    from lab.zoo.shared.painting import Painter, intervals

    device = choose_device(settings.device)
    test = subject.part("test").mean_over_repeats()
    images = to_model(test.images()).mul(255).round().to(torch.uint8)
    painter = Painter.of(images, settings.seed, device)
    denoiser, null = zoo.load(settings.denoiser, device), zoo.null_tokens(settings.denoiser)
    encoded: dict[str, TargetTable] = {}
    rows = []
    for minutes in settings.curve:
        few = _first(subject, minutes)
        whole = zoo_targets([few], context.progress, device, encoded)
        table = TargetTable(whole.ids, Targets(whole.targets.tokens, []))
        found = adapt(
            network, few, table, epochs=settings.epochs, seed=settings.seed, progress=context.progress
        )
        train = few.part("train").mean_over_repeats()
        goals = table.targets.tokens[torch.from_numpy(table.rows(train.stimulus_id))]
        ridge = fit_ridge(found.scaler.apply(train.betas), goals.flatten(1).numpy())
        linear = ridge.predict(found.scaler.apply(test.betas)).astype(np.float32)
        config = parse_config({"train": {"seed": settings.seed}}, preset="few")
        single = fit([few], table, config, None, context.progress)
        tokens = {
            "ridge to tokens": torch.from_numpy(linear).view(-1, *goals.shape[1:]),
            "shared prior, Bayes": found.predict_bayes(test).tokens,
            "single subject": single.predict(replace(test, name=few.name)).tokens,
            "shared network": found.predict(test).tokens,
        }
        scores = {}
        for method in METHODS:
            context.progress(METHODS.index(method), len(METHODS), f"decoding after {minutes} minutes")
            _, scores[method] = painter.paint(
                denoiser, null, tokens[method], settings.guidance, steps=settings.steps
            )
            row: dict[str, Any] = {"minutes": minutes, "trials": train.n_trials, "method": method}
            for key, found_ in intervals(scores[method]).items():
                row |= {key: found_[0], f"{key} low": found_[1], f"{key} high": found_[2]}
            for key in ("two_way", "pixcorr"):
                above = metrics.paired_interval(scores[method][key], scores[METHODS[0]][key])
                name = f"{key} above ridge"
                row |= {name: round(above.mean, 4), f"{name} low": round(above.low, 4)}
                row |= {f"{name} high": round(above.high, 4)}
            rows.append(row)
    return rows
