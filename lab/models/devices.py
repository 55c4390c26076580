"""Which device the networks of a job run on."""

from __future__ import annotations

from lab.errors import HardwareError, InputError


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

    if wanted == "cuda" and not torch.cuda.is_available():
        raise HardwareError(
            "device cuda: no CUDA device is visible here; use --device cpu (brainlab doctor says more)"
        )
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"
