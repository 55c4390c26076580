"""What quantizing does to the weights of the autoencoder's decoder, by every method that applies to it.

Methods that calibrate on a denoiser's sampling (timesteps, tokens, attention) find nothing in a decoder. What
they do to weights alone is here: ranges searched (MixDQ, EDA-DM), floats (lowbit_fp), a low-rank branch and
error feedback (SVDQuant), binary bases (BinaryDM). All arithmetic is simulated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant.formats.codebooks import BinaryGrid
from quant.formats.floats import FloatGrid
from quant.formats.granularity import Granularity, weight_layout
from quant.formats.quantizer import Quantizer, int_quantizer
from quant.methods.svdquant.gptq import gptq_codes
from quant.methods.svdquant.lowrank import top_singular
from quant.observers.ranges import MseSearch

FLOAT = "float (e4m3, e3m2, e2m1)"
FLOATS = {8: (4, 3), 6: (3, 2), 4: (2, 1)}
ROWS = 4096
"""Calibration rows of error feedback."""

Round = Callable[[Tensor, Tensor], Tensor]
"""From a weight and its calibration rows (n, in x k x k) to the weight that is computed with."""


@dataclass(frozen=True)
class Format:
    """One way to store the weights."""

    name: str
    bits: int
    round: Round
    calibrated: bool = False


def nearest(quantizer: Quantizer) -> Round:
    """Round to nearest."""

    def rounded(weight: Tensor, rows: Tensor) -> Tensor:
        layout = weight_layout("Conv2d")
        codes, params = quantizer.encode(weight, layout)
        return quantizer.decode(codes, params, layout)

    return rounded


def feedback(quantizer: Quantizer) -> Round:
    """Round column by column, errors pushed into the columns to come (GPTQ)."""

    def rounded(weight: Tensor, rows: Tensor) -> Tensor:
        flat = weight.flatten(1)
        params = quantizer.params(flat, "linear_weight")
        codes = gptq_codes(flat, rows, quantizer, params, 0.01, 128)
        return quantizer.decode(codes, params, "linear_weight").reshape(weight.shape)

    return rounded


def branched(quantizer: Quantizer, rank: int) -> Round:
    """Keep the largest singular directions in 16 bits and round the rest."""
    rest = nearest(quantizer)

    def rounded(weight: Tensor, rows: Tensor) -> Tensor:
        up, down, _ = top_singular(weight.flatten(1), rank, "exact")
        kept = (up.half().float() @ down.half().float()).reshape(weight.shape)
        return kept + rest(weight - kept, rows)

    return rounded


def formats() -> list[Format]:
    """All ways, by method and falling bits."""
    found = []
    for bits in (8, 6, 4, 3, 2):
        found.append(Format("rtn", bits, nearest(int_quantizer(bits, "channel"))))
        found.append(Format("rtn, groups of 16", bits, nearest(int_quantizer(bits, "group", 16))))
    for bits in (4, 3, 2):
        searched = int_quantizer(bits, "channel", observer=MseSearch())
        found.append(Format("searched range", bits, nearest(searched)))
        found.append(Format("error feedback", bits, feedback(searched), calibrated=True))
        found.append(Format("low-rank branch, rank 8", bits, branched(searched, 8)))
    channel = Granularity(kind="channel")
    for bits, (exponent, mantissa) in FLOATS.items():
        grid = FloatGrid(exponent=exponent, mantissa=mantissa)
        found.append(Format(FLOAT, bits, nearest(Quantizer(grid=grid, granularity=channel))))
    for bits in (4, 3, 2, 1):
        found.append(
            Format("binary bases", bits, nearest(Quantizer(grid=BinaryGrid(bits=bits), granularity=channel)))
        )
    return found


def convolutions(model: nn.Module) -> dict[str, nn.Conv2d]:
    """Return the decoder's convolutions by name: all of them are quantized."""
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and n.startswith("decoder.")}


@torch.no_grad()
def calibration_rows(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Record inputs of the decoder's convolutions as rows (n, in x k x k) over pictures in 0..1."""
    rows: dict[str, Tensor] = {}
    handles = []

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            assert isinstance(module, nn.Conv2d) and isinstance(module.padding, tuple)
            flat = F.unfold(args[0], module.kernel_size, padding=module.padding).transpose(1, 2).flatten(0, 1)  # type: ignore[arg-type]
            pick = torch.linspace(0, len(flat) - 1, min(ROWS, len(flat)), device=flat.device).long()
            rows[name] = flat[pick]

        return hook

    for name, layer in convolutions(model).items():
        handles.append(layer.register_forward_pre_hook(keep(name)))
    model(images)
    for handle in handles:
        handle.remove()
    return rows


@torch.no_grad()
def quantized_(model: nn.Module, chosen: Format, rows: Mapping[str, Tensor]) -> nn.Module:
    """Replace the decoder's weights by what the format computes with, in place."""
    for name, layer in convolutions(model).items():
        layer.weight.copy_(chosen.round(layer.weight.detach(), rows[name]))
    return model
