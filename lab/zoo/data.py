"""Pictures that the zoo is trained and measured on: natural scenes, handwritten digits, simple patterns.

Expected below the data folder (none of it ships with the project):
``tiny-imagenet-64/{train-*,validation}.parquet`` (columns ``image`` with JPEG bytes, ``label``),
``mnist10k/*.gz`` (idx format), and, to keep its stimuli out, ``digits69/digit69_28x28.mat``.
"""

from __future__ import annotations

import gzip
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lab.errors import InputError, MissingDataError
from lab.images import resize
from lab.zoo import patterns

N_NATURAL_CLASSES = 200
N_HELD_OUT_DIGITS = 500
N_PATTERNS = 6000
_PATTERN_SEEDS = (1, 2)


@dataclass(frozen=True)
class Pictures:
    """uint8 pictures (n, 3, 64, 64), int64 labels (n,): 0..199 natural, 200..209 digits, 210.. patterns."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: str) -> Pictures:
        return Pictures(self.images.to(device), self.labels.to(device))

    def batch(self, index: torch.Tensor) -> torch.Tensor:
        """Return float32 pictures (len(index), 3, 64, 64) in 0..1."""
        return self.images[index].float() / 255


def training(root: Path, n_patterns: int = N_PATTERNS, limit: int | None = None) -> Pictures:
    """Read everything that models are trained on; ``limit`` keeps only the first of each kind."""
    natural = _natural(_training_files(root), limit)
    digits, labels = (x[:limit] for x in _training_digits(root))
    shapes, kinds = patterns.draw(min(n_patterns, limit or n_patterns), seed=_PATTERN_SEEDS[0])
    return _join(natural, (_upscale(digits), labels + N_NATURAL_CLASSES), (shapes, kinds + 210))


def spaced(root: Path, n_natural: int, n_simple: int) -> Pictures:
    """Read training pictures: ``n_natural`` evenly spaced over all natural ones, then digits, then patterns.

    ``n_simple`` is the number of digits and of patterns, each, or as many as there are.
    """
    natural = _natural(_training_files(root), None, n_natural)
    digits, labels = _training_digits(root)
    shapes, kinds = patterns.draw(N_PATTERNS, seed=_PATTERN_SEEDS[0])
    digits, labels, shapes, kinds = (x[:n_simple] for x in (digits, labels, shapes, kinds))
    return _join(natural, (_upscale(digits), labels + N_NATURAL_CLASSES), (shapes, kinds + 210))


def held_out(root: Path, which: str = "natural") -> Pictures:
    """Read pictures that no model was trained on.

    ``"natural"`` (2,000), ``"digits"`` (at most 500) or ``"patterns"`` (at most 300:
    the simplest checkerboards recur, and what was trained on is left out).
    """
    if which == "natural":
        return Pictures(*_natural([_validation(root)], None))
    if which == "digits":
        digits, labels = _digits(root)
        keep = ~_shown_in_digits69(digits, root)
        keep[:-N_HELD_OUT_DIGITS] = False
        return Pictures(_upscale(digits[keep]), labels[keep] + N_NATURAL_CLASSES)
    trained = {x.numpy().tobytes() for x in patterns.draw(N_PATTERNS, seed=_PATTERN_SEEDS[0])[0]}
    shapes, kinds = patterns.draw(300, seed=_PATTERN_SEEDS[1])
    fresh = torch.tensor([x.numpy().tobytes() not in trained for x in shapes])
    return Pictures(shapes[fresh], kinds[fresh] + 210)


def class_names(root: Path) -> list[str]:
    """Return the words for the natural labels, in the order of their numbers."""
    import pyarrow.parquet as pq

    table = pq.read_table(_validation(root), columns=["label", "label_name"])
    names = dict(zip(table["label"].to_pylist(), table["label_name"].to_pylist(), strict=True))
    return [names[k] for k in sorted(names)]


def _training_files(root: Path) -> list[Path]:
    files = sorted((root / "tiny-imagenet-64").glob("train-*.parquet"))
    if not files:
        raise MissingDataError(
            f"no tiny-imagenet-64/train-*.parquet below {root}; give the folder with --data"
        )
    return files


def check(root: Path) -> list[Path]:
    """Return the files that models are trained and measured on; refuses, before any work, if one is missing.

    Raises
    ------
    MissingDataError
        The first that is not there.
    """
    digits = [root / "mnist10k" / f"t10k-{name}-ubyte.gz" for name in ("images-idx3", "labels-idx1")]
    files = [*_training_files(root), _validation(root), *digits, root / "digits69" / "digit69_28x28.mat"]
    for file in files:
        if not file.is_file():
            raise MissingDataError(
                f"{file} is not there; give the folder that holds {file.parent.name} with --data"
            )
    return files


def _training_digits(root: Path) -> tuple[torch.Tensor, torch.Tensor]:
    digits, labels = _digits(root)
    keep = ~_shown_in_digits69(digits, root)
    keep[-N_HELD_OUT_DIGITS:] = False
    return digits[keep], labels[keep]


def _validation(root: Path) -> Path:
    return root / "tiny-imagenet-64" / "validation.parquet"


def _natural(
    files: list[Path], limit: int | None, n_spaced: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Read the first ``limit`` pictures, or ``n_spaced`` evenly spaced ones.

    Raises
    ------
    InputError
        There are fewer than ``n_spaced``.
    """
    import pyarrow.parquet as pq

    encoded: list[bytes] = []
    labels: list[int] = []
    for file in files:
        if not file.is_file():
            raise MissingDataError(
                f"{file} is not there; give the folder that holds tiny-imagenet-64 with --data"
            )
        table = pq.read_table(file, columns=["image", "label"])
        encoded += table["image"].to_pylist()
        labels += table["label"].to_pylist()
    encoded, labels = encoded[:limit], labels[:limit]
    if n_spaced is not None:
        if n_spaced > len(encoded):
            raise InputError(
                f"{n_spaced} natural pictures are asked for; there are {len(encoded)} below {files[0].parent}"
            )
        pick = np.linspace(0, len(encoded) - 1, n_spaced).astype(int)
        encoded, labels = [encoded[k] for k in pick], [labels[k] for k in pick]
    with ThreadPoolExecutor() as pool:
        images = torch.from_numpy(np.stack(list(pool.map(_decode, encoded, chunksize=256))))
    return images.permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)


