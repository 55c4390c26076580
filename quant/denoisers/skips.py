"""Where a U-Net's skip concatenations join: channels of the first half at each `conv_shortcut`."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from quant.formats.granularity import Granularity
from quant.formats.quantizer import Quantizer

PATTERN = "up_blocks.*.conv_shortcut"


def is_shortcut(name: str) -> bool:
    """Whether a layer sees a skip concatenation, by its diffusers name."""
    return fnmatchcase(name, PATTERN)


def two_ranges(quantizer: Quantizer) -> Quantizer:
    """Give the two halves their own parameters.

    Stored a channel, equal within a half; the granularity is on the reduction axis and costs what two
    products cost.
    """
    return quantizer.model_copy(update={"granularity": Granularity(kind="input_channel")})


def split_points(model: nn.Module) -> dict[str, int]:
    """Channels that come from below, by name of the shortcut; the rest are the skip's.

    diffusers concatenates ``(hidden, skip)``; the hidden state has the previous residual block's channels.
    """
    blocks: Any = getattr(model, "up_blocks", None)
    middle: Any = getattr(model, "mid_block", None)
    if blocks is None or getattr(middle, "resnets", None) is None:
        return {}
    hidden = int(middle.resnets[-1].out_channels)
    found = {}
    for i, block in enumerate(blocks):
        for j, resnet in enumerate(getattr(block, "resnets", ())):
            if getattr(resnet, "conv_shortcut", None) is not None and hidden < resnet.in_channels:
                found[f"up_blocks.{i}.resnets.{j}.conv_shortcut"] = hidden
            hidden = int(resnet.out_channels)
    return found


def halves(low: Tensor, high: Tensor, split: int | None) -> tuple[Tensor, Tensor]:
    """Range of each half in place of each channel's own, (1, C, 1, 1); one range without a split."""
    if split is None:
        return torch.full_like(low, float(low.min())), torch.full_like(high, float(high.max()))
    low, high = low.clone(), high.clone()
    for part in (slice(0, split), slice(split, None)):
        low[:, part], high[:, part] = low[:, part].min(), high[:, part].max()
    return low, high
