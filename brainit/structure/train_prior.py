"""Train the glyph prior: a variational autoencoder, then a Gaussian mixture on its latent codes.

The mixture matters: decoding ``z ~ N(0, I)`` gives many non-glyphs, since a small autoencoder's codes do
not fill the unit Gaussian; decoding draws of the fitted mixture gives glyphs. Run as

    python -m brainit.structure.train_prior --images t10k-images-idx3-ubyte.gz --labels
    t10k-labels-idx1-ubyte.gz --classes 6 9 --exclude digit69_28x28.mat --out glyph-prior.safetensors
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from brainit.errors import InputError
from brainit.io import replacing
from brainit.progress import Progress, silent
from brainit.structure.deform import deform
from brainit.structure.features import check_pictures
from brainit.structure.priors import exclude_near, glyph_decoder

LATENT = 24
HIDDEN = (256, 384)
_BATCH = 256
_LOG = logging.getLogger(__name__)


def train_prior(
    pictures: np.ndarray,
    out: str | Path,
    *,
    seed: int = 0,
    n_deformed: int = 60_000,
    steps: int = 5_900,
    components: int = 100,
    info: dict[str, Any] | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Train on pictures of glyphs and write a safetensors file (half precision, under 2 MB).

    Parameters
    ----------
    pictures : array of shape (n, S, S)
        Bright glyphs on black in 0..1; the caller has excluded test stimuli.
    out : path
    seed : int
    n_deformed : int
        Deformed copies to train on.
    steps, components : int
        Optimiser steps; Gaussians of the latent mixture.
    info : dict
        Kept in the file's metadata beside what is measured here.

    Returns
    -------
    dict
        What the file's metadata says: sizes, seed, reconstruction error, mixture likelihood.
    """
    from safetensors.torch import save_file
    from sklearn.mixture import GaussianMixture

    pictures = check_pictures(pictures)
    if pictures.ndim != 3 or len(pictures) < 2 * components:
        raise InputError(
            f"the glyph prior needs at least {2 * components} grey pictures, got {pictures.shape}"
        )
    side = pictures.shape[1]
    data = torch.from_numpy(deform(pictures, n_deformed, seed)).reshape(n_deformed, -1)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    widths = [LATENT, *HIDDEN, side * side]
    encoder = glyph_decoder([side * side, 512, 256, 2 * LATENT])
    decoder = glyph_decoder(widths)
    log_noise = nn.Parameter(torch.tensor(-2.0))
    parameters = [*encoder.parameters(), *decoder.parameters(), log_noise]
    adam = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, 2e-3, total_steps=steps)
    for step in range(steps):
        x = data[torch.randint(len(data), (_BATCH,), generator=generator)]
        mu, log_var = encoder(x).chunk(2, -1)
        z = mu + torch.randn(mu.shape, generator=generator) * (0.5 * log_var).exp()
        error = ((torch.sigmoid(decoder(z)) - x) ** 2).sum(1)
        kl = 0.5 * (mu**2 + log_var.exp() - 1 - log_var).sum(1)
        fit = 0.5 * error * (-2 * log_noise).exp() + x.shape[1] * log_noise
        loss = (fit + kl * min(1.0, (step + 1) / 1000)).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
        progress(step + 1, steps, "glyph prior")
    encoder.eval(), decoder.eval()
    with torch.no_grad():
        some = data[: min(30_000, n_deformed)]
        mu, log_var = encoder(some).chunk(2, -1)
        mse = float(((torch.sigmoid(decoder(mu)) - some) ** 2).mean())
        codes = (mu + torch.randn(mu.shape, generator=generator) * (0.5 * log_var).exp()).double().numpy()
    mixture = GaussianMixture(
        components, random_state=seed, reg_covar=1e-3, max_iter=60, tol=1e-2, init_params="k-means++"
    ).fit(codes)
    tensors = {f"decoder.{k}": v.detach() for k, v in decoder.state_dict().items()}
    for key, value in (
        ("weights", mixture.weights_),
        ("means", mixture.means_),
        ("factors", np.linalg.cholesky(mixture.covariances_)),
    ):
        tensors[f"mixture.{key}"] = torch.from_numpy(value)
    said = {
        **(info or {}),
        "n_pictures": len(pictures),
        "n_deformed": n_deformed,
        "steps": steps,
        "seed": seed,
        "components": components,
        "reconstruction_mse": round(mse, 5),
        "mixture_loglik": round(float(mixture.lower_bound_), 3),
    }
    metadata = {
        "kind": "glyph-prior",
        "side": str(side),
        "widths": json.dumps(widths),
        "info": json.dumps(said),
    }
    with replacing(Path(out)) as temporary:
        save_file({k: v.half().contiguous() for k, v in tensors.items()}, str(temporary), metadata=metadata)
    return said


def read_idx(path: str | Path) -> np.ndarray:
    """Read an idx file of bytes, gzip or plain (the MNIST format).

    Raises
    ------
    InputError
        Not such a file, or cut short.
    """
    raw = Path(path).read_bytes()
    raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
        raise InputError(f"{path} is not an idx file of bytes; give the MNIST images or labels")
    shape = tuple(int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(raw[3]))
    start = 4 + 4 * raw[3]
    if len(raw) != start + int(np.prod(shape)):
        raise InputError(f"{path} has {len(raw)} bytes, its header promises {start + int(np.prod(shape))}")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def stimuli_of_mat(path: str | Path) -> np.ndarray:
    """All stimuli, training and test, of a digits69-like .mat: float32 (n, S, S) in 0..1, upright."""
    from scipy.io import loadmat

    file = loadmat(str(path))
    flat = np.concatenate([file["stimTrn"], file["stimTest"]]).astype(np.float32) / 255
    side = round(flat.shape[1] ** 0.5)
    return flat.reshape(-1, side, side).transpose(0, 2, 1)


def main(argv: list[str] | None = None) -> None:
    """Command line of the module's docstring."""
    parser = argparse.ArgumentParser(description="Train the glyph prior.")
    parser.add_argument("--images", required=True, help="idx file of pictures")
    parser.add_argument("--labels", required=True, help="idx file of labels")
    parser.add_argument("--classes", type=int, nargs="+", help="labels to keep (default all)")
    parser.add_argument("--exclude", help="a digits69-like .mat whose stimuli must not be in the prior")
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    pictures = read_idx(args.images).astype(np.float32) / 255
    labels = read_idx(args.labels)
    kept = np.ones(len(labels), bool) if args.classes is None else np.isin(labels, args.classes)
    pictures = pictures[kept]
    info: dict[str, Any] = {"classes": args.classes, "n_before_exclusion": len(pictures)}
    if args.exclude:
        keep, highest = exclude_near(pictures, stimuli_of_mat(args.exclude))
        info |= {"excluded": int((~keep).sum()), "highest_correlation_kept": round(highest, 4)}
        pictures = pictures[keep]
    said = train_prior(pictures, args.out, seed=args.seed, info=info)
    _LOG.info(json.dumps(said))


if __name__ == "__main__":
    main()
