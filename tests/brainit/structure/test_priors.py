"""Priors: draws, leaks, the file of the glyph prior."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from brainit.errors import InputError, MissingDataError
from brainit.structure.deform import deform
from brainit.structure.priors import ArrayPrior, GlyphPrior, as_prior, exclude_near
from brainit.structure.train_prior import read_idx, train_prior


def bars(n: int, side: int = 16, seed: int = 0) -> np.ndarray:
    """One bright tilted bar a picture."""
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[:side, :side] - (side - 1) / 2
    angle, offset = rng.uniform(0, np.pi, (n, 1, 1)), rng.uniform(-3, 3, (n, 1, 1))
    across = xx * np.cos(angle) + yy * np.sin(angle) - offset
    along = -xx * np.sin(angle) + yy * np.cos(angle)
    return (np.clip(2 - np.abs(across), 0, 1) * (np.abs(along) < side * 0.35)).astype(np.float32)


def test_array_prior_draws_without_replacement_and_resizes() -> None:
    prior = as_prior(bars(20))
    assert isinstance(prior, ArrayPrior)
    assert np.array_equal(prior.draw(10, 16, 3), prior.draw(10, 16, 3))
    assert len(np.unique(prior.draw(99, 16, 0).reshape(20, -1), axis=0)) == 20
    assert prior.draw(5, 24, 0).shape == (5, 24, 24)


def test_exclude_near_finds_exact_and_shifted_copies() -> None:
    pictures = bars(40)
    stimuli = np.stack([pictures[3], np.roll(pictures[11], (1, -2), (0, 1))])
    keep, highest = exclude_near(pictures, stimuli, threshold=0.99)
    assert not keep[3] and not keep[11] and keep.sum() >= 30 and highest < 0.99
    assert exclude_near(pictures, stimuli, threshold=0.99, max_shift=0)[0][11]


def test_deform_is_seeded_and_stays_near_the_picture() -> None:
    pictures = bars(6)
    a = deform(pictures, 12, 0)
    assert np.array_equal(a, deform(pictures, 12, 0)) and not np.array_equal(a, deform(pictures, 12, 1))
    assert a.min() >= 0 and a.max() <= 1
    near = [max(np.corrcoef(x.ravel(), p.ravel())[0, 1] for p in pictures) for x in a]
    assert min(near) > 0.6


def test_train_write_load_draw(tmp_path: Path) -> None:
    path = tmp_path / "glyph-prior.safetensors"
    said = train_prior(bars(60), path, n_deformed=1500, steps=250, components=4, info={"classes": "bars"})
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    prior = GlyphPrior(path)
    assert prior.info["classes"] == "bars" and prior.info["seed"] == 0 and said["reconstruction_mse"] < 0.06
    draws = prior.draw(50, 16, 1)
    assert draws.shape == (50, 16, 16) and draws.min() >= 0 and draws.max() <= 1
    assert np.array_equal(draws, prior.draw(50, 16, 1))
    near = np.mean([max(np.corrcoef(x.ravel(), p.ravel())[0, 1] for p in bars(60)) for x in draws])
    assert near > 0.6


def test_bad_prior_files(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    with pytest.raises(MissingDataError, match="no prior at"):
        GlyphPrior(tmp_path / "absent.safetensors")
    (tmp_path / "cut").write_bytes(b"\x10\x00")
    with pytest.raises(InputError, match="not a readable safetensors"):
        GlyphPrior(tmp_path / "cut")
    save_file({"a": np.zeros(2, np.float32)}, tmp_path / "other", metadata={"kind": "autoencoder"})
    with pytest.raises(InputError, match="'glyph-prior'"):
        GlyphPrior(tmp_path / "other")
    with pytest.raises(InputError, match="at least 200"):
        train_prior(bars(20), tmp_path / "x")


def test_read_idx(tmp_path: Path) -> None:
    body = b"\x00\x00\x08\x01" + (3).to_bytes(4, "big") + bytes([1, 2, 3])
    (tmp_path / "plain").write_bytes(body)
    (tmp_path / "zip").write_bytes(gzip.compress(body))
    (tmp_path / "cut").write_bytes(body[:-1])
    (tmp_path / "none").write_bytes(b"hello")
    assert read_idx(tmp_path / "plain").tolist() == read_idx(tmp_path / "zip").tolist() == [1, 2, 3]
    for name in ("cut", "none"):
        with pytest.raises(InputError):
            read_idx(tmp_path / name)


def test_shipped_prior_draws_glyphs(repo: Path) -> None:
    path = repo / "lab" / "zoo" / "weights" / "glyph-prior.safetensors"
    assert path.stat().st_size < 2_000_000
    draws = GlyphPrior(path).draw(64, 28, 0)
    assert 0.08 < draws.mean() < 0.2 and (draws < 0.02).mean() > 0.6 and draws.max(axis=(1, 2)).min() > 0.5
