"""Who draws for `variants`: a shipped denoiser with its decoder, or any model on a recording of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.previews import Preview, step_previews

if TYPE_CHECKING:
    from torch import Tensor

    from quant.recordings.sampling import Step

See = Callable[["Step"], None]
DECODED = "decoded pictures"
CHANNELS = "first channels of what is sampled, scaled to full precision's range"


@dataclass(frozen=True)
class Painter:
    """A model in full precision, and how its pictures come about.

    Parameters
    ----------
    model : module
    draw : callable
        ``draw(model, see) -> latents`` on the CPU, always from the same noise and conditions.
    decode : callable
        Latents to pictures (n, 3, H, W) in 0..1.
    show : callable
        ``show(name, watcher)`` returns what sees each step for previews, or None.
    pictures_are : str
        What the pictures show.
    pictures_of : list of str
        What each was drawn for: a shipped stimulus, a class, a recorded condition, or noise alone.
    """

    model: Any
    draw: Callable[[Any, See], Tensor]
    decode: Callable[[Tensor], Tensor]
    show: Callable[[str, Callable[[Preview], None]], See | None]
    pictures_are: str
    pictures_of: list[str]


def shipped(name: str, n: int, steps: int, guidance: float, seed: int, device: str, progress: Any) -> Painter:
    """Return the painter of a shipped denoiser; conditions are stimuli that no recipe was calibrated on."""
    from lab import zoo
    from lab.zoo import sampling
    from lab.zoo.recordings import order, stimulus_tokens

    autoencoder = zoo.load("autoencoder-64", device)
    rows = order()[-n:]  # recordings take the first ones
    sampler = sampling.SamplerSettings(steps=steps, guidance=guidance)

    def draw(model: Any, see: See) -> Tensor:
        return sampling.sample(
            model, stimulus_tokens(rows, "cpu"), zoo.null_tokens(name), sampling.draw_noise(n, seed), sampler,
            progress=progress, see=see,
        )  # fmt: skip

    def decode(latents: Tensor) -> Tensor:
        return autoencoder.decode(latents.to(device)).clamp(0, 1).cpu()

    def show(what: str, watcher: Any) -> See | None:
        return step_previews(watcher, autoencoder.decode, f"sampling, {what}", steps)

    return Painter(zoo.load(name, device), draw, decode, show, DECODED, stimuli_named(rows.tolist()))


def recorded(name: str, recording: Path, n: int, steps: int, guidance: float, seed: int) -> Painter:
    """Return the painter of any model: conditions and sampler of its recording's evaluation subset.

    Raises
    ------
    InputError
        Other steps or guidance than the recording's; fewer conditions than pictures.
    """
    from lab import zoo
    from lab.compare.bench import PanelSettings, open_bench
    from lab.zoo import recordings

    bench = open_bench(name, PanelSettings(n=n, seeds=1, steps=steps, guidance=guidance), recording=recording)
    window: list[Tensor] = []  # of full precision, which is drawn first

    def decode(latents: Tensor) -> Tensor:
        channels = latents[:, :3] if latents.shape[1] >= 3 else latents[:, :1].expand(-1, 3, -1, -1)
        if not window:
            window.extend((channels.min(), channels.max()))
        low, high = window
        return ((channels - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)

    def draw(model: Any, see: See) -> Tensor:
        return bench.draw(model, seed, see=see).float().cpu()

    if name in zoo.DENOISERS:
        named = stimuli_named(recordings.order(len(bench.recording))[:n].tolist())
    else:
        keys = bench.recording.keys("evaluate")[:n]
        named = conditions_named(bench.conditions, keys, seed, n)
    return Painter(bench.model, draw, decode, lambda what, watcher: None, CHANNELS, named)


def stimuli_named(rows: Sequence[int]) -> list[str]:
    """Return the names of shipped stimuli: their numbers and classes, which a stimulus may miss."""
    from lab.zoo import stimuli

    labels = stimuli.load()[1]
    return [f"shipped stimulus {row} (made for: {labels[row]})" for row in rows]


def conditions_named(conditions: Tensor | None, keys: Sequence[int], seed: int, n: int) -> list[str]:
    """Return the names of `n` pictures by their conditions.

    Parameters
    ----------
    conditions : tensor of shape (n, T, D), (n,) for class labels, or None
    keys : sequence of int
        Samples of the recording that the conditions are of.
    seed : int
        Of the noise, which alone tells pictures of a model without conditions apart.
    """
    if conditions is None:
        return [f"noise {number} of seed {seed}" for number in range(1, n + 1)]
    if conditions.ndim == 1:
        return [f"class {label}" for label in conditions.tolist()]
    return [f"condition of sample {key} of the recording" for key in keys]
