"""Clips that the video denoiser is trained and measured on: pictures looked at by a moving camera.

Three kinds: the camera pans over a picture, zooms in or out of it, or stands still while a round piece of
another picture, the sprite, moves across it. Everything that happens is in one row of numbers, the motion, so
a clip is a function of its pictures and that row.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lab.errors import InputError

FRAMES, SIDE, CELLS = 8, 64, 16
KINDS = ("pan", "zoom", "sprite")
SHARES = (0.45, 0.2, 0.35)
"""How often each kind is drawn."""
FIELDS = ("x", "y", "size", "dx", "dy", "grow", "radius", "sx", "sy", "sdx", "sdy")
"""Camera: centre and size of what it sees in frame 0 (the picture is 1), the way to its last centre, and the
logarithm of last over first size; sprite: radius (0: none), centre and way, in the camera's first picture."""
WIDTH, N_TOKENS = 192, 82
"""Of the condition: the encoder's 17 tokens of the first frame, one of the motion, and the first frame's
latent in 64 patches."""
PATCHES = 8
"""Of a latent, in a row and in a column."""
_SCALES = (0.3, 0.3, 0.5, 0.25, 0.25, 0.25, 0.5, 0.5)
_WAVES = 12
PLACE = 2.0
"""How loud the place of a patch is beside its values, which have unit variance."""


def draw_motions(n: int, seed: int) -> Tensor:
    """Draw motions (n, 11), drawn on the CPU in float32; columns are `FIELDS`."""
    g = torch.Generator().manual_seed(seed)
    u = torch.rand(n, 12, generator=g)
    kind = torch.searchsorted(torch.tensor(SHARES).cumsum(0), u[:, 0].contiguous()).clamp(max=len(KINDS) - 1)
    still = torch.tensor([0.5, 0.5, 1.0, 0, 0, 0, 0, 0.5, 0.5, 0, 0])
    out = still.repeat(n, 1)
    pan, zoom, sprite = (kind == k for k in range(3))
    # pans and sprites go a whole cell of the autoencoder's latent (4 pixels) a frame, so that what moves in a
    # picture moves in its latent
    cells = torch.floor(3 * u[:, 8:10]).clamp(max=2) - 1
    rest = (cells == 0).all(1)
    cells[rest, 0] = torch.where(u[rest, 10] < 0.5, 1.0, -1.0)
    way = cells * (FRAMES - 1) / CELLS
    size = 0.5 + 0.1 * u[:, 1:2]
    out[pan, :5] = torch.cat([_start(u[:, 2:4], size / 2, size * way), size, size * way], 1)[pan]
    small, large = 0.45 + 0.15 * u[:, 1], 0.8 + 0.2 * u[:, 2]
    inward = u[:, 3] < 0.5
    centre = large[:, None] / 2 + (1 - large[:, None]) * u[:, 4:6]
    zoomed = torch.stack(
        [centre[:, 0], centre[:, 1], torch.where(inward, large, small), 0 * large, 0 * large,
         torch.log(small / large) * torch.where(inward, 1.0, -1.0)], 1
    )  # fmt: skip
    out[zoom, :6] = zoomed[zoom]
    radius = 0.14 + 0.1 * u[:, 11:12]
    out[sprite, 6:] = torch.cat([radius, _start(u[:, 6:8], torch.full_like(radius, 0.15), way), way], 1)[
        sprite
    ]
    return out


def _start(share: Tensor, edge: Tensor, way: Tensor) -> Tensor:
    """Where a centre starts (n, 2) that goes ``way`` and stays ``edge`` away from the picture's borders."""
    low, high = edge - way.clamp(max=0), 1 - edge - way.clamp(min=0)
    return low + (high - low) * share


def kinds(motions: Tensor) -> list[str]:
    """Name each motion's kind."""
    sprite, zoom = motions[:, 6] > 0, motions[:, 5] != 0
    return [KINDS[2] if s else KINDS[1] if z else KINDS[0] for s, z in zip(sprite, zoom, strict=True)]


