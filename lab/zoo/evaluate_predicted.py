"""Measure a denoiser on tokens predicted from simulated people that nothing was trained on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from brainit.datasets.simulated.crowd import Person
from lab.errors import InputError, MissingDataError
from lab.images import sheet, write_picture
from lab.metrics.efficientnet import NAME as NETWORK
from lab.progress import Progress, silent
from lab.zoo import DECODERS, HOME, load, load_file, people, summary, weight_file
from lab.zoo.cortex import NAME as CORTEX
from lab.zoo.readers import Condition, Reader
from lab.zoo.shared.painting import SAMPLER, Painter, intervals

GUIDANCES = (1.0, 2.0, 3.0, 4.0)
SHOWN_AT = 3.0
REPEATS = 3
COLUMNS = 14
TARGETS = {("mixtures", 0.1): 0.96, ("mixtures", 0.3): 0.98}
TRUE_TARGETS = {"two_way": 0.999, "pixcorr": 0.80}


def evaluate_into_card(
    name: str,
    data: Path,
    out: Path,
    *,
    before: Path | None = None,
    n: int | None = None,
    voxels: int | None = None,
    scanned: int | None = None,
    external: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure a denoiser on predicted tokens; keep numbers in its card and pictures beside it.

    Parameters
    ----------
    before : Path, optional
        Weights to compare with.
    n : int, optional
        Held-out natural pictures, the first ones; each shown three times.
    voxels, scanned, external : int, optional
        As in training, so that the scanned pictures are the same.
    seed : int
        Of fMRI and sampler.

    Returns
    -------
    dict
        What the card says under ``predicted``. Scores are ``[mean, low, high]``, 95 % over pictures.

    Raises
    ------
    InputError, MissingDataError
        The model is not a denoiser, or ``before`` is not there or holds another one.
    """
    from lab.zoo.train import merge_card

    summary(name)
    if name not in DECODERS:
        raise InputError(
            f"model {name!r} draws no picture from tokens; those that do are {', '.join(DECODERS)}"
        )
    if before is not None and not before.is_file():
        raise MissingDataError(f"{before} is not there; --before wants the weights that training kept")
    models = [("before", before)] if before else []
    models.append(("now", weight_file(name)))
    loaded = [(key, *_denoiser(file, name, device)) for key, file in models]
    sizes = (scanned or people.SCANNED, people.EXTERNAL if external is None else external)
    images, n_scanned = people.tested_pictures(data, *sizes, n or people.TESTED)
    seen = people.see(images, n_scanned, device)
    tested = torch.arange(n_scanned, len(images), device=seen.tokens.device)
    painter = Painter.of(images[n_scanned:], seed, device)
    crowd = people.unseen_people(voxels or people.VOXELS)
    readers = _readers(crowd, seen, seed, progress)
    true = seen.tokens[tested]
    rows: list[np.ndarray] = []
    found: dict[str, Any] = {"true_tokens": {}, "readings": []}
    for key, denoiser, null in loaded:
        made, scores = painter.paint(denoiser, null, _shaped(true), SAMPLER.guidance)
        found["true_tokens"][key] = intervals(scores)
        rows.append(made[:COLUMNS])
    names = [f"true tokens, {key}" for key, *_ in loaded]
    jobs = list(_readings(readers))
    for k, (person, ceiling, reader) in enumerate(jobs):
        progress(k, len(jobs), f"pictures of {person} at {ceiling}")
        look = torch.Generator(device=tested.device).manual_seed(seed + 1)
        tokens = reader.whole(reader.look(tested, REPEATS, look))
        row: dict[str, Any] = {"person": person, "ceiling": ceiling, "tokens_r": _token_r(tokens, true)}
        for key, denoiser, null in loaded:
            for guidance in GUIDANCES:
                made, scores = painter.paint(denoiser, null, _shaped(tokens), guidance)
                row[f"{key}, guidance {guidance:g}"] = intervals(scores)
                if guidance == SHOWN_AT:
                    rows.append(made[:COLUMNS])
                    names.append(f"{person} at {ceiling}, {key}")
        found["readings"].append(row)
    progress(len(jobs), len(jobs), "pictures")
    width = min(COLUMNS, len(tested))
    truth = painter.truth[:COLUMNS]
    write_picture(sheet(np.concatenate([truth, *rows]), width, gap=2), out / f"{name}-predicted.webp")
    write_picture(sheet(np.concatenate(rows), width, gap=2), HOME / "cards" / f"{name}-predicted.webp")
    card = {
        "sampler": f"Euler, {SAMPLER.steps} steps, from tokens alone, one sample a picture, seed {seed}",
        "n": len(tested),
        "people": {k: _said(k, p) for k, p in crowd.items()},
        "cortex": CORTEX,
        "scored_by": f"two-way: {NETWORK}, head",
        "trials": f"{n_scanned} scanned once, test pictures {REPEATS} times",
        **found,
        "sheet_rows": names,
        "targets": _targets(found),
        "measured_by": _command(name, before, n, voxels, scanned, external, seed),
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
    }
    merge_card(name, {"predicted": card})
    return card


