"""Simple high-contrast pictures: checkerboards, gratings, binary grids, rings, wedges and bars."""

from __future__ import annotations

import math

import torch

KINDS = ("checkerboard", "grating", "binary grid", "ring", "wedge", "bar")


def draw(n: int, seed: int, side: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw ``n`` random patterns.

    Returns
    -------
    images : uint8 tensor of shape (n, 3, side, side)
    kinds : int64 tensor of shape (n,)
        Index into ``KINDS``.
    """
    g = torch.Generator().manual_seed(seed)
    kinds = torch.randint(len(KINDS), (n,), generator=g)
    axis = (torch.arange(side) + 0.5) / side * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    images = torch.empty(n, 3, side, side, dtype=torch.uint8)
    for i in range(n):
        figure = _FIGURES[int(kinds[i])](x, y, g).clamp(0, 1)
        low, high = _colours(g)
        images[i] = ((low + (high - low) * figure) * 255).round().to(torch.uint8)
    return images, kinds


def _uniform(g: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=g))


def _integer(g: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, (), generator=g))


def _colours(g: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Two ends of the palette, (3, 1, 1) each: black and white half of the time, else greys or colours."""
    style = _uniform(g, 0, 1)
    if style < 0.5:
        low, high = torch.zeros(3), torch.ones(3)
    elif style < 0.75:
        low, high = torch.full((3,), _uniform(g, 0, 0.4)), torch.full((3,), _uniform(g, 0.6, 1))
    else:
        low, high = torch.rand(3, generator=g), torch.rand(3, generator=g)
    if _uniform(g, 0, 1) < 0.5:
        low, high = high, low
    return low[:, None, None], high[:, None, None]


def _rotated(x: torch.Tensor, y: torch.Tensor, angle: float) -> tuple[torch.Tensor, torch.Tensor]:
    c, s = math.cos(angle), math.sin(angle)
    return c * x + s * y, -s * x + c * y


def _checkerboard(x: torch.Tensor, y: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    cells = 2 ** _integer(g, 1, 4)
    turn = 0.0 if _uniform(g, 0, 1) < 0.7 else _uniform(g, 0, math.pi / 2)
    u, v = _rotated(x, y, turn)
    return ((torch.floor(u * cells / 2) + torch.floor(v * cells / 2)) % 2).float()


def _grating(x: torch.Tensor, y: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    u, _ = _rotated(x, y, _uniform(g, 0, math.pi))
    wave = torch.sin(u * math.pi * _uniform(g, 1, 8) + _uniform(g, 0, 2 * math.pi))
    return (wave > 0).float() if _uniform(g, 0, 1) < 0.5 else wave * 0.5 + 0.5


def _binary_grid(x: torch.Tensor, y: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    cells, side = _integer(g, 3, 10), x.shape[0]
    grid = (torch.rand(cells, cells, generator=g) < _uniform(g, 0.2, 0.6)).float()
    index = (torch.arange(side) * cells) // side
    return grid[index][:, index]


def _edge(distance: torch.Tensor) -> torch.Tensor:
    """Antialiased inside (1) of a signed distance (negative inside)."""
    return torch.sigmoid(-distance * 64)


def _ring(x: torch.Tensor, y: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    radius = torch.hypot(x - _uniform(g, -0.4, 0.4), y - _uniform(g, -0.4, 0.4))
    outer = _uniform(g, 0.2, 0.9)
    inner = outer * _uniform(g, -0.5, 0.8)  # below 0: a full disc
    return _edge(radius - outer) * _edge(inner - radius)


def _wedge(x: torch.Tensor, y: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    u, v = _rotated(x, y, _uniform(g, 0, 2 * math.pi))
    spokes = _integer(g, 1, 8)
    return (torch.cos(torch.atan2(v, u) * spokes) > _uniform(g, -0.3, 0.6)).float()


def _bar(x: torch.Tensor, y: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    u, v = _rotated(x - _uniform(g, -0.5, 0.5), y - _uniform(g, -0.5, 0.5), _uniform(g, 0, math.pi))
    return _edge(u.abs() - _uniform(g, 0.06, 0.3)) * _edge(v.abs() - _uniform(g, 0.3, 1.5))


_FIGURES = (_checkerboard, _grating, _binary_grid, _ring, _wedge, _bar)
