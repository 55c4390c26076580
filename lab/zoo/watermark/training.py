"""Train the watermark of the shipped autoencoder: the extractor, then keys against it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lab import zoo
from lab.errors import InputError
from lab.files import hash_file, write_json
from lab.progress import Progress, silent
from lab.zoo.data import N_NATURAL_CLASSES, Pictures, held_out, training
from lab.zoo.io import save_weights
from lab.zoo.watermark.files import AUTOENCODER, load_extractor
from quant.adapters.watermark import core
from quant.adapters.watermark.config import WatermarkConfig
from quant.adapters.watermark.distortions import KINDS, stored
from quant.adapters.watermark.losses import psnr
from quant.adapters.watermark.lowrank import LowRank, chosen_layers, write_key
from quant.registry import Context
from quant.training.state import State

RECORD = "training.json"
LEAST_PSNR = 32.0
"""What a mark may cost at most, dB to the unmarked decoder."""
JUDGED = 1000
"""Held-out pictures on which a training is judged: the last ones, for reports begin with the first."""
FIRST = 5
"""Layers of the decoder before its last stage: they run once for each picture."""


@dataclass(frozen=True)
class Effort:
    """How long: minutes for the extractor and for each key; None takes the config's steps."""

    minutes: float | None = None
    key_minutes: float | None = None


def check_fit(config: WatermarkConfig) -> None:
    """Refuse layers that the autoencoder does not have, and a rank above theirs.

    Raises
    ------
    InputError
        One line about the first.
    """
    chosen_layers(zoo.load(AUTOENCODER), config.layers, config.rank)


@torch.no_grad()
def decoder_for(
    images: Tensor, device: str, batch: int = 256, progress: Progress = silent
) -> core.Decoder:  # fmt: skip
    """Return the autoencoder's last stage with its inputs for uint8 pictures (n, 3, 64, 64)."""
    model: Any = zoo.load(AUTOENCODER, device).requires_grad_(False).to(memory_format=torch.channels_last)
    first, last = model.decoder[:FIRST], model.decoder[FIRST:]

    def decode(inputs: Tensor) -> Tensor:
        return last(inputs) * 0.5 + 0.5

    inputs, batches = [], images.split(batch)
    for index, x in enumerate(batches):
        progress(index, len(batches), "encoding pictures")
        inputs.append(first(model.moments(x.to(device).float() / 255)[0]))
    return core.Decoder(model, decode, torch.cat(inputs), images.to(device), progress)


