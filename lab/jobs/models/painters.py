"""Who draws for `variants`: a shipped denoiser with its decoder, or any model on a recording of it."""

from __future__ import annotations

from collections.abc import Callable
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
    """

    model: Any
    draw: Callable[[Any, See], Tensor]
    decode: Callable[[Tensor], Tensor]
    show: Callable[[str, Callable[[Preview], None]], See | None]
    pictures_are: str


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

    return Painter(zoo.load(name, device), draw, decode, show, DECODED)


def recorded(name: str, recording: Path, n: int, steps: int, guidance: float, seed: int) -> Painter:
    """Return the painter of any model: conditions and sampler of its recording's evaluation subset.

    Raises
    ------
    InputError
        Other steps or guidance than the recording's; fewer conditions than pictures.
    """
    from lab.compare.bench import PanelSettings, open_bench

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

    return Painter(bench.model, draw, decode, lambda what, watcher: None, CHANNELS)