def _denoiser(file: Path, name: str, device: str) -> tuple[nn.Module, torch.Tensor]:
    model, extra = load_file(file)
    wanted = type(load(name))
    if type(model) is not wanted or "null" not in extra:
        raise InputError(f"{file} holds a {type(model).__name__}; {name} is a {wanted.__name__}")
    return model.to(device), extra["null"]


def _readers(
    crowd: dict[str, Person], seen: people.Seen, seed: int, progress: Progress
) -> dict[str, list[Reader]]:
    out: dict[str, list[Reader]] = {}
    for favourable in (False, True):
        names = [k for k in crowd if (k == "favourable") == favourable]
        asked = [[Condition(c) for c in people.TEST_CEILINGS[k]] for k in names]
        found = people.read([crowd[k] for k in names], asked, seen, seed, progress, favourable)
        out |= dict(zip(names, found, strict=True))
    return out


def _readings(readers: dict[str, list[Reader]]) -> Iterable[tuple[str, float, Reader]]:
    for person, row in readers.items():
        yield from ((person, c, r) for c, r in zip(people.TEST_CEILINGS[person], row, strict=True))


def _shaped(tokens: torch.Tensor) -> torch.Tensor:
    return tokens.view(len(tokens), 17, -1)


def _token_r(tokens: torch.Tensor, true: torch.Tensor) -> float:
    """Mean over tokens' numbers of the correlation over pictures."""
    a, b = (x - x.mean(0) for x in (tokens, true))
    r = (a * b).sum(0) / (a.norm(dim=0) * b.norm(dim=0) + 1e-9)
    return round(float(r.mean()), 4)


def _said(name: str, person: Person) -> str:
    if person.ventral == "prototypes":
        return f"{person.n_voxels} voxels; 24 prototypes in 64 projections of encoder-64's tokens"
    reads = f"{NETWORK}, the network that scores: a bound" if name == "favourable" else CORTEX
    return (
        f"{person.n_voxels} voxels; ventral ones mix {reads}; {person.own:.0%} of a mixture a voxel's alone"
    )


def _targets(found: dict[str, Any]) -> dict[str, Any]:
    out = {}
    for row in found["readings"]:
        target = TARGETS.get((row["person"], row["ceiling"]))
        if target:
            reached = row[f"now, guidance {SHOWN_AT:g}"]["two_way"][0]
            key = f"two_way, {row['person']} at {row['ceiling']:g}, guidance {SHOWN_AT:g}"
            out[key] = {"target": target, "reached": reached, "met": reached >= target}
    for score, target in TRUE_TARGETS.items():
        reached = found["true_tokens"]["now"][score][0]
        out[f"{score}, true tokens"] = {"target": target, "reached": reached, "met": reached >= target}
    return out


def _command(name: str, before: Path | None, *sizes: int | None) -> str:
    flags = [f"--before {before.name}"] if before else []
    given = zip(("n", "voxels", "scanned", "external", "seed"), sizes, strict=True)
    flags += [f"--{k} {v}" for k, v in given if v is not None]
    return " ".join([f"brainlab zoo evaluate {name} --on predicted", *flags])