def _decode(jpeg: bytes | dict[str, bytes]) -> np.ndarray:
    from PIL import Image

    data = jpeg["bytes"] if isinstance(jpeg, dict) else jpeg
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def _digits(root: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Return uint8 digits (10000, 28, 28) and labels."""
    folder = root / "mnist10k"
    try:
        images = gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())
        labels = gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())
    except FileNotFoundError as error:
        raise MissingDataError(
            f"{error.filename} is not there; give the folder that holds mnist10k with --data"
        ) from None
    pixels = torch.from_numpy(np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28).copy())
    return pixels, torch.from_numpy(np.frombuffer(labels, np.uint8, offset=8).astype(np.int64))


def likeness_to_digits69(digits: torch.Tensor, root: Path) -> torch.Tensor:
    """Return each digit's highest correlation with any stimulus of digits69: float32 (n,)."""
    from scipy.io import loadmat

    file = root / "digits69" / "digit69_28x28.mat"
    if not file.is_file():
        raise MissingDataError(
            f"{file} is not there; it is needed to keep its stimuli out of the training digits"
        )
    mat = loadmat(file, variable_names=["stimTrn", "stimTest"])
    shown = np.concatenate([mat["stimTrn"], mat["stimTest"]]).reshape(-1, 28, 28).transpose(0, 2, 1)
    r = _standardise(digits.float()) @ _standardise(torch.from_numpy(shown.astype(np.float32))).T
    return r.amax(dim=1)


def _shown_in_digits69(digits: torch.Tensor, root: Path) -> torch.Tensor:
    """Mark digits that are (nearly) a stimulus of digits69, so that none is ever trained on: bool (n,)."""
    return likeness_to_digits69(digits, root) > 0.95


def _standardise(x: torch.Tensor) -> torch.Tensor:
    x = x.flatten(1) - x.flatten(1).mean(dim=1, keepdim=True)
    return x / x.norm(dim=1, keepdim=True)


def _upscale(digits: torch.Tensor) -> torch.Tensor:
    big = resize(digits[:, None].float() / 255, 64)
    return (big * 255).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()


def _join(*parts: tuple[torch.Tensor, torch.Tensor]) -> Pictures:
    return Pictures(torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]))
