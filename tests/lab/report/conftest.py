"""A run folder that could be real: shapes, files and numbers as `brain reconstruct` leaves them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from skimage import data
from skimage.filters import gaussian

from brainit.metrics import compare, pixcorr
from lab.decoding.settings import ReconstructConfig

CONFIG = ReconstructConfig(dataset="simulated", subject="sub-02", noise_seeds=3).model_dump(mode="json")


def pictures(n: int, colour: bool, generator: np.random.Generator) -> np.ndarray:
    """Crops of photographs, or handwriting-like strokes of 28x28."""
    if colour:
        photos = [data.astronaut(), data.cat(), data.coffee(), data.rocket()]
        crops = []
        for i in range(n):
            photo = photos[i % len(photos)]
            y, x = (int(generator.integers(0, s - 192)) for s in photo.shape[:2])
            crops.append(photo[y : y + 192 : 3, x : x + 192 : 3] / 255)
        return np.stack(crops).astype(np.float32)
    angle = generator.random((n, 1, 1)) * np.pi
    y, x = np.mgrid[-1:1:28j, -1:1:28j]
    stroke = np.exp(-((np.sin(3 * angle + 2 * x) * 0.4 + y * np.cos(angle) + x * np.sin(angle)) ** 2) * 40)
    return (stroke * (x**2 + y**2 < 0.8)).astype(np.float32)


def _blur(images: np.ndarray, sigma: float) -> np.ndarray:
    axis = -1 if images.ndim == 4 else None
    return np.stack([gaussian(i, sigma, channel_axis=axis) for i in images]).astype(np.float32)


def make_ledger(generator: np.random.Generator) -> dict:
    """A ledger in the form of `quant.plans.ledger`, for a small U-Net."""
    int8 = {"grid": {"kind": "int", "bits": 8, "mode": "symmetric"}, "granularity": {"kind": "channel"}}
    layers = []
    for i in range(34):
        shape = [int(c) for c in generator.choice([96, 160, 224], 2)] + ([3, 3] if i % 3 else [])
        weights, skip = int(np.prod(shape)), i in (0, 33)
        layers.append(
            {"name": f"down_blocks.{i // 8}.resnets.{i % 8}.conv{i % 2 + 1}",
             "kind": "Conv2d" if i % 3 else "Linear", "shape": shape,
             "weight": None if skip else 0, "activation": None if skip else 0,
             "reason": "first or last layer" if skip else None, "macs": weights * 64,
             "bytes_before": weights * 4,
             "bytes_after": weights * 4 if skip else weights + 4 * shape[0],
             "weight_sqnr_db": None if skip else round(float(generator.normal(41, 2)), 2),
             "path": "float" if skip else "int8_linear: reference"}
        )  # fmt: skip
    return {
        "recipe": "rtn-w8a8",
        "method": "rtn",
        "formats": [int8],
        "layers": layers,
        "bytes_other": 120_000,
    }


def make_run(folder: Path, simulated: bool = True, n: int = 40, seed: int = 0) -> Path:
    """Write a plausible run folder and return it."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    stimulus = pictures(n, simulated, generator)
    noise = _blur(generator.standard_normal(stimulus.shape) * 1.2, 4.0)
    quality = generator.random((n,) + (1,) * (stimulus.ndim - 1))
    full = np.clip(_blur(stimulus, 1.2) + noise * quality, 0, 1).astype(np.float32)
    mean = np.broadcast_to(stimulus.mean(0), stimulus.shape).astype(np.float32)
    arrays = {
        "stimulus": stimulus,
        "structural": np.clip(_blur(stimulus, 4.0) + noise * 0.4, 0, 1),
        "fp": full,
        "quantized": np.clip(full + 0.01 * generator.standard_normal(full.shape), 0, 1).astype(np.float32),
        "ridge": np.clip(0.5 * _blur(stimulus, 5.0) + 0.5 * mean + noise * 0.5, 0, 1).astype(np.float32),
        "mean_image": mean,
    }
    arms = {k: arrays[k] for k in ("quantized", "fp", "ridge", "mean_image")}
    metrics = compare(stimulus, arms, n_draws=300, seed=seed) | {
        "dataset": "simulated" if simulated else "digits69", "subject": "sub-02" if simulated else "sub-01",
        "simulated": simulated, "n_train": 900 if simulated else 90, "n_test": n, "seed": seed,
        "recipe": "rtn-w8a8", "leak_test_in_train": 0, "decoder_bytes": 13_700_000,
        "decoder_mean_weight_bits": 8.07, "seconds_total": 141.2,
    }  # fmt: skip
    voxels = 1800
    side = generator.choice([-1, 1], voxels)
    xyz = np.stack(
        [
            side * generator.gamma(3, 7, voxels),
            generator.normal(-78, 11, voxels),
            generator.normal(0, 12, voxels),
        ],
        1,
    )
    cluster = np.digitize(xyz[:, 1] + generator.normal(0, 3, voxels), np.linspace(-100, -55, 24))
    info = {"source": "forward model of visual cortex", "units": "z-scored by training trials"}
    if simulated:
        info["stimuli"] = "natural photographs from a folder"
    subject = {
        "terms": "made by this program" if simulated else "CC BY 4.0", "info": info, "n_voxels": voxels,
        "roi": ["V1", "V2", "V3", "V4", "ventral"], "warnings": ["12 voxels without variance were dropped"],
        "leak": {"leak_test_in_train": 0, "exact": 0, "near": 0, "n_test": n, "n_train": 900, "pairs": [],
                 "closest": 0.71, "checked": "pictures", "threshold": 0.85},
    }  # fmt: skip
    arrays |= {
        "score_pixcorr": pixcorr(arrays["quantized"], stimulus),
        "xyz": (xyz if simulated else np.full_like(xyz, np.nan)).astype(np.float32),
        "cluster": cluster,
        "noise_ceiling": generator.beta(2, 4, voxels).astype(np.float32),
    }
    np.savez_compressed(folder / "arrays.npz", **arrays)
    config = CONFIG | {"dataset": metrics["dataset"], "seed": seed, "subject": metrics["subject"]}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    losses = [(1.6 * np.exp(-e / 9) + 0.62, 1.5 * np.exp(-e / 8) + 0.75 + 0.004 * e) for e in range(38)]
    events = [
        {"event": "epoch", "epoch": e, "train_loss": a, "valid_loss": b} for e, (a, b) in enumerate(losses)
    ]
    (folder / "log.jsonl").write_text("\n".join(map(json.dumps, [{"event": "open"}, *events])) + "\n")
    versions = {
        "python": "3.11.7",
        "torch": "2.13.0",
        "diffusers": "0.42.0",
        "brainit-lab": "0.1.0",
        "device": "cpu",
    }
    for name, content in {
        "metrics": metrics, "subject": subject, "ledger": make_ledger(generator), "versions": versions,
    }.items():  # fmt: skip
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="session")
def simulated_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a simulated subject in colour, with places."""
    return make_run(tmp_path_factory.mktemp("runs") / "simulated")


@pytest.fixture(scope="session")
def measured_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on measured fMRI, 28x28 grey pictures, no places."""
    return make_run(tmp_path_factory.mktemp("runs") / "digits69", simulated=False, n=10, seed=3)
