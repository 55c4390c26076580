"""Jobs behind ``brainlab zoo``: plain data in, plain data out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab.errors import InputError
from lab.progress import Progress, silent


def info(name: str) -> dict[str, Any]:
    """Return a model's name, summary, weight file, size and card."""
    from lab import zoo

    summary = zoo.summary(name)
    file = zoo.weight_file(name)
    size = round(file.stat().st_size / 1e6, 2) if file.is_file() else None
    return {
        "name": name,
        "what": summary,
        "weights": file.name if size else None,
        "megabytes": size,
        **zoo.info(name),
    }


def train(
    name: str,
    data: Path,
    out: Path,
    *,
    device: str = "auto",
    dry_run: bool = False,
    progress: Progress = silent,
    **options: Any,
) -> dict[str, Any]:
    """Train a shipped model; return the training part of its card (with ``dry_run``, what would be done)."""
    from lab import zoo

    zoo.summary(name)
    if not data.is_dir():
        raise InputError(f"{data}: no such folder; --data wants the folder with the training pictures")
    device = choose_device(device)
    if dry_run:
        target = {"weights": str(zoo.weight_file(name)), "state": str(out / f"{name}.state.safetensors")}
        return {"would train": name, "data": str(data), "device": device, **target, **options}
    from lab.zoo.train import run

    return run(name, data, out, device=device, progress=progress, **options)


def sample(
    name: str,
    out: Path,
    *,
    n: int = 16,
    steps: int = 20,
    seed: int = 0,
    device: str = "auto",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Draw pictures under the learned null condition and write them as one PNG grid.

    Euler steps of the rectified flow from noise (s = 1) to the latent (s = 0), as the denoisers were trained.
    """
    from lab import zoo

    if name not in zoo.DENOISERS:
        raise InputError(f"model {name!r} draws no pictures; denoisers are {', '.join(zoo.DENOISERS)}")
    import torch

    device = choose_device(device)
    denoiser, decoder = zoo.load(name, device), zoo.load("autoencoder-64", device)
    x = torch.randn(n, 8, 16, 16, generator=torch.Generator().manual_seed(seed)).to(device)
    condition = zoo.null_tokens(name).to(device).expand(n, -1, -1)
    with torch.inference_mode():
        for step in range(steps):
            progress(step, steps, "sampling")
            time = torch.full((n,), 1000.0 * (1 - step / steps), device=device)
            x = x - denoiser(x, time, encoder_hidden_states=condition).sample / steps
        pictures = decoder.decode(x).clamp(0, 1).cpu()
    progress(steps, steps, "sampling")
    _write_grid(pictures.permute(0, 2, 3, 1).numpy(), out)
    return {"model": name, "pictures": n, "steps": steps, "seed": seed, "device": device, "file": str(out)}


def choose_device(wanted: str) -> str:
    """Return ``cpu`` or ``cuda``; ``auto`` takes the GPU where there is one.

    Raises
    ------
    InputError, HardwareError
        If the word is not known, or CUDA is asked for where there is none.
    """
    if wanted not in {"auto", "cpu", "cuda"}:
        raise InputError(f"device {wanted!r} is not known; must be one of auto, cpu, cuda")
    import torch

    from lab.errors import HardwareError

    if wanted == "cuda" and not torch.cuda.is_available():
        raise HardwareError(
            "device cuda: no CUDA device is visible here; use --device cpu (brainlab doctor says more)"
        )
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def _write_grid(pictures: Any, out: Path) -> None:
    import numpy as np
    from PIL import Image

    from lab.files import replacing

    columns = int(np.ceil(np.sqrt(len(pictures))))
    rows = -(-len(pictures) // columns)
    side = pictures.shape[1]
    sheet = np.ones((rows * (side + 2), columns * (side + 2), 3), np.float32)
    for i, picture in enumerate(pictures):
        y, x = divmod(i, columns)
        sheet[y * (side + 2) : y * (side + 2) + side, x * (side + 2) : x * (side + 2) + side] = picture
    with replacing(out) as temporary:
        Image.fromarray((sheet * 255).round().astype(np.uint8)).save(temporary, format="PNG")
