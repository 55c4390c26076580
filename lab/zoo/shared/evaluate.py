"""Measure the shared network on simulated people that nothing was trained on, beside its rivals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from brainit import metrics
from brainit.datasets.simulated.crowd import Person
from brainit.network.shared import SharedNetwork
from brainit.voxels.ridge import fit_ridge
from lab.files import write_json
from lab.images import sheet, write_picture
from lab.metrics.efficientnet import NAME as NETWORK
from lab.progress import Progress, silent
from lab.zoo import HOME, load, load_file, null_tokens, people
from lab.zoo.cortex import NAME as CORTEX
from lab.zoo.people import Seen
from lab.zoo.shared import DENOISER, NAME
from lab.zoo.shared.painting import SAMPLER, Painter, Scores, intervals
from lab.zoo.shared.pupils import Pupil
from lab.zoo.shared.run import EXTERNAL, SCANNED, VOXELS, look
from lab.zoo.train import merge_card, options_of

TRIALS, CEILINGS = (150, 300, 600, 3000), (0.1, 0.3)
REPEATS, SHOWN, GUIDANCE = 3, 14, 3.0
SHEET = (300, 3000)
UNSEEN = {"alexnet": (151, False), "efficientnet": (152, True)}


def evaluate(
    data: Path,
    out: Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = silent,
    before: Path | None = None,
    **sizes: int | None,
) -> dict[str, Any]:
    """Read newcomers from few trials and many by every method; keep the numbers in the card.

    While it measures, what is there so far stands in ``out/shared-64.json``.

    Parameters
    ----------
    data, out : Path
        Pictures; where the sheet of pictures goes.
    before : Path, optional
        Other weights of the network to stand beside, such as those of stage 1.
    **sizes
        ``n`` held-out natural pictures, the first ones, each shown three times; ``voxels``, ``scanned`` and
        ``external`` as in training.

    Returns
    -------
    dict
        What the card says under ``newcomers``. Scores are ``[mean, low, high]``, 95 % over pictures;
        ``above_ridge`` is the paired difference to ridge.
    """
    scanned, external = sizes.get("scanned") or SCANNED, sizes.get("external")
    wanted = (scanned, EXTERNAL if external is None else external, sizes.get("n") or people.TESTED)
    images, n_scanned = people.tested_pictures(data, *wanted)
    seen = people.see(images, n_scanned, device, latents=False)
    networks = {"network": load(NAME, device)}
    if before is not None:
        networks = {"stage 1": load_file(before)[0].to(device), **networks}
    test = _Test(seen, networks, Painter.of(images[n_scanned:], seed, device), seed)
    rows: list[dict[str, Any]] = []
    names: list[str] = []
    given = f" --before {before.name}" if before else ""
    given += options_of(**sizes, seed=seed or None)
    card = {
        "measured_by": f"brainlab zoo evaluate {NAME}{given}",
        "sampler": f"Euler, {SAMPLER.steps} steps, guidance {GUIDANCE:g}, from tokens alone, one sample a "
        f"picture, seed {seed}, {DENOISER}",
        "n": len(test.tested),
        "cortex": {"alexnet": CORTEX, "efficientnet": f"{NETWORK}, the network that scores: favourable"},
        "scored_by": f"two-way and top-1 of n: {NETWORK}, head",
        "rows": rows,
        "sheet_rows": names,
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
    }
    shown = [test.painter.truth[:SHOWN]]
    asked = [(c, t) for c in CEILINGS for t in TRIALS if t <= n_scanned]
    for kind, (person, favourable) in UNSEEN.items():
        (answered,) = look([Person(person, sizes.get("voxels") or VOXELS)], seen, favourable, progress)
        for k, (ceiling, trials) in enumerate(asked):
            progress(k, len(asked), f"newcomer reading {kind}")
            pupils = {  # the same trials, by each network's own token space, prior and clusters
                name: Pupil.scan(network, answered, seen, ceiling, trials, seed + 7)
                for name, network in networks.items()
            }
            row, made = test.row(pupils)
            rows.append({"cortex": kind, "ceiling": ceiling, "trials": trials, **row})
            if trials in SHEET:
                shown += [made[m][:SHOWN] for m in ("ridge", "network")]
                names += [f"{kind}, ceiling {ceiling}, {trials} trials: {m}" for m in ("ridge", "network")]
            write_json(out / f"{NAME}.json", card)  # the card that ships changes when all is measured
    width = min(SHOWN, len(test.tested))
    # the card's sheet shows nothing of the data set, only what was made of it
    for part, file in ((shown, out / f"{NAME}.webp"), (shown[1:], HOME / "cards" / f"{NAME}.webp")):
        write_picture(sheet(np.concatenate(part), width, gap=2), file)
    merge_card(NAME, {"newcomers": card})
    return card


class _Test:
    def __init__(self, seen: Seen, networks: dict[str, SharedNetwork], painter: Painter, seed: int) -> None:
        self.seen, self.networks, self.painter, self.seed = seen, networks, painter, seed
        device = seen.tokens.device
        self.device = str(device)
        self.tested = torch.arange(seen.n_scanned, len(seen.tokens), device=device)
        self.denoiser, self.null = load(DENOISER, self.device), null_tokens(DENOISER)

    def row(self, pupils: dict[str, Pupil]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Score one newcomer, read by each network, by every method; return pictures as well."""
        draw = torch.Generator(device=self.device).manual_seed(self.seed + 1)
        pupil = pupils["network"]
        x = pupil.look(self.tested, REPEATS, draw)
        reading, space = pupil.reading, self.networks["network"].space
        fitted = fit_ridge(
            pupil.trials.cpu().numpy(), self.seen.tokens[pupil.scanned].cpu().numpy(), device=self.device
        )
        tokens = {
            "ridge": torch.from_numpy(fitted.predict(x.cpu().numpy()).astype(np.float32)).to(x),
            "shared prior": space.tokens(x @ reading.bayes + reading.offset),
            "read-out": space.tokens(x @ reading.readout + reading.offset),
        }
        for name, network in self.networks.items():
            with torch.no_grad():
                tokens[name] = network(x, pupils[name].voxels).flatten(1)
        true = self.seen.tokens[self.tested]
        spread = (true - true.mean(0)).square().sum()
        out: dict[str, Any] = {}
        made, scores = {}, {}
        for name, guess in tokens.items():
            shaped = guess.view(len(guess), 17, -1)
            made[name], scores[name] = self.painter.paint(self.denoiser, self.null, shaped, GUIDANCE)
            explained = round(1 - float((guess - true).square().sum() / spread), 4)
            out[name] = {"tokens_explained": explained, **intervals(scores[name])}
            if name != "ridge":
                out[name]["above_ridge"] = above(scores[name], scores["ridge"])
        return out, made


def above(ours: Scores, theirs: Scores) -> dict[str, list[float]]:
    """Return the paired difference of each score: ``[mean, low, high]``."""
    return {k: [round(float(v), 4) for v in metrics.paired_interval(ours[k], theirs[k])] for k in ours}