def render(pictures: Tensor, others: Tensor, motions: Tensor, frames: int = FRAMES) -> Tensor:
    """Film pictures.

    Parameters
    ----------
    pictures, others : float32 tensor of shape (n, 3, 64, 64)
        In 0..1; what the camera sees, and what sprites are cut from.
    motions : float32 tensor of shape (n, 11)
    frames : int

    Returns
    -------
    float32 tensor of shape (n, frames, 3, 64, 64)
        In 0..1.

    Raises
    ------
    InputError
        The numbers of pictures and motions differ.
    """
    if not len(pictures) == len(others) == len(motions):
        raise InputError(
            f"{len(pictures)} pictures, {len(others)} for sprites and {len(motions)} motions: as many of each"
        )
    n, device = len(pictures), pictures.device
    m = motions.to(device)
    time = torch.linspace(0, 1, frames, device=device)
    grow = torch.exp(m[:, 5:6] * time)
    size = m[:, 2:3] * grow
    x, y = (m[:, k : k + 1] + m[:, k + 3 : k + 4] * time for k in (0, 1))
    line = (torch.arange(SIDE, device=device) + 0.5) / SIDE
    v, u = torch.meshgrid(line, line, indexing="ij")
    x, y, size = (value[..., None, None] for value in (x, y, size))
    at = torch.stack([x + (u - 0.5) * size, y + (v - 0.5) * size], -1)
    seen = _look(pictures, at)
    px, py = (m[:, k : k + 1] + m[:, k + 2 : k + 3] * time for k in (7, 8))
    off = torch.stack([u - px[..., None, None], v - py[..., None, None]], -1)
    radius = m[:, 6].view(n, 1, 1, 1)
    edge = torch.sigmoid((radius - off.square().sum(-1).sqrt()) * SIDE) * (radius > 0)
    piece = _look(others, off + 0.5)
    return torch.lerp(seen, piece, edge.unsqueeze(2)).clamp(0, 1)


def motion_token(motions: Tensor) -> Tensor:
    """Write what moves as one token (n, 1, 192): Fourier features (Tancik et al. 2020) of eight numbers.

    The camera's way and growth are relative to what it sees first, so that the token says nothing that the
    first frame does not show, beside the movement itself.
    """
    size = motions[:, 2]
    numbers = torch.stack(
        [motions[:, 3] / size, motions[:, 4] / size, motions[:, 5], motions[:, 6], motions[:, 7] - 0.5,
         motions[:, 8] - 0.5, motions[:, 9], motions[:, 10]], 1
    )  # fmt: skip
    scaled = numbers / torch.tensor(_SCALES, device=motions.device)
    waves = math.pi * torch.logspace(-2, 2, _WAVES, base=2.0, device=motions.device)
    phase = scaled[:, :, None] * waves
    return torch.cat([phase.sin(), phase.cos()], -1).flatten(1)[:, None]


def latent_tokens(latents: Tensor) -> Tensor:
    """Write latents (n, 8, 16, 16) as tokens (n, 64, 192): the values of each 2x2 patch, and where it is."""
    n, side = len(latents), latents.shape[-1] // PATCHES
    patches = latents.unfold(2, side, side).unfold(3, side, side)
    values = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    line = torch.eye(PATCHES, device=latents.device)
    place = torch.cat([line.repeat_interleave(PATCHES, 0), line.repeat(PATCHES, 1)], 1) * PLACE
    known = torch.cat([values, place.expand(n, -1, -1)], -1)
    return F.pad(known, (0, WIDTH - known.shape[-1]))


def _look(pictures: Tensor, at: Tensor) -> Tensor:
    """Pictures (n, 3, H, W) at points (n, frames, 64, 64, 2) in 0..1: (n, frames, 3, 64, 64)."""
    n, frames = at.shape[:2]
    grid = (at * 2 - 1).reshape(n, frames * SIDE, SIDE, 2)
    out = F.grid_sample(pictures, grid, mode="bicubic", padding_mode="border", align_corners=False)
    return out.view(n, 3, frames, SIDE, SIDE).transpose(1, 2)
