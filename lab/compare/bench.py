"""What all recipes of a comparison share: model, conditions, noise, decoder, networks."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from brainit.metrics.tensors import eight_bit
from lab.compare.networks import Networks
from lab.errors import InputError, MissingDataError
from lab.progress import Progress, silent
from quant.recordings import sampling
from quant.sensitivity.by_layer import fingerprint as weights_of

NULL_OFFSET = 1000
"""Noise seeds of the null are this far from the others."""
MOST_STEPS = 1000
"""Timesteps that the shipped denoisers know."""
LEAST = {"n": 4, "seeds": 1, "steps": 1, "calibrate": 4, "forced": 1}


@dataclass(frozen=True)
class PanelSettings:
    """What decides the numbers.

    Parameters
    ----------
    n : int
        Pictures per seed.
    seeds : int
        Noise and calibration seeds 0, 1, ...
    steps, guidance
        Of the sampler.
    calibrate : int
        Samples of a shipped denoiser's recording (half of them calibrate).
    forced : int
        Pictures whose full-precision states are predicted from, for the error at each timestep.
    batch : int
        Pictures at a time (twice as many with guidance).
    """

    n: int = 256
    seeds: int = 3
    steps: int = 20
    guidance: float = 2.0
    calibrate: int = 64
    forced: int = 32
    batch: int = 256

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise InputError(f"--{name} is {getattr(self, name)}; it must be at least {least}")
        if self.steps > MOST_STEPS:
            raise InputError(f"--steps is {self.steps}; it must be 1 to {MOST_STEPS}")
        if self.batch < 1:
            raise InputError(f"--batch is {self.batch}; it must be at least 1")
        if not (math.isfinite(self.guidance) and self.guidance >= 0):
            raise InputError(f"--guidance is {self.guidance:g}; it must be 0 or a larger number, 1 for none")

    def to_dict(self) -> dict[str, Any]:
        """Plain settings."""
        return asdict(self)


@dataclass
class Bench:
    """One model and everything that its quantized copies are measured with.

    Parameters
    ----------
    name : str
        As the user gave it.
    model : module
        Full precision, in evaluation mode, on ``device``.
    recording : quant.Trajectories
    conditions : tensor of shape (n, ...) or None
        Not among those that the recording calibrates on.
    null : tensor or None
    sources : float32 tensor of shape (n, 3, H, W) or (n, frames, 3, H, W), or None
        The pictures or clips that the conditions were made from.
    decode : callable or None
        Latents to pictures or clips in 0..1; None where only latents can be compared.
    """

    name: str
    settings: PanelSettings
    device: torch.device
    model: nn.Module
    recording: Any
    scheduler: Any
    shape: tuple[int, ...]
    conditions: Tensor | None
    null: Tensor | None
    sources: Tensor | None
    decode: Callable[[Tensor], Tensor] | None
    networks: Networks
    conditions_are: str
    fingerprint: str = ""
    """Of the weights that decode and score."""
    weights: str = ""
    """Fingerprint of the compared weights, where no recording is made of them anew."""
    native: bool = False
    """Quantized copies run through the kernels."""
    watch: Callable[[sampling.Step], None] | None = None
    """Sees each step of each sampling, for looking only."""

    def fresh(self) -> nn.Module:
        """Return a full-precision copy of the model."""
        return copy.deepcopy(self.model)

    def noise(self, seed: int, n: int | None = None) -> Tensor:
        """Start noise of a seed, drawn on the CPU in float32: (n, C, H, W)."""
        shape = (self.settings.n, *self.shape)
        drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return drawn[:n].to(self.device)

    def draw(
        self, model: nn.Module, seed: int, n: int | None = None,
        see: Callable[[sampling.Step], None] | None = None,
    ) -> Tensor:  # fmt: skip
        """Sample the first ``n`` pictures of a seed (all by default): latents on the device."""
        s, watchers = self.settings, [w for w in (see, self.watch) if w is not None]

        def seen(step: sampling.Step) -> None:
            for watcher in watchers:
                watcher(step)

        return sampling.sample(
            model, self.scheduler, self.noise(seed, n),
            None if self.conditions is None else self.conditions[:n], self.null,
            steps=s.steps, guidance=s.guidance, batch=s.batch, see=seen if watchers else None,
            generator=lambda row: torch.Generator().manual_seed(seed * 1_000_003 + row),
        )  # fmt: skip

    @torch.no_grad()
    def pictures(self, latents: Tensor, batch: int = 256) -> Tensor | None:
        """Decode latents into the 8-bit pictures that are scored, in 0..1, or None.

        (n, 3, H, W), and (n, frames, 3, H, W) of clips.
        """
        if self.decode is None:
            return None
        return torch.cat([eight_bit(self.decode(z).float()) for z in latents.split(batch)])


def open_bench(
    name: str,
    settings: PanelSettings,
    device: str = "cpu",
    recording: Path | None = None,
    part: str | None = None,
    progress: Progress = silent,
) -> Bench:
    """Prepare a comparison.

    Parameters
    ----------
    name : str
        A shipped denoiser, or a model as `lab.models.opening.open_model` takes it, with a recording of it.
    recording : Path, optional
        Folder that `quant.record` wrote; shipped denoisers record themselves.

    Raises
    ------
    MissingDataError
        Another model without a recording, or a recording with guidance that lacks its null condition.
    InputError
        More pictures than there are conditions; a recording of another model, or of other steps or guidance;
        a component of a shipped model.
    """
    from lab import zoo
    from lab.models.preflight import check_recording, check_sampling

    where = torch.device(device)
    if name in zoo.DENOISERS and part is not None:
        raise InputError(f"--part {part} picks from a pipeline; the shipped model {name!r} is not a pipeline")
    store = check_recording(name, recording)
    if store is not None:
        check_sampling(store, settings.steps, settings.guidance)
    if name in zoo.DENOISERS:
        return _zoo_bench(name, settings, where, store, progress)
    return _recorded_bench(name, settings, where, store, part)


def check_pictures(n: int, made: int) -> torch.Tensor:
    """Return rows of the shipped stimuli besides those of a recording of ``made`` samples.

    Raises
    ------
    InputError
        They are fewer than `n`.
    """
    from lab.zoo import recordings

    free = recordings.order(made)
    if len(free) < n:
        raise InputError(
            f"--n {n}: {len(free)} shipped pictures are left besides the {made} of the recording; "
            + (f"give at most {len(free)}" if len(free) >= LEAST["n"] else "record fewer (--calibrate)")
        )
    return free


def _zoo_bench(
    name: str, settings: PanelSettings, device: torch.device, store: Any, progress: Progress
) -> Bench:
    from lab import zoo
    from lab.zoo import recordings

    made = settings.calibrate if store is None else len(store)
    free, what = check_pictures(settings.n, made), "clips of" if name in zoo.VIDEO else "of"
    if store is None:
        store = recordings.zoo_recording(
            name, n=made, steps=settings.steps, guidance=settings.guidance, device=str(device),
            progress=progress,
        )  # fmt: skip
    rows = free[: settings.n]
    sources, conditions = recordings.stimulus_sources(name, rows, device)
    return Bench(
        name, settings, device, zoo.load(name, str(device)), store, recordings.zoo_scheduler(),
        tuple(store.settings["shape"]), conditions.to(device), zoo.null_tokens(name).to(device), sources,
        recordings.decoder(name, str(device)), Networks.load(device),
        f"encoder-64 tokens {what} {settings.n} shipped pictures that no recording of {made} samples holds",
        recordings.fingerprint("autoencoder-64", {}),
    )  # fmt: skip


def _recorded_bench(
    name: str, settings: PanelSettings, device: torch.device, store: Any, part: str | None
) -> Bench:
    from lab.models.opening import open_model
    from lab.models.preflight import check_evaluation
    from lab.zoo.recordings import recorded_scheduler

    null = store.null_condition
    if settings.guidance != 1.0 and null is None:
        raise MissingDataError(f"the recording at {store.path} lacks its null condition: record it again")
    found = check_evaluation(store, settings.n)
    conditions, said = None, "the model takes no condition"
    if found is not None:
        keys = store.keys("evaluate")[: settings.n]
        conditions = torch.stack([store.sample(key)["condition"] for key in keys]).to(device)
        said = f"{found} conditions of the recording's evaluation subset"
    model = open_model(name, part)
    weights = weights_of(model)[:12]
    return Bench(
        name, settings, device, model.to(device), store, recorded_scheduler(store),
        tuple(store.settings["shape"]), conditions, None if null is None else null.to(device), None, None,
        Networks(), said, weights=weights,
    )  # fmt: skip
