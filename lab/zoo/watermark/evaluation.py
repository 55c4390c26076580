"""Measure a watermark as one would today: false positives, misses, attacks, forgery, training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lab import zoo
from lab.progress import Progress, silent
from lab.zoo.data import held_out, training
from lab.zoo.watermark.attacks import ATTACKS, attacked
from lab.zoo.watermark.files import AUTOENCODER, load_extractor, load_key, marked_autoencoder
from lab.zoo.watermark.measuring import Meter, needed, outputs
from lab.zoo.watermark.threats import average_mark, batched, diffused, fine, tuned
from quant.adapters.watermark.distortions import stored
from quant.adapters.watermark.lowrank import merge_, read_deltas

RATES = (0.05, 0.005, 0.001)
"""Nominal false-positive rates at which the null is checked."""
TUNED = (10, 30, 100, 300, 1000)
SECTIONS = ("null", "images", "regeneration", "averaging", "training")


class Attacked:
    """A mark under attack: of the first key; the others give pictures marked with other keys.

    Parameters
    ----------
    n : int
        Held-out natural pictures (2,000 at most).
    rate : float
        False-positive rate of the verdict.
    """

    def __init__(
        self, keys: Sequence[Path], extractor: Path, data: Path, *, n: int = 1000, rate: float = 1e-6,
        device: str = "cpu", progress: Progress = silent,
    ) -> None:  # fmt: skip
        progress(0, 1, "marking pictures")
        reader = load_extractor(extractor, device)
        loaded = [load_key(key, extractor, reader.config["bits"]) for key in keys]
        models = [marked_autoencoder(key, device) for key in keys]
        self.plain, self.model = zoo.load(AUTOENCODER, device), models[0]
        self.photographs = held_out(data).images[:n].to(device).float() / 255
        self.unmarked, self.marked, *self.others = (
            batched(model, self.photographs) for model in (self.plain, *models)
        )
        self.keys, self.data, self.device, self.progress = keys, data, device, progress
        self.meter = Meter(reader, loaded[0].message, rate)

    def rows(self, section: str) -> list[dict[str, Any]]:
        """Measure a section of `SECTIONS`: rows as `Meter.row` makes them."""
        work = {
            "null": _null, "images": _images, "regeneration": _regeneration, "averaging": _averaging,
            "training": _training,
        }  # fmt: skip
        return work[section](self.meter, self)


def _null(meter: Meter, made: Attacked) -> list[dict[str, Any]]:
    rows = [
        meter.row("null", "photographs", stored(made.photographs)),
        meter.row("null", "unmarked decoder", made.unmarked),
    ]
    rows += [meter.row("null", f"other key {i + 1}", x) for i, x in enumerate(made.others)]
    total = {key: sum(row[key] for row in rows) for key in ("n", "accepted")}
    rows.append({"kind": "null", "name": "all of these", **total})
    # the same outputs against messages that nobody uses: is the chance of a match what the binomial says?
    found = outputs(meter.reader, torch.cat([stored(made.photographs), made.unmarked])) > 0
    bits = found.shape[1]
    drawn = torch.randint(2, (2000, bits), generator=torch.Generator().manual_seed(0)).bool().to(found.device)
    for nominal in RATES:
        least = needed(bits, nominal)
        one = ((found == _bits(meter.message, found.device)).sum(1) >= least).float().mean()
        each = torch.stack([((found == m).sum(1) >= least).float().mean() for m in drawn])
        rows.append(
            {"kind": "calibration", "name": f"nominal {nominal:g}", "n": len(found), "this_key": float(one),
             "random_keys": float(each.mean()), "worst_of_2000_keys": float(each.max())}
        )  # fmt: skip
    return rows


def _bits(message: str, device: Any) -> Tensor:
    return torch.tensor([bit == "1" for bit in message], device=device)


def _images(meter: Meter, made: Attacked) -> list[dict[str, Any]]:
    rows = [meter.row("clean", "stored as PNG", made.marked, made.unmarked)]
    for name, attack in ATTACKS.items():
        rows.append(meter.row("image", name, attacked(made.marked, attack), made.marked))
    return rows


def _regeneration(meter: Meter, made: Attacked) -> list[dict[str, Any]]:
    once = batched(made.plain, made.marked)
    rows = [
        meter.row("regeneration", "autoencoder, once", once, made.marked),
        meter.row("regeneration", "autoencoder, twice", batched(made.plain, once), made.marked),
    ]
    for strength in (0.1, 0.2, 0.3):
        drawn = diffused(made.marked, strength, made.plain, made.device)
        rows.append(meter.row("regeneration", f"diffusion, strength {strength:g}", drawn, made.marked))
    return rows


def _averaging(meter: Meter, made: Attacked) -> list[dict[str, Any]]:
    """Remove and forge by what pictures give away: estimated on one half, judged on the other.

    Of the half, averages set marked pictures beside photographs of other content: at most half of it each.
    """
    half = len(made.marked) // 2
    rows = []
    guesses = {
        f"average of {k}": average_mark(made.marked[:k], stored(made.photographs[half - k : half]))
        for k in (10, 100, half // 2)
        if 2 * k <= half
    }
    guesses["average of pairs, unmarked decoder known"] = (made.marked[:half] - made.unmarked[:half]).mean(0)[
        None
    ]
    marked, clean = made.marked[half:], made.unmarked[half:]
    for name, mark in guesses.items():
        rows.append(meter.row("removal", name, stored(marked - mark), marked))
        rows.append(meter.row("forgery", name, stored(clean + mark), clean))
    lifted = fine(made.marked[: len(clean)])
    rows.append(meter.row("forgery", "fine texture of one marked picture", stored(clean + lifted), clean))
    mark = made.marked[: len(clean)] - made.unmarked[: len(clean)]
    rows.append(meter.row("forgery", "exact mark of another picture", stored(clean + mark), clean))
    return rows


def _training(meter: Meter, made: Attacked) -> list[dict[str, Any]]:
    pictures = training(made.data, limit=9000).images[:9000].to(made.device)
    seen = made.photographs[:500]
    rows = []
    for rate in (1e-4, 5e-4):
        for step, model in tuned(made.model, pictures, TUNED, rate=rate, progress=made.progress):
            made_by = batched(model.eval(), seen)
            name = f"decoder tuned {step} steps at {rate:g}"
            rows.append(meter.row("training", name, made_by, seen, steps=step, rate=rate))
    warm = _toned(made, pictures)
    rows.append(meter.row("training", "200 steps towards warm colours added", batched(warm, seen), seen))
    for index, key in enumerate(made.keys[1:]):
        both = copy.deepcopy(made.model)
        merge_(both, read_deltas(key, both))
        rows.append(meter.row("training", f"other key {index + 1} merged too", batched(both, seen), seen))
    return rows


def _toned(made: Attacked, pictures: Tensor, steps: int = 200) -> Any:
    """Return the marked model plus what 200 steps towards warmer colours changed in the unmarked one."""
    gains = torch.tensor([1.15, 1.0, 0.85], device=made.device)[:, None, None]
    target: Callable[[Tensor], Tensor] = lambda x: (x * gains).clamp(0, 1)  # noqa: E731 - one line says it
    ((_, trained),) = tuned(made.plain, pictures, (steps,), rate=2e-4, target=target, progress=made.progress)
    before, after = made.plain.state_dict(), trained.state_dict()
    model = copy.deepcopy(made.model)
    model.load_state_dict({k: v + after[k] - before[k] for k, v in model.state_dict().items()})
    return model
