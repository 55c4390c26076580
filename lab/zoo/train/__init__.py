"""Train a model of the zoo and write its weights and the training part of its card."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

from lab.errors import InputError
from lab.progress import Progress, silent
from lab.zoo import (
    DECODERS,
    DENOISERS,
    HOME,
    VIDEO,
    info,
    load,
    needed_file,
    null_tokens,
    summary,
    weight_file,
)
from lab.zoo.train.loop import Outcome, Recipe

DATA = "tiny-imagenet-64 train, MNIST test digits without digits69's stimuli, procedural patterns"
STATES = Path("runs/zoo")
REFINED = "autoencoder-64"
UNDER = ("autoencoder-64", "encoder-64")
"""Whose latents and tokens denoisers learn from."""
MEASURED = ("quality", "measured_by", "targets", "predicted")
"""What a card says of weights that were measured: of others it does not hold."""


class Effort(TypedDict, total=False):
    """How long and from what a training goes on; see ``run``."""

    steps: int | None
    batch: int | None
    seed: int
    minutes: float | None
    limit: int | None
    progress: Progress


def run(
    name: str,
    data: Path,
    out: Path | None = None,
    *,
    steps: int | None = None,
    batch: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    minutes: float | None = None,
    limit: int | None = None,
    further: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Train the zoo model ``name`` on the pictures below ``data``.

    Stopped at any time, the same command goes on where it was (state in ``out/NAME.state.safetensors``).

    Parameters
    ----------
    out : Path, optional
        Folder of the training state; ``runs/zoo`` by default. Weights go to the zoo itself.
    steps, batch : int, optional
        Override the recipe.
    minutes : float, optional
        Time budget; training ends when it is used up.
    limit : int, optional
        Use only the first natural pictures (for a trial).
    further : bool
        Start from the weights that are there; the card keeps what it said of them under ``earlier``.

    Returns
    -------
    dict
        The training part of the card.

    Raises
    ------
    MissingDataError
        No pictures below ``data``, or no weights to train further.
    """
    from lab.zoo.data import training
    from lab.zoo.io import save_weights

    recipe = _changed(_recipe(name), steps, batch)
    earlier = _history(name) if further else []
    start = _weights(name, device) if further else None
    stage = f"{name}-{len(earlier)}" if further else name
    state = (out or STATES) / f"{stage}.state.safetensors"
    pictures = training(data, limit=limit).to(device)
    under = {"weights": _mark(*UNDER)} if name in DENOISERS else {}
    _claim(state, recipe, seed, pictures=len(pictures), start=_mark(name) if further else None, **under)
    options: dict[str, Any] = {"seed": seed, "minutes": minutes, "progress": progress}
    extra, used = {}, DATA
    if name in VIDEO:
        from lab.zoo.video import train as video

        pictures, used = video.scenes(pictures), video.DATA
        latents, tokens = video.film(
            pictures, load("autoencoder-64", device), load("encoder-64", device),
            n=video.CLIPS if limit is None else limit, seed=seed, progress=progress,
        )  # fmt: skip
        clip_denoiser, outcome = video.train(latents, tokens, state, recipe, start=start, **options)
        extra, model = {"null": clip_denoiser.null}, clip_denoiser.denoiser
    elif name in DENOISERS:
        from lab.zoo.train import denoiser

        latents, tokens = denoiser.encode_all(
            pictures, load("autoencoder-64", device), load("encoder-64", device)
        )
        conditioned, outcome = denoiser.train(name, latents, tokens, state, recipe, start=start, **options)
        extra, model = {"null": conditioned.null}, conditioned.denoiser
    else:
        model, outcome = _trainer(name).train(pictures, state, recipe, start=start, **options)
    given = options_of(steps=steps, batch=batch, minutes=minutes, limit=limit, seed=seed or None)
    command = f"brainlab zoo train {name}{given}" + " --further" * further
    record = _record(len(pictures), seed, recipe, outcome, command)
    record["data"] = used
    if earlier:
        record["earlier"] = earlier
    save_weights(model, weight_file(name), extra)
    card = {
        "name": name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "training": record,
    }
    merge_card(name, card, drop=("decoder_training", *MEASURED))
    return card


