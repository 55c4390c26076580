"""Jobs behind ``brainlab zoo``: plain data in, plain data out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab.errors import InputError
from lab.progress import Progress, silent

TOKENS = ("true", "predicted")
SIZES = ("voxels", "scanned", "external", "simple")


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
    decoder_only: bool = False,
    on: str = "true",
    progress: Progress = silent,
    **options: Any,
) -> dict[str, Any]:
    """Train a shipped model; return the training part of its card (with ``dry_run``, what would be done).

    ``decoder_only`` trains the autoencoder's decoder further instead, its encoder frozen. ``on`` says what
    tokens a denoiser learns from: ``"true"``, or ``"predicted"`` from simulated fMRI, which trains further.
    """
    if on not in TOKENS:
        raise InputError(f"tokens {on!r} are not known; allowed for --on: {', '.join(TOKENS)}")
    sizes = [k for k in SIZES if options.get(k) is not None]
    if on == "true":
        if sizes:
            raise InputError(f"--{sizes[0]} is for training on predicted tokens; add --on predicted")
        options = {k: v for k, v in options.items() if k not in SIZES}
    elif options.pop("limit", None) is not None:
        raise InputError("--limit is for training on true tokens; give --scanned and --external instead")
    elif options.pop("further", False):
        raise InputError("--on predicted always trains further; leave --further out")
    from lab import zoo

    zoo.summary(name)
    _folder(data)
    device = choose_device(device)
    if dry_run:
        target = {"weights": str(zoo.weight_file(name)), "state": str(out)}
        what = "would refine" if decoder_only else "would train"
        return {what: name, "data": str(data), "device": device, "on": on, **target, **options}
    from lab.zoo.train import refine, run, run_on_predicted

    job = refine if decoder_only else run_on_predicted if on == "predicted" else run
    return job(name, data, out, device=device, progress=progress, **options)


def evaluate(
    name: str,
    data: Path,
    out: Path,
    *,
    device: str = "auto",
    on: str = "true",
    progress: Progress = silent,
    **options: Any,
) -> dict[str, Any]:
    """Measure a shipped model on held-out pictures and write the result into its card; return that part.

    With ``on="predicted"`` a denoiser is measured on tokens predicted from people that nothing learned from.
    """
    from lab import zoo

    zoo.summary(name)
    _folder(data)
    device = choose_device(device)
    if on not in TOKENS:
        raise InputError(f"tokens {on!r} are not known; allowed for --on: {', '.join(TOKENS)}")
    if on == "predicted":
        if options.pop("n_simple", None) is not None:
            raise InputError("--n-simple is for true tokens; leave it out with --on predicted")
        from lab.zoo.evaluate_predicted import evaluate_into_card as on_predicted

        return on_predicted(name, data, out, device=device, progress=progress, **options)
    other = [k for k in ("before", *SIZES[:3]) if options.pop(k, None) is not None]
    if other:
        raise InputError(f"--{other[0]} is for measuring on predicted tokens; add --on predicted")
    options["n"] = options["n"] or 1000
    from lab.zoo.evaluate import evaluate_into_card

    return evaluate_into_card(name, data, out, device=device, progress=progress, **options)


def stimuli(
    data: Path, out: Path, *, device: str = "auto", progress: Progress = silent, **options: Any
) -> dict[str, Any]:
    """Draw the pictures that ship for simulated subjects; return what was written."""
    _folder(data)
    device = choose_device(device)
    from lab.zoo import stimuli as made

    card = made.make(data, out, device=device, progress=progress, **options)
    size = round(made.SHEET.stat().st_size / 1e6, 2)
    return {"file": str(made.SHEET), "megabytes": size, **{k: v for k, v in card.items() if k != "labels"}}


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
    """Draw pictures under the learned null condition and write them as one PNG or WebP sheet."""
    from lab import zoo

    if name not in zoo.DENOISERS:
        raise InputError(f"model {name!r} draws no pictures; denoisers are {', '.join(zoo.DENOISERS)}")
    import numpy as np
    import torch

    from lab.images import sheet, write_picture
    from lab.zoo import sampling as decoder

    device = choose_device(device)
    settings = decoder.SamplerSettings(steps=steps, guidance=1.0)
    denoiser, autoencoder = zoo.load(name, device), zoo.load("autoencoder-64", device)
    null, noise = zoo.null_tokens(name), decoder.draw_noise(n, seed)
    latents = decoder.sample(denoiser, null.expand(n, -1, -1), null, noise, settings, progress=progress)
    with torch.inference_mode():
        pictures = autoencoder.decode(latents.to(device)).cpu().permute(0, 2, 3, 1).numpy()
    write_picture(sheet(pictures, int(np.ceil(np.sqrt(n))), gap=2), out)
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


def _folder(data: Path) -> None:
    if not data.is_dir():
        raise InputError(f"{data}: no such folder; --data wants the folder with the training pictures")