def train(
    data: Path,
    out: Path,
    config: WatermarkConfig,
    seeds: Sequence[int],
    effort: Effort,
    *,
    message: str | None = None,
    extractor: Path | None = None,
    limit: int | None = None,
    device: str = "cpu",
    seed: int = 0,
    command: str = "",
    state: State | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Train into ``out``: ``extractor.safetensors``, ``key-SEED.safetensors``, ``training.json``.

    What ``out`` has already is of the same settings (whoever calls has checked) and is not trained again.

    Parameters
    ----------
    seeds : sequence of int
        One key each.
    message : str, optional
        Of every key, in place of one that is drawn from its seed.
    extractor : Path, optional
        Train keys against this one.
    state : State, optional
        Where checkpoints lie, from which what was stopped goes on.

    Returns
    -------
    dict
        What is in ``training.json``: cost, trace, and quality on held-out pictures.
    """
    file = extractor or out / "extractor.safetensors"
    record = _known(out, file)
    if not lacking(record, seeds):
        return record
    progress(0, 1, "reading pictures")
    images = _mostly_natural(training(data, limit=limit))
    record |= {"config": config.model_dump(mode="json"), "seed": seed, "pictures": len(images)}
    record |= {"command": command, "device": torch.cuda.get_device_name() if device == "cuda" else "CPU"}
    decoder = decoder_for(images, device, progress=progress)
    unseen = decoder_for(held_out(data).images[-min(JUDGED, limit or JUDGED) :], device)
    if extractor is None and "extractor" not in record:
        context = Context(device=device, seed=seed, progress=progress, state=state)
        reader, cost = core.train_extractor(decoder, config, context, effort.minutes)
        save_weights(reader, file)
        record["extractor"] = {"steps": cost.steps, "seconds": round(cost.seconds, 1), "trace": cost.trace}
        write_json(out / RECORD, record)
    reader = load_extractor(file, device)  # in half precision: what keys are trained against is what ships
    record["null"] = null_of(reader, unseen)
    for key in lacking(record, seeds):
        said = message or core.random_message(config.bits, key)
        context = Context(device=device, seed=key, progress=progress, state=state)
        factors, balance, cost = core.train_key(decoder, reader, said, config, context, effort.key_minutes)
        about = {"message": said, "extractor": hash_file(file)}
        about["base"] = hash_file(zoo.weight_file(AUTOENCODER))
        write_key(_key_file(out, key), factors, about)
        record["keys"].append(
            {"seed": key, "message": said, "steps": cost.steps, "seconds": round(cost.seconds, 1),
             "balance": balance.plain(), **quality(reader, unseen, factors, said), "trace": cost.trace}
        )  # fmt: skip
        write_json(out / RECORD, record)
    return record


def lacking(record: dict[str, Any], seeds: Sequence[int]) -> list[int]:
    """Return the seeds whose keys a record does not have yet."""
    there = {key["seed"] for key in record["keys"]}
    return [seed for seed in seeds if seed not in there]


def _known(out: Path, extractor: Path) -> dict[str, Any]:
    """Return what earlier calls came to, without that of which the file is lost."""
    if not (out / RECORD).is_file() or not extractor.is_file():
        return {"keys": []}
    record = read_training(out)
    return {**record, "keys": [key for key in record["keys"] if _key_file(out, key["seed"]).is_file()]}


def _key_file(out: Path, seed: int) -> Path:
    return out / f"key-{seed}.safetensors"


def _kinds(labels: Tensor) -> tuple[Tensor, Tensor]:
    natural = labels < N_NATURAL_CLASSES
    return natural, ~natural


def _mostly_natural(pictures: Pictures, share: int = 20) -> Tensor:
    """Keep all natural pictures, and of digits and patterns one for each `share` of them; evenly spaced."""
    natural, others = (pictures.images[x] for x in _kinds(pictures.labels))
    pick = torch.linspace(0, len(others) - 1, max(1, len(natural) // share)).long()
    return torch.cat([natural, others[pick]])


@torch.no_grad()
def null_of(reader: Any, decoder: core.Decoder) -> dict[str, float]:
    """Bits on unmarked held-out pictures: their mean share of ones, and how much pairs of them agree."""
    found = torch.cat([reader(x) for x in decoder.pictures().split(256)])
    ones = (found > 0).float()
    # a bit that is the same in all pictures correlates with none
    pairs = torch.corrcoef(ones.T).nan_to_num() - torch.eye(ones.shape[1], device=ones.device)
    return {
        "ones": float(ones.mean()), "ones_spread": float(ones.mean(0).std()),
        "largest_correlation": float(pairs.abs().max()), "output_spread": float(found.std(0).mean()),
    }  # fmt: skip


@torch.no_grad()
def quality(reader: Any, decoder: core.Decoder, factors: LowRank, message: str) -> dict[str, Any]:
    """Errors on held-out pictures as stored, clean and distorted as in training, and what the mark costs."""
    torch.manual_seed(0)
    plain, wanted = decoder.pictures(), core.signs(message, decoder.inputs.device)
    with factors.attached(decoder.model):
        marked = decoder.pictures()

    def right(change: Callable[[Tensor], Tensor]) -> Tensor:
        found = torch.cat([reader(stored(change(x))) for x in marked.split(250)])
        return (found * wanted > 0).float()

    clean = right(lambda x: x)
    return {
        "psnr_db": float(psnr(marked, plain).mean()), "psnr_lowest_db": float(psnr(marked, plain).min()),
        "bit_error": 1 - float(clean.mean()), "fewest_matches": int(clean.sum(1).min()),
        "bit_error_distorted": {k.__name__: 1 - float(right(k).mean()) for k in dict.fromkeys(KINDS)},
    }  # fmt: skip


def best(folders: Sequence[Path]) -> Path:
    """Return the folder of the best training, by a rule that is fixed beforehand.

    Those whose keys all keep 32 dB come first; among them (or among all) the lowest mean bit error counts, on
    the last `JUDGED` held-out pictures as stored.

    Raises
    ------
    InputError
        A folder has no ``training.json``, or one without keys.
    """

    def rank(folder: Path) -> tuple[bool, float]:
        keys = read_training(folder)["keys"]
        if not keys:
            raise InputError(f"{folder} has no trained keys yet: let watermark train end")
        error = sum(key["bit_error"] for key in keys) / len(keys)
        return min(key["psnr_db"] for key in keys) < LEAST_PSNR, error

    return min(folders, key=rank)


def read_training(folder: Path) -> dict[str, Any]:
    """Read ``training.json``.

    Raises
    ------
    InputError
        There is none.
    """
    file = folder / RECORD
    if not file.is_file():
        raise InputError(f"{folder} has no training.json: give the folder that watermark train wrote")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found
