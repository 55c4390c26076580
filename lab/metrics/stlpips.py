"""ST-LPIPS, the shift-tolerant perceptual distance, with its AlexNet trunk. Not LPIPS: the numbers differ.

Ghildyal & Liu, "Shift-tolerant Perceptual Similarity Metric" (ECCV 2022, arXiv 2207.13686). Weights out of
``stlpips-pytorch`` 0.0.2. The network is written here from the names and shapes in the state dict; the
package is never imported (it wants torchvision and IPython, and part of its code has a non-commercial
licence).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.errors import InputError
from lab.metrics.pictures import check_pictures
from lab.metrics.weights import load_state, packaged_file

NAME = "ST-LPIPS(AlexNet)"
SHA256 = "b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee"
_FILE = ("stlpips_pytorch", "weights", "vST0.0", "alex_shift_tolerant.pth")
_CONVOLUTIONS = ("slice1.0", "slice2.5", "slice3.9", "slice4.11", "slice5.13")
_BLURS = ("slice1.1", "slice2.4", "slice3.8")
_SMALLEST = 32  # below it the last maps have too few places for the reflected borders


class STLPIPS(nn.Module):
    """Distance of picture pairs: five AlexNet layers, unit length a place, learned channel weights."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(1, 3, 1, 1))
        self.register_buffer("scale", torch.ones(1, 3, 1, 1))
        shapes = [(3, 64, 11, 2), (64, 192, 5, 2), (192, 384, 3, 1), (384, 256, 3, 1), (256, 256, 3, 1)]
        self.convolutions = nn.ModuleList(nn.Conv2d(i, o, k, padding=p) for i, o, k, p in shapes)
        for index, channels in enumerate((64, 64, 192)):
            self.register_buffer(f"blur{index}", torch.zeros(channels, 1, 3, 3))
        self.heads = nn.ParameterList(nn.Parameter(torch.zeros(1, s[1], 1, 1)) for s in shapes)

    def layers(self, images: Tensor) -> list[Tensor]:
        """Return the five maps of pictures (n, 3, H, W) in 0..1."""
        x = (images.to(self.shift.dtype) * 2 - 1 - self.shift) / self.scale
        x = F.relu(self._blurred(self.convolutions[0](x), self.blur0))
        maps = [x]
        for index, blur in ((1, self.blur1), (2, self.blur2)):
            x = self._blurred(F.max_pool2d(x, 3, stride=1), blur)
            x = F.relu(self.convolutions[index](x))
            maps.append(x)
        for index in (3, 4):
            x = F.relu(self.convolutions[index](x))
            maps.append(x)
        return maps

    @staticmethod
    def _blurred(x: Tensor, kernel: Tensor) -> Tensor:
        # Every second place of a blurred map, borders reflected: no aliasing, hence the tolerance to shifts.
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, stride=2, groups=x.shape[1])

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the distance of each pair.

        Parameters
        ----------
        first, second : Tensor of shape (n, 3, H, W) or (n, 1, H, W)
            In 0..1 (not -1..1), at least 32 pixels per side.

        Returns
        -------
        Tensor of shape (n,)
            0 for equal pictures.

        Raises
        ------
        InputError
            Shapes that differ or are too small; values outside of 0..1.
        """
        if first.shape != second.shape or first.ndim != 4 or first.shape[1] not in (1, 3):
            raise InputError(
                f"pictures of shape {tuple(first.shape)} and {tuple(second.shape)}; need equal (n, 3, H, W)"
            )
        if min(first.shape[-2:]) < _SMALLEST:
            raise InputError(
                f"pictures are {tuple(first.shape[-2:])} pixels; {NAME} needs {_SMALLEST} per side"
            )
        check_pictures(first)
        check_pictures(second)
        total = torch.zeros(len(first), device=first.device, dtype=self.shift.dtype)
        ours, theirs = (self.layers(x.expand(-1, 3, -1, -1)) for x in (first, second))
        for head, a, b in zip(self.heads, ours, theirs, strict=True):
            total += (head * (_unit(a) - _unit(b)) ** 2).sum(1).mean((1, 2))
        return total


def _unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)


def load_stlpips(device: str | torch.device = "cpu") -> STLPIPS:
    """Load the distance, frozen and in eval mode.

    Raises
    ------
    InputError
        If the weights package is not installed, or its file is not the known one.
    """
    state = load_state(packaged_file(*_FILE), SHA256)
    ours = {"shift": state["scaling_layer.shift"], "scale": state["scaling_layer.scale"]}
    for index, name in enumerate(_CONVOLUTIONS):
        ours[f"convolutions.{index}.weight"] = state[f"net.{name}.weight"]
        ours[f"convolutions.{index}.bias"] = state[f"net.{name}.bias"]
        ours[f"heads.{index}"] = state[f"lin{index}.model.1.weight"]
    for index, name in enumerate(_BLURS):
        ours[f"blur{index}"] = state[f"net.{name}.filt"]
    network = STLPIPS()
    network.load_state_dict(ours)
    return network.eval().requires_grad_(False).to(device)
