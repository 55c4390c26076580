"""Pictures that ship for simulated subjects: samples of the zoo's own denoiser, in one small WebP sheet.

Each was drawn under the tokens of a held-out natural picture (nothing was ever trained on it); the picture
itself is not kept.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lab import zoo
from lab.errors import InputError, MissingDataError
from lab.files import read_npz, write_json, write_npz
from lab.images import sheet, write_picture
from lab.progress import Progress, silent
from lab.zoo.data import class_names, held_out
from lab.zoo.io import claim, mark
from lab.zoo.sampling import SamplerSettings, draw_noise, sample

NAME = "samples of the zoo's own decoder (unet-64)"
SHEET = zoo.HOME / "weights" / "stimuli-64.webp"
CARD = zoo.HOME / "cards" / "stimuli-64.json"
SIDE = 64
FIRST = 1000
"""The first held-out pictures are for measuring models; conditions are taken from here on."""
COLUMNS = 40
CHUNK = 32
QUALITY = 92


def make(
    data: Path,
    out: Path,
    *,
    n: int = 800,
    steps: int = 12,
    guidance: float = 2.0,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Draw ``n`` pictures and write the sheet and its card into the zoo.

    Finished chunks stay in ``out``, so the same call goes on after a stop and ends with the same pictures.

    Parameters
    ----------
    data : Path
        Folder with ``tiny-imagenet-64/validation.parquet``.
    out : Path
        Folder of the finished chunks.
    n : int
        Pictures, at most as many as are held out from number ``FIRST`` on.
    steps : int
        Sampling steps.
    guidance : float
        Classifier-free guidance; 1 is none.
    seed : int
        Fixes the noise.

    Returns
    -------
    dict
        The card: command, seed, steps, labels of the conditions.
    """
    settings = SamplerSettings(steps=steps, guidance=guidance, strength=1.0, batch=CHUNK)
    pictures = held_out(data, "natural")
    if not 1 <= n <= len(pictures) - FIRST:
        raise InputError(f"n is {n}; there are conditions for 1 to {len(pictures) - FIRST} pictures")
    about = {"n": n, "steps": steps, "guidance": guidance, "seed": seed, "chunk": CHUNK}
    weights = [zoo.weight_file(m) for m in ("autoencoder-64", "encoder-64", "unet-64")]
    claim(out / "settings.json", about | {"weights": mark(*weights)}, "pictures", out.glob("chunk-*.npz"))
    autoencoder, encoder, denoiser = (
        zoo.load(m, device) for m in ("autoencoder-64", "encoder-64", "unet-64")
    )
    null, noise = zoo.null_tokens("unet-64"), draw_noise(n, seed)
    chunks = torch.arange(n).split(CHUNK)
    for number, index in enumerate(chunks):
        progress(number * CHUNK, n, "stimuli")
        file = out / f"chunk-{number:03d}.npz"
        if file.is_file():
            continue
        with torch.no_grad():
            tokens = encoder(pictures.batch(index + FIRST).to(device))
            latents = sample(denoiser, tokens, null, noise[index], settings)
            images = autoencoder.decode(latents.to(device)).mul(255).round().to(torch.uint8)
        write_npz(file, {"images": images.cpu().permute(0, 2, 3, 1).numpy()})
    progress(n, n, "stimuli")
    images = np.concatenate([read_npz(out / f"chunk-{k:03d}.npz")["images"] for k in range(len(chunks))])
    names = class_names(data)
    labels = [names[int(k)] for k in pictures.labels[FIRST : FIRST + n]]
    write_picture(sheet(images, COLUMNS), SHEET, QUALITY)
    card = {
        "name": NAME,
        "command": f"brainlab zoo stimuli --n {n} --steps {steps} --guidance {guidance:g} --seed {seed}",
        "conditions": f"encoder-64 tokens of tiny-imagenet-64 validation pictures {FIRST} to {FIRST + n - 1}",
        **about,
        "webp_quality": QUALITY,
        "labels": labels,
    }
    write_json(CARD, card)
    return card


def load() -> tuple[np.ndarray, np.ndarray]:
    """Return the shipped pictures and what their conditions showed.

    Returns
    -------
    images : uint8 array of shape (n, 64, 64, 3)
    labels : str array of shape (n,)
        Class of the picture whose tokens were the condition; a sample may miss it.

    Raises
    ------
    MissingDataError
        The sheet is not there.
    """
    from PIL import Image

    if not (SHEET.is_file() and CARD.is_file()):
        raise MissingDataError(f"{SHEET.name} is not there; make it with: brainlab zoo stimuli --data FOLDER")
    labels = json.loads(CARD.read_text(encoding="utf-8"))["labels"]
    with Image.open(SHEET) as image:
        whole = np.asarray(image.convert("RGB"))
    rows, columns = whole.shape[0] // SIDE, whole.shape[1] // SIDE
    tiles = whole.reshape(rows, SIDE, columns, SIDE, 3).swapaxes(1, 2).reshape(-1, SIDE, SIDE, 3)
    return np.ascontiguousarray(tiles[: len(labels)]), np.array(labels)
