"""Pictures made by rule, for when no folder of pictures is given: patterns, shapes and simple scenes."""

from __future__ import annotations

import numpy as np

KINDS = ("grating", "checkerboard", "blobs", "shape", "landscape", "house", "face")


def draw(n: int, seed: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw ``n`` pictures, the kinds in turn.

    Returns
    -------
    images : uint8 array of shape (n, side, side, 3)
    labels : str array of shape (n,)
    """
    rng = np.random.default_rng([seed, 5])
    labels = np.array([KINDS[k % len(KINDS)] for k in range(n)])
    images = np.stack([_DRAW[label](side, rng) for label in labels])
    return np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8), labels


def _grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates -1..1: right, and down."""
    line = (np.arange(side) + 0.5) / side * 2 - 1
    return np.meshgrid(line, line)


def _colour(rng: np.random.Generator, low: float = 0.05, high: float = 0.95) -> np.ndarray:
    return rng.uniform(low, high, 3)


def _soft(distance: np.ndarray, side: int) -> np.ndarray:
    """1 inside (distance < 0), 0 outside, with an edge of about a pixel."""
    return np.clip(0.5 - distance * side / 2, 0, 1)[..., None]


def _over(image: np.ndarray, cover: np.ndarray, colour: np.ndarray) -> np.ndarray:
    return image * (1 - cover) + cover * colour


def _two_colours(pattern: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    a, b = _colour(rng), _colour(rng)
    if rng.random() < 0.5:
        a, b = np.full(3, rng.uniform(0, 0.3)), np.full(3, rng.uniform(0.7, 1))
    return a + (b - a) * pattern[..., None]


def _grating(side: int, rng: np.random.Generator) -> np.ndarray:
    x, y = _grid(side)
    angle, waves, phase = rng.uniform(0, np.pi), rng.uniform(1.5, 7), rng.uniform(0, 2 * np.pi)
    wave = np.sin(np.pi * waves * (x * np.cos(angle) + y * np.sin(angle)) + phase)
    window = np.exp(
        -((x - rng.uniform(-0.5, 0.5)) ** 2 + (y - rng.uniform(-0.5, 0.5)) ** 2) / rng.uniform(0.15, 1.5)
    )
    return _two_colours(0.5 + 0.5 * wave * window, rng)


def _checkerboard(side: int, rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.5:  # independent cells, as in Miyawaki's experiment
        cells = int(rng.integers(3, 9))
        pattern = rng.integers(0, 2, (cells, cells)).astype(float)
        rows = np.arange(side) * cells // side
        return _two_colours(pattern[np.ix_(rows, rows)], rng)
    x, y = _grid(side)
    angle, waves = rng.uniform(0, np.pi / 2), rng.uniform(1.5, 5)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    phase = rng.uniform(0, np.pi, 2)
    return _two_colours(
        (np.sin(np.pi * waves * u + phase[0]) * np.sin(np.pi * waves * v + phase[1]) > 0) * 1.0, rng
    )


def _blobs(side: int, rng: np.random.Generator) -> np.ndarray:
    x, y = _grid(side)
    image = np.ones((side, side, 3)) * _colour(rng)
    for _ in range(int(rng.integers(3, 8))):
        apart = (x - rng.uniform(-1, 1)) ** 2 + (y - rng.uniform(-1, 1)) ** 2
        image = _over(image, np.exp(-apart / rng.uniform(0.03, 0.4))[..., None], _colour(rng))
    return image


def _shape(side: int, rng: np.random.Generator) -> np.ndarray:
    x, y = _grid(side)
    image = np.ones((side, side, 3)) * _colour(rng)
    for _ in range(int(rng.integers(1, 4))):
        angle, size = rng.uniform(0, np.pi), rng.uniform(0.2, 0.6)
        u, v = x - rng.uniform(-0.5, 0.5), y - rng.uniform(-0.5, 0.5)
        u, v = (
            u * np.cos(angle) + v * np.sin(angle),
            (v * np.cos(angle) - u * np.sin(angle)) * rng.uniform(1, 2.5),
        )
        kind = rng.integers(0, 4)
        distance = (
            np.hypot(u, v) - size,
            np.maximum(np.abs(u), np.abs(v)) - size,
            np.abs(np.hypot(u, v) - size) - size / 4,
            np.maximum(np.abs(u) * 0.87 + v * 0.5, -v) - size / 2,
        )[kind]
        image = _over(image, _soft(distance, side), _colour(rng))
    return image


def _landscape(side: int, rng: np.random.Generator) -> np.ndarray:
    x, y = _grid(side)
    horizon = rng.uniform(-0.4, 0.4)
    sky = np.array([0.35, 0.6, 0.95]) * rng.uniform(0.5, 1.1) + rng.normal(0, 0.1, 3)
    image = sky + (1 - sky) * np.clip((y + 1) / 2, 0, 1)[..., None] * rng.uniform(0.2, 0.7)
    image = _over(
        image,
        _soft(np.hypot(x - rng.uniform(-0.8, 0.8), y + rng.uniform(0.3, 0.8)) - 0.15, side),
        _colour(rng, 0.8, 1),
    )
    ridge = horizon - 0.25 * np.abs(np.sin(x * rng.uniform(1, 3) + rng.uniform(0, 6))) * rng.uniform(0, 1.5)
    image = _over(image, _soft(ridge - y, side), np.array([0.35, 0.35, 0.45]) + rng.normal(0, 0.1, 3))
    ground = np.array([[0.2, 0.5, 0.15], [0.75, 0.65, 0.4], [0.15, 0.3, 0.55], [0.85, 0.88, 0.92]])[
        rng.integers(0, 4)
    ]
    image = _over(image, _soft(horizon - y, side), ground + rng.normal(0, 0.06, 3))
    for _ in range(int(rng.integers(0, 5))):
        cx, size = rng.uniform(-0.9, 0.9), rng.uniform(0.1, 0.3)
        trunk = np.maximum(np.abs(x - cx) - size / 6, np.abs(y - horizon) - size)
        image = _over(image, _soft(trunk, side), np.array([0.3, 0.2, 0.1]))
        crown = np.hypot(x - cx, y - horizon + size * 1.4) - size
        image = _over(image, _soft(crown, side), np.array([0.1, 0.4, 0.12]) + rng.normal(0, 0.08, 3))
    return image + rng.normal(0, 0.02, (side, side, 1))


def _house(side: int, rng: np.random.Generator) -> np.ndarray:
    x, y = _grid(side)
    image = _landscape(side, rng)
    cx, width, height, base = (
        rng.uniform(-0.3, 0.3),
        rng.uniform(0.3, 0.55),
        rng.uniform(0.25, 0.45),
        rng.uniform(0.5, 0.8),
    )
    top = base - 2 * height
    wall = np.maximum(np.abs(x - cx) - width, np.abs(y - base + height) - height)
    image = _over(image, _soft(wall, side), _colour(rng, 0.3, 0.95))
    roof = np.maximum(np.abs(x - cx) - (y - top + height) * (width * 1.2) / height, y - top)
    image = _over(image, _soft(roof, side), _colour(rng, 0.1, 0.6))
    glass = _colour(rng, 0.1, 0.9)
    for offset in (-0.55, 0.55):
        window = np.maximum(np.abs(x - cx - offset * width), np.abs(y - top - 0.7 * height)) - 0.18 * width
        image = _over(image, _soft(window, side), glass)
    door = np.maximum(np.abs(x - cx) - 0.16 * width, np.abs(y - base + 0.4 * height) - 0.4 * height)
    return _over(image, _soft(door, side), _colour(rng, 0.05, 0.5))


def _face(side: int, rng: np.random.Generator) -> np.ndarray:
    x, y = _grid(side)
    image = np.ones((side, side, 3)) * _colour(rng, 0.1, 0.9)
    cx, cy, size = rng.uniform(-0.2, 0.2), rng.uniform(-0.15, 0.15), rng.uniform(0.5, 0.75)
    skin = np.array([0.95, 0.78, 0.65]) * rng.uniform(0.4, 1.05)
    hair = np.array([[0.1, 0.08, 0.06], [0.4, 0.25, 0.1], [0.85, 0.7, 0.35], [0.6, 0.6, 0.6]])[
        rng.integers(0, 4)
    ]
    u, v = (x - cx) / size, (y - cy) / size
    image = _over(image, _soft((np.hypot(u, (v + 0.12) / 1.2) - 0.95) * size, side), hair)
    image = _over(image, _soft((np.hypot(u, v / 1.25) - 0.78) * size, side), skin)
    for sign in (-1, 1):
        image = _over(
            image, _soft((np.hypot(u - 0.3 * sign, (v + 0.15) * 1.6) - 0.16) * size, side), np.full(3, 0.95)
        )
        image = _over(image, _soft((np.hypot(u - 0.3 * sign, v + 0.15) - 0.09) * size, side), np.full(3, 0.1))
    image = _over(
        image, _soft((np.maximum(np.abs(u) - 0.06, np.abs(v - 0.1) - 0.18)) * size, side), skin * 0.75
    )
    smile = np.maximum(np.abs(np.hypot(u, v - 0.25) - 0.3) - 0.06, 0.38 - v)
    return _over(image, _soft(smile * size, side), np.array([0.7, 0.2, 0.2]))


_DRAW = {
    "grating": _grating,
    "checkerboard": _checkerboard,
    "blobs": _blobs,
    "shape": _shape,
    "landscape": _landscape,
    "house": _house,
    "face": _face,
}