def run_on_predicted(
    name: str,
    data: Path,
    out: Path | None = None,
    *,
    steps: int | None = None,
    batch: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    minutes: float | None = None,
    voxels: int | None = None,
    scanned: int | None = None,
    external: int | None = None,
    simple: int | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Train a denoiser further on tokens predicted from simulated fMRI; arguments as for ``run``.

    The weights that it starts from are kept in ``out/NAME-K.before.safetensors``, ``K`` being the number of
    trainings before this one.

    Parameters
    ----------
    voxels : int, optional
        Of the largest simulated person.
    scanned, external : int, optional
        Natural pictures that simulated people were scanned with, and further ones.
    simple : int, optional
        Digits and patterns, each.

    Raises
    ------
    InputError
        The model is not a denoiser.
    """
    import shutil

    from lab.files import replacing
    from lab.zoo import people
    from lab.zoo.io import save_weights
    from lab.zoo.train import predicted

    summary(name)
    if name not in DECODERS:
        raise InputError(
            f"model {name!r} draws no picture from tokens; those that do are {', '.join(DECODERS)}"
        )
    sizes = {
        "voxels": voxels or people.VOXELS,
        "scanned": scanned or people.SCANNED,
        "external": people.EXTERNAL if external is None else external,
        "simple": people.SIMPLE if simple is None else simple,
    }
    recipe = _changed(predicted.RECIPES[name], steps, batch)
    earlier, start = _history(name), _weights(name, device)
    stage = (out or STATES) / f"{name}-{len(earlier)}"
    state = stage.with_name(f"{stage.name}.state.safetensors")
    _claim(state, recipe, seed, **sizes, start=_mark(name), weights=_mark(*UNDER))
    kept = stage.with_name(f"{stage.name}.before.safetensors")
    kept.parent.mkdir(parents=True, exist_ok=True)
    with replacing(kept) as temporary:
        shutil.copyfile(weight_file(name), temporary)
    images, n_scanned = people.training_pictures(data, sizes["scanned"], sizes["external"], sizes["simple"])
    seen = people.see(images, n_scanned, device)
    model, outcome = predicted.train(
        name,
        seen,
        sizes["voxels"],
        state,
        recipe,
        seed,
        minutes,
        progress,
        start,
    )
    given = options_of(
        steps=steps, batch=batch, minutes=minutes, voxels=voxels, scanned=scanned, external=external,
        simple=simple, seed=seed or None,
    )  # fmt: skip
    record = _record(len(images), seed, recipe, outcome, f"brainlab zoo train {name} --on predicted{given}")
    record |= predicted.about(sizes) | {"earlier": earlier}
    save_weights(model.denoiser, weight_file(name), {"null": model.null})
    card = {
        "name": name,
        "parameters": sum(p.numel() for p in model.denoiser.parameters()),
        "training": record,
    }
    merge_card(name, card, drop=MEASURED)
    return card


def refine(
    name: str, data: Path, out: Path | None = None, *, device: str = "cpu", **effort: Unpack[Effort]
) -> dict[str, Any]:
    """Train the autoencoder's decoder further with its encoder frozen; arguments as for ``run``.

    Denoisers that were trained on the encoder's latents stay valid.
    """
    from lab.zoo.data import training
    from lab.zoo.io import save_weights
    from lab.zoo.train import autoencoder

    summary(name)
    if name != REFINED:
        raise InputError(f"model {name!r} cannot be refined; allowed: {REFINED}")
    limits = {key: effort[key] for key in ("steps", "batch", "minutes", "limit") if key in effort}  # type: ignore[literal-required]
    given = options_of(**limits, seed=effort.get("seed", 0) or None)
    recipe = _changed(autoencoder.REFINE_RECIPE, effort.get("steps"), effort.get("batch"))
    pictures, seed = training(data, limit=effort.get("limit")).to(device), effort.get("seed", 0)
    # a state holds the encoder too: one of other weights must not come back
    state = (out or STATES) / f"{name}-decoder-{_mark(name)}.state.safetensors"
    _claim(state, recipe, seed, pictures=len(pictures))
    model, outcome = autoencoder.refine_decoder(
        load(name, device), pictures, state, recipe, seed=seed, minutes=effort.get("minutes"),
        progress=effort.get("progress", silent),
    )  # fmt: skip
    save_weights(model, weight_file(name))
    record = _record(len(pictures), seed, recipe, outcome, f"brainlab zoo refine {name}{given}")
    merge_card(name, {"decoder_training": record}, drop=MEASURED)
    return {"name": name, "decoder_training": record}


def merge_card(name: str, part: dict[str, Any], drop: tuple[str, ...] = ()) -> None:
    """Write ``part`` over what a model's card (``cards/NAME.json``) says; ``drop`` what no longer holds."""
    import json

    from lab.files import write_text

    card = {k: v for k, v in (info(name) | part).items() if k not in drop}
    write_text(HOME / "cards" / f"{name}.json", json.dumps(card, indent=1) + "\n")


def _claim(state: Path, recipe: Recipe, seed: int, **more: Any) -> None:
    """Refuse to go on in a state that is of another training than this one."""
    from lab.zoo.io import claim

    started = state.with_name(f"{state.name.removesuffix('.state.safetensors')}.settings.json")
    claim(started, {"seed": seed, **asdict(recipe), **more}, "a training", [state])


def _mark(*names: str) -> str:
    from lab.zoo.io import mark

    return mark(*(needed_file(name) for name in names))


def _weights(name: str, device: str) -> Any:
    """Return what training goes on from: a model, or a denoiser with its null condition."""
    model = load(name, device)
    return (model, null_tokens(name)) if name in DENOISERS else model


def _history(name: str) -> list[dict[str, Any]]:
    """Return what the card says of all earlier training, oldest first."""
    card = info(name)
    known = [card[key] for key in ("training", "decoder_training") if key in card]
    before = [stage for part in known for stage in part.pop("earlier", [])]
    return before + known


def _record(pictures: int, seed: int, recipe: Recipe, outcome: Outcome, command: str) -> dict[str, Any]:
    return {
        "pictures": pictures,
        "data": DATA,
        "seed": seed,
        "recipe": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(recipe).items()},
        **asdict(outcome),
        "seconds": round(outcome.seconds, 1),
        "command": command,
    }


def options_of(**given: float | None) -> str:
    """Write the options that were given (not None) as they stand on the command line."""
    said = {k: f"{v:g}" if isinstance(v, float) else f"{v}" for k, v in given.items() if v is not None}
    return "".join(f" --{name} {value}" for name, value in said.items())


def _changed(recipe: Recipe, steps: int | None, batch: int | None) -> Recipe:
    changes: dict[str, Any] = {k: v for k, v in (("steps", steps), ("batch", batch)) if v is not None}
    for key, value in changes.items():
        if value < 1:
            raise InputError(f"{key} is {value}; it must be at least 1")
    return replace(recipe, **changes)


def _recipe(name: str) -> Recipe:
    summary(name)  # refuses an unknown name before any work
    if name in VIDEO:
        from lab.zoo.video import train as video

        return video.RECIPE
    if name in DENOISERS:
        from lab.zoo.train import denoiser

        return denoiser.RECIPES[name]
    return _trainer(name).RECIPE


def _trainer(name: str) -> Any:
    from importlib import import_module

    modules = {"autoencoder-64": "autoencoder", "encoder-64": "encoder", "structure-64": "structure"}
    return import_module(f"lab.zoo.train.{modules[name]}")
