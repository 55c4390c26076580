"""Small stand-ins: a data folder of the form that the zoo reads, and a tiny denoiser."""

from __future__ import annotations

import gzip
import io
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
import torch
from diffusers import UNet2DConditionModel
from PIL import Image

from lab import zoo
from lab.zoo import train

N_DIGITS = 600
PLANTED = (3, 40)


def _natural(file: Path, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    encoded = []
    for _ in range(n):
        held = io.BytesIO()
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        coarse.resize((64, 64)).save(held, format="JPEG")
        encoded.append(held.getvalue())
    labels = np.arange(n) % 3
    columns = {
        "image": encoded,
        "label": labels.astype(np.int16),
        "label_name": [f"thing {k}" for k in labels],
    }
    pq.write_table(pa.table(columns), file)


def _idx(array: np.ndarray, header: int) -> bytes:
    return gzip.compress(bytes(header) + array.astype(np.uint8).tobytes())


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny data folder; digits ``PLANTED`` were shown in its digits69."""
    root = tmp_path_factory.mktemp("pictures")
    for name in ("tiny-imagenet-64", "mnist10k", "digits69"):
        (root / name).mkdir()
    _natural(root / "tiny-imagenet-64" / "train-0.parquet", 24, 0)
    _natural(root / "tiny-imagenet-64" / "validation.parquet", 12, 1)
    rng = np.random.default_rng(2)
    digits = (rng.random((N_DIGITS, 28, 28)) < 0.2) * 255
    (root / "mnist10k" / "t10k-images-idx3-ubyte.gz").write_bytes(_idx(digits, 16))
    (root / "mnist10k" / "t10k-labels-idx1-ubyte.gz").write_bytes(_idx(np.arange(N_DIGITS) % 10, 8))
    shown = (rng.random((4, 28, 28)) < 0.2) * 255
    shown[0], shown[3] = digits[PLANTED[0]], digits[PLANTED[1]]
    flat = shown.transpose(0, 2, 1).reshape(4, -1).astype(np.uint8)  # stored column by column
    parts = {"stimTrn": flat[:3], "stimTest": flat[3:]}
    scipy.io.savemat(root / "digits69" / "digit69_28x28.mat", parts)
    return root


@pytest.fixture(scope="session")
def planted() -> tuple[int, ...]:
    """Training digits that were shown in digits69."""
    return PLANTED


@pytest.fixture(scope="session")
def denoiser() -> UNet2DConditionModel:
    """An untrained denoiser of the shipped one's form, small enough for many steps."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=8,
        out_channels=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=12,
        attention_head_dim=(2, 2),
        norm_num_groups=4,
    ).eval()


@pytest.fixture
def own_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the zoo's folder that training may write to."""
    home = tmp_path / "zoo"
    for part in ("weights", "cards"):
        shutil.copytree(zoo.HOME / part, home / part)
    monkeypatch.setattr(zoo, "HOME", home)
    monkeypatch.setattr(train, "HOME", home)
    return home
