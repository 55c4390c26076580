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
from lab.runs.lock import FolderLock
from lab.zoo.data import N_NATURAL_CLASSES, Pictures, held_out, training
from lab.zoo.io import save_weights
from lab.zoo.watermark.files import AUTOENCODER, load_extractor
from quant.adapters.watermark import core
from quant.adapters.watermark.config import WatermarkConfig
from quant.adapters.watermark.distortions import KINDS, stored
from quant.adapters.watermark.losses import psnr
from quant.adapters.watermark.lowrank import LowRank, read_about, write_key
from quant.registry import Context

RECORD = "training.json"
LEAST_PSNR = 32.0
"""What a mark may cost at most, dB to the unmarked decoder."""
FIRST = 5
"""Layers of the decoder before its last stage: they run once for each picture."""


@dataclass(frozen=True)
class Effort:
    """How long: minutes for the extractor and for each key; None takes the config's steps."""

    minutes: float | None = None
    key_minutes: float | None = None


@torch.no_grad()
def decoder_for(images: Tensor, device: str, batch: int = 256) -> core.Decoder:
    """Return the autoencoder's last stage with its inputs for uint8 pictures (n, 3, 64, 64)."""
    model: Any = zoo.load(AUTOENCODER, device).requires_grad_(False).to(memory_format=torch.channels_last)
    first, last = model.decoder[:FIRST], model.decoder[FIRST:]

    def decode(inputs: Tensor) -> Tensor:
        return last(inputs) * 0.5 + 0.5

    raw = (model.moments(x.to(device).float() / 255)[0] for x in images.split(batch))
    return core.Decoder(model, decode, torch.cat([first(z) for z in raw]), images.to(device))


def train(
    data: Path,
    out: Path,
    config: WatermarkConfig,
    seeds: Sequence[int],
    effort: Effort,
    *,
    messages: Sequence[str] = (),
    extractor: Path | None = None,
    limit: int | None = None,
    device: str = "cpu",
    seed: int = 0,
    command: str = "",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Train into ``out``: ``extractor.safetensors``, ``key-SEED.safetensors``, ``training.json``.

    Stopped and started again with the same settings, it goes on after the last extractor or key that ended.

    Parameters
    ----------
    seeds : sequence of int
        One key each; its message is drawn from it unless `messages` has one.
    extractor : Path, optional
        Train keys against this one.

    Returns
    -------
    dict
        What is in ``training.json``: cost, trace, and quality on held-out pictures.
    """
    images = _mostly_natural(training(data, limit=limit))
    about = {"config": config.model_dump(mode="json"), "seed": seed, "pictures": len(images)}
    wanted = [messages[i] if messages else core.random_message(config.bits, s) for i, s in enumerate(seeds)]
    file = extractor or out / "extractor.safetensors"
    out.mkdir(parents=True, exist_ok=True)
    with FolderLock(out):
        record = _begun(out, about)
        left = {
            key: message for key, message in zip(seeds, wanted, strict=True)
            if not _fits(out, key, message, file) or not any(k["seed"] == key for k in record["keys"])
        }  # fmt: skip
        record["keys"] = [known for known in record["keys"] if known["seed"] not in left]
        record |= {"command": command, "device": torch.cuda.get_device_name() if device == "cuda" else "CPU"}
        decoder = decoder_for(images, device)
        unseen = decoder_for(held_out(data).images[: min(1000, limit or 1000)], device)
        if extractor is None and "extractor" not in record:
            context = Context(device=device, seed=seed, progress=progress)
            reader, cost = core.train_extractor(decoder, config, context, effort.minutes)
            save_weights(reader, file)
            record["extractor"] = {
                "steps": cost.steps, "seconds": round(cost.seconds, 1), "trace": cost.trace,
            }  # fmt: skip
            write_json(out / RECORD, record)
        reader = load_extractor(file, device)  # in half precision: keys are trained against what ships
        record["null"] = null_of(reader, unseen)
        for key, message in left.items():
            context = Context(device=device, seed=key, progress=progress)
            found = core.train_key(decoder, reader, message, config, context, effort.key_minutes)
            factors, balance, cost = found
            origin = {"extractor": hash_file(file), "base": hash_file(zoo.weight_file(AUTOENCODER))}
            write_key(out / f"key-{key}.safetensors", factors, {"message": message, **origin})
            record["keys"].append(
                {"seed": key, "message": message, "steps": cost.steps, "seconds": round(cost.seconds, 1),
                 "balance": balance.plain(), **quality(reader, unseen, factors, message), "trace": cost.trace}
            )  # fmt: skip
            write_json(out / RECORD, record)
    return record


def _fits(out: Path, seed: int, message: str, extractor: Path) -> bool:
    """Whether a key lies in the folder.

    Raises
    ------
    InputError
        One lies there under its name that has another message, extractor or autoencoder.
    """
    file = out / f"key-{seed}.safetensors"
    if not file.is_file():
        return False
    known = read_about(file)
    now = {"message": message, "extractor": hash_file(extractor) if extractor.is_file() else None}
    now["base"] = hash_file(zoo.weight_file(AUTOENCODER))
    other = [name for name, value in now.items() if known.get(name) != value]
    if other:
        what = {"base": "autoencoder"}.get(other[0], other[0])
        raise InputError(f"{file} was trained with another {what}: give another folder with --out")
    return True


def _begun(out: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Return what an earlier call with the same settings came to, or a new record.

    Raises
    ------
    InputError
        The folder holds a training with other settings.
    """
    if not (out / RECORD).is_file():
        return {**about, "keys": []}
    known = read_training(out)
    other = [name for name, value in about.items() if known.get(name) != value]
    if other:
        raise InputError(f"{out} holds a training with another {other[0]}: give another folder with --out")
    return known


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
    held-out pictures as stored.

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
